//! A place for a store on each backend.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;

use ghostwire_store::config::*;
use ghostwire_store::domain::*;
use ghostwire_store::{Opener, Store};
use ghostwire_store_core::backend::{Backend, Commit};
use ghostwire_store_core::block::{BlockBuilder, BlockHash, ChangeKind, RowChange, Serial};
use ghostwire_store_core::schema::Schema;

/// A scratch place, and the configuration of the store in it.
pub struct Site {
    pub config: Config,
    directory: tempfile::TempDir,
    #[cfg(feature = "memory")]
    memory: Option<ghostwire_store_memory::MemoryBackend>,
}

impl std::fmt::Debug for Site {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.config.backend)
    }
}

impl Site {
    /// One for every backend that is compiled in, in each way of materialising.
    pub fn all() -> Vec<Self> {
        let mut sites = Vec::new();
        for materialize in [Materialize::Commit, Materialize::Checkpoint] {
            if cfg!(feature = "libsql") {
                sites.push(Self::at(|directory| {
                    let path = directory.join("libsql.db");
                    BackendChoice::Libsql(LibsqlOptions { path, materialize })
                }));
            }
            if cfg!(feature = "zqlite") {
                sites.push(Self::at(|directory| {
                    let path = directory.join("zqlite.db");
                    let engine = ZqliteEngine::Embedded;
                    let options = ZqliteOptions { path, engine, materialize, ..Default::default() };
                    BackendChoice::Zqlite(options)
                }));
            }
        }
        if cfg!(feature = "zqlite") {
            sites.push(Self::at(|directory| {
                let path = directory.join("plain.db");
                BackendChoice::Zqlite(ZqliteOptions { path, sealed: false, ..Default::default() })
            }));
        }
        if cfg!(feature = "memory") {
            sites.push(Self::at(|_| BackendChoice::Memory));
        }
        sites
    }

    /// Those whose hash key has a file beside the store.
    pub fn with_key_files() -> impl Iterator<Item = Self> {
        let has_file =
            |site: &Self| site.config.backend.path().is_some() && !site.config.is_sealed();
        Self::all().into_iter().filter(has_file)
    }

    fn at(backend: impl FnOnce(&Path) -> BackendChoice) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = Config { backend: backend(directory.path()), ..Config::default() };
        Self {
            config,
            directory,
            #[cfg(feature = "memory")]
            memory: None,
        }
    }

    /// Opens the store; on memory, the one that was open before.
    pub async fn open(&mut self) -> Arc<dyn Store> {
        #[cfg(feature = "memory")]
        if matches!(self.config.backend, BackendChoice::Memory) {
            use ghostwire_store_core::options::StoreOptions;
            use ghostwire_store_core::secrets::HashKey;
            let id = StoreId::from_bytes([7; 16]);
            let memory = self
                .memory
                .get_or_insert_with(|| ghostwire_store_memory::MemoryBackend::new(id))
                .clone();
            let options = StoreOptions {
                hash_key: Some(Arc::new(HashKey::new([3; 32]).into())),
                ..StoreOptions::default()
            };
            return ghostwire_store_core::store::open(Arc::new(memory), options).await.unwrap();
        }
        Opener::new(&self.config).open().await.unwrap()
    }

    /// Chooses when rows are written.
    pub fn materialize(&mut self, materialize: Materialize) {
        match &mut self.config.backend {
            BackendChoice::Libsql(options) => options.materialize = materialize,
            BackendChoice::Zqlite(options) => options.materialize = materialize,
            _ => {}
        }
    }

    /// As after a crash: the files are copied while the store is open, and the copy is opened.
    pub async fn reopen_without_closing(&mut self, store: Arc<dyn Store>) -> Arc<dyn Store> {
        if self.config.backend.path().is_none() {
            drop(store);
            return self.open().await;
        }
        let mut site = self.crashed(store);
        std::mem::swap(self, &mut site);
        self.open().await
    }

    /// A site with the files as they are while the store is open.
    pub fn crashed(&self, store: Arc<dyn Store>) -> Self {
        let path = self.config.backend.path().unwrap().to_owned();
        let copy = tempfile::tempdir().unwrap();
        for suffix in ["", "-wal", ".key", ".keyring", ".root"] {
            let name = format!("{}{suffix}", path.file_name().unwrap().to_str().unwrap());
            let from = path.with_file_name(&name);
            if from.exists() {
                std::fs::copy(from, copy.path().join(name)).unwrap();
            }
        }
        drop(store);
        let mut config = self.config.clone();
        let copied = copy.path().join(path.file_name().unwrap());
        match &mut config.backend {
            BackendChoice::Libsql(options) => options.path = copied,
            BackendChoice::Zqlite(options) => options.path = copied,
            _ => {}
        }
        Self {
            config,
            directory: copy,
            #[cfg(feature = "memory")]
            memory: None,
        }
    }
}

/// Points a configuration at another file.
pub fn move_to(config: &mut Config, path: std::path::PathBuf) {
    match &mut config.backend {
        BackendChoice::Libsql(options) => options.path = path,
        BackendChoice::Zqlite(options) => {
            // Those of the first place go on.
            if options.sealed {
                let beside = |suffix: &str| format!("{}{suffix}", options.path.display()).into();
                options.keyring_file.get_or_insert_with(|| beside(".keyring"));
                options.root.secret_file.get_or_insert_with(|| beside(".root"));
            }
            options.path = path;
        }
        _ => {}
    }
}

/// A block and a row as the first schema wrote them: a DNS record without its later columns.
pub async fn write_as_version_1(backend: &dyn Backend) {
    let at = SystemClock.now();
    let record = DnsRecord {
        id: DnsRecordId::time_ordered(at, [1; 10]),
        name: "wiki.example.com".parse().unwrap(),
        kind: DnsRecordKind::A,
        value: "10.0.0.1".parse().unwrap(),
        ttl: None,
        created_at: at,
        updated_at: at,
        revision: Revision::FIRST,
    };
    let mut builder = BlockBuilder::default();
    builder.put(ChangeKind::Created, &record);
    let serial = Serial::ZERO.next();
    let id = BlockId::time_ordered(at, [2; 10]);
    let closed = builder.finish(serial, id, BlockHash::GENESIS, at).unwrap();
    let schema = Schema::at(1).unwrap();
    let rows = closed
        .changes
        .into_iter()
        .map(|change| RowChange {
            body: change.body.map(|body| schema.fit(change.table, &body).unwrap()),
            ..change
        })
        .collect();
    let block = Some(closed.block);
    let commit = Commit { block, rows, checkpoint: Some(serial), ..Commit::default() };
    backend.commit(&commit).await.unwrap();
}

/// A machine that wants to register.
pub fn registration(n: u8, admission: Admission) -> Registration {
    Registration {
        machine_key: MachineKey::from_bytes([n; 32]).unwrap(),
        node_key: NodeKey::from_bytes([n; 32]).unwrap(),
        disco_key: None,
        hostname: format!("machine-{n}").parse().unwrap(),
        host_info: HostInfo::default(),
        admission,
        expires_at: None,
        families: None,
    }
}
