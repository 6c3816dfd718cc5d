//! The backend's work, on threads that may block.

mod keys;

use std::borrow::Cow;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Instant;

use ghostwire_store_core::backend::{
    Attestation, AttestedState, BackendCounters, BackendInfo, Commit, ConnectionObserver, Head,
    Resealed, Scan, ScanPage,
};
use ghostwire_store_core::block::{EncodedBlock, Serial};
use ghostwire_store_core::error::{Error, ErrorKind, Result};
use ghostwire_store_core::position::Epoch;
use ghostwire_store_core::schema::Schema;
use ghostwire_store_sqlite::{StoreFile, Wanted};

use crate::before_leak::Contents;
use crate::engine::connect::Connect;
use crate::engine::embedded::First;
use crate::envelope::Envelope;
use crate::head::{Pinned, Stored};
use crate::open::Open;
use crate::options::{EngineChoice, ZqliteOptions};
use crate::pinning::{Admitted, Pinning, admit};
use crate::signing;
use crate::slots::Unread;
use crate::verify::{Opened, verify};

#[derive(Debug)]
pub(crate) struct Inner {
    options: ZqliteOptions,
    connect: Connect,
    /// For heads. Replaced by a newer generation of the keyring while nobody uses the connections.
    envelope: Mutex<Envelope>,
    engine_name: String,
    /// What can be told without waiting for the file. `None` once closed.
    status: Mutex<Option<Status>>,
    /// Taken for writing by whoever changes or closes the connections. `None` once closed.
    pub(crate) open: RwLock<Option<Open>>,
    /// `None` without a pin, or if the store is only read.
    pinning: Option<Pinning>,
    /// Held by who checks everything: one at a time.
    verifying: Mutex<()>,
    pub(crate) counters: Mutex<BackendCounters>,
}

#[derive(Debug, Clone)]
pub(crate) struct Status {
    pub(crate) stored: Stored,
    file: Arc<StoreFile>,
}

impl Opened for Inner {
    /// Unless what is in memory may not be what is stored.
    fn with_open<T>(&self, work: impl FnOnce(&Open) -> Result<T>) -> Result<T> {
        self.with_file(|open| open.require_known().and_then(|()| work(open)))
    }
}

/// A store that is read as long as somebody waits for it.
struct WhileWanted<'i> {
    inner: &'i Inner,
    wanted: &'i Wanted,
}

impl Opened for WhileWanted<'_> {
    fn with_open<T>(&self, work: impl FnOnce(&Open) -> Result<T>) -> Result<T> {
        self.wanted.require()?;
        self.inner.with_open(work)
    }

    fn wanted(&self) -> Wanted {
        self.wanted.clone()
    }
}

impl Inner {
    pub(crate) fn open(options: ZqliteOptions) -> Result<Self> {
        let connect = Connect::of(&options)?;
        let began = Instant::now();
        let envelope = Envelope::new(options.keyring.as_ref())?;
        let file = options.file.open(connect.kind())?;
        let empty = || {
            let mut stored = Stored::empty(options.file.store, options.file.schema);
            let (mut sealer, mut signature) = (envelope.sealer(None)?, Vec::new());
            let is_signed = signing::sign_into(&mut sealer, &mut stored, &mut signature)?;
            let head = sealer.seal_head(&stored)?;
            Ok(First { head, signature: is_signed.then_some(signature) })
        };
        connect.create(&file, empty)?;
        let (mut open, mut stored) = file.undisturbed(Open::begin(&file, &connect, &envelope))?;
        let access = (file.path(), options.file.read_only);
        let pin = (&options.pin, options.keyring.as_ref());
        let admitted = file.undisturbed(admit(pin, access, &open, &stored))?;
        file.opened(stored.head.side, || open.engine.settle())?;
        if !options.file.read_only {
            stored = file.undisturbed(open.succeed(stored))?;
            let gives_up_a_mark = admitted.as_ref().is_some_and(Admitted::gives_up_a_mark);
            if envelope.is_sealed() && stored.signature.is_none() && !gives_up_a_mark {
                stored = file.undisturbed(open.write_signed(stored))?;
            }
        }
        let pinning = admitted.map(|admitted| admitted.begin(&open, &mut stored));
        let pinning = pinning.transpose()?;
        tracing::debug!(
            db.system.name = "zqlite",
            db.namespace = %file.path().display(),
            serial = stored.head.serial.get(),
            rows = stored.rows,
            sealed = envelope.is_sealed(),
            elapsed_ms = began.elapsed().as_millis(),
            "opened"
        );
        Ok(Self {
            engine_name: open.engine.describe(),
            envelope: Mutex::new(envelope),
            options,
            connect,
            status: Mutex::new(Some(Status { stored, file })),
            open: RwLock::new(Some(open)),
            pinning,
            verifying: Mutex::default(),
            counters: Mutex::default(),
        })
    }

    pub(crate) fn envelope(&self) -> Envelope {
        locked(&self.envelope).clone()
    }

    pub(crate) fn status(&self) -> Result<Status> {
        locked(&self.status).clone().ok_or_else(closed)
    }

