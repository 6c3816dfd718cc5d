//! Single values: what kinds a key can take, and the check that a value is of its kind.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use ghostwire_store_core::domain::InstanceName;
use ghostwire_store_core::error::{Error, ErrorKind};

use super::hint;
use super::keys::Key;
use super::origin::Origin;
use super::source::Node;
use super::types::HttpOptions;

/// The longest name of an environment, a switch or a variant.
pub(super) const LONGEST_NAME: usize = 64;

/// The longest name of a store.
const LONGEST_STORE_NAME: usize = 32;

/// A value that is of its key's kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Boolean(bool),
    Integer(u64),
    Text(String),
    Path(PathBuf),
}

impl Value {
    pub(super) fn text(name: impl fmt::Display) -> Self {
        Self::Text(name.to_string())
    }

    pub(super) fn boolean(&self) -> Option<bool> {
        if let Self::Boolean(value) = self { Some(*value) } else { None }
    }

    pub(super) fn integer(&self) -> Option<u64> {
        if let Self::Integer(value) = self { Some(*value) } else { None }
    }

    pub(super) fn as_text(&self) -> Option<&str> {
        if let Self::Text(value) = self { Some(value) } else { None }
    }

    pub(super) fn into_text(self) -> Option<String> {
        if let Self::Text(value) = self { Some(value) } else { None }
    }

    pub(super) fn into_path(self) -> Option<PathBuf> {
        if let Self::Path(value) = self { Some(value) } else { None }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boolean(value) => value.fmt(f),
            Self::Integer(value) => value.fmt(f),
            Self::Text(value) => f.write_str(value),
            Self::Path(value) => value.display().fmt(f),
        }
    }
}

/// What a key takes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Boolean,
    Integer {
        lowest: u64,
        highest: u64,
    },
    Choice(&'static [&'static str]),
    Path,
    VariableName,
    Name,
    StoreName,
    InstanceName,
    /// Where to listen.
    Address,
    /// Where something is sent to over HTTP.
    Endpoint,
    /// A machine, or the directory of a Unix socket on this one.
    Host,
}

impl fmt::Display for Kind {
    /// What is allowed, for messages and the documentation.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boolean => f.write_str("true or false"),
            Self::Integer { lowest, highest } => {
                write!(f, "an integer from {lowest} to {highest}")
            }
            Self::Choice([only]) => write!(f, "\"{only}\""),
            Self::Choice(names) => write!(f, "one of \"{}\"", names.join("\", \"")),
            Self::Path => f.write_str("a path"),
            Self::Address => f.write_str("an IP address, with a port or without"),
            Self::Endpoint => f.write_str("an address like http://HOST:PORT"),
            Self::Host => {
                f.write_str("a host's name or address, or the directory of a Unix socket")
            }
            Self::VariableName => f.write_str("the name of an environment variable"),
            Self::Name => {
                write!(f, "a name of 1 to {LONGEST_NAME} letters, digits, \"-\" and \"_\"")
            }
            Self::StoreName => write!(
                f,
                "a name of 1 to {LONGEST_STORE_NAME} lowercase letters, digits, \"-\" and \"_\" that \
                 begins with a letter"
            ),
            Self::InstanceName => {
                f.write_str("a name of 1 to 64 letters, digits, \"-\", \"_\", \".\" and \":\"")
            }
        }
    }
}

/// Why a value was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    Type,
    Range,
    NotAChoice,
    Malformed,
    Secret,
    /// A path with a scheme, such as `libsql://`.
    Remote,
    /// A path that a shell would have expanded.
    Tilde,
}

impl Kind {
    /// Reads a value of this kind. Variables and the command line know text only, so `from_text`
    /// admits numbers and booleans that are spelled out; a file has to use its own types.
    pub(super) fn read(self, node: &Node, from_text: bool) -> Result<Value, Refusal> {
        // Before any other check, since the others show the value.
        if let Node::Text(text) = node
            && (hint::looks_like_secret(text)
                || matches!(self, Self::Path) && hint::looks_like_key_material(text))
        {
            return Err(Refusal::Secret);
        }
        let value = match (self, node) {
            (Self::Boolean, Node::Boolean(value)) => Value::Boolean(*value),
            (Self::Boolean, Node::Text(text)) if from_text => {
                Value::Boolean(text.parse().map_err(|_| Refusal::Type)?)
            }
            (Self::Integer { .. }, Node::Integer(value)) => {
                Value::Integer(u64::try_from(*value).map_err(|_| Refusal::Range)?)
            }
            (Self::Integer { .. }, Node::Text(text)) if from_text => Value::Integer(integer(text)?),
            (Self::Path, Node::Text(text)) => Value::Path(PathBuf::from(text)),
            (
                Self::Choice(_)
                | Self::VariableName
                | Self::Name
                | Self::StoreName
                | Self::InstanceName
                | Self::Address
                | Self::Endpoint
                | Self::Host,
                Node::Text(text),
            ) => Value::Text(text.clone()),
            _ => return Err(Refusal::Type),
        };
        self.check(&value)?;
        Ok(value)
    }

