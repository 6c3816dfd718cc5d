//! What SQLite's result codes mean: <https://sqlite.org/rescode.html>.

use ghostwire_store_core::error::{Error, ErrorKind};

/// What an error calls the code.
const CODE: &str = "sqlite_code";

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// An error of SQLite, as the kind that says what to do. `code` is the extended result code, and
/// `what` failed.
#[must_use]
pub fn sqlite_error(what: &'static str, code: i32, cause: impl Into<Cause>) -> Error {
    let (kind, advice) = meaning(code);
    let message = if advice.is_empty() { what.into() } else { format!("{what}; {advice}") };
    Error::new(kind, message).with(CODE, code).because(cause)
}

/// Whether SQLite could not write to a file. A disk that is full it tells itself, but a quota that is
/// used up looks like this, and so does an index of the log for which there is no room.
pub(crate) fn is_failed_write(error: &Error) -> bool {
    /// SQLITE_IOERR_WRITE, _SHMSIZE
    const FAILED: [&str; 2] = ["778", "4874"];
    error.context().iter().any(|(key, value)| *key == CODE && FAILED.contains(&value.as_str()))
}

/// Whether its statement was interrupted.
pub(crate) fn is_interrupted(error: &Error) -> bool {
    // SQLITE_INTERRUPT
    error.context().iter().any(|(key, value)| *key == CODE && *value == "9")
}

/// Every statement is one of this program's, for tables that were compared with what it makes. So what
/// SQLite cannot make sense of, or finds contradictory, is the file.
fn meaning(code: i32) -> (ErrorKind, &'static str) {
    const DAMAGED: (ErrorKind, &str) =
        (ErrorKind::Corrupt, "the file is damaged, restore it from a backup");
    match code {
        // SQLITE_IOERR_SHORT_READ, _DATA and _CORRUPTFS: reading again gives the same.
        522 | 8202 | 8458 => {
            return (
                ErrorKind::Corrupt,
                "the file or its log is cut short or damaged, restore it from a backup",
            );
        }
        // SQLITE_IOERR_NOMEM
        3082 => return (ErrorKind::Unavailable, "memory ran out"),
        _ => {}
    }
    // The low byte of an extended code is the primary one.
    match code & 0xff {
        // SQLITE_ERROR, _SCHEMA
        1 | 17 => (ErrorKind::Corrupt, "the file's tables are not what this program made"),
        // SQLITE_PERM
        3 => (ErrorKind::PermissionDenied, "let this process's user read and write the file"),
        // SQLITE_BUSY, _LOCKED, _PROTOCOL
        5 | 6 | 15 => (ErrorKind::Busy, "another program holds the file, end its transaction"),
        // SQLITE_NOMEM
        7 => (ErrorKind::Unavailable, "memory ran out"),
        // SQLITE_READONLY
        8 => (ErrorKind::ReadOnly, "the file may only be read"),
        // SQLITE_IOERR, _CANTOPEN
        10 | 14 => (ErrorKind::Unavailable, ""),
        // SQLITE_CORRUPT, _NOTADB
        11 | 26 => DAMAGED,
        // SQLITE_FULL
        13 => (ErrorKind::Exhausted, "make room on the disk"),
        // SQLITE_CONSTRAINT: the head guards every key, so one that is there already is damage.
        19 => (ErrorKind::Corrupt, "what is stored contradicts itself"),
        // SQLITE_NOLFS
        22 => (ErrorKind::Unsupported, "the file system cannot hold a file of this size"),
        // SQLITE_AUTH: statements of a trigger or a view are refused, and there are no others.
        23 => (
            ErrorKind::Corrupt,
            "the file got a trigger or view that this program did not make, remove it",
        ),
        // Faults of this program, and what is no error: SQLITE_INTERNAL, _ABORT, _INTERRUPT, _NOTFOUND,
        // _EMPTY, _TOOBIG, _MISMATCH, _MISUSE, _FORMAT, _RANGE, _NOTICE, _WARNING, _ROW, _DONE.
        _ => (ErrorKind::Unexpected, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_kind() {
        use ErrorKind::*;
        for (codes, expected) in [
            // Primary ones.
            (&[1, 11, 17, 19, 23, 26][..], Corrupt),
            (&[2, 4, 9, 12, 16, 18, 20, 21, 24, 25, 27, 28, 99, 100, 101], Unexpected),
            (&[3], PermissionDenied),
            (&[5, 6, 15], Busy),
            (&[7, 10, 14], Unavailable),
            (&[8], ReadOnly),
            (&[13], Exhausted),
            (&[22], Unsupported),
            // SQLITE_ERROR_MISSING_COLLSEQ, _RETRY, _SNAPSHOT
            (&[257, 513, 769], Corrupt),
            // SQLITE_IOERR: _SHORT_READ, _DATA, _CORRUPTFS
            (&[522, 8202, 8458], Corrupt),
            // _READ, _WRITE, _FSYNC, _DIR_FSYNC, _TRUNCATE, _FSTAT, _UNLOCK, _RDLOCK, _DELETE, _BLOCKED
            (&[266, 778, 1034, 1290, 1546, 1802, 2058, 2314, 2570, 2826], Unavailable),
            // _NOMEM, _ACCESS, _CHECKRESERVEDLOCK, _LOCK, _CLOSE, _DIR_CLOSE, _SHMOPEN, _SHMSIZE, _SHMLOCK
            (&[3082, 3338, 3594, 3850, 4106, 4362, 4618, 4874, 5130], Unavailable),
            // _SHMMAP, _SEEK, _DELETE_NOENT, _MMAP, _GETTEMPPATH, _CONVPATH, _VNODE, _AUTH, _BEGIN_ATOMIC
            (&[5386, 5642, 5898, 6154, 6410, 6666, 6922, 7178, 7434], Unavailable),
            // _COMMIT_ATOMIC, _ROLLBACK_ATOMIC, _IN_PAGE
            (&[7690, 7946, 8714], Unavailable),
            // SQLITE_LOCKED_SHAREDCACHE, _VTAB; SQLITE_BUSY_RECOVERY, _SNAPSHOT, _TIMEOUT
            (&[262, 518, 261, 517, 773], Busy),
            // SQLITE_CANTOPEN: _NOTEMPDIR, _ISDIR, _FULLPATH, _CONVPATH, _DIRTYWAL, _SYMLINK
            (&[270, 526, 782, 1038, 1294, 1550], Unavailable),
            // SQLITE_CORRUPT: _VTAB, _SEQUENCE, _INDEX
            (&[267, 523, 779], Corrupt),
            // SQLITE_READONLY: _RECOVERY, _CANTLOCK, _ROLLBACK, _DBMOVED, _CANTINIT, _DIRECTORY
            (&[264, 520, 776, 1032, 1288, 1544], ReadOnly),
            (&[516], Unexpected),
            // SQLITE_CONSTRAINT: _CHECK, _COMMITHOOK, _FOREIGNKEY, _FUNCTION, _NOTNULL, _PRIMARYKEY
            (&[275, 531, 787, 1043, 1299, 1555], Corrupt),
            // _TRIGGER, _UNIQUE, _VTAB, _ROWID, _PINNED, _DATATYPE
            (&[1811, 2067, 2323, 2579, 2835, 3091], Corrupt),
            // SQLITE_AUTH_USER
            (&[279], Corrupt),
        ] {
            for &code in codes {
                let error = sqlite_error("x", code, "why");
                assert_eq!(*error.kind(), expected, "{code}");
                assert!(error.to_string().contains(&format!("sqlite_code={code}")), "{error}");
            }
        }
    }
}
