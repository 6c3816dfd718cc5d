//! Several processes on one backend, for those that can be shared, and what is stored while others write.

pub(super) mod deadline;
pub(super) mod loading;
pub(super) mod processes;
pub(super) mod purged;

use crate::prelude::*;

pub(super) const NOT_SHARED: Verdict =
    Verdict::Skipped("no other process can write to this backend");

/// Two processes on one place; `None` if there cannot be two.
pub(super) async fn two(
    env: &TestEnv,
    set: impl Fn(&mut StoreOptions),
) -> Option<(Arc<dyn Store>, Arc<dyn Store>)> {
    let mut options = env.options();
    // Who is behind learns from blocks, so they have to be there.
    options.writer = WriterOptions::default();
    set(&mut options);
    let first = env.open_with(options.clone()).await;
    if !first.info().backend.shared {
        return None;
    }
    Some((first, env.open_with(options).await))
}
