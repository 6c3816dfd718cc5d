//! Bringing in whole entities, under the same rules as any other write.

use super::State;
use super::decision::{Decision, Draft, Reply};
use crate::command::{Image, Restore, Restored};
use crate::error::{Entity, Error, Result};

/// What to do with an image.
enum Verdict {
    New,
    Unchanged,
}

impl State {
    pub(super) fn decide_restore(&self, restore: &Restore) -> Result<Decision> {
        let mut draft = Draft::of(self);
        let mut restored = Restored::default();
        for (index, image) in restore.images.iter().enumerate() {
            match draft.state.judge(image) {
                Ok(Verdict::New) => {
                    draft.put(image.clone());
                    restored.restored += 1;
                }
                Ok(Verdict::Unchanged) => restored.unchanged += 1,
                Err(error) if restore.skip_invalid => {
                    restored.skipped.push((index, error.to_string()));
                }
                Err(error) => return Err(error.with("index", index)),
            }
        }
        Ok(draft.finish(Reply::Restored(restored)))
    }

    /// Whether a whole entity may be brought in.
    fn judge(&self, image: &Image) -> Result<Verdict> {
        image.check()?;
        if let Some(present) = self.present(image) {
            return if present == *image {
                Ok(Verdict::Unchanged)
            } else {
                Err(Error::already_exists(image.entity(), "id")
                    .with("help", "another version of it is in the store"))
            };
        }
        match image {
            Image::User(user) => self.users.check_unique(user)?,
            Image::Node(node) => {
                self.check_owned(node)?;
                self.nodes.check_unique(node)?;
                let addresses = [node.ipv4.map(Into::into), node.ipv6.map(Into::into)];
                for address in addresses.into_iter().flatten() {
                    if let Some(holder) = self.addresses.holder(address) {
                        return Err(Error::already_exists(Entity::Node, "address")
                            .with("address", address)
                            .with("held_by", holder));
                    }
                }
            }
            Image::Presence(presence) => {
                self.node(presence.node)?;
            }
            Image::Route(route) => {
                self.node(route.node)?;
                if self.routes.find(route.node, route.prefix).is_some() {
                    return Err(Error::already_exists(Entity::Route, "node_prefix")
                        .with("node", route.node)
                        .with("prefix", route.prefix));
                }
                if route.primary {
                    self.check_primary(route)?;
                }
            }
            Image::ApiKey(key) => {
                if let Some(user) = key.user {
                    self.user(user)?;
                }
                self.api_keys.check_unique(key)?;
            }
            Image::PreAuthKey(key) => {
                self.check_preauth_owner(key)?;
                self.preauth_keys.check_unique(key)?;
            }
            Image::Policy(_) => {}
            Image::DnsRecord(record) => {
                record.kind.check(record.value.as_str())?;
                self.dns_records.check_unique(record)?;
            }
            Image::Session(session) => self.check_session_owner(session.owner)?,
            Image::Setting(setting) => setting.document.check()?,
        }
        Ok(Verdict::New)
    }

    fn check_primary(&self, route: &crate::domain::Route) -> Result<()> {
        if let Some(holder) = self.routes.primary(route.prefix) {
            return Err(Error::already_exists(Entity::Route, "primary")
                .with("prefix", route.prefix)
                .with("held_by", holder.id));
        }
        let online = self.presence.is_online(route.node);
        if !(route.carries_traffic() && online) || route.prefix.is_exit() {
            return Err(Error::invalid(
                "a primary route is advertised, approved, no exit route, and its node is online",
            )
            .about(Entity::Route)
            .with("id", route.id));
        }
        Ok(())
    }

