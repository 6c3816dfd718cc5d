//! Text of numbers, quickly: a heartbeat's row is mostly times and addresses, and the formatting of
//! the standard library was four fifths of what encoding it took.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4};
use std::ops::Range;

/// ASCII text of at most `MOST` bytes, put together from its end and without an allocation. What does
/// not fit is left out.
pub(crate) struct ShortText<const MOST: usize = 32> {
    bytes: [u8; MOST],
    start: usize,
}

impl ShortText {
    /// `192.0.2.1`.
    pub(crate) fn of_ip(ip: Ipv4Addr) -> Self {
        let mut text = Self::new();
        text.ip(ip);
        text
    }

    /// `192.0.2.1:41641`.
    pub(super) fn of_socket(address: SocketAddrV4) -> Self {
        let mut text = Self::new();
        text.digits(address.port().into(), 1).byte(b':').ip(*address.ip());
        text
    }
}

impl ShortText<48> {
    /// `2001:db8::1`, as RFC 5952 has it.
    pub(crate) fn of_ipv6(ip: Ipv6Addr) -> Self {
        let mut text = Self::new();
        if let Some(mapped) = ip.to_ipv4_mapped() {
            text.ip(mapped);
            for byte in b"::ffff:".iter().rev() {
                text.byte(*byte);
            }
            return text;
        }
        let segments = ip.segments();
        let left_out = longest_zeros(segments);
        for (index, segment) in segments.into_iter().enumerate().rev() {
            if index == left_out.start && !left_out.is_empty() {
                text.byte(b':').byte(b':');
            } else if !left_out.contains(&index) {
                text.hexadecimal(segment);
                if index > 0 && !left_out.contains(&(index - 1)) {
                    text.byte(b':');
                }
            }
        }
        text
    }
}

impl<const MOST: usize> ShortText<MOST> {
    pub(super) fn new() -> Self {
        Self { bytes: [0; MOST], start: MOST }
    }

    fn ip(&mut self, ip: Ipv4Addr) {
        let [a, b, c, d] = ip.octets().map(u64::from);
        self.digits(d, 1).byte(b'.').digits(c, 1).byte(b'.').digits(b, 1).byte(b'.').digits(a, 1);
    }

    /// Prepends a byte.
    pub(super) fn byte(&mut self, byte: u8) -> &mut Self {
        if let Some(start) = self.start.checked_sub(1)
            && let Some(slot) = self.bytes.get_mut(start)
        {
            *slot = byte;
            self.start = start;
        }
        self
    }

    /// Prepends a number in lower case.
    fn hexadecimal(&mut self, mut number: u16) {
        loop {
            let digit = (number % 16) as u8;
            self.byte(if digit < 10 { b'0' + digit } else { b'a' - 10 + digit });
            number /= 16;
            if number == 0 {
                return;
            }
        }
    }

    /// Prepends a number, padded with zeros to `least` digits.
    pub(super) fn digits(&mut self, mut number: u64, least: u8) -> &mut Self {
        let mut written = 0;
        // Two at a time as long as both are wanted in any case.
        while written + 2 <= least {
            self.pair((number % 100) as u8);
            number /= 100;
            written += 2;
        }
        while number > 0 || written < least {
            self.byte(b'0' + (number % 10) as u8);
            number /= 10;
            written += 1;
        }
        self
    }

    /// Prepends two digits.
    fn pair(&mut self, number: u8) {
        if let Some(start) = self.start.checked_sub(2)
            && let Some(slot) = self.bytes.get_mut(start..self.start)
        {
            slot.copy_from_slice(&[b'0' + number / 10, b'0' + number % 10]);
            self.start = start;
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        let text = self.bytes.get(self.start..);
        text.and_then(|text| std::str::from_utf8(text).ok()).unwrap_or_default()
    }
}

/// The longest run of several zeros, the first of those that are equally long; empty if there is none.
fn longest_zeros(segments: [u16; 8]) -> Range<usize> {
    let (mut longest, mut run) = (0..1, 0..0);
    for (index, segment) in segments.into_iter().enumerate() {
        if segment != 0 {
            run = index + 1..index + 1;
            continue;
        }
        run.end = index + 1;
        if run.len() > longest.len() {
            longest = run.clone();
        }
    }
    if longest.len() > 1 { longest } else { 0..0 }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddrV4};

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_socket_address_is_as_the_standard_library_writes_it(ip in any::<u32>(), port in any::<u16>()) {
            let address = SocketAddrV4::new(Ipv4Addr::from(ip), port);
            let text = ShortText::of_socket(address);
            prop_assert_eq!(text.as_str(), address.to_string());
            let text = ShortText::of_ip(*address.ip());
            prop_assert_eq!(text.as_str(), address.ip().to_string());
        }

        #[test]
        fn an_ipv6_address_is_as_the_standard_library_writes_it(
            segments: [u16; 8],
            zeros: [bool; 8],
            front in prop::option::of(prop::sample::select(vec![0_u16, 0xffff])),
        ) {
            let mut segments = segments;
            for (segment, zero) in segments.iter_mut().zip(zeros) {
                *segment *= u16::from(!zero);
            }
            if let (Some(sixth), [first @ .., last, _, _]) = (front, &mut segments) {
                first.fill(0);
                *last = sixth;
            }
            let address = Ipv6Addr::from(segments);
            let text = ShortText::of_ipv6(address);
            prop_assert_eq!(text.as_str(), address.to_string());
        }

        #[test]
        fn numbers_are_filled_with_zeros(number in any::<u64>(), least in 1..12_u8) {
            let mut text = ShortText::<32>::new();
            text.digits(number, least);
            prop_assert_eq!(text.as_str(), format!("{number:0width$}", width = least.into()));
        }
    }

    #[test]
    fn what_is_too_long_is_cut() {
        let mut text = ShortText::<5>::new();
        for _ in 0..9 {
            text.byte(b'x');
        }
        assert_eq!(text.as_str(), "xxxxx");
        let mut text = ShortText::<5>::new();
        text.digits(123_456, 6);
        assert_eq!(text.as_str(), "3456");
    }
}
