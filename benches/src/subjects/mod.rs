//! Who is measured in this process.

mod answers;
mod images;
mod libsql_crate;
mod store;

use std::sync::Arc;

use ghostwire_store_bench_workload::Subject;
use ghostwire_store_bench_workload::direct::Direct;
use ghostwire_store_bench_workload::results::DIRECT;
use ghostwire_store_bench_workload::subject::{About, Candidate};
use tempfile::TempDir;

use crate::{ALLOCATOR, Target};
pub(crate) use images::registration;
pub(crate) use store::OfStore;

/// All of them: this store on each of its backends, and the `libsql` crate.
pub fn candidates() -> Vec<Candidate> {
    let stores = [
        Target::Zqlite,
        Target::ZqliteSealed,
        Target::ZqlitePinned,
        Target::LibsqlCheckpoint,
        Target::LibsqlCommit,
        Target::Memory,
    ];
    let stores = stores.into_iter().map(|target| of_store(target, None));
    stores.chain(pinned_elsewhere()).chain([direct(), batched()]).collect()
}

pub(crate) fn about(
    name: &str,
    backend: &str,
    materialize: &str,
    durability: &str,
    shares: bool,
) -> About {
    About {
        name: name.to_owned(),
        backend: backend.to_owned(),
        materialize: materialize.to_owned(),
        durability: durability.to_owned(),
        shares_commits: shares,
        allocator: ALLOCATOR.to_owned(),
    }
}

/// With a pin on another device, if this machine has one for sure: shared memory, whose syncs cost nothing.
fn pinned_elsewhere() -> Option<Candidate> {
    let pins = tempfile::Builder::new().prefix("ghostwire-bench-pins").tempdir_in("/dev/shm");
    pins.ok().map(|pins| of_store(Target::ZqlitePinned, Some(Arc::new(pins))))
}

/// The pins of the store lie in `pins` instead of beside it.
fn of_store(target: Target, pins: Option<Arc<TempDir>>) -> Candidate {
    let about = match target {
        Target::Zqlite => about("zqlite", "zqlite", "checkpoint", "fsync each group", true),
        Target::ZqliteSealed => {
            about("zqlite-sealed", "zqlite, sealed", "checkpoint", "fsync each group", true)
        }
        Target::ZqlitePinned => {
            let (name, durability) = match &pins {
                None => ("zqlite-pinned", "fsync each group and its pin"),
                Some(_) => ("zqlite-pinned-elsewhere", "fsync each group; the pin is in memory"),
            };
            about(name, "zqlite, sealed, pinned", "checkpoint", durability, true)
        }
        Target::LibsqlCheckpoint => {
            about("libsql-checkpoint", "libsql", "checkpoint", "fsync each group", true)
        }
        Target::LibsqlCommit => {
            about("libsql-commit", "libsql", "commit", "fsync each group", true)
        }
        Target::Memory => about("memory", "memory", "checkpoint", "none: in memory", true),
    };
    Candidate::new(about, move |directory| {
        let pins = pins.clone();
        async move {
            let opened = OfStore::open(target, directory, pins).await?;
            let subject: Arc<dyn Subject> = Arc::new(opened);
            Ok(subject)
        }
    })
}

fn direct() -> Candidate {
    let about = about(DIRECT, "libsql crate 0.10", "-", "fsync each write", false);
    Candidate::new(about, |directory| async move {
        Direct::alone(libsql_crate::open(&directory, 0).await?).await
    })
}

fn batched() -> Candidate {
    let about = about("libsql-crate-batched", "libsql crate 0.10", "-", "fsync each batch", true);
    Candidate::new(about, |directory| async move {
        Direct::batched(libsql_crate::open(&directory, 2).await?).await
    })
}

#[cfg(test)]
mod tests;
