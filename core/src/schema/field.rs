//! How each domain type looks as a column.

use std::fmt::Display;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;

use super::table::ColumnKind;
use super::value::{RowWriter, Value};
use crate::block::Serial;
use crate::domain::short_text::ShortText;
use crate::domain::*;
use crate::error::{Error, Result};
use crate::position::Position;

/// A type that is one column of a row.
pub(crate) trait Field: Sized {
    const KIND: ColumnKind;
    const NULLABLE: bool = false;

    fn write(&self, row: &mut RowWriter<'_>);

    /// The inverse of `write`; refuses, as `Corrupt`, what the type would not admit.
    fn read(value: Value<'_>) -> Result<Self>;
}

fn unfit(value: Value<'_>) -> Error {
    let found = match value {
        Value::Null => "null",
        Value::Integer(_) => "an integer",
        Value::Real(_) => "a float",
        Value::Text(_) => "text",
        Value::Bytes(_) => "bytes",
    };
    Error::corrupt("a stored column has the wrong type").with("found", found)
}

fn damaged(error: Error) -> Error {
    Error::corrupt("a stored column breaks a rule of its type").because(error)
}

fn integer(value: Value<'_>) -> Result<i64> {
    let Value::Integer(integer) = value else { return Err(unfit(value)) };
    Ok(integer)
}

fn text(value: Value<'_>) -> Result<&str> {
    let Value::Text(text) = value else { return Err(unfit(value)) };
    Ok(text)
}

fn bytes<const N: usize>(value: Value<'_>) -> Result<[u8; N]> {
    let Value::Bytes(bytes) = value else { return Err(unfit(value)) };
    bytes.try_into().map_err(|_| unfit(value))
}

fn parse<T: FromStr<Err = Error>>(value: Value<'_>) -> Result<T> {
    text(value)?.parse().map_err(damaged)
}

fn stored<T: Stored>(value: Value<'_>) -> Result<T> {
    T::stored(text(value)?).map_err(damaged)
}

fn json<T: serde::de::DeserializeOwned>(value: Value<'_>) -> Result<T> {
    serde_json::from_str(text(value)?)
        .map_err(|error| Error::corrupt("a stored JSON column is invalid").because(error))
}

impl<T: Field> Field for Option<T> {
    const KIND: ColumnKind = T::KIND;
    const NULLABLE: bool = true;

    fn write(&self, row: &mut RowWriter<'_>) {
        match self {
            Some(value) => value.write(row),
            None => row.put(Value::Null),
        }
    }

    fn read(value: Value<'_>) -> Result<Self> {
        if value == Value::Null { Ok(None) } else { T::read(value).map(Some) }
    }
}

impl Field for bool {
    const KIND: ColumnKind = ColumnKind::Bool;

    fn write(&self, row: &mut RowWriter<'_>) {
        row.put(Value::Integer(i64::from(*self)));
    }

    fn read(value: Value<'_>) -> Result<Self> {
        match integer(value)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(unfit(value)),
        }
    }
}

impl Field for u32 {
    const KIND: ColumnKind = ColumnKind::Integer;

    fn write(&self, row: &mut RowWriter<'_>) {
        row.put(Value::Integer(i64::from(*self)));
    }

    fn read(value: Value<'_>) -> Result<Self> {
        Self::try_from(integer(value)?).map_err(|_| unfit(value))
    }
}

/// The default is null.
impl Field for RouteMetric {
    const KIND: ColumnKind = ColumnKind::Integer;
    const NULLABLE: bool = true;

    fn write(&self, row: &mut RowWriter<'_>) {
        (!self.is_default()).then_some(self.get()).write(row);
    }

    fn read(value: Value<'_>) -> Result<Self> {
        Option::read(value).map(|metric| Self::new(metric.unwrap_or_default()))
    }
}

impl Field for Sample {
    const KIND: ColumnKind = ColumnKind::Real;

    fn write(&self, row: &mut RowWriter<'_>) {
        row.put(Value::Real(self.get()));
    }

    fn read(value: Value<'_>) -> Result<Self> {
        let Value::Real(real) = value else { return Err(unfit(value)) };
        Self::new(real).map_err(damaged)
    }
}

impl Field for Timestamp {
    const KIND: ColumnKind = ColumnKind::Time;

    fn write(&self, row: &mut RowWriter<'_>) {
        row.put(Value::Integer(self.as_micros()));
    }

