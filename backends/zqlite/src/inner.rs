//! The backend's work, on threads that may block.

use std::borrow::Cow;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Instant;

use ghostwire_store_core::backend::{
    Attestation, AttestedState, BackendCounters, BackendInfo, Budget, Commit, ConnectionObserver,
    Head, Resealed, Scan, ScanPage,
};
use ghostwire_store_core::block::{EncodedBlock, Serial};
use ghostwire_store_core::error::{Error, ErrorKind, Result};
use ghostwire_store_core::position::Epoch;
use ghostwire_store_core::schema::Schema;
use ghostwire_store_crypto::keyring::Keyring;
use ghostwire_store_crypto::pin::PinKey;
use ghostwire_store_crypto::signature::SignerId;
use ghostwire_store_sqlite::{FileKind, StoreFile};

use crate::engine::embedded::{self, First};
use crate::envelope::{Envelope, Kind, version_of};
use crate::head::{Pinned, Prefix, Stored};
use crate::open::Open;
use crate::options::{EngineChoice, ZqliteOptions};
use crate::pinning::{Admitted, Pinning, admit};
use crate::resealing::too_many_versions;
use crate::signing;
use crate::slots::Unread;
use crate::verify::{Opened, verify};

/// So many frames are read at one moment.
const FRAMES: usize = 4096;

#[derive(Debug)]
pub(crate) struct Inner {
    options: ZqliteOptions,
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

impl Inner {
    pub(crate) fn open(options: ZqliteOptions) -> Result<Self> {
        if options.engine == EngineChoice::Native {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "this release has no native engine for zqlite; set the engine to `embedded`",
            ));
        }
        let began = Instant::now();
        let envelope = Envelope::new(options.keyring.as_ref())?;
        let file = options.file.open(FileKind::ZQLITE)?;
        let empty = || {
            let mut stored = Stored::empty(options.file.store, options.file.schema);
            let (mut sealer, mut signature) = (envelope.sealer(None)?, Vec::new());
            let is_signed = signing::sign_into(&mut sealer, &mut stored, &mut signature)?;
            let head = sealer.seal_head(&stored)?;
            Ok(First { head, signature: is_signed.then_some(signature) })
        };
        embedded::create(&file, empty)?;
        let (mut open, mut stored) = file.undisturbed(Open::begin(&file, &envelope))?;
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

    fn set_stored(&self, stored: Stored) {
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
        self.with_open(|open| self.commit_to(open, commit))
    }

    fn require_writable(&self) -> Result<()> {
        match self.options.file.read_only {
            false => Ok(()),
            true => Err(Error::new(ErrorKind::ReadOnly, "the store was opened to be read only")),
        }
    }

