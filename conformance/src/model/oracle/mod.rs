//! What the contract says a store does, written as plainly as can be: lists of entities, and loops.
//! It shares the entities' types with the store, and none of its code.

mod addresses;
mod credentials;
mod documents;
mod instances;
mod nodes;
mod presence;
mod register;
mod routes;
mod sign_ins;
mod users;

use super::call::{Answer, Call, Fresh, Refusal};
use crate::prelude::*;

/// Everything that is stored.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Oracle {
    pub(super) now: Timestamp,
    pub(super) users: Vec<User>,
    pub(super) nodes: Vec<Node>,
    pub(super) presence: Vec<Presence>,
    pub(super) routes: Vec<Route>,
    pub(super) api_keys: Vec<ApiKey>,
    pub(super) preauth_keys: Vec<PreAuthKey>,
    pub(super) policies: Vec<Policy>,
    pub(super) dns_records: Vec<DnsRecord>,
    pub(super) sessions: Vec<Session>,
    pub(super) sign_ins: Vec<SignIn>,
    /// By what state each of them is found.
    pub(super) states: Vec<(SignInId, &'static str)>,
    pub(super) instances: Vec<Instance>,
    pub(super) settings: Vec<Setting>,
    /// In the order of their keys.
    pub(super) metrics: Vec<MetricPoint>,
    /// Commands that wrote something; in a transaction each counts.
    pub(super) writes: u64,
}

type Predicted<T = Answer> = Result<T, ErrorKind>;

fn taken(constraint: &'static str) -> ErrorKind {
    AlreadyExists { constraint }
}

/// Whether a session is a user's, or a node's, or was begun by a user from a node.
pub(super) fn is_of(session: &Session, owner: SessionOwner) -> bool {
    session.owner == owner || session.node.is_some_and(|node| owner == SessionOwner::Node(node))
}

/// Whether it is over at `now`.
fn is_over(expires_at: Option<Timestamp>, now: Timestamp) -> bool {
    match expires_at {
        Some(at) => at <= now,
        None => false,
    }
}

/// What an update has to be told about the revision that is there.
fn expect(expected: Option<Revision>, revision: Revision) -> Predicted<()> {
    match expected {
        Some(expected) if expected != revision => Err(Conflict),
        _ => Ok(()),
    }
}

fn plus_one(revision: Revision) -> Revision {
    Revision::new(revision.get() + 1).expect("a small number")
}

fn patched<T: Clone>(field: &Option<T>, patch: &Patch<T>) -> Option<T> {
    match patch {
        Patch::Keep => field.clone(),
        Patch::Clear => None,
        Patch::Set(value) => Some(value.clone()),
    }
}

fn changed<T: Clone>(field: &T, change: &Update<T>) -> T {
    match change {
        Update::Keep => field.clone(),
        Update::Set(value) => value.clone(),
    }
}

/// Removes the entity that is meant, which has to be there.
fn remove<T>(entities: &mut Vec<T>, is_meant: impl Fn(&T) -> bool) -> Predicted {
    let count = entities.len();
    entities.retain(|entity| !is_meant(entity));
    if entities.len() == count { Err(NotFound) } else { Ok(Answer::Done) }
}

impl Oracle {
    pub(super) fn new(now: Timestamp) -> Self {
        Self {
            now,
            users: Vec::new(),
            nodes: Vec::new(),
            presence: Vec::new(),
            routes: Vec::new(),
            api_keys: Vec::new(),
            preauth_keys: Vec::new(),
            policies: Vec::new(),
            dns_records: Vec::new(),
            sessions: Vec::new(),
            sign_ins: Vec::new(),
            states: Vec::new(),
            instances: Vec::new(),
            settings: Vec::new(),
            metrics: Vec::new(),
            writes: 0,
        }
    }

    /// What the call has to give. What is refused changes nothing.
    pub(super) fn carry_out(&mut self, call: &Call, fresh: &Fresh) -> Result<Answer, Refusal> {
        match call {
            Call::Transact(preconditions, steps) => {
                let mut next = self.clone();
                let answer = next.transact(preconditions, steps)?;
                *self = next;
                Ok(answer)
            }
            call => Ok(self.carry_out_one(call, fresh)?),
        }
    }