    fn read(value: Value<'_>) -> Result<Self> {
        Self::from_micros(integer(value)?).map_err(damaged)
    }
}

macro_rules! counters {
    ($($type:ty),*) => {$(
        impl Field for $type {
            const KIND: ColumnKind = ColumnKind::Integer;

            fn write(&self, row: &mut RowWriter<'_>) {
                row.put(Value::Integer(i64::try_from(self.get()).unwrap_or(i64::MAX)));
            }

            fn read(value: Value<'_>) -> Result<Self> {
                let number = u64::try_from(integer(value)?).map_err(|_| unfit(value))?;
                Self::new(number).map_err(damaged)
            }
        }
    )*};
}
counters!(Revision, SessionNumber);

impl Field for u64 {
    const KIND: ColumnKind = ColumnKind::Integer;

    /// Cut to `i64::MAX`.
    fn write(&self, row: &mut RowWriter<'_>) {
        row.put(Value::Integer(i64::try_from(*self).unwrap_or(i64::MAX)));
    }

    fn read(value: Value<'_>) -> Result<Self> {
        Self::try_from(integer(value)?).map_err(|_| unfit(value))
    }
}

macro_rules! counts {
    ($($type:ty),*) => {$(
        impl Field for $type {
            const KIND: ColumnKind = ColumnKind::Integer;

            fn write(&self, row: &mut RowWriter<'_>) {
                self.get().write(row);
            }

            fn read(value: Value<'_>) -> Result<Self> {
                u64::read(value).map(Self::new)
            }
        }
    )*};
}
counts!(Serial, Position);

impl Field for Bytes {
    const KIND: ColumnKind = ColumnKind::Bytes;

    fn write(&self, row: &mut RowWriter<'_>) {
        row.put(Value::Bytes(self));
    }

    fn read(value: Value<'_>) -> Result<Self> {
        let Value::Bytes(bytes) = value else { return Err(unfit(value)) };
        Ok(Self::copy_from_slice(bytes))
    }
}

impl<I: Id> Field for I {
    const KIND: ColumnKind = ColumnKind::Id;

    fn write(&self, row: &mut RowWriter<'_>) {
        row.put(Value::Bytes(self.as_bytes()));
    }

    fn read(value: Value<'_>) -> Result<Self> {
        Self::from_bytes(bytes(value)?).not_nil().map_err(damaged)
    }
}

macro_rules! keys {
    ($($type:ty: $prefix:literal),*) => {$(
        impl Field for $type {
            const KIND: ColumnKind = ColumnKind::Key($prefix);

            fn write(&self, row: &mut RowWriter<'_>) {
                row.put(Value::Bytes(self.as_bytes()));
            }

            fn read(value: Value<'_>) -> Result<Self> {
                Self::from_bytes(bytes(value)?).map_err(damaged)
            }
        }
    )*};
}
keys!(MachineKey: "mkey:", NodeKey: "nodekey:", DiscoKey: "discokey:");

macro_rules! texts {
    ($read:ident: $($type:ty),*) => {$(
        impl Field for $type {
            const KIND: ColumnKind = ColumnKind::Text;

            fn write(&self, row: &mut RowWriter<'_>) {
                row.put(Value::Text(self.as_str()));
            }

            fn read(value: Value<'_>) -> Result<Self> {
                $read(value)
            }
        }
    )*};
}
texts!(parse: DnsLabel, DnsName, InstanceName, KeyPrefix, SecretHash, DocumentText, MetricName, ResourceKind);
texts!(stored: UserName, Hostname, Email, ActorName, UserAgent);

impl<const MAX: usize> Field for Text<MAX> {
    const KIND: ColumnKind = ColumnKind::Text;

    fn write(&self, row: &mut RowWriter<'_>) {
        row.put(Value::Text(self.as_str()));
    }

    fn read(value: Value<'_>) -> Result<Self> {
        Self::new(text(value)?).map_err(damaged)
    }
}

impl Field for SignInPayload {
    const KIND: ColumnKind = ColumnKind::Text;

    fn write(&self, row: &mut RowWriter<'_>) {
        row.put(Value::Text(self.expose()));
    }

