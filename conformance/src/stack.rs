//! Layers to put on top of a backend.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ghostwire_store_core::backend::Backend;
use ghostwire_store_core::entropy::SeededEntropy;
use ghostwire_store_core::layer::{Observe, Retry, RetryPolicy};

type Wrap = Arc<dyn Fn(Arc<dyn Backend>) -> Arc<dyn Backend> + Send + Sync>;

/// A backend with layers on top. It has to keep the contract as the backend alone does.
#[derive(Clone)]
pub struct Stack {
    name: String,
    wrap: Wrap,
}

impl Stack {
    /// Layers that `wrap` puts on top of a backend.
    pub fn new(
        name: impl Into<String>,
        wrap: impl Fn(Arc<dyn Backend>) -> Arc<dyn Backend> + Send + Sync + 'static,
    ) -> Self {
        Self { name: name.into(), wrap: Arc::new(wrap) }
    }

    /// No layer.
    #[must_use]
    pub fn bare() -> Self {
        Self::new("bare", |backend| backend)
    }

    /// One for every layer of the core.
    ///
    /// `retried` repeats reads, and no commit: faults are injected below the layers, and a case
    /// about a commit that fails has to see it fail on every stack.
    #[must_use]
    pub fn all() -> Vec<Self> {
        vec![Self::bare(), Self::new("observed", observed), Self::new("retried", retried)]
    }

    /// Whether there is no layer.
    pub(crate) fn is_bare(&self) -> bool {
        self.name == "bare"
    }

    /// Its name, as reports have it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn on(&self, backend: Arc<dyn Backend>) -> Arc<dyn Backend> {
        (self.wrap)(backend)
    }
}

impl fmt::Debug for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Stack").field(&self.name).finish()
    }
}

fn observed(backend: Arc<dyn Backend>) -> Arc<dyn Backend> {
    Arc::new(Observe::new(backend))
}

fn retried(backend: Arc<dyn Backend>) -> Arc<dyn Backend> {
    let policy = RetryPolicy {
        retries: 2,
        commit_retries: 0,
        first_delay: Duration::from_millis(1),
        max_delay: Duration::from_millis(2),
    };
    Arc::new(Retry::new(backend, policy, Arc::new(SeededEntropy::new(1))))
}
