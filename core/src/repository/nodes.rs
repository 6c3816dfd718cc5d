//! Nodes.

use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;

use super::expect_reply;
use crate::command::{NodeCommand, Part};
use crate::domain::{
    DiscoKey, DnsLabel, MachineKey, Node, NodeFilter, NodeId, NodeKey, NodePatch,
    NodeSettingsPatch, Page, PageRequest, Prefix, Registration, Renumbering, Revision, Timestamp,
};
use crate::error::Result;
use crate::handle::StoreHandle;

/// Nodes: the machines of the mesh.
///
/// ```
/// # ghostwire_store_memory::example(async |store| {
/// use std::net::{IpAddr, Ipv4Addr};
///
/// use ghostwire_store::domain::{
///     Admission, Update, MachineKey, NewUser, NodeKey, NodePatch, RegisterMethod, Registration,
/// };
///
/// let alice = store.users().create(NewUser::local("alice".parse()?)).await?;
/// let admission = Admission::User { user: alice.id, method: RegisterMethod::Oidc };
/// let (machine, key) = (MachineKey::from_bytes([1; 32])?, NodeKey::from_bytes([2; 32])?);
/// let laptop = Registration::new(machine, key, "Alice's laptop".parse()?, admission);
///
/// let node = store.nodes().register(laptop.clone()).await?;
/// assert_eq!(node.label.as_str(), "alice-s-laptop");
/// assert_eq!(node.ipv4, Some(Ipv4Addr::new(100, 64, 0, 1)));
/// // A machine that is known gets its node back.
/// assert_eq!(store.nodes().register(laptop).await?.id, node.id);
///
/// let patch = NodePatch { label: Update::Set("desk".parse()?), ..NodePatch::default() };
/// store.nodes().update(node.id, patch, None).await?;
/// let found = store.nodes().get_by_address(IpAddr::from([100, 64, 0, 1])).await?;
/// assert_eq!(found.map(|node| node.label.to_string()).as_deref(), Some("desk"));
///
/// store.nodes().delete(node.id).await?;
/// assert!(store.view().nodes().is_empty());
/// # Ok(()) }).unwrap();
/// ```
#[async_trait]
pub trait NodeRepository: Send + Sync {
    /// Admits a machine: consumes the pre-auth key, allocates addresses, creates the node, and leaves
    /// a line in the audit trail. All of it happens, or none.
    ///
    /// # Behavior
    /// - A machine key that is known keeps its node's id, label, addresses and creation time, and
    ///   gets the new keys, host name, host info and expiry.
    /// - Of any number of concurrent uses of a one-time key one wins. The machine that used it up may
    ///   repeat its registration with the same node key: it gets its node, and nothing is written.
    /// - The label is made of the host name, and ends in digits of the id if that is taken.
    /// - Each configured family gives its lowest free address, unless the registration is limited to the
    ///   other one.
    ///
    /// # Errors
    /// `PermissionDenied` for a key that is used up, expired or revoked; `AlreadyExists`
    /// (`node_key`) if another node has the key, or (`machine_key`) if the machine is another
    /// owner's; `Exhausted` if no address is free, or the network has no prefix of the only family; `NotFound` for an unknown user or key; those of
    /// any write.
    async fn register(&self, registration: Registration) -> Result<Arc<Node>>;

    /// The node with this id; `None` if there is none.
    ///
    /// # Errors
    /// `Unavailable` after the store was closed.
    async fn get(&self, id: NodeId) -> Result<Option<Arc<Node>>>;

    /// The node of this machine; `None` if there is none.
    ///
    /// # Errors
    /// `Unavailable` after the store was closed.
    async fn get_by_machine_key(&self, key: &MachineKey) -> Result<Option<Arc<Node>>>;

    /// The node with this WireGuard key; `None` if there is none. Expired nodes are found, too.
    ///
    /// # Errors
    /// `Unavailable` after the store was closed.
    async fn get_by_node_key(&self, key: &NodeKey) -> Result<Option<Arc<Node>>>;

