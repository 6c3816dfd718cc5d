//! Callers that write whatever comes to their minds, each to entities of its own.
//!
//! A caller waits for its answer before it goes on, so at most one call of each is in doubt when
//! the process is killed. What callers share is only what nobody can share out: the queue, the
//! commits, the files, the network's addresses.

use std::sync::Arc;

use ghostwire_store_core::command::*;
use ghostwire_store_core::domain::*;
use ghostwire_store_core::{Entity, ErrorKind, Store};

use super::calls::{done, perform};
use super::child::{at, hash_key};
use super::said::{Op, Said};
use crate::dice::Dice;

const CALLERS: u8 = 6;
/// Who does what concerns everybody, before the others begin.
const FIRST: u8 = u8::MAX;

/// Goes on until the process is killed.
pub(super) async fn run(store: Arc<dyn Store>, seed: u64, round: u32) {
    let caller = |number| Caller {
        store: store.clone(),
        number,
        round,
        step: 0,
        dice: Dice::new(seed ^ (u64::from(round) << 32) ^ (u64::from(number) << 56)),
    };
    caller(FIRST).begin().await;
    let mut callers = tokio::task::JoinSet::new();
    for number in 0..CALLERS {
        callers.spawn(caller(number).work());
    }
    while let Some(ended) = callers.join_next().await {
        ended.expect("a caller goes on until it is killed");
    }
}

struct Caller {
    store: Arc<dyn Store>,
    number: u8,
    round: u32,
    step: u32,
    dice: Dice,
}

impl Caller {
    /// What a control plane does that starts.
    async fn begin(mut self) {
        self.call(Op::Write(PresenceCommand::DisconnectAll.into())).await;
        self.call(Op::Write(NodeCommand::ReapEphemeral.into())).await;
        self.call(Op::Write(SessionCommand::Sweep.into())).await;
        if self.dice.once_in(2) {
            self.call(Op::PruneMetrics(at(self.round))).await;
        }
        if self.dice.once_in(2) {
            self.call(Op::PruneAudit(at(self.round))).await;
        }
    }

    async fn work(mut self) {
        loop {
            self.step += 1;
            let op = self.next();
            self.call(op).await;
        }
    }

    async fn call(&mut self, op: Op) {
        let caller = self.number;
        Said::Intent { caller, op: op.clone() }.say();
        match perform(self.store.as_ref(), &op).await {
            Ok(()) => Said::Done { caller, done: done(&op, &self.store.view()) }.say(),
            Err(error) => {
                use ErrorKind::*;
                let is_refusal = matches!(
                    error.kind(),
                    NotFound
                        | AlreadyExists { .. }
                        | Conflict
                        | InvalidArgument
                        | Restricted
                        | PermissionDenied
                );
                assert!(is_refusal, "{op:?}: {error}");
                Said::Refused { caller, kind: error.kind().name().to_owned() }.say();
            }
        }
    }

    /// Begins the names of everything that is this caller's.
    fn own(&self) -> String {
        format!("c{}-", self.number)
    }

    /// A name that nothing else has.
    fn mark(&self) -> String {
        format!("{}r{}-s{}", self.own(), self.round, self.step)
    }

    fn key(&self) -> [u8; 32] {
        let mut bytes = [1; 32];
        bytes[0] = self.number;
        bytes[1..5].copy_from_slice(&self.round.to_be_bytes());
        bytes[5..9].copy_from_slice(&self.step.to_be_bytes());
        bytes
    }

    fn number(&self) -> u64 {
        u64::from(self.round) << 32 | u64::from(self.step)
    }

    fn next(&self) -> Op {
        match self.dice.below(24) {
            0 | 1 => self.user().into(),
            2 | 3 => self.preauth_key().into(),
            4..=6 => self.registration().into(),
            7 | 8 => self.node().into(),
            9..=11 => self.presence().into(),
            12 | 13 => self.route().into(),
            14 => self.api_key().into(),
            15 => self.session().into(),
            16 => self.dns().into(),
            17 => self.document().into(),
            18..=20 => Op::Transact(self.transaction()),
            21 => self.metrics(),
            22 => self.audit(),
            _ if self.dice.once_in(4) => Op::Verify,
            _ => Op::Checkpoint,
        }
    }

