//! Writes to policies, DNS records and settings.

use serde::{Deserialize, Serialize};

use super::Part;
use crate::domain::{
    DnsRecordId, DnsRecordPatch, DocumentText, NewDnsRecord, PolicyVersion, Revision,
    SettingDocument, SettingKind,
};

/// A write to policies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PolicyCommand {
    /// Put a document in force as the next version.
    Swap {
        /// Only if this is still the version in force; `None` is no policy yet.
        expected: Option<PolicyVersion>,
        /// The new policy.
        document: DocumentText,
    },
    /// Put the document of an earlier version in force again, as the next version.
    Rollback {
        /// Only if this is still the version in force.
        expected: PolicyVersion,
        /// Whose document.
        to: PolicyVersion,
    },
    /// Forget all but the newest `keep` versions; at least 1 stays.
    Prune {
        /// How many stay.
        keep: u32,
        /// How much of it.
        #[serde(default)]
        part: Part,
    },
}

/// A write to DNS records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DnsCommand {
    /// A new record.
    Create {
        /// Its id.
        id: DnsRecordId,
        /// What it is.
        record: NewDnsRecord,
    },
    /// A change to a record.
    Update {
        /// Which.
        id: DnsRecordId,
        /// What changes.
        patch: DnsRecordPatch,
        /// Only if this is still the record's revision.
        expected: Option<Revision>,
    },
    /// Removal.
    Delete {
        /// Which.
        id: DnsRecordId,
    },
}

/// A write to settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SettingCommand {
    /// Replace a document.
    Put {
        /// The new content.
        document: SettingDocument,
        /// Only if this is still its revision; `None` replaces whatever is there.
        expected: Option<Revision>,
    },
    /// Back to the default.
    Reset {
        /// Which document.
        kind: SettingKind,
    },
}

names! {
    PolicyCommand {
        Swap = SWAP "policy.swap",
        Rollback = ROLLBACK "policy.rollback",
        Prune = PRUNE "policy.prune",
    }
    DnsCommand {
        Create = CREATE "dns_record.create",
        Update = UPDATE "dns_record.update",
        Delete = DELETE "dns_record.delete",
    }
    SettingCommand {
        Put = PUT "setting.put",
        Reset = RESET "setting.reset",
    }
}
