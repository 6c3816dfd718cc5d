use super::{Oracle, Predicted, changed, expect, is_of, is_over, patched, plus_one, taken};
use crate::model::call::{Answer, Rotation};
use crate::prelude::*;

impl Oracle {
    pub(super) fn place_of_node(&self, id: NodeId) -> Predicted<usize> {
        self.nodes.iter().position(|node| node.id == id).ok_or(NotFound)
    }

    /// Stores a node, unless it is as it was. Tells whether it was not.
    fn put_node(&mut self, place: usize, mut wanted: Node) -> bool {
        if wanted == self.nodes[place] {
            return false;
        }
        wanted.updated_at = self.now;
        wanted.revision = plus_one(wanted.revision);
        self.nodes[place] = wanted;
        true
    }

    pub(super) fn update_node(
        &mut self,
        id: NodeId,
        patch: &NodePatch,
        expected: Option<Revision>,
    ) -> Predicted {
        let place = self.place_of_node(id)?;
        let node = self.nodes[place].clone();
        expect(expected, node.revision)?;
        let wanted = Node {
            label: changed(&node.label, &patch.label),
            hostname: changed(&node.hostname, &patch.hostname),
            tags: changed(&node.tags, &patch.tags),
            user: patched(&node.user, &patch.user),
            host_info: changed(&node.host_info, &patch.host_info),
            disco_key: patched(&node.disco_key, &patch.disco_key),
            expires_at: patched(&node.expires_at, &patch.expires_at),
            families: changed(&node.families, &patch.families),
            ..node
        };
        if wanted.user.is_some_and(|user| !self.has_user(user)) {
            return Err(NotFound);
        }
        if wanted.user.is_none() && wanted.tags.is_empty() {
            return Err(InvalidArgument);
        }
        if self.nodes.iter().any(|other| other.id != id && other.label == wanted.label) {
            return Err(taken("label"));
        }
        self.put_node(place, wanted);
        Ok(Answer::Node(self.nodes[place].clone().into()))
    }

    pub(super) fn rotate_key(&mut self, rotation: &Rotation) -> Predicted {
        let place = self
            .nodes
            .iter()
            .position(|node| node.machine_key == rotation.machine_key)
            .ok_or(NotFound)?;
        let node = self.nodes[place].clone();
        let wanted = Node {
            node_key: rotation.to,
            disco_key: rotation.disco_key,
            expires_at: rotation.expires_at,
            ..node.clone()
        };
        // Repeating it does nothing, even for a node that has expired meanwhile.
        if wanted == node {
            return Ok(Answer::Node(node.into()));
        }
        if node.node_key != rotation.from {
            return Err(Conflict);
        }
        if is_over(node.expires_at, self.now) {
            return Err(PermissionDenied);
        }
        if self.nodes.iter().any(|other| other.id != node.id && other.node_key == rotation.to) {
            return Err(taken("node_key"));
        }
        self.put_node(place, wanted);
        Ok(Answer::Node(self.nodes[place].clone().into()))
    }

    pub(super) fn expire_nodes(&mut self, nodes: &[NodeId], at: Timestamp) -> Predicted {
        let mut count = 0;
        for id in nodes {
            let place = self.place_of_node(*id)?;
            let wanted = Node { expires_at: Some(at), ..self.nodes[place].clone() };
            count += u64::from(self.put_node(place, wanted));
        }
        Ok(Answer::Count(count))
    }

    pub(super) fn delete_node(&mut self, id: NodeId) -> Predicted {
        self.place_of_node(id)?;
        self.forget_node(id);
        Ok(Answer::Done)
    }

    pub(super) fn forget_node(&mut self, id: NodeId) {
        self.nodes.retain(|node| node.id != id);
        self.presence.retain(|presence| presence.node != id);
        self.routes.retain(|route| route.node != id);
        self.sessions.retain(|session| !is_of(session, SessionOwner::Node(id)));
    }

    pub(super) fn reap_ephemeral(&mut self) -> Answer {
        let cutoff = Duration::from_secs(self.network().ephemeral_cutoff_seconds.into());
        let mut reaped = Vec::new();
        for node in &self.nodes {
            let presence = self.presence.iter().find(|presence| presence.node == node.id);
            let is_online = presence.is_some_and(|presence| presence.online);
            let absent = presence.and_then(|it| it.last_seen.max(it.absent_since));
            let absent_for = self.now.since(absent.unwrap_or(node.created_at));
            if node.ephemeral && !is_online && absent_for >= cutoff {
                reaped.push(node.id);
            }
        }
        for id in &reaped {
            self.forget_node(*id);
        }
        reaped.sort();
        Answer::Nodes(reaped)
    }

    pub(super) fn backfill_addresses(&mut self) -> Predicted {
        let mut ids: Vec<_> = self.nodes.iter().map(|node| node.id).collect();
        ids.sort();
        let mut given = Vec::new();
        for id in ids {
            let place = self.place_of_node(id)?;
            let mut wanted = self.nodes[place].clone();
            if wanted.ipv4.is_none() && wanted.families.has_ipv4() {
                wanted.ipv4 = self.free_ipv4()?;
            }
            if wanted.ipv6.is_none() && wanted.families.has_ipv6() {
                wanted.ipv6 = self.free_ipv6()?;
            }
            if self.put_node(place, wanted) {
                given.push(id);
            }
        }
        Ok(Answer::Nodes(given))
    }
}