    fn read(value: Value<'_>) -> Result<Self> {
        Self::new(text(value)?).map_err(damaged)
    }
}

/// Writes short `Display` text without allocating.
fn write_displayed(value: impl Display, row: &mut RowWriter<'_>) {
    use std::fmt::Write;
    let mut text = DisplayBuffer { bytes: [0; 64], length: 0 };
    if write!(text, "{value}").is_ok() {
        row.put(Value::Text(text.as_str()));
    } else {
        row.put(Value::Text(&value.to_string()));
    }
}

struct DisplayBuffer {
    bytes: [u8; 64],
    length: usize,
}

impl DisplayBuffer {
    fn as_str(&self) -> &str {
        self.bytes
            .get(..self.length)
            .and_then(|bytes| std::str::from_utf8(bytes).ok())
            .unwrap_or_default()
    }
}

impl std::fmt::Write for DisplayBuffer {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let end = self.length + text.len();
        self.bytes
            .get_mut(self.length..end)
            .ok_or(std::fmt::Error)?
            .copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}

macro_rules! addresses {
    ($($type:ty: $write:expr),*) => {$(
        impl Field for $type {
            const KIND: ColumnKind = ColumnKind::Text;

            fn write(&self, row: &mut RowWriter<'_>) {
                $write(*self, row);
            }

            fn read(value: Value<'_>) -> Result<Self> {
                text(value)?
                    .parse()
                    .map_err(|error| Error::corrupt("a stored address is invalid").because(error))
            }
        }
    )*};
}
addresses!(
    Ipv4Addr: |ip, row: &mut RowWriter<'_>| row.put(Value::Text(ShortText::of_ip(ip).as_str())),
    Ipv6Addr: |ip, row: &mut RowWriter<'_>| row.put(Value::Text(ShortText::of_ipv6(ip).as_str()))
);

impl Field for AuditSubject {
    const KIND: ColumnKind = ColumnKind::Text;

    fn write(&self, row: &mut RowWriter<'_>) {
        row.put_text_of(&self.parts());
    }

    fn read(value: Value<'_>) -> Result<Self> {
        parse(value)
    }
}

/// Types whose column is their text form.
macro_rules! displayed {
    ($($type:ty),*) => {$(
        impl Field for $type {
            const KIND: ColumnKind = ColumnKind::Text;

            fn write(&self, row: &mut RowWriter<'_>) {
                write_displayed(self, row);
            }

            fn read(value: Value<'_>) -> Result<Self> {
                parse(value)
            }
        }
    )*};
}
displayed!(Prefix, PeerAddress);

impl Field for AuditDetails {
    const KIND: ColumnKind = ColumnKind::Json;

    fn write(&self, row: &mut RowWriter<'_>) {
        row.put(Value::Text(self.as_str()));
    }

    fn read(value: Value<'_>) -> Result<Self> {
        parse(value)
    }
}

impl Field for HostInfo {
    const KIND: ColumnKind = ColumnKind::Json;

    fn write(&self, row: &mut RowWriter<'_>) {
        row.put(Value::Text(self.as_str()));
    }

    fn read(value: Value<'_>) -> Result<Self> {
        JsonObject::new(text(value)?).map(Self::new).map_err(damaged)
    }
}

impl Field for JsonObject {
    const KIND: ColumnKind = ColumnKind::Json;

    fn write(&self, row: &mut RowWriter<'_>) {
        row.put(Value::Text(self.as_str()));
    }