    fn transact(
        &mut self,
        preconditions: &[Precondition],
        steps: &[(Call, Fresh)],
    ) -> Result<Answer, Refusal> {
        if !preconditions.iter().all(|precondition| self.holds(precondition)) {
            return Err(Conflict.into());
        }
        let mut answers = Vec::new();
        for (index, (call, fresh)) in steps.iter().enumerate() {
            let refused = |kind| Refusal { kind, step: Some(index.to_string()) };
            answers.push(self.carry_out_one(call, fresh).map_err(refused)?);
        }
        Ok(Answer::All(answers))
    }

    fn holds(&self, precondition: &Precondition) -> bool {
        match precondition {
            Precondition::UserExists(id) => self.users.iter().any(|user| user.id == *id),
            Precondition::UserRevision(id, revision) => {
                self.users.iter().any(|user| user.id == *id && user.revision == *revision)
            }
            Precondition::UserMetadataRevision(id, revision) => {
                let mut users = self.users.iter();
                users.any(|user| user.id == *id && user.metadata_revision == *revision)
            }
            Precondition::NodeExists(id) => self.nodes.iter().any(|node| node.id == *id),
            Precondition::NodeAbsent(id) => !self.nodes.iter().any(|node| node.id == *id),
            Precondition::NodeRevision(id, revision) => {
                self.nodes.iter().any(|node| node.id == *id && node.revision == *revision)
            }
            Precondition::PolicyVersion(version) => self.policy_in_force() == *version,
            Precondition::SettingRevision(kind, revision) => {
                self.setting(*kind).map(|setting| setting.revision) == *revision
            }
            Precondition::DnsRecordSet(name, kind, fingerprint) => {
                self.fingerprint(name, *kind) == *fingerprint
            }
            Precondition::RouteRevision(id, revision) => {
                self.routes.iter().any(|route| route.id == *id && route.revision == *revision)
            }
            Precondition::NodeRoutes(id, expected) => {
                let routes = self.routes.iter().filter(|route| route.node == *id);
                let is_there = self.nodes.iter().any(|node| node.id == *id);
                is_there
                    && Fingerprint::of(routes.map(|route| (route.id, route.revision))) == *expected
            }
            Precondition::SerialIs(_) => panic!("the oracle counts no commits"),
        }
    }

    fn carry_out_one(&mut self, call: &Call, fresh: &Fresh) -> Predicted {
        let mut next = self.clone();
        let answer = next.answer(call, fresh)?;
        next.choose_primaries(self);
        let answer = match answer {
            // Whether they are primary is settled only now.
            Answer::Routes(routes) => Answer::Routes(next.as_they_are(&routes)),
            Answer::Route(route) => Answer::Route(next.as_they_are(&[route]).remove(0)),
            answer => answer,
        };
        if next != *self && !matches!(call, Call::RecordMetrics(_)) {
            next.writes = self.writes + 1;
        }
        *self = next;
        Ok(answer)
    }

