//! The traits that a control plane calls, one for each kind of entity, and their one implementation.
//!
//! Reads (`get`, `list` and the like) answer from the last durable state, without waiting and without
//! the disk; [`View`](crate::view::View) has the same as plain functions. Metrics and the audit trail
//! are read from the backend.
//!
//! # Writes
//! A write answers when it is durable. Dropping its future does not take it back. A refused one
//! changes nothing.
//!
//! Each write can give, besides what its own `# Errors` says, the errors of any write: `Busy` if the
//! queue stays full; `Unavailable` if the store is closed, the backend out of reach or the clock ahead;
//! `ReadOnly` if the store was opened to be read; `Exhausted` for a full disk; `OutcomeUnknown` if it
//! cannot be told whether it was stored; `Corrupt` if what is stored is damaged. Of these
//! [`Error::is_retryable`](crate::Error::is_retryable) is true for the first two.

mod audit;
mod clock;
mod consumers;
mod credentials;
mod dns;
mod instances;
mod metrics;
mod nodes;
mod parts;
mod policies;
mod presence;
mod routes;
mod settings;
mod sign_ins;
mod users;

pub use audit::AuditRepository;
pub use clock::{ClockRepair, ClockReport, ClockRepository};
pub use consumers::ConsumerRepository;
pub use credentials::{
    ApiKeyRepository, PreAuthKeyRepository, SessionRepository, preauth_key_hash,
};
pub use dns::DnsRepository;
pub use instances::InstanceRepository;
pub use metrics::MetricRepository;
pub use nodes::NodeRepository;
pub use policies::PolicyRepository;
pub use presence::PresenceRepository;
pub use routes::RouteRepository;
pub use settings::SettingRepository;
pub use sign_ins::SignInRepository;
pub use users::UserRepository;

/// Takes the expected variant out of a reply.
macro_rules! expect_reply {
    ($reply:expr, $variant:ident) => {
        match $reply {
            $crate::state::Reply::$variant(value) => Ok(value),
            other => Err($crate::repository::unexpected(&other)),
        }
    };
}
pub(crate) use expect_reply;

/// The state machine answered a command with another command's reply, which it never does.
pub(crate) fn unexpected(reply: &crate::state::Reply) -> crate::error::Error {
    crate::error::Error::new(
        crate::error::ErrorKind::Unexpected,
        "a command was answered with another command's reply",
    )
    .with("reply", format_args!("{:?}", std::mem::discriminant(reply)))
}