    fn commit_to(&self, open: &Open, commit: &Commit) -> Result<()> {
        let mut slots = open.slots.write().unwrap_or_else(PoisonError::into_inner);
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

    /// Seals the next records under the newest version of the data key. Tells whether more are left. The pin
    /// follows with the next commit: a store may be ahead of it.
    pub(crate) fn maintain(&self, budget: &Budget) -> Result<bool> {
        // A store that was put back takes one commit, which says so.
        let is_held = self.pinning.as_ref().is_some_and(Pinning::awaits_commit);
        if self.options.file.read_only || is_held {
            return Ok(false);
        }
        self.with_open(|open| {
            let mut slots = open.slots.write().unwrap_or_else(PoisonError::into_inner);
            // Whoever had the slots before may have lost its way.
            open.require_known()?;
            let stored = self.status()?.stored;
            let Some(slice) = open.plan_slice(&stored, &slots, budget)? else { return Ok(false) };
            if slice.writes {
                open.write_series(&slice.batch, slice.version)?;
                slots.apply(slice.moves);
                let mut tags = open.tags.write().unwrap_or_else(PoisonError::into_inner);
                slice.tags.apply(&mut tags);
                self.landed(&slice.batch.head, &slice.stored);
            }
            self.set_stored(slice.stored);
            let goes_on =
                resealed(&open.envelope, &slice.stored).is_some_and(|it| it.is_under_way());
            if !goes_on {
                // What stands beside the head is the last that is under the version before.
                self.sign_last(open)?;
            }
            Ok(goes_on)
        })
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

    pub(crate) fn verify(&self) -> Result<()> {
        let _alone = locked(&self.verifying);
        verify(self).map(drop)
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
            let _slots = open.slots.write().unwrap_or_else(PoisonError::into_inner);
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
            let _slots = open.slots.write().unwrap_or_else(PoisonError::into_inner);
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
            let _slots = open.slots.write().unwrap_or_else(PoisonError::into_inner);
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

    /// Takes up a newer generation of the keyring. If it seals under another version, so does the head when
    /// this returns; after a leak the sums are under the new key, then, and the pin is, too. Nothing of that
    /// is lost if it is broken off: opening completes it.
    pub(crate) fn take_up(&self, keyring: &Keyring) -> Result<()> {
        self.require_writable()?;
        let next = Envelope::new(Some(keyring))?;
        let mut alone = self.alone();
        let open = alone.as_mut().ok_or_else(closed)?;
        self.pinning.as_ref().map_or(Ok(()), Pinning::require_unfenced)?;
        open.require_known()?;
        let stored = self.status()?.stored;
        if self.pinning.is_some() && stored.pinned.is_none() {
            return Err(Error::new(
                ErrorKind::Unavailable,
                "the store has a pin, and is of a schema that cannot say so: open it once to be written, \
                 which migrates it, before its keys are changed",
            ));
        }
        let next = next.of_database(stored.head.side);
        next.require_successor_of(&open.envelope)?;
        // Also for a head whose fate stays unknown.
        let mut marks_before = None;
        if let Some(pinning) = &self.pinning {
            let signer = next.signer().map_or(SignerId::NONE, |signer| signer.public().id());
            marks_before = Some(pinning.rekey(PinKey::of_keyring(keyring), signer));
        }
        let before = open.envelope.clone();
        let head = open.stored_head();
        open.successor = next.before_rotation(&head)?.map(|_| next.clone());
        let after = if open.successor.is_some() {
            open.succeed(stored)
        } else {
            open.envelope = next.clone();
            match version_of(Prefix::split(&head)?.1) == next.version() {
                true => Ok(stored),
                // What stands beside the head is sealed under that version, too.
                false => open.write_signed(stored),
            }
        };
        if after.is_err() && open.require_known().is_ok() {
            (open.envelope, open.successor) = (before, None);
            if let (Some(pinning), Some((key, signer))) = (&self.pinning, marks_before) {
                pinning.rekey(key, signer);
            }
            return after.map(drop);
        }
        *locked(&self.envelope) = next;
        let after = after?;
        self.landed(&open.stored_head(), &after);
        self.set_stored(after);
        self.confirm()
    }

    /// Refuses a further version of the data key while too many have records.
    pub(crate) fn require_room_for_version(&self) -> Result<()> {
        self.require_writable()?;
        let Some(active) = self.envelope().version() else {
            return Err(Error::new(ErrorKind::Unsupported, "the store is not sealed"));
        };
        match self.status()?.stored.resealing.counts.has_room(active) {
            true => Ok(()),
            false => Err(too_many_versions()),
        }
    }

    /// Refuses if a record is sealed under this version of the data key, or may be: by what is counted, and
    /// then by every record's frame.
    pub(crate) fn require_unused(&self, version: u32) -> Result<()> {
        let named = |records: u64| {
            Error::new(
                ErrorKind::Restricted,
                "records are sealed under this version of the data key; destroyed, they could be read by \
                 nobody. Let them be sealed anew first",
            )
            .with("version", version)
            .with("records", records)
        };
        self.with_open(|open| {
            let _slots = open.slots.write().unwrap_or_else(PoisonError::into_inner);
            self.sign_last(open)
        })?;
        match self.status()?.stored.resealing.counts.under(version) {
            0 => {}
            records => return Err(named(records)),
        }
        let (mut records, mut first) = (0_u64, None);
        for kind in Kind::ALL {
            let mut after = Some(0);
            while let Some(last) = after.take() {
                self.with_open(|open| {
                    // A page at a time: no snapshot keeps the log from being begun anew for long.
                    let mut snapshot = open.engine.fresh_snapshot()?;
                    let mut seen = 0;
                    snapshot.frames(kind, last, FRAMES, &mut |number, frame| {
                        seen += 1;
                        after = (seen == FRAMES).then_some(number);
                        if version_of(frame) == Some(version) {
                            records += 1;
                            first.get_or_insert((kind, number));
                        }
                        Ok(())
                    })
                })?;
            }
        }
        match first {
            None => Ok(()),
            Some((kind, number)) => {
                Err(named(records).with("record", kind.name()).with("number", number))
            }
        }
    }

    pub(crate) fn reopen(&self) -> Result<Head> {
        let file = self.status()?.file;
        let mut open = self.alone();
        let mut found = Err(closed());
        let begin = || {
            let (mut opened, mut stored) = Open::begin(&file, &self.envelope())?;
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

    /// Signs where the store stands, unless that is signed already, under the newest data key. To be called
    /// while nobody else writes.
    fn sign_last(&self, open: &Open) -> Result<()> {
        if self.options.file.read_only || open.require_known().is_err() {
            return Ok(());
        }
        if self.pinning.as_ref().is_some_and(|pinning| !pinning.serves()) {
            return Ok(());
        }
        let stored = self.status()?.stored;
        if open.file.undisturbed(open.is_signed(&stored))? {
            return Ok(());
        }
        let signed = open.file.undisturbed(open.write_signed(stored))?;
        self.landed(&open.stored_head(), &signed);
        self.set_stored(signed);
        Ok(())
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
        BackendInfo {
            name: "zqlite",
            engine: self.engine_name.clone(),
            location: Some(self.options.file.path.display().to_string()),
            durable: true,
            shared: false,
            sealed: envelope.is_sealed(),
            pinned: status.as_ref().is_some_and(|status| status.stored.pinned.is_some()),
            signer: envelope.signer().map(|signer| signer.public().id().to_string()),
            resealed: status.as_ref().and_then(|it| resealed(&envelope, &it.stored)),
            bytes: file.map(|file| file.total_bytes()),
            filesystem: file.and_then(|file| file.filesystem()),
            pool: file.map(|file| file.connections().info()),
            log: file.map(|file| file.log().info()),
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
