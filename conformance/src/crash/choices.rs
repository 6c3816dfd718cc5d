//! The calls that a caller chooses.

use super::child::{at, hash_key};
use super::protocol::Op;
use super::workload::Caller;
use crate::prelude::*;

/// In place of an id that the store will draw.
const TO_BE_DRAWN: [u8; 16] = [0xff; 16];

impl Caller {
    fn new_user(&self) -> Command {
        let user = NewUser::local(self.mark().parse().unwrap());
        UserCommand::Create { id: UserId::from_bytes(TO_BE_DRAWN), user }.into()
    }

    pub(super) fn user(&self) -> Command {
        let Some(user) = self.some_user() else { return self.new_user() };
        let id = user.id;
        match self.rng.below(6) {
            0 => UserCommand::Delete { id, cascade: self.rng.one_in(2), part: Part::WHOLE }.into(),
            1 => {
                // Taken.
                let user = NewUser::local(user.name.clone());
                UserCommand::Create { id: UserId::from_bytes(TO_BE_DRAWN), user }.into()
            }
            2 | 3 => {
                let display_name = Patch::Set(self.mark().parse().unwrap());
                let patch = UserPatch { display_name, ..UserPatch::default() };
                let expected = [user.revision, user.revision.next()][self.rng.below(2)];
                UserCommand::Update { id, patch, expected: Some(expected) }.into()
            }
            4 => {
                // Changes nothing.
                let patch = UserPatch::default();
                UserCommand::Update { id, patch, expected: None }.into()
            }
            _ => self.new_user(),
        }
    }

    fn new_key(&self) -> NewPreAuthKey {
        let tag = Tag::new(format!("tag:{}", self.mark())).unwrap();
        NewPreAuthKey {
            user: self.some_user().map(|user| user.id).filter(|_| self.rng.one_in(2)),
            tags: TagSet::new([tag]).unwrap(),
            reusable: self.rng.one_in(3),
            ephemeral: self.rng.one_in(4),
            expires_at: None,
        }
    }

    pub(super) fn preauth_key(&self) -> Command {
        match (self.rng.below(6), self.some_key()) {
            (0, Some(key)) => PreAuthKeyCommand::Revoke { id: key.id }.into(),
            (1, Some(key)) => PreAuthKeyCommand::Delete { id: key.id }.into(),
            _ => PreAuthKeyCommand::Create {
                id: PreAuthKeyId::from_bytes(TO_BE_DRAWN),
                prefix: "none".parse().unwrap(),
                hash: hash_key().hash("preauth_key", "none"),
                key: self.new_key(),
            }
            .into(),
        }
    }

    pub(super) fn registration(&self) -> Command {
        let admission = match (self.some_key(), self.some_user()) {
            (Some(key), _) if !self.rng.one_in(4) => Admission::PreAuthKey(key.id),
            (_, Some(user)) => Admission::User { user: user.id, method: RegisterMethod::Cli },
            _ => return self.new_user(),
        };
        let known = self.some_node().filter(|_| self.rng.one_in(4));
        let mut registration = self.machine(admission);
        if let Some(node) = known {
            registration.machine_key = node.machine_key;
            if self.rng.one_in(2) {
                // The same again, as by a client that got no answer.
                registration.node_key = node.node_key;
                if let Some(key) = node.preauth_key {
                    registration.admission = Admission::PreAuthKey(key);
                }
            }
        }
        let registration = Box::new(registration);
        NodeCommand::Register { id: NodeId::from_bytes(TO_BE_DRAWN), registration }.into()
    }

    fn machine(&self, admission: Admission) -> Registration {
        Registration {
            machine_key: MachineKey::from_bytes(self.key()).unwrap(),
            node_key: NodeKey::from_bytes(self.key()).unwrap(),
            hostname: self.mark().parse().unwrap(),
            ..machine(0, admission)
        }
    }

    pub(super) fn node(&self) -> Command {
        let Some(node) = self.some_node() else { return self.registration() };
        let id = node.id;
        match self.rng.below(5) {
            0 => NodeCommand::Delete { id }.into(),
            1 => {
                let label = Update::Set(self.mark().parse().unwrap());
                let patch = Box::new(NodePatch { label, ..NodePatch::default() });
                NodeCommand::Update { id, patch, expected: Some(node.revision) }.into()
            }
            2 => NodeCommand::Expire { nodes: vec![id], at: at(self.round + 1), part: Part::WHOLE }
                .into(),
            _ => NodeCommand::RotateKey {
                machine_key: node.machine_key,
                from: node.node_key,
                to: NodeKey::from_bytes(self.key()).unwrap(),
                disco_key: None,
                expires_at: None,
            }
            .into(),
        }
    }

