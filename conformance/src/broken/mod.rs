//! Backends that are broken on purpose, to prove the suite itself: each has one [`Fault`], and a
//! suite that finds nothing wrong with one of them is too weak.
//!
//! Whoever adds a promise that a case proves adds a fault that breaks it, so that a case which
//! cannot fail is noticed.

mod backend;
mod bodies;
mod watched;

use crate::prelude::*;
use std::collections::HashSet;
use std::sync::atomic::{AtomicU8, AtomicU64};
use std::sync::{MutexGuard, PoisonError, Weak};

use ghostwire_store_memory::MemoryBackend;

pub use backend::BrokenBackend;
use watched::WatchedMemory;

macro_rules! faults {
    ($($rule:literal => { $($name:ident = $text:literal,)* })*) => {
        /// What is wrong with a backend.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Fault {
            /// None: it does everything right.
            Nothing,
            $($(#[doc = concat!("It ", $text, ".")] $name,)*)*
        }

        impl Fault {
            /// All of them, without `Nothing`.
            pub const ALL: &[Self] = &[$($(Self::$name),*),*];

            /// What it does, to be put behind 'it'.
            #[must_use]
            pub fn text(self) -> &'static str {
                match self {
                    Self::Nothing => "does everything right",
                    $($(Self::$name => $text,)*)*
                }
            }

            /// The rule of the contract that it breaks, whose cases have to find it.
            #[must_use]
            pub fn rule(self) -> Option<&'static str> {
                match self {
                    Self::Nothing => None,
                    $($(Self::$name)|* => Some($rule),)*
                }
            }
        }
    };
}

