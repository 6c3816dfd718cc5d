//! Choosing a call's arguments from what there is.

use std::net::SocketAddr;

use ghostwire_store_core::command::Precondition;
use ghostwire_store_core::domain::*;

use super::call::{Call, Fresh, Rotation};
use super::operation::{Dice, Operation as Op};
use super::oracle::Oracle;
use super::values::*;

/// Everything that was ever made, in the order of its making: the first node is node 1.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    pub(super) users: Vec<UserId>,
    pub(super) nodes: Vec<NodeId>,
    pub(super) routes: Vec<RouteId>,
    pub(super) preauth_keys: Vec<PreAuthKeyId>,
    pub(super) api_keys: Vec<ApiKeyId>,
    pub(super) dns_records: Vec<DnsRecordId>,
    pub(super) sessions: Vec<SessionId>,
}

/// One that nobody made.
const STRANGER: [u8; 16] = [0xee; 16];

/// Mostly one that is there, sometimes one that was, or never was.
fn pick<I: Id>(dice: &mut Dice, there: &[I], known: &[I]) -> I {
    let gone: Vec<_> = known.iter().filter(|id| !there.contains(id)).collect();
    match dice.roll() {
        number @ 0..12 if !there.is_empty() => there[number % there.len()],
        number @ 0..15 if !gone.is_empty() => *gone[number % gone.len()],
        _ => I::from_bytes(STRANGER),
    }
}

macro_rules! picks {
    ($($entity:ident: $id:ident of $entities:ident),* $(,)?) => {$(
        fn $entity(&self, dice: &mut Dice) -> $id {
            let there: Vec<_> = self.oracle.$entities.iter().map(|entity| entity.id).collect();
            pick(dice, &there, &self.known.$entities)
        }
    )*};
}

/// What a step is resolved against.
pub(super) struct Scene<'s> {
    pub(super) oracle: &'s Oracle,
    pub(super) known: &'s Known,
    /// Identifiers for what transactions make.
    pub(super) fresh: &'s mut dyn FnMut() -> [u8; 16],
}

