//! What became of a commit that was not answered.
//!
//! A plain read does not tell: a commit that waits for a standby is there and cannot be seen, and one that
//! is still on its way may arrive. Both hold, or will want, the lock of the head's row. So the question is
//! asked under that lock: whoever has it knows that nobody else is storing anything. If the commit is not
//! there it is sent once more in that same transaction, after which the first one, should it arrive, finds
//! another head and does nothing.

use std::time::Duration;

use ghostwire_store_core::backend::{Head, HeadChange};
use ghostwire_store_core::domain::CommitId;
use ghostwire_store_core::error::{Error, ErrorKind, Result};
use sqlx::postgres::PgConnection;

use crate::blocks::{KEPT_COMMITS, select_id};
use crate::commit::Prepared;
use crate::connection::{query, run};
use crate::errors::Failure;
use crate::head::{StoredHead, update};
use crate::server::{Committing, Server, head_on};
use crate::sqlstate::{During, Verdict};
use crate::wire::{Param, fixed_at};

/// How long one attempt waits for the lock, and may stand still once it has it. It is given up by the server,
/// so that no session of ours stays behind that holds it when nobody asks any more.
const BEGIN: &str = "BEGIN; SET LOCAL lock_timeout TO '1s'; \
    SET LOCAL idle_in_transaction_session_timeout TO '3s'";
/// Between two attempts, when the server cannot be reached.
const PAUSE: Duration = Duration::from_millis(50);

/// Begins a transaction that has the head's row locked, and reads it; `None` if somebody else has it. Other
/// than the caller's deadline nothing ends the waiting: whoever has the lock may be waiting for a standby.
pub(crate) async fn lock_head(
    connection: &mut PgConnection,
    namespace: &str,
) -> Result<Option<StoredHead>> {
    lock_head_within(connection, namespace, BEGIN).await
}

/// The same in a transaction that begins otherwise.
pub(crate) async fn lock_head_within(
    connection: &mut PgConnection,
    namespace: &str,
    begin: &str,
) -> Result<Option<StoredHead>> {
    let locked = async {
        run(connection, begin, During::Read).await?;
        head_on(connection, namespace, true, During::Read).await
    };
    match locked.await {
        Ok(head) => head.map(Some),
        Err(failure) if is_lock_timeout(&failure) => Ok(None),
        Err(failure) => Err(failure.error),
    }
}

fn is_lock_timeout(failure: &Failure) -> bool {
    failure.error.context().iter().any(|(key, value)| *key == "sqlstate" && value == "55P03")
}

/// What is found under the lock. An error beside it is one of asking, and says nothing of the commit.
enum Found {
    /// It is stored, and this is the head by now.
    Stored(StoredHead),
    /// Another commit is there.
    Other(StoredHead),
    /// It is not there, the server refuses it, and the first attempt comes second if it still arrives.
    Refused(Error, StoredHead),
    /// It cannot be told any more.
    Forgotten,
    /// It was not there, and the attempt to send it again was not answered.
    Open,
}