faults! {
    "backend-head" => {
        RemembersTheHeadOfTheLastClose = "tells after a crash where it stood when it was last closed",
        TakesTheIdentityOfTheOpener = "tells the identity that a new store would have been given",
        CutsBlockTimes = "tells the last block's time in milliseconds",
        ForgetsTheCheckpoint = "tells that nothing was ever flushed",
        ReopensFromMemory = "tells after reopening where it stood when it was opened",
    }
    "backend-position" => {
        IgnoresTheExpectedPosition = "stores a commit whatever position it builds on",
        CallsConflictsUnexpected = "answers Unexpected instead of Conflict",
        CountsBlocksOnly = "counts blocks, and no other commit",
        CountsEveryCommit = "counts commits that only flush, too",
        ForgetsCommitsOfSeries = "has not counted commits without a block when it is opened again",
    }
    "backend-epoch" => {
        IgnoresTheEpoch = "stores a commit whatever epoch it is of",
        CallsFencedConflict = "answers Conflict to a commit of another epoch",
        StoresWhatItFences = "stores the rows of a commit that it answers with Fenced",
        ForgetsTheEpoch = "is back in the first epoch when it is opened again",
        LetsTheEpochMoveBack = "answers Ok to an epoch that is not above the last one",
    }
    "backend-serial" => {
        CallsStrangeBlocksConflicts = "answers Conflict to a block that does not follow",
        TellsSeveralWinners = "answers Ok to commits that came second",
    }
    "backend-adopt" => {
        AdoptsOverContent = "answers Ok if it is to become a copy and holds something",
        TakesTheSideOver = "takes itself for the database that it is a copy of",
        ForgetsThatItIsFilling = "does not tell that it is being filled",
        IsFilledForEver = "never is complete",
        LosesWhatItAdopted = "is empty when it is opened again as a copy",
        KeepsItsOwnHistory = "keeps its own lineage when it becomes a copy",
    }
    "backend-record" => {
        ForgetsItsRecord = "says after a restart that it never was part of a migration",
        ForgetsItsPeer = "does not say with which database its migration is",
        ReplacesAnyRecord = "replaces a record by one whose writer has not seen it",
    }
    "identity" => {
        DrawsASideAtEachOpening = "takes itself for another database each time it is opened",
        ForgetsItsHistory = "is of its first lineage when it is opened again",
        IsAnotherOnceMigrated = "is of another network once it was migrated",
    }
    "backend-atomic" => {
        LosesTheLastCommit = "loses the last commit when it is opened again",
        StoresWhatItRefuses = "stores the rows of a commit that it answers with Conflict",
        DropsACommit = "answers Ok to its third commit, and drops it",
        FailsAfterStoring = "answers Unavailable to its third commit, and stores it",
        StoresRowsWithoutTheBlock = "stores a commit's rows and not its block",
        StoresTheBlockWithoutRows = "stores a commit's block and not its rows",
    }
    "backend-rows" => {
        LosesAnEarlierCommit = "loses the rows of the last commit but one when it is opened again",
        BringsBackDeletedRows = "has all deleted rows again when it is opened again",
        LosesSeries = "loses metrics and audit entries when it is opened again",
        KeepsTheOlderImage = "keeps the first of several images of a row",
        FlushesTwice = "writes the rows of the commit before once more with every commit",
        IgnoresDeletes = "deletes nothing",
        RefusesToDeleteNothing = "answers NotFound if there is nothing to delete",
        MergesNeighbours = "takes keys that differ in their last byte only for the same",
        CutsLongKeys = "cuts keys behind 255 bytes",
        FillsNulls = "stores empty text and zero where there is nothing",
        EmptiesText = "stores nothing where there is empty text",
        CutsTimes = "stores times in milliseconds",
        StoresIntegersAsFloats = "stores whole numbers as floats",
        StoresFloatsAsSingles = "stores fractions with single precision",
        TrimsText = "cuts blanks at the end of text",
        LowersText = "stores text in lower case",
        ReplacesWideCharacters = "stores question marks for what is beyond 16 bits",
        FlipsABit = "reads long bodies with a flipped bit",
        CutsLongBodies = "cuts bodies behind a megabyte",
    }
    "backend-scan" => {
        SortsLikeADictionary = "sorts rows without regard to upper and lower case",
        IgnoresTheEnd = "scans beyond the end of a range",
        IncludesTheEnd = "scans up to the end of a range, including it",
        ExcludesTheBeginning = "leaves out the first key of a range",
        TakesInvertedRangesForOpenOnes = "ignores an end that lies before the beginning",
        IgnoresReverse = "scans forwards only",
        GivesARowTooMany = "gives one row more than the limit",
        GivesARowTooFew = "gives one row less than the limit",
        ScansACommitBehind = "scans what was there before the last commit",
        TellsAnotherMoment = "tells where it stood some time after rows were read",
    }
    "backend-blocks" => {
        ReadsABlockBehind = "gives the last block only once there is another one",
        SwapsTwoBlocks = "gives two blocks in the wrong order",
        LosesABlock = "leaves out the second of several blocks",
        GivesABlockTooMany = "gives one block more than the limit",
        GivesTheBlockBefore = "gives the block with the serial asked for, not only those after it",
        AltersBlocks = "gives blocks with a flipped bit",
        CutsLongBlocks = "cuts blocks behind a megabyte",
    }
    "backend-probe" => {
        ProbesInWordsOnly = "answers Ok to a probe, whatever the epoch",
    }
    "backend-maintain" => {
        LosesARowInItsUpkeep = "deletes a row in its upkeep",
        CountsItsUpkeep = "stands at another position after its upkeep",
        KeepsUpForEver = "never has done with its upkeep",
    }
    "backend-purge" => {
        BringsBackPurgedBlocks = "has all purged blocks again when it is opened again",
        ForgetsAPurge = "keeps blocks that may be dropped",
        PurgesBeyondTheCheckpoint = "drops blocks that are not flushed yet",
        NeverCompacted = "gives later blocks instead of answering Compacted",
        NamesAnotherOldest = "answers Compacted with the first serial that is gone",
    }
    "backend-checkpoint" => {
        ForgetsTheCheckpointOfABlock = "stores a checkpoint only if it comes without a block",
        MovesTheCheckpointBack = "lets a checkpoint move back",
        CutsCheckpoints = "takes a checkpoint beyond the last block for the last block",
    }
    "backend-prune" => {
        PrunesNothing = "prunes nothing",
        PrunesOneTooMany = "prunes the row behind a range, too",
        PrunesOneTooFew = "leaves the first row of a range that it prunes",
        PrunesAfterWriting = "prunes rows that came with the same commit",
    }
    "backend-migrate" => {
        MigratesInWordsOnly = "answers Ok to a migration, and does nothing",
        RefusesASecondMigration = "answers Unexpected if there is nothing to migrate",
        LosesRowsInMigrations = "loses DNS records in a migration",
    }
    "backend-concurrent-reads" => {
        StoresInTwoSteps = "stores rows first, and then the rest",
        LocksReadersOut = "answers no scan while it commits",
    }
    "backend-verify" => {
        ComplainsAfterAPurge = "finds fault with a store whose oldest blocks were purged",
    }
    "feed" => {
        LosesTheFeed = "has no feed any more when it is opened again",
        FeedsBlocksOnly = "stores what the feed has of commits with a block only",
        FeedsForNobody = "never removes what the feed has",
    }
    "consumer-away" => {
        ForgetsConsumers = "has no consumers any more when it is opened again",
        PurgesWhatIsNeeded = "drops every block that is flushed",
        ForgetsWhoIsTooFarBehind = "keeps the first image of a consumer when it is opened again",
    }
    "series-outcome" => {
        TellsBlocksOnly = "tells the last block's id whatever was committed since",
    }
    "fuzzy-load" => {
        SaysThatPagesAreOld = "tells of every page that it is of when it was opened",
    }
    "purged-follower" => {
        PurgesInSilence = "gives nothing instead of answering Compacted",
    }
    "deadline" => {
        KeepsHalfOfWhatIsGivenUp = "stores half of a commit that is given up",
    }
    "credential-key" => {
        ForgetsTheCredentialKey = "does not know the credential key when it is opened again",
    }
    "backend-close" => {
        IgnoresClose = "goes on after it was closed",
        CallsClosedUnexpected = "answers Unexpected once it is closed",
        StaysLocked = "cannot be opened again while a closed handle is still there",
    }
}

