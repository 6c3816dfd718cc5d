//! Callers that make random writes, each to entities of its own.
//!
//! A caller waits for its answer before it goes on, so at most one call of each is in doubt when
//! the process is killed. Callers share only what cannot be divided: the queue, the commits, the
//! files, the network's addresses.

use super::calls::{done, perform};
use super::child::at;
use super::protocol::{Message, Op};
use crate::prelude::*;

/// How many callers a process has.
pub(super) const CALLERS: u8 = 6;
/// Who does what concerns everybody, before the others begin.
const FIRST: u8 = u8::MAX;

/// Goes on until the process is killed.
pub(super) async fn run(store: Arc<dyn Store>, seed: u64, round: u32) {
    Caller::new(&store, seed, round, FIRST).begin().await;
    run_beside(store, seed, round, (0, false)).await;
}

/// The same beside another process: callers whose numbers begin with `first`, and nothing that concerns everybody.
/// If it `loses_server`, a caller ends with the first call that fails for that, and leaves it unanswered.
pub(super) async fn run_beside(
    store: Arc<dyn Store>,
    seed: u64,
    round: u32,
    (first, loses_server): (u8, bool),
) {
    let mut callers = tokio::task::JoinSet::new();
    for number in first..first + CALLERS {
        let caller = Caller { loses_server, ..Caller::new(&store, seed, round, number) };
        callers.spawn(caller.work());
    }
    while let Some(ended) = callers.join_next().await {
        ended.expect("a caller goes on until it is killed");
    }
}

pub(super) struct Caller {
    pub(super) store: Arc<dyn Store>,
    pub(super) number: u8,
    pub(super) round: u32,
    pub(super) step: u32,
    pub(super) rng: Rng,
    loses_server: bool,
}

impl Caller {
    fn new(store: &Arc<dyn Store>, seed: u64, round: u32, number: u8) -> Self {
        let seed = seed ^ (u64::from(round) << 32) ^ (u64::from(number) << 56);
        let (store, rng) = (store.clone(), Rng::new(seed));
        Self { store, number, round, step: 0, rng, loses_server: false }
    }

    /// What a control plane does when it starts.
    async fn begin(mut self) {
        // Whoever follows has seen everything that was there before.
        for consumer in self.store.consumers().list().await.unwrap() {
            let seen = self.store.view().position();
            self.store.consumers().advance(&consumer.name, seen).await.unwrap();
        }
        self.call(Op::Write(PresenceCommand::DisconnectAll { of: None, part: Part::WHOLE }.into()))
            .await;
        self.call(Op::Write(NodeCommand::ReapEphemeral { part: Part::WHOLE }.into())).await;
        self.call(Op::Write(SessionCommand::Sweep { part: Part::WHOLE }.into())).await;
        if self.rng.one_in(2) {
            self.call(Op::PruneMetrics(at(self.round))).await;
        }
        if self.rng.one_in(2) {
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
        Message::Intent { caller, op: op.clone() }.send();
        match perform(&self.store, &op).await {
            Ok(()) => Message::Done { caller, done: done(&op, &self.store.view()) }.send(),
            // Whether it happened is for the parent to find out.
            Err(error)
                if self.loses_server
                    && matches!(error.kind(), Unavailable | OutcomeUnknown | Busy) =>
            {
                std::future::pending::<()>().await;
            }
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
                Message::Refused { caller, kind: error.kind().name().to_owned() }.send();
            }
        }
    }

    /// Begins the names of everything that is this caller's.
    pub(super) fn own(&self) -> String {
        format!("c{}-", self.number)
    }

    /// A name that nothing else has.
    pub(super) fn mark(&self) -> String {
        format!("{}r{}-s{}", self.own(), self.round, self.step)
    }

    pub(super) fn key(&self) -> [u8; 32] {
        let mut bytes = [1; 32];
        bytes[0] = self.number;
        bytes[1..5].copy_from_slice(&self.round.to_be_bytes());
        bytes[5..9].copy_from_slice(&self.step.to_be_bytes());
        bytes
    }

    pub(super) fn number(&self) -> u64 {
        u64::from(self.round) << 32 | u64::from(self.step)
    }

    fn next(&self) -> Op {
        match self.rng.below(24) {
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
            _ if self.rng.one_in(4) => Op::Verify,
            _ => Op::Checkpoint,
        }
    }

    pub(super) fn some_user(&self) -> Option<Arc<User>> {
        let (view, own) = (self.store.view(), self.own());
        let users: Vec<_> = view.users().iter().collect();
        let users: Vec<_> = users.iter().filter(|it| it.name.as_str().starts_with(&own)).collect();
        self.rng.choose(&users).map(|&&user| user.clone())
    }

    pub(super) fn some_key(&self) -> Option<Arc<PreAuthKey>> {
        let (view, own) = (self.store.view(), self.own());
        let is_own = |key: &&Arc<PreAuthKey>| key.tags.iter().any(|it| it.name().starts_with(&own));
        let keys: Vec<_> = view.preauth_keys().iter().filter(is_own).collect();
        self.rng.choose(&keys).map(|&key| key.clone())
    }

    pub(super) fn some_node(&self) -> Option<Arc<Node>> {
        let (view, own) = (self.store.view(), self.own());
        let is_own = |node: &&Arc<Node>| node.hostname.as_str().starts_with(&own);
        let nodes: Vec<_> = view.nodes().iter().filter(is_own).collect();
        self.rng.choose(&nodes).map(|&node| node.clone())
    }
}

impl From<Command> for Op {
    fn from(command: Command) -> Self {
        Self::Write(command)
    }
}