    fn some_user(&self) -> Option<Arc<User>> {
        let (view, own) = (self.store.view(), self.own());
        let users: Vec<_> = view.users().iter().collect();
        let users: Vec<_> = users.iter().filter(|it| it.name.as_str().starts_with(&own)).collect();
        self.dice.one_of(&users).map(|&&user| user.clone())
    }

    fn some_key(&self) -> Option<Arc<PreAuthKey>> {
        let (view, own) = (self.store.view(), self.own());
        let is_own = |key: &&Arc<PreAuthKey>| key.tags.iter().any(|it| it.name().starts_with(&own));
        let keys: Vec<_> = view.preauth_keys().iter().filter(is_own).collect();
        self.dice.one_of(&keys).map(|&key| key.clone())
    }

    fn some_node(&self) -> Option<Arc<Node>> {
        let (view, own) = (self.store.view(), self.own());
        let is_own = |node: &&Arc<Node>| node.hostname.as_str().starts_with(&own);
        let nodes: Vec<_> = view.nodes().iter().filter(is_own).collect();
        self.dice.one_of(&nodes).map(|&node| node.clone())
    }

    fn new_user(&self) -> Command {
        let user = NewUser::local(self.mark().parse().unwrap());
        UserCommand::Create { id: UserId::from_bytes([0; 16]), user }.into()
    }