/// Finds out whether a commit that led from `known` to `next` is stored, and stores it if it is not and
/// still can be. Goes on for as long as the caller waits, and no longer than a commit may take.
///
/// # Errors
/// `Conflict` if another commit came first; `OutcomeUnknown`, also if it cannot be asked; others if it surely
/// is not stored.
pub(crate) async fn find(
    server: &Server,
    committing: &mut Committing,
    prepared: &Prepared,
    (known, next): (&StoredHead, &Head),
) -> Result<()> {
    tracing::warn!(position = %known.head.position, "the connection was lost during a commit; asking for its outcome");
    let unknown = || {
        Error::new(
            ErrorKind::OutcomeUnknown,
            "the connection to the database was lost during a commit",
        )
    };
    let asking = async {
        loop {
            let mut connection = match server.connect_to_write().await {
                Ok(connection) => connection,
                Err(error) if *error.kind() == ErrorKind::Unsupported => {
                    return Err(unknown().with("asking", error));
                }
                Err(_) => {
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            match ask(&mut connection, server, prepared, (known, next)).await {
                Ok(Found::Stored(head)) => {
                    committing.keep(connection, head);
                    return Ok(());
                }
                Ok(Found::Other(head)) => {
                    committing.keep(connection, head);
                    return Err(Error::new(ErrorKind::Conflict, "another commit came first"));
                }
                Ok(Found::Refused(error, head)) => {
                    committing.keep(connection, head);
                    return Err(error);
                }
                Ok(Found::Forgotten) => return Err(unknown()),
                Ok(Found::Open) => {}
                Err(error) => match error.kind() {
                    ErrorKind::Unavailable | ErrorKind::Busy => {
                        tokio::time::sleep(PAUSE).await;
                    }
                    _ => return Err(unknown().with("asking", error)),
                },
            }
        }
    };
    let deadline = server.options.deadlines.commit;
    tokio::time::timeout(deadline, asking).await.unwrap_or_else(|_| Err(unknown()))
}

async fn ask(
    connection: &mut PgConnection,
    server: &Server,
    prepared: &Prepared,
    (known, next): (&StoredHead, &Head),
) -> Result<Found> {
    let namespace = server.namespace();
    let Some(found) = lock_head(connection, namespace).await? else { return Ok(Found::Open) };
    if found.is_as(known) {
        return send_again(connection, server, prepared, (known, next)).await;
    }
    let is_stored = compare(connection, namespace, prepared, (&found, next)).await?;
    run(connection, "ROLLBACK", During::Read).await.map_err(|failure| failure.error)?;
    Ok(match is_stored {
        Some(true) => Found::Stored(found),
        Some(false) => Found::Other(found),
        None => Found::Forgotten,
    })
}

/// Sends a commit that is not there once more, under the lock.
async fn send_again(
    connection: &mut PgConnection,
    server: &Server,
    prepared: &Prepared,
    (known, next): (&StoredHead, &Head),
) -> Result<Found> {
    let refusal = match prepared.send(connection, server, (known, next), true).await {
        Ok(true) => match run(connection, "COMMIT", During::Commit).await {
            Ok(()) => return Ok(Found::Stored(known.moved_to(next))),
            Err(Failure { verdict: Verdict::Unknown, .. }) => return Ok(Found::Open),
            Err(failure) => failure.error,
        },
        // Its clock, or somebody halted the store.
        Ok(false) => known.refusal(prepared.time()),
        Err(Failure { verdict: Verdict::Refused(..), error }) => error,
        Err(Failure { .. }) => return Ok(Found::Open),
    };
    match overtake(connection, server.namespace(), known).await? {
        Some(head) => Ok(Found::Refused(refusal, head)),
        None => Ok(Found::Open),
    }
}

/// Writes the head anew as it is, so that a first attempt which is still on its way finds another one. None
/// if somebody else has changed it, or this is not answered.
async fn overtake(
    connection: &mut PgConnection,
    namespace: &str,
    known: &StoredHead,
) -> Result<Option<StoredHead>> {
    run(connection, "ROLLBACK", During::Read).await.map_err(|failure| failure.error)?;
    let Some(found) = lock_head(connection, namespace).await? else { return Ok(None) };
    if !found.is_as(known) {
        run(connection, "ROLLBACK", During::Read).await.map_err(|failure| failure.error)?;
        return Ok(None);
    }
    let params = found.to(&found.head, None, None);
    let rows = query(connection, &update(namespace), &params, During::Read).await;
    if rows.map_err(|failure| failure.error)?.is_empty() {
        // Somebody halted the store, and may let it go on.
        return Err(Error::new(ErrorKind::OutcomeUnknown, "the store was halted meanwhile"));
    }
    match run(connection, "COMMIT", During::Commit).await {
        Ok(()) => Ok(Some(found.moved_to(&found.head))),
        Err(_) => Ok(None),
    }
}

/// Whether the commit that is stored where this one would be is this one; `None` if that cannot be told any
/// more.
async fn compare(
    connection: &mut PgConnection,
    namespace: &str,
    prepared: &Prepared,
    (found, next): (&StoredHead, &Head),
) -> Result<Option<bool>> {
    let Some(sent) = prepared.commit.id() else {
        let change = &prepared.commit.head;
        let what = |head: &Head| (head.record(), head.lineage, head.credential_key, head.filling);
        // To flush and to keep books once more is to do it. A head is not changed twice: whoever asks for that
        // says what it has to be before.
        if *change == HeadChange::default() || what(&found.head) != what(next) {
            return Ok(Some(false));
        }
        // Two that raise the epoch alike are not the same, and only one of them may write in it.
        return Ok(change.epoch.is_none().then_some(true));
    };
    let found = &found.head;
    if found.position == next.position {
        return Ok(Some(found.commit == sent));
    }
    let block = prepared.commit.block.as_ref();
    let (number, is_there, is_kept) = match block {
        Some(block) => {
            let serial = block.serial;
            (serial.get(), found.serial >= serial, found.oldest_block <= serial)
        }
        None => {
            let since = found.position.get().saturating_sub(next.position.get());
            (next.position.get(), found.position > next.position, since < KEPT_COMMITS)
        }
    };
    if !is_there {
        return Ok(Some(false));
    }
    if !is_kept {
        return Ok(None);
    }
    let sql = select_id(namespace, block.is_some());
    let rows = query(connection, &sql, &[Param::count(number)], During::Read).await;
    match rows.map_err(|failure| failure.error)?.first() {
        Some(row) => Ok(Some(CommitId::from_bytes(fixed_at(row, 0)?) == sent)),
        None => Ok(Some(false)),
    }
}
