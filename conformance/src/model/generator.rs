//! Generates the arguments of a call from the entities that exist.

use std::net::SocketAddr;
use std::time::Duration;

use ghostwire_store_core::command::Precondition;
use ghostwire_store_core::domain::*;

use super::call::{Call, Fresh, Rotation};
use super::operation::{Choices, Operation as Op};
use super::oracle::Oracle;
use super::values::*;

/// Everything that was ever created, in order: the first node is node 1.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    pub(super) users: Vec<UserId>,
    pub(super) nodes: Vec<NodeId>,
    pub(super) routes: Vec<RouteId>,
    pub(super) preauth_keys: Vec<PreAuthKeyId>,
    pub(super) api_keys: Vec<ApiKeyId>,
    pub(super) dns_records: Vec<DnsRecordId>,
    pub(super) sessions: Vec<SessionId>,
    pub(super) sign_ins: Vec<SignInId>,
    pub(super) instances: Vec<InstanceId>,
}

/// An id that was never used.
const STRANGER: [u8; 16] = [0xee; 16];

/// Mostly an id that exists, sometimes one that was deleted or never used.
fn pick<I: Id>(choices: &mut Choices, there: &[I], known: &[I]) -> I {
    let gone: Vec<_> = known.iter().filter(|id| !there.contains(id)).collect();
    match choices.roll() {
        number @ 0..12 if !there.is_empty() => there[number % there.len()],
        number @ 0..15 if !gone.is_empty() => *gone[number % gone.len()],
        _ => I::from_bytes(STRANGER),
    }
}

macro_rules! picks {
    ($($entity:ident: $id:ident of $entities:ident),* $(,)?) => {$(
        fn $entity(&self, choices: &mut Choices) -> $id {
            let there: Vec<_> = self.oracle.$entities.iter().map(|entity| entity.id).collect();
            pick(choices, &there, &self.known.$entities)
        }
    )*};
}

/// Turns a step into a call.
pub(super) struct Generator<'s> {
    pub(super) oracle: &'s Oracle,
    pub(super) known: &'s Known,
    /// Identifiers for what transactions make.
    pub(super) fresh: &'s mut dyn FnMut() -> [u8; 16],
}

