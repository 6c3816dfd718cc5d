//! Errors, so that whoever reads one at the other end sees what he would have seen at this one.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use ghostwire_store_core::error::{EntityKind, Error, ErrorKind};
use serde::{Deserialize, Serialize};

/// An error, as it goes over the socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireError {
    kind: String,
    message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    operation: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    entity: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    context: Vec<(String, String)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    because: Option<String>,
    /// What some kinds say beside their name: a constraint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    constraint: Option<String>,
    /// Numbers that some kinds say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    numbers: Vec<u64>,
}

impl From<&Error> for WireError {
    fn from(error: &Error) -> Self {
        let numbers = match *error.kind() {
            ErrorKind::SchemaMismatch { found, supported } => vec![found.into(), supported.into()],
            ErrorKind::Compacted { oldest: number } | ErrorKind::Fenced { epoch: number } => {
                vec![number]
            }
            _ => Vec::new(),
        };
        let context = error.context().iter();
        Self {
            kind: error.kind().name().to_owned(),
            message: error.message().to_owned(),
            operation: error.operation().map(str::to_owned),
            entity: error.entity().map(|entity| entity.name().to_owned()),
            context: context.map(|(key, value)| ((*key).to_owned(), value.clone())).collect(),
            because: std::error::Error::source(error).map(ToString::to_string),
            constraint: error.constraint().map(str::to_owned),
            numbers,
        }
    }
}

impl From<WireError> for Error {
    fn from(wire: WireError) -> Self {
        let mut error = Self::new(wire.kind(), wire.message);
        if let Some(operation) = wire.operation {
            error = error.during(known(&operation));
        }
        if let Some(entity) = wire.entity.and_then(entity_named) {
            error = error.about(entity);
        }
        for (key, value) in wire.context {
            error = error.with(known(&key), value);
        }
        match wire.because {
            Some(because) => error.because(because),
            None => error,
        }
    }
}

impl WireError {
    fn kind(&self) -> ErrorKind {
        let number = |at: usize| self.numbers.get(at).copied().unwrap_or_default();
        let version = |at| u32::try_from(number(at)).unwrap_or(u32::MAX);
        match self.kind.as_str() {
            "not_found" => ErrorKind::NotFound,
            "already_exists" => ErrorKind::AlreadyExists {
                constraint: known(self.constraint.as_deref().unwrap_or_default()),
            },
            "conflict" => ErrorKind::Conflict,
            "invalid_argument" => ErrorKind::InvalidArgument,
            "restricted" => ErrorKind::Restricted,
            "exhausted" => ErrorKind::Exhausted,
            "permission_denied" => ErrorKind::PermissionDenied,
            "busy" => ErrorKind::Busy,
            "unavailable" => ErrorKind::Unavailable,
            "outcome_unknown" => ErrorKind::OutcomeUnknown,
            "corrupt" => ErrorKind::Corrupt,
            "crypto" => ErrorKind::Crypto,
            "unsupported" => ErrorKind::Unsupported,
            "read_only" => ErrorKind::ReadOnly,
            "schema_mismatch" => {
                ErrorKind::SchemaMismatch { found: version(0), supported: version(1) }
            }
            "compacted" => ErrorKind::Compacted { oldest: number(0) },
            "fenced" => ErrorKind::Fenced { epoch: number(0) },
            _ => ErrorKind::Unexpected,
        }
    }
}

fn entity_named(name: String) -> Option<EntityKind> {
    serde_json::from_value(serde_json::Value::String(name)).ok()
}

/// Errors name facts by names that stay for ever. Those that come over a socket are kept once each.
pub(crate) fn known(name: &str) -> &'static str {
    static NAMES: Mutex<Names> = Mutex::new(Names(BTreeSet::new()));
    NAMES.lock().unwrap_or_else(PoisonError::into_inner).get(name)
}

/// So many at most: another end that invents names costs no memory.
struct Names(BTreeSet<&'static str>);

impl Names {
    fn get(&mut self, name: &str) -> &'static str {
        const MOST: usize = 1_000;
        const LONGEST: usize = 64;
        if let Some(name) = self.0.get(name) {
            return name;
        }
        if self.0.len() >= MOST || name.len() > LONGEST {
            return "other";
        }
        let name: &'static str = Box::leak(name.to_owned().into_boxed_str());
        self.0.insert(name);
        name
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn sent(error: &Error) -> Error {
        let text = serde_json::to_string(&WireError::from(error)).unwrap();
        serde_json::from_str::<WireError>(&text).unwrap().into()
    }

    #[test]
    fn an_error_says_the_same_at_the_other_end() {
        let error = Error::already_exists(EntityKind::Node, "node_key")
            .with("node_key", "nodekey:ab")
            .with("help", "take another")
            .because("a cause")
            .during("node.register");
        let other = sent(&error);
        assert_eq!(other.to_string(), error.to_string());
        assert_eq!(other.kind(), error.kind());
        assert_eq!(other.context(), error.context());
        assert_eq!((other.operation(), other.entity()), (error.operation(), error.entity()));
    }

    #[test]
    fn every_kind_comes_back() {
        for kind in [
            ErrorKind::NotFound,
            ErrorKind::Conflict,
            ErrorKind::InvalidArgument,
            ErrorKind::Restricted,
            ErrorKind::Exhausted,
            ErrorKind::PermissionDenied,
            ErrorKind::Busy,
            ErrorKind::Unavailable,
            ErrorKind::OutcomeUnknown,
            ErrorKind::Corrupt,
            ErrorKind::Crypto,
            ErrorKind::Unsupported,
            ErrorKind::ReadOnly,
            ErrorKind::SchemaMismatch { found: 7, supported: 6 },
            ErrorKind::Compacted { oldest: 12 },
            ErrorKind::Fenced { epoch: 3 },
            ErrorKind::Unexpected,
        ] {
            assert_eq!(*sent(&Error::new(kind.clone(), "x")).kind(), kind);
        }
    }

    #[test]
    fn names_that_are_invented_cost_no_memory() {
        let mut names = Names(BTreeSet::new());
        for number in 0..2_000 {
            names.get(&format!("invented-{number}"));
        }
        assert_eq!(names.get(&"x".repeat(65)), "other");
        assert_eq!(names.get("invented-1"), "invented-1");
        assert_eq!(names.get("invented-1999"), "other");
    }
}
