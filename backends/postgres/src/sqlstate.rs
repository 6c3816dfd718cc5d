//! What PostgreSQL's error codes mean: <https://www.postgresql.org/docs/15/errcodes-appendix.html>.

use ghostwire_store_core::error::ErrorKind;
use sqlx::postgres::PgSeverity;

/// When the server gave the error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum During {
    /// While the connection was made.
    Connecting,
    /// In a statement that writes, or in its COMMIT.
    Commit,
    /// In one that only reads, or before anything was written.
    Read,
}

/// What to do about an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The transaction is undone, through no fault of its own: the same statement may be sent again.
    Again,
    /// The statement was not executed: the connection's prepared statements are not what the server has.
    Reprepare,
    /// Surely not stored, or read, for this reason.
    Refused(ErrorKind, &'static str),
    /// It may be stored.
    Unknown,
}

/// The meaning of an error. One that ends the session may come after the record of the commit was written,
/// whatever its code says.
pub(crate) fn judge(severity: Option<PgSeverity>, code: &str, during: During) -> Verdict {
    let ends_session = matches!(severity, Some(PgSeverity::Fatal | PgSeverity::Panic));
    match during {
        During::Commit if ends_session => Verdict::Unknown,
        _ => verdict(code, during),
    }
}

/// Whether a code says that a statement does not fit the tables: there is no such table, column, function,
/// key or schema, or it has another type.
pub(crate) fn is_of_layout(code: &str) -> bool {
    ["42P01", "42703", "42804", "42883", "42P10", "3F000", "42809"].contains(&code)
}

/// The meaning of a code, five letters and digits.
fn verdict(code: &str, during: During) -> Verdict {
    use ErrorKind::{
        Busy, Corrupt, Exhausted, InvalidArgument, NotFound, PermissionDenied, Unavailable,
        Unexpected,
    };
    use Verdict::{Again, Refused, Reprepare, Unknown};
    const ALTERED: &str =
        "the store's tables are not what this program made; somebody altered them";
    let class = code.get(..2).unwrap_or_default();
    match (code, class) {
        ("40001" | "40P01", _) => Again,
        ("26000" | "42P05" | "0A000", _) => Reprepare,
        ("55P03", _) => {
            Refused(Busy, "somebody else holds a lock on the store's tables; end that transaction")
        }
        // Whoever cancels a statement that waits for a standby gets no error, but a warning.
        ("57014", _) => Refused(Busy, "somebody cancelled the statement, or its timeout did"),
        ("53300", _) => Refused(
            Busy,
            "the server has no connection left; raise max_connections, or lower the pools of those that use \
             it",
        ),
        ("25006", _) => Refused(
            Unavailable,
            "the server only lets read: it is a standby, or was set so; connect to the primary",
        ),
        ("57P03", _) => Refused(Unavailable, "the server is starting up or shutting down"),
        // The commit may have come before the end of the session.
        ("40003" | "57P01" | "57P02" | "57P05" | "25P03", _) | (_, "08") => match during {
            During::Commit => Unknown,
            During::Connecting | During::Read => {
                Refused(Unavailable, "the server ended the connection")
            }
        },
        ("53100", _) => Refused(Exhausted, "the server's disk is full; make room on it"),
        ("53200", _) => Refused(Exhausted, "the server's memory ran out"),
        (_, "54") => Refused(Exhausted, "a limit of the server is exceeded"),
        (_, "53") => Refused(Exhausted, "the server has run out of something"),
        // The head guards every key, so one that is there already is damage.
        (_, "23") => {
            Refused(Corrupt, "what is stored contradicts itself, or a constraint was added")
        }
        (code, _) if is_of_layout(code) => Refused(Corrupt, ALTERED),
        ("42501", _) => Refused(
            PermissionDenied,
            "the role may not use the store's schema and tables; grant it what docs/postgres.md lists",
        ),
        (_, "28") => {
            Refused(PermissionDenied, "the server does not accept the user or its password")
        }
        ("3D000", _) => Refused(NotFound, "there is no such database on the server; make it first"),
        ("XX001" | "XX002", _) => {
            Refused(Corrupt, "the server found its files damaged; restore from a backup")
        }
        (_, "22") => Refused(InvalidArgument, "a value is none that its column can hold"),
        (_, "58") => Refused(Unavailable, "the server's system fails"),
        _ => Refused(Unexpected, "the server refuses the statement"),
    }
}

