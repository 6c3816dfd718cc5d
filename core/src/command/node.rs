//! Writes to nodes and their presence.

use std::net::SocketAddr;
use std::time::Duration;

use super::Part;
use crate::domain::{
    DiscoKey, Endpoint, EndpointList, InstanceId, MachineKey, NodeId, NodeKey, NodePatch,
    NodeSettingsPatch, Registration, Renumbering, Revision, SessionNumber, Timestamp, Update,
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
        /// Give an address of each configured family to every node that lacks one; with `release`, also in
        /// place of those that the network settings have no place for any more, which are taken back. The
        /// first part makes sure that there are enough for all.
        BACKFILL_ADDRESSES = "node.backfill_addresses" BackfillAddresses {
            #[serde(default)]
            release: bool,
            #[serde(default)]
            part: Part,
        },
        /// Other addresses for one node; with `expected`, only if that is still its revision.
        RENUMBER = "node.renumber" Renumber {
            id: NodeId,
            addresses: Renumbering,
            #[serde(default)]
            expected: Option<Revision>,
        },
    }

    /// A write to a node's presence. Messages of an older or closed session change nothing.
    PresenceCommand {
        /// A control connection came up. Its number is larger than any before; without one, the next is
        /// drawn.
        CONNECT = "presence.connect" Connect {
            node: NodeId,
            session: Option<SessionNumber>,
            endpoints: Update<EndpointList>,
            #[serde(default)]
            instance: Option<InstanceId>,
        },
        /// A sign of life on a connection.
        HEARTBEAT = "presence.heartbeat" Heartbeat {
            node: NodeId,
            session: SessionNumber,
            endpoints: Update<EndpointList>,
            #[serde(default)]
            instance: Option<InstanceId>,
        },
        /// A sign of life on a connection, with one endpoint that is new or was seen again.
        PUT_ENDPOINT = "presence.put_endpoint" PutEndpoint {
            node: NodeId,
            session: SessionNumber,
            endpoint: Endpoint,
            #[serde(default)]
            instance: Option<InstanceId>,
        },
        /// A sign of life on a connection, with one endpoint less.
        REMOVE_ENDPOINT = "presence.remove_endpoint" RemoveEndpoint {
            node: NodeId,
            session: SessionNumber,
            addr: SocketAddr,
            #[serde(default)]
            instance: Option<InstanceId>,
        },
        /// A control connection went down.
        DISCONNECT = "presence.disconnect" Disconnect { node: NodeId, session: SessionNumber },
        /// The node was seen, on whatever connection or none; not recorded if it was at or after this moment
        /// already.
        TOUCH = "presence.touch" Touch { node: NodeId, unless_since: Timestamp },
        /// Every control connection went down: the control plane was restarted; with `of`, every one that
        /// this instance holds.
        DISCONNECT_ALL = "presence.disconnect_all" DisconnectAll {
            #[serde(default)]
            of: Option<InstanceId>,
            #[serde(default)]
            part: Part,
        },
        /// Instances that were not seen for longer than this are over: what they held is disconnected. The
        /// caller's own stays.
        DISCONNECT_LOST = "presence.disconnect_lost" DisconnectLost {
            unseen_for: Duration,
            own: Option<InstanceId>,
            #[serde(default)]
            part: Part,
        },
    }
}
