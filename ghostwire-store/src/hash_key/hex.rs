//! Hexadecimal digits of a key, read and written in a time that does not depend on them.

use zeroize::Zeroizing;

/// The key of 64 digits.
pub(super) fn decode(text: &[u8]) -> Option<Zeroizing<[u8; 32]>> {
    let (pairs, []) = text.as_chunks::<2>() else { return None };
    let mut key = Zeroizing::new([0; 32]);
    if pairs.len() != key.len() {
        return None;
    }
    let mut wrong = 0;
    for (byte, [high, low]) in key.iter_mut().zip(pairs) {
        let ((high, first), (low, second)) = (value(*high), value(*low));
        *byte = high << 4 | low;
        wrong |= first | second;
    }
    (wrong == 0).then_some(key)
}

/// The digits of a key or a number.
pub(super) fn encode(bytes: &[u8]) -> Zeroizing<String> {
    // With room for the end of a line: growing would leave a copy behind.
    let mut text = Zeroizing::new(String::with_capacity(2 * bytes.len() + 1));
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    text.extend(digits.map(|value| char::from(digit(value))));
    text
}

/// All bits set if `low <= byte <= high`, else none.
fn within(byte: u8, low: u8, high: u8) -> u8 {
    let (byte, low, high) = (u16::from(byte), u16::from(low), u16::from(high));
    // A difference below zero borrows from the upper byte.
    let outside = byte.wrapping_sub(low) | high.wrapping_sub(byte);
    (!(outside >> 8)).to_be_bytes()[1]
}

/// The value of a digit, and whether it is none.
fn value(digit: u8) -> (u8, u8) {
    let numeral = within(digit, b'0', b'9');
    let small = within(digit, b'a', b'f');
    let capital = within(digit, b'A', b'F');
    let value = numeral & digit.wrapping_sub(b'0')
        | small & digit.wrapping_sub(b'a' - 10)
        | capital & digit.wrapping_sub(b'A' - 10);
    (value, !(numeral | small | capital))
}

fn digit(value: u8) -> u8 {
    let letter = within(value, 10, 15);
    letter & (b'a' - 10).wrapping_add(value) | !letter & b'0'.wrapping_add(value)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_a_digit_or_not() {
        for byte in 0..=u8::MAX {
            let mut text = [b'0'; 64];
            text[63] = byte;
            let expected = char::from(byte).to_digit(16);
            let found = decode(&text).and_then(|key| key.last().copied()).map(u32::from);
            assert_eq!(found, expected, "{byte}");
        }
    }

    #[test]
    fn keys_come_back() {
        let key: [u8; 32] = std::array::from_fn(|at| u8::try_from(at * 7 % 256).unwrap());
        assert_eq!(decode(encode(&key).as_bytes()), Some(key.into()));
        assert_eq!(decode(encode(&key).to_uppercase().as_bytes()), Some(key.into()));
        assert_eq!(*encode(&[0x0f, 0xa0]), "0fa0");
        for length in [0, 1, 62, 63, 65, 66] {
            assert_eq!(decode(&vec![b'0'; length]), None);
        }
    }
}
