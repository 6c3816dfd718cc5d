//! The JSON of one line: an object with exactly one key, which says what the line is.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use data_encoding::HEXLOWER;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize as Read, Serialize as Write};

use super::{Item, Mac, Summary};
use crate::command::EntityRecord;
use crate::error::{EntityKind, Error, Result};

/// The first line.
#[derive(Read, Write)]
#[serde(deny_unknown_fields)]
pub(super) struct Header {
    pub(super) ghostwire_store: u32,
    pub(super) schema: u32,
}

/// Enough of the first line to tell another version of the format from another format.
#[derive(Read)]
pub(super) struct AnyHeader {
    pub(super) ghostwire_store: u32,
}

/// The content of the last line.
#[derive(Read, Write)]
#[serde(deny_unknown_fields)]
pub(super) struct Trailer {
    counts: BTreeMap<EntityKind, u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    state_digest: Option<Hex>,
    sha256: Hex,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mac: Option<MacForm>,
}

#[derive(Read, Write)]
#[serde(deny_unknown_fields)]
struct MacForm {
    key_id: Hex<4>,
    hmac_sha256: Hex,
}

/// The last line.
#[derive(Write)]
pub(super) struct End {
    end: Trailer,
}

impl End {
    pub(super) fn of(summary: &Summary) -> Self {
        Self {
            end: Trailer {
                counts: summary.counts.clone(),
                state_digest: summary.state_digest.map(Hex),
                sha256: Hex(summary.sha256),
                mac: summary.mac.map(|mac| MacForm {
                    key_id: Hex(mac.key_id),
                    hmac_sha256: Hex(mac.hmac_sha256),
                }),
            },
        }
    }
}

impl From<Trailer> for Summary {
    fn from(trailer: Trailer) -> Self {
        Self {
            counts: trailer.counts,
            state_digest: trailer.state_digest.map(|hex| hex.0),
            sha256: trailer.sha256.0,
            mac: trailer
                .mac
                .map(|mac| Mac { key_id: mac.key_id.0, hmac_sha256: mac.hmac_sha256.0 }),
        }
    }
}

/// Bytes as lower-case hex digits.
#[derive(Clone, Copy)]
struct Hex<const BYTES: usize = 32>([u8; BYTES]);

impl<const BYTES: usize> serde::Serialize for Hex<BYTES> {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&HEXLOWER.encode_display(&self.0))
    }
}

impl<'de, const BYTES: usize> Deserialize<'de> for Hex<BYTES> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let bytes = HEXLOWER.decode(text.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
        let wrong = || format!("this has to be {} lower-case hex digits", 2 * BYTES);
        bytes.map(Self).ok_or_else(|| D::Error::custom(wrong()))
    }
}

/// A line after the first.
pub(super) enum Line {
    Item(Item),
    End(Trailer),
}

impl<'de> Deserialize<'de> for Line {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(LineVisitor)
    }
}

struct LineVisitor;

impl<'de> Visitor<'de> for LineVisitor {
    type Value = Line;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with one key, such as {\"user\":{…}}")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Line, A::Error> {
        let Some(kind) = map.next_key::<String>()? else {
            return Err(A::Error::invalid_length(0, &self));
        };
        let line = match kind.as_str() {
            "metric" => Line::Item(Item::Metric(map.next_value()?)),
            "audit" => Line::Item(Item::Audit(map.next_value()?)),
            "end" => Line::End(map.next_value()?),
            name => match EntityRecord::next_of(name, &mut map)? {
                Some(image) => Line::Item(Item::Entity(image)),
                None => return Err(unknown(name)),
            },
        };
        match map.next_key::<String>()? {
            None => Ok(line),
            Some(_) => Err(A::Error::invalid_length(2, &self)),
        }
    }
}

fn unknown<E: serde::de::Error>(name: &str) -> E {
    let known: Vec<_> = EntityKind::ALL.iter().map(|kind| format!("`{kind}`")).collect();
    E::custom(format_args!("unknown variant `{name}`, expected one of {}, `end`", known.join(", ")))
}

