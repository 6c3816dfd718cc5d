//! What each request comes to.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use futures_util::StreamExt;
use ghostwire_store_core::Store;
use ghostwire_store_core::backend::{KeyRange, Row, Scan};
use ghostwire_store_core::block::Serial;
use ghostwire_store_core::changes::{CommitChanges, EntityChange};
use ghostwire_store_core::command::Transaction;
use ghostwire_store_core::domain::{Actor, ActorName};
use ghostwire_store_core::error::{Error, ErrorKind, Result};
use ghostwire_store_core::schema::{RowKey, Table};
use ghostwire_store_core::threads::may_block;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{Counters, Served, beside};
use crate::protocol::{
    ClockRequest, Frame, Issue, Issued, KeysRequest, Kind, MAX_PAYLOAD, Method, MigrateRequest,
    ScanRequest, Scanned, SelectRequest, Selected, SelectedRow, Watched, WatchedChange, Wire,
    WireAttestation, WireDigests, WireHead, WireInfo,
};

/// Blocks that are read at a time: one may have 256 MiB.
const BLOCKS_PER_READ: usize = 1;
/// Entities that are selected at a time at most, whatever is asked for.
const SELECTED: usize = 10_000;
/// Changes of a commit that a watcher is told in one item, if all of them are too long for one: a short name, an id,
/// what happened, and their names in JSON, 200 bytes at most.
const CHANGES_PER_ITEM: usize = 10_000;
const _: () = assert!((CHANGES_PER_ITEM + 1) * 200 < MAX_PAYLOAD);
/// A frame of data is about this long.
const DATA: usize = 64 * 1024;

/// Rows that are read at a time. A backend counts rows and not bytes, so this goes by the longest that a table may
/// have: a page has no more than 8 MiB, as one row may, whatever the rows before were like.
fn rows_per_read(table: Table) -> usize {
    match table {
        // Documents, and what a commit changed.
        Table::Policies | Table::Settings | Table::Feed => 1,
        Table::Metrics | Table::Audit | Table::Presence | Table::Routes => 1024,
        _ => 64,
    }
}

/// What ends an answer.
pub(super) struct Answered {
    /// What comes before the end: the replies of a commit. They are all there before the first is sent, so that
    /// a commit that is stored does not wait for its client.
    items: Vec<Frame>,
    end: Value,
    /// Whether something was stored that cannot be told again.
    is_stored: bool,
}

impl Answered {
    pub(super) fn into_frames(mut self) -> Result<Vec<Frame>> {
        let end = Frame::json(Kind::Done, &self.end);
        self.items.push(end.map_err(|error| untold(self.is_stored, error))?);
        Ok(self.items)
    }
}

impl From<Value> for Answered {
    fn from(end: Value) -> Self {
        Self { items: Vec::new(), end, is_stored: false }
    }
}

/// The answer to a write that is stored cannot be sent. That is no refusal.
fn untold(is_stored: bool, error: Error) -> Error {
    if !is_stored {
        return error;
    }
    Error::new(
        ErrorKind::OutcomeUnknown,
        "the write was stored, but its answer cannot be sent over the admin socket",
    )
    .with("help", "look it up; do not write it again")
    .because(error)
}

/// Where parts of an answer go, and who asked.
pub(super) struct Answering {
    frames: mpsc::Sender<Frame>,
    user: Option<u32>,
    pub(super) counters: Arc<Counters>,
    /// Whom the request names, where it is no part of what is asked.
    name: Option<ActorName>,
}

impl Answering {
    pub(super) fn new(
        frames: mpsc::Sender<Frame>,
        user: Option<u32>,
        counters: Arc<Counters>,
        name: Option<ActorName>,
    ) -> Self {
        Self { frames, user, counters, name }
    }

    async fn send(&self, frame: Frame) -> Result<()> {
        self.frames.send(frame).await.map_err(|_| {
            Error::new(ErrorKind::Unavailable, "the client of the admin socket is gone")
        })
    }

    async fn item(&self, item: &impl Serialize) -> Result<()> {
        self.send(Frame::json(Kind::Item, item)?).await
    }