    fn read(value: Value<'_>) -> Result<Self> {
        Self::new(text(value)?).map_err(damaged)
    }
}

/// Types whose column is their JSON form.
macro_rules! json {
    ($($type:ty),*) => {$(
        impl Field for $type {
            const KIND: ColumnKind = ColumnKind::Json;

            fn write(&self, row: &mut RowWriter<'_>) {
                // These types have no map with non-text keys and no failing serialiser.
                let text = serde_json::to_string(self).unwrap_or_default();
                row.put(Value::Text(&text));
            }

            fn read(value: Value<'_>) -> Result<Self> {
                json(value)
            }
        }
    )*};
}
json!(Identity, SessionOwner, SettingDocument, Arc<NodeSettings>);

/// Writes a list as JSON, with room for endpoints of IPv4 from the beginning: heartbeats bring two.
fn write_list(list: &impl serde::Serialize, entries: usize, row: &mut RowWriter<'_>) {
    let mut text = Vec::with_capacity(80 * entries);
    let written = serde_json::to_writer(&mut text, list).ok();
    let text = written.and_then(|()| std::str::from_utf8(&text).ok());
    row.put(Value::Text(text.unwrap_or_default()));
}

/// Lists are JSON too, but mostly empty, which must cost nothing.
macro_rules! json_lists {
    ($($type:ty),*) => {$(
        impl Field for $type {
            const KIND: ColumnKind = ColumnKind::Json;

            fn write(&self, row: &mut RowWriter<'_>) {
                if self.is_empty() {
                    return row.put(Value::Text("[]"));
                }
                write_list(self, self.len(), row);
            }

            fn read(value: Value<'_>) -> Result<Self> {
                if value == Value::Text("[]") { Ok(Self::empty()) } else { json(value) }
            }
        }
    )*};
}
json_lists!(TagSet, EndpointList);

/// Lists whose column came later: null while they are empty.
macro_rules! later_lists {
    ($($type:ty),*) => {$(
        impl Field for $type {
            const KIND: ColumnKind = ColumnKind::Json;
            const NULLABLE: bool = true;

            fn write(&self, row: &mut RowWriter<'_>) {
                if self.is_empty() {
                    return row.put(Value::Null);
                }
                let text = serde_json::to_string(self).unwrap_or_default();
                row.put(Value::Text(&text));
            }

            fn read(value: Value<'_>) -> Result<Self> {
                match value {
                    Value::Null => Ok(Self::empty()),
                    Value::Text("[]") => Err(Error::corrupt("a stored list is empty, not null")),
                    value => json(value),
                }
            }
        }
    )*};
}
later_lists!(GroupSet, PermissionSet);

/// Null for who was given no other.
impl Field for UserRole {
    const KIND: ColumnKind = ColumnKind::Text;
    const NULLABLE: bool = true;

    fn write(&self, row: &mut RowWriter<'_>) {
        row.put(if self.is_member() { Value::Null } else { Value::Text(self.name()) });
    }

    fn read(value: Value<'_>) -> Result<Self> {
        if value == Value::Null {
            return Ok(Self::Member);
        }
        let word = text(value)?;
        let role = Self::ALL.into_iter().find(|role| role.name() == word && !role.is_member());
        role.ok_or_else(|| Error::corrupt("a stored word is unknown").with("word", word))
    }
}

/// Enums whose column is one of a few words.
macro_rules! words {
    ($($type:ty { $($variant:ident = $word:literal),+ $(,)? })*) => {$(
        impl Field for $type {
            const KIND: ColumnKind = ColumnKind::Text;

            fn write(&self, row: &mut RowWriter<'_>) {
                row.put(Value::Text(match self { $(Self::$variant => $word),+ }));
            }

            fn read(value: Value<'_>) -> Result<Self> {
                match text(value)? {
                    $($word => Ok(Self::$variant),)+
                    word => Err(Error::corrupt("a stored word is unknown").with("word", word)),
                }
            }
        }
    )*};
}
words! {
    RegisterMethod { AuthKey = "auth_key", Oidc = "oidc", Cli = "cli" }
    DnsRecordKind {
        A = "A", Aaaa = "AAAA", Cname = "CNAME", Txt = "TXT", Mx = "MX", Ptr = "PTR", Srv = "SRV",
    }
}

/// The default is null.
impl Field for AddressFamilies {
    const KIND: ColumnKind = ColumnKind::Text;
    const NULLABLE: bool = true;

    fn write(&self, row: &mut RowWriter<'_>) {
        row.put(if self.is_default() { Value::Null } else { Value::Text(self.name()) });
    }

    fn read(value: Value<'_>) -> Result<Self> {
        if value == Value::Null {
            return Ok(Self::Both);
        }
        let word = text(value)?;
        let limit = [Self::Ipv4, Self::Ipv6].into_iter().find(|families| families.name() == word);
        limit.ok_or_else(|| Error::corrupt("a stored word is unknown").with("word", word))
    }
}

/// Null is success, which most lines tell of.
impl Field for AuditResult {
    const KIND: ColumnKind = ColumnKind::Text;
    const NULLABLE: bool = true;

    fn write(&self, row: &mut RowWriter<'_>) {
        match self {
            Self::Success => row.put(Value::Null),
            other => row.put(Value::Text(other.name())),
        }
    }

    fn read(value: Value<'_>) -> Result<Self> {
        match value {
            Value::Null => Ok(Self::Success),
            Value::Text("denied") => Ok(Self::Denied),
            Value::Text("failed") => Ok(Self::Failed),
            Value::Text(word) => Err(Error::corrupt("a stored word is unknown").with("word", word)),
            other => Err(unfit(other)),
        }
    }
}
