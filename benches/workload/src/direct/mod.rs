//! Subjects that call a database directly, written by hand as a control plane without this store
//! would have it: one transaction for each write, or one that callers share.

pub mod sql;
mod sql_reads;
mod sql_schema;
mod sql_writes;

use std::future::Future;
use std::hint::black_box;
use std::sync::Arc;
use std::thread::JoinHandle;

use async_trait::async_trait;
use tokio::sync::{Mutex, mpsc, oneshot};

use crate::credential::{self, Purpose};
use crate::data;
use crate::rows::{AuditRow, Id, Machine, NodeRow};
use crate::subject::{Answer, Error, Read, Result, Subject, Write};
use crate::targets::now;

/// So many callers share a transaction at most, and so many wait at most.
const MOST_SHARING: usize = 1_024;
const MOST_WAITING: usize = 4_096;

/// A database as a direct subject uses it.
pub trait Engine: Send + Sync + 'static {
    /// Carries writes out in one transaction, and makes it durable. Gives the outcome of each; one
    /// that is refused leaves no trace, and does not disturb the others.
    fn commit(
        &self,
        writes: Vec<Write>,
        addresses: &mut Addresses,
    ) -> impl Future<Output = Result<Vec<Result<()>>>> + Send;

    fn answer(&self, read: &Read<'_>) -> impl Future<Output = Result<Answer>> + Send;

    fn count_nodes(&self) -> impl Future<Output = Result<u64>> + Send;

    /// Does what is put off, if anything.
    fn settle(&self) -> impl Future<Output = Result<()>> + Send;
}

/// The addresses of the mesh, allocated in memory; the database's unique indexes stand behind it.
#[derive(Debug, Default)]
pub struct Addresses {
    next: u64,
}

impl Addresses {
    /// Where so many nodes have theirs.
    pub fn after(nodes: u64) -> Self {
        Self { next: nodes }
    }

    /// Both addresses of the next node. They count as given only when [`Addresses::take`] is
    /// called.
    pub fn lowest_free(&self) -> (std::net::Ipv4Addr, std::net::Ipv6Addr) {
        data::addresses(self.next)
    }

    /// What was shown last is given away.
    pub fn take(&mut self) {
        self.next += 1;
    }

    /// So many further nodes have theirs.
    pub fn take_many(&mut self, nodes: usize) {
        self.next += nodes as u64;
    }
}

/// The row of a machine that is admitted now. `preauth_key` is the key that admits it.
pub fn admitted(
    machine: Machine,
    (user, preauth_key): (Id, Option<Id>),
    addresses: &Addresses,
) -> NodeRow {
    let at = now();
    let id = fresh_id(at, &machine.node_key);
    let mut node = data::signed_in(machine, (id, user), addresses.lowest_free(), at);
    if preauth_key.is_some() {
        node.register_method = "auth_key".to_owned();
        node.preauth_key = preauth_key;
    }
    node
}

/// The audit line of a registration.
pub fn registered(node: &NodeRow) -> AuditRow {
    AuditRow {
        id: fresh_id(node.created_at, &node.machine_key),
        at: node.created_at,
        actor: "system".to_owned(),
        action: "node.register".to_owned(),
        entity: "node".to_owned(),
        subject: node.label.clone(),
    }
}

/// A time-ordered identifier; its random part comes from a key that is random itself.
fn fresh_id(at: i64, key: &[u8; 32]) -> Id {
    let [a, b, c, d, e, f, g, h, ..] = *key;
    data::time_ordered(at, 14, u64::from_le_bytes([a, b, c, d, e, f, g, h]))
}

/// The parts of a credential's text.
pub fn presented(purpose: Purpose, text: &str) -> Result<(&str, &str)> {
    credential::split(purpose, text).ok_or_else(refused)
}

/// One refusal for every reason.
pub fn refused() -> Error {
    "the credential is not valid".into()
}

/// A write and who waits for it; nothing asks the thread to end.
type Waiting = Option<(Write, oneshot::Sender<Result<()>>)>;

enum Path {
    /// A transaction for each write.
    Alone(Mutex<Addresses>),
    /// To the thread that makes transactions of what waits.
    Shared(mpsc::Sender<Waiting>, Mutex<Option<JoinHandle<()>>>),
}

/// A subject on an engine.
pub struct Direct<E> {
    engine: Arc<E>,
    path: Path,
}

impl<E: Engine> Direct<E> {
    /// With a transaction, and so an fsync, for each write.
    pub async fn alone(engine: E) -> Result<Arc<dyn Subject>> {
        let next = engine.count_nodes().await?;
        let path = Path::Alone(Mutex::new(Addresses::after(next)));
        Ok(Arc::new(Self { engine: Arc::new(engine), path }))
    }

    /// With transactions that callers share: a thread takes what waits, and answers all of them
    /// when it is durable.
    pub async fn batched(engine: E) -> Result<Arc<dyn Subject>> {
        let next = engine.count_nodes().await?;
        let engine = Arc::new(engine);
        let (sender, receiver) = mpsc::channel(MOST_WAITING);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let theirs = engine.clone();
        let thread = std::thread::Builder::new().name("batches".to_owned()).spawn(move || {
            runtime.block_on(make_batches(theirs, receiver, Addresses::after(next)));
        })?;
        Ok(Arc::new(Self { engine, path: Path::Shared(sender, Mutex::new(Some(thread))) }))
    }
}

async fn make_batches<E: Engine>(
    engine: Arc<E>,
    mut waiting: mpsc::Receiver<Waiting>,
    mut addresses: Addresses,
) {
    let mut batch = Vec::new();
    while waiting.recv_many(&mut batch, MOST_SHARING).await > 0 {
        let ends = batch.iter().any(Option::is_none);
        let (writes, callers): (Vec<_>, Vec<_>) = batch.drain(..).flatten().unzip();
        let outcomes = engine.commit(writes, &mut addresses).await;
        let outcomes = outcomes.unwrap_or_else(|error| {
            let text = error.to_string();
            callers.iter().map(|_| Err(text.clone().into())).collect()
        });
        for (caller, outcome) in callers.into_iter().zip(outcomes) {
            // Whoever does not wait any more does not want to know.
            let _ = caller.send(outcome);
        }
        if ends {
            return;
        }
    }
}

#[async_trait]
impl<E: Engine> Subject for Direct<E> {
    async fn write(&self, write: Write) -> Result<()> {
        match &self.path {
            Path::Alone(addresses) => {
                let mut addresses = addresses.lock().await;
                let outcomes = self.engine.commit(vec![write], &mut addresses).await?;
                outcomes.into_iter().collect()
            }
            Path::Shared(batches, _) => {
                let (answer, answered) = oneshot::channel();
                let sent = batches.send(Some((write, answer))).await;
                sent.map_err(|_| "the batches' thread stopped")?;
                answered.await?
            }
        }
    }

    async fn read(&self, read: &Read<'_>) -> Result<u64> {
        Ok(black_box(self.engine.answer(read).await?).items())
    }

    async fn answer(&self, read: &Read<'_>) -> Result<Answer> {
        self.engine.answer(read).await
    }

    async fn settle(&self) -> Result<()> {
        self.engine.settle().await
    }

    async fn close(&self) -> Result<()> {
        if let Path::Shared(batches, thread) = &self.path
            && let Some(thread) = thread.lock().await.take()
        {
            // It may have ended by itself.
            let _ = batches.send(None).await;
            let joined = tokio::task::spawn_blocking(move || thread.join()).await?;
            joined.map_err(|_| "the batches' thread stopped")?;
        }
        // The files are closed when this is dropped.
        Ok(())
    }
}
