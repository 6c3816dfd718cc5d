//! Nodes.

use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;

use super::expect_reply;
use crate::command::{NodeCommand, Part};
use crate::domain::{
    DiscoKey, DnsLabel, MachineKey, Node, NodeFilter, NodeId, NodeKey, NodePatch, Page,
    PageRequest, Registration, Revision, Timestamp,
};
use crate::error::Result;
use crate::store::StoreHandle;

/// The machines of the mesh.
#[async_trait]
pub trait NodeRepository: Send + Sync {
    /// Admits a machine: consumes the key, allocates addresses, creates the node or gives a known
    /// machine its new keys. All of it happens, or none.
    ///
    /// # Errors
    /// `PermissionDenied` for a key that is used up, expired or revoked; `AlreadyExists`
    /// (`node_key`, `machine_key`) if another node has the key; `Exhausted` if no address is free;
    /// `NotFound` for an unknown user or key.
    async fn register(&self, registration: Registration) -> Result<Arc<Node>>;

    /// The node with this id.
    ///
    /// # Errors
    /// `Unavailable` after the store was closed.
    async fn get(&self, id: NodeId) -> Result<Option<Arc<Node>>>;

    /// The node of this machine.
    ///
    /// # Errors
    /// `Unavailable` after the store was closed.
    async fn get_by_machine_key(&self, key: &MachineKey) -> Result<Option<Arc<Node>>>;

    /// The node with this WireGuard key.
    ///
    /// # Errors
    /// `Unavailable` after the store was closed.
    async fn get_by_node_key(&self, key: &NodeKey) -> Result<Option<Arc<Node>>>;

    /// The node with this DNS label.
    ///
    /// # Errors
    /// `Unavailable` after the store was closed.
    async fn get_by_label(&self, label: &DnsLabel) -> Result<Option<Arc<Node>>>;

    /// The node with this address in the mesh.
    ///
    /// # Errors
    /// `Unavailable` after the store was closed.
    async fn get_by_address(&self, address: IpAddr) -> Result<Option<Arc<Node>>>;

    /// A page of nodes, by id.
    ///
    /// # Errors
    /// `InvalidArgument` for a cursor of another listing.
    async fn list(&self, filter: &NodeFilter, page: &PageRequest) -> Result<Page<Arc<Node>>>;

    /// Changes a node; with `expected`, only if that is still its revision.
    ///
    /// # Errors
    /// `NotFound`, `Conflict`, `AlreadyExists` (`label`), `InvalidArgument` if neither a user nor
    /// a tag would be left.
    async fn update(
        &self,
        id: NodeId,
        patch: NodePatch,
        expected: Option<Revision>,
    ) -> Result<Arc<Node>>;

    /// Replaces the WireGuard key of the node with this machine key. Repeating it does nothing.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` if its key is no longer `from`; `AlreadyExists` (`node_key`);
    /// `PermissionDenied` if the node's key has expired.
    async fn rotate_key(
        &self,
        machine_key: MachineKey,
        from: NodeKey,
        to: NodeKey,
        disco_key: Option<DiscoKey>,
        expires_at: Option<Timestamp>,
    ) -> Result<Arc<Node>>;

    /// Makes nodes' keys expire at `at`. Gives how many changed. Beyond what one commit holds it
    /// goes on in the next; should that fail, repeat the call.
    ///
    /// # Errors
    /// `NotFound` if one of them does not exist; then none changes.
    async fn expire(&self, nodes: Vec<NodeId>, at: Timestamp) -> Result<u64>;

    /// Removes a node with its routes and sessions; its addresses are free again.
    ///
    /// # Errors
    /// `NotFound`, also the second time.
    async fn delete(&self, id: NodeId) -> Result<()>;

    /// Removes the ephemeral nodes that have been offline for longer than the cutoff. Beyond what
    /// one commit holds it goes on in the next.
    ///
    /// # Errors
    /// Those of any write.
    async fn reap_ephemeral(&self) -> Result<Vec<NodeId>>;

