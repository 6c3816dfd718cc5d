//! Writes as values: complete, serialisable, with every choice that the state does not determine
//! (ids, clock readings, hashes of secrets) already made.

/// Defines writes, each with its name: the one place where that is written. What is stored in the
/// audit trail keeps its spelling for ever.
macro_rules! commands {
    ($(
        $(#[$doc:meta])*
        $type:ident {$(
            $(#[$variant_doc:meta])*
            $constant:ident = $name:literal $variant:ident $({ $($fields:tt)* })?
        ),+ $(,)?}
    )+) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        #[serde(rename_all = "snake_case")]
        #[allow(missing_docs)]
        pub enum $type {
            $($(#[$variant_doc])* $variant $({ $($fields)* })?),+
        }

        #[allow(missing_docs)]
        impl $type {
            $(pub const $constant: &'static str = $name;)+

            /// Its name, as traces, errors and the audit trail have it.
            #[must_use]
            pub fn name(&self) -> &'static str {
                match self { $(Self::$variant { .. } => Self::$constant),+ }
            }
        }
    )+};
}

mod clock;
mod credential;
mod document;
mod instance;
mod node;
mod part;
mod restore;
mod route;
mod sign_in;
mod transaction;
mod user;
mod weight;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::domain::{Actor, Timestamp};
use crate::state::Context;

pub use clock::ClockCommand;
pub use credential::*;
pub use document::*;
pub use instance::*;
pub use node::*;
pub use part::Part;
pub use restore::*;
pub use route::*;
pub use sign_in::*;
pub use transaction::*;
pub use user::*;
pub(crate) use weight::LIGHT;

pub use crate::entity::{Command, EntityRecord};

macro_rules! into_command {
    ($($type:ident => $variant:ident),* $(,)?) => {$(
        impl From<$type> for Command {
            fn from(command: $type) -> Self {
                Self::$variant(command)
            }
        }
    )*};
}
into_command! {
    ClockCommand => Clock,
    Restore => Restore,
    Transaction => Transaction,
}

impl Command {
    /// How many commands it is made of, if it is made of some.
    pub(crate) fn steps(&self) -> Option<usize> {
        match self {
            Self::Transaction(transaction) => Some(transaction.commands.len()),
            Self::Restore(restore) => Some(restore.images.len()),
            _ => None,
        }
    }
}

/// A command with who sent it, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submission {
    /// The caller's clock. The effective time is never before the previous block's, but for
    /// [`ClockCommand::Repair`].
    pub at: Timestamp,
    /// Whom the audit trail names for it.
    pub actor: Arc<Actor>,
    /// Random; identifiers of audit entries come from it.
    pub seed: [u8; 10],
    /// The write itself.
    pub command: Command,
}

impl Submission {
    /// When it happens, after a commit of that time.
    pub(crate) fn effective_time(&self, last: Timestamp) -> Timestamp {
        match &self.command {
            Command::Clock(ClockCommand::Repair { .. }) => self.at,
            _ => self.at.max(last),
        }
    }

    /// The circumstances under which it is carried out at `now`.
    pub(crate) fn context(&self, now: Timestamp) -> Context<'_> {
        Context { now, actor: &self.actor, seed: self.seed }
    }
}
