use super::{Oracle, Predicted};
use crate::model::call::{Answer, Fresh};
use crate::prelude::*;

impl Oracle {
    /// Another process of this name is over.
    pub(super) fn begin_instance(&mut self, name: &InstanceName, fresh: &Fresh) -> Answer {
        self.end_instances(|instance| instance.name == *name);
        let instance = Instance {
            id: InstanceId::from_bytes(fresh.id),
            name: name.clone(),
            started_at: self.now,
            last_seen: self.now,
        };
        self.instances.push(instance.clone());
        Answer::Instance(instance.into())
    }

    pub(super) fn beat_instance(&mut self, id: InstanceId) -> Predicted {
        let now = self.now;
        let instance = self.instances.iter_mut().find(|instance| instance.id == id);
        let instance = instance.ok_or(NotFound)?;
        if now.since(instance.last_seen) >= Duration::from_secs(5) {
            instance.last_seen = now;
        }
        Ok(Answer::Instance(instance.clone().into()))
    }

    pub(super) fn end_instance(&mut self, id: InstanceId) -> Predicted {
        if !self.has_instance(id) {
            return Err(NotFound);
        }
        Ok(self.end_instances(|instance| instance.id == id))
    }

    /// In no less time than two signs of life take.
    pub(super) fn disconnect_lost(&mut self, unseen_for: Duration) -> Predicted {
        if unseen_for < Duration::from_secs(10) {
            return Err(InvalidArgument);
        }
        let now = self.now;
        Ok(self.end_instances(|instance| now.since(instance.last_seen) > unseen_for))
    }

    pub(super) fn has_instance(&self, id: InstanceId) -> bool {
        self.instances.iter().any(|instance| instance.id == id)
    }

    /// They are gone, and what they held is disconnected.
    fn end_instances(&mut self, is_over: impl Fn(&Instance) -> bool) -> Answer {
        let over = self.instances.iter().filter(|instance| is_over(instance));
        let over: Vec<_> = over.map(|instance| Some(instance.id)).collect();
        self.instances.retain(|instance| !is_over(instance));
        self.disconnect_all(|presence| over.contains(&presence.instance))
    }
}