    pub(crate) fn head(&self) -> Result<Head> {
        self.status().map(|status| status.stored.head)
    }

    pub(crate) fn set_stored(&self, stored: Stored) {
        if let Some(status) = locked(&self.status).as_mut() {
            status.stored = stored;
        }
    }

    /// Once nobody reads or commits.
    fn alone(&self) -> RwLockWriteGuard<'_, Option<Open>> {
        if let Some(status) = locked(&self.status).as_ref() {
            status.file.end_long_reads();
        }
        self.open.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `work`, which goes by the file alone, on the connections.
    fn with_file<T>(&self, work: impl FnOnce(&Open) -> Result<T>) -> Result<T> {
        let open: RwLockReadGuard<'_, _> = self.open.read().unwrap_or_else(PoisonError::into_inner);
        let open = open.as_ref().ok_or_else(closed)?;
        self.pinning.as_ref().map_or(Ok(()), Pinning::require_unfenced)?;
        open.file.undisturbed(work(open))
    }

    pub(crate) fn commit(&self, commit: &Commit) -> Result<()> {
        self.require_writable()?;
        self.with_open(|open| self.commit_to(open, commit))?;
        self.forget_before_leak();
        Ok(())
    }

    /// Lets go of what is known of records from before a leak once the last of them was sealed anew. Only while
    /// nobody reads: who began before that still meets some.
    fn forget_before_leak(&self) {
        let emptied = |open: &Open| {
            let is_over = self.status().is_ok_and(|it| it.stored.before_leak.is_over());
            let needless = open.envelope.contents().filter(|it| is_over && !it.is_empty());
            needless.map(Contents::emptied)
        };
        if !self.with_file(|open| Ok(emptied(open).is_some())).unwrap_or_default() {
            return;
        }
        let Ok(mut alone) = self.open.try_write() else { return };
        // Looked at anew: it may have been reopened meanwhile.
        if let Some(open) = alone.as_mut()
            && let Some(contents) = emptied(open)
        {
            open.envelope = open.envelope.knowing(contents);
        }
    }

    fn require_writable(&self) -> Result<()> {
        match self.options.file.read_only {
            false => Ok(()),
            true => Err(Error::new(ErrorKind::ReadOnly, "the store was opened to be read only")),
        }
    }

    fn commit_to(&self, open: &Open, commit: &Commit) -> Result<()> {
        let mut slots = open.slots.write();
        // Whoever had the slots before may have lost its way.
        open.require_known()?;
        // Read and replaced with the slots, so that two commits cannot both build on it.
        let stored = self.status()?.stored;
        // Before data blocks are read for a commit that is refused anyway.
        stored.head.after(commit)?;
        let (before, commit) = match &self.pinning {
            Some(pinning) => (pinning.over(&stored, commit)?, pinning.keeping(commit)),
            None => (stored, Cow::Borrowed(commit)),
        };
        let plan = open.plan(&before, &slots, &commit, self.options.limits)?;
        open.write_series(&plan.batch, plan.version)?;
        slots.apply(plan.moves);
        *locked(&open.unread) = Unread::default();
        let mut tags = open.tags.write().unwrap_or_else(PoisonError::into_inner);
        plan.tags.apply(&mut tags, &plan.stored);
        self.landed(&plan.batch.head, &plan.stored);
        self.set_stored(plan.stored);
        Ok(())
    }

    fn landed(&self, head: &[u8], stored: &Stored) {
        if let Some(pinning) = &self.pinning {
            pinning.landed(head, stored);
        }
    }

    pub(crate) fn confirm(&self) -> Result<()> {
        self.pinning.as_ref().map_or(Ok(()), Pinning::confirm)
    }

    pub(crate) fn scan(&self, scan: &Scan) -> Result<ScanPage> {
        if scan.range.to.as_ref().is_some_and(|to| *to <= scan.range.from) {
            return self.with_file(Open::empty_page);
        }
        match scan.range.table.is_state() {
            true => self.with_open(|open| open.scan_state(scan)),
            false => self.with_file(|open| open.scan_series(scan)),
        }
    }

    pub(crate) fn blocks(&self, after: Serial, limit: usize) -> Result<Vec<EncodedBlock>> {
        if after >= self.head()?.serial || limit == 0 {
            return Ok(Vec::new());
        }
        self.with_file(|open| open.blocks(after, limit, false))
    }

    /// Ends with the next page once nobody wants it any more.
    pub(crate) fn verify(&self, wanted: &Wanted) -> Result<()> {
        let _alone = locked(&self.verifying);
        verify(&WhileWanted { inner: self, wanted }).map(drop)
    }

    pub(crate) fn attest(&self, state: &AttestedState) -> Result<Attestation> {
        let side = self.status()?.stored.head.side;
        self.with_file(|open| {
            let mut snapshot = open.engine.snapshot()?;
            signing::attest(&mut *snapshot, &open.envelope, side, state)
        })
    }

