//! The storage layer of a self-hosted mesh VPN's control plane: one [`Store`] with typed
//! repositories, and below it a backend that the deployment chooses.
//!
//! Cargo features decide what a binary can do (`zqlite` and `libsql` by default, `memory`), a
//! [`config::Config`] decides what an environment does.
//!
//! ```
//! use ghostwire_store::config::{BackendChoice, Config, LibsqlOptions};
//! use ghostwire_store::domain::{Admission, HostInfo, NewUser, RegisterMethod, Registration};
//! use ghostwire_store::{Opener, Result};
//!
//! # #[cfg(feature = "libsql")]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<()> {
//! # let directory = tempfile::tempdir().unwrap();
//! # let path = directory.path().join("ghostwire.db");
//! let libsql = LibsqlOptions { path, ..LibsqlOptions::default() };
//! let config = Config { backend: BackendChoice::Libsql(libsql), ..Config::default() };
//! let store = Opener::new(&config).open().await?;
//!
//! let alice = store.users().create(NewUser::local("alice".parse()?)).await?;
//! let node = store.nodes().register(Registration {
//!     machine_key: format!("mkey:{}", "1".repeat(64)).parse()?,
//!     node_key: format!("nodekey:{}", "2".repeat(64)).parse()?,
//!     disco_key: None,
//!     hostname: "laptop".parse()?,
//!     host_info: HostInfo::default(),
//!     admission: Admission::User { user: alice.id, method: RegisterMethod::Cli },
//!     expires_at: None,
//! }).await?; // durable from here on
//!
//! assert_eq!(node.ipv4, "100.64.0.1".parse().ok());
//! let view = store.view(); // a snapshot; reads from it are plain functions
//! assert_eq!(view.nodes().by_node_key(&node.node_key).map(|found| found.id), Some(node.id));
//! store.close().await
//! # }
//! # #[cfg(not(feature = "libsql"))]
//! # fn main() {}
//! ```

pub mod config;
mod hash_key;
mod open;
mod retention;

pub use ghostwire_store_core::{
    Committed, Entity, Error, ErrorKind, Result, Store, backend, block, changes, command, digest,
    domain, entropy, error, netmap, options, portable, repository, schema, secrets, state, store,
    view,
};

pub use hash_key::{create_hash_key, hash_key_is_absent, read_hash_key};
pub use open::{COMPILED_BACKENDS, Opener, prepare_process};
pub use retention::{Pruned, apply_retention};

/// The example on the first page, kept compiling and running.
#[cfg(all(doctest, feature = "libsql"))]
#[doc = include_str!("../../README.md")]
struct Readme;
