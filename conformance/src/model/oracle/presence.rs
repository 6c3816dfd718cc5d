use std::net::SocketAddr;

use super::{Oracle, Predicted};
use crate::model::call::Answer;
use crate::prelude::*;

/// What a message says.
#[derive(Clone, Copy, PartialEq)]
enum Message {
    Up,
    Alive,
    Down,
}

fn set(endpoints: &Update<EndpointList>) -> impl FnOnce(&mut Vec<Endpoint>) + '_ {
    |all| match endpoints {
        Update::Keep => {}
        Update::Set(endpoints) => *all = endpoints.iter().copied().collect(),
    }
}

impl Oracle {
    /// Without a number the next one is drawn.
    pub(super) fn connect(
        &mut self,
        node: NodeId,
        session: Option<SessionNumber>,
        endpoints: &Update<EndpointList>,
        instance: Option<InstanceId>,
    ) -> Predicted {
        let known = self.presence.iter().find(|presence| presence.node == node);
        let last = known.map_or(0, |presence| presence.session.get());
        let next = SessionNumber::new(last + 1).expect("a small number");
        self.hear(node, session.unwrap_or(next), Message::Up, set(endpoints), instance)
    }

    pub(super) fn heartbeat(
        &mut self,
        node: NodeId,
        session: SessionNumber,
        endpoints: &Update<EndpointList>,
        instance: Option<InstanceId>,
    ) -> Predicted {
        self.hear(node, session, Message::Alive, set(endpoints), instance)
    }

    /// One that was seen later stays as it is.
    pub(super) fn put_endpoint(
        &mut self,
        node: NodeId,
        session: SessionNumber,
        endpoint: Endpoint,
        instance: Option<InstanceId>,
    ) -> Predicted {
        let put = |all: &mut Vec<Endpoint>| {
            let is_newer = |known: &Endpoint| known.seen_at > endpoint.seen_at;
            if !all.iter().any(|known| known.addr == endpoint.addr && is_newer(known)) {
                all.retain(|known| known.addr != endpoint.addr);
                all.push(endpoint);
            }
        };
        self.hear(node, session, Message::Alive, put, instance)
    }

    pub(super) fn remove_endpoint(
        &mut self,
        node: NodeId,
        session: SessionNumber,
        addr: SocketAddr,
        instance: Option<InstanceId>,
    ) -> Predicted {
        let remove = |all: &mut Vec<Endpoint>| all.retain(|known| known.addr != addr);
        self.hear(node, session, Message::Alive, remove, instance)
    }

    pub(super) fn disconnect(&mut self, node: NodeId, session: SessionNumber) -> Predicted {
        self.hear(node, session, Message::Down, |_| {}, None)
    }

    fn hear(
        &mut self,
        node: NodeId,
        session: SessionNumber,
        message: Message,
        change: impl FnOnce(&mut Vec<Endpoint>),
        instance: Option<InstanceId>,
    ) -> Predicted {
        self.place_of_node(node)?;
        if instance.is_some_and(|id| !self.has_instance(id)) {
            return Err(NotFound);
        }
        let known = self.presence.iter().find(|presence| presence.node == node).cloned();
        let is_first = known.is_none();
        let old = known.unwrap_or(Presence { session, ..Presence::new(node) });
        let is_current = session == old.session && old.online;
        let is_applied =
            is_first || session > old.session || (is_current && message != Message::Up);
        if !is_applied {
            return Ok(Answer::Presence(old.into()));
        }
        let mut endpoints: Vec<_> = old.endpoints.iter().copied().collect();
        change(&mut endpoints);
        endpoints.iter_mut().for_each(|it| it.seen_at = it.seen_at.min(self.now));
        let endpoints = EndpointList::new(endpoints).expect("few endpoints");
        if is_current && message == Message::Alive && self.says_nothing_new(&old, &endpoints) {
            return Ok(Answer::Presence(old.into()));
        }
        let online = message != Message::Down;
        // Who opened a connection holds it.
        let holder = if is_current { old.instance } else { instance };
        let presence = Presence {
            node,
            session,
            online,
            last_seen: Some(self.now),
            endpoints,
            absent_since: None,
            instance: if online { holder } else { None },
        };
        // It is a write, whatever it says.
        self.writes += 1;
        Ok(self.put_presence(presence))
    }

    /// Shortly after the last one that was recorded, and with the same endpoints, whenever seen.
    fn says_nothing_new(&self, old: &Presence, endpoints: &EndpointList) -> bool {
        let interval = Duration::from_secs(self.network().heartbeat_interval_seconds.into());
        let said = |endpoints: &EndpointList| -> Vec<_> {
            endpoints.iter().map(|it| (it.addr, it.kind, it.preference)).collect()
        };
        let is_recent = old.last_seen.is_some_and(|seen| self.now.since(seen) < interval);
        is_recent && said(endpoints) == said(&old.endpoints)
    }

    /// The connection stays as it is.
    pub(super) fn touch(&mut self, node: NodeId, unless_since: Timestamp) -> Predicted {
        self.place_of_node(node)?;
        let known = self.presence.iter().find(|presence| presence.node == node);
        let old = known.cloned().unwrap_or(Presence::new(node));
        if old.last_seen.is_some_and(|seen| seen >= unless_since) {
            return Ok(Answer::Presence(old.into()));
        }
        self.writes += 1;
        let (last_seen, absent_since) = (Some(self.now), None);
        Ok(self.put_presence(Presence { last_seen, absent_since, ..old }))
    }

    fn put_presence(&mut self, presence: Presence) -> Answer {
        self.presence.retain(|known| known.node != presence.node);
        self.presence.push(presence.clone());
        Answer::Presence(presence.into())
    }

    pub(super) fn disconnect_all(&mut self, is_meant: impl Fn(&Presence) -> bool) -> Answer {
        let mut count = 0;
        for presence in &mut self.presence {
            if presence.online && is_meant(presence) {
                presence.online = false;
                presence.absent_since = Some(self.now);
                presence.instance = None;
                count += 1;
            }
        }
        Answer::Count(count)
    }

    pub(in super::super) fn is_online(&self, node: NodeId) -> bool {
        self.presence.iter().any(|presence| presence.node == node && presence.online)
    }
}
