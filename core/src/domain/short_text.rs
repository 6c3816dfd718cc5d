//! Text of numbers, quickly: a heartbeat's row is mostly times and addresses, and the formatting of
//! the standard library was four fifths of what encoding it took.

use std::net::{Ipv4Addr, SocketAddrV4};

/// ASCII text of at most 32 bytes, put together from its end and without an allocation. What does
/// not fit is left out.
pub(crate) struct ShortText {
    bytes: [u8; 32],
    start: usize,
}

impl ShortText {
    pub(super) fn new() -> Self {
        Self { bytes: [0; 32], start: 32 }
    }

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

    /// Prepends a number, padded with zeros to `least` digits.
    pub(super) fn digits(&mut self, mut number: u64, least: u8) -> &mut Self {
        let mut written = 0;
        while number > 0 || written < least {
            self.byte(b'0' + (number % 10) as u8);
            number /= 10;
            written += 1;
        }
        self
    }

    pub(crate) fn as_str(&self) -> &str {
        let text = self.bytes.get(self.start..);
        text.and_then(|text| std::str::from_utf8(text).ok()).unwrap_or_default()
    }
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
        fn numbers_are_filled_with_zeros(number in any::<u64>(), least in 1..12_u8) {
            let mut text = ShortText::new();
            text.digits(number, least);
            prop_assert_eq!(text.as_str(), format!("{number:0width$}", width = least.into()));
        }
    }

    #[test]
    fn what_is_too_long_is_cut() {
        let mut text = ShortText::new();
        for _ in 0..40 {
            text.byte(b'x');
        }
        assert_eq!(text.as_str(), "x".repeat(32));
    }
}
