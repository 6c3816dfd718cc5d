//! A store in memory that is served on a socket of its own.

use std::path::PathBuf;
use std::sync::Arc;

use ghostwire_store_admin::{AdminSocket, Client, Hooks, NoHooks, Served, SocketOptions};
use ghostwire_store_core::backend::Backend;
use ghostwire_store_core::domain::{AuditEntry, AuditQuery, Limit, NewUser, PageRequest, StoreId};
use ghostwire_store_core::keys::KeyManager;
use ghostwire_store_core::options::StoreOptions;
use ghostwire_store_core::schema::Schema;
use ghostwire_store_core::secrets::HashKey;
use ghostwire_store_core::{Store, store};
use ghostwire_store_memory::MemoryBackend;

pub(crate) struct World {
    _directory: tempfile::TempDir,
    pub(crate) socket: PathBuf,
    pub(crate) backend: Arc<dyn Backend>,
    store: Option<Arc<dyn Store>>,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(|_| ()).await
    }

    pub(crate) async fn with(adjust: impl FnOnce(&mut SocketOptions)) -> Self {
        Self::open(Arc::new(NoHooks), adjust).await
    }

    pub(crate) async fn with_hooks(hooks: Arc<dyn Hooks>) -> Self {
        Self::open(hooks, |_| ()).await
    }

    pub(crate) async fn on(backend: Arc<dyn Backend>) -> Self {
        Self::open_on(backend, None, Arc::new(NoHooks), |_| ()).await
    }

    pub(crate) fn memory() -> Arc<dyn Backend> {
        Arc::new(MemoryBackend::at_schema(StoreId::from_bytes([1; 16]), Schema::current()))
    }

    async fn open(hooks: Arc<dyn Hooks>, adjust: impl FnOnce(&mut SocketOptions)) -> Self {
        Self::open_on(Self::memory(), None, hooks, adjust).await
    }

    pub(crate) async fn open_on(
        backend: Arc<dyn Backend>,
        keys: Option<Arc<dyn KeyManager>>,
        hooks: Arc<dyn Hooks>,
        adjust: impl FnOnce(&mut SocketOptions),
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("store.sock");
        let mut options = SocketOptions::new(&socket);
        adjust(&mut options);
        let admin = AdminSocket::new();
        let store_options = StoreOptions {
            companions: vec![admin.clone()],
            hash_key: Some(Arc::new(HashKey::new([7; 32]).into())),
            keys,
            ..StoreOptions::default()
        };
        let store = store::open(backend.clone(), store_options).await.unwrap();
        let served =
            Served { store: store.downgrade(), backend: backend.clone(), hooks, migrations: None };
        admin.serve(served, options).await.unwrap();
        Self { _directory: directory, socket, backend, store: Some(store) }
    }

    pub(crate) fn store(&self) -> &dyn Store {
        self.store.as_deref().unwrap()
    }

    pub(crate) fn drop_store(&mut self) {
        self.store = None;
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(&self.socket).await.unwrap()
    }

    pub(crate) async fn create(&self, name: &str) {
        self.store().users().create(NewUser::local(name.parse().unwrap())).await.unwrap();
    }

    /// So many users, whose rows are in their table.
    pub(crate) async fn fill(&self, count: u32) {
        for number in 0..count {
            self.create(&format!("user-{number}")).await;
        }
        self.store().checkpoint().await.unwrap();
    }

    /// The oldest first.
    pub(crate) async fn trail(&self) -> Vec<Arc<AuditEntry>> {
        let request = PageRequest::first(Limit::MAX);
        self.store().audit().query(&AuditQuery::default(), &request).await.unwrap().items
    }

    /// Waits until so many clients are left, beside the one that asked.
    pub(crate) async fn until_clients(&self, count: u64) -> Client {
        loop {
            if let Ok(client) = Client::connect(&self.socket).await {
                let status = client.status().await.unwrap();
                if status["socket"]["clients"].as_u64().unwrap() <= count + 1 {
                    return client;
                }
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }
}