    pub(crate) fn migrate(&self, target: Schema) -> Result<()> {
        let steps = target.steps_from(self.head()?.schema)?;
        if steps.is_empty() {
            return Ok(());
        }
        if self.options.file.read_only {
            return Err(Error::new(
                ErrorKind::ReadOnly,
                "the store's schema is older than this version's, and it was opened to be read \
                 only; open it once to be written",
            ));
        }
        self.with_open(|open| {
            let _slots = open.slots.write();
            open.require_known()?;
            let stored = self.status()?.stored;
            let copy = |path: &Path| open.engine.copy_to(path);
            let backup = open.file.back_up(stored.head.schema.version, copy)?;
            // Rows say themselves which schema wrote them, and are fitted when they are read.
            let mut after = stored.moved_to(stored.head);
            after.head.schema = target.version();
            if self.pinning.is_some() && after.pinned.is_none() {
                after.pinned = Some(Pinned { overridden: None });
            }
            self.replace_head(open, after)?;
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

    pub(crate) fn probe(&self, epoch: Epoch) -> Result<()> {
        self.require_writable()?;
        self.with_open(|open| {
            let _slots = open.slots.write();
            open.require_known()?;
            let stored = self.status()?.stored;
            stored.head.require_epoch(epoch)?;
            open.probe()
        })?;
        self.pinning.as_ref().map_or(Ok(()), Pinning::probe)
    }

    pub(crate) fn adopt(&self, head: &Head) -> Result<()> {
        self.require_writable()?;
        self.with_open(|open| {
            let _slots = open.slots.write();
            open.require_known()?;
            let adopted = self.status()?.stored.adopt(head)?;
            self.replace_head(open, adopted)?;
            let mut tags = open.tags.write().unwrap_or_else(PoisonError::into_inner);
            tags.blocks.cut(adopted.head.oldest_block.get());
            Ok(())
        })
    }

    /// Moves the head alone.
    fn replace_head(&self, open: &Open, after: Stored) -> Result<()> {
        open.write_head(&after)?;
        self.landed(&open.stored_head(), &after);
        self.set_stored(after);
        Ok(())
    }

    pub(crate) fn reopen(&self) -> Result<Head> {
        let file = self.status()?.file;
        let mut open = self.alone();
        let mut found = Err(closed());
        let begin = || {
            let (mut opened, mut stored) = Open::begin(&file, &self.connect, &self.envelope())?;
            if !self.options.file.read_only {
                stored = opened.succeed(stored)?;
            }
            self.landed(&opened.stored_head(), &stored);
            self.set_stored(stored);
            found = Ok(stored.head);
            Ok(opened)
        };
        file.reopen(&mut open, begin, |open| open.engine.settle())?;
        found
    }

    pub(crate) fn close(&self) -> Result<()> {
        let mut open = self.alone();
        if let Some(Err(error)) = open.as_ref().map(|open| self.sign_last(open)) {
            tracing::warn!(%error, "the last commits are not signed; the next checkpoint signs them");
        }
        if let Some(pinning) = &self.pinning {
            pinning.close();
        }
        let status = locked(&self.status).take();
        let outcome = match open.take() {
            Some(open) => open.engine.close(),
            None => Ok(()),
        };
        // Last, and for others who still look at the file, too.
        if let Some(status) = status {
            status.file.release();
        }
        outcome
    }

    pub(crate) fn observe_connections(&self, observer: Arc<dyn ConnectionObserver>) {
        if let Some(status) = locked(&self.status).as_ref() {
            status.file.connections().observe(observer);
        }
    }

    pub(crate) fn announce_close(&self) {
        if let Some(status) = locked(&self.status).as_ref() {
            status.file.announce_release();
        }
    }

    pub(crate) fn info(&self) -> BackendInfo {
        let envelope = self.envelope();
        let status = locked(&self.status).clone();
        let file = status.as_ref().map(|status| &status.file);
        let path = file.map_or(self.options.file.path.as_path(), |file| file.path());
        // The ZQLite library does not tell of its log.
        let with_log = file.filter(|_| self.options.engine == EngineChoice::Embedded);
        BackendInfo {
            name: "zqlite",
            engine: self.engine_name.clone(),
            location: Some(path.display().to_string()),
            durable: true,
            shared: false,
            sealed: envelope.is_sealed(),
            pinned: status.as_ref().is_some_and(|status| status.stored.pinned.is_some()),
            signer: envelope.signer().map(|signer| signer.public().id().to_string()),
            resealed: status.as_ref().and_then(|it| resealed(&envelope, &it.stored)),
            bytes: file.map(|file| file.total_bytes()),
            file: file.map(|file| file.info()),
            filesystem: file.and_then(|file| file.filesystem()),
            clock_ahead_ms: None,
            pool: file.map(|file| file.connections().info()),
            log: with_log.map(|file| file.log().info()),
            counters: *locked(&self.counters),
        }
    }
}

/// How far the store is sealed under the newest version; `None` of a plain one.
fn resealed(envelope: &Envelope, stored: &Stored) -> Option<Resealed> {
    let (version, counts) = (envelope.version()?, stored.resealing.counts);
    Some(Resealed { version, records: counts.under(version), of: counts.total() })
}

fn closed() -> Error {
    Error::new(ErrorKind::Unavailable, "the store is closed")
}

/// Whoever panicked with the lock held changed nothing halfway: what is behind it is replaced as a
/// whole.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
