use super::{Oracle, Predicted, changed, expect, patched, plus_one, taken};
use crate::model::call::{Answer, Fresh};
use crate::prelude::*;

impl Oracle {
    fn new_user(&self, user: &NewUser, fresh: &Fresh) -> User {
        User {
            id: UserId::from_bytes(fresh.id),
            name: user.name.clone(),
            display_name: user.display_name.clone(),
            email: user.email.clone(),
            identity: user.identity.clone(),
            picture_url: user.picture_url.clone(),
            created_at: self.now,
            updated_at: self.now,
            revision: Revision::FIRST,
        }
    }

    pub(super) fn create_user(&mut self, new: &NewUser, fresh: &Fresh) -> Predicted {
        for user in &self.users {
            match (&user.identity, &new.identity) {
                (Identity::Local {}, Identity::Local {}) if user.name == new.name => {
                    return Err(taken("name"));
                }
                (Identity::Oidc { .. }, Identity::Oidc { .. }) if user.identity == new.identity => {
                    return Err(taken("identity"));
                }
                _ => {}
            }
        }
        let user = self.new_user(new, fresh);
        self.users.push(user.clone());
        Ok(Answer::User(user.into()))
    }

    pub(super) fn upsert_oidc(&mut self, profile: &OidcProfile, fresh: &Fresh) -> Predicted {
        let identity =
            Identity::Oidc { provider: profile.provider.clone(), subject: profile.subject.clone() };
        let wanted = NewUser {
            name: profile.name.clone(),
            display_name: profile.display_name.clone(),
            email: profile.email.clone(),
            identity,
            picture_url: profile.picture_url.clone(),
        };
        let mut as_wanted = self.new_user(&wanted, fresh);
        for user in &mut self.users {
            if user.identity != wanted.identity {
                continue;
            }
            as_wanted.id = user.id;
            as_wanted.created_at = user.created_at;
            as_wanted.updated_at = user.updated_at;
            as_wanted.revision = user.revision;
            if *user != as_wanted {
                as_wanted.updated_at = self.now;
                as_wanted.revision = plus_one(user.revision);
                *user = as_wanted.clone();
            }
            return Ok(Answer::User(as_wanted.into()));
        }
        self.users.push(as_wanted.clone());
        Ok(Answer::User(as_wanted.into()))
    }

    pub(super) fn update_user(
        &mut self,
        id: UserId,
        patch: &UserPatch,
        expected: Option<Revision>,
    ) -> Predicted {
        let place = self.users.iter().position(|user| user.id == id).ok_or(NotFound)?;
        let user = self.users[place].clone();
        expect(expected, user.revision)?;
        let mut wanted = User {
            name: changed(&user.name, &patch.name),
            display_name: patched(&user.display_name, &patch.display_name),
            email: patched(&user.email, &patch.email),
            identity: changed(&user.identity, &patch.identity),
            picture_url: patched(&user.picture_url, &patch.picture_url),
            ..user.clone()
        };
        let is_local = |user: &User| user.identity == Identity::Local {};
        for other in &self.users {
            if other.id != id && is_local(other) && is_local(&wanted) && other.name == wanted.name {
                return Err(taken("name"));
            }
            let is_of_a_provider = matches!(wanted.identity, Identity::Oidc { .. });
            if other.id != id && is_of_a_provider && other.identity == wanted.identity {
                return Err(taken("identity"));
            }
        }
        if wanted != user {
            wanted.updated_at = self.now;
            wanted.revision = plus_one(user.revision);
            self.users[place] = wanted.clone();
        }
        Ok(Answer::User(wanted.into()))
    }

    pub(super) fn delete_user(&mut self, id: UserId, cascade: bool) -> Predicted {
        if !self.users.iter().any(|user| user.id == id) {
            return Err(NotFound);
        }
        let of_user = |user: Option<UserId>| user == Some(id);
        let owns = self.nodes.iter().any(|node| of_user(node.user))
            || self.preauth_keys.iter().any(|key| of_user(key.user))
            || self.api_keys.iter().any(|key| of_user(key.user));
        if owns && !cascade {
            return Err(Restricted);
        }
        for node in self.nodes.clone() {
            if of_user(node.user) {
                self.forget_node(node.id);
            }
        }
        self.preauth_keys.retain(|key| !of_user(key.user));
        self.api_keys.retain(|key| !of_user(key.user));
        self.sessions.retain(|session| session.owner != SessionOwner::User(id));
        self.users.retain(|user| user.id != id);
        Ok(Answer::Done)
    }

    pub(super) fn has_user(&self, id: UserId) -> bool {
        self.users.iter().any(|user| user.id == id)
    }
}
