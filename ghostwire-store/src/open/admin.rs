//! Serving the admin socket of a store that was opened.

use std::sync::Arc;

use ghostwire_store_admin::{AdminSocket, Hooks, NoHooks, Served, SocketOptions};
use ghostwire_store_core::Store;
use ghostwire_store_core::backend::Backend;
use ghostwire_store_core::error::Result;
use ghostwire_store_core::store::Companion;

use super::Opener;
use crate::config::{Config, SocketMode};
use crate::migration::Migrations;

/// Whether the socket is served, and what the program says on it.
#[derive(Clone)]
pub(super) struct Serving {
    is_wanted: bool,
    hooks: Arc<dyn Hooks>,
}

impl Default for Serving {
    fn default() -> Self {
        Self { is_wanted: true, hooks: Arc::new(NoHooks) }
    }
}

impl Opener<'_> {
    /// Whether a store that is opened to be written serves the admin socket as it is configured: so by
    /// default. Not for programs that open a store for one short piece of work.
    #[must_use]
    pub fn admin_socket_served(mut self, served: bool) -> Self {
        self.admin.is_wanted = served;
        self
    }

    /// What the program says on the admin socket: how it fares, what it measures; and what it does when it
    /// is asked to read its configuration again, or to log more.
    #[must_use]
    pub fn admin_hooks(mut self, hooks: Arc<dyn Hooks>) -> Self {
        self.admin.hooks = hooks;
        self
    }

    /// A socket to be served, if one is.
    pub(super) fn admin_socket(&self) -> Option<Arc<AdminSocket>> {
        let is_served = self.admin.is_wanted && self.config.admin.socket && !self.read_only;
        (is_served && self.config.admin_socket_path().is_some()).then(AdminSocket::new)
    }

    /// A socket that was configured has to be there; a store that merely could not have one is opened all the
    /// same.
    pub(super) async fn serve_admin(
        &self,
        socket: &AdminSocket,
        store: Arc<dyn Store>,
        (backend, migrations): (Arc<dyn Backend>, Migrations),
    ) -> Result<Arc<dyn Store>> {
        let Some(options) = socket_options(self.config) else { return Ok(store) };
        let hooks = self.admin.hooks.clone();
        let like = migrations.served_path();
        let migrations: Option<Arc<dyn ghostwire_store_admin::Migrations>> =
            Some(Arc::new(migrations));
        let served = Served { store: store.downgrade(), backend, hooks, migrations };
        let options = SocketOptions { like, ..options };
        let admin = &self.config.admin;
        match socket.serve(served, options).await {
            Ok(()) => Ok(store),
            Err(error) if admin.path.is_some() || admin.group.is_some() => {
                // Its files must not stay locked. The first error is the one to tell.
                let _ = store.close().await;
                Err(error)
            }
            Err(error) => {
                tracing::warn!(%error, "the store has no admin socket: nothing can be asked of it");
                Ok(store)
            }
        }
    }
}

pub(super) fn companions(socket: Option<&Arc<AdminSocket>>) -> Vec<Arc<dyn Companion>> {
    socket.map(|socket| socket.clone() as _).into_iter().collect()
}

fn socket_options(config: &Config) -> Option<SocketOptions> {
    let admin = &config.admin;
    let mode = |mode| match mode {
        SocketMode::Owner => 0o600,
        SocketMode::Group => 0o660,
    };
    Some(SocketOptions {
        group: admin.group.clone(),
        mode: admin.mode.map(mode),
        max_clients: usize::try_from(admin.max_clients).unwrap_or(usize::MAX),
        ..SocketOptions::new(config.admin_socket_path()?)
    })
}
