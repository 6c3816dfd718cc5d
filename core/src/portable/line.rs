//! The JSON of one line: an object with exactly one key, which says what the line is.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use data_encoding::HEXLOWER;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize as Read, Serialize as Write};

use super::{Item, Summary};
use crate::command::Image;
use crate::error::{Entity, Error, Result};

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
    counts: BTreeMap<Entity, u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    state_digest: Option<Hex>,
    sha256: Hex,
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
        }
    }
}

/// 32 bytes as lower-case hex digits.
#[derive(Clone, Copy)]
struct Hex([u8; 32]);

impl serde::Serialize for Hex {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&HEXLOWER.encode_display(&self.0))
    }
}

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let bytes = HEXLOWER.decode(text.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or_else(|| D::Error::custom("a digest is 64 lower-case hex digits"))
    }
}

/// A line behind the first.
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
        const KINDS: &[&str] = &[
            "user",
            "node",
            "presence",
            "route",
            "api_key",
            "preauth_key",
            "policy",
            "dns_record",
            "session",
            "setting",
            "metric",
            "audit",
            "end",
        ];
        let Some(kind) = map.next_key::<String>()? else {
            return Err(A::Error::invalid_length(0, &self));
        };
        let item = |image| Line::Item(Item::Image(image));
        let line = match kind.as_str() {
            "user" => item(Image::User(map.next_value()?)),
            "node" => item(Image::Node(map.next_value()?)),
            "presence" => item(Image::Presence(map.next_value()?)),
            "route" => item(Image::Route(map.next_value()?)),
            "api_key" => item(Image::ApiKey(map.next_value()?)),
            "preauth_key" => item(Image::PreAuthKey(map.next_value()?)),
            "policy" => item(Image::Policy(map.next_value()?)),
            "dns_record" => item(Image::DnsRecord(map.next_value()?)),
            "session" => item(Image::Session(map.next_value()?)),
            "setting" => item(Image::Setting(map.next_value()?)),
            "metric" => Line::Item(Item::Metric(map.next_value()?)),
            "audit" => Line::Item(Item::Audit(map.next_value()?)),
            "end" => Line::End(map.next_value()?),
            _ => return Err(A::Error::unknown_variant(&kind, KINDS)),
        };
        match map.next_key::<String>()? {
            None => Ok(line),
            Some(_) => Err(A::Error::invalid_length(2, &self)),
        }
    }
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

/// What is wrong with a line. Lines that hold hashes of secrets are described without any value of
/// theirs, also when damage has put a hash where a number should be.
fn explained(bytes: &[u8], error: &serde_json::Error) -> Error {
    let message = error.to_string();
    let secret = [&b"{\"api_key"[..], b"{\"preauth", b"{\"session"];
    let names_fields_only = ["unknown field", "missing field", "duplicate field", DUPLICATE_KEY];
    let may_show = error.is_syntax()
        || error.is_eof()
        || !secret.iter().any(|start| bytes.starts_with(start))
        || names_fields_only.iter().any(|start| message.starts_with(start));
    // The position within the line stands on its own; the line's number is the caller's to add.
    let what = message.rsplit_once(" at line ").map_or(message.as_str(), |(what, _)| what);
    let what = if may_show { what } else { "a field has a value that its type does not allow" };
    Error::corrupt("a line cannot be read").with("column", error.column()).with("problem", what)
}
