//! Callers are killed in the middle of their work.

use std::sync::Arc;

use super::child::{at, open};
use super::oracle::Oracle;
use super::process::{Moment, run_and_kill};
use super::said::{Part, Play, Said};
use super::share;
use super::survivor::{Survivor, repeat_batches};
use crate::case::Verdict;
use crate::dice::Dice;
use crate::factory::Factory;
use crate::suite::Effort;

pub(super) const NO_LOCATION: Verdict =
    Verdict::Skipped("no other process can open a place of this backend");

/// One place, and one process after the other in it, most of them with the same way of
/// materialising.
pub(super) async fn check(factory: Arc<dyn Factory>, effort: Effort, at_once: bool) -> Verdict {
    let place = factory.create().await.expect("a place can be made");
    let Some(location) = place.location() else { return NO_LOCATION };
    let dice = Dice::new(effort.seed ^ u64::from(at_once));
    let mut oracle = Oracle::default();
    for round in 0..share(effort.kills, 8) {
        let at_once = at_once != dice.once_in(4);
        let part = Part::new(&*factory, &location, at_once, effort, Play::Work { round });
        let materialize = part.materialize();
        // Now and then while it opens what its predecessor left.
        let early = round > 0 && dice.once_in(6);
        let moment = Moment {
            lines: if early { 0 } else { 1 + dice.below(300) },
            micros: dice.number() % if early { 50_000 } else { 3_000 },
        };
        let answers = |said: &Said| matches!(said, Said::Done { .. } | Said::Refused { .. });
        let said = run_and_kill(part, moment, answers).await;
        // On a copy, so that the next process finds what this one left; or in its place.
        let copy = place.after_crash().await.expect("a place can be copied");
        let in_place = dice.once_in(3);
        let opened = if in_place { &place } else { &copy };
        let store = open(opened.as_ref(), at(round), materialize).await;
        repeat_batches(&store, &oracle).await;
        let found = Survivor::of(&store).await;
        oracle.learn(said, round, &found);
        oracle.check(&found);
        // What was folded, checkpointed and purged since is nothing that was acknowledged.
        store.checkpoint().await.expect("everything folds");
        oracle.check(&Survivor::of(&store).await);
        store.close().await.expect("the store closes");
    }
    assert!(oracle.acknowledged > 0, "nothing was acknowledged before the kill");
    Verdict::Passed
}
