//! What can happen.

use ghostwire_store_core::domain::MigrationId;
use ghostwire_store_core::migration::{
    Event, Grounds, Outcome, Role, Service, Step, Verdict, Which, Write, settle, step,
};
use ghostwire_store_core::position::Epoch;
use smallvec::{SmallVec, smallvec};
use stateright::{Model, Property};

use crate::properties;
use crate::state::{Database, Doing, Late, Pending, Process, SIDES, State, index};

/// What is changed of the protocol, to see that it matters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mutation {
    #[default]
    None,
    TightenFollowerFirst,
    LoosenAuthorityFirst,
    ActivateBeforeFence,
    AnswerAfterOneSide,
    GoOnWithoutSync,
}

/// The protocol, within bounds.
#[derive(Clone, Debug)]
pub(crate) struct Protocol {
    pub(crate) commits: u8,
    pub(crate) epochs: u64,
    /// Whether a witness decides which side goes on without the other.
    pub(crate) witness: bool,
    /// Whether a block may arrive after its process gave it up.
    pub(crate) late: bool,
    pub(crate) mutation: Mutation,
}

impl Default for Protocol {
    fn default() -> Self {
        Self { commits: 2, epochs: 3, witness: false, late: false, mutation: Mutation::None }
    }
}

/// How a message fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It arrives, and so does the answer.
    Answered,
    /// It arrives, and the answer is lost.
    Unanswered,
    /// It is lost, and nobody knows.
    Lost,
    /// It arrives later, perhaps.
    Late,
    /// The side surely did not store it.
    Refused,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Goes(Which),
    ComesBack(Which),
    Opens,
    Crashes,
    /// The process looks at what it sees, and does the next step.
    Looks(Event),
    Writes(Fate),
    Ships(Which, Fate),
    /// The copy has got everything.
    Copies,
    /// An empty database is put in the place of the one that was superseded.
    Renews(Which),
    /// A commit to one side.
    Commits(Fate),
    /// A commit to both begins,
    Sends,
    /// reaches one of them or does not,
    Stores(Which, Fate),
    /// and its outcomes are known.
    Settles,
    LateArrives,
    LateIsLost,
}

const MIGRATION: MigrationId = MigrationId::from_bytes([7; 16]);

/// What an operator may ask for, or the process for itself.
const WISHES: [Event; 9] = [
    Event::Start(MIGRATION),
    Event::Refill,
    Event::Tighten,
    Event::Loosen,
    Event::HandOver,
    Event::Undo,
    Event::Complete,
    Event::Abort,
    Event::Resync,
];

impl Protocol {
    fn grounds(&self, state: &State) -> Option<Grounds> {
        let process = state.process.as_ref()?;
        let is_lonely = state.databases.iter().filter(|it| it.is_up).count() == 1;
        let may = process.in_sync || self.witness || self.mutation == Mutation::GoOnWithoutSync;
        if !is_lonely || !may {
            return None;
        }
        match self.witness {
            true => {
                let (which, next) = survivor(state)?;
                let granted = state.granted.get(usize::try_from(next.get()).ok()?)?;
                granted.is_none_or(|to| to == which).then_some(Grounds::Granted(next))
            }
            false => Some(Grounds::InSync),
        }
    }

    fn step(&self, state: &State, event: Event) -> Step {
        let step = step(&state.pair(), event);
        let Step::Write(mut writes) = step else { return step };
        match (self.mutation, event) {
            (Mutation::TightenFollowerFirst, Event::Tighten)
            | (Mutation::LoosenAuthorityFirst, Event::Loosen) => writes.reverse(),
            (Mutation::ActivateBeforeFence, Event::HandOver) => {
                if let Some(fence) = writes.first() {
                    let to = fence.to.other();
                    let before = state.seen(to);
                    let next = before.record.epoch.next();
                    let after = before.record.from_epoch(next, Role::ActiveSync);
                    writes.insert(0, Write { to, before, after });
                }
            }
            _ => {}
        }
        Step::Write(writes)
    }