    /// Checks a value that may have been set in code.
    pub(super) fn check(self, value: &Value) -> Result<(), Refusal> {
        match (self, value) {
            (Self::Boolean, Value::Boolean(_)) => Ok(()),
            (Self::Integer { lowest, highest }, Value::Integer(value)) => {
                if (lowest..=highest).contains(value) { Ok(()) } else { Err(Refusal::Range) }
            }
            (Self::Choice(names), Value::Text(text)) => {
                if names.contains(&text.as_str()) {
                    Ok(())
                } else {
                    Err(Refusal::NotAChoice)
                }
            }
            (Self::Path, Value::Path(path)) => {
                let bytes = path.as_os_str().as_encoded_bytes();
                if bytes.is_empty() || bytes.contains(&0) {
                    return Err(Refusal::Malformed);
                }
                let text = path.to_string_lossy();
                if hint::looks_like_secret(&text) || hint::looks_like_key_material(&text) {
                    return Err(Refusal::Secret);
                }
                if has_scheme(&text) {
                    return Err(Refusal::Remote);
                }
                if text.starts_with('~') {
                    return Err(Refusal::Tilde);
                }
                Ok(())
            }
            (Self::VariableName, Value::Text(name)) => {
                if is_variable_name(name) {
                    Ok(())
                } else {
                    Err(Refusal::Malformed)
                }
            }
            (Self::Name, Value::Text(name)) => {
                if is_name(name) {
                    Ok(())
                } else {
                    Err(Refusal::Malformed)
                }
            }
            (Self::Endpoint, Value::Text(address)) => {
                if is_endpoint(address) {
                    Ok(())
                } else {
                    Err(Refusal::Malformed)
                }
            }
            (Self::Host, Value::Text(host)) => {
                if hint::looks_like_secret(host) {
                    return Err(Refusal::Secret);
                }
                if is_host(host) { Ok(()) } else { Err(Refusal::Malformed) }
            }
            (Self::StoreName, Value::Text(name)) => {
                if is_store_name(name) {
                    Ok(())
                } else {
                    Err(Refusal::Malformed)
                }
            }
            (Self::InstanceName, Value::Text(name)) => match InstanceName::new(name) {
                Ok(_) => Ok(()),
                Err(_) => Err(Refusal::Malformed),
            },
            (Self::Address, Value::Text(text)) => match address(text) {
                Some(_) => Ok(()),
                None => Err(Refusal::Malformed),
            },
            _ => Err(Refusal::Type),
        }
    }
}

/// The address that a text names.
pub(super) fn address(text: &str) -> Option<SocketAddr> {
    let without_port =
        || text.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, HttpOptions::DEFAULT_PORT));
    text.parse().ok().or_else(without_port)
}

fn integer(text: &str) -> Result<u64, Refusal> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Refusal::Type);
    }
    // A number at least, so that what is left is a matter of its size.
    text.parse().map_err(|_| Refusal::Range)
}

