//! Storing a commit.
//!
//! What leads from the known head to the next one is decided by [`Head::after`], here as in every backend;
//! the statement only compares. If the row of the head is not what was expected nothing of the statement
//! happens, and the row is read again, which tells why.

use ghostwire_store_core::backend::{Commit, Head, KeyRange};
use ghostwire_store_core::block::RowChange;
use ghostwire_store_core::domain::Timestamp;
use ghostwire_store_core::error::{Error, ErrorKind, Result};
use sqlx::postgres::PgConnection;

use crate::blocks;
use crate::connection::{BEGIN, query, run};
use crate::errors::Failure;
use crate::head::{StoredHead, UPDATE_PARAMS, update};
use crate::listen::Notifier;
use crate::server::{Server, head_on};
use crate::shape::{Shapes, Write};
use crate::sqlstate::{During, Verdict};
use crate::wire::Param;
use crate::{outcome, turn};

/// Beyond so many bytes each table gets a statement of its own: the server has a copy of a statement's
/// parameters in memory.
const ONE_STATEMENT: usize = 4 << 20;

/// How often a commit is sent when it was undone through no fault of its own, or the head changed without
/// moving.
const ATTEMPTS: usize = 8;

/// A commit as statements.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// Without its rows, but for one of each table.
    pub(crate) commit: Commit,
    writes: Vec<Write>,
    pub(crate) rows: usize,
    prunes: Vec<(String, Vec<Param>)>,
    /// What it notifies those who follow by.
    notifier: Option<Notifier>,
}

/// How storing ended.
#[derive(Debug)]
pub(crate) enum Stored {
    /// It is stored; so many rows.
    Rows(usize),
    /// The store was migrated meanwhile: the statements have to be made anew.
    OtherSchema,
}

impl Prepared {
    /// # Errors
    /// `Corrupt` for a row that its table cannot hold.
    pub(crate) fn of(shapes: &Shapes, commit: &Commit, notifier: Option<Notifier>) -> Result<Self> {
        let (writes, rows) = shapes.writes(&commit.rows)?;
        let prune = |range: &KeyRange| shapes.of(range.table)?.prune(range);
        let prunes = commit.prune.iter().filter_map(prune).collect();
        let mut tables: Vec<RowChange> = Vec::new();
        for row in &commit.rows {
            if tables.iter().all(|other| other.table != row.table) {
                tables.push(RowChange { body: None, ..row.clone() });
            }
        }
        let commit = Commit {
            block: commit.block.clone(),
            rows: tables,
            prune: commit.prune.clone(),
            ..*commit
        };
        Ok(Self { commit, writes, rows, prunes, notifier })
    }

    /// The time of its block.
    pub(crate) fn time(&self) -> Option<Timestamp> {
        self.commit.block.as_ref().map(|block| block.time)
    }

    fn bytes(&self) -> usize {
        let block = self.commit.block.as_ref().map_or(0, |block| block.bytes.len());
        let rows = self.writes.iter().flat_map(|write| &write.params).map(Param::len);
        block + rows.sum::<usize>()
    }

    /// Everything in one statement, which is a transaction. A prune has to come before the rows, which
    /// within one statement nothing does.
    fn fits_one_statement(&self) -> bool {
        self.prunes.is_empty() && self.bytes() <= ONE_STATEMENT
    }

    /// The statement, which gives one row if it was stored.
    fn one_statement(
        &self,
        namespace: &str,
        known: &StoredHead,
        next: &Head,
        ahead: Option<i64>,
    ) -> (String, Vec<Param>) {
        let mut params = known.to(next, self.time(), ahead);
        debug_assert_eq!(params.len(), UPDATE_PARAMS);
        let mut sql = format!("WITH cas AS ({})", update(namespace));
        let mut add = |params: &mut Vec<Param>, part: String, more: Vec<Param>| {
            let number = params.len();
            sql.push_str(&format!(", p{number} AS ({part})"));
            params.extend(more);
        };
        if let Some(block) = &self.commit.block {
            // A commit may purge its own block, and a deletion does not see what its statement inserts.
            if block.serial >= next.oldest_block {
                let part = blocks::insert_block(namespace, " FROM cas", params.len() + 1);
                add(&mut params, part, blocks::block_params(block));
            }
        } else if let Some(id) = self.commit.id() {
            let part = blocks::insert_commit(namespace, " FROM cas", params.len() + 1);
            add(&mut params, part, blocks::commit_params(next.position, id));
            let part = blocks::forget_commits(namespace, " USING cas", params.len() + 1);
            add(&mut params, part, vec![blocks::forgotten_at(next.position)]);
        }
        if next.oldest_block > known.head.oldest_block {
            let part = blocks::purge_blocks(namespace, " USING cas", params.len() + 1);
            add(&mut params, part, vec![Param::count(next.oldest_block.get())]);
        }
        for write in &self.writes {
            let part = (write.guarded)(params.len() + 1);
            add(&mut params, part, write.params.clone());
        }
        // A notification that is not selected here would never be sent.
        match &self.notifier {
            Some(notifier) => {
                let first = params.len() + 1;
                sql.push_str(&format!(
                    " SELECT cas.stored, pg_catalog.pg_notify(${first}, ${}) FROM cas",
                    first + 1
                ));
                params.extend(notifier.params(next));
            }
            None => sql.push_str(" SELECT cas.stored FROM cas"),
        }
        (sql, params)
    }

