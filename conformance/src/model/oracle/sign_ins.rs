use super::{Oracle, Predicted, is_over, taken};
use crate::model::call::{Answer, Fresh};
use crate::prelude::*;

impl Oracle {
    pub(super) fn begin_sign_in(
        &mut self,
        state: &'static str,
        new: &NewSignIn,
        fresh: &Fresh,
    ) -> Predicted {
        // Also of one that has expired: it is there until somebody sweeps.
        if self.states.iter().any(|(_, known)| *known == state) {
            return Err(taken("hash"));
        }
        let lifetime = new.expires_at.since(self.now);
        if is_over(Some(new.expires_at), self.now) || lifetime > SignIn::MAX_LIFETIME {
            return Err(InvalidArgument);
        }
        let sign_in = SignIn {
            id: SignInId::from_bytes(fresh.id),
            purpose: new.purpose.clone(),
            hash: fresh.hash.clone().expect("a sign-in has one"),
            payload: new.payload.clone(),
            created_at: self.now,
            expires_at: new.expires_at,
        };
        self.sign_ins.push(sign_in.clone());
        self.states.push((sign_in.id, state));
        Ok(Answer::SignIn(sign_in.into()))
    }

    /// Once, for its purpose, and before it expires.
    pub(super) fn take_sign_in(&mut self, purpose: &Text<64>, state: &str) -> Predicted {
        let sign_in = self.peek_sign_in(purpose, state).ok_or(PermissionDenied)?;
        self.forget_sign_ins(|known| known.id == sign_in.id);
        Ok(Answer::SignIn(sign_in.into()))
    }

    /// What a caller may see.
    pub(in super::super) fn peek_sign_in(&self, purpose: &Text<64>, state: &str) -> Option<SignIn> {
        let sign_in = self.sign_in_of(state)?;
        let is_valid = sign_in.purpose == *purpose && !is_over(Some(sign_in.expires_at), self.now);
        is_valid.then(|| sign_in.clone())
    }

    /// Also one that has expired.
    pub(in super::super) fn sign_in_of(&self, state: &str) -> Option<&SignIn> {
        let (id, _) = self.states.iter().find(|(_, known)| *known == state)?;
        self.sign_ins.iter().find(|sign_in| sign_in.id == *id)
    }

    pub(super) fn replace_sign_in(
        &mut self,
        purpose: &Text<64>,
        state: &str,
        from: &SignInPayload,
        to: &SignInPayload,
    ) -> Predicted {
        let sign_in = self.peek_sign_in(purpose, state).ok_or(PermissionDenied)?;
        if sign_in.payload != *from {
            return Err(Conflict);
        }
        let replaced = SignIn { payload: to.clone(), ..sign_in };
        for known in self.sign_ins.iter_mut().filter(|known| known.id == replaced.id) {
            *known = replaced.clone();
        }
        Ok(Answer::SignIn(replaced.into()))
    }

    pub(super) fn sweep_sign_ins(&mut self) -> Answer {
        let now = self.now;
        self.forget_sign_ins(|sign_in| is_over(Some(sign_in.expires_at), now))
    }

    fn forget_sign_ins(&mut self, is_gone: impl Fn(&SignIn) -> bool) -> Answer {
        let count = self.sign_ins.len();
        self.sign_ins.retain(|sign_in| !is_gone(sign_in));
        let left: Vec<_> = self.sign_ins.iter().map(|sign_in| sign_in.id).collect();
        self.states.retain(|(id, _)| left.contains(id));
        Answer::Count((count - left.len()) as u64)
    }
}
