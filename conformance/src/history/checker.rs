//! Whether a history is linearizable: whether each call can be given one moment between its
//! beginning and its end, so that all of them, one after the other, give the answers that were
//! given.
//!
//! The search is that of Wing and Gong, *Testing and Verifying Concurrent Objects* (J. Parallel
//! and Distributed Computing 17, 1993): take a call that began before any other has ended, carry
//! it out on the model, and go on; go back when an answer does not fit. It remembers, as Lowe adds
//! in *Testing for Linearizability* (Concurrency and Computation 29, 2017), which set of calls led
//! to which state already.
//!
//! The one crate that does the same, `todc-utils`, has had no release since 2024, supports no call
//! without an answer, and answers only yes or no; a failing check has to show where it fails.

use std::collections::HashSet;
use std::fmt::Debug;
use std::hash::Hash;

/// An object as it behaves when its calls are sequential.
pub(super) trait Model {
    type Call: Clone + Debug;
    type Answer: PartialEq + Debug;
    type State: Clone + Eq + Hash + Debug;

    fn begin(&self) -> Self::State;
    fn step(&self, state: &Self::State, call: &Self::Call) -> (Self::State, Self::Answer);

    /// Whether another call of the history may have seen the effect of this one. A call without a
    /// known outcome that no other call saw can be left out: if there is an order with it, there is
    /// one without it. Each call that is left out halves the search.
    fn is_seen_by(&self, _: &Self::Call, _: &Entry<Self::Call, Self::Answer>) -> bool {
        true
    }
}

/// A call, and when it began and ended; moments are numbers that only grow.
#[derive(Debug, Clone)]
pub(super) struct Entry<C, A> {
    pub(super) call: C,
    /// `None` if nobody knows whether it happened; it may still happen at any time.
    pub(super) answer: Option<A>,
    pub(super) began: u64,
    pub(super) ended: u64,
}

pub(super) type History<M> = Vec<Entry<<M as Model>::Call, <M as Model>::Answer>>;

/// The longest order that the search found.
#[derive(Debug)]
pub(super) struct Failure<S> {
    /// Calls that could be put in order, by their place in the history.
    pub(super) order: Vec<usize>,
    /// What they led to.
    pub(super) state: S,
    /// A call that ended, and that fits nowhere after those.
    pub(super) stuck: usize,
}

/// Puts the calls in order. Gives how many there are.
pub(super) fn check<M: Model>(model: &M, history: &History<M>) -> Result<usize, Failure<M::State>> {
    let mut events = Events::of(history);
    let mut left = history.iter().filter(|entry| entry.answer.is_some()).count();
    let is_left_out = |entry: &Entry<M::Call, M::Answer>| {
        entry.answer.is_none() && !history.iter().any(|other| model.is_seen_by(&entry.call, other))
    };
    let left_out: Vec<_> = history.iter().map(is_left_out).collect();
    let mut state = model.begin();
    let mut taken = vec![0_u64; history.len().div_ceil(64)];
    let mut known: HashSet<(Vec<u64>, M::State)> = HashSet::new();
    let mut path: Vec<(usize, M::State)> = Vec::new();
    let mut best: Option<Failure<M::State>> = None;
    let mut at = events.first();
    while left > 0 {
        let event = events.list[at];
        let entry = &history[event.entry];
        if event.is_call {
            let (next, answer) = model.step(&state, &entry.call);
            let fits = match &entry.answer {
                Some(given) => *given == answer,
                // A call without an answer that changes nothing can be left out.
                None => next != state && !left_out[event.entry],
            };
            flip(&mut taken, event.entry);
            if fits && known.insert((taken.clone(), next.clone())) {
                left -= usize::from(entry.answer.is_some());
                path.push((at, std::mem::replace(&mut state, next)));
                events.take_out(at);
                at = events.first();
            } else {
                flip(&mut taken, event.entry);
                at = events.next[at];
            }
            continue;
        }
        // Something ended that was not put in order yet, so an earlier choice was wrong.
        if best.as_ref().is_none_or(|best| best.order.len() < path.len()) {
            let order = path.iter().map(|(at, _)| events.list[*at].entry).collect();
            best = Some(Failure { order, state: state.clone(), stuck: event.entry });
        }
        let Some((call, before)) = path.pop() else {
            return Err(best.expect("it was just set"));
        };
        state = before;
        let taken_back = events.list[call].entry;
        left += usize::from(history[taken_back].answer.is_some());
        flip(&mut taken, taken_back);
        events.put_back(call);
        at = events.next[call];
    }
    Ok(history.len())
}

fn flip(bits: &mut [u64], index: usize) {
    bits[index / 64] ^= 1 << (index % 64);
}

#[derive(Debug, Clone, Copy)]
struct Event {
    entry: usize,
    is_call: bool,
    /// Where the other end of the call is.
    other: usize,
}

/// Beginnings and ends in order, as a list from which calls can be taken and put back at once. The
/// last place is in front of the first event and behind the last.
struct Events {
    list: Vec<Event>,
    next: Vec<usize>,
    previous: Vec<usize>,
}

impl Events {
    fn of<C, A>(history: &[Entry<C, A>]) -> Self {
        let ends = history.iter().enumerate().flat_map(|(index, entry)| {
            let ended = if entry.answer.is_some() { entry.ended } else { u64::MAX };
            [(entry.began, true, index), (ended, false, index)]
        });
        let mut ends: Vec<_> = ends.collect();
        ends.sort_unstable();
        let mut places = vec![[0; 2]; history.len()];
        for (place, (_, is_call, entry)) in ends.iter().enumerate() {
            places[*entry][usize::from(*is_call)] = place;
        }
        let list = ends.iter().map(|&(_, is_call, entry)| Event {
            entry,
            is_call,
            other: places[entry][usize::from(!is_call)],
        });
        let count = ends.len();
        Self {
            list: list.collect(),
            next: (0..=count).map(|place| (place + 1) % (count + 1)).collect(),
            previous: (0..=count).map(|place| (place + count) % (count + 1)).collect(),
        }
    }

    fn first(&self) -> usize {
        self.next[self.list.len()]
    }

    fn take_out(&mut self, call: usize) {
        for place in [call, self.list[call].other] {
            let (previous, next) = (self.previous[place], self.next[place]);
            self.next[previous] = next;
            self.previous[next] = previous;
        }
    }

    /// In the opposite order of taking, so that its neighbours are in the list again.
    fn put_back(&mut self, call: usize) {
        for place in [self.list[call].other, call] {
            let (previous, next) = (self.previous[place], self.next[place]);
            self.next[previous] = place;
            self.previous[next] = place;
        }
    }
}