    pub(super) fn presence(&self) -> Command {
        let Some(node) = self.some_node() else { return self.registration() };
        let view = self.store.view();
        let known = view.presence().get(node.id).filter(|it| it.online).map(|it| it.session);
        let next = SessionNumber::new(self.number()).unwrap();
        let addr = format!("192.0.2.{}:41641", self.step % 250).parse().unwrap();
        let endpoint = Endpoint::new(addr, at(self.round));
        let endpoints = Update::Set(EndpointList::new([endpoint]).unwrap());
        let node = node.id;
        match (self.rng.below(4), known) {
            (0 | 1, Some(session)) => {
                PresenceCommand::Heartbeat { node, session, endpoints, instance: None }
            }
            (2, Some(session)) => PresenceCommand::Disconnect { node, session },
            _ => PresenceCommand::Connect { node, session: Some(next), endpoints, instance: None },
        }
        .into()
    }

    fn prefixes(&self) -> Vec<(RouteId, Prefix)> {
        let prefix = |third: usize| format!("10.{}.{third}.0/24", self.number).parse().unwrap();
        let chosen = (0..4).filter(|_| self.rng.one_in(2));
        chosen.map(|third| (RouteId::from_bytes(TO_BE_DRAWN), prefix(third))).collect()
    }

    pub(super) fn route(&self) -> Command {
        let Some(node) = self.some_node() else { return self.registration() };
        let (node, prefixes) = (node.id, self.prefixes());
        let view = self.store.view();
        let routes: Vec<_> = view.routes().of_node(node).map(|route| route.id).collect();
        match (self.rng.below(5), self.rng.choose(&routes)) {
            (0, Some(&id)) => RouteCommand::Delete { id },
            (1 | 2, _) => RouteCommand::Approve { node, prefixes, expected: None },
            _ => RouteCommand::Advertise { node, prefixes, expected: None },
        }
        .into()
    }

    pub(super) fn api_key(&self) -> Command {
        let (view, own) = (self.store.view(), self.own());
        let is_own = |key: &&Arc<ApiKey>| {
            key.description.as_ref().is_some_and(|text| text.as_str().starts_with(&own))
        };
        let keys: Vec<_> = view.api_keys().iter().filter(is_own).collect();
        match (self.rng.below(4), self.rng.choose(&keys)) {
            (0, Some(key)) => ApiKeyCommand::Revoke { id: key.id },
            (1, Some(key)) => ApiKeyCommand::Delete { id: key.id },
            _ => ApiKeyCommand::Create {
                id: ApiKeyId::from_bytes(TO_BE_DRAWN),
                prefix: "none".parse().unwrap(),
                hash: hash_key().hash("api_key", "none"),
                key: NewApiKey {
                    user: self.some_user().map(|user| user.id),
                    description: Some(self.mark().parse().unwrap()),
                    permissions: PermissionSet::empty(),
                    expires_at: None,
                },
            },
        }
        .into()
    }

    pub(super) fn session(&self) -> Command {
        let Some(user) = self.some_user() else { return self.new_user() };
        let (view, owner) = (self.store.view(), SessionOwner::User(user.id));
        let own = view.sessions().iter().find(|session| session.owner == owner).cloned();
        match (self.rng.below(3), own) {
            (0, Some(session)) => SessionCommand::End { id: session.id },
            (1, Some(session)) => {
                SessionCommand::Touch { id: session.id, expires_at: Some(at(self.round + 2)) }
            }
            _ => SessionCommand::Begin {
                id: SessionId::from_bytes(TO_BE_DRAWN),
                hash: hash_key().hash("session", "none"),
                session: NewSession {
                    owner,
                    node: None,
                    client: Some(self.mark().parse().unwrap()),
                    expires_at: at(self.round + 1),
                },
            },
        }
        .into()
    }

    pub(super) fn dns(&self) -> Command {
        let (view, own) = (self.store.view(), self.own());
        let is_own = |record: &&Arc<DnsRecord>| record.name.as_str().starts_with(&own);
        let records: Vec<_> = view.dns_records().iter().filter(is_own).collect();
        match (self.rng.below(4), self.rng.choose(&records)) {
            (0, Some(record)) => DnsCommand::Delete { id: record.id },
            (1, Some(record)) => {
                let patch =
                    DnsRecordPatch { ttl: Patch::Set(self.step), ..DnsRecordPatch::default() };
                DnsCommand::Update { id: record.id, patch, expected: Some(record.revision) }
            }
            _ => DnsCommand::Create {
                id: DnsRecordId::from_bytes(TO_BE_DRAWN),
                record: NewDnsRecord {
                    name: format!("{}.example.com", self.mark()).parse().unwrap(),
                    kind: DnsRecordKind::Txt,
                    value: self.mark().parse().unwrap(),
                    ttl: None,
                },
            },
        }
        .into()
    }

