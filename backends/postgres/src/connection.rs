//! One connection: making it, what is asked of the server, and statements on it.

use std::time::Duration;

use ghostwire_store_core::error::{Error, ErrorKind, Result};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgRow};
use sqlx::{AssertSqlSafe, ConnectOptions, raw_sql};

use crate::errors::{Failure, in_connecting, in_read};
use crate::guard::Guard;
use crate::settings::Durability;
use crate::sqlstate::During;
use crate::wire::{Param, arguments, boolean_at, integer_at, text_at};

/// The oldest server that this is tested with.
const OLDEST_SERVER: i64 = 150_000;

/// So that nothing depends on what the role or the database is set to: which names are meant, and that a
/// statement which waited for another transaction looks at what that left.
///
/// A machine that vanished does not end its sessions, and one within a transaction keeps its locks. So the
/// server ends who stands still there; and a connection whose other end does not answer, whether the server
/// waits for its next statement (keepalives) or for what it sent to be acknowledged (`tcp_user_timeout`).
/// Nobody waits for a lock for ever. Over a Unix socket the three of TCP have no effect.
const SET_UP: &str = "SET search_path TO pg_catalog; \
    SET default_transaction_isolation TO 'read committed'; \
    SET default_transaction_deferrable TO off; \
    SET idle_in_transaction_session_timeout TO '3s'; SET lock_timeout TO '5s'; \
    SET tcp_keepalives_idle TO 5; SET tcp_keepalives_interval TO 2; SET tcp_keepalives_count TO 3; \
    SET tcp_user_timeout TO '10s'";

/// Begins a transaction that writes. The limits are those of the session, in case something in between has
/// put this on another one.
pub(crate) const BEGIN: &str = "BEGIN; SET LOCAL lock_timeout TO '5s'; \
    SET LOCAL idle_in_transaction_session_timeout TO '3s'";

/// `synchronous_commit` is kept as it is found, whatever the server is told later.
const FACTS: &str = "SELECT pg_catalog.current_setting('server_version_num')::bigint, \
    pg_catalog.current_setting('server_version'), \
    pg_catalog.current_setting('server_encoding'), \
    pg_catalog.pg_is_in_recovery(), \
    pg_catalog.current_setting('transaction_read_only')::boolean, \
    pg_catalog.current_setting('fsync')::boolean, \
    pg_catalog.current_setting('full_page_writes')::boolean, \
    pg_catalog.set_config('synchronous_commit', pg_catalog.current_setting('synchronous_commit'), false)";

/// What a server says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Facts {
    number: i64,
    pub(crate) version: String,
    encoding: String,
    in_recovery: bool,
    read_only: bool,
    fsync: bool,
    full_page_writes: bool,
    synchronous_commit: String,
}

impl Facts {
    fn read(row: &PgRow) -> Result<Self> {
        Ok(Self {
            number: integer_at(row, 0)?,
            version: text_at(row, 1)?.to_owned(),
            encoding: text_at(row, 2)?.to_owned(),
            in_recovery: boolean_at(row, 3)?,
            read_only: boolean_at(row, 4)?,
            fsync: boolean_at(row, 5)?,
            full_page_writes: boolean_at(row, 6)?,
            synchronous_commit: text_at(row, 7)?.to_owned(),
        })
    }

    /// The setting that lets the server forget what it confirmed, if there is one.
    fn not_durable(&self) -> Option<(&'static str, &str)> {
        let confirms = ["on", "remote_apply"].contains(&self.synchronous_commit.as_str());
        match (self.fsync, self.full_page_writes, confirms) {
            (false, ..) => Some(("fsync", "off")),
            (_, false, _) => Some(("full_page_writes", "off")),
            (.., false) => Some(("synchronous_commit", &self.synchronous_commit)),
            _ => None,
        }
    }

    /// Whether what it confirms is on its disk.
    pub(crate) fn is_durable(&self) -> bool {
        self.not_durable().is_none()
    }

    /// Refuses a server that the store cannot be on, or not be written on.
    pub(crate) fn check(&self, writes: bool, durability: Durability) -> Result<()> {
        let refused = |kind, message| Err(Error::new(kind, message).with("server", &self.version));
        if self.number < OLDEST_SERVER {
            return refused(
                ErrorKind::Unsupported,
                "the server is too old; this works with PostgreSQL 15 and later",
            );
        }
        if self.encoding != "UTF8" {
            let error = refused(
                ErrorKind::Unsupported,
                "the database's encoding is not UTF8, which texts need; make another database",
            );
            return error.map_err(|error| error.with("encoding", &self.encoding));
        }
        if !writes {
            return Ok(());
        }
        if self.in_recovery {
            return refused(
                ErrorKind::Unavailable,
                "the server is in recovery, as a standby is, and only lets read; connect to the primary",
            );
        }
        if self.read_only {
            return refused(
                ErrorKind::Unavailable,
                "the server only lets read, by default_transaction_read_only; set that off",
            );
        }
        match self.not_durable() {
            Some((setting, value)) if durability == Durability::Required => {
                Err(forgetful(setting, value))
            }
            _ => Ok(()),
        }
    }
}

