//! Bech32 (BIP-173) without its limit on length, as age uses it.
//!
//! An identity is a secret, so what depends on its symbols takes the same time for all of them:
//! each is looked up by going through the whole alphabet, and the checksum is computed without
//! branches. Only the prefix, the length and the verdict show.

use zeroize::Zeroizing;

const ALPHABET: &[u8; 32] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";
const GENERATOR: [u32; 5] = [0x3b6a_57b2, 0x2650_8e6d, 0x1ea1_19fa, 0x3d42_33dd, 0x2a14_62b3];
const CHECKSUM: usize = 6;

/// The case of a whole text; Bech32 allows no mixture, and age only one of both for each kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Case {
    Lower,
    Upper,
}

impl Case {
    fn of(self, symbol: u8) -> u8 {
        match self {
            Self::Lower => symbol,
            Self::Upper => symbol.to_ascii_uppercase(),
        }
    }
}

/// The text of `bytes` behind `prefix`, which is given in lower case.
pub(crate) fn encode(prefix: &str, bytes: &[u8], case: Case) -> Zeroizing<String> {
    let mut symbols = Zeroizing::new(Vec::with_capacity(bytes.len() * 8 / 5 + 1 + CHECKSUM));
    let (mut held, mut bits) = (0_u32, 0_u32);
    for &byte in bytes {
        held = (held << 8 | u32::from(byte)) & 0xfff;
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            symbols.push(low(held >> bits));
        }
    }
    if bits > 0 {
        symbols.push(low(held << (5 - bits)));
    }
    let checksum = checksum(prefix, &symbols, [0; CHECKSUM]) ^ 1;
    for place in 0..6 {
        symbols.push(low(checksum >> (5 * (5 - place))));
    }
    let mut text = Zeroizing::new(String::with_capacity(prefix.len() + 1 + symbols.len()));
    text.extend(prefix.bytes().map(|symbol| char::from(case.of(symbol))));
    text.push('1');
    text.extend(symbols.iter().map(|&value| char::from(case.of(symbol_of(value)))));
    text
}

/// The bytes of a text, if it has this prefix and case and is right in every other respect.
pub(crate) fn decode(prefix: &str, text: &[u8], case: Case) -> Option<Zeroizing<Vec<u8>>> {
    let (bytes, wrong) = decode_blindly(prefix, text, case)?;
    (wrong == 0).then_some(bytes)
}

/// The same, and zero if the symbols are right; the outcome is `None` for what is public alone.
pub(crate) fn decode_blindly(
    prefix: &str,
    text: &[u8],
    case: Case,
) -> Option<(Zeroizing<Vec<u8>>, u8)> {
    let (named, data) = text.split_at_checked(prefix.len())?;
    if !named.iter().copied().eq(prefix.bytes().map(|symbol| case.of(symbol))) {
        return None;
    }
    let data = data.strip_prefix(b"1")?;
    let mut wrong = 0;
    let mut symbols = Zeroizing::new(Vec::with_capacity(data.len()));
    for &symbol in data {
        let (value, found) = value_of(symbol, case);
        symbols.push(value);
        wrong |= !found;
    }
    let (symbols, code) = symbols.split_last_chunk::<CHECKSUM>()?;
    wrong |= nonzero(checksum(prefix, symbols, *code) ^ 1);
    let mut bytes = Zeroizing::new(Vec::with_capacity(symbols.len() * 5 / 8));
    let (mut held, mut bits) = (0_u32, 0_u32);
    for &value in symbols {
        held = (held << 5 | u32::from(value)) & 0xfff;
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            bytes.push((held >> bits).to_le_bytes()[0]);
        }
    }
    // What is left is filling: less than a symbol, and zero.
    wrong |= u8::from(bits >= 5) | nonzero(held & ((1 << bits) - 1));
    Some((bytes, wrong))
}

fn low(bits: u32) -> u8 {
    (bits & 31).to_le_bytes()[0]
}

