//! Writes to nodes and their presence.

use serde::{Deserialize, Serialize};

use super::Part;
use crate::domain::{
    Change, DiscoKey, EndpointList, MachineKey, NodeId, NodeKey, NodePatch, Registration, Revision,
    SessionNumber, Timestamp,
};

/// A write to nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeCommand {
    /// Consume the key, allocate addresses, create or re-key the node: all or nothing.
    Register {
        /// The id, should the node be new.
        id: NodeId,
        /// What the node presents.
        registration: Box<Registration>,
    },
    /// A change to a node.
    Update {
        /// Which.
        id: NodeId,
        /// What changes.
        patch: Box<NodePatch>,
        /// Only if this is still the node's revision.
        expected: Option<Revision>,
    },
    /// The client rotates its WireGuard key.
    RotateKey {
        /// Proof of identity: the node with this machine key.
        machine_key: MachineKey,
        /// Only from this key.
        from: NodeKey,
        /// To this one.
        to: NodeKey,
        /// The path discovery key that goes with it.
        disco_key: Option<DiscoKey>,
        /// The new expiry.
        expires_at: Option<Timestamp>,
    },
    /// Make nodes' keys expire at this moment: they must sign in again.
    Expire {
        /// Which.
        nodes: Vec<NodeId>,
        /// When.
        at: Timestamp,
        /// How much of it.
        #[serde(default)]
        part: Part,
    },
    /// Removal of one node, by its id and nothing else.
    Delete {
        /// Which.
        id: NodeId,
    },
    /// Remove the ephemeral nodes that have been offline for longer than the cutoff.
    ReapEphemeral {
        /// How much of it.
        #[serde(default)]
        part: Part,
    },
    /// Give an address of each configured family to every node that lacks one.
    BackfillAddresses {
        /// How much of it. The first part makes sure that there are enough for all.
        #[serde(default)]
        part: Part,
    },
}

/// A write to a node's presence. Messages of an older or closed session change nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PresenceCommand {
    /// A control connection came up.
    Connect {
        /// Whose.
        node: NodeId,
        /// Its number; larger than any before.
        session: SessionNumber,
        /// Where the node can be reached.
        endpoints: Change<EndpointList>,
    },
    /// A sign of life.
    Heartbeat {
        /// Whose.
        node: NodeId,
        /// On which connection.
        session: SessionNumber,
        /// Where the node can be reached.
        endpoints: Change<EndpointList>,
    },
    /// A control connection went down.
    Disconnect {
        /// Whose.
        node: NodeId,
        /// Which connection.
        session: SessionNumber,
    },
    /// Every control connection went down: the control plane was restarted.
    DisconnectAll {
        /// How much of it.
        #[serde(default)]
        part: Part,
    },
}

names! {
    NodeCommand {
        Register = REGISTER "node.register",
        Update = UPDATE "node.update",
        RotateKey = ROTATE_KEY "node.rotate_key",
        Expire = EXPIRE "node.expire",
        Delete = DELETE "node.delete",
        ReapEphemeral = REAP "node.reap",
        BackfillAddresses = BACKFILL_ADDRESSES "node.backfill_addresses",
    }
    PresenceCommand {
        Connect = CONNECT "presence.connect",
        Heartbeat = HEARTBEAT "presence.heartbeat",
        Disconnect = DISCONNECT "presence.disconnect",
        DisconnectAll = DISCONNECT_ALL "presence.disconnect_all",
    }
}