    /// Gives an address of each configured family to every node that lacks one. Beyond what one
    /// commit holds it goes on in the next.
    ///
    /// # Errors
    /// `Exhausted` if they do not suffice; then no node changes, unless others took addresses
    /// while it went on.
    async fn backfill_addresses(&self) -> Result<Vec<NodeId>>;
}

#[async_trait]
impl NodeRepository for StoreHandle {
    async fn register(&self, registration: Registration) -> Result<Arc<Node>> {
        let id = self.new_id("nodes.register", NodeId::time_ordered)?;
        let registration = Box::new(registration);
        let command = NodeCommand::Register { id, registration };
        expect_reply!(self.run("nodes.register", command).await?, Node)
    }

    async fn get(&self, id: NodeId) -> Result<Option<Arc<Node>>> {
        Ok(self.open_view("nodes.get")?.nodes().get(id).cloned())
    }

    async fn get_by_machine_key(&self, key: &MachineKey) -> Result<Option<Arc<Node>>> {
        Ok(self.open_view("nodes.get_by_machine_key")?.nodes().by_machine_key(key).cloned())
    }

    async fn get_by_node_key(&self, key: &NodeKey) -> Result<Option<Arc<Node>>> {
        Ok(self.open_view("nodes.get_by_node_key")?.nodes().by_node_key(key).cloned())
    }

    async fn get_by_label(&self, label: &DnsLabel) -> Result<Option<Arc<Node>>> {
        Ok(self.open_view("nodes.get_by_label")?.nodes().by_label(label).cloned())
    }

    async fn get_by_address(&self, address: IpAddr) -> Result<Option<Arc<Node>>> {
        Ok(self.open_view("nodes.get_by_address")?.node_by_address(address).cloned())
    }

    async fn list(&self, filter: &NodeFilter, page: &PageRequest) -> Result<Page<Arc<Node>>> {
        let view = self.open_view("nodes.list")?;
        view.list_nodes(filter, page).map_err(|error| error.during("nodes.list"))
    }

    async fn update(
        &self,
        id: NodeId,
        patch: NodePatch,
        expected: Option<Revision>,
    ) -> Result<Arc<Node>> {
        let command = NodeCommand::Update { id, patch: Box::new(patch), expected };
        expect_reply!(self.run("nodes.update", command).await?, Node)
    }

    async fn rotate_key(
        &self,
        machine_key: MachineKey,
        from: NodeKey,
        to: NodeKey,
        disco_key: Option<DiscoKey>,
        expires_at: Option<Timestamp>,
    ) -> Result<Arc<Node>> {
        let command = NodeCommand::RotateKey { machine_key, from, to, disco_key, expires_at };
        expect_reply!(self.run("nodes.rotate_key", command).await?, Node)
    }

    async fn expire(&self, nodes: Vec<NodeId>, at: Timestamp) -> Result<u64> {
        let mut rest = nodes;
        let make = |part: Part| {
            rest.retain(|id| Some(*id) > part.after);
            NodeCommand::Expire { nodes: rest.clone(), at, part }.into()
        };
        self.count_in_parts("nodes.expire", make).await
    }

    async fn delete(&self, id: NodeId) -> Result<()> {
        self.run("nodes.delete", NodeCommand::Delete { id }).await.map(|_| ())
    }

    async fn reap_ephemeral(&self) -> Result<Vec<NodeId>> {
        let make = |part| NodeCommand::ReapEphemeral { part }.into();
        self.nodes_in_parts("nodes.reap_ephemeral", make).await
    }

    async fn backfill_addresses(&self) -> Result<Vec<NodeId>> {
        let make = |part| NodeCommand::BackfillAddresses { part }.into();
        self.nodes_in_parts("nodes.backfill_addresses", make).await
    }
}