impl Scene<'_> {
    fn at(&self, dice: &mut Dice) -> Timestamp {
        let seconds = [100, 1000, 30, 0, -10];
        let micros = self.oracle.now.as_micros() + dice.one_of(&seconds) * 1_000_000;
        Timestamp::from_micros(micros).expect("near the present")
    }

    fn expiry(&self, dice: &mut Dice) -> Option<Timestamp> {
        dice.maybe(8, |dice| self.at(dice))
    }

    picks! {
        user: UserId of users, node: NodeId of nodes, route: RouteId of routes,
        preauth_key: PreAuthKeyId of preauth_keys, api_key: ApiKeyId of api_keys,
        session: SessionId of sessions, dns_record: DnsRecordId of dns_records,
    }

    /// None, the one that is there, or another one.
    fn revision(dice: &mut Dice, current: Option<Revision>) -> Option<Revision> {
        let current = current.unwrap_or(Revision::FIRST);
        match dice.roll() {
            0..8 => None,
            8..13 => Some(current),
            _ => Some(current.next()),
        }
    }

    /// Mostly the next one or the present one, as is usual for the message.
    fn session_number(&self, dice: &mut Dice, node: NodeId, is_new: bool) -> SessionNumber {
        let presence = self.oracle.presence.iter().find(|presence| presence.node == node);
        let present = presence.map_or(0, |presence| presence.session.get());
        let number = match dice.roll() {
            0..10 => present + u64::from(is_new),
            10 => present + 2,
            number => [0, 1, 2, 3, 4, 5][number % 6],
        };
        SessionNumber::new(number).expect("a small number")
    }

    fn endpoints(&self, dice: &mut Dice) -> Change<EndpointList> {
        change(dice, |dice| {
            let count = dice.roll() % 3;
            let endpoints = (0..count).map(|_| Endpoint {
                addr: parsed_one::<SocketAddr>(dice, &ENDPOINTS),
                seen_at: self.oracle.now,
            });
            EndpointList::new(endpoints.collect::<Vec<_>>()).expect("few endpoints")
        })
    }

    fn version(&self, dice: &mut Dice) -> Option<PolicyVersion> {
        let current = self.oracle.policy_in_force();
        match dice.roll() {
            0..11 => current,
            11..13 => current.and_then(|version| PolicyVersion::new(version.get() - 1).ok()),
            13..15 => PolicyVersion::new(current.map_or(1, |version| version.get() + 1)).ok(),
            _ => None,
        }
    }

    fn dns_value(&self, dice: &mut Dice) -> Text<1024> {
        let records = self.oracle.dns_records.iter();
        let there: Vec<_> = records.map(|record| record.value.clone()).collect();
        echo(dice, &there, |dice| parsed_one(dice, &DNS_VALUES))
    }

    /// The call that an operation and its dice amount to here.
    #[allow(clippy::too_many_lines)]
    pub(super) fn call(&mut self, operation: Op, dice: &mut Dice) -> Call {
        match operation {
            Op::CreateUser => {
                let name = name(dice);
                let identity = match dice.roll() {
                    0..10 => Identity::Local {},
                    10..14 => Identity::Oidc {
                        provider: parsed_one(dice, &PROVIDERS),
                        subject: parsed_one(dice, &SUBJECTS),
                    },
                    _ => Identity::PreAuth {},
                };
                let display_name = dice.maybe(5, text);
                let email = dice.maybe(5, email);
                let picture_url = dice.maybe(3, text);
                Call::CreateUser(NewUser { name, display_name, email, identity, picture_url })
            }
            Op::UpsertOidc => {
                let profile = |user: &User| match &user.identity {
                    Identity::Oidc { provider, subject } => Some(OidcProfile {
                        provider: provider.clone(),
                        subject: subject.clone(),
                        name: user.name.clone(),
                        display_name: user.display_name.clone(),
                        email: user.email.clone(),
                        picture_url: user.picture_url.clone(),
                    }),
                    _ => None,
                };
                let there: Vec<_> = self.oracle.users.iter().filter_map(profile).collect();
                Call::UpsertOidc(echo(dice, &there, |dice| OidcProfile {
                    provider: parsed_one(dice, &PROVIDERS),
                    subject: parsed_one(dice, &SUBJECTS),
                    name: name(dice),
                    display_name: dice.maybe(3, text),
                    email: dice.maybe(3, email),
                    picture_url: dice.maybe(3, text),
                }))
            }
            Op::UpdateUser => {
                let id = self.user(dice);
                let user = self.oracle.users.iter().find(|user| user.id == id);
                let expected = Self::revision(dice, user.map(|user| user.revision));
                let there: Vec<_> =
                    self.oracle.users.iter().map(|user| user.name.clone()).collect();
                let patch = UserPatch {
                    name: change(dice, |dice| echo(dice, &there, name)),
                    display_name: patch(dice, text),
                    email: patch(dice, email),
                    picture_url: patch(dice, text),
                };
                Call::UpdateUser(id, patch, expected)
            }
            Op::DeleteUser => Call::DeleteUser(self.user(dice), dice.happens(6)),
            Op::CreatePreAuthKey => {
                let tags = dice.maybe(6, tags).unwrap_or_default();
                let user = if dice.happens(3) { None } else { Some(self.user(dice)) };
                Call::CreatePreAuthKey(NewPreAuthKey {
                    user,
                    tags,
                    reusable: dice.happens(8),
                    ephemeral: dice.happens(8),
                    expires_at: dice.maybe(4, |dice| self.at(dice)),
                })
            }
            Op::RevokePreAuthKey => Call::RevokePreAuthKey(self.preauth_key(dice)),
            Op::DeletePreAuthKey => Call::DeletePreAuthKey(self.preauth_key(dice)),
            Op::Register => self.register(dice),
            Op::UpdateNode => {
                let id = self.node(dice);
                let node = self.oracle.nodes.iter().find(|node| node.id == id);
                let expected = Self::revision(dice, node.map(|node| node.revision));
                let patch = NodePatch {
                    label: change(dice, |dice| {
                        let nodes = self.oracle.nodes.iter();
                        let there: Vec<_> = nodes.map(|node| node.label.clone()).collect();
                        echo(dice, &there, |dice| parsed_one(dice, &LABELS))
                    }),
                    hostname: change(dice, |dice| parsed_one(dice, &HOSTNAMES)),
                    tags: change(dice, tags),
                    user: patch(dice, |dice| self.user(dice)),
                    host_info: change(dice, |dice| parsed_one(dice, &HOST_INFOS)),
                    disco_key: patch(dice, disco_key),
                    expires_at: patch(dice, |dice| self.at(dice)),
                };
                Call::UpdateNode(id, patch, expected)
            }
            Op::RotateKey => {
                let machine_key = self.machine(dice);
                let node = self.oracle.nodes.iter().find(|node| node.machine_key == machine_key);
                let present = node.map(|node| node.node_key).filter(|_| !dice.happens(4));
                let from = present.unwrap_or_else(|| node_key(dice));
                // Sometimes a rotation is repeated.
                let (to, disco_key, expires_at) = match node.filter(|_| dice.happens(3)) {
                    Some(node) => (node.node_key, node.disco_key, node.expires_at),
                    None => (node_key(dice), dice.maybe(6, disco_key), self.expiry(dice)),
                };
                Call::RotateKey(Rotation { machine_key, from, to, disco_key, expires_at })
            }
            Op::ExpireNodes => {
                let there = self.oracle.nodes.iter().filter_map(|node| node.expires_at);
                let at = echo(dice, &there.collect::<Vec<_>>(), |dice| self.at(dice));
                let count = 1 + dice.roll() % 3;
                Call::ExpireNodes((0..count).map(|_| self.node(dice)).collect(), at)
            }
            Op::DeleteNode => Call::DeleteNode(self.node(dice)),
            Op::BackfillAddresses => Call::BackfillAddresses,
            Op::ReapEphemeral => Call::ReapEphemeral,
            Op::Connect => {
                let node = self.node(dice);
                let session = self.session_number(dice, node, true);
                Call::Connect(node, session, self.endpoints(dice))
            }
            Op::Heartbeat => {
                let node = self.node(dice);
                let session = self.session_number(dice, node, false);
                Call::Heartbeat(node, session, self.endpoints(dice))
            }
            Op::Disconnect => {
                let node = self.node(dice);
                Call::Disconnect(node, self.session_number(dice, node, false))
            }
            Op::DisconnectAll => Call::DisconnectAll,
            Op::Advertise => Call::Advertise(self.node(dice), prefixes(dice)),
            Op::Approve => Call::Approve(self.node(dice), prefixes(dice)),
            Op::DeleteRoute => Call::DeleteRoute(self.route(dice)),
            Op::SwapPolicy => Call::SwapPolicy(self.version(dice), parsed_one(dice, &DOCUMENTS)),
            Op::RollbackPolicy => {
                let expected = self.version(dice).unwrap_or(PolicyVersion::FIRST);
                let kept: Vec<_> =
                    self.oracle.policies.iter().map(|policy| policy.version).collect();
                let to = echo(dice, &kept, |dice| {
                    PolicyVersion::new(1 + dice.roll() as u64 % 4).expect("a small number")
                });
                Call::RollbackPolicy(expected, to)
            }
            Op::PrunePolicies => {
                Call::PrunePolicies(u32::try_from(dice.roll() % 4).expect("a small number"))
            }
            Op::CreateDnsRecord => Call::CreateDnsRecord(NewDnsRecord {
                name: parsed_one(dice, &DNS_NAMES),
                kind: *dice.one_of(&KINDS),
                value: self.dns_value(dice),
                ttl: dice.maybe(4, |dice| *dice.one_of(&[60, 0, u32::MAX])),
            }),
            Op::UpdateDnsRecord => {
                let id = self.dns_record(dice);
                let record = self.oracle.dns_records.iter().find(|record| record.id == id);
                let expected = Self::revision(dice, record.map(|record| record.revision));
                let patch = DnsRecordPatch {
                    value: match dice.happens(11) {
                        true => Change::Set(self.dns_value(dice)),
                        false => Change::Keep,
                    },
                    ttl: patch(dice, |dice| *dice.one_of(&[60, 0])),
                };
                Call::UpdateDnsRecord(id, patch, expected)
            }
            Op::DeleteDnsRecord => Call::DeleteDnsRecord(self.dns_record(dice)),
            Op::PutNetwork => {
                let document = SettingDocument::Network(network(dice));
                self.put(dice, document)
            }
            Op::PutDerpMap => {
                let document = SettingDocument::DerpMap(derp_map(dice));
                self.put(dice, document)
            }
            Op::PutDns => {
                let document = SettingDocument::Dns(dns_settings(dice));
                self.put(dice, document)
            }
            Op::ResetSetting => Call::ResetSetting(*dice.one_of(&SettingKind::ALL)),
            Op::BeginSession => {
                let owner = if dice.happens(8) {
                    SessionOwner::Node(self.node(dice))
                } else {
                    SessionOwner::User(self.user(dice))
                };
                let client = dice.maybe(4, text);
                Call::BeginSession(NewSession { owner, client, expires_at: self.at(dice) })
            }
            Op::TouchSession => Call::TouchSession(self.session(dice), self.expiry(dice)),
            Op::EndSession => Call::EndSession(self.session(dice)),
            Op::SweepSessions => Call::SweepSessions,
            Op::CreateApiKey => Call::CreateApiKey(NewApiKey {
                user: dice.maybe(10, |dice| self.user(dice)),
                description: dice.maybe(4, text),
                expires_at: self.expiry(dice),
            }),
            Op::RevokeApiKey => Call::RevokeApiKey(self.api_key(dice)),
            Op::DeleteApiKey => Call::DeleteApiKey(self.api_key(dice)),
            Op::RecordMetrics => {
                let count = dice.roll() % 4;
                let point = |dice: &mut Dice| MetricPoint {
                    node: dice.maybe(10, |dice| self.node(dice)),
                    metric: parsed_one(dice, &METRICS),
                    at: self.at(dice),
                    value: Sample::new(*dice.one_of(&[1.0, -0.0, 0.1, 1e300])).expect("finite"),
                };
                Call::RecordMetrics((0..count).map(|_| point(dice)).collect())
            }
            Op::Transact => self.transaction(dice),
            Op::Wait | Op::Crash | Op::Reopen => panic!("{operation:?} is no call"),
        }
    }

    /// Mostly one that is there.
    fn machine(&self, dice: &mut Dice) -> MachineKey {
        let nodes = &self.oracle.nodes;
        match dice.roll() {
            number @ 0..13 if !nodes.is_empty() => nodes[number % nodes.len()].machine_key,
            _ => machine_key(dice),
        }
    }

    fn register(&mut self, dice: &mut Dice) -> Call {
        let machine_key = machine_key(dice);
        let node = self.oracle.nodes.iter().find(|node| node.machine_key == machine_key);
        let present = node.map(|node| node.node_key).filter(|_| dice.happens(8));
        let node_key = present.unwrap_or_else(|| node_key(dice));
        let former = node.and_then(|node| node.preauth_key).filter(|_| dice.happens(8));
        let admission = if dice.happens(9) {
            Admission::PreAuthKey(former.unwrap_or_else(|| self.preauth_key(dice)))
        } else {
            let method = *dice.one_of(&[RegisterMethod::Cli, RegisterMethod::Oidc]);
            Admission::User { user: self.user(dice), method }
        };
        Call::Register(Registration {
            machine_key,
            node_key,
            disco_key: dice.maybe(4, disco_key),
            hostname: parsed_one(dice, &HOSTNAMES),
            host_info: parsed_one(dice, &HOST_INFOS),
            admission,
            expires_at: dice.maybe(4, |dice| self.at(dice)),
        })
    }

    fn put(&self, dice: &mut Dice, document: SettingDocument) -> Call {
        let setting = self.oracle.setting(document.kind());
        let expected = Self::revision(dice, setting.map(|setting| setting.revision));
        let as_it_is = setting.filter(|_| dice.happens(3));
        Call::PutSetting(as_it_is.map_or(document, |setting| setting.document.clone()), expected)
    }

    fn transaction(&mut self, dice: &mut Dice) -> Call {
        let precondition = dice.maybe(7, |dice| match dice.roll() % 7 {
            0 => Precondition::UserExists(self.user(dice)),
            1 => Precondition::NodeExists(self.node(dice)),
            2 => Precondition::NodeAbsent(self.node(dice)),
            3 => Precondition::PolicyVersion(self.version(dice)),
            4 => {
                let id = self.user(dice);
                let user = self.oracle.users.iter().find(|user| user.id == id);
                let revision = Self::revision(dice, user.map(|user| user.revision));
                Precondition::UserRevision(id, revision.unwrap_or(Revision::FIRST))
            }
            5 => {
                let id = self.node(dice);
                let node = self.oracle.nodes.iter().find(|node| node.id == id);
                let revision = Self::revision(dice, node.map(|node| node.revision));
                Precondition::NodeRevision(id, revision.unwrap_or(Revision::FIRST))
            }
            _ => {
                let kind = *dice.one_of(&SettingKind::ALL);
                let setting = self.oracle.setting(kind);
                let current = setting.map(|setting| setting.revision);
                let expected = Self::revision(dice, current);
                Precondition::SettingRevision(kind, expected)
            }
        });
        let count = dice.roll() % 4;
        let mut steps = Vec::new();
        for _ in 0..count {
            let call = self.call(Op::in_transaction(dice), dice);
            let fresh =
                Fresh { id: (self.fresh)(), routes: self.route_ids(&call), ..Fresh::default() };
            steps.push((call, fresh));
        }
        Call::Transact(precondition.into_iter().collect(), steps)
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
