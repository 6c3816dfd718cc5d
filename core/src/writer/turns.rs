//! Turns. Where processes keep writing to one backend, whoever decides slowly would always come second, and
//! what the others decide in vain is lost, too. So whoever has lost twice asks the backend for a turn, learns
//! what the others have committed, and only then decides: nothing of that can come second. A turn is short,
//! since all others wait for it.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::{Request, Writer};
use crate::error::{ErrorKind, Result};

/// After so many lost attempts in a row turns are taken.
const LOST: usize = 2;
/// Until nobody else has written for so long, as far as the backend says: a process that was not let run for
/// as long knows nothing of the others.
const CALM: Duration = Duration::from_secs(1);
/// How long a turn may decide.
const DECIDING: Duration = Duration::from_millis(20);

/// Whether turns are taken.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// Attempts that another process was faster than, in a row.
    lost: usize,
    /// When others were last found to have written; none if no turns are taken.
    others_wrote_at: Option<Instant>,
    /// One is had.
    is_taken: bool,
    /// The backend has none.
    are_missing: bool,
}

impl Turns {
    /// Another process was faster.
    pub(super) fn lost(&mut self, now: Instant) {
        self.lost += 1;
        if self.lost >= LOST {
            self.others_wrote_at = Some(now);
        }
    }

    /// An attempt was the first one.
    pub(super) fn won(&mut self) {
        self.lost = 0;
    }

    /// Somebody looked whether others have written. The question was sent at the first of these times, and
    /// answered by the second.
    pub(super) fn looked(&mut self, [asked, answered]: [Instant; 2], have_written: bool) {
        let Some(last) = self.others_wrote_at else { return };
        if have_written {
            self.others_wrote_at = Some(answered);
        } else if asked.saturating_duration_since(last) > CALM {
            (self.others_wrote_at, self.lost) = (None, 0);
        }
    }

    fn are_due(&self) -> bool {
        !self.are_missing && self.others_wrote_at.is_some()
    }
}

impl Writer {
    /// Whether a write has to wait for a turn.
    pub(super) fn awaits_turn(&self) -> bool {
        let is_due = self.turns.are_due() && !self.turns.is_taken;
        // What is stored has to be known first.
        is_due && !self.poisoned && self.refusal().is_none()
    }

    /// Serves writes in a turn, if there are some and turns are taken. Tells whether it did anything.
    pub(super) async fn serve_in_turn(&mut self, queue: &mut mpsc::Receiver<Request>) -> bool {
        if !self.awaits_turn() {
            return false;
        }
        // Nothing is decided ahead: it would come second.
        self.publish_in_flight().await;
        self.reconsider_batch();
        if self.waiting.is_empty() {
            self.waiting.extend(queue.try_recv().ok());
        }
        let is_write = self.waiting.front().is_some_and(Request::is_write);
        if !is_write {
            return false;
        }
        match self.begin_turn().await {
            Ok(true) => {}
            Ok(false) => return false,
            Err(error) => {
                if let Some(request) = self.waiting.pop_front() {
                    self.refuse_writes(request, queue, &error);
                }
                return true;
            }
        }
        let began = Instant::now();
        loop {
            let is_blocked = self.drain(queue).await;
            let is_empty = self.waiting.is_empty() && queue.is_empty();
            if is_blocked || is_empty || began.elapsed() >= DECIDING {
                break;
            }
        }
        self.target_len = 0;
        self.rotate(false).await;
        self.end_turn().await;
        self.publish_in_flight().await;
        true
    }

    /// Has nobody else commit, and the state be where they have come to, if turns are taken. Tells whether
    /// that is so; then [`Writer::end_turn`] follows, whatever becomes of it.
    ///
    /// # Errors
    /// What the backend says; nothing is stored then.
    pub(super) async fn begin_turn(&mut self) -> Result<bool> {
        if !self.awaits_turn() {
            return Ok(false);
        }
        // However much there is to learn, nobody waits for it: in the turn there is only what came since.
        self.catch_up().await?;
        if !self.awaits_turn() {
            return Ok(false);
        }
        let taken = self.backend.take_turn().await;
        match taken {
            Ok(true) => self.turns.is_taken = true,
            Ok(false) => {
                self.turns.are_missing = true;
                return Ok(false);
            }
            Err(error) => {
                tracing::warn!(%error, "no turn was to be had");
                self.shared.vital.note("turn", &error);
                return Err(error);
            }
        }
        match self.follow().await {
            Ok(()) => Ok(true),
            // To load the store anew takes long, and is nothing that others have to wait for.
            Err(error) if matches!(error.kind(), ErrorKind::Compacted { .. }) => {
                self.end_turn().await;
                self.catch_up().await.map(|()| false)
            }
            Err(error) => {
                self.end_turn().await;
                Err(error)
            }
        }
    }

    /// Lets others go on, if there is a turn. Its commit has done so already.
    pub(super) async fn end_turn(&mut self) {
        if std::mem::take(&mut self.turns.is_taken)
            && let Err(error) = self.backend.end_turn().await
        {
            tracing::warn!(%error, "a turn could not be given back; the backend ends it by itself");
        }
    }

    /// Has the open batch decided again, before all other requests.
    pub(super) fn reconsider_batch(&mut self) {
        if let Some(batch) = self.batch.take() {
            self.put_back(batch.into_requests());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_taken_after_two_losses_in_a_row_until_others_are_quiet() {
        let mut turns = Turns::default();
        let now = Instant::now();
        let at = |turns: &mut Turns, at, have_written| turns.looked([at, at], have_written);
        turns.lost(now);
        turns.won();
        turns.lost(now);
        assert!(!turns.are_due());
        turns.lost(now);
        turns.won();
        assert!(turns.are_due());
        at(&mut turns, now + CALM, false);
        assert!(turns.are_due());
        at(&mut turns, now + CALM, true);
        at(&mut turns, now + 2 * CALM, false);
        assert!(turns.are_due());
        at(&mut turns, now + 3 * CALM, false);
        assert!(!turns.are_due(), "others are quiet");
        at(&mut turns, now + 3 * CALM, true);
        assert!(!turns.are_due(), "it takes two losses again");
        turns.lost(now + 3 * CALM);
        assert!(!turns.are_due(), "in a row");
        turns.lost(now + 3 * CALM);
        assert!(turns.are_due());
        turns.are_missing = true;
        assert!(!turns.are_due());
    }

    #[test]
    fn whoever_has_not_looked_does_not_take_others_to_be_quiet() {
        let mut turns = Turns::default();
        let now = Instant::now();
        turns.lost(now);
        turns.lost(now);
        // The answer came long after the question, and tells nothing of the time between.
        turns.looked([now, now + 60 * CALM], false);
        assert!(turns.are_due());
        turns.looked([now + 60 * CALM, now + 120 * CALM], true);
        turns.looked([now + 121 * CALM, now + 122 * CALM], false);
        assert!(turns.are_due());
        turns.looked([now + 122 * CALM, now + 122 * CALM], false);
        assert!(!turns.are_due());
    }
}
