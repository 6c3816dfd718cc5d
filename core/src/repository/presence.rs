//! Presence.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::expect_reply;
use crate::command::PresenceCommand;
use crate::domain::{
    Endpoint, EndpointList, InstanceId, NodeId, Presence, SessionNumber, Timestamp, Update,
};
use crate::error::Result;
use crate::handle::StoreHandle;

/// Presence: which nodes are connected, and where they can be reached.
///
/// A control connection has a number, and a client's numbers only grow. A message of an older
/// connection changes nothing, so one that was delayed on its way does no harm.
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
/// # let node = store.nodes().register(laptop).await?.id;
/// use ghostwire_store::domain::{Update, SessionNumber};
///
/// let (old, new) = (SessionNumber::new(1)?, SessionNumber::new(2)?);
/// store.presence().connect(node, old, Update::Keep).await?;
/// store.presence().connect(node, new, Update::Keep).await?;
/// // The goodbye of the first connection comes late.
/// assert!(store.presence().disconnect(node, old).await?.online);
/// assert!(!store.presence().disconnect(node, new).await?.online);
/// # Ok(()) }).unwrap();
/// ```
#[async_trait]
pub trait PresenceRepository: Send + Sync {
    /// A control connection came up. Gives the presence as it is now.
    ///
    /// # Behavior
    /// - With the number of the present connection, or of an older one, it changes nothing.
    ///
    /// # Errors
    /// `NotFound` if the node does not exist (any longer); those of any write.
    async fn connect(
        &self,
        node: NodeId,
        session: SessionNumber,
        endpoints: Update<EndpointList>,
    ) -> Result<Arc<Presence>>;

    /// A control connection came up that has no number: the next one is drawn, and is in the presence that
    /// this gives. For control planes whose connections are not numbered.
    ///
    /// ```
    /// # ghostwire_store_memory::example(async |store| {
    /// # use ghostwire_store::domain::{
    /// #     Admission, MachineKey, NewUser, NodeKey, RegisterMethod, Registration, Update,
    /// # };
    /// # let alice = store.users().create(NewUser::local("alice".parse()?)).await?;
    /// # let admission = Admission::User { user: alice.id, method: RegisterMethod::Cli };
    /// # let (machine, key) = (MachineKey::from_bytes([1; 32])?, NodeKey::from_bytes([2; 32])?);
    /// # let laptop = Registration::new(machine, key, "laptop".parse()?, admission);
    /// # let node = store.nodes().register(laptop).await?.id;
    /// let session = store.presence().open(node, Update::Keep).await?.session;
    /// store.presence().heartbeat(node, session, Update::Keep).await?;
    /// assert!(!store.presence().disconnect(node, session).await?.online);
    /// # Ok(()) }).unwrap();
    /// ```
    ///
    /// # Behavior
    /// - It is always applied, also while another connection is up, which is then an older one.
    ///
    /// # Errors
    /// `NotFound` if the node does not exist (any longer); `Exhausted` after number `i64::MAX`; those of
    /// any write.
    async fn open(&self, node: NodeId, endpoints: Update<EndpointList>) -> Result<Arc<Presence>>;

    /// A sign of life, and maybe other endpoints. Gives the presence as it is now.
    ///
    /// # Behavior
    /// - With a newer number it opens that connection; with an older one, or after a disconnect, it
    ///   changes nothing.
    /// - It is a durable write, without a line in the audit trail. Many share one commit, so send them
    ///   at once rather than one after the other.
    /// - Within the network settings' `heartbeat_interval_seconds` after the last one that was recorded, one
    ///   that says nothing new is no write: same connection, same endpoints, whenever they were seen. It
    ///   does not matter who sends it.
    ///
    /// # Errors
    /// `NotFound` if the node does not exist (any longer); those of any write.
    async fn heartbeat(
        &self,
        node: NodeId,
        session: SessionNumber,
        endpoints: Update<EndpointList>,
    ) -> Result<Arc<Presence>>;

    /// A sign of life with one endpoint that is new or was seen again, whatever others there are. Gives
    /// the presence as it is now.
    ///
    /// # Behavior
    /// - It is a [`heartbeat`](Self::heartbeat) in all else.
    /// - An endpoint with the same address is replaced, unless it was seen later. Beyond 64 the one that
    ///   was seen longest ago gives way.
    ///
    /// # Errors
    /// `NotFound` if the node does not exist (any longer); those of any write.
    async fn put_endpoint(
        &self,
        node: NodeId,
        session: SessionNumber,
        endpoint: Endpoint,
    ) -> Result<Arc<Presence>>;

    /// A sign of life without the endpoint that has this address; the others stay. Gives the presence
    /// as it is now.
    ///
    /// # Behavior
    /// - It is a [`heartbeat`](Self::heartbeat) in all else, also if there is no such endpoint.
    ///
    /// # Errors
    /// `NotFound` if the node does not exist (any longer); those of any write.
    async fn remove_endpoint(
        &self,
        node: NodeId,
        session: SessionNumber,
        addr: SocketAddr,
    ) -> Result<Arc<Presence>>;

    /// The node was seen by other means than a control connection. Gives the presence as it is now.
    ///
    /// # Behavior
    /// - Its connection stays as it is: none is opened, and none ended. An ephemeral node's cutoff counts
    ///   from now on.
    /// - If it was last seen at `unless_since` or later, nothing is written; so of several that report the
    ///   same, one writes.
    /// - A node that was never heard of then has session 0, so its first connection has a higher number.
    ///
    /// # Errors
    /// `NotFound` if the node does not exist (any longer); those of any write.
    async fn touch(&self, node: NodeId, unless_since: Timestamp) -> Result<Arc<Presence>>;

