use super::{Oracle, Predicted, changed};
use crate::model::call::Answer;
use crate::prelude::*;

/// What a message says.
#[derive(Clone, Copy, PartialEq)]
enum Message {
    Up,
    Alive,
    Down,
}

impl Oracle {
    pub(super) fn connect(
        &mut self,
        node: NodeId,
        session: SessionNumber,
        endpoints: &Update<EndpointList>,
    ) -> Predicted {
        self.hear(node, session, Message::Up, endpoints)
    }

    pub(super) fn heartbeat(
        &mut self,
        node: NodeId,
        session: SessionNumber,
        endpoints: &Update<EndpointList>,
    ) -> Predicted {
        self.hear(node, session, Message::Alive, endpoints)
    }

    pub(super) fn disconnect(&mut self, node: NodeId, session: SessionNumber) -> Predicted {
        self.hear(node, session, Message::Down, &Update::Keep)
    }

    fn hear(
        &mut self,
        node: NodeId,
        session: SessionNumber,
        message: Message,
        endpoints: &Update<EndpointList>,
    ) -> Predicted {
        if !self.nodes.iter().any(|known| known.id == node) {
            return Err(NotFound);
        }
        let known = self.presence.iter().position(|presence| presence.node == node);
        let is_applied = match known.map(|place| &self.presence[place]) {
            None => true,
            Some(presence) if session > presence.session => true,
            Some(presence) => {
                session == presence.session && presence.online && message != Message::Up
            }
        };
        let place = known.unwrap_or_else(|| {
            self.presence.push(Presence { session, ..Presence::new(node) });
            self.presence.len() - 1
        });
        if is_applied {
            let presence = &mut self.presence[place];
            presence.session = session;
            presence.online = message != Message::Down;
            presence.last_seen = Some(self.now);
            presence.absent_since = None;
            presence.endpoints = changed(&presence.endpoints, endpoints);
            // It is a write, whatever it says.
            self.writes += 1;
        }
        Ok(Answer::Presence(self.presence[place].clone().into()))
    }

    pub(super) fn disconnect_all(&mut self) -> Answer {
        let mut count = 0;
        for presence in &mut self.presence {
            if presence.online {
                presence.online = false;
                presence.absent_since = Some(self.now);
                count += 1;
            }
        }
        Answer::Count(count)
    }

    pub(in super::super) fn is_online(&self, node: NodeId) -> bool {
        self.presence.iter().any(|presence| presence.node == node && presence.online)
    }
}
