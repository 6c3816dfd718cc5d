//! How many entities are in which state. Some of that takes a look at every one of them, so it is
//! remembered for a while.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::domain::{SessionOwner, Timestamp, expired};
use crate::state::State;

/// Nodes by what they are at present; each is in one of these.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct NodeStates {
    /// Connected, and the key is valid.
    pub online: u64,
    /// Not connected, and the key is valid.
    pub offline: u64,
    /// The key has expired.
    pub expired: u64,
}

/// Routes; an approved one may be primary, too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct RouteStates {
    /// Offered and approved.
    pub approved: u64,
    /// Offered, and nobody approved it.
    pub waiting: u64,
    /// Traffic for their prefixes goes there.
    pub primary: u64,
}

/// Credentials of a kind by whether they work; each is in one of these.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct KeyStates {
    /// Works.
    pub valid: u64,
    /// Admits nobody any more because it has admitted its one node.
    pub used: u64,
    /// Its time is over.
    pub expired: u64,
    /// Was withdrawn.
    pub revoked: u64,
    /// When the next one that works expires.
    pub next_expiry: Option<Timestamp>,
}

/// What a state holds, counted by what matters to those who run it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct StateCounts {
    /// Nodes that stay.
    pub nodes: NodeStates,
    /// Nodes that are removed once they have been away for long.
    pub ephemeral: NodeStates,
    /// Routes.
    pub routes: RouteStates,
    /// API keys.
    pub api_keys: KeyStates,
    /// Pre-auth keys.
    pub preauth_keys: KeyStates,
    /// Sessions of people.
    pub sessions: KeyStates,
    /// When the next key of a node expires.
    pub next_node_expiry: Option<Timestamp>,
}

impl StateCounts {
    /// Counts, which takes time in proportion to nodes, routes and credentials.
    #[must_use]
    pub fn of(state: &State, now: Timestamp) -> Self {
        let mut counts = Self::default();
        for node in state.nodes().iter() {
            let of = if node.ephemeral { &mut counts.ephemeral } else { &mut counts.nodes };
            if expired(node.expires_at, now) {
                of.expired += 1;
            } else {
                match state.presence().is_online(node.id) {
                    true => of.online += 1,
                    false => of.offline += 1,
                }
                sooner(&mut counts.next_node_expiry, node.expires_at);
            }
        }
        for route in state.routes().iter() {
            counts.routes.approved += u64::from(route.carries_traffic());
            counts.routes.waiting += u64::from(route.advertised && !route.approved);
            counts.routes.primary += u64::from(route.primary);
        }
        for key in state.api_keys().iter() {
            counts.api_keys.add((key.revoked_at.is_some(), false), key.expires_at, now);
        }
        for key in state.preauth_keys().iter() {
            let used = !key.reusable && key.used_at.is_some();
            counts.preauth_keys.add((key.revoked_at.is_some(), used), key.expires_at, now);
        }
        let people = |owner: SessionOwner| matches!(owner, SessionOwner::User(_));
        for session in state.sessions().iter().filter(|session| people(session.owner)) {
            counts.sessions.add((false, false), Some(session.expires_at), now);
        }
        counts
    }
}

impl KeyStates {
    fn add(&mut self, (revoked, used): (bool, bool), end: Option<Timestamp>, now: Timestamp) {
        if revoked {
            self.revoked += 1;
        } else if expired(end, now) {
            self.expired += 1;
        } else if used {
            self.used += 1;
        } else {
            self.valid += 1;
            sooner(&mut self.next_expiry, end);
        }
    }
}

fn sooner(next: &mut Option<Timestamp>, end: Option<Timestamp>) {
    *next = [*next, end].into_iter().flatten().min();
}

/// Counting takes at most this share of the time, however often somebody asks.
const SHARE: u32 = 100;
/// Nor is counted again before that.
const AT_LEAST: Duration = Duration::from_secs(1);

/// The counts of a while ago.
#[derive(Debug, Default)]
pub(crate) struct CountsCache(Mutex<Option<Counted>>);

#[derive(Debug, Clone, Copy)]
struct Counted {
    counts: StateCounts,
    at: Instant,
    took: Duration,
}

impl CountsCache {
    /// The counts of `state`, or those of a moment ago: they are made anew at most once a second, and take
    /// one hundredth of the time at most.
    pub(crate) fn of(&self, state: &State, now: Timestamp) -> StateCounts {
        let mut cached = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(counted) = *cached
            && counted.at.elapsed() < AT_LEAST.max(counted.took * SHARE)
        {
            return counted.counts;
        }
        let began = Instant::now();
        let counts = StateCounts::of(state, now);
        *cached = Some(Counted { counts, at: Instant::now(), took: began.elapsed() });
        counts
    }
}
