//! What is measured: anything that does a control plane's storage work.

use std::future::Future;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::rows::{
    AuditRow, EndpointRow, Id, Key, Machine, NodeRow, PointRow, PresenceRow, RouteRow, Rows,
    UserRow,
};

/// What went wrong, in the subject's words.
pub type Error = Box<dyn std::error::Error + Send + Sync>;
/// With the subject's error.
pub type Result<T> = std::result::Result<T, Error>;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    pub name: String,
    pub backend: String,
    /// When this store writes its tables; for others `-`.
    pub materialize: String,
    /// What has happened when a write is answered.
    pub durability: String,
    /// Whether callers share a commit; otherwise each has its own fsync.
    pub shares_commits: bool,
    /// Whose memory allocator it runs on.
    pub allocator: String,
}

#[derive(Debug, Clone)]
pub enum Write {
    /// Admits a machine: checks the pre-auth key's text and uses it up (without one, its user
    /// signed in), gives it the lowest free addresses, stores node and audit line.
    Register {
        machine: Box<Machine>,
        preauth_key: Option<String>,
        user: Id,
    },
    /// A sign of life, and maybe new endpoints.
    Heartbeat {
        node: Id,
        at: i64,
        endpoints: Option<Vec<EndpointRow>>,
    },
    Audit(AuditRow),
    /// Points, all or none.
    Metrics(Vec<PointRow>),
    /// Rows of one kind, all or none.
    Load(Rows),
    /// Audit lines, all or none.
    LoadAudit(Vec<AuditRow>),
}

#[derive(Debug, Clone)]
pub enum Read<'a> {
    NodeById(Id),
    NodeByKey(&'a Key),
    NodeByLabel(&'a str),
    /// All nodes that are online, by id, in pages of 1,000.
    OnlineNodes,
    /// What one node needs to know: all nodes with presence, routes in use, users, policy.
    NetMap(Id),
    /// The policy in force, the users, and of each node id, owner, tags and addresses.
    PolicyInput,
    /// The primary route with the longest prefix that contains the address.
    Route(Ipv4Addr),
    /// Whether this text is an API key that may be used.
    ApiKey(&'a str),
    /// All points of a node's metric, `from <= at < to`, in pages of 1,000.
    MetricRange {
        node: Id,
        from: i64,
        to: i64,
    },
    /// The newest 100 audit lines, `from <= at < to`.
    AuditPage {
        from: i64,
        to: i64,
    },
    /// Nothing: what the harness itself costs.
    Nothing,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    Node(Option<Box<NodeRow>>),
    Nodes(Vec<NodeRow>),
    NetMap(Box<NetMapAnswer>),
    Policy(Box<PolicyAnswer>),
    Route(Option<RouteRow>),
    Valid(bool),
    Points(Vec<PointRow>),
    Audit(Vec<AuditRow>),
    Nothing,
}

/// Everything from which one node's network map follows.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct NetMapAnswer {
    pub peers: Vec<(NodeRow, Option<PresenceRow>)>,
    pub routes: Vec<RouteRow>,
    pub users: Vec<UserRow>,
    pub document: String,
}

/// What evaluating a policy needs of a node: id, owner, tags, addresses.
pub type Principal = (Id, Option<Id>, Vec<String>, Option<Ipv4Addr>, Option<std::net::Ipv6Addr>);

/// Everything from which a policy is evaluated.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PolicyAnswer {
    pub document: String,
    pub users: Vec<UserRow>,
    pub nodes: Vec<Principal>,
}

impl Answer {
    pub fn items(&self) -> u64 {
        let items = match self {
            Self::Node(node) => usize::from(node.is_some()),
            Self::Nodes(nodes) => nodes.len(),
            Self::NetMap(map) => map.peers.len(),
            Self::Policy(policy) => policy.nodes.len(),
            Self::Route(route) => usize::from(route.is_some()),
            Self::Valid(valid) => usize::from(*valid),
            Self::Points(points) => points.len(),
            Self::Audit(lines) => lines.len(),
            Self::Nothing => 0,
        };
        items as u64
    }
}

/// How far the work that a subject does beside its callers has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Progress {
    pub groups: u64,
    /// Checkpoints that were completed since the store was opened.
    pub checkpoints: u64,
    /// Dirty rows that wait to be flushed.
    pub debt: u64,
}

/// Something that does the work.
#[async_trait]
pub trait Subject: Send + Sync {
    /// Carries a write out. It is durable when this returns, unless the subject says otherwise.
    async fn write(&self, write: Write) -> Result<()>;

    /// Carries a read out, in the form that a caller of this subject works with, and gives how
    /// many rows it found.
    async fn read(&self, read: &Read<'_>) -> Result<u64>;

    async fn answer(&self, read: &Read<'_>) -> Result<Answer>;

    /// How far it is, if it puts work off.
    fn progress(&self) -> Option<Progress> {
        None
    }

    /// The processor time that the database server has taken so far, if it is on this machine.
    fn server_cpu(&self) -> Option<Duration> {
        None
    }

    /// Does what it put off.
    async fn settle(&self) -> Result<()>;

    async fn close(&self) -> Result<()>;

    /// The mean bytes of the blocks that it kept, if it makes groups durable as blocks. To be
    /// asked after closing.
    async fn block_bytes(&self) -> Result<Option<f64>> {
        Ok(None)
    }
}

type Opening = Pin<Box<dyn Future<Output = Result<Arc<dyn Subject>>> + Send>>;

/// Who can be measured, and how to open it.
#[derive(Clone)]
pub struct Candidate {
    pub about: About,
    open: Arc<dyn Fn(PathBuf) -> Opening + Send + Sync>,
}

impl std::fmt::Debug for Candidate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Candidate").field("about", &self.about).finish_non_exhaustive()
    }
}

impl Candidate {
    /// One whose files lie in the directory that `open` is given.
    pub fn new<F>(about: About, open: impl Fn(PathBuf) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Arc<dyn Subject>>> + Send + 'static,
    {
        let open = Arc::new(move |path| Box::pin(open(path)) as Opening);
        Self { about, open }
    }

    pub async fn open(&self, directory: PathBuf) -> Result<Arc<dyn Subject>> {
        (self.open)(directory).await
    }
}

/// Loads everything that is to be there before measuring.
pub async fn load(subject: &dyn Subject, content: crate::Content) -> Result<()> {
    for rows in content.chunks() {
        subject.write(Write::Load(rows)).await?;
    }
    for points in content.point_batches() {
        subject.write(Write::Metrics(points)).await?;
    }
    for lines in content.audit_batches() {
        subject.write(Write::LoadAudit(lines)).await?;
    }
    subject.settle().await
}
