//! Writes to nodes and their presence.

use std::net::SocketAddr;

use super::Part;
use crate::domain::{
    DiscoKey, Endpoint, EndpointList, MachineKey, NodeId, NodeKey, NodePatch, NodeSettingsPatch,
    Registration, Revision, SessionNumber, Timestamp, Update,
};

commands! {
    /// A write to nodes.
    NodeCommand {
        /// Consume the key, allocate addresses, create the node, with this id, or re-key it: all or
        /// nothing.
        REGISTER = "node.register" Register { id: NodeId, registration: Box<Registration> },
        /// A change to a node; with `expected`, only if that is still its revision.
        UPDATE = "node.update" Update { id: NodeId, patch: Box<NodePatch>, expected: Option<Revision> },
        /// A change to what an administrator set for a node; with `expected`, only if that is still the
        /// revision of these settings.
        UPDATE_SETTINGS = "node.update_settings" UpdateSettings {
            id: NodeId,
            patch: Box<NodeSettingsPatch>,
            expected: Option<Revision>,
        },
        /// The client rotates its WireGuard key, and with it the path discovery key and the expiry. It
        /// proves its identity by the machine key, and says which node key it had.
        ROTATE_KEY = "node.rotate_key" RotateKey {
            machine_key: MachineKey,
            from: NodeKey,
            to: NodeKey,
            disco_key: Option<DiscoKey>,
            expires_at: Option<Timestamp>,
        },
        /// Make nodes' keys expire at this moment: they must sign in again.
        EXPIRE = "node.expire" Expire {
            nodes: Vec<NodeId>,
            at: Timestamp,
            #[serde(default)]
            part: Part,
        },
        /// Removal of one node, by its id and nothing else.
        DELETE = "node.delete" Delete { id: NodeId },
        /// Remove the ephemeral nodes that have been offline for longer than the cutoff.
        REAP = "node.reap" ReapEphemeral { #[serde(default)] part: Part },
        /// Give an address of each configured family to every node that lacks one. The first part makes
        /// sure that there are enough for all.
        BACKFILL_ADDRESSES = "node.backfill_addresses" BackfillAddresses { #[serde(default)] part: Part },
    }

    /// A write to a node's presence. Messages of an older or closed session change nothing.
    PresenceCommand {
        /// A control connection came up. Its number is larger than any before.
        CONNECT = "presence.connect" Connect { node: NodeId, session: SessionNumber, endpoints: Update<EndpointList> },
        /// A sign of life on a connection.
        HEARTBEAT = "presence.heartbeat" Heartbeat { node: NodeId, session: SessionNumber, endpoints: Update<EndpointList> },
        /// A sign of life on a connection, with one endpoint that is new or was seen again.
        PUT_ENDPOINT = "presence.put_endpoint" PutEndpoint { node: NodeId, session: SessionNumber, endpoint: Endpoint },
        /// A sign of life on a connection, with one endpoint less.
        REMOVE_ENDPOINT = "presence.remove_endpoint" RemoveEndpoint { node: NodeId, session: SessionNumber, addr: SocketAddr },
        /// A control connection went down.
        DISCONNECT = "presence.disconnect" Disconnect { node: NodeId, session: SessionNumber },
        /// Every control connection went down: the control plane was restarted.
        DISCONNECT_ALL = "presence.disconnect_all" DisconnectAll { #[serde(default)] part: Part },
    }
}
