//! Turns at writing: a transaction that has the head's row locked before anything is decided. The server lets
//! those who wait for the row have it one after the other.

use ghostwire_store_core::error::{Error, ErrorKind, Result};
use sqlx::postgres::PgConnection;

use crate::commit::{Prepared, Stored};
use crate::connection::run;
use crate::head::StoredHead;
use crate::outcome::{self, lock_head_within};
use crate::server::{Committing, Server, head_on};
use crate::sqlstate::{During, Verdict};

/// A turn is waited for no longer than the first of these. Whoever has one and stands still is ended by the
/// server after the second, which undoes it.
const BEGIN: &str = "BEGIN; SET LOCAL lock_timeout TO '5s'; \
    SET LOCAL idle_in_transaction_session_timeout TO '2s'";

/// An open transaction, and the head that it has locked.
#[derive(Debug)]
pub(crate) struct Turn {
    connection: PgConnection,
    known: StoredHead,
}

/// Takes the turn.
///
/// # Errors
/// `Busy` if others do not give it back; `Unavailable`.
pub(crate) async fn take(server: &Server) -> Result<()> {
    server.require_open()?;
    let mut committing = server.committing.lock().await;
    (committing.turn, committing.known) = (None, None);
    // A connection that nobody used for long may have ended.
    if let Some(kept) = committing.connection.take()
        && let Ok(turn) = begin(kept, server.namespace()).await
    {
        committing.turn = Some(turn?);
        return Ok(());
    }
    let turn = begin(server.connect_to_write().await?, server.namespace()).await;
    committing.turn = Some(turn??);
    Ok(())
}

/// Takes the turn on this connection. An inner error is the server's answer; an outer one may be the
/// connection's, and another connection may do.
async fn begin(mut connection: PgConnection, namespace: &str) -> Result<Result<Turn>> {
    match lock_head_within(&mut connection, namespace, BEGIN).await? {
        Some(known) => Ok(Ok(Turn { connection, known })),
        None => Ok(Err(Error::new(
            ErrorKind::Busy,
            "another process has the row of the head locked, and does not end its transaction: it may wait \
             for a standby; try again",
        ))),
    }
}

/// Gives the turn back, if it is still had.
pub(crate) async fn end(server: &Server) -> Result<()> {
    let mut committing = server.committing.lock().await;
    if let Some(Turn { mut connection, known }) = committing.turn.take() {
        // Otherwise it ends with its connection.
        if run(&mut connection, "ROLLBACK", During::Read).await.is_ok() {
            committing.keep(connection, known);
        }
    }
    Ok(())
}

/// Stores the commit of a turn, which ends with that. `None` if the turn was lost before: nothing is stored.
///
/// # Errors
/// Those of [`store`](crate::commit::store).
pub(crate) async fn store(
    server: &Server,
    committing: &mut Committing,
    Turn { mut connection, known }: Turn,
    prepared: &Prepared,
) -> Result<Option<Stored>> {
    let is_of_schema = known.head.schema == server.shapes().stored;
    let next = known.require_known().and_then(|()| known.after(&prepared.commit));
    let next = match next {
        Ok(next) if is_of_schema => next,
        refused => {
            if run(&mut connection, "ROLLBACK", During::Read).await.is_ok() {
                committing.keep(connection, known);
            }
            return if is_of_schema {
                refused.map(|_| None)
            } else {
                Ok(Some(Stored::OtherSchema))
            };
        }
    };
    match prepared.send(&mut connection, server, (&known, &next), true).await {
        Ok(true) => {}
        Ok(false) => {
            let found = head_on(&mut connection, server.namespace(), false, During::Read).await;
            return Err(found.map_err(|failure| failure.error)??.refusal(prepared.time()));
        }
        Err(failure) => match failure.verdict {
            Verdict::Refused(..) => return Err(failure.error),
            // Before COMMIT nothing can be stored, whatever happens.
            Verdict::Again | Verdict::Reprepare | Verdict::Unknown => return Ok(None),
        },
    }
    match run(&mut connection, "COMMIT", During::Commit).await {
        Ok(()) => {
            committing.keep(connection, known.moved_to(&next));
        }
        Err(failure) if failure.verdict == Verdict::Unknown => {
            drop(connection);
            outcome::find(server, committing, prepared, (&known, &next)).await?;
        }
        Err(failure) => return Err(failure.error),
    }
    Ok(Some(Stored::Rows(prepared.rows)))
}
