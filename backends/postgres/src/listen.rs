//! Hearing of the commits of other processes.
//!
//! What is heard is not trusted: it says that there may be something, and whoever hears it reads the head.
//! So a notification that is lost costs nothing but time, as long as somebody looks now and then.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use ghostwire_store_core::backend::Head;
use ghostwire_store_core::error::{Error, ErrorKind, Result};
use sqlx::postgres::{PgListener, PgPool, PgPoolOptions};
use tokio::runtime::Handle;

use crate::errors::in_connecting;
use crate::server::{Server, closed};
use crate::settings::PostgresOptions;
use crate::wire::Param;

/// A connection has at least this long to be made and to answer, however short the waiting is, and no longer
/// to end.
const PATIENCE: Duration = Duration::from_secs(1);

/// What this process' commits notify others by.
#[derive(Debug, Clone)]
pub(crate) struct Notifier {
    channel: String,
    /// Another one in each process, so that it does not heed itself.
    instance: String,
}

impl Notifier {
    /// None if `options` say so.
    pub(crate) fn of(options: &PostgresOptions) -> Option<Self> {
        options.notify.then(|| Self {
            channel: format!("ghostwire_{}", options.schema_name),
            instance: format!("{:016x}", RandomState::new().hash_one(0)),
        })
    }

    /// The parameters of `pg_notify` for a commit that leads to `next`.
    pub(crate) fn params(&self, next: &Head) -> [Param; 2] {
        let payload = format!("{} {} {}", next.serial, next.position, self.instance);
        [Param::text(&self.channel), Param::text(&payload)]
    }

    /// Whether this process sent it. What looks like it and is not only costs time.
    fn is_own(&self, payload: &str) -> bool {
        payload.rsplit(' ').next() == Some(self.instance.as_str())
    }
}

/// A connection that listens, on the runtime that made it.
struct Listener {
    listener: Option<PgListener>,
    /// Holds that one connection.
    pool: PgPool,
    handle: Handle,
    /// Nothing was heard when it was last waited for, so it may be dead.
    is_silent: bool,
}

impl Listener {
    async fn start(options: &PostgresOptions, channel: &str, at_most: Duration) -> Result<Self> {
        // Whoever waits wants to look for himself meanwhile.
        let deadline = options.deadlines.connect.min(at_most.max(PATIENCE));
        if let Some(guard) = options.listen_guard() {
            guard.check(deadline).await?;
        }
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(deadline)
            .connect_lazy_with(options.listen_options()?);
        let start = async {
            let mut listener = PgListener::connect_with(&pool).await?;
            // Otherwise it would connect in the midst of waiting, and nobody would know what was missed.
            listener.eager_reconnect(false);
            listener.listen(channel).await?;
            Ok(listener)
        };
        let started = tokio::time::timeout(deadline, start).await;
        let listener = started.unwrap_or(Err(sqlx::Error::PoolTimedOut));
        let listener = Some(listener.map_err(|error| in_connecting(&error))?);
        Ok(Self { listener, pool, handle: Handle::current(), is_silent: false })
    }

    /// Waits for a notification of somebody else; `false` if the connection ended instead.
    async fn hear(&mut self, own: &Notifier) -> bool {
        let Some(listener) = &mut self.listener else { return false };
        loop {
            match listener.try_recv().await {
                Ok(Some(heard)) if own.is_own(heard.payload()) => {}
                Ok(Some(_)) => break,
                // What was reset has to be made anew, too.
                Ok(None) | Err(_) => return false,
            }
        }
        // They are all answered by one look.
        while listener.next_buffered().is_some() {}
        true
    }

    /// Whether the connection still works: a network that was cut says nothing either.
    async fn answers(&mut self, deadline: Duration) -> bool {
        let Some(listener) = &mut self.listener else { return false };
        let asked = sqlx::Executor::execute(listener, "SELECT 1");
        matches!(tokio::time::timeout(deadline, asked).await, Ok(Ok(_)))
    }

    async fn end(mut self) {
        drop(self.listener.take());
        // It ends either way.
        let _ = tokio::time::timeout(PATIENCE, self.pool.close()).await;
    }
}

impl Drop for Listener {
    /// sqlx ends the connection by a task, which needs a runtime.
    fn drop(&mut self) {
        if let Some(listener) = self.listener.take() {
            let _on_its_runtime = self.handle.enter();
            drop(listener);
        }
    }
}

/// The place of the connection that listens.
#[derive(Default)]
pub(crate) struct Listening(tokio::sync::Mutex<Option<Listener>>);

impl Listening {
    /// Waits until somebody else may have committed: a notification was heard, or it was just begun to listen
    /// for them.
    ///
    /// # Errors
    /// `Unavailable` if it cannot listen, or the store is closed.
    pub(crate) async fn wait(&self, server: &Server, at_most: Duration) -> Result<()> {
        let Some(own) = &server.notifier else {
            tokio::time::sleep(at_most).await;
            return Ok(());
        };
        let mut place = self.0.lock().await;
        // While it is waited for it is not in its place: if the caller gives up, it is dropped.
        if let Some(mut listener) = place.take() {
            let deadline = server.options.deadlines.read.min(at_most.max(PATIENCE));
            if !listener.is_silent || listener.answers(deadline).await {
                let heard = tokio::select! {
                    biased;
                    () = server.closes() => None,
                    heard = tokio::time::timeout(at_most, listener.hear(own)) => Some(heard),
                };
                match heard {
                    None => {
                        listener.end().await;
                        return Err(closed());
                    }
                    Some(Ok(false)) => {}
                    Some(heard) => {
                        listener.is_silent = heard.is_err();
                        *place = Some(listener);
                        return Ok(());
                    }
                }
            }
            tracing::debug!("the connection that listens was lost; making another");
        }
        let started = tokio::select! {
            biased;
            () = server.closes() => return Err(closed()),
            started = Listener::start(&server.options, &own.channel, at_most) => started,
        };
        *place = Some(started.map_err(|error| {
            Error::new(ErrorKind::Unavailable, "the database cannot be listened to").because(error)
        })?);
        Ok(())
    }

    /// Ends the connection. To be called once nobody waits any more.
    pub(crate) async fn end(&self) {
        if let Some(listener) = self.0.lock().await.take() {
            listener.end().await;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use ghostwire_store_core::domain::StoreId;

    use super::*;

    #[test]
    fn a_process_knows_its_own_notifications_and_heeds_any_other() {
        let options = PostgresOptions::new("/run", "net", "control", StoreId::from_bytes([1; 16]));
        let (one, two) = (Notifier::of(&options).unwrap(), Notifier::of(&options).unwrap());
        let own = format!("7 9 {}", one.instance);
        assert!(one.is_own(&own) && !two.is_own(&own));
        for strange in ["", " ", "7 9", "7 9 ", "not even numbers", "\u{1f980}"] {
            assert!(!one.is_own(strange), "{strange}");
        }
        assert!(Notifier::of(&options.notify(false)).is_none());
    }
}