/// Makes stores in memory that have a fault.
#[derive(Debug)]
pub struct BrokenMemory {
    fault: Fault,
    name: String,
}

impl BrokenMemory {
    /// With this fault.
    #[must_use]
    pub fn new(fault: Fault) -> Self {
        Self { fault, name: format!("{fault:?}") }
    }
}

#[async_trait]
impl Factory for BrokenMemory {
    fn name(&self) -> &str {
        &self.name
    }

    async fn create(&self) -> Result<Box<dyn Place>> {
        Ok(Box::new(BrokenPlace { fault: self.fault, persistent: Arc::default() }))
    }
}

#[derive(Debug)]
struct BrokenPlace {
    fault: Fault,
    persistent: Arc<Persistent>,
}

/// What outlives a handle.
#[derive(Debug, Default)]
struct Persistent {
    openings: AtomicU8,
    /// Commits that count for one fault only.
    miscounted: AtomicU64,
    memory: Mutex<Option<MemoryBackend>>,
    /// What it was made with.
    made: Mutex<Option<Opening>>,
    log: Mutex<Vec<Step>>,
    at_close: Mutex<Option<Head>>,
    handle: Mutex<Weak<BrokenBackend>>,
    disk: WatchedMemory,
}

#[derive(Debug, Clone)]
enum Step {
    Commit(Commit),
    Adopt(Head),
    Migrate(Schema),
}