    /// The node with this DNS label; `None` if there is none.
    ///
    /// # Errors
    /// `Unavailable` after the store was closed.
    async fn get_by_label(&self, label: &DnsLabel) -> Result<Option<Arc<Node>>>;

    /// The node with this address in the mesh; `None` if there is none.
    ///
    /// # Errors
    /// `Unavailable` after the store was closed.
    async fn get_by_address(&self, address: IpAddr) -> Result<Option<Arc<Node>>>;

    /// A page of nodes, in the order of their ids, which is that of their creation.
    ///
    /// # Behavior
    /// - The user of the filter uses an index; other conditions look at node after node until the page
    ///   is full.
    ///
    /// # Errors
    /// `InvalidArgument` for a cursor of another listing; `Unavailable` after the store was closed.
    async fn list(&self, filter: &NodeFilter, page: &PageRequest) -> Result<Page<Arc<Node>>>;

    /// Changes a node.
    ///
    /// # Behavior
    /// - With `expected`, only if that is still the node's revision.
    /// - A list, such as the tags, is replaced as a whole.
    /// - If nothing would change, nothing is written, and revision and `updated_at` stay.
    ///
    /// # Errors
    /// `NotFound`, also for a new owner that does not exist; `Conflict` for another revision;
    /// `AlreadyExists` (`label`); `InvalidArgument` if neither a user nor a tag would be left; those
    /// of any write.
    async fn update(
        &self,
        id: NodeId,
        patch: NodePatch,
        expected: Option<Revision>,
    ) -> Result<Arc<Node>>;

    /// Changes what an administrator set for a node ([`Node::settings`]). Gives the node.
    ///
    /// # Behavior
    /// - With `expected`, only if that is still the revision of the settings. They count their changes
    ///   by themselves, from 1; what its client changes of the node is no conflict.
    /// - It is a change of the node, too, whose revision counts it.
    /// - Settings that were made once stay, with their count, also if all of them are cleared.
    /// - An exit node that is set exists and is another node. If it is deleted later, its id stays.
    /// - If nothing would change, nothing is written.
    ///
    /// # Errors
    /// `NotFound`, also for an exit node that does not exist; `Conflict` for another revision, and for
    /// any if there are no settings yet; `InvalidArgument` for the node as its own exit node; those of
    /// any write.
    async fn update_settings(
        &self,
        id: NodeId,
        patch: NodeSettingsPatch,
        expected: Option<Revision>,
    ) -> Result<Arc<Node>>;

    /// What leads to a node now, for WireGuard's `AllowedIPs`; `None` if there is no such node.
    ///
    /// # Behavior
    /// - First its own addresses, as /32 and /128, then by prefix the routes for which it is primary. No
    ///   prefix is that of two nodes.
    /// - Routes for which another node is primary are left out, and so are exit routes: whoever chose
    ///   the node as its exit node adds `0.0.0.0/0` and `::/0`.
    /// - A view has the same for any time: [`State::allowed_ips`](crate::state::State::allowed_ips).
    ///
    /// # Errors
    /// `Unavailable` after the store was closed.
    async fn allowed_ips(&self, id: NodeId) -> Result<Option<Vec<Prefix>>>;

    /// Replaces the WireGuard key of the node with this machine key.
    ///
    /// # Behavior
    /// - `disco_key` and `expires_at` are set as given: `None` clears.
    /// - Repeating it does nothing, also if the node has expired meanwhile.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` if its key is no longer `from`; `AlreadyExists` (`node_key`);
    /// `PermissionDenied` if the node has expired: it has to register again; those of any write.
    async fn rotate_key(
        &self,
        machine_key: MachineKey,
        from: NodeKey,
        to: NodeKey,
        disco_key: Option<DiscoKey>,
        expires_at: Option<Timestamp>,
    ) -> Result<Arc<Node>>;

    /// Makes nodes expire at `at`. Gives how many changed.
    ///
    /// # Behavior
    /// - Beyond what one commit holds it goes on in the next one, and leaves out what was deleted
    ///   meanwhile. If that fails on the way, repeat the call.
    ///
    /// # Errors
    /// `NotFound` if one of them does not exist; then none changes; those of any write.
    async fn expire(&self, nodes: Vec<NodeId>, at: Timestamp) -> Result<u64>;