    fn settle(&self, outcomes: [Outcome; 2]) -> Verdict {
        let is_on_one = outcomes.contains(&Outcome::Stored);
        match self.mutation {
            Mutation::AnswerAfterOneSide if is_on_one => Verdict::Stored,
            _ => settle(outcomes),
        }
    }

    /// What the process may do while nothing is under way.
    fn at_leisure(&self, state: &State, process: &Process, actions: &mut Vec<Action>) {
        let is_serving = matches!(process.doing, Doing::Serving(_));
        let events = match is_serving {
            true => WISHES.as_slice(),
            false => &[Event::Resume, Event::Undo, Event::Loosen],
        };
        for event in events {
            match self.step(state, *event) {
                Step::Refuse(_) => {}
                Step::Serve(_) | Step::Fill { .. } | Step::Renew { .. } if is_serving => {}
                _ => actions.push(Action::Looks(*event)),
            }
        }
        if is_serving && !process.in_sync {
            // What came back is noticed.
            match self.step(state, Event::Resume) {
                Step::Serve(service) if process.doing == Doing::Serving(service) => {}
                Step::Refuse(_) | Step::Fill { .. } | Step::Renew { .. } => {}
                _ => actions.push(Action::Looks(Event::Resume)),
            }
        }
    }

    fn looks(&self, state: &mut State, event: Event) -> Option<()> {
        if let Event::Lost(Grounds::Granted(epoch)) = event {
            let (which, _) = survivor(state)?;
            *state.granted.get_mut(usize::try_from(epoch.get()).ok()?)? = Some(which);
        }
        let step = self.step(state, event);
        let process = state.process.as_mut()?;
        process.epoch = Epoch::ZERO;
        if !matches!(event, Event::Lost(_)) {
            process.in_sync = false;
        }
        process.doing = match step {
            Step::Write(writes) => Doing::Writing(writes.into_iter().collect()),
            Step::Ship { from } => Doing::Shipping { from },
            Step::Fill { from: authority } => Doing::Serving(Service::Alone { authority }),
            Step::Renew { superseded } => {
                Doing::Serving(Service::Alone { authority: superseded.other() })
            }
            Step::Serve(service) => {
                process.in_sync = matches!(service, Service::Both { .. });
                Doing::Serving(service)
            }
            Step::Refuse(_) => return None,
        };
        if let Doing::Serving(Service::Alone { authority } | Service::Both { authority }) =
            process.doing
        {
            let epoch = state.databases[index(authority)].record.epoch;
            state.process.as_mut()?.epoch = epoch;
        }
        Some(())
    }
}

/// The one side that is there, and the epoch in which it would go on.
fn survivor(state: &State) -> Option<(Which, Epoch)> {
    let which = SIDES.into_iter().find(|which| state.database(*which).is_up)?;
    Some((which, state.database(which).record.epoch.next()))
}

/// The process does not know what became of what it sent. It opens both sides anew, which what is under
/// way does not survive, and looks again.
fn in_doubt(state: &mut State) {
    (state.process, state.late) = (Some(Process::new()), None);
}

fn writes(state: &mut State, fate: Fate) -> Option<()> {
    let Doing::Writing(queue) = &state.process.as_ref()?.doing else { return None };
    let mut rest: SmallVec<[Write; 2]> = queue.clone();
    let write = rest.remove(0);
    let is_up = state.database(write.to).is_up;
    let is_stored = match fate {
        Fate::Answered | Fate::Unanswered => is_up && state.write(&write),
        Fate::Lost | Fate::Late | Fate::Refused => false,
    };
    let was_lost = state.pair().get(write.to.other()).is_none();
    if fate != Fate::Answered || !is_stored {
        in_doubt(state);
        return Some(());
    }
    let process = state.process.as_mut()?;
    process.in_sync &= !rest.is_empty();
    process.doing = if rest.is_empty() { Doing::Looking } else { Doing::Writing(rest) };
    // It went on with one side: what that has is the truth.
    if let Some(pending) = process.pending.take()
        && was_lost
        && state.database(write.to).log.contains(&pending.block)
    {
        state.answered |= 1 << pending.block;
    }
    Some(())
}

