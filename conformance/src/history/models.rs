//! What is called, as it behaves if nobody else calls at the same time.

use super::checker::{Entry, History, Model};

/// A record that is updated by whoever knows its revision: (revision, value).
#[derive(Debug, Clone, Copy)]
pub(super) struct Record;

#[derive(Debug, Clone, Copy)]
pub(super) enum RecordCall {
    Read,
    Update { expected: u64, value: u32 },
}

/// What it is after the call; `None` if the revision was another one.
pub(super) type RecordAnswer = Option<(u64, u32)>;

impl Model for Record {
    type Call = RecordCall;
    type Answer = RecordAnswer;
    type State = (u64, u32);

    fn begin(&self) -> (u64, u32) {
        (1, 0)
    }

    fn step(&self, state: &(u64, u32), call: &RecordCall) -> ((u64, u32), RecordAnswer) {
        let next = match *call {
            RecordCall::Read => *state,
            RecordCall::Update { expected, value } if expected == state.0 => (state.0 + 1, value),
            RecordCall::Update { .. } => return (*state, None),
        };
        (next, Some(next))
    }
}

/// A key that admits one machine: which.
#[derive(Debug, Clone, Copy)]
pub(super) struct OneTimeKey;

#[derive(Debug, Clone, Copy)]
pub(super) enum KeyCall {
    /// Again and again, as by a client that hears no answer.
    Register(u8),
    Look,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyAnswer {
    Admitted,
    Refused,
    /// Whether the key is used up, and which machine it admitted.
    Is(bool, Option<u8>),
}

impl Model for OneTimeKey {
    type Call = KeyCall;
    type Answer = KeyAnswer;
    type State = Option<u8>;

    fn begin(&self) -> Option<u8> {
        None
    }

