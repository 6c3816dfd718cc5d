//! A small world to try the rules in.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Arc;
use std::time::Duration;

use super::{Context, Reply, State};
use crate::block::{BlockBuilder, BlockHash, Serial};
use crate::command::{Command, NodeCommand, PreAuthKeyCommand, PresenceCommand, UserCommand};
use crate::domain::*;
use crate::error::Result;

/// A state with a clock and a source of ids.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) state: State,
    pub(crate) now: Timestamp,
    ids: u64,
}

impl World {
    pub(crate) fn new() -> Self {
        let now = Timestamp::from_micros(1_700_000_000_000_000).unwrap();
        Self { state: State::default(), now, ids: 0 }
    }

    pub(crate) fn advance(&mut self, duration: Duration) {
        self.now = self.now.saturating_add(duration);
    }

    /// Increasing ids.
    pub(crate) fn id(&mut self) -> [u8; 16] {
        self.ids += 1;
        let mut id = [0; 16];
        id.first_chunk_mut::<8>().unwrap().copy_from_slice(&self.ids.to_be_bytes());
        id.last_chunk_mut::<8>()
            .unwrap()
            .copy_from_slice(&self.ids.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
        id
    }

    pub(crate) fn run(&mut self, command: impl Into<Command>) -> Result<Reply> {
        let actor = Actor::system();
        let context = Context { now: self.now, actor: &actor, seed: [0; 10] };
        let command = command.into();
        let decision = self.state.decide(&command, &context)?;
        let mut evolved = self.state.clone();
        let kinds: Vec<_> =
            decision.changes.iter().map(|change| evolved.evolve(change.clone())).collect();
        let mut block = BlockBuilder::default();
        let reply = self.state.execute(&command, &context, &mut block)?;
        let closed = block.finish(
            Serial::ZERO,
            BlockId::from_bytes([1; 16]),
            BlockHash::GENESIS,
            self.now,
        )?;
        assert!(closed.changes.iter().map(|change| change.kind).eq(kinds));
        assert_eq!(closed.audit.len(), decision.audit.len());
        assert!(self.state.images().eq(evolved.images()), "a draft is not what its changes give");
        self.state.routes().check(|node| self.state.presence().is_online(node));
        self.state.advance(self.state.serial().next(), BlockHash::GENESIS, self.now);
        assert!(self.state.serial() > Serial::ZERO);
        assert_eq!(reply, decision.reply);
        Ok(reply)
    }

    pub(crate) fn user(&mut self, name: &str) -> Arc<User> {
        let id = UserId::from_bytes(self.id());
        let user = NewUser::local(name.parse().unwrap());
        match self.run(UserCommand::Create { id, user }).unwrap() {
            Reply::User(user) => user,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn preauth_key(&mut self, user: UserId, reusable: bool) -> Arc<PreAuthKey> {
        self.key(NewPreAuthKey { user: Some(user), reusable, ..NewPreAuthKey::default() })
    }

    pub(crate) fn ephemeral_key(&mut self, user: UserId) -> Arc<PreAuthKey> {
        let user = Some(user);
        self.key(NewPreAuthKey {
            user,
            reusable: true,
            ephemeral: true,
            ..NewPreAuthKey::default()
        })
    }

    fn key(&mut self, key: NewPreAuthKey) -> Arc<PreAuthKey> {
        let id = PreAuthKeyId::from_bytes(self.id());
        let prefix = format!("key{}", self.ids).parse().unwrap();
        let hash = SecretHash::hmac([1; 4], [2; 32]);
        match self.run(PreAuthKeyCommand::Create { id, prefix, hash, key }).unwrap() {
            Reply::PreAuthKey(key) => key,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn by(&self, user: UserId) -> Admission {
        Admission::User { user, method: RegisterMethod::Cli }
    }

    pub(crate) fn registration(&self, admission: Admission, machine: u8) -> Registration {
        Registration {
            machine_key: machine_key(machine),
            node_key: node_key(machine),
            disco_key: None,
            hostname: format!("machine-{machine}").parse().unwrap(),
            host_info: HostInfo::default(),
            admission,
            expires_at: None,
            families: None,
        }
    }

    fn register_by(&mut self, admission: Admission, machine: u8) -> Result<Arc<Node>> {
        let id = NodeId::from_bytes(self.id());
        let registration = Box::new(self.registration(admission, machine));
        match self.run(NodeCommand::Register { id, registration })? {
            Reply::Node(node) => Ok(node),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn register(&mut self, user: UserId, machine: u8) -> Result<Arc<Node>> {
        self.register_by(self.by(user), machine)
    }

    pub(crate) fn register_with(&mut self, key: PreAuthKeyId, machine: u8) -> Result<Arc<Node>> {
        self.register_by(Admission::PreAuthKey(key), machine)
    }

    pub(crate) fn prefixes(&mut self, texts: &[&str]) -> Vec<(RouteId, Prefix)> {
        texts.iter().map(|text| (RouteId::from_bytes(self.id()), text.parse().unwrap())).collect()
    }
}

/// A connection comes up.
pub(crate) fn connect(node: NodeId, session: u64) -> PresenceCommand {
    let session = Some(SessionNumber::new(session).unwrap());
    PresenceCommand::Connect { node, session, endpoints: Update::Keep, instance: None }
}

pub(crate) fn machine_key(n: u8) -> MachineKey {
    MachineKey::from_bytes([n; 32]).unwrap()
}

pub(crate) fn node_key(n: u8) -> NodeKey {
    NodeKey::from_bytes([n; 32]).unwrap()
}

pub(crate) fn tags(texts: &[&str]) -> TagSet {
    TagSet::new(texts.iter().map(|text| text.parse().unwrap())).unwrap()
}
