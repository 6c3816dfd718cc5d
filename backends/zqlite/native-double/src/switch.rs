//! In which way a copy is broken.

/// What stands in a copy that is not broken.
pub const UNBROKEN: [u8; 48] = *b"ghostwire-zqlite-double:none....................";

/// Which [`Switch`] is set: its name, with dots up to the end.
#[used]
pub static SWITCH: [u8; 48] = UNBROKEN;

macro_rules! switches {
    ($($(#[doc = $doc:literal])+ $switch:ident = $name:literal,)+) => {
        /// What is broken.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Switch {
            $($(#[doc = $doc])+ $switch,)+
        }

        impl Switch {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$switch),+];

            /// What [`SWITCH`] calls it.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$switch => $name,)+ }
            }
        }
    };
}

switches! {
    /// The number of its interface is 2.0.0.
    WrongAbi = "wrong-abi",
    /// It aborts when it is asked for that number.
    AbortsAtOnce = "aborts-at-once",
    /// It gives the codes of the versions before ABI 1.0.0.
    OldCodes = "old-codes",
    /// A step that fails says that it is done.
    SilentStep = "silent-step",
    /// Not broken: a step leaves the code of an earlier call.
    StaleCode = "stale-code",
    /// Not broken: it aborts at the commit of a row that says so, before that.
    AbortsBeforeCommit = "aborts-before-commit",
    /// Not broken: it aborts at the commit of a row that says so, after that.
    AbortsAfterCommit = "aborts-after-commit",
    /// What was written is gone once the database was closed and opened.
    LosesOnReopen = "loses-on-reopen",
    /// What was written is only kept by closing.
    LosesOnKill = "loses-on-kill",
    /// A blob of more than 52 bytes that is read was freed before.
    FreedMemory = "freed-memory",
    /// It aborts over rows of more than 52 bytes.
    Aborts = "aborts",
    /// It hangs once a table has 31,000 rows.
    Hangs = "hangs",
    /// A rollback says that it succeeded, and commits.
    RollbackKeeps = "rollback-keeps",
    /// A rollback fails, and closing the database commits.
    RollbackFails = "rollback-fails",
    /// Every row costs it memory that it never frees.
    Leaks = "leaks",
    /// What is written in a transaction is there before it is committed, unless that is rolled back.
    Uncommitted = "uncommitted",
    /// A commit stores one statement after the other.
    PartialCommit = "partial-commit",
    /// A database whose log has something behind its end cannot be opened.
    LogTail = "log-tail",
    /// Not broken: a rollback journal instead of a log.
    RollbackJournal = "rollback-journal",
    /// With a rollback journal: a database whose journal has zeros behind its end cannot be opened.
    JournalTail = "journal-tail",
    /// A log that was altered counts up to there.
    TakesBack = "takes-back",
    /// There is room for nothing.
    AlwaysFull = "always-full",
    /// Who writes while another does is aborted.
    SecondAborts = "second-aborts",
    /// A write for which there is no room says that it succeeded.
    FullDisk = "full-disk",
    /// Who writes while another does is told that it succeeded.
    SecondOpener = "second-opener",
}

/// The value of a row at whose commit [`Switch::AbortsBeforeCommit`] and the like abort.
pub const ABORT: &[u8] = b"abort at the commit";

impl Switch {
    /// Which one this library has.
    pub(crate) fn current() -> Option<Self> {
        // Read where it lies, as it may have been changed since it was compiled.
        // SAFETY: it is a static.
        let set = unsafe { std::ptr::read_volatile(&raw const SWITCH) };
        let set = std::str::from_utf8(&set).ok()?;
        let name = set.strip_prefix("ghostwire-zqlite-double:")?.trim_end_matches('.');
        Self::ALL.iter().copied().find(|switch| switch.name() == name)
    }

    /// What to write over [`UNBROKEN`].
    #[must_use]
    pub fn text(self) -> [u8; 48] {
        let mut text = [b'.'; 48];
        let bytes = b"ghostwire-zqlite-double:".iter().chain(self.name().as_bytes());
        text.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        text
    }
}
