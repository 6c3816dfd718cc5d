//! This process among others on one store: it begins, says now and then that it is there, and ends.

use std::sync::Arc;
use std::time::Duration;

use ghostwire_store::domain::{Instance, InstanceId, InstanceName};
use ghostwire_store::{ErrorKind, Result, Store};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};

/// How long the end is waited for. Who does not get to say so is taken for lost a little later.
pub(super) const LAST_WORD: Duration = Duration::from_secs(5);

/// An instance for as long as a store is served.
pub(super) struct Membership {
    store: Arc<dyn Store>,
    name: InstanceName,
    id: watch::Sender<Option<InstanceId>>,
    beating: JoinHandle<()>,
}

impl Membership {
    /// Begins, and says from then on that it is there. What fails is tried again by itself.
    pub(super) fn begin(store: &Arc<dyn Store>, name: InstanceName) -> Self {
        let id = watch::Sender::new(None);
        let beating = tokio::spawn(beat(store.clone(), name.clone(), id.clone()));
        Self { store: store.clone(), name, id, beating }
    }

    /// Which one it is; another one once it began anew, and none in between.
    pub(super) fn id(&self) -> &watch::Sender<Option<InstanceId>> {
        &self.id
    }

    /// Ends, so that the others need not wait until it is lost.
    pub(super) async fn end(self) {
        self.beating.abort();
        // It was aborted, or has panicked: nobody beats any more.
        let _ = self.beating.await;
        let id = *self.id.borrow();
        let Some(id) = id else { return };
        match timeout(LAST_WORD, self.store.instances().end(id)).await {
            Ok(Ok(_)) => {
                tracing::info!(name: "instance_ended", instance = %self.name, "this instance has ended");
            }
            Ok(Err(error)) => tracing::warn!(
                name: "instance_not_ended",
                instance = %self.name,
                %error,
                "the others are not told that this instance ends; they notice by themselves"
            ),
            Err(_) => tracing::warn!(
                name: "instance_not_ended",
                instance = %self.name,
                "to tell the others that this instance ends takes too long; they notice by themselves"
            ),
        }
    }
}

/// Goes on for ever. Of failures in a row the first is told.
async fn beat(
    store: Arc<dyn Store>,
    name: InstanceName,
    current: watch::Sender<Option<InstanceId>>,
) {
    let mut ticks = interval(Duration::from_secs(Instance::BEAT_SECONDS));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut fails = false;
    loop {
        ticks.tick().await;
        let beaten = beat_once(store.as_ref(), &name, &current).await;
        match &beaten {
            Err(error) if !fails => tracing::warn!(
                name: "instance_unheard",
                instance = %name,
                %error,
                "this instance cannot say that it is there, or who is lost; it is tried again by itself"
            ),
            Ok(()) if fails => {
                tracing::info!(name: "instance_heard", instance = %name, "this instance says again that it is there");
            }
            _ => {}
        }
        fails = beaten.is_err();
    }
}

/// Says that it is there, begins if it is not, and takes out those that are lost: nobody else would disconnect
/// what they held.
async fn beat_once(
    store: &dyn Store,
    name: &InstanceName,
    current: &watch::Sender<Option<InstanceId>>,
) -> Result<()> {
    let known = *current.borrow();
    let id = match known {
        Some(id) if is_there(store, id).await? => id,
        _ => {
            if known.is_some() {
                current.send_replace(None);
                tracing::warn!(
                    name: "instance_over",
                    instance = %name,
                    "this instance is over, and begins anew: it was not heard of for long, or another process \
                     has its name"
                );
            }
            let id = store.instances().begin(name.clone()).await?.id;
            current.send_replace(Some(id));
            tracing::info!(name: "instance_begun", instance = %name, %id, "this instance has begun");
            id
        }
    };
    store.as_instance(id).presence().disconnect_lost(Instance::LOST_AFTER).await?;
    Ok(())
}

/// A sign of life; `false` if the instance is over.
async fn is_there(store: &dyn Store, id: InstanceId) -> Result<bool> {
    match store.instances().beat(id).await {
        Ok(_) => Ok(true),
        Err(error) if *error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