/// The refusal of a server that may forget what it confirms.
pub(crate) fn forgetful(setting: &'static str, value: &str) -> Error {
    let message =
        "the server may forget what it confirmed; set it right, or say `durability = \"unsafe\"`";
    Error::new(ErrorKind::Unsupported, message).with("server_setting", setting).with("value", value)
}

/// Makes a connection, within the deadline.
pub(crate) async fn connect(
    options: &PgConnectOptions,
    guard: Option<&Guard>,
    deadline: Duration,
) -> Result<PgConnection> {
    let connect = async {
        if let Some(guard) = guard {
            guard.check(deadline).await?;
        }
        let mut connection = options.connect().await.map_err(|error| in_connecting(&error))?;
        set_up(&mut connection).await?;
        Ok(connection)
    };
    tokio::time::timeout(deadline, connect).await.unwrap_or_else(|_| {
        Err(Error::new(ErrorKind::Unavailable, "the database does not answer")
            .with("deadline_ms", deadline.as_millis()))
    })
}

/// Makes a connection independent of how its role is set up.
pub(crate) async fn set_up(connection: &mut PgConnection) -> Result<()> {
    raw_sql(SET_UP).execute(connection).await.map(drop).map_err(|error| in_connecting(&error))
}

/// Asks the server about itself.
pub(crate) async fn facts(connection: &mut PgConnection) -> Result<Facts> {
    let rows = query(connection, FACTS, &[], During::Connecting).await.map_err(|f| f.error)?;
    Facts::read(rows.first().ok_or_else(no_row)?)
}

pub(crate) fn no_row() -> Error {
    Error::corrupt("the server gives no row where there has to be one")
}

/// Runs a statement, and gives its rows.
pub(crate) async fn query(
    connection: &mut PgConnection,
    sql: &str,
    params: &[Param],
    during: During,
) -> Result<Vec<PgRow>, Failure> {
    let failed = |error: sqlx::Error| Failure::of(&error, during);
    let arguments = arguments(params).map_err(failed)?;
    // Every statement is one of this program's; what comes from outside is in the parameters.
    sqlx::query_with(AssertSqlSafe(sql), arguments).fetch_all(connection).await.map_err(failed)
}

/// Runs a statement that only reads.
pub(crate) async fn read(
    connection: &mut PgConnection,
    sql: &str,
    params: &[Param],
) -> Result<Vec<PgRow>> {
    query(connection, sql, params, During::Read).await.map_err(|failure| failure.error)
}

/// Runs statements without parameters and results, in one message.
pub(crate) async fn run(
    connection: &mut PgConnection,
    sql: &str,
    during: During,
) -> Result<(), Failure> {
    let ran = raw_sql(AssertSqlSafe(sql)).execute(connection).await;
    ran.map(drop).map_err(|error| Failure::of(&error, during))
}

/// Runs statements of a transaction that writes the tables' layout.
pub(crate) async fn change(connection: &mut PgConnection, sql: &str) -> Result<()> {
    let ran = raw_sql(AssertSqlSafe(sql)).execute(connection).await;
    ran.map(drop).map_err(|error| in_read(&error))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn sound() -> Facts {
        Facts {
            number: 150_018,
            version: "15.18".to_owned(),
            encoding: "UTF8".to_owned(),
            in_recovery: false,
            read_only: false,
            fsync: true,
            full_page_writes: true,
            synchronous_commit: "on".to_owned(),
        }
    }

    #[test]
    fn each_server_that_will_not_do_is_refused_with_a_reason() {
        let check = |facts: &Facts| facts.check(true, Durability::Required);
        check(&sound()).unwrap();
        let remote = Facts { synchronous_commit: "remote_apply".to_owned(), ..sound() };
        check(&remote).unwrap();
        let weak = |value: &str| Facts { synchronous_commit: value.to_owned(), ..sound() };
        for (facts, kind, says) in [
            (Facts { number: 140_009, ..sound() }, ErrorKind::Unsupported, "too old"),
            (Facts { encoding: "LATIN1".to_owned(), ..sound() }, ErrorKind::Unsupported, "LATIN1"),
            (Facts { in_recovery: true, ..sound() }, ErrorKind::Unavailable, "in recovery"),
            (Facts { read_only: true, ..sound() }, ErrorKind::Unavailable, "only lets read"),
            (Facts { fsync: false, ..sound() }, ErrorKind::Unsupported, "fsync"),
            (Facts { full_page_writes: false, ..sound() }, ErrorKind::Unsupported, "full_page"),
            (weak("off"), ErrorKind::Unsupported, "synchronous_commit"),
            (weak("local"), ErrorKind::Unsupported, "local"),
            (weak("remote_write"), ErrorKind::Unsupported, "remote_write"),
        ] {
            let error = check(&facts).unwrap_err();
            assert_eq!(*error.kind(), kind, "{error}");
            assert!(error.to_string().contains(says), "{error}");
        }
        let unsafe_one = Facts { fsync: false, ..sound() };
        unsafe_one.check(true, Durability::Unsafe).unwrap();
        assert!(!unsafe_one.is_durable());
        // A standby may be read from.
        Facts { in_recovery: true, read_only: true, ..sound() }
            .check(false, Durability::Required)
            .unwrap();
    }
}
