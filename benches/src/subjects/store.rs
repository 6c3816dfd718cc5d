//! This store, as a control plane calls it: through `dyn Store`.

use std::hint::black_box;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use ghostwire_store::command::Restore;
use ghostwire_store::config::{BackendChoice, Config};
use ghostwire_store::domain::{
    Admission, AuditQuery, Limit, MetricPoint, MetricQuery, Node, NodeFilter, NodeId, NodeKey,
    Page, PageRequest, RegisterMethod, SessionNumber, Timestamp, Update, UserId,
};
use ghostwire_store::{ErrorKind, Opener, Store, create_hash_key, hash_key_is_absent};
use ghostwire_store_bench_workload::credential::HASH_KEY;
use ghostwire_store_bench_workload::data::METRIC;
#[cfg(feature = "postgres")]
use ghostwire_store_bench_workload::machine::Postmaster;
use ghostwire_store_bench_workload::subject::{
    Answer, PolicyAnswer, Progress, Read, Result, Write,
};
use ghostwire_store_bench_workload::{Subject, rows::Id};
use ghostwire_store_core::block::Serial;
use ghostwire_store_core::secrets::HashKey;
use tempfile::TempDir;

use super::{answers, images};
use crate::Target;

const FILE: &str = "store.db";

/// The bytes of the hash key, where they are known.
struct KnownKey;

impl ghostwire_store::entropy::Entropy for KnownKey {
    fn fill(&self, bytes: &mut [u8]) -> ghostwire_store::Result<()> {
        bytes.iter_mut().zip(HASH_KEY.iter().cycle()).for_each(|(to, from)| *to = *from);
        Ok(())
    }
}

/// Opens a store in this directory as a program would, with its default options. A new one gets
/// the key with which the workload hashes credentials.
async fn open_with_known_key(
    config: &Config,
    directory: &Path,
) -> ghostwire_store::Result<Arc<dyn Store>> {
    let key = directory.join(format!("{FILE}.key"));
    if hash_key_is_absent(&key)? {
        create_hash_key(&key, &KnownKey)?;
    }
    Opener::new(config).open().await
}

/// The pins of stores lie in `pins`, or beside them.
fn config(target: Target, directory: &Path, pins: Option<&Path>) -> Config {
    let mut backend = target.backend(&directory.join(FILE));
    if let (BackendChoice::Zqlite(options), Some(pins)) = (&mut backend, pins) {
        options.pin_file = directory.file_name().map(|name| pins.join(name));
        options.pin_same_device = false;
    }
    Config {
        backend,
        secret_key_file: Some(directory.join(format!("{FILE}.key"))),
        ..Config::default()
    }
}

/// All items of a listing, 1,000 at a time.
async fn all_pages<T, F>(list: impl Fn(PageRequest) -> F) -> Result<Vec<T>>
where
    F: Future<Output = ghostwire_store::Result<Page<T>>>,
{
    let limit = Limit::new(1000)?;
    let mut items = Vec::new();
    let mut request = PageRequest::first(limit);
    loop {
        let page = list(request).await?;
        items.extend(page.items);
        match page.next {
            Some(cursor) => request = PageRequest::after(limit, cursor),
            None => return Ok(items),
        }
    }
}

pub(crate) struct OfStore {
    /// It has no checkpoints but its commits.
    flushes_with_commits: bool,
    has_blocks: bool,
    config: Config,
    _pins: Option<Arc<TempDir>>,
    #[cfg(feature = "postgres")]
    postmaster: Option<Postmaster>,
    store: Arc<dyn Store>,
    key: HashKey,
}

impl OfStore {
    /// A store on a PostgreSQL server, whose key lies in this directory.
    #[cfg(feature = "postgres")]
    pub(crate) async fn on_server(
        mut config: Config,
        directory: PathBuf,
        postmaster: Option<Postmaster>,
    ) -> Result<Self> {
        config.secret_key_file = Some(directory.join(format!("{FILE}.key")));
        let store = open_with_known_key(&config, &directory).await?;
        let (flushes_with_commits, has_blocks) = (true, true);
        let key = HashKey::new(HASH_KEY);
        Ok(Self { flushes_with_commits, has_blocks, config, _pins: None, postmaster, store, key })
    }

