//! What lives beside a store: serves it to others, and ends with it.

use std::fmt::Debug;
use std::sync::{Arc, Weak};

use super::Store;
use crate::domain::{Actor, InstanceId};
use crate::handle::{Core, StoreHandle};

/// What ends with a store, such as a server of it. Handed in as
/// [`StoreOptions::companions`](crate::options::StoreOptions::companions).
pub trait Companion: Debug + Send + Sync + 'static {
    /// The store ends: it was closed, or its last handle dropped, or it failed. Called on the writer's
    /// thread once what was accepted is stored, and before the backend is told to close, so whatever
    /// keeps others out of the files still does. Must not block, and may be called more than once.
    fn end(&self);
}

/// A handle that does not keep its store open, for what serves one. [`Store::downgrade`] makes it.
#[derive(Debug, Clone)]
pub struct WeakStore {
    core: Weak<Core>,
    actor: Arc<Actor>,
    instance: Option<InstanceId>,
}

impl WeakStore {
    pub(crate) fn of(handle: &StoreHandle) -> Self {
        Self {
            core: Arc::downgrade(&handle.core),
            actor: handle.actor.clone(),
            instance: handle.instance,
        }
    }

    /// What all its handles share, while one of them is there.
    pub(crate) fn core(&self) -> Option<Arc<Core>> {
        self.core.upgrade()
    }

    /// A handle, which keeps the store open while it is there. `None` once every other one is gone.
    #[must_use]
    pub fn upgrade(&self) -> Option<Arc<dyn Store>> {
        let (actor, instance) = (self.actor.clone(), self.instance);
        let core = self.core.upgrade()?;
        Some(Arc::new(StoreHandle { core, actor, instance }))
    }
}