    fn step(&self, winner: &Option<u8>, call: &KeyCall) -> (Option<u8>, KeyAnswer) {
        match *call {
            KeyCall::Register(machine) if winner.is_none_or(|winner| winner == machine) => {
                (Some(machine), KeyAnswer::Admitted)
            }
            KeyCall::Register(_) => (*winner, KeyAnswer::Refused),
            KeyCall::Look => (*winner, KeyAnswer::Is(winner.is_some(), *winner)),
        }
    }
}

/// The policy in force: (version, document).
#[derive(Debug, Clone, Copy)]
pub(super) struct Policies;

#[derive(Debug, Clone, Copy)]
pub(super) enum PolicyCall {
    Current,
    Swap { expected: Option<u64>, document: u32 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PolicyAnswer {
    Is(Option<(u64, u32)>),
    Conflict,
}

impl Model for Policies {
    type Call = PolicyCall;
    type Answer = PolicyAnswer;
    type State = Option<(u64, u32)>;

    fn begin(&self) -> Self::State {
        None
    }

    fn step(&self, state: &Self::State, call: &PolicyCall) -> (Self::State, PolicyAnswer) {
        let version = state.map(|(version, _)| version);
        match *call {
            PolicyCall::Swap { expected, document } if expected == version => {
                let next = Some((version.unwrap_or(0) + 1, document));
                (next, PolicyAnswer::Is(next))
            }
            PolicyCall::Swap { .. } => (*state, PolicyAnswer::Conflict),
            PolicyCall::Current => (*state, PolicyAnswer::Is(*state)),
        }
    }
}

/// Nodes that come and go, and offer one prefix: for each its (session, online), and which of them
/// is the primary.
#[derive(Debug, Clone, Copy)]
pub(super) struct Routers;

pub(super) const ROUTERS: usize = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) struct Online {
    pub(super) nodes: [(u64, bool); ROUTERS],
    pub(super) primary: Option<usize>,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum RouterCall {
    Connect(usize, u64),
    Heartbeat(usize, u64),
    Disconnect(usize, u64),
    Look,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RouterAnswer {
    /// Of the node that the message was about.
    Presence(u64, bool),
    Is(Online),
}

impl Model for Routers {
    type Call = RouterCall;
    type Answer = RouterAnswer;
    type State = Online;

    fn begin(&self) -> Online {
        Online::default()
    }

    fn step(&self, state: &Online, call: &RouterCall) -> (Online, RouterAnswer) {
        let (node, session, online, opens) = match *call {
            RouterCall::Look => return (*state, RouterAnswer::Is(*state)),
            RouterCall::Connect(node, session) => (node, session, true, true),
            RouterCall::Heartbeat(node, session) => (node, session, true, false),
            RouterCall::Disconnect(node, session) => (node, session, false, false),
        };
        let mut next = *state;
        let (current, is_up) = state.nodes[node];
        if session > current || (session == current && is_up && !opens) {
            next.nodes[node] = (session, online);
        }
        if !next.primary.is_some_and(|primary| next.nodes[primary].1) {
            next.primary = next.nodes.iter().position(|(_, online)| *online);
        }
        let (session, online) = next.nodes[node];
        (next, RouterAnswer::Presence(session, online))
    }
}

/// Things that two owners have, moved by transactions: for each owner (revision, what it has).
#[derive(Debug, Clone, Copy)]
pub(super) struct Owners;

pub(super) type Owned = [(u64, u32); 2];

#[derive(Debug, Clone, Copy)]
pub(super) enum OwnersCall {
    Look,
    Move { expected: [u64; 2], then: [u32; 2] },
}

impl Model for Owners {
    type Call = OwnersCall;
    /// `None` if a revision was another one.
    type Answer = Option<Owned>;
    type State = Owned;

    fn begin(&self) -> Owned {
        [(1, 0), (1, 0)]
    }

    fn step(&self, state: &Owned, call: &OwnersCall) -> (Owned, Option<Owned>) {
        let next = match *call {
            OwnersCall::Look => *state,
            OwnersCall::Move { expected, then } if expected == state.map(|(at, _)| at) => {
                [0, 1].map(|owner: usize| (expected[owner] + 1, then[owner]))
            }
            OwnersCall::Move { .. } => return (*state, None),
        };
        (next, Some(next))
    }
}

/// A point of a series, which whoever comes replaces: its value.
#[derive(Debug, Clone, Copy)]
pub(super) struct Point;

#[derive(Debug, Clone, Copy)]
pub(super) enum PointCall {
    Read,
    Record(u32),
}

impl Model for Point {
    type Call = PointCall;
    /// What it is after the call.
    type Answer = u32;
    type State = u32;

    fn begin(&self) -> u32 {
        0
    }

    fn step(&self, value: &u32, call: &PointCall) -> (u32, u32) {
        let next = match call {
            PointCall::Read => *value,
            PointCall::Record(value) => *value,
        };
        (next, next)
    }

    /// What nobody read may as well not have been recorded.
    fn can_be_left_out(&self, call: &PointCall, history: &History<Self>) -> bool {
        let PointCall::Record(value) = call else { return true };
        let is_seen = |entry: &Entry<PointCall, u32>| {
            matches!(entry.call, PointCall::Read) && entry.answer == Some(*value)
        };
        !history.iter().any(is_seen)
    }
}

/// Users that are created, each with a line in the audit trail: which of them there are, as bits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Trail;

#[derive(Debug, Clone, Copy)]
pub(super) enum TrailCall {
    Create(u8),
    /// Reading the audit trail, in which the line of this one was.
    ReadLine(u8),
    Get(u8),
}

impl Model for Trail {
    type Call = TrailCall;
    /// Whether the user is there after the call.
    type Answer = bool;
    type State = u64;

    fn begin(&self) -> u64 {
        0
    }

    fn step(&self, created: &u64, call: &TrailCall) -> (u64, bool) {
        match *call {
            TrailCall::Create(user) => (*created | bit(user), true),
            TrailCall::ReadLine(user) | TrailCall::Get(user) => {
                (*created, *created & bit(user) != 0)
            }
        }
    }

    /// Whom nobody saw may as well not have been created.
    fn can_be_left_out(&self, call: &TrailCall, history: &History<Self>) -> bool {
        let TrailCall::Create(user) = *call else { return true };
        let is_seen = |entry: &Entry<TrailCall, bool>| match entry.call {
            TrailCall::ReadLine(seen) | TrailCall::Get(seen) => {
                seen == user && entry.answer == Some(true)
            }
            TrailCall::Create(_) => false,
        };
        !history.iter().any(is_seen)
    }
}

fn bit(user: u8) -> u64 {
    1 << user
}
