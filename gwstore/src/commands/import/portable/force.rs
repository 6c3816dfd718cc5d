//! What an import of the portable form puts in force, and on whose word.

use data_encoding::HEXLOWER;
use ghostwire_store::portable::Summary;
use ghostwire_store::{Error, ErrorKind, HashKeys, Result};
use serde_json::Value;

use super::super::credentials::Credentials;
use crate::cli::PortableArgs;
use crate::credentials::StoreKey;
use crate::failure::Outcome;
use crate::output::Shell;
use crate::restore::{PolicyChange, Rehearsal};

/// Who wrote the file, as far as the store's hash key proves it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Writer {
    KeyHolder,
    Unknown { why: String },
}

fn writer(summary: &Summary, keys: Option<&HashKeys>, known: &StoreKey) -> Result<Writer> {
    let unknown = |why: &str| Ok(Writer::Unknown { why: why.to_owned() });
    match (summary.mac, keys) {
        (None, _) => unknown("it has no code of a hash key"),
        (_, None) if *known == StoreKey::Missing => {
            unknown("this store's hash key is missing, and only that could tell")
        }
        (_, None) => unknown("this store had no hash key before"),
        (Some(mac), Some(keys)) => match is_by_holder_of(summary, keys) {
            Ok(true) => Ok(Writer::KeyHolder),
            Ok(false) => {
                let key_id = HEXLOWER.encode(&mac.key_id);
                unknown(&format!("it has a code of another hash key, {key_id}"))
            }
            Err(error) => Err(edited(error)),
        },
    }
}

fn is_by_holder_of(summary: &Summary, keys: &HashKeys) -> Result<bool> {
    for key in keys.iter() {
        if summary.is_by_holder_of(key)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Nothing is damaged: somebody meant it so, and cannot be asked.
fn edited(error: Error) -> Error {
    Error::new(
        ErrorKind::Restricted,
        "the file was edited after a holder of this store's hash key wrote it; nothing was written",
    )
    .with("help", "import it as it was written, or export the store that it is of once more")
    .because(error)
}

/// What decides who may do what from now on, and who says so.
pub(super) struct InForce {
    writer: Writer,
    credentials: Credentials,
    policy: Option<PolicyChange>,
}

impl InForce {
    /// With the store's hash key, if it is there; a store that is new gets one.
    pub(super) fn of(
        summary: &Summary,
        rehearsal: &Rehearsal,
        keys: Option<&HashKeys>,
        is_new: bool,
    ) -> Result<Self> {
        let known = match keys {
            Some(keys) => StoreKey::from(keys),
            None if is_new => StoreKey::ToBeMade,
            None => StoreKey::Missing,
        };
        Ok(Self {
            writer: writer(summary, keys, &known)?,
            credentials: Credentials::of(rehearsal, known),
            policy: rehearsal.policy_change(),
        })
    }

    /// Refuses what the operator has to ask for, and did not.
    pub(super) fn check(&self, args: &PortableArgs) -> Result<()> {
        self.credentials.check_writer(self.writer == Writer::KeyHolder, args.unsigned)?;
        self.policy.map_or(Ok(()), |change| change.check_allowed(args.target.policy))
    }

    /// For the report to programs.
    pub(super) fn fields(&self) -> [(&'static str, Value); 3] {
        let written_by = match self.writer {
            Writer::KeyHolder => "key_holder",
            Writer::Unknown { .. } => "unknown",
        };
        [
            ("written_by", written_by.into()),
            ("credentials", self.credentials.object()),
            ("policy", self.policy.as_ref().map(PolicyChange::object).into()),
        ]
    }

    pub(super) fn tell(&self, shell: &mut Shell<'_>) -> Outcome {
        match &self.writer {
            Writer::KeyHolder => shell.say("written by a holder of this store's hash key")?,
            Writer::Unknown { why } => shell.say(format_args!("written by nobody known: {why}"))?,
        }
        if let Some(change) = &self.policy {
            shell.say(change)?;
        }
        self.credentials.tell(shell)
    }
}