    fn present(&self, image: &Image) -> Option<Image> {
        Some(match image {
            Image::User(user) => Image::User(self.users.get(user.id)?.clone()),
            Image::Node(node) => Image::Node(self.nodes.get(node.id)?.clone()),
            Image::Presence(presence) => Image::Presence(self.presence.get(presence.node)?.clone()),
            Image::Route(route) => Image::Route(self.routes.get(route.id)?.clone()),
            Image::ApiKey(key) => Image::ApiKey(self.api_keys.get(key.id)?.clone()),
            Image::PreAuthKey(key) => Image::PreAuthKey(self.preauth_keys.get(key.id)?.clone()),
            Image::Policy(policy) => Image::Policy(self.policies.get(policy.version)?.clone()),
            Image::DnsRecord(record) => Image::DnsRecord(self.dns_records.get(record.id)?.clone()),
            Image::Session(session) => Image::Session(self.sessions.get(session.id)?.clone()),
            Image::Setting(setting) => {
                Image::Setting(self.settings.get(setting.document.kind())?.clone())
            }
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::command::SessionCommand;
    use crate::domain::{NewSession, Session, SessionId, SessionOwner, Timestamp};
    use crate::state::testing::*;

    fn everything(world: &World) -> Vec<Image> {
        world.state.images().collect()
    }

    #[test]
    fn a_state_can_be_restored_twice_over() {
        let mut world = World::new();
        let alice = world.user("alice");
        world.preauth_key(alice.id, true);
        world.register(alice.id, 1).unwrap();
        let images = everything(&world);
        let mut copy = World::new();
        for unchanged in [0, images.len() as u64] {
            let restore = Restore { images: images.clone(), skip_invalid: false };
            let Reply::Restored(restored) = copy.run(restore).unwrap() else { panic!() };
            assert_eq!(restored.unchanged, unchanged);
            assert_eq!(everything(&copy), images);
        }
    }

    #[test]
    fn no_session_has_a_hash_that_anybody_can_make() {
        let mut world = World::new();
        let alice = world.user("alice");
        let session = |hash: &str| Session {
            id: SessionId::from_bytes([7; 16]),
            owner: SessionOwner::User(alice.id),
            hash: hash.parse().unwrap(),
            client: None,
            created_at: alice.created_at,
            expires_at: alice.created_at.saturating_add(std::time::Duration::from_secs(60)),
            last_seen: alice.created_at,
        };
        let forged = "bcrypt:$2b$04$ABCDEFGHIJKLMNOPQRSTUu5pUYnC0pESokJLt705oY3/ycNDD4BIW";
        let images = |hash: &str| vec![Image::Session(session(hash).into())];
        let restore = |hash: &str, skip_invalid| Restore { images: images(hash), skip_invalid };
        let error = world.run(restore(forged, false)).unwrap_err();
        assert!(error.to_string().contains("not with bcrypt"), "{error}");
        let begin = SessionCommand::Begin {
            id: SessionId::from_bytes([7; 16]),
            hash: forged.parse().unwrap(),
            session: NewSession {
                owner: SessionOwner::User(alice.id),
                client: None,
                expires_at: Timestamp::MAX,
            },
        };
        let error = world.run(begin).unwrap_err();
        assert!(error.to_string().contains("not with bcrypt"), "{error}");
        let Reply::Restored(restored) = world.run(restore(forged, true)).unwrap() else { panic!() };
        assert_eq!((restored.restored, restored.skipped.len()), (0, 1));
        assert!(world.state.sessions().is_empty());
        let keyed = format!("hmac-sha256:00000001:{}", "5e".repeat(32));
        world.run(restore(&keyed, false)).unwrap();
    }

    #[test]
    fn what_breaks_a_rule_is_named_or_skipped() {
        let mut world = World::new();
        let alice = world.user("alice");
        let node = world.register(alice.id, 1).unwrap();
        let mut twin = crate::domain::Node::clone(&node);
        twin.id = crate::domain::NodeId::from_bytes(world.id());
        twin.machine_key = machine_key(9);
        twin.node_key = node_key(9);
        twin.label = "other".parse().unwrap();
        let images = vec![Image::Node(twin.into())];
        let error = world.run(Restore { images: images.clone(), skip_invalid: false }).unwrap_err();
        assert_eq!(error.constraint(), Some("address"));
        let Reply::Restored(restored) = world.run(Restore { images, skip_invalid: true }).unwrap()
        else {
            panic!()
        };
        assert_eq!(restored.skipped.len(), 1);
        assert_eq!(world.state.nodes().len(), 1);
    }
}
