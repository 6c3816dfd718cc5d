//! What random scripts covered. Scripts that never reach a state prove nothing about it.

use std::collections::BTreeMap;

use super::call::{Answer, Refusal};
use super::operation::Operation;

/// How often each operation had which outcome.
#[derive(Debug, Default)]
pub(super) struct Coverage {
    outcomes: BTreeMap<(Operation, String), u64>,
    /// How often a route was primary although an older one could be.
    late_primaries: u64,
    /// How often an instance held a connection.
    held_connections: u64,
}

const WROTE: &str = "wrote";
const IDLE: &str = "changed nothing";

/// Refusals that have to occur, by operation.
const REFUSALS: &[(Operation, &[&str])] = {
    use Operation as Op;
    &[
        (Op::CreateUser, &["already_exists (name)", "already_exists (identity)"]),
        (Op::UpsertOidc, &[IDLE]),
        (Op::SignIn, &["not_found", IDLE]),
        (Op::SetMetadata, &["not_found", "conflict", IDLE]),
        (Op::UpdateUser, &["not_found", "conflict", "already_exists (name)", "restricted"]),
        (Op::DeleteUser, &["not_found", "restricted"]),
        (Op::CreatePreAuthKey, &["not_found", "invalid_argument", "exhausted"]),
        (Op::RevokePreAuthKey, &["not_found"]),
        (Op::DeletePreAuthKey, &["not_found"]),
        (
            Op::Register,
            &[
                "not_found",
                "permission_denied",
                "already_exists (machine_key)",
                "already_exists (node_key)",
                "exhausted",
                IDLE,
            ],
        ),
        (
            Op::UpdateNode,
            &["not_found", "conflict", "invalid_argument", "already_exists (label)", IDLE],
        ),
        (
            Op::RotateKey,
            &["not_found", "conflict", "permission_denied", "already_exists (node_key)", IDLE],
        ),
        (Op::ExpireNodes, &["not_found", IDLE]),
        (Op::DeleteNode, &["not_found"]),
        (Op::BackfillAddresses, &["exhausted", IDLE]),
        (Op::ReapEphemeral, &[IDLE]),
        (Op::Connect, &["not_found", IDLE]),
        (Op::Open, &["not_found"]),
        (Op::Heartbeat, &["not_found", IDLE]),
        (Op::PutEndpoint, &["not_found", IDLE]),
        (Op::RemoveEndpoint, &["not_found", IDLE]),
        (Op::Touch, &["not_found", IDLE]),
        (Op::Disconnect, &["not_found", IDLE]),
        (Op::DisconnectAll, &[IDLE]),
        (Op::DisconnectAllOf, &[IDLE]),
        (Op::DisconnectLost, &["invalid_argument", IDLE]),
        (Op::BeatInstance, &["not_found", IDLE]),
        (Op::EndInstance, &["not_found"]),
        (Op::Advertise, &["not_found", IDLE]),
        (Op::Approve, &["not_found", IDLE]),
        (Op::DeleteRoute, &["not_found"]),
        (Op::SetApproved, &["not_found", IDLE]),
        (Op::UpdateRoute, &["not_found", "conflict", IDLE]),
        (Op::SweepRoutes, &[IDLE]),
        (Op::SwapPolicy, &["conflict"]),
        (Op::RollbackPolicy, &["conflict", "not_found"]),
        (Op::PrunePolicies, &[IDLE]),
        (Op::CreateDnsRecord, &["invalid_argument", "already_exists (content)"]),
        (
            Op::UpdateDnsRecord,
            &["not_found", "conflict", "invalid_argument", "already_exists (content)", IDLE],
        ),
        (Op::DeleteDnsRecord, &["not_found"]),
        (Op::PutDnsRecords, &["conflict", "invalid_argument", IDLE]),
        (Op::DeleteDnsRecords, &["conflict", IDLE]),
        (Op::PutNetwork, &["conflict", "invalid_argument", IDLE]),
        (Op::PutDerpMap, &["conflict", "invalid_argument", IDLE]),
        (Op::PutDns, &["conflict", "invalid_argument", IDLE]),
        (Op::ResetSetting, &["not_found"]),
        (Op::BeginSignIn, &["invalid_argument", "already_exists (hash)"]),
        (Op::TakeSignIn, &["permission_denied"]),
        (Op::ReplaceSignIn, &["permission_denied", "conflict", IDLE]),
        (Op::SweepSignIns, &[IDLE]),
        (Op::BeginSession, &["not_found", "invalid_argument"]),
        (Op::TouchSession, &["not_found", IDLE]),
        (Op::EndSession, &["not_found"]),
        (Op::EndAllSessions, &[IDLE]),
        (Op::SweepSessions, &[IDLE]),
        (Op::CreateApiKey, &["not_found", "exhausted"]),
        (Op::RevokeApiKey, &["not_found"]),
        (Op::DeleteApiKey, &["not_found"]),
        (Op::SweepApiKeys, &[IDLE]),
        (Op::SweepPreAuthKeys, &[IDLE]),
        (Op::Transact, &["conflict", "not_found in step 0", "not_found in step 1", IDLE]),
    ]
};

/// Fewer scripts than this need not cover everything. This many run on a durable backend by
/// default, so that a lack of coverage is noticed there, too.
const ENOUGH: u32 = 500;

impl Coverage {
    pub(super) fn count(
        &mut self,
        operation: Operation,
        outcome: &Result<Answer, Refusal>,
        wrote: bool,
    ) {
        let outcome = match outcome {
            Ok(_) if wrote => WROTE.to_owned(),
            Ok(_) => IDLE.to_owned(),
            Err(refusal) => refusal.describe(),
        };
        *self.outcomes.entry((operation, outcome)).or_default() += 1;
    }

    pub(super) fn saw_late_primary(&mut self) {
        self.late_primaries += 1;
    }

    pub(super) fn saw_held_connection(&mut self) {
        self.held_connections += 1;
    }

    /// What has to occur in this many scripts and did not.
    pub(super) fn missing(&self, scripts: u32) -> Vec<String> {
        if scripts < ENOUGH {
            return Vec::new();
        }
        let occurs = |operation: Operation, outcome: &str| {
            self.outcomes.contains_key(&(operation, outcome.to_owned()))
        };
        let mut missing = Vec::new();
        if self.late_primaries == 0 {
            missing.push("a route that is primary although an older one could be".to_owned());
        }
        if self.held_connections == 0 {
            missing.push("a connection that an instance holds".to_owned());
        }
        for &(operation, _) in Operation::ALL {
            let listed = REFUSALS.iter().filter(|(listed, _)| *listed == operation);
            let writes = !matches!(
                operation,
                Operation::RecordMetrics | Operation::Wait | Operation::Crash | Operation::Reopen
            );
            let outcomes = writes.then_some(WROTE).into_iter();
            for outcome in outcomes.chain(listed.flat_map(|(_, outcomes)| outcomes.iter().copied()))
            {
                if !occurs(operation, outcome) {
                    missing.push(format!("{operation:?}: {outcome}"));
                }
            }
        }
        missing
    }
}