    /// Sends what has gathered, in frames that may be sent; what is short waits for more unless `all`.
    async fn data(&self, gathered: &mut BytesMut, all: bool) -> Result<()> {
        while gathered.len() >= DATA || (all && !gathered.is_empty()) {
            let payload = gathered.split_to(gathered.len().min(DATA)).freeze();
            self.send(Frame { kind: Kind::Data, payload }).await?;
        }
        Ok(())
    }

    /// Whom the audit trail names: what the client says, since who may use the socket could write any line
    /// into the store; and who the system says it is.
    fn actor(&self, name: ActorName) -> Actor {
        let user = self.user.map_or_else(|| "unknown".to_owned(), |user| user.to_string());
        Actor::from(name).with_user_agent(format!("admin socket, user {user}"))
    }

    /// The same for a request that names nobody.
    fn asker(&self) -> Actor {
        self.actor(self.name.clone().unwrap_or_else(ActorName::system))
    }
}

/// Answers a request: parts of it through `to`, and its end as what it gives.
pub(super) async fn answer(served: Served, method: Method, to: Answering) -> Result<Answered> {
    match method {
        Method::Transact { actor, transaction } => transact(&served, actor, transaction, &to).await,
        Method::Issue { actor, issue } => self::issue(&served, to.actor(actor), issue).await,
        other => look_or_manage(&served, other, &to).await.map(Answered::from),
    }
}

async fn look_or_manage(served: &Served, method: Method, to: &Answering) -> Result<Value> {
    match method {
        Method::Info => value(&WireInfo::from(served.backend.info())),
        Method::Head => value(&WireHead::from(&served.backend.head().await?)),
        Method::Scan(request) => scan(served, request, to).await,
        Method::Blocks { after, limit } => blocks(served, after, limit, to).await,
        Method::Select(request) => select(served, request, to).await,
        Method::Status => status(served, to),
        Method::Health => served.hooks.health().await,
        Method::Metrics => served.hooks.metrics().await.map(Value::String),
        Method::Digests => value(&WireDigests::from(store(served)?.digests().await?)),
        Method::Verify => verify(served, to).await.map(|()| Value::Null),
        Method::Attest => value(&WireAttestation::from(store(served)?.attest().await?)),
        Method::Checkpoint => value(&store(served)?.checkpoint().await?),
        Method::Probe => {
            let took = store(served)?.probe().await?;
            value(&u64::try_from(took.as_micros()).unwrap_or(u64::MAX))
        }
        Method::Watch { after } => watch(served, after, to).await,
        Method::RemoveConsumer { name } => {
            let change = beside::Change::of(store(served)?, to.asker());
            beside::carried_out(to, async move { change.remove_consumer(&name).await }).await
        }
        Method::Keys(KeysRequest::List) => beside::list_keys(store(served)?.as_ref()).await,
        Method::Keys(request) => {
            let change = beside::Change::of(store(served)?, to.asker());
            beside::carried_out(to, async move { change.change_keys(request).await }).await
        }
        Method::Clock(ClockRequest::Accept) => {
            let store = store(served)?.acting_as(to.asker());
            store.clock().accept().await.map(|()| Value::Null)
        }
        Method::Clock(ClockRequest::Repair) => {
            let store = store(served)?.acting_as(to.asker());
            value(&store.clock().repair().await?)
        }
        Method::Reload => served.hooks.reload().await,
        Method::LogLevel { level, seconds } => {
            let period = seconds.map(Duration::from_secs);
            served.hooks.set_log_level(&level, period).await.map(|()| Value::Null)
        }
        Method::Migrate(request) => migrate(served, request, to).await,
        Method::Backup | Method::Transact { .. } | Method::Issue { .. } => Err(Error::new(
            ErrorKind::Unsupported,
            "this release cannot do that while the store is open",
        )
        .with("method", method.name())),
    }
}