    fn answer(&mut self, call: &Call, fresh: &Fresh) -> Predicted {
        match call {
            Call::CreateUser(user) => self.create_user(user, fresh),
            Call::UpsertOidc(profile) => self.upsert_oidc(profile, fresh),
            Call::SignIn(id) => self.sign_in(*id),
            Call::SetMetadata(id, metadata, expected) => {
                self.set_metadata(*id, metadata, *expected)
            }
            Call::UpdateUser(id, patch, expected) => self.update_user(*id, patch, *expected),
            Call::DeleteUser(id, cascade) => self.delete_user(*id, *cascade),
            Call::CreatePreAuthKey(key) => self.create_preauth_key(key, fresh),
            Call::RevokePreAuthKey(id) => self.revoke_preauth_key(*id),
            Call::DeletePreAuthKey(id) => self.delete_preauth_key(*id),
            Call::Register(registration) => self.register(registration, fresh),
            Call::UpdateNode(id, patch, expected) => self.update_node(*id, patch, *expected),
            Call::RotateKey(rotation) => self.rotate_key(rotation),
            Call::ExpireNodes(nodes, at) => self.expire_nodes(nodes, *at),
            Call::DeleteNode(id) => self.delete_node(*id),
            Call::BackfillAddresses => self.backfill_addresses(),
            Call::ReapEphemeral => Ok(self.reap_ephemeral()),
            Call::Connect(node, session, endpoints, instance) => {
                self.connect(*node, Some(*session), endpoints, *instance)
            }
            Call::Open(node, endpoints, instance) => {
                self.connect(*node, None, endpoints, *instance)
            }
            Call::Heartbeat(node, session, endpoints, instance) => {
                self.heartbeat(*node, *session, endpoints, *instance)
            }
            Call::PutEndpoint(node, session, endpoint, instance) => {
                self.put_endpoint(*node, *session, *endpoint, *instance)
            }
            Call::RemoveEndpoint(node, session, addr, instance) => {
                self.remove_endpoint(*node, *session, *addr, *instance)
            }
            Call::Touch(node, unless_since) => self.touch(*node, *unless_since),
            Call::Disconnect(node, session) => self.disconnect(*node, *session),
            Call::DisconnectAll => Ok(self.disconnect_all(|_| true)),
            Call::DisconnectAllOf(instance) => {
                Ok(self.disconnect_all(|presence| presence.instance == Some(*instance)))
            }
            Call::DisconnectLost(unseen_for) => self.disconnect_lost(*unseen_for),
            Call::BeginInstance(name) => Ok(self.begin_instance(name, fresh)),
            Call::BeatInstance(id) => self.beat_instance(*id),
            Call::EndInstance(id) => self.end_instance(*id),
            Call::Advertise(node, prefixes) => self.advertise(*node, prefixes, fresh),
            Call::Approve(node, prefixes) => self.approve(*node, prefixes, fresh),
            Call::DeleteRoute(id) => self.delete_route(*id),
            Call::SetApproved(id, approved) => self.set_approved(*id, *approved),
            Call::UpdateRoute(id, patch, expected) => self.update_route(*id, patch, *expected),
            Call::SweepRoutes => Ok(self.sweep_routes()),
            Call::SwapPolicy(expected, document) => self.swap_policy(*expected, document),
            Call::RollbackPolicy(expected, to) => self.rollback_policy(*expected, *to),
            Call::PrunePolicies(keep) => Ok(self.prune_policies(*keep)),
            Call::CreateDnsRecord(record) => self.create_dns_record(record, fresh),
            Call::UpdateDnsRecord(id, patch, expected) => {
                self.update_dns_record(*id, patch, *expected)
            }
            Call::DeleteDnsRecord(id) => self.delete_dns_record(*id),
            Call::PutDnsRecords(set, expected) => self.put_dns_records(set, *expected, fresh),
            Call::DeleteDnsRecords(name, kind, expected) => {
                self.delete_dns_records(name, *kind, *expected)
            }
            Call::PutSetting(document, expected) => self.put_setting(document, *expected),
            Call::ResetSetting(kind) => self.reset_setting(*kind),
            Call::BeginSignIn(state, sign_in) => self.begin_sign_in(state, sign_in, fresh),
            Call::TakeSignIn(purpose, state) => self.take_sign_in(purpose, state),
            Call::ReplaceSignIn(purpose, state, from, to) => {
                self.replace_sign_in(purpose, state, from, to)
            }
            Call::SweepSignIns => Ok(self.sweep_sign_ins()),
            Call::BeginSession(session) => self.begin_session(session, fresh),
            Call::TouchSession(id, expires_at) => self.touch_session(*id, *expires_at),
            Call::EndSession(id) => self.end_session(*id),
            Call::EndAllSessions(owner) => Ok(self.end_all_sessions(*owner)),
            Call::SweepSessions => Ok(self.sweep_sessions()),
            Call::CreateApiKey(key) => self.create_api_key(key, fresh),
            Call::RevokeApiKey(id) => self.revoke_api_key(*id),
            Call::DeleteApiKey(id) => self.delete_api_key(*id),
            Call::SweepApiKeys(before) => Ok(self.sweep_api_keys(*before)),
            Call::SweepPreAuthKeys(before) => Ok(self.sweep_preauth_keys(*before)),
            Call::RecordMetrics(points) => Ok(self.record_metrics(points)),
            Call::Transact(..) => panic!("a transaction contains no transaction"),
        }
    }

    fn record_metrics(&mut self, points: &[MetricPoint]) -> Answer {
        let key = |point: &MetricPoint| (point.node, point.metric.clone(), point.at);
        for point in points {
            self.metrics.retain(|known| key(known) != key(point));
            self.metrics.push(point.clone());
        }
        self.metrics.sort_by_key(key);
        Answer::Done
    }
}
