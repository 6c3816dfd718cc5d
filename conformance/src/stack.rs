//! Layers to put on top of a backend.

use std::fmt;
use std::sync::Arc;

use ghostwire_store_core::backend::Backend;
use ghostwire_store_core::layer::Observe;

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
    #[must_use]
    pub fn all() -> Vec<Self> {
        vec![Self::bare(), Self::new("observed", observed)]
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
    Arc::new(Observe::new(backend, Arc::new(())))
}