impl Generator<'_> {
    fn at(&self, choices: &mut Choices) -> Timestamp {
        let seconds = [100, 1000, 30, 0, -10];
        let micros = self.oracle.now.as_micros() + choices.one_of(&seconds) * 1_000_000;
        Timestamp::from_micros(micros).expect("near the present")
    }

    fn expiry(&self, choices: &mut Choices) -> Option<Timestamp> {
        choices.maybe(8, |choices| self.at(choices))
    }

    picks! {
        user: UserId of users, node: NodeId of nodes, route: RouteId of routes,
        preauth_key: PreAuthKeyId of preauth_keys, api_key: ApiKeyId of api_keys,
        session: SessionId of sessions, dns_record: DnsRecordId of dns_records,
        instance: InstanceId of instances,
    }

    /// Mostly one that is there, or none.
    fn holder(&self, choices: &mut Choices) -> Option<InstanceId> {
        choices.maybe(6, |choices| self.instance(choices))
    }

    /// Mostly one that the node has, sometimes with what else is known of it.
    fn endpoint(&self, choices: &mut Choices, node: NodeId) -> Endpoint {
        let presence = self.oracle.presence.iter().find(|presence| presence.node == node);
        let there = presence.map_or(&[][..], |presence| presence.endpoints.as_slice());
        let endpoint = echo(choices, there, |choices| {
            Endpoint::new(parsed_one(choices, &ENDPOINTS), self.at(choices))
        });
        let kind = choices.maybe(4, |_| EndpointKind::Stun).unwrap_or_default();
        Endpoint { kind, preference: choices.maybe(4, |_| 7).unwrap_or_default(), ..endpoint }
    }

    fn sign_in(&self, choices: &mut Choices) -> NewSignIn {
        NewSignIn {
            purpose: parsed_one(choices, &PURPOSES),
            payload: SignInPayload::new(*choices.one_of(&HOST_INFOS)).expect("a short text"),
            expires_at: self.at(choices),
        }
    }

    fn owner(&self, choices: &mut Choices) -> SessionOwner {
        if choices.happens(8) {
            SessionOwner::Node(self.node(choices))
        } else {
            SessionOwner::User(self.user(choices))
        }
    }

    /// None, the one that is there, or another one.
    fn revision(choices: &mut Choices, current: Option<Revision>) -> Option<Revision> {
        let current = current.unwrap_or(Revision::FIRST);
        match choices.roll() {
            0..8 => None,
            8..13 => Some(current),
            _ => Some(current.next()),
        }
    }

    /// Mostly the next one or the present one, as is usual for the message.
    fn session_number(&self, choices: &mut Choices, node: NodeId, is_new: bool) -> SessionNumber {
        let presence = self.oracle.presence.iter().find(|presence| presence.node == node);
        let present = presence.map_or(0, |presence| presence.session.get());
        let number = match choices.roll() {
            0..10 => present + u64::from(is_new),
            10 => present + 2,
            number => [0, 1, 2, 3, 4, 5][number % 6],
        };
        SessionNumber::new(number).expect("a small number")
    }

    fn endpoints(&self, choices: &mut Choices) -> Update<EndpointList> {
        change(choices, |choices| {
            let count = choices.roll() % 3;
            let endpoints = (0..count).map(|_| {
                Endpoint::new(parsed_one::<SocketAddr>(choices, &ENDPOINTS), self.oracle.now)
            });
            EndpointList::new(endpoints.collect::<Vec<_>>()).expect("few endpoints")
        })
    }

    fn version(&self, choices: &mut Choices) -> Option<PolicyVersion> {
        let current = self.oracle.policy_in_force();
        match choices.roll() {
            0..11 => current,
            11..13 => current.and_then(|version| PolicyVersion::new(version.get() - 1).ok()),
            13..15 => PolicyVersion::new(current.map_or(1, |version| version.get() + 1)).ok(),
            _ => None,
        }
    }

    /// That of a set, or of one that nobody has begun.
    fn fingerprint(
        &self,
        choices: &mut Choices,
        name: &DnsName,
        kind: DnsRecordKind,
    ) -> Fingerprint {
        match choices.happens(5) {
            true => Fingerprint::of::<DnsRecordId>([]),
            false => self.oracle.fingerprint(name, kind),
        }
    }

    fn dns_value(&self, choices: &mut Choices) -> Text<1024> {
        let records = self.oracle.dns_records.iter();
        let there: Vec<_> = records.map(|record| record.value.clone()).collect();
        echo(choices, &there, |choices| parsed_one(choices, &DNS_VALUES))
    }

    /// The call of an operation with its random numbers.
    #[allow(clippy::too_many_lines)]
    pub(super) fn call(&mut self, operation: Op, choices: &mut Choices) -> Call {
        match operation {
            Op::CreateUser => {
                let name = name(choices);
                let identity = identity(choices);
                let display_name = choices.maybe(5, text);
                let email = choices.maybe(5, email);
                let picture_url = choices.maybe(3, text);
                let role = choices.maybe(4, role).unwrap_or_default();
                Call::CreateUser(NewUser { name, display_name, email, identity, picture_url, role })
            }
            Op::UpsertOidc => {
                let profile = |user: &User| match &user.identity {
                    Identity::Oidc { provider, subject } => Some(OidcProfile {
                        provider: provider.clone(),
                        subject: subject.clone(),
                        name: user.name.clone(),
                        display_name: user.display_name.clone(),
                        email: user.email.clone(),
                        email_verified: false,
                        picture_url: user.picture_url.clone(),
                        groups: user.groups.clone(),
                    }),
                    _ => None,
                };
                let there: Vec<_> = self.oracle.users.iter().filter_map(profile).collect();
                Call::UpsertOidc(echo(choices, &there, |choices| OidcProfile {
                    provider: parsed_one(choices, &PROVIDERS),
                    subject: parsed_one(choices, &SUBJECTS),
                    name: name(choices),
                    display_name: choices.maybe(3, text),
                    email: choices.maybe(3, email),
                    email_verified: false,
                    picture_url: choices.maybe(3, text),
                    groups: choices.maybe(6, groups).unwrap_or_default(),
                }))
            }
            Op::SignIn => Call::SignIn(self.user(choices)),
            Op::SetMetadata => {
                let id = self.user(choices);
                let user = self.oracle.users.iter().find(|user| user.id == id);
                let current = user.and_then(|user| user.metadata_revision);
                let metadata = choices.maybe(10, |choices| parsed_one(choices, &HOST_INFOS));
                Call::SetMetadata(id, metadata, Self::revision(choices, current))
            }
            Op::UpdateUser => {
                let id = self.user(choices);
                let user = self.oracle.users.iter().find(|user| user.id == id);
                let expected = Self::revision(choices, user.map(|user| user.revision));
                let there: Vec<_> =
                    self.oracle.users.iter().map(|user| user.name.clone()).collect();
                let patch = UserPatch {
                    name: change(choices, |choices| echo(choices, &there, name)),
                    display_name: patch(choices, text),
                    email: patch(choices, email),
                    identity: change(choices, identity),
                    picture_url: patch(choices, text),
                    role: change(choices, role),
                    groups: change(choices, groups),
                };
                Call::UpdateUser(id, patch, expected)
            }
            Op::DeleteUser => Call::DeleteUser(self.user(choices), choices.happens(6)),
            Op::CreatePreAuthKey => {
                let tags = choices.maybe(6, tags).unwrap_or_default();
                let user = if choices.happens(3) { None } else { Some(self.user(choices)) };
                Call::CreatePreAuthKey(NewPreAuthKey {
                    user,
                    tags,
                    reusable: choices.happens(8),
                    ephemeral: choices.happens(8),
                    expires_at: choices.maybe(4, |choices| self.at(choices)),
                })
            }
            Op::RevokePreAuthKey => Call::RevokePreAuthKey(self.preauth_key(choices)),
            Op::DeletePreAuthKey => Call::DeletePreAuthKey(self.preauth_key(choices)),
            Op::Register => self.register(choices),
            Op::UpdateNode => {
                let id = self.node(choices);
                let node = self.oracle.nodes.iter().find(|node| node.id == id);
                let expected = Self::revision(choices, node.map(|node| node.revision));
                let patch = NodePatch {
                    label: change(choices, |choices| {
                        let nodes = self.oracle.nodes.iter();
                        let there: Vec<_> = nodes.map(|node| node.label.clone()).collect();
                        echo(choices, &there, |choices| parsed_one(choices, &LABELS))
                    }),
                    hostname: change(choices, |choices| parsed_one(choices, &HOSTNAMES)),
                    tags: change(choices, tags),
                    user: patch(choices, |choices| self.user(choices)),
                    host_info: change(choices, |choices| parsed_one(choices, &HOST_INFOS)),
                    disco_key: patch(choices, disco_key),
                    expires_at: patch(choices, |choices| self.at(choices)),
                    families: change(choices, |choices| {
                        use AddressFamilies::{Both, Ipv4, Ipv6};
                        *choices.one_of(&[Ipv4, Both, Ipv6])
                    }),
                };
                Call::UpdateNode(id, patch, expected)
            }
            Op::RotateKey => {
                let machine_key = self.machine(choices);
                let node = self.oracle.nodes.iter().find(|node| node.machine_key == machine_key);
                let present = node.map(|node| node.node_key).filter(|_| !choices.happens(4));
                let from = present.unwrap_or_else(|| node_key(choices));
                // Sometimes a rotation is repeated.
                let (to, disco_key, expires_at) = match node.filter(|_| choices.happens(3)) {
                    Some(node) => (node.node_key, node.disco_key, node.expires_at),
                    None => (node_key(choices), choices.maybe(6, disco_key), self.expiry(choices)),
                };
                Call::RotateKey(Rotation { machine_key, from, to, disco_key, expires_at })
            }
            Op::ExpireNodes => {
                let there = self.oracle.nodes.iter().filter_map(|node| node.expires_at);
                let at = echo(choices, &there.collect::<Vec<_>>(), |choices| self.at(choices));
                let count = 1 + choices.roll() % 3;
                Call::ExpireNodes((0..count).map(|_| self.node(choices)).collect(), at)
            }
            Op::DeleteNode => Call::DeleteNode(self.node(choices)),
            Op::BackfillAddresses => Call::BackfillAddresses,
            Op::ReapEphemeral => Call::ReapEphemeral,
            Op::Connect => {
                let node = self.node(choices);
                let session = self.session_number(choices, node, true);
                let endpoints = self.endpoints(choices);
                Call::Connect(node, session, endpoints, self.holder(choices))
            }
            Op::Open => {
                let (node, endpoints) = (self.node(choices), self.endpoints(choices));
                Call::Open(node, endpoints, self.holder(choices))
            }
            Op::Heartbeat => {
                let node = self.node(choices);
                let session = self.session_number(choices, node, false);
                let endpoints = self.endpoints(choices);
                Call::Heartbeat(node, session, endpoints, self.holder(choices))
            }
            Op::PutEndpoint => {
                let node = self.node(choices);
                let session = self.session_number(choices, node, false);
                let endpoint = self.endpoint(choices, node);
                Call::PutEndpoint(node, session, endpoint, self.holder(choices))
            }
            Op::RemoveEndpoint => {
                let node = self.node(choices);
                let session = self.session_number(choices, node, false);
                let addr = self.endpoint(choices, node).addr;
                Call::RemoveEndpoint(node, session, addr, self.holder(choices))
            }
            Op::Touch => Call::Touch(self.node(choices), self.at(choices)),
            Op::Disconnect => {
                let node = self.node(choices);
                Call::Disconnect(node, self.session_number(choices, node, false))
            }
            Op::DisconnectAll => Call::DisconnectAll,
            Op::DisconnectAllOf => Call::DisconnectAllOf(self.instance(choices)),
            Op::DisconnectLost => {
                let seconds = [30, 10, 60, 1000, 9];
                Call::DisconnectLost(Duration::from_secs(*choices.one_of(&seconds)))
            }
            Op::BeginInstance => Call::BeginInstance(parsed_one(choices, &INSTANCES)),
            Op::BeatInstance => Call::BeatInstance(self.instance(choices)),
            Op::EndInstance => Call::EndInstance(self.instance(choices)),
            Op::Advertise => Call::Advertise(self.node(choices), prefixes(choices)),
            Op::Approve => Call::Approve(self.node(choices), prefixes(choices)),
            Op::DeleteRoute => Call::DeleteRoute(self.route(choices)),
            Op::SetApproved => Call::SetApproved(self.route(choices), choices.happens(8)),
            Op::UpdateRoute => {
                let id = self.route(choices);
                let route = self.oracle.routes.iter().find(|route| route.id == id);
                let expected = Self::revision(choices, route.map(|route| route.revision));
                let patch = RoutePatch {
                    metric: change(choices, |choices| {
                        RouteMetric::new(*choices.one_of(&[1, 0, 2, u32::MAX]))
                    }),
                    description: patch(choices, |choices| parsed_one(choices, &DESCRIPTIONS)),
                };
                Call::UpdateRoute(id, patch, expected)
            }
            Op::SweepRoutes => Call::SweepRoutes,
            Op::SwapPolicy => {
                Call::SwapPolicy(self.version(choices), parsed_one(choices, &DOCUMENTS))
            }
            Op::RollbackPolicy => {
                let expected = self.version(choices).unwrap_or(PolicyVersion::FIRST);
                let kept: Vec<_> =
                    self.oracle.policies.iter().map(|policy| policy.version).collect();
                let to = echo(choices, &kept, |choices| {
                    PolicyVersion::new(1 + choices.roll() as u64 % 4).expect("a small number")
                });
                Call::RollbackPolicy(expected, to)
            }
            Op::PrunePolicies => {
                Call::PrunePolicies(u32::try_from(choices.roll() % 4).expect("a small number"))
            }
            Op::CreateDnsRecord => Call::CreateDnsRecord(NewDnsRecord {
                name: parsed_one(choices, &DNS_NAMES),
                kind: *choices.one_of(&KINDS),
                value: self.dns_value(choices),
                ttl: choices.maybe(4, |choices| *choices.one_of(&[60, 0, u32::MAX])),
            }),
            Op::UpdateDnsRecord => {
                let id = self.dns_record(choices);
                let record = self.oracle.dns_records.iter().find(|record| record.id == id);
                let expected = Self::revision(choices, record.map(|record| record.revision));
                let patch = DnsRecordPatch {
                    value: match choices.happens(11) {
                        true => Update::Set(self.dns_value(choices)),
                        false => Update::Keep,
                    },
                    ttl: patch(choices, |choices| *choices.one_of(&[60, 0])),
                };
                Call::UpdateDnsRecord(id, patch, expected)
            }
            Op::DeleteDnsRecord => Call::DeleteDnsRecord(self.dns_record(choices)),
            Op::PutDnsRecords => {
                let (name, kind) = dns_set(choices);
                let expected = choices.maybe(6, |choices| self.fingerprint(choices, &name, kind));
                let count = choices.roll() % 3;
                let values = (0..count).map(|_| self.dns_value(choices)).collect();
                let ttl = choices.maybe(3, |choices| *choices.one_of(&[60, 0]));
                Call::PutDnsRecords(NewDnsRecordSet { name, kind, values, ttl }, expected)
            }
            Op::DeleteDnsRecords => {
                let (name, kind) = dns_set(choices);
                let expected = choices.maybe(8, |choices| self.fingerprint(choices, &name, kind));
                Call::DeleteDnsRecords(name, kind, expected)
            }
            Op::PutNetwork => {
                let document = SettingDocument::Network(network(choices));
                self.put(choices, document)
            }
            Op::PutDerpMap => {
                let document = SettingDocument::DerpMap(derp_map(choices));
                self.put(choices, document)
            }
            Op::PutDns => {
                let document = SettingDocument::Dns(dns_settings(choices));
                self.put(choices, document)
            }
            Op::ResetSetting => Call::ResetSetting(*choices.one_of(&SettingKind::ALL)),
            Op::BeginSignIn => {
                Call::BeginSignIn(choices.one_of::<&str>(&STATES), self.sign_in(choices))
            }
            Op::TakeSignIn => {
                Call::TakeSignIn(parsed_one(choices, &PURPOSES), choices.one_of::<&str>(&STATES))
            }
            Op::ReplaceSignIn => {
                // Mostly one that is there, of its purpose, and with its payload.
                let there = STATES.iter().find(|state| self.oracle.sign_in_of(state).is_some());
                let any = choices.one_of::<&str>(&STATES);
                let state = there.filter(|_| !choices.happens(4)).copied().unwrap_or(any);
                let known = self.oracle.sign_in_of(state);
                let purpose = match known.filter(|_| !choices.happens(3)) {
                    Some(known) => known.purpose.clone(),
                    None => parsed_one(choices, &PURPOSES),
                };
                let payload = |choices: &mut Choices| {
                    SignInPayload::new(*choices.one_of(&HOST_INFOS)).expect("a short text")
                };
                let from = match known.filter(|_| !choices.happens(6)) {
                    Some(known) => known.payload.clone(),
                    None => payload(choices),
                };
                Call::ReplaceSignIn(purpose, state, from, payload(choices))
            }
            Op::SweepSignIns => Call::SweepSignIns,
            Op::BeginSession => {
                let owner = self.owner(choices);
                let client = choices.maybe(4, text);
                let is_user = matches!(owner, SessionOwner::User(_));
                let node = choices.maybe(6, |choices| self.node(choices)).filter(|_| is_user);
                let expires_at = self.at(choices);
                Call::BeginSession(NewSession { owner, node, client, expires_at })
            }
            Op::EndAllSessions => Call::EndAllSessions(self.owner(choices)),
            Op::TouchSession => Call::TouchSession(self.session(choices), self.expiry(choices)),
            Op::EndSession => Call::EndSession(self.session(choices)),
            Op::SweepSessions => Call::SweepSessions,
            Op::CreateApiKey => Call::CreateApiKey(NewApiKey {
                user: choices.maybe(14, |choices| self.user(choices)),
                description: choices.maybe(4, text),
                permissions: choices.maybe(4, permissions).unwrap_or_default(),
                expires_at: self.expiry(choices),
            }),
            Op::SweepApiKeys => Call::SweepApiKeys(self.at(choices)),
            Op::SweepPreAuthKeys => Call::SweepPreAuthKeys(self.at(choices)),
            Op::RevokeApiKey => Call::RevokeApiKey(self.api_key(choices)),
            Op::DeleteApiKey => Call::DeleteApiKey(self.api_key(choices)),
            Op::RecordMetrics => {
                let count = choices.roll() % 4;
                let point = |choices: &mut Choices| MetricPoint {
                    node: choices.maybe(10, |choices| self.node(choices)),
                    metric: parsed_one(choices, &METRICS),
                    at: self.at(choices),
                    value: Sample::new(*choices.one_of(&[1.0, -0.0, 0.1, 1e300])).expect("finite"),
                };
                Call::RecordMetrics((0..count).map(|_| point(choices)).collect())
            }
            Op::Transact => self.transaction(choices),
            Op::Wait | Op::Crash | Op::Reopen => panic!("{operation:?} is no call"),
        }
    }

    /// Mostly one that is there.
    fn machine(&self, choices: &mut Choices) -> MachineKey {
        let nodes = &self.oracle.nodes;
        match choices.roll() {
            number @ 0..13 if !nodes.is_empty() => nodes[number % nodes.len()].machine_key,
            _ => machine_key(choices),
        }
    }

    fn register(&mut self, choices: &mut Choices) -> Call {
        let machine_key = machine_key(choices);
        let node = self.oracle.nodes.iter().find(|node| node.machine_key == machine_key);
        let present = node.map(|node| node.node_key).filter(|_| choices.happens(8));
        let node_key = present.unwrap_or_else(|| node_key(choices));
        let former = node.and_then(|node| node.preauth_key).filter(|_| choices.happens(8));
        let admission = if choices.happens(9) {
            Admission::PreAuthKey(former.unwrap_or_else(|| self.preauth_key(choices)))
        } else {
            let method = *choices.one_of(&[RegisterMethod::Cli, RegisterMethod::Oidc]);
            Admission::User { user: self.user(choices), method }
        };
        Call::Register(Registration {
            machine_key,
            node_key,
            disco_key: choices.maybe(4, disco_key),
            hostname: parsed_one(choices, &HOSTNAMES),
            host_info: parsed_one(choices, &HOST_INFOS),
            admission,
            expires_at: choices.maybe(4, |choices| self.at(choices)),
            families: None,
        })
    }

    fn put(&self, choices: &mut Choices, document: SettingDocument) -> Call {
        let setting = self.oracle.setting(document.kind());
        let expected = Self::revision(choices, setting.map(|setting| setting.revision));
        let as_it_is = setting.filter(|_| choices.happens(3));
        Call::PutSetting(as_it_is.map_or(document, |setting| setting.document.clone()), expected)
    }

    fn transaction(&mut self, choices: &mut Choices) -> Call {
        let precondition = choices.maybe(7, |choices| match choices.roll() % 8 {
            0 => Precondition::UserExists(self.user(choices)),
            1 => Precondition::NodeExists(self.node(choices)),
            2 => Precondition::NodeAbsent(self.node(choices)),
            3 => Precondition::PolicyVersion(self.version(choices)),
            4 => {
                let id = self.user(choices);
                let user = self.oracle.users.iter().find(|user| user.id == id);
                let revision = Self::revision(choices, user.map(|user| user.revision));
                Precondition::UserRevision(id, revision.unwrap_or(Revision::FIRST))
            }
            5 => {
                let id = self.node(choices);
                let node = self.oracle.nodes.iter().find(|node| node.id == id);
                let revision = Self::revision(choices, node.map(|node| node.revision));
                Precondition::NodeRevision(id, revision.unwrap_or(Revision::FIRST))
            }
            6 => {
                let (name, kind) = dns_set(choices);
                let fingerprint = self.fingerprint(choices, &name, kind);
                Precondition::DnsRecordSet(name, kind, fingerprint)
            }
            _ => {
                let kind = *choices.one_of(&SettingKind::ALL);
                let setting = self.oracle.setting(kind);
                let current = setting.map(|setting| setting.revision);
                let expected = Self::revision(choices, current);
                Precondition::SettingRevision(kind, expected)
            }
        });
        let count = choices.roll() % 4;
        let mut steps = Vec::new();
        for _ in 0..count {
            let call = self.call(Op::in_transaction(choices), choices);
            let fresh = Fresh {
                id: (self.fresh)(),
                routes: self.route_ids(&call),
                records: self.record_ids(&call),
                ..Fresh::default()
            };
            steps.push((call, fresh));
        }
        Call::Transact(precondition.into_iter().collect(), steps)
    }

    fn record_ids(&mut self, call: &Call) -> Vec<(Text<1024>, DnsRecordId)> {
        let Call::PutDnsRecords(set, _) = call else { return Vec::new() };
        let values = set.values.iter().filter_map(|value| set.kind.canonical(value).ok());
        values.map(|value| (value, DnsRecordId::from_bytes((self.fresh)()))).collect()
    }

    fn route_ids(&mut self, call: &Call) -> Vec<(Prefix, RouteId)> {
        let (Call::Advertise(_, prefixes) | Call::Approve(_, prefixes)) = call else {
            return Vec::new();
        };
        let mut ids: Vec<(Prefix, RouteId)> = Vec::new();
        for prefix in prefixes {
            if !ids.iter().any(|(known, _)| known == prefix) {
                ids.push((*prefix, RouteId::from_bytes((self.fresh)())));
            }
        }
        ids
    }
}

/// What could be a set of DNS records.
fn dns_set(choices: &mut Choices) -> (DnsName, DnsRecordKind) {
    (parsed_one(choices, &DNS_NAMES), *choices.one_of(&KINDS))
}
