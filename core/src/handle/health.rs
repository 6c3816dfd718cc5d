//! What is known of the store's health, from the writer's signs and the last probe.

use std::time::Instant;

use super::StoreHandle;
use crate::backend::FilePart;
use crate::domain::Timestamp;
use crate::health::{Ended, Facts, Health, LastError, Probed, Standing, assess};
use crate::writer::End;

impl StoreHandle {
    /// Has the store probed, unless that would be refused anyhow.
    pub(crate) async fn probe_for_health(&self) {
        if !self.core.options.read_only && !self.core.shared.closing.has_begun() {
            self.core.prober.refresh(&self.core.queue, &self.core.shared.vital).await;
        }
    }

    pub(crate) fn assess_health(&self) -> Health {
        let core = &self.core;
        let vital = &core.shared.vital;
        let (info, view) = (core.backend.info(), self.current_view());
        let (max_age, free_bytes) = (core.options.max_view_age, info.filesystem.map(|fs| fs.free));
        let head = core.head();
        let facts = Facts {
            loading: None,
            ended: core.shared.progress.borrow().end.as_ref().map(ended),
            is_closing: core.shared.closing.has_begun(),
            poisoned: vital.poisoned(),
            fenced: vital.fenced(),
            is_read_only: core.options.read_only,
            probe: core.prober.judge(vital),
            view_age: core.is_shared.then(|| (view.age(), max_age)),
            free_bytes,
            deciding_for: vital.at_work_for(Instant::now()),
            displaced: info.file.and_then(|file| {
                // A server of an earlier release does not say which.
                Some((file.displaced?, file.displaced_part.unwrap_or(FilePart::Store)))
            }),
        };
        let moment = Moment { wall: self.wall_clock(), now: Instant::now() };
        let (checkpoint, checkpoint_at) = vital.checkpoint();
        let standing = Standing {
            backend: info.name,
            engine: info.engine,
            schema: head.schema.version,
            epoch: head.epoch,
            position: view.position(),
            serial: view.serial(),
            checkpoint,
            checkpoint_at: checkpoint_at.map(|at| moment.of(at)),
            dirty_rows: core.shared.counters.dirty_rows.load(std::sync::atomic::Ordering::Relaxed),
            max_dirty_rows: core.options.writer.max_dirty_rows as u64,
            view_age: view.age(),
            free_bytes,
        };
        let last_error = vital.failing().map(|failing| LastError {
            at: moment.of(failing.at),
            operation: failing.operation,
            kind: failing.error.kind().name(),
            message: failing.error.to_string(),
        });
        let probe = core.prober.last().map(|last| Probed {
            at: moment.of(last.at),
            took: last.took,
            error: last.error.map(|error| error.to_string()),
        });
        Health { store: Some(standing), last_error, probe, ..assess(&facts) }
    }
}

/// What both clocks say at one moment, to date what was noted by one of them.
struct Moment {
    wall: Timestamp,
    now: Instant,
}

impl Moment {
    fn of(&self, at: Instant) -> Timestamp {
        self.wall.saturating_sub(self.now.saturating_duration_since(at))
    }
}

fn ended(end: &End) -> Ended {
    match end {
        End::Closed(_) => Ended::Closed,
        End::Failed(_) => Ended::Failed,
        End::Overtaken(error) => {
            Ended::Overtaken(format!("{}: {}", error.kind().name(), error.message()))
        }
    }
}
