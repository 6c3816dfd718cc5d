//! `operations::NodeOperations`, `coordinator::NodeManager` and `HeartbeatMonitor`.

use std::net::Ipv4Addr;

use ghostwire_store::domain::{
    Admission, ByteRate, DnsLabel, Endpoint, Hostname, MachineKey, NewAddress, Node, NodeFilter,
    NodeId, NodeKey, NodePatch, NodeSettingsPatch, PageRequest, Patch, RegisterMethod,
    Registration, Renumbering, SessionNumber, Tag, TagSet, Update, UserId,
};

use super::{Arc, Result, SocketAddr, Store};

/// `create`: addresses and the name in DNS are the store's to choose. Ghostwire has one key for each
/// machine, which stands for both.
pub(super) async fn create(
    store: &dyn Store,
    user: UserId,
    name: &str,
    public_key: [u8; 32],
) -> Result<Arc<Node>> {
    let key = NodeKey::from_bytes(public_key)?;
    let known = store.view().nodes().by_node_key(&key).map(|node| node.machine_key);
    let machine = known.unwrap_or_else(|| MachineKey::of_node_key(&key));
    let admission = Admission::User { user, method: RegisterMethod::Cli };
    let hostname = Hostname::from_outside(name);
    store.nodes().register(Registration::new(machine, key, hostname, admission)).await
}

/// `get_by_identifier`: an id or a name.
pub(super) fn find(store: &dyn Store, identifier: &str) -> Option<Arc<Node>> {
    let view = store.view();
    let node = match identifier.parse::<NodeId>() {
        Ok(id) => view.nodes().get(id),
        Err(_) => view.nodes().by_label(&identifier.parse::<DnsLabel>().ok()?),
    };
    node.cloned()
}

/// `is_key_registered`.
pub(super) fn is_key_registered(store: &dyn Store, public_key: [u8; 32]) -> Result<bool> {
    let key = NodeKey::from_bytes(public_key)?;
    Ok(store.view().nodes().by_node_key(&key).is_some())
}

/// `get_online_nodes`.
pub(super) async fn online(store: &dyn Store) -> Result<Vec<Arc<Node>>> {
    let filter = NodeFilter { online: Some(true), ..NodeFilter::default() };
    let (mut nodes, mut request) = (Vec::new(), PageRequest::default());
    loop {
        let page = store.nodes().list(&filter, &request).await?;
        nodes.extend(page.items);
        match page.next {
            Some(next) => request.cursor = Some(next),
            None => return Ok(nodes),
        }
    }
}

/// `move_to_user`.
pub(super) async fn move_to_user(
    store: &dyn Store,
    node: NodeId,
    user: UserId,
) -> Result<Arc<Node>> {
    let patch = NodePatch { user: Patch::Set(user), ..NodePatch::default() };
    store.nodes().update(node, patch, None).await
}

/// Tags are free text there; what a tag cannot have becomes a hyphen.
pub(super) async fn set_tags(store: &dyn Store, node: NodeId, texts: &[&str]) -> Result<Arc<Node>> {
    let tags = texts.iter().map(Tag::from_outside).collect::<Result<Vec<_>>>()?;
    let patch = NodePatch { tags: Update::Set(TagSet::new(tags)?), ..NodePatch::default() };
    store.nodes().update(node, patch, None).await
}

/// `NodeSettings` and the limits of a bandwidth: what an administrator sets.
pub(super) async fn limit(
    store: &dyn Store,
    node: NodeId,
    keepalive: u16,
    upload: u64,
) -> Result<Arc<Node>> {
    let patch = NodeSettingsPatch {
        persistent_keepalive_seconds: Patch::Set(keepalive),
        upload_limit: Patch::Set(ByteRate::new(upload)?),
        ..NodeSettingsPatch::default()
    };
    store.nodes().update_settings(node, patch, None).await
}

/// `allowed_ips`: its addresses, and the prefixes for which it is primary.
pub(super) async fn allowed_ips(store: &dyn Store, node: NodeId) -> Result<Vec<String>> {
    let prefixes = store.nodes().allowed_ips(node).await?.unwrap_or_default();
    Ok(prefixes.iter().map(ToString::to_string).collect())
}

/// `allocate_ip` for a node that has an address: this one, and no other.
pub(super) async fn renumber(store: &dyn Store, node: NodeId, ipv4: Ipv4Addr) -> Result<Arc<Node>> {
    let wanted = Renumbering { ipv4: NewAddress::Given(ipv4), ..Renumbering::default() };
    store.nodes().renumber(node, wanted, None).await
}

/// `update_online_status(true)`. The number of the connection is drawn.
pub(super) async fn connect(store: &dyn Store, node: NodeId) -> Result<SessionNumber> {
    Ok(store.presence().open(node, Update::Keep).await?.session)
}

/// `record_heartbeat`.
pub(super) async fn heartbeat(
    store: &dyn Store,
    node: NodeId,
    connection: SessionNumber,
) -> Result<bool> {
    Ok(store.presence().heartbeat(node, connection, Update::Keep).await?.online)
}

/// `update_endpoint`: one more, or one that was seen again.
pub(super) async fn add_endpoint(
    store: &dyn Store,
    node: NodeId,
    connection: SessionNumber,
    addr: SocketAddr,
) -> Result<()> {
    let seen = Endpoint::new(addr, store.clock().now()?);
    store.presence().put_endpoint(node, connection, seen).await?;
    Ok(())
}

/// One that is no more; the others stay.
pub(super) async fn remove_endpoint(
    store: &dyn Store,
    node: NodeId,
    connection: SessionNumber,
    addr: SocketAddr,
) -> Result<usize> {
    Ok(store.presence().remove_endpoint(node, connection, addr).await?.endpoints.len())
}

/// `update_online_status(false)`.
pub(super) async fn disconnect(
    store: &dyn Store,
    node: NodeId,
    connection: SessionNumber,
) -> Result<()> {
    store.presence().disconnect(node, connection).await?;
    Ok(())
}
