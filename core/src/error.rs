//! What can go wrong, said so that the reader knows what to do next.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

pub use crate::entity::EntityKind;

/// Shorthand for a result that carries the store's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The kind of an [`Error`]; match on it to decide what to do.
///
/// New kinds may be added, hence `non_exhaustive`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The named entity does not exist. Never returned by a `get`, which gives `Ok(None)`.
    NotFound,
    /// A uniqueness rule would be broken; `constraint` names the rule, for example `node_key`.
    AlreadyExists {
        /// The name of the uniqueness rule, such as `node_key`.
        constraint: &'static str,
    },
    /// A precondition (an expected version, revision or serial) no longer holds: read again, retry.
    Conflict,
    /// The input breaks a rule that no state could satisfy.
    InvalidArgument,
    /// Refused because other entities depend on this one.
    Restricted,
    /// A finite supply (an address range, a counter) is used up.
    Exhausted,
    /// A credential is wrong, expired, used up or revoked, or the file system denies access.
    PermissionDenied,
    /// The write queue stayed full, or another process holds the files; retry later.
    Busy,
    /// The backend cannot be reached or the store is closed.
    Unavailable,
    /// The connection died during a commit; the command may or may not have been stored.
    OutcomeUnknown,
    /// What is stored is damaged or was altered.
    Corrupt,
    /// A cryptographic operation or its key is unusable.
    Crypto,
    /// This backend or build cannot do that.
    Unsupported,
    /// The store or its files may only be read.
    ReadOnly,
    /// The stored schema cannot be read by this version.
    SchemaMismatch {
        /// The schema version that is stored.
        found: u32,
        /// The newest schema version this build knows.
        supported: u32,
    },
    /// The blocks asked for are gone; resynchronise from a snapshot.
    Compacted {
        /// The oldest serial that can still be read.
        oldest: u64,
    },
    /// Another database of the network, or another process, has taken over: this one may not write any
    /// more. Nothing was stored; open the store anew.
    Fenced {
        /// The epoch in which somebody else writes.
        epoch: u64,
    },
    /// A fault of the store itself; please report it.
    Unexpected,
}

impl ErrorKind {
    /// A stable name in snake case, fit for a metric label.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::AlreadyExists { .. } => "already_exists",
            Self::Conflict => "conflict",
            Self::InvalidArgument => "invalid_argument",
            Self::Restricted => "restricted",
            Self::Exhausted => "exhausted",
            Self::PermissionDenied => "permission_denied",
            Self::Busy => "busy",
            Self::Unavailable => "unavailable",
            Self::OutcomeUnknown => "outcome_unknown",
            Self::Corrupt => "corrupt",
            Self::Crypto => "crypto",
            Self::Unsupported => "unsupported",
            Self::ReadOnly => "read_only",
            Self::SchemaMismatch { .. } => "schema_mismatch",
            Self::Compacted { .. } => "compacted",
            Self::Fenced { .. } => "fenced",
            Self::Unexpected => "unexpected",
        }
    }
}

