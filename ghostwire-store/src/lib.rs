//! The storage layer of a self-hosted mesh VPN's control plane: one [`Store`] with typed
//! repositories, and below it a backend that the deployment chooses.
//!
//! Cargo features decide what a binary can do (`zqlite` and `libsql` by default, `memory`), a
//! [`config::Config`] decides what an environment does.
//!
//! | to | see |
//! |---|---|
//! | open a store | [`Opener`], [`config`] |
//! | write | [`Store`] and the traits in [`repository`]; values are in [`domain`] |
//! | read | [`Store::view`], [`view`] |
//! | do several writes as one | [`Store::transact`], [`command`] |
//! | follow what happens | [`Store::watch_from`], [`changes`] |
//! | bring data in, take it out | [`Store::restore`], [`portable`] |
//! | manage the keys of a sealed store | [`keys`] |
//! | talk to a store that another process has open | [`admin`] |
//! | move it to another backend while it is open | [`migration`] |
//! | look after it | [`apply_retention`], [`Store::verify`], [`info`] |
//! | measure it | [`observe`]; with the feature `telemetry`, the module of that name |
//!
//! A backend of one's own, a layer over one, or a tool that looks below the store depends on
//! `ghostwire-store-core`.
//!
//! ```
//! use ghostwire_store::config::{BackendChoice, Config, LibsqlOptions};
//! use ghostwire_store::domain::{
//!     Admission, MachineKey, NewUser, NodeKey, RegisterMethod, Registration,
//! };
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
//! let admission = Admission::User { user: alice.id, method: RegisterMethod::Cli };
//! let (machine, key) = (MachineKey::from_bytes([1; 32])?, NodeKey::from_bytes([2; 32])?);
//! let laptop = Registration::new(machine, key, "laptop".parse()?, admission);
//! let node = store.nodes().register(laptop).await?; // durable from here on
//!
//! assert_eq!(node.ipv4, "100.64.0.1".parse().ok());
//! let view = store.view(); // a snapshot; reads from it are plain functions
//! assert_eq!(view.nodes().by_node_key(&node.node_key).map(|found| found.id), Some(node.id));
//! store.close().await
//! # }
//! # #[cfg(not(feature = "libsql"))]
//! # fn main() {}
//! ```

/// The admin socket of an open store: what serves it, and what talks to it.
#[cfg(feature = "admin")]
pub mod admin {
    #[doc(inline)]
    pub use ghostwire_store_admin::*;
}
pub mod config;
mod hash_key;
#[cfg(feature = "http")]
pub mod http;
#[cfg(feature = "serve")]
pub mod jobs;
#[cfg(feature = "zqlite")]
pub mod keys;
pub mod migration;
#[cfg(feature = "zqlite-native")]
pub mod native;
mod open;
mod retention;
#[cfg(feature = "serve")]
pub mod shutdown;
#[cfg(feature = "telemetry")]
pub mod telemetry;

#[doc(inline)]
pub use ghostwire_store_core::secrets::{HashKey, HashKeys};
#[doc(inline)]
pub use ghostwire_store_core::view::View;
#[doc(inline)]
pub use ghostwire_store_core::{
    EntityKind, Error, ErrorKind, Result, Store, domain, entropy, portable, repository,
};

#[cfg(feature = "zqlite")]
pub use ghostwire_store_zqlite::{PinReport, PinnedPlace};
pub use hash_key::{create_hash_key, hash_key_is_absent, read_hash_key};
pub use open::{COMPILED_BACKENDS, Opener, Survivor, prepare_process};
pub use retention::{Pruned, apply_retention};

/// Snapshot reads: what a [`View`] gives.
pub mod view {
    #[doc(inline)]
    pub use ghostwire_store_core::netmap::{NetMap, Network, Peer};
    #[doc(inline)]
    pub use ghostwire_store_core::state::{
        Addresses, ApiKeys, DnsRecords, Nodes, Policies, PreAuthKeys, Presences, Routes, Sessions,
        Settings, SignIns, Users,
    };
    #[doc(inline)]
    pub use ghostwire_store_core::view::View;
}

/// The feed of changes: what [`Store::watch`] gives.
pub mod changes {
    #[doc(inline)]
    pub use ghostwire_store_core::block::{BlockHash, ChangeKind, Serial};
    #[doc(inline)]
    pub use ghostwire_store_core::changes::*;
    #[doc(inline)]
    pub use ghostwire_store_core::state::EntityId;
}

/// Every commit, with what it wrote: what [`Store::consumers`] gives to those who keep a copy elsewhere.
pub mod log {
    #[doc(inline)]
    pub use ghostwire_store_core::backend::KeyRange;
    #[doc(inline)]
    pub use ghostwire_store_core::block::{EncodedBlock, RowChange};
    #[doc(inline)]
    pub use ghostwire_store_core::feed::{Consumer, LogEntry};
    #[doc(inline)]
    pub use ghostwire_store_core::position::{Epoch, Position};
}

/// Writes as values: what [`Store::transact`] and [`Store::restore`] take, and what they answer.
pub mod command {
    #[doc(inline)]
    pub use ghostwire_store_core::Committed;
    #[doc(inline)]
    pub use ghostwire_store_core::command::*;
    #[doc(inline)]
    pub use ghostwire_store_core::state::Reply;
}

/// The keys of an open sealed store: what [`Store::keys`] gives.
pub mod key_management {
    #[doc(inline)]
    pub use ghostwire_store_core::keys::*;
}

/// Whether a store can do its work: what [`Store::health`] and [`Store::check_health`] give.
pub mod health {
    #[doc(inline)]
    pub use ghostwire_store_core::health::*;
}

/// Taking figures of what a store does: what [`Opener::recorder`] wants.
pub mod observe {
    #[doc(inline)]
    pub use ghostwire_store_core::observe::*;
}

/// What a store says about itself.
pub mod info {
    #[doc(inline)]
    pub use ghostwire_store_core::backend::{
        Attestation, AttestedState, BackendCounters, BackendInfo, Compacted, Filesystem, LogIndex,
        LogInfo, Resealed,
    };
    #[doc(inline)]
    pub use ghostwire_store_core::digest::{Digest, Digests};
    #[doc(inline)]
    pub use ghostwire_store_core::store::StoreInfo;
}

/// The example on the first page, kept compiling and running.
#[cfg(all(doctest, feature = "libsql"))]
#[doc = include_str!("../../README.md")]
struct Readme;

/// The code of the guide, kept compiling.
#[cfg(all(doctest, feature = "libsql"))]
#[doc = include_str!("../../docs/porting.md")]
struct Porting;