async fn migrate(served: &Served, request: MigrateRequest, to: &Answering) -> Result<Value> {
    let Some(migrations) = served.migrations.clone() else {
        return Err(Error::new(
            ErrorKind::Unsupported,
            "the program that has the store open cannot move it to another database",
        ));
    };
    let asker = to.asker();
    let by = asker.name.to_string();
    if !request.changes() {
        return migrations.migrate(request, &by).await;
    }
    let store = store(served)?;
    // Not one after the other: whoever comes second is told by whom it is being done.
    let done = tokio::spawn(async move {
        let done = migrations.migrate(request, &by).await;
        if done.is_ok() {
            beside::note_migration(store, asker, request).await;
        }
        done
    });
    done.await.unwrap_or_else(|error| {
        let message = "a step of the migration was interrupted; its status tells where it stands";
        Err(Error::new(ErrorKind::OutcomeUnknown, message).because(error))
    })
}

/// A handle for the time of one request.
fn store(served: &Served) -> Result<Arc<dyn Store>> {
    served.store.upgrade().ok_or_else(|| Error::new(ErrorKind::Unavailable, "the store is closed"))
}

pub(super) fn value(of: &impl Serialize) -> Result<Value> {
    serde_json::to_value(of).map_err(|error| {
        Error::new(ErrorKind::Unexpected, "an answer has no JSON form").because(error)
    })
}

/// Rows, a page at a time; what is held of the store ends with each page.
async fn scan(served: &Served, request: ScanRequest, to: &Answering) -> Result<Value> {
    let mut range = range_of(&request)?;
    let mut left = usize::try_from(request.limit).unwrap_or(usize::MAX);
    let mut gathered = BytesMut::new();
    let most = rows_per_read(range.table);
    loop {
        let limit = left.min(most);
        let scan = Scan { range: range.clone(), reverse: request.reverse, limit };
        let page = served.backend.scan(scan).await?;
        left -= page.rows.len().min(left);
        for row in &page.rows {
            row.put(&mut gathered);
            to.data(&mut gathered, false).await?;
        }
        let is_last = left == 0 || page.rows.len() < limit;
        to.data(&mut gathered, is_last).await?;
        let Some(last) = page.rows.last().filter(|_| !is_last) else {
            return value(&Scanned { position: page.position, serial: page.serial });
        };
        match request.reverse {
            true => range.to = Some(last.key.clone()),
            false => range.from = last.key.clone().successor(),
        }
    }
}

fn range_of(request: &ScanRequest) -> Result<KeyRange> {
    let unreadable = |error: Error| Error::invalid("no such rows can be asked for").because(error);
    let key = |bytes: &[u8]| RowKey::from_bytes(bytes).map_err(unreadable);
    Ok(KeyRange {
        table: Table::from_number(request.table).map_err(unreadable)?,
        from: key(&request.from)?,
        to: request.to.as_deref().map(key).transpose()?,
    })
}

/// Entities that are meant, and what is shown beside them. They are chosen at one moment, away from this thread, and
/// kept until they are sent: only so many, and not the state that they are of. Whoever goes ends it.
async fn select(served: &Served, request: SelectRequest, to: &Answering) -> Result<Value> {
    let table = Table::from_number(request.table)
        .ok()
        .filter(|table| table.is_state())
        .ok_or_else(|| Error::invalid("this table cannot be selected from"))?;
    request.selection.check()?;
    // What nobody waits for any more counts until its thread has noticed.
    let turn = to.counters.selecting.clone().acquire_owned().await;
    let view = store(served)?.view();
    let (_waits, is_wanted) = Wanted::new();
    let chosen = may_block(move || {
        let _turn = turn;
        let limit = usize::try_from(request.limit).unwrap_or(usize::MAX).min(SELECTED);
        let page = (request.after.as_deref(), limit);
        let is_wanted = || is_wanted.load(Ordering::Relaxed);
        let (chosen, more) =
            crate::select::select(&view, table, &request.selection, page, &is_wanted);
        let beside = crate::select::related(&chosen, &view);
        Ok((chosen, beside, more))
    });
    let (chosen, beside, more) = chosen.await?;
    let mut gathered = BytesMut::new();
    for (is_meant, record) in chosen
        .into_iter()
        .map(|record| (true, record))
        .chain(beside.into_iter().map(|record| (false, record)))
    {
        let row = Row { key: record.key(), body: record.encode() };
        SelectedRow { is_meant, table: record.table(), row }.put(&mut gathered);
        to.data(&mut gathered, false).await?;
    }
    to.data(&mut gathered, true).await?;
    value(&Selected { more })
}

