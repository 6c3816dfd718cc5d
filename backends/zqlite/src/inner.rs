//! The backend's work, on threads that may block.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::Instant;

use ghostwire_store_core::backend::{BackendCounters, BackendInfo, Commit, Head, Row, Scan};
use ghostwire_store_core::block::{EncodedBlock, Serial};
use ghostwire_store_core::error::{Error, ErrorKind, Result};
use ghostwire_store_core::schema::Schema;
use ghostwire_store_sqlite::{Access, FileKind, StoreFile};

use crate::engine::Batch;
use crate::head::{self, Stored};
use crate::open::{Open, broken_chain, missing_block};
use crate::options::{EngineChoice, ZqliteOptions};
use crate::plan;

#[derive(Debug)]
pub(crate) struct Inner {
    options: ZqliteOptions,
    engine_name: String,
    /// What can be told without waiting for the file. `None` once closed.
    status: Mutex<Option<Status>>,
    /// Taken for writing by whoever changes or closes the connections. `None` once closed.
    pub(crate) open: RwLock<Option<Open>>,
    pub(crate) counters: Mutex<BackendCounters>,
}

#[derive(Debug, Clone)]
pub(crate) struct Status {
    pub(crate) stored: Stored,
    file: Arc<StoreFile>,
}

impl Inner {
    pub(crate) fn open(options: ZqliteOptions) -> Result<Self> {
        if options.engine == EngineChoice::Native {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "this release has no native engine for zqlite; set the engine to `embedded`",
            ));
        }
        let access = match (options.read_only, options.create) {
            (true, _) => Access::ReadOnly,
            (false, true) => Access::Create,
            (false, false) => Access::Existing,
        };
        let began = Instant::now();
        let file = Arc::new(StoreFile::open(&options.path, FileKind::ZQLITE, access)?);
        if let Some(limits) = options.log_limits {
            file.log().set_limits(limits);
        }
        let begun = Open::begin(&options, file.clone(), access == Access::Create);
        let (open, stored) = file.undisturbed(begun)?;
        file.watch_log()?;
        open.engine.settle()?;
        file.note_store(stored.head.store);
        tracing::debug!(
            db.system.name = "zqlite",
            db.namespace = %file.path().display(),
            serial = stored.head.serial.get(),
            rows = stored.rows,
            elapsed_ms = began.elapsed().as_millis(),
            "opened"
        );
        Ok(Self {
            engine_name: open.engine.describe(),
            options,
            status: Mutex::new(Some(Status { stored, file })),
            open: RwLock::new(Some(open)),
            counters: Mutex::default(),
        })
    }

    pub(crate) fn status(&self) -> Result<Status> {
        locked(&self.status).clone().ok_or_else(closed)
    }

    pub(crate) fn head(&self) -> Result<Head> {
        self.status().map(|status| status.stored.head)
    }

    fn set_stored(&self, stored: Stored) {
        if let Some(status) = locked(&self.status).as_mut() {
            status.stored = stored;
        }
    }

    /// Runs `work` on the connections, unless what is in memory may not be what is stored.
    pub(crate) fn with_open<T>(&self, work: impl FnOnce(&Open) -> Result<T>) -> Result<T> {
        self.with_file(|open| open.require_known().and_then(|()| work(open)))
    }

    /// Runs `work`, which goes by the file alone, on the connections.
    fn with_file<T>(&self, work: impl FnOnce(&Open) -> Result<T>) -> Result<T> {
        let open: RwLockReadGuard<'_, _> = self.open.read().unwrap_or_else(PoisonError::into_inner);
        let open = open.as_ref().ok_or_else(closed)?;
        open.file.undisturbed(work(open))
    }

    pub(crate) fn commit(&self, commit: &Commit) -> Result<()> {
        if self.options.read_only {
            return Err(Error::new(ErrorKind::ReadOnly, "the store was opened to be read only"));
        }
        self.with_open(|open| open.file.commit(commit.frees(), || self.commit_to(open, commit)))
    }

    fn commit_to(&self, open: &Open, commit: &Commit) -> Result<()> {
        let mut slots = open.slots.write().unwrap_or_else(PoisonError::into_inner);
        // Whoever had the slots before may have lost its way.
        open.require_known()?;
        // Read and replaced with the slots, so that two commits cannot both build on it.
        let stored = self.status()?.stored;
        // Before chunks are read for a commit that is refused anyway.
        stored.head.after(commit)?;
        let series = open.plan_series(&stored, commit, self.options.limits)?;
        let plan = plan::plan(&stored, &slots, &open.envelope, commit, series)?;
        open.write_series(&plan.batch, plan.pending)?;
        slots.apply(plan.moves);
        self.set_stored(plan.stored);
        Ok(())
    }

    pub(crate) fn scan(&self, scan: &Scan) -> Result<Vec<Row>> {
        if scan.range.to.as_ref().is_some_and(|to| *to <= scan.range.from) {
            return Ok(Vec::new());
        }
        match scan.range.table.is_state() {
            true => self.with_open(|open| open.scan_state(scan)),
            false => self.with_file(|open| open.scan_series(scan)),
        }
    }

    pub(crate) fn blocks(&self, after: Serial, limit: usize) -> Result<Vec<EncodedBlock>> {
        let head = self.head()?;
        if after >= head.serial || limit == 0 {
            return Ok(Vec::new());
        }
        head::require_kept(after, &head)?;
        self.with_file(|open| {
            let mut snapshot = open.engine.snapshot()?;
            // Read again: a commit may have purged since.
            let head = open.envelope.open_head(&snapshot.head()?)?.head;
            head::require_kept(after, &head)?;
            let mut blocks: Vec<EncodedBlock> = Vec::new();
            let mut next = after.next();
            snapshot.blocks(next.get(), head.serial.get(), limit, &mut |serial, frame, body| {
                if serial != next.get() {
                    return Err(missing_block(next));
                }
                let block = open.envelope.open_block(serial, frame, body)?;
                if blocks.last().is_some_and(|last| last.hash != block.previous) {
                    return Err(broken_chain(next));
                }
                next = next.next();
                blocks.push(block);
                Ok(())
            })?;
            let wanted = (limit as u64).min(head.serial.get() - after.get());
            if (blocks.len() as u64) < wanted {
                return Err(missing_block(next));
            }
            Ok(blocks)
        })
    }

    pub(crate) fn migrate(&self, target: Schema) -> Result<()> {
        let stored = self.status()?.stored;
        let steps = target.steps_from(stored.head.schema)?;
        if steps.is_empty() {
            return Ok(());
        }
        if self.options.read_only {
            return Err(Error::new(
                ErrorKind::ReadOnly,
                "the store's schema is older than this version's, and it was opened to be read \
                 only; open it once to be written",
            ));
        }
        self.with_open(|open| {
            let backup = open.file.begin_backup(stored.head.schema.version)?;
            open.engine.copy_to(backup.part())?;
            let backup = backup.finish()?;
            // Rows say themselves which schema wrote them, and are fitted when they are read.
            let mut after = stored;
            after.head.schema = target.version();
            let batch =
                Batch::new(open.envelope.seal_head(&stored), open.envelope.seal_head(&after));
            open.write(&batch)?;
            self.set_stored(after);
            tracing::info!(
                db.system.name = "zqlite",
                from = stored.head.schema.version,
                to = after.head.schema.version,
                backup = %backup.display(),
                "migrated"
            );
            Ok(())
        })
    }

    pub(crate) fn reopen(&self) -> Result<Head> {
        let file = self.status()?.file;
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        // The old connections go last. While there is one, SQLite knows where the commits end that
        // were synchronised. Without any it would read the log and find those, too, that were
        // written and not synchronised: they could be acknowledged and then lost.
        //
        // After a checkpoint that failed every commit is synchronised, but which pages were moved is
        // not known. Then they go first, so that the log is read anew and moved as a whole.
        file.require_in_place()?;
        let is_trusted = file.log().is_trusted();
        if !is_trusted {
            *open = None;
            file.log().all_closed();
        }
        let (opened, stored) = Open::begin(&self.options, Arc::clone(&file), false)?;
        file.require_in_place()?;
        let settled = match is_trusted {
            true => Ok(()),
            false => file.watch_log().and_then(|()| opened.engine.settle()),
        };
        // Also if nothing can be written yet: what is there can be read.
        *open = Some(opened);
        self.set_stored(stored);
        settled.map(|()| stored.head)
    }

    pub(crate) fn close(&self) -> Result<()> {
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        let status = locked(&self.status).take();
        let outcome = match open.take() {
            Some(open) => {
                // Before the log is deleted.
                let in_place = open.file.require_in_place();
                let closed = open.engine.close();
                in_place.and(closed)
            }
            None => Ok(()),
        };
        // Last, and for others who still look at the file, too.
        if let Some(status) = status {
            status.file.release();
        }
        outcome
    }

    pub(crate) fn announce_close(&self) {
        if let Some(status) = locked(&self.status).as_ref() {
            status.file.announce_release();
        }
    }

    pub(crate) fn info(&self) -> BackendInfo {
        let file = locked(&self.status).as_ref().map(|status| Arc::clone(&status.file));
        BackendInfo {
            name: "zqlite",
            engine: self.engine_name.clone(),
            location: Some(self.options.path.display().to_string()),
            durable: true,
            shared: false,
            sealed: false,
            bytes: file.as_ref().map(|file| file.total_bytes()),
            log: file.as_ref().map(|file| file.log().info()),
            counters: *locked(&self.counters),
        }
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::Unavailable, "the store is closed")
}

/// Whoever panicked with the lock held changed nothing halfway: what is behind it is replaced as a
/// whole.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