#[cfg(test)]
#[allow(clippy::panic)]
mod tests {
    use super::*;

    fn kind(code: &str, during: During) -> ErrorKind {
        match verdict(code, during) {
            Verdict::Refused(kind, advice) => {
                assert!(!advice.is_empty(), "{code}");
                kind
            }
            other => panic!("{code} is {other:?}"),
        }
    }

    #[test]
    fn what_was_undone_may_be_sent_again() {
        for during in [During::Commit, During::Read] {
            for code in ["40001", "40P01"] {
                assert_eq!(verdict(code, during), Verdict::Again, "{code}");
            }
            for code in ["26000", "42P05", "0A000"] {
                assert_eq!(verdict(code, during), Verdict::Reprepare, "{code}");
            }
        }
    }

    #[test]
    fn a_session_that_ends_leaves_a_commit_open_and_nothing_else() {
        for code in ["40003", "08000", "08003", "08006", "57P01", "57P02", "25P03"] {
            assert_eq!(verdict(code, During::Commit), Verdict::Unknown, "{code}");
            assert_eq!(kind(code, During::Read), ErrorKind::Unavailable, "{code}");
        }
    }

    #[test]
    fn an_error_that_ends_the_session_leaves_a_commit_open_whatever_its_code() {
        for code in ["53100", "58030", "53200", "XX000", "40001", "26000", "57P03", "23505"] {
            for severity in [PgSeverity::Fatal, PgSeverity::Panic] {
                let judged = judge(Some(severity), code, During::Commit);
                assert_eq!(judged, Verdict::Unknown, "{code}");
                for during in [During::Read, During::Connecting] {
                    assert_eq!(
                        judge(Some(severity), code, during),
                        verdict(code, during),
                        "{code}"
                    );
                }
            }
            for severity in [Some(PgSeverity::Error), None] {
                let judged = judge(severity, code, During::Commit);
                assert_eq!(judged, verdict(code, During::Commit), "{code}");
                assert_ne!(judged, Verdict::Unknown, "{code}");
            }
        }
    }

    #[test]
    fn each_refusal_has_its_kind() {
        for (code, expected) in [
            ("55P03", ErrorKind::Busy),
            ("57014", ErrorKind::Busy),
            ("53300", ErrorKind::Busy),
            ("25006", ErrorKind::Unavailable),
            ("57P03", ErrorKind::Unavailable),
            ("53100", ErrorKind::Exhausted),
            ("53200", ErrorKind::Exhausted),
            ("54000", ErrorKind::Exhausted),
            ("23505", ErrorKind::Corrupt),
            ("42P01", ErrorKind::Corrupt),
            ("42703", ErrorKind::Corrupt),
            ("3F000", ErrorKind::Corrupt),
            ("42501", ErrorKind::PermissionDenied),
            ("28P01", ErrorKind::PermissionDenied),
            ("28000", ErrorKind::PermissionDenied),
            ("3D000", ErrorKind::NotFound),
            ("XX001", ErrorKind::Corrupt),
            ("XX002", ErrorKind::Corrupt),
            ("22P02", ErrorKind::InvalidArgument),
            ("XX000", ErrorKind::Unexpected),
            ("", ErrorKind::Unexpected),
            ("é", ErrorKind::Unexpected),
        ] {
            for during in [During::Commit, During::Read, During::Connecting] {
                assert_eq!(kind(code, during), expected, "{code}");
            }
        }
    }
}