impl Persistent {
    /// The same store again, but for what is lost or comes back.
    async fn replay(&self, fault: Fault, opening: Opening) -> Result<MemoryBackend> {
        let made = *locked(&self.made).get_or_insert(opening);
        let memory = MemoryBackend::at_schema(made.store, made.schema);
        let mut log = locked(&self.log).clone();
        let count = log.len();
        match fault {
            Fault::LosesTheLastCommit => drop(log.pop()),
            Fault::LosesAnEarlierCommit if count > 1 => {
                if let Some(Step::Commit(commit)) = log.get_mut(count - 2) {
                    commit.rows.clear();
                }
            }
            _ => {}
        }
        let mut consumers = HashSet::new();
        for step in &mut log {
            match step {
                Step::Migrate(target) => memory.migrate(*target).await?,
                Step::Adopt(_) if fault == Fault::LosesWhatItAdopted => {}
                Step::Adopt(head) => memory.adopt(head).await?,
                Step::Commit(commit) => {
                    match fault {
                        Fault::ForgetsCommitsOfSeries => commit.entry = None,
                        Fault::ForgetsTheEpoch => commit.head.epoch = None,
                        Fault::ForgetsItsHistory => commit.head.lineage = None,
                        Fault::ForgetsTheCredentialKey => commit.head.credential_key = None,
                        Fault::LosesTheFeed => commit.rows.retain(|row| row.table != Table::Feed),
                        Fault::ForgetsConsumers => {
                            commit.rows.retain(|row| row.table != Table::Consumers);
                        }
                        Fault::ForgetsWhoIsTooFarBehind => commit.rows.retain(|row| {
                            row.table != Table::Consumers || consumers.insert(row.key.clone())
                        }),
                        Fault::BringsBackDeletedRows => {
                            commit.rows.retain(|row| row.body.is_some());
                            commit.prune.clear();
                        }
                        Fault::BringsBackPurgedBlocks => commit.purge_before = None,
                        Fault::LosesSeries => commit.rows.retain(|row| row.table.is_state()),
                        _ => {}
                    }
                    // What was left out of earlier ones is no reason to refuse it.
                    let Commit { expected, epoch, .. } = Commit::on(&memory.head().await?);
                    memory.commit(&Commit { expected, epoch, ..commit.clone() }).await?;
                }
            }
        }
        *locked(&self.log) = log;
        Ok(memory)
    }
}

#[async_trait]
impl Place for BrokenPlace {
    async fn open(&self, opening: Opening) -> Result<Arc<dyn Backend>> {
        let is_held = locked(&self.persistent.handle).strong_count() > 0;
        if self.fault == Fault::StaysLocked && is_held {
            return Err(Error::new(Busy, "another handle is still there"));
        }
        let known = locked(&self.persistent.memory).clone();
        let memory = match (self.fault, known) {
            (
                Fault::LosesTheLastCommit
                | Fault::LosesAnEarlierCommit
                | Fault::BringsBackDeletedRows
                | Fault::BringsBackPurgedBlocks
                | Fault::LosesSeries
                | Fault::ForgetsCommitsOfSeries
                | Fault::ForgetsTheEpoch
                | Fault::LosesWhatItAdopted
                | Fault::ForgetsItsHistory
                | Fault::ForgetsTheCredentialKey
                | Fault::LosesTheFeed
                | Fault::ForgetsConsumers
                | Fault::ForgetsWhoIsTooFarBehind,
                _,
            ) => self.persistent.replay(self.fault, opening).await?,
            (_, Some(memory)) => memory,
            (_, None) => MemoryBackend::at_schema(opening.store, opening.schema),
        };
        let of_several = self.fault == Fault::PurgesInSilence;
        let memory = if of_several { memory.shared() } else { memory };
        *locked(&self.persistent.memory) = Some(memory.clone());
        let inner = Arc::new(memory);
        let backend =
            BrokenBackend::open(inner, self.fault, self.persistent.clone(), opening).await?;
        let backend = Arc::new(backend);
        *locked(&self.persistent.handle) = Arc::downgrade(&backend);
        Ok(backend)
    }

    async fn after_crash(&self) -> Result<Box<dyn Place>> {
        // The process that held it is gone.
        *locked(&self.persistent.handle) = Weak::new();
        Ok(Box::new(Self { fault: self.fault, persistent: self.persistent.clone() }))
    }

    fn disk(&self) -> Option<&dyn Disk> {
        Some(&self.persistent.disk)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
