//! What is known of a request while it is served, whatever it comes to.

use ghostwire_store_core::error::{Error, ErrorKind, Result};

use crate::protocol::{KeysRequest, Method};

/// A request, without what it says.
pub(super) struct Call {
    pub(super) method: &'static str,
    /// Whether it changes something.
    changes: bool,
    /// Whose it is, as the system says.
    user: Option<u32>,
    /// What came of it.
    outcome: &'static str,
}

/// Says in the log who changed what, and what came of it.
impl Drop for Call {
    fn drop(&mut self) {
        if !self.changes {
            return;
        }
        tracing::info!(
            name: "admin_change",
            method = self.method,
            user = self.user,
            outcome = self.outcome,
            "a change was asked for on the admin socket"
        );
    }
}

impl Call {
    pub(super) fn of(method: &Method, user: Option<u32>) -> Self {
        let changes = match method {
            Method::Transact { .. }
            | Method::Issue { .. }
            | Method::RemoveConsumer { .. }
            | Method::Clock(_)
            | Method::Reload
            | Method::LogLevel { .. } => true,
            Method::Keys(request) => !matches!(request, KeysRequest::List),
            Method::Migrate(request) => request.changes(),
            _ => false,
        };
        // Such as when its client goes.
        let outcome = "unfinished";
        Self { method: method.name(), changes, user, outcome }
    }

    /// What its client is told when the store ends before the answer is made. A watch has come to its end
    /// with it.
    pub(super) fn at_end(&self) -> Result<()> {
        match (self.method, self.changes) {
            ("watch", _) => Ok(()),
            // It may be on its way to the disk, or be there.
            (_, true) => Err(Error::new(
                ErrorKind::OutcomeUnknown,
                "the store was closed before the answer; the change may have been made, or not",
            )
            .with("help", "look whether it was before it is tried again")),
            (_, false) => Err(closed()),
        }
    }

    pub(super) fn ended<T>(&mut self, outcome: &Result<T>) {
        self.outcome = outcome.as_ref().err().map_or("done", |error| error.kind().name());
    }
}

pub(super) fn closed() -> Error {
    Error::new(ErrorKind::Unavailable, "the store was closed")
}

#[cfg(test)]
mod tests {
    use ghostwire_store_core::command::Transaction;
    use ghostwire_store_core::domain::ActorName;
    use ghostwire_store_core::keys::Rotation;

    use super::*;
    use crate::protocol::MigrateRequest;

    #[test]
    fn a_change_that_is_under_way_at_the_end_is_never_denied() {
        let at_end =
            |method: &Method| Call::of(method, None).at_end().err().map(|it| it.kind().clone());
        let (actor, transaction) = (ActorName::system(), Transaction::new());
        for change in [
            Method::Transact { actor, transaction },
            Method::Keys(KeysRequest::Rotate(Rotation::Leaked)),
            Method::Keys(KeysRequest::Destroy { version: 1 }),
            Method::Reload,
            Method::Migrate(MigrateRequest::Finish),
            Method::LogLevel { level: "debug".to_owned(), seconds: None },
        ] {
            assert_eq!(at_end(&change), Some(ErrorKind::OutcomeUnknown), "{}", change.name());
        }
        for look in [Method::Head, Method::Verify, Method::Keys(KeysRequest::List)] {
            assert_eq!(at_end(&look), Some(ErrorKind::Unavailable), "{}", look.name());
        }
        assert_eq!(at_end(&Method::Watch { after: None }), None);
    }
}
