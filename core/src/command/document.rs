//! Writes to policies, DNS records and settings.

use super::Part;
use crate::domain::{
    DnsName, DnsRecordId, DnsRecordKind, DnsRecordPatch, DocumentText, Fingerprint, NewDnsRecord,
    PolicyVersion, Revision, SettingDocument, SettingKind, Text,
};

commands! {
    /// A write to policies.
    PolicyCommand {
        /// Put a document in force as the next version, if `expected` is still the version in force;
        /// `None` is no policy yet.
        SWAP = "policy.swap" Swap { expected: Option<PolicyVersion>, document: DocumentText },
        /// Put the document of version `to` in force again, as the next version, if `expected` is still
        /// the version in force.
        ROLLBACK = "policy.rollback" Rollback { expected: PolicyVersion, to: PolicyVersion },
        /// Forget all but the newest `keep` versions; at least 1 stays.
        PRUNE = "policy.prune" Prune {
            keep: u32,
            #[serde(default)]
            part: Part,
        },
    }

    /// A write to DNS records.
    DnsCommand {
        /// A new record.
        CREATE = "dns_record.create" Create { id: DnsRecordId, record: NewDnsRecord },
        /// A change to a record; with `expected`, only if that is still its revision.
        UPDATE = "dns_record.update" Update { id: DnsRecordId, patch: DnsRecordPatch, expected: Option<Revision> },
        /// Removes it; `NotFound` if it is not there.
        DELETE = "dns_record.delete" Delete { id: DnsRecordId },
        /// Exactly these values are what a name has of a kind, at most 1,024, each with the id of its
        /// record, should it be new; with `expected`, only if that is still the set's fingerprint.
        PUT = "dns_record.put" Put {
            name: DnsName,
            kind: DnsRecordKind,
            values: Vec<(DnsRecordId, Text<1024>)>,
            ttl: Option<u32>,
            expected: Option<Fingerprint>,
        },
        /// Removes whatever a name has of a kind; with `expected`, only if that is still the set's
        /// fingerprint.
        DELETE_SET = "dns_record.delete_set" DeleteSet {
            name: DnsName,
            kind: DnsRecordKind,
            expected: Option<Fingerprint>,
        },
    }

    /// A write to settings.
    SettingCommand {
        /// Replace a document; with `expected`, only if that is still its revision.
        PUT = "setting.put" Put { document: SettingDocument, expected: Option<Revision> },
        /// Back to the default.
        RESET = "setting.reset" Reset { kind: SettingKind },
    }
}