fn ships(state: &mut State, from: Which, fate: Fate) -> Option<()> {
    if fate == Fate::Answered {
        state.ship(from)?;
    }
    let process = state.process.as_mut()?;
    if let Doing::Shipping { .. } = process.doing {
        process.doing = Doing::Looking;
    }
    Some(())
}

fn copies(state: &mut State) -> Option<()> {
    let Doing::Serving(Service::Alone { authority }) = state.process.as_ref()?.doing else {
        return None;
    };
    let copy = state.database(authority).log.clone();
    state.database_mut(authority.other()).log = copy;
    let Step::Write(writes) = step(&state.pair(), Event::Filled) else { return None };
    let doing = Doing::Writing(writes.into_iter().collect());
    state.process = Some(Process { doing, ..Process::new() });
    Some(())
}

fn commits(state: &mut State, fate: Fate) -> Option<()> {
    let process = state.process.as_ref()?;
    let Doing::Serving(Service::Alone { authority }) = process.doing else { return None };
    let (epoch, block) = (process.epoch, state.next);
    let database = state.database_mut(authority);
    let before = database.log.clone();
    let outcome = database.store(epoch, &before, block);
    state.next += 1;
    match (outcome, fate) {
        (Outcome::Stored, Fate::Answered) => state.answered |= 1 << block,
        _ => in_doubt(state),
    }
    Some(())
}

fn sends(state: &mut State) -> Option<()> {
    let Doing::Serving(Service::Both { authority }) = state.process.as_ref()?.doing else {
        return None;
    };
    let pending = Pending {
        block: state.next,
        before: state.database(authority).log.clone(),
        outcomes: [Outcome::NotStored; 2],
        due: [true; 2],
    };
    state.next += 1;
    state.process.as_mut()?.pending = Some(pending);
    Some(())
}

fn stores(state: &mut State, to: Which, fate: Fate) -> Option<()> {
    let process = state.process.clone()?;
    let Pending { block, before, .. } = process.pending?;
    let epoch = process.epoch;
    let outcome = match fate {
        Fate::Answered => state.database_mut(to).store(epoch, &before, block),
        Fate::Unanswered => {
            state.database_mut(to).store(epoch, &before, block);
            Outcome::Unknown
        }
        Fate::Lost => Outcome::Unknown,
        Fate::Late => {
            state.late = Some(Late { to, epoch, before, block });
            Outcome::Unknown
        }
        Fate::Refused => Outcome::NotStored,
    };
    let pending = state.process.as_mut()?.pending.as_mut()?;
    let place = &mut pending.outcomes[index(to)];
    *place = place.then(outcome);
    pending.due[index(to)] = false;
    Some(())
}

impl Protocol {
    fn settles(&self, state: &mut State) -> Option<()> {
        let process = state.process.as_mut()?;
        let pending = process.pending.as_mut()?;
        match self.settle(pending.outcomes) {
            Verdict::Stored => state.answered |= 1 << pending.block,
            Verdict::NotStored => {}
            Verdict::Again(due) => {
                pending.due = due;
                return Some(());
            }
            Verdict::Fenced | Verdict::Corrupt => {
                in_doubt(state);
                return Some(());
            }
        }
        process.pending = None;
        Some(())
    }
}