    /// A control connection went down. Gives the presence as it is now.
    ///
    /// # Behavior
    /// - The node's primary routes fail over to others that are online.
    /// - With the number of an older connection it changes nothing.
    ///
    /// # Errors
    /// `NotFound` if the node does not exist (any longer); those of any write.
    async fn disconnect(&self, node: NodeId, session: SessionNumber) -> Result<Arc<Presence>>;

    /// Every control connection went down. Gives how many nodes were online.
    ///
    /// # Behavior
    /// - Presence is stored, so whoever was online when a control plane ended still is. One that
    ///   starts calls this before it accepts connections, unless others run beside it: then it
    ///   [begins](super::InstanceRepository::begin) as an instance.
    /// - When each was last seen stays as it was; its absence begins now, so ephemeral nodes have the
    ///   whole cutoff to come back.
    /// - Beyond what one commit holds it goes on in the next one. If that fails on the way, repeat the
    ///   call.
    /// - The audit trail has one line of it, if anybody was online.
    ///
    /// # Errors
    /// Those of any write.
    async fn disconnect_all(&self) -> Result<u64>;

    /// Every control connection that one instance holds went down. Gives how many nodes were online.
    /// Otherwise as [`disconnect_all`](PresenceRepository::disconnect_all).
    ///
    /// # Errors
    /// Those of any write.
    async fn disconnect_all_of(&self, instance: InstanceId) -> Result<u64>;

    /// Instances that were not seen for longer than this are over, and so are the connections that they held.
    /// Gives how many nodes were online.
    ///
    /// # Behavior
    /// - Each control plane calls it once in a while. A sign of life is recorded every 5 seconds, so 30
    ///   seconds is a sensible time.
    /// - How long an instance was not seen is counted in the store's time, and decided in the same step: one
    ///   that is seen in time stays.
    /// - The instance of this handle ([`Store::as_instance`](crate::Store::as_instance)) is never among them.
    /// - An instance that was declared lost and is there all the same gets `NotFound`, and begins anew.
    /// - Beyond what one commit holds it goes on in the next one, and an instance that is seen meanwhile
    ///   keeps what is left of it.
    ///
    /// # Errors
    /// `InvalidArgument` for less than [`Instance::LEAST_UNSEEN`](crate::domain::Instance::LEAST_UNSEEN);
    /// those of any write.
    async fn disconnect_lost(&self, unseen_for: Duration) -> Result<u64>;

    /// A node's presence; `None` if it was never heard of.
    ///
    /// # Errors
    /// `Unavailable` after the store was closed.
    async fn get(&self, node: NodeId) -> Result<Option<Arc<Presence>>>;
}

#[async_trait]
impl PresenceRepository for StoreHandle {
    async fn connect(
        &self,
        node: NodeId,
        session: SessionNumber,
        endpoints: Update<EndpointList>,
    ) -> Result<Arc<Presence>> {
        let (session, instance) = (Some(session), self.instance);
        let command = PresenceCommand::Connect { node, session, endpoints, instance };
        expect_reply!(self.run(command).await?, Presence)
    }

    async fn open(&self, node: NodeId, endpoints: Update<EndpointList>) -> Result<Arc<Presence>> {
        let (session, instance) = (None, self.instance);
        let command = PresenceCommand::Connect { node, session, endpoints, instance };
        expect_reply!(self.run(command).await?, Presence)
    }

    async fn heartbeat(
        &self,
        node: NodeId,
        session: SessionNumber,
        endpoints: Update<EndpointList>,
    ) -> Result<Arc<Presence>> {
        let instance = self.instance;
        let command = PresenceCommand::Heartbeat { node, session, endpoints, instance };
        expect_reply!(self.run(command).await?, Presence)
    }

    async fn touch(&self, node: NodeId, unless_since: Timestamp) -> Result<Arc<Presence>> {
        let command = PresenceCommand::Touch { node, unless_since };
        expect_reply!(self.run(command).await?, Presence)
    }

    async fn put_endpoint(
        &self,
        node: NodeId,
        session: SessionNumber,
        endpoint: Endpoint,
    ) -> Result<Arc<Presence>> {
        let instance = self.instance;
        let command = PresenceCommand::PutEndpoint { node, session, endpoint, instance };
        expect_reply!(self.run(command).await?, Presence)
    }

    async fn remove_endpoint(
        &self,
        node: NodeId,
        session: SessionNumber,
        addr: SocketAddr,
    ) -> Result<Arc<Presence>> {
        let instance = self.instance;
        let command = PresenceCommand::RemoveEndpoint { node, session, addr, instance };
        expect_reply!(self.run(command).await?, Presence)
    }

    async fn disconnect(&self, node: NodeId, session: SessionNumber) -> Result<Arc<Presence>> {
        let command = PresenceCommand::Disconnect { node, session };
        expect_reply!(self.run(command).await?, Presence)
    }

    async fn disconnect_all(&self) -> Result<u64> {
        let make = |part| PresenceCommand::DisconnectAll { of: None, part }.into();
        self.count_in_parts(make).await
    }

    async fn disconnect_all_of(&self, instance: InstanceId) -> Result<u64> {
        let of = Some(instance);
        let make = |part| PresenceCommand::DisconnectAll { of, part }.into();
        self.count_in_parts(make).await
    }

    async fn disconnect_lost(&self, unseen_for: Duration) -> Result<u64> {
        let own = self.instance;
        let make = |part| PresenceCommand::DisconnectLost { unseen_for, own, part }.into();
        self.count_in_parts(make).await
    }

    async fn get(&self, node: NodeId) -> Result<Option<Arc<Presence>>> {
        Ok(self.open_view("presence.get")?.presence().get(node).cloned())
    }
}
