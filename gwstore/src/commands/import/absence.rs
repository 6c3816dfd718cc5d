//! Since when imported nodes are absent: Headscale does not store whether a node is connected, so an
//! ephemeral one that is quiet would be reaped before it could come back.

use std::collections::BTreeSet;
use std::sync::Arc;

use ghostwire_store::command::EntityRecord;
use ghostwire_store::domain::{NodeId, Presence, Timestamp};
use ghostwire_store_core::state::State;

/// Has the absence of ephemeral nodes begin at `now`; when they were last seen stays. What an earlier
/// run of the same import brought in keeps the time of that run.
pub(super) fn begin(images: &mut Vec<EntityRecord>, state: &State, now: Timestamp) {
    let mut ephemeral: BTreeSet<NodeId> = images
        .iter()
        .filter_map(|image| match image {
            EntityRecord::Node(node) if node.ephemeral => Some(node.id),
            _ => None,
        })
        .collect();
    let begun = |presence: &Presence| {
        let known = state.presence().get(presence.node).and_then(|known| known.absent_since);
        let absent_since = Some(known.unwrap_or(now));
        EntityRecord::from(Presence { absent_since, ..presence.clone() })
    };
    for image in images.iter_mut() {
        if let EntityRecord::Presence(presence) = image
            && ephemeral.remove(&presence.node)
        {
            let presence = Arc::clone(presence);
            *image = begun(&presence);
        }
    }
    images.extend(ephemeral.into_iter().map(|node| begun(&Presence::new(node))));
}