    /// The store itself, for what is no operation of the workload.
    #[cfg(feature = "postgres")]
    pub(crate) fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    pub(super) async fn open(
        target: Target,
        directory: PathBuf,
        pins: Option<Arc<TempDir>>,
    ) -> Result<Self> {
        let config = config(target, &directory, pins.as_deref().map(TempDir::path));
        let store = open_with_known_key(&config, &directory).await?;
        Ok(Self {
            flushes_with_commits: target == Target::LibsqlCommit,
            has_blocks: target != Target::Memory,
            config,
            _pins: pins,
            #[cfg(feature = "postgres")]
            postmaster: None,
            store,
            key: HashKey::new(HASH_KEY),
        })
    }

    async fn find(&self, read: &Read<'_>) -> Result<Option<Arc<Node>>> {
        let nodes = self.store.nodes();
        Ok(match read {
            Read::NodeById(id) => nodes.get(NodeId::from_bytes(*id)).await?,
            Read::NodeByKey(key) => nodes.get_by_node_key(&NodeKey::from_bytes(**key)?).await?,
            Read::NodeByLabel(label) => nodes.get_by_label(&label.parse()?).await?,
            _ => None,
        })
    }

    async fn online(&self) -> Result<Vec<Arc<Node>>> {
        let filter = &NodeFilter { online: Some(true), ..NodeFilter::default() };
        all_pages(|request| async move { self.store.nodes().list(filter, &request).await }).await
    }

    async fn points(&self, (node, from, to): (Id, i64, i64)) -> Result<Vec<MetricPoint>> {
        let query = &MetricQuery {
            node: Some(Some(NodeId::from_bytes(node))),
            metric: Some(METRIC.parse()?),
            from: Timestamp::from_micros(from)?,
            to: Timestamp::from_micros(to)?,
        };
        all_pages(|request| async move { self.store.metrics().range(query, &request).await }).await
    }

    async fn newest_lines(
        &self,
        (from, to): (i64, i64),
    ) -> Result<Vec<Arc<ghostwire_store::domain::AuditEntry>>> {
        let query = AuditQuery {
            from: Some(Timestamp::from_micros(from)?),
            to: Some(Timestamp::from_micros(to)?),
            newest_first: true,
            ..AuditQuery::default()
        };
        let request = PageRequest::first(Limit::new(100)?);
        Ok(self.store.audit().query(&query, &request).await?.items)
    }