fn late_arrives(state: &mut State) -> Option<()> {
    let Late { to, epoch, before, block } = state.late.take()?;
    state.database_mut(to).store(epoch, &before, block);
    Some(())
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            databases: [Database::new(Role::ActiveAlone), Database::new(Role::None)],
            process: None,
            late: None,
            answered: 0,
            granted: [None; 8],
            next: 1,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for which in SIDES {
            actions.push(match state.database(which).is_up {
                true => Action::Goes(which),
                false => Action::ComesBack(which),
            });
        }
        let to_late = match &state.late {
            Some(Late { to, .. }) => {
                if state.database(*to).is_up {
                    actions.push(Action::LateArrives);
                }
                actions.push(Action::LateIsLost);
                None
            }
            None => self.late.then_some(Fate::Late),
        };
        let Some(process) = &state.process else {
            actions.push(Action::Opens);
            return;
        };
        actions.push(Action::Crashes);
        let is_up = |which| state.database(which).is_up;
        match &process.doing {
            Doing::Writing(queue) => {
                if queue.first().is_some_and(|write| is_up(write.to)) {
                    actions.extend([Fate::Answered, Fate::Unanswered].map(Action::Writes));
                }
                actions.push(Action::Writes(Fate::Lost));
            }
            Doing::Shipping { from } => {
                if SIDES.into_iter().all(is_up) {
                    actions.push(Action::Ships(*from, Fate::Answered));
                }
                actions.push(Action::Ships(*from, Fate::Lost));
            }
            Doing::Looking => self.at_leisure(state, process, actions),
            Doing::Serving(service) => {
                if process.pending.is_none() {
                    self.at_leisure(state, process, actions);
                }
                match *service {
                    Service::Alone { authority } => {
                        self.alone(state, authority, actions);
                    }
                    Service::Both { .. } => self.both(state, process, to_late, actions),
                }
            }
        }
        let is_free = matches!(process.doing, Doing::Serving(_) | Doing::Looking);
        if let Some(grounds) = self.grounds(state).filter(|_| is_free) {
            let lost = Event::Lost(grounds);
            if !matches!(self.step(state, lost), Step::Refuse(_)) {
                actions.push(Action::Looks(lost));
            }
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = state.clone();
        match action {
            Action::Goes(which) => next.database_mut(which).is_up = false,
            Action::ComesBack(which) => next.database_mut(which).is_up = true,
            Action::Opens => next.process = Some(Process::new()),
            Action::Crashes => {
                (next.process, next.late) = (None, None);
            }
            Action::Looks(event) => self.looks(&mut next, event)?,
            Action::Writes(fate) => writes(&mut next, fate)?,
            Action::Ships(from, fate) => ships(&mut next, from, fate)?,
            Action::Copies => copies(&mut next)?,
            Action::Renews(which) => next.renew(which),
            Action::Commits(fate) => commits(&mut next, fate)?,
            Action::Sends => sends(&mut next)?,
            Action::Stores(to, fate) => stores(&mut next, to, fate)?,
            Action::Settles => self.settles(&mut next)?,
            Action::LateArrives => late_arrives(&mut next)?,
            Action::LateIsLost => next.late = None,
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all()
    }

    fn within_boundary(&self, state: &State) -> bool {
        state.databases.iter().all(|it| it.record.epoch <= Epoch::new(self.epochs))
    }
}

impl Protocol {
    /// What may happen while commits go to one side.
    fn alone(&self, state: &State, authority: Which, actions: &mut Vec<Action>) {
        let is_up = |which| state.database(which).is_up;
        if is_up(authority) && state.next <= self.commits {
            actions.extend([Fate::Answered, Fate::Unanswered].map(Action::Commits));
        }
        let (source, copy) = (state.database(authority), state.database(authority.other()));
        if !is_up(authority) || !is_up(authority.other()) {
            return;
        }
        if let Step::Renew { superseded } = self.step(state, Event::Resume)
            && superseded == authority.other()
        {
            actions.push(Action::Renews(superseded));
        }
        match copy.record.role {
            Role::Filling => actions.push(Action::Copies),
            Role::PassiveAsync if copy.log.len() < source.log.len() => {
                actions.push(Action::Ships(authority, Fate::Answered));
            }
            _ => {}
        }
    }

    /// What may happen while they go to both.
    fn both(
        &self,
        state: &State,
        process: &Process,
        late: Option<Fate>,
        actions: &mut Vec<Action>,
    ) {
        let Some(pending) = &process.pending else {
            if state.next <= self.commits {
                actions.push(Action::Sends);
            }
            return;
        };
        for to in SIDES.into_iter().filter(|to| pending.due[index(*to)]) {
            let mut fates: SmallVec<[Fate; 5]> = smallvec![Fate::Lost];
            if state.database(to).is_up {
                fates.extend([Fate::Answered, Fate::Unanswered, Fate::Refused]);
                fates.extend(late);
            }
            actions.extend(fates.into_iter().map(|fate| Action::Stores(to, fate)));
        }
        if pending.due == [false; 2] {
            actions.push(Action::Settles);
        }
    }
}