    /// The statements of a transaction that come after the one which moves the head.
    fn statements(
        &self,
        namespace: &str,
        known: &StoredHead,
        next: &Head,
    ) -> Vec<(String, Vec<Param>)> {
        let mut statements = self.prunes.clone();
        if let Some(block) = &self.commit.block {
            statements.push((blocks::insert_block(namespace, "", 1), blocks::block_params(block)));
        } else if let Some(id) = self.commit.id() {
            statements.push((
                blocks::insert_commit(namespace, "", 1),
                blocks::commit_params(next.position, id),
            ));
            statements.push((
                blocks::forget_commits(namespace, "", 1),
                vec![blocks::forgotten_at(next.position)],
            ));
        }
        if next.oldest_block > known.head.oldest_block {
            let before = vec![Param::count(next.oldest_block.get())];
            statements.push((blocks::purge_blocks(namespace, "", 1), before));
        }
        let writes = self.writes.iter().map(|write| (write.alone.clone(), write.params.clone()));
        statements.extend(writes);
        if let Some(notifier) = &self.notifier {
            let notify = "SELECT pg_catalog.pg_notify($1, $2)".to_owned();
            statements.push((notify, notifier.params(next).into()));
        }
        statements
    }

    /// Sends the commit; `false` if the head is not the known one. `within` says that a transaction is
    /// open, which is left so.
    pub(crate) async fn send(
        &self,
        connection: &mut PgConnection,
        server: &Server,
        (known, next): (&StoredHead, &Head),
        within: bool,
    ) -> Result<bool, Failure> {
        let namespace = server.namespace();
        let ahead = server.options.max_clock_ahead;
        let ahead = ahead.map(|ahead| i64::try_from(ahead.as_micros()).unwrap_or(i64::MAX));
        if self.fits_one_statement() {
            let (sql, params) = self.one_statement(namespace, known, next, ahead);
            let rows = query(connection, &sql, &params, During::Commit).await?;
            return Ok(!rows.is_empty());
        }
        // Until COMMIT is sent nothing can be stored, whatever happens.
        if !within {
            run(connection, BEGIN, During::Read).await?;
        }
        let params = known.to(next, self.time(), ahead);
        let moved = query(connection, &update(namespace), &params, During::Read).await?;
        if moved.is_empty() {
            if !within {
                run(connection, "ROLLBACK", During::Read).await?;
            }
            return Ok(false);
        }
        for (sql, params) in self.statements(namespace, known, next) {
            query(connection, &sql, &params, During::Read).await?;
        }
        if !within {
            run(connection, "COMMIT", During::Commit).await?;
        }
        Ok(true)
    }
}

/// Stores a commit.
///
/// # Errors
/// Those of [`Head::after`]; `OutcomeUnknown` if it cannot be told whether it is stored; otherwise it is
/// not.
pub(crate) async fn store(server: &Server, prepared: &Prepared) -> Result<Stored> {
    server.require_open()?;
    server.require_durable()?;
    let mut committing = server.committing.lock().await;
    if let Some(turn) = committing.turn.take()
        && let Some(stored) = turn::store(server, &mut committing, turn, prepared).await?
    {
        return Ok(stored);
    }
    let mut failed: Option<Error> = None;
    for _ in 0..ATTEMPTS {
        let mut connection = match committing.connection.take() {
            Some(connection) => connection,
            None => server.connect_to_write().await?,
        };
        let cached = committing.known.take();
        let was_cached = cached.is_some();
        let known = match cached {
            Some(known) => known,
            None => match head_on(&mut connection, server.namespace(), false, During::Read).await {
                Ok(head) => head?,
                // A connection that nobody used for long may have ended.
                Err(failure) => {
                    failed = Some(failure.error);
                    continue;
                }
            },
        };
        if known.head.schema != server.shapes().stored {
            committing.connection = Some(connection);
            return Ok(Stored::OtherSchema);
        }
        let next = known.require_known().and_then(|()| known.after(&prepared.commit));
        let next = match next {
            Ok(next) => next,
            // Others may have changed it since.
            Err(_) if was_cached => {
                committing.connection = Some(connection);
                continue;
            }
            Err(error) => {
                committing.keep(connection, known);
                return Err(error);
            }
        };
        match prepared.send(&mut connection, server, (&known, &next), false).await {
            Ok(true) => {
                committing.keep(connection, known.moved_to(&next));
                return Ok(Stored::Rows(prepared.rows));
            }
            Ok(false) => {
                let found = head_on(&mut connection, server.namespace(), false, During::Read).await;
                let found = found.map_err(|failure| failure.error)??;
                let is_refused = found.is_as(&known);
                let refusal = found.refusal(prepared.time());
                committing.keep(connection, found);
                if is_refused {
                    return Err(refusal);
                }
            }
            Err(failure) => match failure.verdict {
                Verdict::Again | Verdict::Reprepare => failed = Some(failure.error),
                Verdict::Refused(..) => return Err(failure.error),
                Verdict::Unknown => {
                    drop(connection);
                    return outcome::find(server, &mut committing, prepared, (&known, &next))
                        .await
                        .map_err(|error| match error.kind() {
                            ErrorKind::OutcomeUnknown => error.because(failure.error.to_string()),
                            _ => error,
                        })
                        .map(|()| Stored::Rows(prepared.rows));
                }
            },
        }
    }
    Err(failed.unwrap_or_else(|| {
        Error::new(ErrorKind::Conflict, "other processes kept changing the head first")
    }))
}
