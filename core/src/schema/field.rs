//! How each domain type looks as a column.

use std::fmt::Display;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use super::table::ColumnKind;
use super::value::{RowWriter, Value};
use crate::domain::short_text::ShortText;
use crate::domain::*;
use crate::error::{Entity, Error, Result};

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

fn parse<T: FromStr<Err = Error>>(value: Value<'_>) -> Result<T> {
    match value {
        Value::Text(text) => text.parse().map_err(damaged),
        other => Err(unfit(other)),
    }
}

fn stored<T: Stored>(value: Value<'_>) -> Result<T> {
    match value {
        Value::Text(text) => T::stored(text).map_err(damaged),
        other => Err(unfit(other)),
    }
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
        match value {
            Value::Integer(0) => Ok(false),
            Value::Integer(1) => Ok(true),
            other => Err(unfit(other)),
        }
    }
}

impl Field for u32 {
    const KIND: ColumnKind = ColumnKind::Integer;

    fn write(&self, row: &mut RowWriter<'_>) {
        row.put(Value::Integer(i64::from(*self)));
    }

    fn read(value: Value<'_>) -> Result<Self> {
        match value {
            Value::Integer(integer) => Self::try_from(integer).map_err(|_| unfit(value)),
            other => Err(unfit(other)),
        }
    }
}

impl Field for Sample {
    const KIND: ColumnKind = ColumnKind::Real;

    fn write(&self, row: &mut RowWriter<'_>) {
        row.put(Value::Real(self.get()));
    }

    fn read(value: Value<'_>) -> Result<Self> {
        match value {
            Value::Real(real) => Self::new(real).map_err(damaged),
            other => Err(unfit(other)),
        }
    }
}

impl Field for Timestamp {
    const KIND: ColumnKind = ColumnKind::Time;

    fn write(&self, row: &mut RowWriter<'_>) {
        row.put(Value::Integer(self.as_micros()));
    }

    fn read(value: Value<'_>) -> Result<Self> {
        match value {
            Value::Integer(micros) => Self::from_micros(micros).map_err(damaged),
            other => Err(unfit(other)),
        }
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
                let Value::Integer(integer) = value else { return Err(unfit(value)) };
                let number = u64::try_from(integer).map_err(|_| unfit(value))?;
                Self::new(number).map_err(damaged)
            }
        }
    )*};
}
counters!(Revision, SessionNumber);

macro_rules! ids {
    ($($type:ty),*) => {$(
        impl Field for $type {
            const KIND: ColumnKind = ColumnKind::Id;

            fn write(&self, row: &mut RowWriter<'_>) {
                row.put(Value::Bytes(self.as_bytes()));
            }

            fn read(value: Value<'_>) -> Result<Self> {
                match value {
                    Value::Bytes(bytes) => {
                        let id = bytes.try_into().map(Self::from_bytes);
                        id.map_err(|_| unfit(value))?.not_nil().map_err(damaged)
                    }
                    other => Err(unfit(other)),
                }
            }
        }
    )*};
}
ids!(UserId, NodeId, PreAuthKeyId);

macro_rules! keys {
    ($($type:ty: $prefix:literal),*) => {$(
        impl Field for $type {
            const KIND: ColumnKind = ColumnKind::Key($prefix);

            fn write(&self, row: &mut RowWriter<'_>) {
                row.put(Value::Bytes(self.as_bytes()));
            }

            fn read(value: Value<'_>) -> Result<Self> {
                match value {
                    Value::Bytes(bytes) => {
                        let bytes = bytes.try_into().map_err(|_| unfit(value))?;
                        Self::from_bytes(bytes).map_err(damaged)
                    }
                    other => Err(unfit(other)),
                }
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
texts!(parse: DnsLabel, DnsName, KeyPrefix, SecretHash, DocumentText, MetricName);
texts!(stored: UserName, Hostname, Email, ActorName);

impl<const MAX: usize> Field for Text<MAX> {
    const KIND: ColumnKind = ColumnKind::Text;

    fn write(&self, row: &mut RowWriter<'_>) {
        row.put(Value::Text(self.as_str()));
    }

    fn read(value: Value<'_>) -> Result<Self> {
        match value {
            Value::Text(text) => Self::new(text).map_err(damaged),
            other => Err(unfit(other)),
        }
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
                match value {
                    Value::Text(text) => text
                        .parse()
                        .map_err(|error| Error::corrupt("a stored address is invalid").because(error)),
                    other => Err(unfit(other)),
                }
            }
        }
    )*};
}
addresses!(
    Ipv4Addr: |ip, row: &mut RowWriter<'_>| row.put(Value::Text(ShortText::of_ip(ip).as_str())),
    Ipv6Addr: write_displayed
);

impl Field for Prefix {
    const KIND: ColumnKind = ColumnKind::Text;

    fn write(&self, row: &mut RowWriter<'_>) {
        write_displayed(self, row);
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
        match value {
            Value::Text(text) => JsonObject::new(text).map(Self::new).map_err(damaged),
            other => Err(unfit(other)),
        }
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
                match value {
                    Value::Text(text) => serde_json::from_str(text).map_err(|error| {
                        Error::corrupt("a stored JSON column is invalid").because(error)
                    }),
                    other => Err(unfit(other)),
                }
            }
        }
    )*};
}
json!(Identity, SessionOwner, SettingDocument);

/// Lists are JSON too, but mostly empty, which must cost nothing.
macro_rules! json_lists {
    ($($type:ty),*) => {$(
        impl Field for $type {
            const KIND: ColumnKind = ColumnKind::Json;

            fn write(&self, row: &mut RowWriter<'_>) {
                if self.is_empty() {
                    return row.put(Value::Text("[]"));
                }
                let text = serde_json::to_string(self).unwrap_or_default();
                row.put(Value::Text(&text));
            }

            fn read(value: Value<'_>) -> Result<Self> {
                match value {
                    Value::Text("[]") => Ok(Self::empty()),
                    Value::Text(text) => serde_json::from_str(text).map_err(|error| {
                        Error::corrupt("a stored JSON column is invalid").because(error)
                    }),
                    other => Err(unfit(other)),
                }
            }
        }
    )*};
}
json_lists!(TagSet, EndpointList);

/// Enums whose column is one of a few words.
macro_rules! words {
    ($($type:ty { $($variant:ident = $word:literal),+ $(,)? })*) => {$(
        impl Field for $type {
            const KIND: ColumnKind = ColumnKind::Text;

            fn write(&self, row: &mut RowWriter<'_>) {
                row.put(Value::Text(match self { $(Self::$variant => $word),+ }));
            }

            fn read(value: Value<'_>) -> Result<Self> {
                match value {
                    $(Value::Text($word) => Ok(Self::$variant),)+
                    Value::Text(word) => Err(Error::corrupt("a stored word is unknown").with("word", word)),
                    other => Err(unfit(other)),
                }
            }
        }
    )*};
}
words! {
    RegisterMethod { AuthKey = "auth_key", Oidc = "oidc", Cli = "cli" }
    DnsRecordKind { A = "A", Aaaa = "AAAA", Cname = "CNAME", Txt = "TXT" }
    Entity {
        User = "user", Node = "node", Presence = "presence", Route = "route", ApiKey = "api_key",
        PreAuthKey = "preauth_key", Policy = "policy", DnsRecord = "dns_record",
        Session = "session", Setting = "setting", Metric = "metric", Audit = "audit",
    }
}
