//! Keeping the series as short as the configuration says.

use std::time::Duration;

use ghostwire_store_core::Store;
use ghostwire_store_core::domain::Timestamp;
use ghostwire_store_core::error::Result;

use crate::config::SeriesOptions;

/// Up to when the series were pruned.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Metrics before this moment are gone; `None` if they are kept for ever.
    pub metrics_before: Option<Timestamp>,
    /// Audit entries before this moment are gone; `None` if they are kept for ever.
    pub audit_before: Option<Timestamp>,
}

/// Removes what is older than the configuration keeps, by the store's clock. A control plane calls
/// it once in a while, say hourly; the store itself has no timers.
///
/// # Errors
/// `Unavailable` if the clock jumped ahead, since it would remove too much; otherwise those of
/// pruning a series.
pub async fn apply_retention(store: &dyn Store, options: &SeriesOptions) -> Result<Pruned> {
    let now = store.clock().now()?;
    let before = |days: Option<u64>| {
        let seconds = days?.saturating_mul(86_400);
        Some(now.saturating_sub(Duration::from_secs(seconds)))
    };
    let pruned = Pruned {
        metrics_before: before(options.metrics_retention_days),
        audit_before: before(options.audit_retention_days),
    };
    if let Some(before) = pruned.metrics_before {
        store.metrics().prune(before).await?;
    }
    if let Some(before) = pruned.audit_before {
        store.audit().prune(before).await?;
    }
    Ok(pruned)
}
