//! The models: how each subject behaves when its calls are sequential.

use super::checker::{Entry, Model};

/// `N` values with their revisions, which begin at `FIRST`: (revision, value). A write names the
/// revisions that it expects, and replaces all values.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Versioned<const N: usize, const FIRST: u64>;

/// A user, as one value.
pub(super) type Record = Versioned<1, 1>;
/// The policy in force; there is none at revision 0.
pub(super) type Policies = Versioned<1, 0>;
/// Two users that are changed by transactions.
pub(super) type Owners = Versioned<2, 1>;

pub(super) type Values<const N: usize> = [(u64, u32); N];

#[derive(Debug, Clone, Copy)]
pub(super) enum VersionedCall<const N: usize> {
    Read,
    Write { expected: [u64; N], values: [u32; N] },
}

impl<const N: usize, const FIRST: u64> Model for Versioned<N, FIRST> {
    type Call = VersionedCall<N>;
    /// What they are after the call; `None` if a revision was another one.
    type Answer = Option<Values<N>>;
    type State = Values<N>;

    fn begin(&self) -> Values<N> {
        [(FIRST, 0); N]
    }

    fn step(&self, state: &Values<N>, call: &VersionedCall<N>) -> (Values<N>, Option<Values<N>>) {
        let next = match *call {
            VersionedCall::Read => *state,
            VersionedCall::Write { expected, values } if expected == state.map(|(at, _)| at) => {
                std::array::from_fn(|index| (expected[index] + 1, values[index]))
            }
            VersionedCall::Write { .. } => return (*state, None),
        };
        (next, Some(next))
    }
}

/// A key that admits one machine: which.
#[derive(Debug, Clone, Copy, Default)]
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

/// Nodes that come and go, and offer one prefix: for each its (session, online), and which of them
/// is the primary.
#[derive(Debug, Clone, Copy, Default)]
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

/// A point of a series, which every recording replaces: its value.
#[derive(Debug, Clone, Copy, Default)]
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

    fn is_seen_by(&self, call: &PointCall, other: &Entry<PointCall, u32>) -> bool {
        matches!((call, other.call), (PointCall::Record(value), PointCall::Read)
            if other.answer == Some(*value))
    }
}

/// Users that are created, each with a line in the audit trail: which of them there are, as bits.
#[derive(Debug, Clone, Copy, Default)]
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

    fn is_seen_by(&self, call: &TrailCall, other: &Entry<TrailCall, bool>) -> bool {
        use TrailCall::{Create, Get, ReadLine};
        matches!((call, other.call), (Create(user), ReadLine(seen) | Get(seen))
            if seen == *user && other.answer == Some(true))
    }
}

fn bit(user: u8) -> u64 {
    1 << user
}