    /// Removes a node with its routes, presence and sessions.
    ///
    /// # Behavior
    /// - Its addresses and its label are free again; its primary routes fail over.
    /// - Its metrics stay until retention removes them, and the audit trail keeps its id.
    ///
    /// # Errors
    /// `NotFound`, also the second time; those of any write.
    async fn delete(&self, id: NodeId) -> Result<()>;

    /// Removes ephemeral nodes that have been absent for at least the cutoff of the network settings
    /// ([`Presence::absent_from`](crate::domain::Presence::absent_from)). Gives which.
    ///
    /// # Behavior
    /// - Nothing calls it by itself; the control plane does, once in a while.
    /// - Beyond what one commit holds it goes on in the next one.
    ///
    /// # Errors
    /// Those of any write.
    async fn reap_ephemeral(&self) -> Result<Vec<NodeId>>;

    /// Gives an address of each configured family to every node that lacks one. Gives which changed.
    ///
    /// # Behavior
    /// - A node that is limited to one family gets none of the other.
    /// - Beyond what one commit holds it goes on in the next one. What others take meanwhile can be
    ///   missing at the end; the parts before stay.
    ///
    /// # Errors
    /// `Exhausted` if there are not enough addresses at the beginning; then no node changes; those of
    /// any write.
    async fn backfill_addresses(&self) -> Result<Vec<NodeId>>;

    /// As [`backfill_addresses`](NodeRepository::backfill_addresses), and takes back the addresses that the
    /// network settings have no place for any more: of a family that is not configured, or outside its
    /// prefix. Gives which nodes changed.
    ///
    /// # Behavior
    /// - `view().unconfigured_addresses()` lists what this would take back, and changes nothing.
    /// - A node gets a new address in the same step as it loses the old one, so peers learn of both at once.
    ///
    /// # Errors
    /// As for [`backfill_addresses`](NodeRepository::backfill_addresses).
    async fn release_addresses(&self) -> Result<Vec<NodeId>>;

    /// Gives one node other addresses: the lowest free ones, or given ones. Gives the node as it is now.
    ///
    /// ```
    /// # ghostwire_store_memory::example(async |store| {
    /// # use ghostwire_store::domain::{
    /// #     Admission, MachineKey, NewUser, NodeKey, RegisterMethod, Registration,
    /// # };
    /// # let alice = store.users().create(NewUser::local("alice".parse()?)).await?;
    /// # let admission = Admission::User { user: alice.id, method: RegisterMethod::Cli };
    /// # let (machine, key) = (MachineKey::from_bytes([1; 32])?, NodeKey::from_bytes([2; 32])?);
    /// # let laptop = Registration::new(machine, key, "laptop".parse()?, admission);
    /// # let node = store.nodes().register(laptop).await?;
    /// use ghostwire_store::domain::{NewAddress, Renumbering};
    ///
    /// let ipv4 = NewAddress::Given([100, 64, 7, 7].into());
    /// let wanted = Renumbering { ipv4, ..Renumbering::default() };
    /// let moved = store.nodes().renumber(node.id, wanted, Some(node.revision)).await?;
    /// assert_eq!((moved.ipv4, moved.ipv6), (Some([100, 64, 7, 7].into()), node.ipv6));
    /// # Ok(()) }).unwrap();
    /// ```
    ///
    /// # Behavior
    /// - Its former addresses are free from then on, for others, too.
    /// - What it has already is no change. In place of one of a family that is not configured it gets none.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` if `expected` is not its revision; `InvalidArgument` for an address that the
    /// network settings do not give out; `AlreadyExists` (`address`) for one that another node has;
    /// `Exhausted` if no other is free; those of any write.
    async fn renumber(
        &self,
        id: NodeId,
        addresses: Renumbering,
        expected: Option<Revision>,
    ) -> Result<Arc<Node>>;
}

