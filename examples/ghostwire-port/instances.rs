//! Several servers beside each other, which the original does not know.

use ghostwire_store::domain::{InstanceId, InstanceName};

use super::{Arc, Duration, Result, Store};

/// A server that starts: what it held before is disconnected, what others hold is not. The handle
/// opens connections in its name.
pub(super) async fn begin(
    store: &dyn Store,
    name: InstanceName,
) -> Result<(InstanceId, Arc<dyn Store>)> {
    let id = store.instances().begin(name).await?.id;
    Ok((id, store.as_instance(id)))
}

/// From a timer: it is there, and what a server held that was not seen for so long is disconnected.
pub(super) async fn keep(store: &dyn Store, id: InstanceId, cutoff: Duration) -> Result<u64> {
    store.instances().beat(id).await?;
    store.as_instance(id).presence().disconnect_lost(cutoff).await
}
