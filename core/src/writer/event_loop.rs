//! The loop: takes requests from the queue, and begins and ends commits.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::batch::{Batch, Load};
use super::in_flight::Step;
use super::{Request, Writer};
use crate::error::{Error, Result};
use crate::observe::Event;

/// So many requests are taken at a time: between them the writer looks whether a commit has ended.
pub(super) const DRAIN_LIMIT: usize = 16;

impl Writer {
    /// Serves the queue until the store is closed, or until every handle on it is gone. Flushes only
    /// in the first case, where `close` waits for it; otherwise the next opening does.
    pub(super) async fn run(&mut self, queue: &mut mpsc::Receiver<Request>) -> Result<()> {
        let mut idle_timeout = self.options.idle_before_flush;
        while self.step(queue, &mut idle_timeout).await {}
        self.end_companions();
        self.backend.announce_close();
        match self.closing {
            true => self.flush_all().await.map(drop),
            false => Ok(()),
        }
    }

    /// Takes some requests and does what follows. Tells whether there is more to do.
    pub(super) async fn step(
        &mut self,
        queue: &mut mpsc::Receiver<Request>,
        idle_timeout: &mut Duration,
    ) -> bool {
        if !self.closing && self.shared.closing.has_begun() {
            self.closing = true;
            // What was accepted before is completed.
            queue.close();
        }
        if self.serve_in_turn(queue).await {
            self.serve_followers().await;
            return true;
        }
        let blocked = self.drain(queue).await;
        self.serve_followers().await;
        let more = !self.waiting.is_empty() || !queue.is_empty();
        match self.next_step(blocked || !more) {
            Step::Rotate => self.rotate(more).await,
            Step::Publish => self.publish_in_flight().await,
            Step::Gather if more && !blocked => {}
            Step::Gather if self.is_idle() && self.drained => return false,
            Step::Gather => self.wait(queue, blocked, idle_timeout).await,
        }
        true
    }

    /// Whether there is neither an open batch nor a commit in flight.
    fn is_idle(&self) -> bool {
        self.batch.is_none() && self.in_flight.is_none()
    }

    /// Serves some of what waits. Tells whether the next request is blocked by those before it.
    pub(super) async fn drain(&mut self, queue: &mut mpsc::Receiver<Request>) -> bool {
        // Once for all of them.
        self.drained_at = self.recorder.is_some().then(Instant::now);
        for _ in 0..DRAIN_LIMIT {
            let next = self.waiting.pop_front().or_else(|| queue.try_recv().ok());
            let Some(request) = next else { break };
            if request.is_write() && self.awaits_turn() {
                self.waiting.push_front(request);
                return false;
            }
            if let Some(request) = self.serve(request, queue).await {
                self.waiting.push_front(request);
                return true;
            }
        }
        false
    }

