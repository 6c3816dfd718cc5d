//! What must hold, whatever happens.

use ghostwire_store_core::migration::{Event, Record, Role, Service, Step, Which, step};
use stateright::Property;

use crate::protocol::Protocol;
use crate::state::{SIDES, State};

pub(crate) const ONE_WRITER: &str = "never would each side be written alone";
pub(crate) const SURVIVES: &str = "whatever would be written has all that was answered";
pub(crate) const NO_FORK: &str = "within an epoch the sides have one history";
pub(crate) const NO_DEAD_END: &str = "with both sides there, somebody can be served again";

pub(crate) fn all() -> Vec<Property<Protocol>> {
    vec![
        Property::always(ONE_WRITER, |_, state: &State| has_one_writer(state)),
        Property::always(SURVIVES, |_, state: &State| {
            SIDES
                .into_iter()
                .filter(|which| is_truth(state, *which))
                .all(|it| state.has_answered(it))
        }),
        Property::always(NO_FORK, |_, state: &State| has_one_history(state)),
        Property::always(NO_DEAD_END, |_, state: &State| ends_in_service(state.clone())),
        // What has to be reachable, or the properties above would hold of too little.
        Property::sometimes("handed over, and answered there", |_, state: &State| {
            let target = state.database(Which::Second);
            target.record.role == Role::ActiveSync && !target.log.is_empty() && state.answered != 0
        }),
        Property::sometimes("finished", |_, state: &State| {
            let roles = SIDES.map(|which| state.database(which).record.role);
            roles == [Role::Retired, Role::ActiveAlone] && state.answered != 0
        }),
        Property::sometimes("promoted, with an answer", |_, state: &State| {
            let [source, target] = SIDES.map(|which| state.database(which));
            target.record.role == Role::ActiveAlone
                && source.record.role == Role::ActiveSync
                && state.answered != 0
        }),
        Property::sometimes(
            "in step again, with a database in place of the lost one",
            |_, state: &State| {
                SIDES.into_iter().any(|which| {
                    let database = state.database(which);
                    database.is_renewed
                        && database.record.role == Role::PassiveSync
                        && state.answered != 0
                        && state.has_answered(which)
                })
            },
        ),
        Property::sometimes("handed back", |_, state: &State| {
            let [source, target] = SIDES.map(|which| state.database(which));
            source.record.epoch.get() == 2
                && source.record.role == Role::ActiveSync
                && target.record.role == Role::PassiveSync
        }),
    ]
}

/// Whether no side that whoever sees it alone writes to has been superseded, or is about to be.
fn has_one_writer(state: &State) -> bool {
    let [first, second] = SIDES.map(|which| state.database(which).record);
    let is_superseded = |this: Record, other: Record| {
        this.role.serves_alone() && other.role.is_active() && other.epoch >= this.epoch
    };
    let are_equal =
        first.role.is_active() && second.role.is_active() && first.epoch == second.epoch;
    !is_superseded(first, second) && !is_superseded(second, first) && !are_equal
}

/// Whether a side would be written, or is what an opener that sees both goes by.
fn is_truth(state: &State, which: Which) -> bool {
    let (this, other) = (state.database(which).record, state.database(which.other()).record);
    let leads = this.role.is_active() && (!other.role.is_active() || this.epoch > other.epoch);
    this.role.serves_alone() || leads
}

fn has_one_history(state: &State) -> bool {
    let [first, second] = SIDES.map(|which| state.database(which));
    let takes_part =
        |role: Role| role.is_active() || matches!(role, Role::PassiveAsync | Role::PassiveSync);
    if first.record.epoch != second.record.epoch
        || !takes_part(first.record.role)
        || !takes_part(second.record.role)
    {
        return true;
    }
    let is_prefix = first.log.iter().zip(&second.log).all(|(a, b)| a == b);
    let is_ahead = SIDES.into_iter().any(|which| {
        let (this, other) = (state.database(which), state.database(which.other()));
        this.record.role.is_active() && other.log.len() > this.log.len() + 1
    });
    is_prefix && !is_ahead
}

/// Whether looking and doing what is left to be done, with nothing in the way, leads to a service.
fn ends_in_service(mut state: State) -> bool {
    for _ in 0..30 {
        match step(&state.whole_pair(), Event::Resume) {
            Step::Write(writes) => {
                if !writes.iter().all(|write| state.write(write)) {
                    return false;
                }
            }
            Step::Ship { from } => {
                if state.ship(from).is_none() {
                    return false;
                }
            }
            Step::Fill { .. }
            | Step::Renew { .. }
            | Step::Serve(Service::Alone { .. } | Service::Both { .. }) => return true,
            Step::Refuse(_) => return false,
        }
    }
    false
}
