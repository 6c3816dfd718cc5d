use super::{Oracle, Predicted, is_of, is_over, plus_one, remove};
use crate::model::call::{Answer, Fresh};
use crate::prelude::*;

fn hash(fresh: &Fresh) -> SecretHash {
    fresh.hash.clone().unwrap_or(SecretHash::hmac([0; 4], [0; 32]))
}

fn ended(
    revoked_at: Option<Timestamp>,
    expires_at: Option<Timestamp>,
    before: Timestamp,
    now: Timestamp,
) -> bool {
    [revoked_at, expires_at].into_iter().flatten().any(|end| end < before && end <= now)
}

impl Oracle {
    pub(super) fn create_preauth_key(&mut self, new: &NewPreAuthKey, fresh: &Fresh) -> Predicted {
        if new.user.is_none() && new.tags.is_empty() {
            return Err(InvalidArgument);
        }
        if new.user.is_some_and(|user| !self.has_user(user)) {
            return Err(NotFound);
        }
        if let (Some(user), Some(limit)) = (new.user, self.network().max_preauth_keys_per_user) {
            let now = self.now;
            let is_live = |key: &&PreAuthKey| {
                key.user == Some(user)
                    && key.revoked_at.is_none()
                    && !is_over(key.expires_at, now)
                    && (key.reusable || key.used_at.is_none())
            };
            if self.preauth_keys.iter().filter(is_live).count() >= limit as usize {
                return Err(Exhausted);
            }
        }
        let key = PreAuthKey {
            id: PreAuthKeyId::from_bytes(fresh.id),
            prefix: fresh.prefix.clone(),
            hash: hash(fresh),
            user: new.user,
            tags: new.tags.clone(),
            reusable: new.reusable,
            ephemeral: new.ephemeral,
            used_at: None,
            created_at: self.now,
            expires_at: new.expires_at,
            revoked_at: None,
            revision: Revision::FIRST,
        };
        self.preauth_keys.push(key.clone());
        Ok(Answer::PreAuthKey(key.into()))
    }

    pub(super) fn revoke_preauth_key(&mut self, id: PreAuthKeyId) -> Predicted {
        for key in &mut self.preauth_keys {
            if key.id == id && key.revoked_at.is_none() {
                key.revoked_at = Some(self.now);
                key.revision = plus_one(key.revision);
                return Ok(Answer::PreAuthKey(key.clone().into()));
            }
        }
        Err(NotFound)
    }

    pub(super) fn delete_preauth_key(&mut self, id: PreAuthKeyId) -> Predicted {
        remove(&mut self.preauth_keys, |key| key.id == id)
    }

    pub(super) fn create_api_key(&mut self, new: &NewApiKey, fresh: &Fresh) -> Predicted {
        if new.user.is_some_and(|user| !self.has_user(user)) {
            return Err(NotFound);
        }
        if let (Some(user), Some(limit)) = (new.user, self.network().max_api_keys_per_user) {
            let now = self.now;
            let is_live = |key: &&ApiKey| {
                key.user == Some(user) && key.revoked_at.is_none() && !is_over(key.expires_at, now)
            };
            if self.api_keys.iter().filter(is_live).count() >= limit as usize {
                return Err(Exhausted);
            }
        }
        let nothing = || "nothing".parse().expect("a prefix");
        let key = ApiKey {
            id: ApiKeyId::from_bytes(fresh.id),
            prefix: fresh.prefix.clone().unwrap_or_else(nothing),
            hash: hash(fresh),
            user: new.user,
            description: new.description.clone(),
            permissions: new.permissions.clone(),
            created_by: None,
            created_at: self.now,
            expires_at: new.expires_at,
            revoked_at: None,
            last_used_at: None,
            revision: Revision::FIRST,
        };
        self.api_keys.push(key.clone());
        Ok(Answer::ApiKey(key.into()))
    }

    pub(super) fn revoke_api_key(&mut self, id: ApiKeyId) -> Predicted {
        for key in &mut self.api_keys {
            if key.id == id && key.revoked_at.is_none() {
                key.revoked_at = Some(self.now);
                key.revision = plus_one(key.revision);
                return Ok(Answer::ApiKey(key.clone().into()));
            }
        }
        Err(NotFound)
    }

    pub(super) fn delete_api_key(&mut self, id: ApiKeyId) -> Predicted {
        remove(&mut self.api_keys, |key| key.id == id)
    }

    /// Keys that could be used no longer, `before` and now.
    pub(super) fn sweep_api_keys(&mut self, before: Timestamp) -> Answer {
        let (count, now) = (self.api_keys.len(), self.now);
        self.api_keys.retain(|key| !ended(key.revoked_at, key.expires_at, before, now));
        Answer::Count((count - self.api_keys.len()) as u64)
    }

    pub(super) fn sweep_preauth_keys(&mut self, before: Timestamp) -> Answer {
        let (count, now) = (self.preauth_keys.len(), self.now);
        let nodes = self.nodes.iter().filter(|node| !is_over(node.expires_at, now));
        let shown: Vec<_> = nodes.filter_map(|node| node.preauth_key).collect();
        self.preauth_keys.retain(|key| {
            !ended(key.revoked_at, key.expires_at, before, now) || shown.contains(&key.id)
        });
        Answer::Count((count - self.preauth_keys.len()) as u64)
    }

    pub(super) fn begin_session(&mut self, new: &NewSession, fresh: &Fresh) -> Predicted {
        let is_known = match new.owner {
            SessionOwner::User(id) => self.has_user(id),
            SessionOwner::Node(id) => self.place_of_node(id).is_ok(),
        };
        if !is_known || new.node.is_some_and(|id| self.place_of_node(id).is_err()) {
            return Err(NotFound);
        }
        if is_over(Some(new.expires_at), self.now) {
            return Err(InvalidArgument);
        }
        let session = Session {
            id: SessionId::from_bytes(fresh.id),
            owner: new.owner,
            node: new.node,
            hash: hash(fresh),
            client: new.client.clone(),
            created_at: self.now,
            expires_at: new.expires_at,
            last_seen: self.now,
        };
        self.sessions.push(session.clone());
        Ok(Answer::Session(session.into()))
    }

    pub(super) fn touch_session(
        &mut self,
        id: SessionId,
        expires_at: Option<Timestamp>,
    ) -> Predicted {
        let now = self.now;
        let session = self.sessions.iter_mut().find(|session| session.id == id);
        let session = session.ok_or(NotFound)?;
        if is_over(Some(session.expires_at), now) {
            return Err(NotFound);
        }
        if is_over(expires_at, now) {
            return Err(InvalidArgument);
        }
        let moves = expires_at.is_some_and(|at| at != session.expires_at);
        if moves || now.since(session.last_seen) >= Duration::from_secs(60) {
            session.last_seen = now;
            session.expires_at = expires_at.unwrap_or(session.expires_at);
        }
        Ok(Answer::Session(session.clone().into()))
    }

    pub(super) fn end_session(&mut self, id: SessionId) -> Predicted {
        remove(&mut self.sessions, |session| session.id == id)
    }

    pub(super) fn end_all_sessions(&mut self, owner: SessionOwner) -> Answer {
        let count = self.sessions.len();
        self.sessions.retain(|session| !is_of(session, owner));
        Answer::Count((count - self.sessions.len()) as u64)
    }

    pub(super) fn sweep_sessions(&mut self) -> Answer {
        let count = self.sessions.len();
        let now = self.now;
        self.sessions.retain(|session| !is_over(Some(session.expires_at), now));
        Answer::Count((count - self.sessions.len()) as u64)
    }
}