/// Names must survive a dotted key path and the splitting of a variable's name.
pub(super) fn is_name(name: &str) -> bool {
    (1..=LONGEST_NAME).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

/// Nothing beside the host: a port and a user have keys of their own.
fn is_host(host: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    let is_address = host.parse::<IpAddr>().is_ok();
    let is_socket = host.starts_with('/') && !host.chars().any(char::is_control);
    let is_named = !host.is_empty() && host.chars().all(is_plain);
    host.len() <= 255 && (is_address || is_socket || is_named)
}

/// In capitals and without its `-` a store's name is part of a variable's.
pub(super) fn is_store_name(name: &str) -> bool {
    is_name(name)
        && name.len() <= LONGEST_STORE_NAME
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && !name.bytes().any(|byte| byte.is_ascii_uppercase())
}

/// Whether this is the address of something remote, as in RFC 3986, and no path.
fn has_scheme(text: &str) -> bool {
    text.split_once("://").is_some_and(|(scheme, _)| {
        scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
    })
}

/// Without a user or a password.
fn is_endpoint(address: &str) -> bool {
    let rest = address.strip_prefix("http://").map(|rest| rest.trim_end_matches('/'));
    rest.is_some_and(|rest| {
        !rest.is_empty()
            && !rest.contains(|c: char| c == '@' || c.is_whitespace() || c.is_control())
    })
}

fn is_variable_name(name: &str) -> bool {
    is_name(name)
        && !name.starts_with(|first: char| first.is_ascii_digit() || first == '-')
        && !name.contains('-')
        // There every variable has to be a configuration key.
        && !name.starts_with(super::RESERVED_PREFIX)
}

impl From<&Value> for Node {
    fn from(value: &Value) -> Self {
        match value {
            Value::Boolean(value) => Self::Boolean(*value),
            Value::Integer(value) => Self::Integer((*value).into()),
            Value::Text(_) | Value::Path(_) => Self::Text(value.to_string()),
        }
    }
}

/// The error for a refused value. `path` is the key's path where it was found. The value is part of
/// the message unless it may be a secret.
pub(super) fn refused(
    key: &Key,
    path: &str,
    found: &Node,
    origin: &Origin,
    refusal: Refusal,
) -> Error {
    let error = match refusal {
        Refusal::Secret => {
            return Error::invalid(hint::NO_SECRETS).with("key", path).with("source", origin);
        }
        Refusal::Type => Error::invalid("the value has the wrong type").with("found", found.what()),
        Refusal::Range => Error::invalid("the value is out of range"),
        Refusal::NotAChoice => Error::invalid("the value is not one of those known"),
        Refusal::Malformed => Error::invalid("the value is malformed"),
        Refusal::Remote => Error::new(
            ErrorKind::Unsupported,
            "remote mode is not there yet: the path of a local file has to be given",
        ),
        Refusal::Tilde => Error::invalid(
            "a ~ is expanded by shells only: write the directory out, or ./~ for a file of that name",
        ),
    };
    let error = error
        .with("key", path)
        .with("value", found)
        .with("allowed", key.kind)
        .with("source", origin);
    match (refusal, key.kind, found) {
        (Refusal::NotAChoice, Kind::Choice(names @ [_, _, ..]), Node::Text(text)) => {
            match hint::misspelt(text, names) {
                Some(nearest) => error.with("nearest", nearest),
                None => error,
            }
        }
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RANGE: Kind = Kind::Integer { lowest: 1, highest: 10 };

    fn text(text: &str) -> Node {
        Node::Text(text.to_owned())
    }

    #[test]
    fn integers() {
        assert_eq!(RANGE.read(&Node::Integer(10), false), Ok(Value::Integer(10)));
        for outside in [0, 11, -1, i128::MAX] {
            assert_eq!(RANGE.read(&Node::Integer(outside), false), Err(Refusal::Range));
        }
        for wrong in [Node::Boolean(true), Node::Other("a number with a fraction"), text("5")] {
            assert_eq!(RANGE.read(&wrong, false), Err(Refusal::Type));
        }
        assert_eq!(RANGE.read(&text("5"), true), Ok(Value::Integer(5)));
        for outside in ["0", "-5", "99999999999999999999999999999999999999999999"] {
            assert_eq!(RANGE.read(&text(outside), true), Err(Refusal::Range));
        }
        for wrong in ["", "-", "five", "5.0", "+5", " 5", "0x5"] {
            assert_eq!(RANGE.read(&text(wrong), true), Err(Refusal::Type), "{wrong}");
        }
    }

    #[test]
    fn booleans() {
        assert_eq!(Kind::Boolean.read(&Node::Boolean(true), false), Ok(Value::Boolean(true)));
        assert_eq!(Kind::Boolean.read(&text("false"), true), Ok(Value::Boolean(false)));
        assert_eq!(Kind::Boolean.read(&text("false"), false), Err(Refusal::Type));
        assert_eq!(Kind::Boolean.read(&text("yes"), true), Err(Refusal::Type));
        assert_eq!(Kind::Boolean.read(&Node::Integer(1), true), Err(Refusal::Type));
    }

    #[test]
    fn texts() {
        let choice = Kind::Choice(&["a", "b"]);
        assert_eq!(choice.read(&text("b"), false), Ok(Value::text("b")));
        assert_eq!(choice.read(&text("B"), false), Err(Refusal::NotAChoice));
        assert_eq!(Kind::Path.read(&text("x/y.db"), false), Ok(Value::Path("x/y.db".into())));
        assert_eq!(Kind::Path.read(&text(""), true), Err(Refusal::Malformed));
        assert_eq!(Kind::Path.read(&text("a\0b"), true), Err(Refusal::Malformed));
        assert_eq!(Kind::Path.read(&Node::Null, false), Err(Refusal::Type));
        for remote in ["libsql://db.turso.io", "http://127.0.0.1:8080", "file:///x.db"] {
            assert_eq!(Kind::Path.read(&text(remote), true), Err(Refusal::Remote), "{remote}");
        }
        assert_eq!(Kind::Path.read(&text("~/x.db"), true), Err(Refusal::Tilde));
        assert!(Kind::Path.read(&text("./~x"), true).is_ok());
        assert!(Kind::Path.read(&text("a b://c"), true).is_ok());
        let url = text("postgres://me:hunter2@db/net");
        for kind in [Kind::Path, choice, RANGE, Kind::VariableName, Kind::Name] {
            assert_eq!(kind.read(&url, false), Err(Refusal::Secret));
        }
    }

    #[test]
    fn addresses() {
        for (good, is) in [
            ("127.0.0.1:80", "127.0.0.1:80"),
            ("[::1]:80", "[::1]:80"),
            ("0.0.0.0", "0.0.0.0:9655"),
            ("::1", "[::1]:9655"),
        ] {
            assert_eq!(Kind::Address.read(&text(good), true), Ok(Value::text(good)));
            assert_eq!(address(good), is.parse().ok(), "{good}");
        }
        for bad in ["", "localhost:80", ":80", "127.0.0.1:", "127.0.0.1:70000", "80", "::1:80:"] {
            assert_eq!(Kind::Address.read(&text(bad), true), Err(Refusal::Malformed), "{bad}");
        }
    }

    #[test]
    fn endpoints() {
        for good in ["http://localhost:4318", "http://[::1]:4318/", "http://collector/otlp"] {
            assert_eq!(Kind::Endpoint.read(&text(good), false), Ok(Value::text(good)));
        }
        for bad in ["", "localhost:4318", "https://collector", "http://", "http://a b", "ftp://a"] {
            assert_eq!(Kind::Endpoint.read(&text(bad), false), Err(Refusal::Malformed), "{bad}");
        }
        let password = text("http://me:hunter2@collector");
        assert_eq!(Kind::Endpoint.read(&password, false), Err(Refusal::Secret));
    }

    #[test]
    fn names() {
        for good in ["development", "EU-west_1", "7"] {
            assert_eq!(Kind::Name.read(&text(good), false), Ok(Value::text(good)));
        }
        for bad in ["", "a.b", "a b", "größe", "<<", &"x".repeat(65)] {
            assert_eq!(Kind::Name.read(&text(bad), false), Err(Refusal::Malformed), "{bad}");
        }
        for good in ["main", "a", "eu-west_1", &"x".repeat(32)] {
            assert_eq!(Kind::StoreName.read(&text(good), false), Ok(Value::text(good)));
        }
        for bad in ["", "1", "-a", "_a", "Main", "a.b", "größe", &"x".repeat(33)] {
            let refused = Kind::StoreName.read(&text(bad), false);
            assert_eq!(refused, Err(Refusal::Malformed), "{bad}");
        }
        for good in ["control-1", "Control_1.example.org:8080", &"x".repeat(64)] {
            assert_eq!(Kind::InstanceName.read(&text(good), false), Ok(Value::text(good)));
        }
        for bad in ["", "a b", "größe", "a/b", &"x".repeat(65)] {
            let refused = Kind::InstanceName.read(&text(bad), false);
            assert_eq!(refused, Err(Refusal::Malformed), "{bad}");
        }
        let variable = Kind::VariableName;
        assert_eq!(variable.read(&text("DB_URL2"), false), Ok(Value::text("DB_URL2")));
        for bad in ["", "2DB", "DB-URL", "GHOSTWIRE_STORE__URL", "GHOSTWIRE_STORE_URL", "$DB"] {
            assert_eq!(variable.read(&text(bad), false), Err(Refusal::Malformed), "{bad}");
        }
    }
}