impl fmt::Display for EntityKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The one error type: what failed, where, on which value, and why.
///
/// It never carries a secret, an SQL parameter or a connection string. It is one pointer wide.
#[derive(Clone)]
pub struct Error(Box<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    message: Cow<'static, str>,
    operation: Option<&'static str>,
    entity: Option<EntityKind>,
    context: Vec<(&'static str, String)>,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of this kind; `message` says what is wrong and, where it helps, what to do.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner {
            kind,
            message: message.into(),
            operation: None,
            entity: None,
            context: Vec::new(),
            source: None,
        }))
    }

    /// The input breaks a rule.
    #[must_use]
    pub fn invalid(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::InvalidArgument, message)
    }

    /// The entity does not exist.
    #[must_use]
    pub fn not_found(entity: EntityKind, id: impl fmt::Display) -> Self {
        Self::new(ErrorKind::NotFound, "does not exist").about(entity).with("id", id)
    }

    /// A uniqueness rule would be broken.
    #[must_use]
    pub fn already_exists(entity: EntityKind, constraint: &'static str) -> Self {
        Self::new(ErrorKind::AlreadyExists { constraint }, "already exists").about(entity)
    }

    /// What is stored is damaged.
    #[must_use]
    pub fn corrupt(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Corrupt, message)
    }

    /// Names the operation, for example `node.register`; the innermost name wins.
    #[must_use]
    pub fn during(mut self, operation: &'static str) -> Self {
        self.0.operation.get_or_insert(operation);
        self
    }

    /// Names the entity the error is about; the innermost one wins.
    #[must_use]
    pub fn about(mut self, entity: EntityKind) -> Self {
        self.0.entity.get_or_insert(entity);
        self
    }

    /// Adds a fact. Values longer than 200 bytes are cut, so that input cannot flood a log.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl fmt::Display) -> Self {
        let mut value = value.to_string();
        if value.len() > 200 {
            let end = (0..=200).rev().find(|&i| value.is_char_boundary(i)).unwrap_or(0);
            value.truncate(end);
            value.push('…');
        }
        self.0.context.push((key, value));
        self
    }

    /// Keeps the underlying error.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.0.source = Some(source.into().into());
        self
    }

    /// What kind of error this is.
    #[must_use]
    pub fn kind(&self) -> &ErrorKind {
        &self.0.kind
    }

    /// The operation that failed.
    #[must_use]
    pub fn operation(&self) -> Option<&'static str> {
        self.0.operation
    }

    /// What the error is about.
    #[must_use]
    pub fn entity(&self) -> Option<EntityKind> {
        self.0.entity
    }

    /// The rule that was broken, for [`ErrorKind::AlreadyExists`].
    #[must_use]
    pub fn constraint(&self) -> Option<&'static str> {
        match self.0.kind {
            ErrorKind::AlreadyExists { constraint } => Some(constraint),
            _ => None,
        }
    }

    /// The facts added with [`Error::with`].
    #[must_use]
    pub fn context(&self) -> &[(&'static str, String)] {
        &self.0.context
    }

    /// What is wrong, without operation, context and source.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Whether the same call may succeed later without a change by the caller.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self.0.kind, ErrorKind::Busy | ErrorKind::Unavailable)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &self.0;
        if let Some(operation) = inner.operation {
            write!(f, "{operation}: ")?;
        }
        if let Some(entity) = inner.entity {
            write!(f, "{entity} ")?;
        }
        f.write_str(&inner.message)?;
        if let ErrorKind::AlreadyExists { constraint } = inner.kind {
            write!(f, " ({constraint})")?;
        }
        if !inner.context.is_empty() {
            f.write_str(" [")?;
            for (index, (key, value)) in inner.context.iter().enumerate() {
                let separator = if index == 0 { "" } else { ", " };
                write!(f, "{separator}{key}={value}")?;
            }
            f.write_str("]")?;
        }
        if let Some(source) = &inner.source {
            write!(f, ": {source}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Error({}: {self})", self.0.kind.name())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_ref().map(|source| source.as_ref() as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_where_which_value_and_why() {
        let error = Error::already_exists(EntityKind::Node, "node_key")
            .with("node_key", "nodekey:ab")
            .during("node.register")
            .during("outer");
        assert_eq!(
            error.to_string(),
            "node.register: node already exists (node_key) [node_key=nodekey:ab]"
        );
        assert_eq!(error.constraint(), Some("node_key"));
        assert!(!error.is_retryable());
    }

    #[test]
    fn long_values_are_cut_at_a_character() {
        let error = Error::invalid("too long").with("name", "é".repeat(5000));
        assert!(error.to_string().len() < 260);
    }

    #[test]
    fn is_one_pointer_wide() {
        assert_eq!(size_of::<Error>(), size_of::<usize>());
    }
}
