//! Presence.

use std::sync::Arc;

use async_trait::async_trait;

use super::expect_reply;
use crate::command::PresenceCommand;
use crate::domain::{Change, EndpointList, NodeId, Presence, SessionNumber};
use crate::error::Result;
use crate::store::StoreHandle;

/// Who is online. Each control connection has a number, and a client's numbers only grow; what
/// comes late from an older or closed connection changes nothing and gives the presence as it is.
#[async_trait]
pub trait PresenceRepository: Send + Sync {
    /// A control connection came up.
    ///
    /// # Errors
    /// `NotFound` if the node does not exist (any longer).
    async fn connect(
        &self,
        node: NodeId,
        session: SessionNumber,
        endpoints: Change<EndpointList>,
    ) -> Result<Arc<Presence>>;

    /// A sign of life, and maybe new endpoints.
    ///
    /// # Errors
    /// `NotFound` if the node does not exist (any longer).
    async fn heartbeat(
        &self,
        node: NodeId,
        session: SessionNumber,
        endpoints: Change<EndpointList>,
    ) -> Result<Arc<Presence>>;

    /// A control connection went down; its node's primary routes fail over.
    ///
    /// # Errors
    /// `NotFound` if the node does not exist (any longer).
    async fn disconnect(&self, node: NodeId, session: SessionNumber) -> Result<Arc<Presence>>;

    /// Every control connection went down. A control plane that restarts calls this before it
    /// accepts connections, unless others run beside it. Gives how many nodes were online. Beyond
    /// what one commit holds it goes on in the next; should that fail, repeat the call.
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
        endpoints: Change<EndpointList>,
    ) -> Result<Arc<Presence>> {
        let command = PresenceCommand::Connect { node, session, endpoints };
        expect_reply!(self.run("presence.connect", command).await?, Presence)
    }

    async fn heartbeat(
        &self,
        node: NodeId,
        session: SessionNumber,
        endpoints: Change<EndpointList>,
    ) -> Result<Arc<Presence>> {
        let command = PresenceCommand::Heartbeat { node, session, endpoints };
        expect_reply!(self.run("presence.heartbeat", command).await?, Presence)
    }

    async fn disconnect(&self, node: NodeId, session: SessionNumber) -> Result<Arc<Presence>> {
        let command = PresenceCommand::Disconnect { node, session };
        expect_reply!(self.run("presence.disconnect", command).await?, Presence)
    }

    async fn disconnect_all(&self) -> Result<u64> {
        let make = |part| PresenceCommand::DisconnectAll { part }.into();
        self.count_in_parts("presence.disconnect_all", make).await
    }

    async fn get(&self, node: NodeId) -> Result<Option<Arc<Presence>>> {
        Ok(self.open_view("presence.get")?.presence().get(node).cloned())
    }
}