    fn user(&self) -> Command {
        let Some(user) = self.some_user() else { return self.new_user() };
        let id = user.id;
        match self.dice.below(6) {
            0 => UserCommand::Delete { id, cascade: self.dice.once_in(2) }.into(),
            1 => {
                // Taken.
                let user = NewUser::local(user.name.clone());
                UserCommand::Create { id: UserId::from_bytes([0; 16]), user }.into()
            }
            2 | 3 => {
                let display_name = Patch::Set(self.mark().parse().unwrap());
                let patch = UserPatch { display_name, ..UserPatch::default() };
                let expected = [user.revision, user.revision.next()][self.dice.below(2)];
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
            user: self.some_user().map(|user| user.id).filter(|_| self.dice.once_in(2)),
            tags: TagSet::new([tag]).unwrap(),
            reusable: self.dice.once_in(3),
            ephemeral: self.dice.once_in(4),
            expires_at: None,
        }
    }

    fn preauth_key(&self) -> Command {
        match (self.dice.below(6), self.some_key()) {
            (0, Some(key)) => PreAuthKeyCommand::Revoke { id: key.id }.into(),
            (1, Some(key)) => PreAuthKeyCommand::Delete { id: key.id }.into(),
            _ => PreAuthKeyCommand::Create {
                id: PreAuthKeyId::from_bytes([0; 16]),
                prefix: "none".parse().unwrap(),
                hash: hash_key().hash("preauth_key", "none"),
                key: self.new_key(),
            }
            .into(),
        }
    }

    fn registration(&self) -> Command {
        let admission = match (self.some_key(), self.some_user()) {
            (Some(key), _) if !self.dice.once_in(4) => Admission::PreAuthKey(key.id),
            (_, Some(user)) => Admission::User { user: user.id, method: RegisterMethod::Cli },
            _ => return self.new_user(),
        };
        let known = self.some_node().filter(|_| self.dice.once_in(4));
        let mut registration = self.machine(admission);
        if let Some(node) = known {
            registration.machine_key = node.machine_key;
            if self.dice.once_in(2) {
                // The same again, as by a client that heard no answer.
                registration.node_key = node.node_key;
                if let Some(key) = node.preauth_key {
                    registration.admission = Admission::PreAuthKey(key);
                }
            }
        }
        let registration = Box::new(registration);
        NodeCommand::Register { id: NodeId::from_bytes([0; 16]), registration }.into()
    }

    fn machine(&self, admission: Admission) -> Registration {
        Registration {
            machine_key: MachineKey::from_bytes(self.key()).unwrap(),
            node_key: NodeKey::from_bytes(self.key()).unwrap(),
            disco_key: None,
            hostname: self.mark().parse().unwrap(),
            host_info: HostInfo::default(),
            admission,
            expires_at: None,
        }
    }

    fn node(&self) -> Command {
        let Some(node) = self.some_node() else { return self.registration() };
        let id = node.id;
        match self.dice.below(5) {
            0 => NodeCommand::Delete { id }.into(),
            1 => {
                let label = Change::Set(self.mark().parse().unwrap());
                let patch = Box::new(NodePatch { label, ..NodePatch::default() });
                NodeCommand::Update { id, patch, expected: Some(node.revision) }.into()
            }
            2 => NodeCommand::Expire { nodes: vec![id], at: at(self.round + 1) }.into(),
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

    fn presence(&self) -> Command {
        let Some(node) = self.some_node() else { return self.registration() };
        let view = self.store.view();
        let known = view.presence().get(node.id).filter(|it| it.online).map(|it| it.session);
        let next = SessionNumber::new(self.number()).unwrap();
        let addr = format!("192.0.2.{}:41641", self.step % 250).parse().unwrap();
        let endpoint = Endpoint { addr, seen_at: at(self.round) };
        let endpoints = Change::Set(EndpointList::new([endpoint]).unwrap());
        let node = node.id;
        match (self.dice.below(4), known) {
            (0 | 1, Some(session)) => PresenceCommand::Heartbeat { node, session, endpoints },
            (2, Some(session)) => PresenceCommand::Disconnect { node, session },
            _ => PresenceCommand::Connect { node, session: next, endpoints },
        }
        .into()
    }

    fn prefixes(&self) -> Vec<(RouteId, Prefix)> {
        let prefix = |third: usize| format!("10.{}.{third}.0/24", self.number).parse().unwrap();
        let chosen = (0..4).filter(|_| self.dice.once_in(2));
        chosen.map(|third| (RouteId::from_bytes([0; 16]), prefix(third))).collect()
    }

    fn route(&self) -> Command {
        let Some(node) = self.some_node() else { return self.registration() };
        let (node, prefixes) = (node.id, self.prefixes());
        let view = self.store.view();
        let routes: Vec<_> = view.routes().of_node(node).map(|route| route.id).collect();
        match (self.dice.below(5), self.dice.one_of(&routes)) {
            (0, Some(&id)) => RouteCommand::Delete { id },
            (1 | 2, _) => RouteCommand::Approve { node, prefixes },
            _ => RouteCommand::Advertise { node, prefixes },
        }
        .into()
    }

    fn api_key(&self) -> Command {
        let (view, own) = (self.store.view(), self.own());
        let is_own = |key: &&Arc<ApiKey>| {
            key.description.as_ref().is_some_and(|text| text.as_str().starts_with(&own))
        };
        let keys: Vec<_> = view.api_keys().iter().filter(is_own).collect();
        match (self.dice.below(4), self.dice.one_of(&keys)) {
            (0, Some(key)) => ApiKeyCommand::Revoke { id: key.id },
            (1, Some(key)) => ApiKeyCommand::Delete { id: key.id },
            _ => ApiKeyCommand::Create {
                id: ApiKeyId::from_bytes([0; 16]),
                prefix: "none".parse().unwrap(),
                hash: hash_key().hash("api_key", "none"),
                key: NewApiKey {
                    user: self.some_user().map(|user| user.id),
                    description: Some(self.mark().parse().unwrap()),
                    expires_at: None,
                },
            },
        }
        .into()
    }

    fn session(&self) -> Command {
        let Some(user) = self.some_user() else { return self.new_user() };
        let (view, owner) = (self.store.view(), SessionOwner::User(user.id));
        let own = view.sessions().iter().find(|session| session.owner == owner).cloned();
        match (self.dice.below(3), own) {
            (0, Some(session)) => SessionCommand::End { id: session.id },
            (1, Some(session)) => {
                SessionCommand::Touch { id: session.id, expires_at: Some(at(self.round + 2)) }
            }
            _ => SessionCommand::Begin {
                id: SessionId::from_bytes([0; 16]),
                hash: hash_key().hash("session", "none"),
                session: NewSession {
                    owner,
                    client: Some(self.mark().parse().unwrap()),
                    expires_at: at(self.round + 1),
                },
            },
        }
        .into()
    }

    fn dns(&self) -> Command {
        let (view, own) = (self.store.view(), self.own());
        let is_own = |record: &&Arc<DnsRecord>| record.name.as_str().starts_with(&own);
        let records: Vec<_> = view.dns_records().iter().filter(is_own).collect();
        match (self.dice.below(4), self.dice.one_of(&records)) {
            (0, Some(record)) => DnsCommand::Delete { id: record.id },
            (1, Some(record)) => {
                let patch =
                    DnsRecordPatch { ttl: Patch::Set(self.step), ..DnsRecordPatch::default() };
                DnsCommand::Update { id: record.id, patch, expected: Some(record.revision) }
            }
            _ => DnsCommand::Create {
                id: DnsRecordId::from_bytes([0; 16]),
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
    fn document(&self) -> Command {
        if self.number != 0 {
            return self.dns();
        }
        let view = self.store.view();
        let current = view.policies().current().map(|policy| policy.version);
        match (self.dice.below(6), current) {
            (0, Some(expected)) => PolicyCommand::Rollback { expected, to: expected }.into(),
            (1, _) => PolicyCommand::Prune { keep: 2 }.into(),
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

    /// Somebody joins with a machine that routes something; sometimes the last step is refused.
    fn transaction(&self) -> Vec<Command> {
        let now = at(self.round);
        let user = UserId::time_ordered(now, self.dice.bytes());
        let key = PreAuthKeyId::time_ordered(now, self.dice.bytes());
        let node = NodeId::time_ordered(now, self.dice.bytes());
        let prefix = self.prefixes();
        let routes = |prefixes: &[(RouteId, Prefix)]| {
            let drawn = |&(_, prefix)| (RouteId::time_ordered(now, self.dice.bytes()), prefix);
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
            RouteCommand::Advertise { node, prefixes: routes(&prefix) }.into(),
            RouteCommand::Approve { node, prefixes: routes(&prefix) }.into(),
        ];
        match (self.dice.below(4), self.some_node(), self.some_user()) {
            (0, _, _) => {
                commands.push(NodeCommand::Delete { id: NodeId::from_bytes([9; 16]) }.into())
            }
            (1, Some(node), _) => commands.push(NodeCommand::Delete { id: node.id }.into()),
            (2, _, Some(user)) => {
                commands.push(UserCommand::Delete { id: user.id, cascade: true }.into());
            }
            _ => {}
        }
        commands
    }

    fn metrics(&self) -> Op {
        let point = |index: usize| MetricPoint {
            node: None,
            metric: format!("c{}_load", self.number).parse().unwrap(),
            // Some of them replace earlier ones.
            at: Timestamp::from_micros(
                at(self.round).as_micros() + (self.step / 20 * 8) as i64 + index as i64,
            )
            .unwrap(),
            value: Sample::new(f64::from(self.step)).unwrap(),
        };
        let points: Vec<_> = (0..=self.dice.below(8)).map(point).collect();
        if self.dice.once_in(2) {
            return Op::Record(points);
        }
        let writer = WriterId::from_bytes([self.number + 1; 16]);
        Op::Batch { writer, sequence: self.number(), points }
    }

    fn audit(&self) -> Op {
        let entry = |index| AuditEntry {
            id: AuditId::time_ordered(at(self.round), self.dice.bytes()),
            at: at(self.round),
            actor: ActorName::system(),
            action: "note".parse().unwrap(),
            entity: Entity::User,
            subject: format!("{}-{index}", self.mark()).parse().unwrap(),
        };
        Op::Append((0..=self.dice.below(5)).map(entry).collect())
    }
}

impl From<Command> for Op {
    fn from(command: Command) -> Self {
        Self::Write(command)
    }
}
