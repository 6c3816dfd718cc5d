//! Bringing in whole entities, under the same rules as any other write.

use super::State;
use super::decision::{Decision, Draft, Reply};
use crate::command::{EntityRecord, Restore, Restored};
use crate::error::{Error, Result};

pub(crate) fn decide(state: &State, restore: &Restore) -> Result<Decision> {
    let mut draft = Draft::of(state);
    let mut restored = Restored::default();
    for (index, image) in restore.images.iter().enumerate() {
        match is_new(&draft.state, image) {
            Ok(true) => {
                draft.put(image.clone());
                restored.restored += 1;
            }
            Ok(false) => restored.unchanged += 1,
            Err(error) if restore.skip_invalid => {
                restored.skipped.push((index, error.to_string()));
            }
            Err(error) => return Err(error.with("index", index)),
        }
    }
    Ok(draft.finish(Reply::Restored(restored)))
}

/// Whether an entity is to be brought in, or there already; refuses it if it cannot be.
fn is_new(state: &State, image: &EntityRecord) -> Result<bool> {
    image.check()?;
    match image.is_in(state) {
        Some(true) => Ok(false),
        Some(false) if takes_the_place_of_a_default(state, image) => {
            image.check_beside(state).map(|()| true)
        }
        Some(false) => Err(Error::already_exists(image.entity(), "id")
            .with("help", "another version of it is in the store")),
        None => image.check_beside(state).map(|()| true),
    }
}

/// Nothing is lost with a document that says what would be in force without it, and a reset leaves one. So
/// what was saved before a reset can come back.
fn takes_the_place_of_a_default(state: &State, image: &EntityRecord) -> bool {
    let EntityRecord::Setting(setting) = image else { return false };
    let present = state.settings().get(setting.document.kind());
    present.is_some_and(|present| present.document.is_default())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::command::{SessionCommand, SettingCommand};
    use crate::domain::{
        DnsSettings, NewSession, Session, SessionId, SessionOwner, SettingDocument, SettingKind,
        Timestamp,
    };
    use crate::state::testing::*;

    fn everything(world: &World) -> Vec<EntityRecord> {
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
    fn a_document_comes_back_after_a_reset_and_replaces_no_other() {
        let mut world = World::new();
        let put = |magic_dns| {
            let dns = DnsSettings { magic_dns, ..DnsSettings::default() };
            let base_domain = "mesh.example.com".parse().ok();
            let document = SettingDocument::Dns(DnsSettings { base_domain, ..dns });
            SettingCommand::Put { document, expected: None }
        };
        world.run(put(true)).unwrap();
        let saved = everything(&world);
        let restore = Restore { images: saved.clone(), skip_invalid: false };
        world.run(SettingCommand::Reset { kind: SettingKind::Dns }).unwrap();
        world.run(restore.clone()).unwrap();
        assert_eq!(everything(&world), saved);
        world.run(put(false)).unwrap();
        let error = world.run(restore).unwrap_err();
        assert_eq!(error.constraint(), Some("id"));
    }

    #[test]
    fn no_session_has_a_hash_that_anybody_can_make() {
        let mut world = World::new();
        let alice = world.user("alice");
        let session = |hash: &str| Session {
            id: SessionId::from_bytes([7; 16]),
            owner: SessionOwner::User(alice.id),
            node: None,
            hash: hash.parse().unwrap(),
            client: None,
            created_at: alice.created_at,
            expires_at: alice.created_at.saturating_add(std::time::Duration::from_secs(60)),
            last_seen: alice.created_at,
        };
        let forged = "bcrypt:$2b$04$ABCDEFGHIJKLMNOPQRSTUu5pUYnC0pESokJLt705oY3/ycNDD4BIW";
        let images = |hash: &str| vec![EntityRecord::Session(session(hash).into())];
        let restore = |hash: &str, skip_invalid| Restore { images: images(hash), skip_invalid };
        let error = world.run(restore(forged, false)).unwrap_err();
        assert!(error.to_string().contains("the store's key"), "{error}");
        let begin = SessionCommand::Begin {
            id: SessionId::from_bytes([7; 16]),
            hash: forged.parse().unwrap(),
            session: NewSession {
                owner: SessionOwner::User(alice.id),
                node: None,
                client: None,
                expires_at: Timestamp::MAX,
            },
        };
        let error = world.run(begin).unwrap_err();
        assert!(error.to_string().contains("the store's key"), "{error}");
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
        let images = vec![EntityRecord::Node(twin.into())];
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