    /// Waits until a request arrives or the commit in flight ends; flushes if nothing happens.
    async fn wait(
        &mut self,
        queue: &mut mpsc::Receiver<Request>,
        blocked: bool,
        idle_timeout: &mut Duration,
    ) {
        const LONGEST_TIMEOUT: Duration = Duration::from_secs(60);
        let upkeep = self.until_upkeep().filter(|_| self.is_idle());
        let mut received = Vec::with_capacity(DRAIN_LIMIT);
        let taken = self.batch.as_ref().map_or(0, Batch::len);
        let room = self.options.max_group.saturating_sub(taken).clamp(1, DRAIN_LIMIT);
        let flushes = self.has_to_flush() && !self.poisoned && self.refusal().is_none();
        let listens = !blocked && !self.drained;
        let (shared, closing) = (self.shared.clone(), self.closing);
        let arrival = async {
            tokio::select! {
                biased;
                count = queue.recv_many(&mut received, room) => Some(count),
                () = shared.closing.begins(), if !closing => None,
            }
        };
        let count = match &mut self.in_flight {
            Some(in_flight) => tokio::select! {
                biased;
                () = in_flight.ended() => None,
                count = arrival, if listens => count,
            },
            // What arrived is taken before the next slice, also where that is due at once.
            None if upkeep.is_some() => {
                let pause = upkeep.unwrap_or_default();
                let pause = if flushes { pause.min(*idle_timeout) } else { pause };
                let count = tokio::time::timeout(pause, arrival).await.ok();
                if count.is_none() {
                    // In turns, so that nobody waits for both.
                    if flushes && self.upkeep_yields() {
                        *idle_timeout = match self.flush_slice(1024).await {
                            true => self.options.idle_before_flush,
                            false => (*idle_timeout * 2).min(LONGEST_TIMEOUT),
                        };
                    } else {
                        self.keep_up().await;
                    }
                }
                count.flatten()
            }
            None if flushes => match tokio::time::timeout(*idle_timeout, arrival).await {
                Ok(count) => count,
                Err(_) => {
                    // If the disk is full, the next attempt waits longer.
                    *idle_timeout = match self.flush_slice(1024).await {
                        true => self.options.idle_before_flush,
                        false => (*idle_timeout * 2).min(LONGEST_TIMEOUT),
                    };
                    None
                }
            },
            None => arrival.await,
        };
        self.drained |= count == Some(0);
        self.waiting.extend(received);
    }

    /// Serves a request, or gives it back if it has to wait for those before it.
    async fn serve(
        &mut self,
        request: Request,
        queue: &mut mpsc::Receiver<Request>,
    ) -> Option<Request> {
        if let Request::Follow(position, answer) = request {
            self.followers.push((position, answer));
            return None;
        }
        let load = match &request {
            Request::Submit(submission, _) => Load::of(&submission.command),
            Request::Append(series, _) => Load::Series(series.rows.len()),
            _ if !self.is_idle() => return Some(request),
            _ => {
                self.maintain(request).await;
                return None;
            }
        };
        let mut refusal = self.refusal();
        if refusal.is_none() && self.poisoned {
            refusal = self.reopen().await.err();
        }
        if let Some(error) = refusal {
            self.refuse_writes(request, queue, &error);
            return None;
        }
        let max_len = if self.alone > 0 { 1 } else { self.options.max_group };
        let full_block = self.options.full_block();
        let mut request = request;
        self.note_taken(&mut request);
        self.shared.vital.begin_work();
        let batch = self.open_batch();
        let has_room = batch.has_room_for(load, max_len, full_block);
        match request {
            request if !has_room => {
                self.shared.vital.end_work();
                return Some(request);
            }
            Request::Submit(submission, answer) => batch.submit(submission, answer),
            Request::Append(series, answer) => batch.append(series, answer),
            _ => {}
        }
        self.shared.vital.end_work();
        self.alone = self.alone.saturating_sub(1);
        None
    }

    /// Tells how long a write has waited.
    fn note_taken(&self, request: &mut Request) {
        let (Some(recorder), Some(now)) = (&self.recorder, self.drained_at) else { return };
        let origin = match request {
            Request::Submit(_, answer) => &mut answer.origin,
            Request::Append(_, answer) => &mut answer.origin,
            _ => return,
        };
        if let Some(waited) = origin.take(now) {
            recorder.record(&Event::Waited(waited));
        }
    }

    /// Refuses every write that waits, for the reason that one was refused: each would only try the
    /// same dead disk again.
    pub(super) fn refuse_writes(
        &mut self,
        request: Request,
        queue: &mut mpsc::Receiver<Request>,
        error: &Error,
    ) {
        let mut waiting = vec![request];
        waiting.extend(self.waiting.drain(..));
        // The queue is emptied before the first answer: a caller that tries again at once is served
        // later, on its own merits.
        waiting.extend(std::iter::from_fn(|| queue.try_recv().ok()));
        let kept = waiting.into_iter().filter_map(|request| request.refuse_write(error));
        self.waiting = kept.collect();
    }
}
