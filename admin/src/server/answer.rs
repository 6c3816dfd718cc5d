//! What each request comes to.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use futures_util::StreamExt;
use ghostwire_store_core::Store;
use ghostwire_store_core::backend::{KeyRange, Scan};
use ghostwire_store_core::block::Serial;
use ghostwire_store_core::changes::CommitChanges;
use ghostwire_store_core::command::Transaction;
use ghostwire_store_core::domain::{Actor, ActorName};
use ghostwire_store_core::error::{Error, ErrorKind, Result};
use ghostwire_store_core::schema::{RowKey, Table};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{Counters, Served};
use crate::protocol::{
    Frame, Issue, Issued, KeysRequest, Kind, Method, ScanRequest, Scanned, Watched, WatchedChange,
    Wire, WireAttestation, WireDigests, WireHead, WireInfo,
};

/// Rows that are read at a time at most, whatever is asked for.
const ROWS_PER_READ: usize = 1024;
/// Blocks that are read at a time at most.
const BLOCKS_PER_READ: usize = 16;
/// A frame of data is about this long.
const DATA: usize = 64 * 1024;

/// How many are read at a time: fewer if they are long, since so many are held for a client that is slow. A
/// backend counts rows and blocks, not bytes, so the next page goes by the longest of the one before.
struct PageSize {
    count: usize,
    most: usize,
}

impl PageSize {
    /// A page has about so many bytes.
    const BYTES: usize = 1 << 20;

    fn of(first: usize, most: usize) -> Self {
        Self { count: first, most }
    }

    /// A page was read: its longest has so many bytes.
    fn seen(&mut self, longest: usize) {
        let fitting = Self::BYTES / longest.max(1);
        self.count = fitting.min(self.count * 2).clamp(1, self.most);
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
    counters: Arc<Counters>,
}

impl Answering {
    pub(super) fn new(
        frames: mpsc::Sender<Frame>,
        user: Option<u32>,
        counters: Arc<Counters>,
    ) -> Self {
        Self { frames, user, counters }
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
        Method::Status => status(served, to),
        Method::Health => served.hooks.health().await,
        Method::Metrics => served.hooks.metrics().await.map(Value::String),
        Method::Digests => value(&WireDigests::from(store(served)?.digests().await?)),
        Method::Verify => store(served)?.verify().await.map(|()| Value::Null),
        Method::Attest => value(&WireAttestation::from(store(served)?.attest().await?)),
        Method::Checkpoint => value(&store(served)?.checkpoint().await?),
        Method::Probe => {
            let took = store(served)?.probe().await?;
            value(&u64::try_from(took.as_micros()).unwrap_or(u64::MAX))
        }
        Method::Watch { after } => watch(served, after, to).await,
        Method::RemoveConsumer { name } => {
            store(served)?.consumers().remove(&name).await.map(|_| Value::Null)
        }
        Method::Keys(request) => keys(served, request).await,
        Method::Reload => served.hooks.reload().await,
        Method::LogLevel { level, seconds } => {
            let period = seconds.map(Duration::from_secs);
            served.hooks.set_log_level(&level, period).await.map(|()| Value::Null)
        }
        Method::Backup | Method::Migrate | Method::Transact { .. } | Method::Issue { .. } => {
            Err(Error::new(
                ErrorKind::Unsupported,
                "this release cannot do that while the store is open",
            )
            .with("method", method.name()))
        }
    }
}

/// A handle for the time of one request.
fn store(served: &Served) -> Result<Arc<dyn Store>> {
    served.store.upgrade().ok_or_else(|| Error::new(ErrorKind::Unavailable, "the store is closed"))
}

fn value(of: &impl Serialize) -> Result<Value> {
    serde_json::to_value(of).map_err(|error| {
        Error::new(ErrorKind::Unexpected, "an answer has no JSON form").because(error)
    })
}

/// Rows, a page at a time; what is held of the store ends with each page.
async fn scan(served: &Served, request: ScanRequest, to: &Answering) -> Result<Value> {
    let mut range = range_of(&request)?;
    let mut left = usize::try_from(request.limit).unwrap_or(usize::MAX);
    let mut gathered = BytesMut::new();
    let mut size = PageSize::of(64, ROWS_PER_READ);
    loop {
        let limit = left.min(size.count);
        let scan = Scan { range: range.clone(), reverse: request.reverse, limit };
        let page = served.backend.scan(scan).await?;
        left -= page.rows.len().min(left);
        size.seen(page.rows.iter().map(|row| row.body.len()).max().unwrap_or_default());
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

async fn blocks(served: &Served, after: Serial, limit: u32, to: &Answering) -> Result<Value> {
    let (mut after, mut left) = (after, usize::try_from(limit).unwrap_or(usize::MAX));
    let mut gathered = BytesMut::new();
    let mut size = PageSize::of(1, BLOCKS_PER_READ);
    loop {
        let wanted = left.min(size.count);
        let page = served.backend.blocks(after, wanted).await?;
        size.seen(page.iter().map(|block| block.bytes.len()).max().unwrap_or_default());
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
        to.item(&watched(commit?)).await?;
    }
    Ok(Value::Null)
}

fn watched(commit: CommitChanges) -> Watched {
    let change = |change: &ghostwire_store_core::changes::EntityChange| WatchedChange {
        entity: change.entity.name().to_owned(),
        id: change.handle.to_string(),
        change: change.kind,
    };
    Watched {
        serial: commit.serial,
        hash: commit.hash.to_string(),
        at: commit.at,
        changes: commit.changes.iter().map(change).collect(),
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

async fn keys(served: &Served, request: KeysRequest) -> Result<Value> {
    let keys = store(served)?.keys()?;
    let keyring = match request {
        KeysRequest::List => keys.list().await,
        KeysRequest::Rotate(rotation) => keys.rotate(rotation).await,
        KeysRequest::RotateFrom { from, rotation } => keys.rotate_from(from, rotation).await,
        KeysRequest::AddRecipient { recipient, label } => {
            keys.add_recipient(&recipient, &label).await
        }
        KeysRequest::RemoveRecipient { fingerprint } => keys.remove_recipient(&fingerprint).await,
        KeysRequest::Destroy { version } => keys.destroy(version).await,
    }?;
    Ok(json!({ "keyring": keyring, "resealed": keys.progress() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_long_rows_have_few_of_them() {
        let mut size = PageSize::of(64, 1024);
        for (longest, count) in
            [(100, 128), (100, 256), (100, 512), (100, 1024), (0, 1024), (4 << 20, 1), (100, 2)]
        {
            size.seen(longest);
            assert_eq!(size.count, count);
        }
    }
}