    async fn is_valid(&self, text: &str) -> Result<bool> {
        match self.store.api_keys().authenticate(text).await {
            Ok(_) => Ok(true),
            Err(error) if *error.kind() == ErrorKind::PermissionDenied => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// What evaluating a policy needs, from one snapshot.
    fn policy_input(&self) -> PolicyAnswer {
        let view = self.store.view();
        let policy = view.policies().current();
        PolicyAnswer {
            document: policy.map(|policy| policy.document.as_str().to_owned()).unwrap_or_default(),
            users: view.users().iter().map(|user| answers::user(user)).collect(),
            nodes: view
                .nodes()
                .iter()
                .map(|node| {
                    let user = node.user.map(|user| *user.as_bytes());
                    let tags = node.tags.iter().map(ToString::to_string).collect();
                    (*node.id.as_bytes(), user, tags, node.ipv4, node.ipv6)
                })
                .collect(),
        }
    }
}

#[async_trait]
impl Subject for OfStore {
    async fn write(&self, write: Write) -> Result<()> {
        match write {
            Write::Register { machine, preauth_key, user } => {
                let admission = match preauth_key {
                    Some(text) => {
                        let key = self.store.preauth_keys().authenticate(&text).await?;
                        Admission::PreAuthKey(key.id)
                    }
                    None => Admission::User {
                        user: UserId::from_bytes(user),
                        method: RegisterMethod::Oidc,
                    },
                };
                let registration = images::registration(*machine, admission)?;
                self.store.nodes().register(registration).await?;
            }
            Write::Heartbeat { node, at: _, endpoints } => {
                let endpoints = match endpoints {
                    Some(endpoints) => Update::Set(images::endpoints(endpoints)?),
                    None => Update::Keep,
                };
                let (node, session) = (NodeId::from_bytes(node), SessionNumber::new(1)?);
                self.store.presence().heartbeat(node, session, endpoints).await?;
            }
            Write::Audit(line) => self.store.audit().append(images::entries(vec![line])?).await?,
            Write::LoadAudit(lines) => self.store.audit().append(images::entries(lines)?).await?,
            Write::Metrics(points) => {
                self.store.metrics().record_many(images::points(points)?).await?;
            }
            Write::Load(rows) => {
                let images = images::images(rows, &self.key)?;
                self.store.restore(Restore { images, skip_invalid: false }).await?;
            }
        }
        Ok(())
    }

    async fn read(&self, read: &Read<'_>) -> Result<u64> {
        let found = match read {
            Read::NodeById(_) | Read::NodeByKey(_) | Read::NodeByLabel(_) => {
                usize::from(black_box(self.find(read).await?).is_some())
            }
            Read::OnlineNodes => black_box(self.online().await?).len(),
            Read::NetMap(node) => {
                let map = black_box(self.store.view().netmap(NodeId::from_bytes(*node)));
                map.map_or(0, |map| map.peer_count())
            }
            Read::PolicyInput => black_box(self.policy_input()).nodes.len(),
            Read::Route(address) => {
                let route = self.store.routes().lookup(IpAddr::V4(*address)).await?;
                usize::from(black_box(route).is_some())
            }
            Read::ApiKey(text) => usize::from(self.is_valid(text).await?),
            Read::MetricRange { node, from, to } => {
                black_box(self.points((*node, *from, *to)).await?).len()
            }
            Read::AuditPage { from, to } => black_box(self.newest_lines((*from, *to)).await?).len(),
            Read::Nothing => 0,
        };
        Ok(found as u64)
    }

    async fn answer(&self, read: &Read<'_>) -> Result<Answer> {
        Ok(match read {
            Read::NodeById(_) | Read::NodeByKey(_) | Read::NodeByLabel(_) => {
                let found = self.find(read).await?;
                Answer::Node(found.map(|node| Box::new(answers::node(&node))))
            }
            Read::OnlineNodes => {
                Answer::Nodes(self.online().await?.iter().map(|node| answers::node(node)).collect())
            }
            Read::NetMap(node) => {
                let map = self.store.view().netmap(NodeId::from_bytes(*node));
                let map = map.as_ref().map(answers::net_map).transpose()?;
                Answer::NetMap(Box::new(map.unwrap_or_default()))
            }
            Read::PolicyInput => Answer::Policy(Box::new(self.policy_input())),
            Read::Route(address) => {
                let route = self.store.routes().lookup(IpAddr::V4(*address)).await?;
                Answer::Route(route.as_deref().map(answers::route).transpose()?)
            }
            Read::ApiKey(text) => Answer::Valid(self.is_valid(text).await?),
            Read::MetricRange { node, from, to } => {
                let points = self.points((*node, *from, *to)).await?;
                Answer::Points(points.iter().map(answers::point).collect())
            }
            Read::AuditPage { from, to } => {
                let lines = self.newest_lines((*from, *to)).await?;
                Answer::Audit(lines.iter().map(|line| answers::line(line)).collect())
            }
            Read::Nothing => Answer::Nothing,
        })
    }

    fn progress(&self) -> Option<Progress> {
        let info = self.store.info();
        // A store that flushes with every commit has no other checkpoints.
        let checkpoints = if self.flushes_with_commits { info.groups } else { info.checkpoints };
        Some(Progress { groups: info.groups, checkpoints, debt: info.dirty_rows })
    }

    #[cfg(feature = "postgres")]
    fn server_cpu(&self) -> Option<std::time::Duration> {
        self.postmaster.map(Postmaster::cpu)
    }

    async fn settle(&self) -> Result<()> {
        self.store.checkpoint().await?;
        Ok(())
    }

    async fn close(&self) -> Result<()> {
        Ok(self.store.close().await?)
    }

    async fn block_bytes(&self) -> Result<Option<f64>> {
        if !self.has_blocks {
            return Ok(None);
        }
        let backend = Opener::new(&self.config).read_only(true).open_backend().await?;
        let head = backend.head().await?;
        // The newest ones, all of which are kept.
        let after = Serial::new(head.serial.get().saturating_sub(64));
        let blocks = backend.blocks(after, 64).await?;
        backend.close().await?;
        let bytes: usize = blocks.iter().map(|block| block.bytes.len()).sum();
        Ok((!blocks.is_empty()).then(|| bytes as f64 / blocks.len() as f64))
    }
}