/// Whether somebody waits for what a thread does: until this is dropped.
struct Wanted(Arc<AtomicBool>);

impl Wanted {
    fn new() -> (Self, Arc<AtomicBool>) {
        let is_wanted = Arc::new(AtomicBool::new(true));
        (Self(is_wanted.clone()), is_wanted)
    }
}

impl Drop for Wanted {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

async fn blocks(served: &Served, after: Serial, limit: u32, to: &Answering) -> Result<Value> {
    let (mut after, mut left) = (after, usize::try_from(limit).unwrap_or(usize::MAX));
    let mut gathered = BytesMut::new();
    loop {
        let wanted = left.min(BLOCKS_PER_READ);
        let page = served.backend.blocks(after, wanted).await?;
        left -= page.len().min(left);
        let is_last = left == 0 || page.len() < wanted;
        for block in &page {
            block.put(&mut gathered);
            to.data(&mut gathered, false).await?;
        }
        match page.last().filter(|_| !is_last) {
            Some(last) => after = last.serial,
            None => {
                to.data(&mut gathered, true).await?;
                return Ok(Value::Null);
            }
        }
    }
}

fn status(served: &Served, to: &Answering) -> Result<Value> {
    Ok(json!({
        "program": crate::protocol::PROGRAM,
        "pid": std::process::id(),
        "store": store(served)?.info(),
        "socket": to.counters.json(),
    }))
}

/// Commits as they come. The store is not kept open for it.
async fn watch(served: &Served, after: Option<Serial>, to: &Answering) -> Result<Value> {
    let mut commits = {
        let store = store(served)?;
        let after = after.unwrap_or_else(|| store.view().serial());
        store.watch(after)
    };
    while let Some(commit) = commits.next().await {
        let commit = commit?;
        let whole = Frame::json(Kind::Item, &watched(&commit, &commit.changes, false));
        if let Ok(whole) = whole {
            to.send(whole).await?;
            continue;
        }
        let mut parts = commit.changes.chunks(CHANGES_PER_ITEM).peekable();
        while let Some(part) = parts.next() {
            to.item(&watched(&commit, part, parts.peek().is_some())).await?;
        }
    }
    Ok(Value::Null)
}

fn watched(commit: &CommitChanges, changes: &[EntityChange], more: bool) -> Watched {
    let change = |change: &EntityChange| WatchedChange {
        entity: change.entity.name().to_owned(),
        id: change.handle.to_string(),
        change: change.kind,
    };
    Watched {
        serial: commit.serial,
        hash: commit.hash.to_string(),
        at: commit.at,
        changes: changes.iter().map(change).collect(),
        more,
    }
}

async fn transact(
    served: &Served,
    actor: ActorName,
    transaction: Transaction,
    to: &Answering,
) -> Result<Answered> {
    let committed = {
        let store = store(served)?.acting_as(to.actor(actor));
        store.transact(transaction).await?
    };
    let answered = || {
        let items = committed.value.iter().map(|reply| Frame::json(Kind::Item, reply));
        let items = items.collect::<Result<_>>()?;
        Ok(Answered { items, end: value(&committed.serial)?, is_stored: true })
    };
    answered().map_err(|error| untold(true, error))
}

async fn issue(served: &Served, actor: Actor, issue: Issue) -> Result<Answered> {
    let store = store(served)?.acting_as(actor);
    let (record, secret) = issue.carry_out(store.as_ref()).await?;
    let end = value(&Issued { record, secret: secret.expose().to_owned() });
    let end = end.map_err(|error| untold(true, error))?;
    Ok(Answered { items: Vec::new(), end, is_stored: true })
}

/// One at a time: each reads everything. It ends with its client.
async fn verify(served: &Served, to: &Answering) -> Result<()> {
    let _alone = to.counters.verifying.try_lock().map_err(|_| {
        Error::new(ErrorKind::Busy, "somebody has everything stored verified already")
            .with("help", "wait until that has ended, or end it")
    })?;
    store(served)?.verify().await
}