    /// Policies and settings are one caller's, since there is one of each.
    pub(super) fn document(&self) -> Command {
        if self.number != 0 {
            return self.dns();
        }
        let view = self.store.view();
        let current = view.policies().current().map(|policy| policy.version);
        match (self.rng.below(6), current) {
            (0, Some(expected)) => PolicyCommand::Rollback { expected, to: expected }.into(),
            (1, _) => PolicyCommand::Prune { keep: 2, part: Part::WHOLE }.into(),
            (2, _) => SettingCommand::Reset { kind: SettingKind::Dns }.into(),
            (3, _) => {
                let search_domains = vec![format!("{}.example", self.mark()).parse().unwrap()];
                let settings = DnsSettings { search_domains, ..DnsSettings::default() };
                let document = SettingDocument::Dns(settings);
                SettingCommand::Put { document, expected: None }.into()
            }
            (_, expected) => {
                PolicyCommand::Swap { expected, document: self.mark().parse().unwrap() }.into()
            }
        }
    }

    /// A user joins with a machine that offers routes; sometimes the last step is refused.
    pub(super) fn transaction(&self) -> Vec<Command> {
        let now = at(self.round);
        let user = UserId::time_ordered(now, self.rng.bytes());
        let key = PreAuthKeyId::time_ordered(now, self.rng.bytes());
        let node = NodeId::time_ordered(now, self.rng.bytes());
        let prefix = self.prefixes();
        let routes = |prefixes: &[(RouteId, Prefix)]| {
            let drawn = |&(_, prefix)| (RouteId::time_ordered(now, self.rng.bytes()), prefix);
            prefixes.iter().map(drawn).collect::<Vec<_>>()
        };
        let mut commands: Vec<Command> = vec![
            UserCommand::Create { id: user, user: NewUser::local(self.mark().parse().unwrap()) }
                .into(),
            PreAuthKeyCommand::Create {
                id: key,
                prefix: self.mark().parse().unwrap(),
                hash: hash_key().hash("preauth_key", &self.mark()),
                key: NewPreAuthKey { user: Some(user), ..self.new_key() },
            }
            .into(),
            NodeCommand::Register {
                id: node,
                registration: Box::new(self.machine(Admission::PreAuthKey(key))),
            }
            .into(),
            RouteCommand::Advertise { node, prefixes: routes(&prefix), expected: None }.into(),
            RouteCommand::Approve { node, prefixes: routes(&prefix), expected: None }.into(),
        ];
        match (self.rng.below(4), self.some_node(), self.some_user()) {
            (0, _, _) => {
                commands.push(NodeCommand::Delete { id: NodeId::from_bytes([9; 16]) }.into())
            }
            (1, Some(node), _) => commands.push(NodeCommand::Delete { id: node.id }.into()),
            (2, _, Some(user)) => {
                commands.push(
                    UserCommand::Delete { id: user.id, cascade: true, part: Part::WHOLE }.into(),
                );
            }
            _ => {}
        }
        commands
    }

    pub(super) fn metrics(&self) -> Op {
        let metric = format!("c{}_load", self.number);
        // Some of them replace earlier ones.
        let first = at(self.round).as_micros() + (self.step / 20 * 8) as i64;
        let point = |index: usize| {
            let at = Timestamp::from_micros(first + index as i64).unwrap();
            point(None, &metric, at, self.step)
        };
        let points: Vec<_> = (0..=self.rng.below(8)).map(point).collect();
        if self.rng.one_in(2) {
            return Op::Record(points);
        }
        let writer = WriterId::from_bytes([self.number + 1; 16]);
        Op::Batch { writer, sequence: self.number(), points }
    }

    pub(super) fn audit(&self) -> Op {
        let entry = |index| {
            AuditEntry::new(
                (at(self.round), AuditId::time_ordered(at(self.round), self.rng.bytes())),
                Actor::system(),
                "note".parse().unwrap(),
                EntityKind::User,
                format!("{}-{index}", self.mark()).parse().unwrap(),
            )
        };
        Op::Append((0..=self.rng.below(5)).map(entry).collect())
    }
}