/// Zero if there are none; without a branch.
fn nonzero(bits: u32) -> u8 {
    bits.to_le_bytes().into_iter().fold(0, |all, byte| all | byte)
}

/// All bits set if both are equal, none if not; without a branch.
fn same(one: u8, other: u8) -> u8 {
    let difference = u16::from(one ^ other);
    // Borrows from the upper byte only if there is no difference.
    difference.wrapping_sub(1).to_be_bytes()[0]
}

fn symbol_of(value: u8) -> u8 {
    (0..).zip(ALPHABET).fold(0, |found, (place, symbol)| found | same(place, value) & symbol)
}

/// The value of a symbol, and all bits set if there is one.
fn value_of(symbol: u8, case: Case) -> (u8, u8) {
    (0..).zip(ALPHABET).fold((0, 0), |(value, found), (place, candidate)| {
        let hit = same(symbol, case.of(*candidate));
        (value | hit & place, found | hit)
    })
}

fn checksum(prefix: &str, symbols: &[u8], code: [u8; CHECKSUM]) -> u32 {
    let high = prefix.bytes().map(|symbol| symbol >> 5);
    let low = prefix.bytes().map(|symbol| symbol & 31);
    let prefix = high.chain([0]).chain(low);
    prefix.chain(symbols.iter().copied()).chain(code).fold(1, |sum, value| {
        let top = sum >> 25;
        let sum = (sum & 0x01ff_ffff) << 5 ^ u32::from(value);
        (0..)
            .zip(GENERATOR)
            .fold(sum, |sum, (bit, generator)| sum ^ generator & 0_u32.wrapping_sub(top >> bit & 1))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use proptest::prelude::*;

    use super::*;

    /// Of BIP-173, without those that are longer than its limit or have no data.
    #[test]
    fn the_vectors_of_bip_173() {
        for (prefix, text, case) in [
            ("a", "A12UEL5L", Case::Upper),
            ("a", "a12uel5l", Case::Lower),
            (
                "an83characterlonghumanreadablepartthatcontainsthenumber1andtheexcludedcharactersbio",
                "an83characterlonghumanreadablepartthatcontainsthenumber1andtheexcludedcharactersbio1tt5tgs",
                Case::Lower,
            ),
            ("abcdef", "abcdef1qpzry9x8gf2tvdw0s3jn54khce6mua7lmqqqxw", Case::Lower),
            ("split", "split1checkupstagehandshakeupstreamerranterredcaperred2y9e3w", Case::Lower),
            ("?", "?1ezyfcl", Case::Lower),
        ] {
            let bytes = decode(prefix, text.as_bytes(), case).unwrap();
            assert_eq!(*encode(prefix, &bytes, case), text);
        }
        for (prefix, text) in [
            ("x", "x1b4n0q5v"),
            ("li", "li1dgmt3"),
            ("a", "A1G7SGD8"),
            ("a", "a12uel5L"),
            ("a", "1a12uel5l"),
            ("a", "a"),
            ("a", "a1"),
            ("a", ""),
        ] {
            assert!(decode(prefix, text.as_bytes(), Case::Lower).is_none(), "{text}");
            assert!(decode(prefix, text.as_bytes(), Case::Upper).is_none(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_text_comes_back_and_a_changed_one_does_not(
            bytes in prop::collection::vec(any::<u8>(), 0..80),
            upper: bool,
            place: prop::sample::Index,
            other in any::<char>(),
        ) {
            let case = if upper { Case::Upper } else { Case::Lower };
            let text = encode("age1pq", &bytes, case);
            prop_assert_eq!(&*decode("age1pq", text.as_bytes(), case).unwrap(), &bytes);
            let mut changed: Vec<char> = text.chars().collect();
            let place = place.index(changed.len());
            prop_assume!(changed[place] != other);
            changed[place] = other;
            prop_assert!(decode("age1pq", changed.into_iter().collect::<String>().as_bytes(), case).is_none());
        }
    }
}
