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
            role: user.role,
            groups: GroupSet::empty(),
            metadata: None,
            metadata_revision: None,
            created_at: self.now,
            updated_at: self.now,
            last_sign_in_at: None,
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
            role: UserRole::Member,
        };
        let mut as_wanted = self.new_user(&wanted, fresh);
        as_wanted.groups = profile.groups.clone();
        as_wanted.last_sign_in_at = Some(self.now);
        for user in &mut self.users {
            if user.identity != wanted.identity {
                continue;
            }
            as_wanted.id = user.id;
            as_wanted.created_at = user.created_at;
            as_wanted.updated_at = user.updated_at;
            as_wanted.revision = user.revision;
            as_wanted.role = user.role;
            as_wanted.metadata = user.metadata.clone();
            as_wanted.metadata_revision = user.metadata_revision;
            let at_once = User { last_sign_in_at: user.last_sign_in_at, ..as_wanted.clone() };
            let minute = Duration::from_secs(60);
            if *user != at_once {
                as_wanted.updated_at = self.now;
                as_wanted.revision = plus_one(user.revision);
            } else if user.last_sign_in_at.is_some_and(|at| self.now.since(at) < minute) {
                as_wanted = at_once;
            }
            *user = as_wanted.clone();
            return Ok(Answer::User(as_wanted.into()));
        }
        self.users.push(as_wanted.clone());
        Ok(Answer::User(as_wanted.into()))
    }

    pub(super) fn sign_in(&mut self, id: UserId) -> Predicted {
        let now = self.now;
        let user = self.users.iter_mut().find(|user| user.id == id).ok_or(NotFound)?;
        if user.last_sign_in_at.is_none_or(|at| now.since(at) >= Duration::from_secs(60)) {
            user.last_sign_in_at = Some(now);
        }
        Ok(Answer::User(user.clone().into()))
    }

    pub(super) fn set_metadata(
        &mut self,
        id: UserId,
        metadata: &Option<JsonObject>,
        expected: Option<Revision>,
    ) -> Predicted {
        let user = self.users.iter_mut().find(|user| user.id == id).ok_or(NotFound)?;
        if expected.is_some() && expected != user.metadata_revision {
            return Err(Conflict);
        }
        if user.metadata != *metadata {
            user.metadata = metadata.clone();
            let revision = user.metadata_revision.map_or(Revision::FIRST, plus_one);
            user.metadata_revision = Some(revision);
        }
        Ok(Answer::User(user.clone().into()))
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
            role: changed(&user.role, &patch.role),
            groups: changed(&user.groups, &patch.groups),
            ..user.clone()
        };
        if wanted.groups != user.groups && matches!(wanted.identity, Identity::Oidc { .. }) {
            return Err(Restricted);
        }
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