/// Finds keys that an object has twice, which maps would take without a word.
struct DistinctKeys;

impl<'de> Deserialize<'de> for DistinctKeys {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(DistinctKeysVisitor)
    }
}

struct DistinctKeysVisitor;

impl<'de> Visitor<'de> for DistinctKeysVisitor {
    type Value = DistinctKeys;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<DistinctKeys, E> {
        Ok(DistinctKeys)
    }

    fn visit_bool<E>(self, _: bool) -> Result<DistinctKeys, E> {
        Ok(DistinctKeys)
    }

    fn visit_i64<E>(self, _: i64) -> Result<DistinctKeys, E> {
        Ok(DistinctKeys)
    }

    fn visit_u64<E>(self, _: u64) -> Result<DistinctKeys, E> {
        Ok(DistinctKeys)
    }

    fn visit_f64<E>(self, _: f64) -> Result<DistinctKeys, E> {
        Ok(DistinctKeys)
    }

    fn visit_str<E>(self, _: &str) -> Result<DistinctKeys, E> {
        Ok(DistinctKeys)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<DistinctKeys, A::Error> {
        while seq.next_element::<DistinctKeys>()?.is_some() {}
        Ok(DistinctKeys)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<DistinctKeys, A::Error> {
        let mut keys = BTreeSet::new();
        while let Some(key) = map.next_key::<String>()? {
            map.next_value::<DistinctKeys>()?;
            if !keys.insert(key) {
                return Err(A::Error::custom(DUPLICATE_KEY));
            }
        }
        Ok(DistinctKeys)
    }
}

const DUPLICATE_KEY: &str = "an object has the same key twice";

/// Reads a line as `T`.
pub(super) fn parse<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T> {
    serde_json::from_slice::<DistinctKeys>(bytes)
        .and_then(|_| serde_json::from_slice(bytes))
        .map_err(|error| explained(bytes, &error))
}

/// Longer ones repeat the line.
const LONGEST_MESSAGE: usize = 300;

/// What is wrong with a line. No hash of a secret is shown, wherever damage or design has put it:
/// where there may be one, no value of the line is shown at all.
fn explained(bytes: &[u8], error: &serde_json::Error) -> Error {
    let message = error.to_string();
    // The position within the line stands on its own; the line's number is the caller's to add.
    let what = message.rsplit_once(" at line ").map_or(message.as_str(), |(what, _)| what);
    let may_show = error.is_syntax()
        || error.is_eof()
        || names_fields_only(what)
        || (what.len() <= LONGEST_MESSAGE && !may_hold_hash(bytes) && !looks_like_hash(what));
    let what = if may_show { what } else { "a field has a value that its type does not allow" };
    Error::corrupt("a line cannot be read").with("column", error.column()).with("problem", what)
}

/// Whether a message has no other words of the line than what can be the name of a field.
fn names_fields_only(message: &str) -> bool {
    let ours = ["missing field", "duplicate field", DUPLICATE_KEY];
    if ours.iter().any(|start| message.starts_with(start)) {
        return true;
    }
    let unknown = message.strip_prefix("unknown field `").and_then(|rest| rest.split_once('`'));
    unknown.is_some_and(|(name, _)| {
        name.len() <= 32 && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
    })
}

/// Whether the line is of a kind that has a hash or a secret, or has something like one. An escape could
/// spell either in another way.
fn may_hold_hash(line: &[u8]) -> bool {
    let marks: [&[u8]; 8] =
        [b"api_key", b"preauth_key", b"sign_in", b"hmac-", b"bcrypt", b"blake3", b"$2", b"\\u"];
    marks.iter().any(|mark| line.windows(mark.len()).any(|window| window == *mark))
}

/// Whether a text has as many digits in a row as only hashes and keys have.
fn looks_like_hash(text: &str) -> bool {
    let is_digit = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '.' | '=');
    text.split(|c| !is_digit(c)).any(|run| run.len() >= 32)
}