#[async_trait]
impl NodeRepository for StoreHandle {
    async fn register(&self, registration: Registration) -> Result<Arc<Node>> {
        let id = self.new_id(NodeCommand::REGISTER, NodeId::time_ordered)?;
        let registration = Box::new(registration);
        let command = NodeCommand::Register { id, registration };
        expect_reply!(self.run(command).await?, Node)
    }

    async fn get(&self, id: NodeId) -> Result<Option<Arc<Node>>> {
        Ok(self.open_view("node.get")?.nodes().get(id).cloned())
    }

    async fn get_by_machine_key(&self, key: &MachineKey) -> Result<Option<Arc<Node>>> {
        Ok(self.open_view("node.get_by_machine_key")?.nodes().by_machine_key(key).cloned())
    }

    async fn get_by_node_key(&self, key: &NodeKey) -> Result<Option<Arc<Node>>> {
        Ok(self.open_view("node.get_by_node_key")?.nodes().by_node_key(key).cloned())
    }

    async fn get_by_label(&self, label: &DnsLabel) -> Result<Option<Arc<Node>>> {
        Ok(self.open_view("node.get_by_label")?.nodes().by_label(label).cloned())
    }

    async fn get_by_address(&self, address: IpAddr) -> Result<Option<Arc<Node>>> {
        Ok(self.open_view("node.get_by_address")?.node_by_address(address).cloned())
    }

    async fn list(&self, filter: &NodeFilter, page: &PageRequest) -> Result<Page<Arc<Node>>> {
        let view = self.open_view("node.list")?;
        view.list_nodes(filter, page).map_err(|error| error.during("node.list"))
    }

    async fn update(
        &self,
        id: NodeId,
        patch: NodePatch,
        expected: Option<Revision>,
    ) -> Result<Arc<Node>> {
        let command = NodeCommand::Update { id, patch: Box::new(patch), expected };
        expect_reply!(self.run(command).await?, Node)
    }

    async fn update_settings(
        &self,
        id: NodeId,
        patch: NodeSettingsPatch,
        expected: Option<Revision>,
    ) -> Result<Arc<Node>> {
        let command = NodeCommand::UpdateSettings { id, patch: Box::new(patch), expected };
        expect_reply!(self.run(command).await?, Node)
    }

    async fn allowed_ips(&self, id: NodeId) -> Result<Option<Vec<Prefix>>> {
        let view = self.open_view("node.allowed_ips")?;
        let now = self.now_at_most().max(view.time());
        Ok(view.nodes().get(id).map(|_| view.allowed_ips(id, now)))
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
        expect_reply!(self.run(command).await?, Node)
    }

    async fn expire(&self, nodes: Vec<NodeId>, at: Timestamp) -> Result<u64> {
        let mut rest = nodes;
        let make = |part: Part| {
            rest.retain(|id| Some(*id) > part.after);
            NodeCommand::Expire { nodes: rest.clone(), at, part }.into()
        };
        self.count_in_parts(make).await
    }

    async fn delete(&self, id: NodeId) -> Result<()> {
        self.run(NodeCommand::Delete { id }).await.map(|_| ())
    }

    async fn reap_ephemeral(&self) -> Result<Vec<NodeId>> {
        let make = |part| NodeCommand::ReapEphemeral { part }.into();
        self.nodes_in_parts(make).await
    }

    async fn backfill_addresses(&self) -> Result<Vec<NodeId>> {
        let make = |part| NodeCommand::BackfillAddresses { release: false, part }.into();
        self.nodes_in_parts(make).await
    }

    async fn release_addresses(&self) -> Result<Vec<NodeId>> {
        let make = |part| NodeCommand::BackfillAddresses { release: true, part }.into();
        self.nodes_in_parts(make).await
    }

    async fn renumber(
        &self,
        id: NodeId,
        addresses: Renumbering,
        expected: Option<Revision>,
    ) -> Result<Arc<Node>> {
        let command = NodeCommand::Renumber { id, addresses, expected };
        expect_reply!(self.run(command).await?, Node)
    }
}
