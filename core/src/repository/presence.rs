//! Presence.

use std::sync::Arc;

use async_trait::async_trait;

use super::expect_reply;
use crate::command::PresenceCommand;
use crate::domain::{EndpointList, NodeId, Presence, SessionNumber, Update};
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

    /// A sign of life, and maybe other endpoints. Gives the presence as it is now.
    ///
    /// # Behavior
    /// - With a newer number it opens that connection; with an older one, or after a disconnect, it
    ///   changes nothing.
    /// - It is a durable write, without a line in the audit trail. Many share one commit, so send them
    ///   at once rather than one after the other.
    ///
    /// # Errors
    /// `NotFound` if the node does not exist (any longer); those of any write.
    async fn heartbeat(
        &self,
        node: NodeId,
        session: SessionNumber,
        endpoints: Update<EndpointList>,
    ) -> Result<Arc<Presence>>;

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
    ///   starts calls this before it accepts connections, unless others run beside it.
    /// - When each was last seen stays as it was; its absence begins now, so ephemeral nodes have the
    ///   whole cutoff to come back.
    /// - Beyond what one commit holds it goes on in the next one. If that fails on the way, repeat the
    ///   call.
    ///
    /// # Errors
    /// Those of any write.
    async fn disconnect_all(&self) -> Result<u64>;

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
        let command = PresenceCommand::Connect { node, session, endpoints };
        expect_reply!(self.run(command).await?, Presence)
    }

    async fn heartbeat(
        &self,
        node: NodeId,
        session: SessionNumber,
        endpoints: Update<EndpointList>,
    ) -> Result<Arc<Presence>> {
        let command = PresenceCommand::Heartbeat { node, session, endpoints };
        expect_reply!(self.run(command).await?, Presence)
    }

    async fn disconnect(&self, node: NodeId, session: SessionNumber) -> Result<Arc<Presence>> {
        let command = PresenceCommand::Disconnect { node, session };
        expect_reply!(self.run(command).await?, Presence)
    }

    async fn disconnect_all(&self) -> Result<u64> {
        let make = |part| PresenceCommand::DisconnectAll { part }.into();
        self.count_in_parts(make).await
    }

    async fn get(&self, node: NodeId) -> Result<Option<Arc<Presence>>> {
        Ok(self.open_view("presence.get")?.presence().get(node).cloned())
    }
}
