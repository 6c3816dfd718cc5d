//! A store in memory that gets the same calls.

use std::sync::Arc;
use std::time::Duration;

use ghostwire_store_core::Store;

use super::call::{Answered, Call};
use super::run::Wrong;
use crate::fixtures;
use crate::fixtures::Opened;
use crate::in_memory::InMemory;
use crate::stack::Stack;
use crate::world::{Mode, World};

/// The other store, with a clock and random numbers that are the same.
pub(super) struct Twin {
    world: World,
    /// There is one, except while it is opened anew.
    store: Option<Arc<dyn Store>>,
}

impl Twin {
    pub(super) async fn create(mode: Mode, seed: u64) -> Self {
        let world = World::create(&InMemory::new(), &Stack::bare(), mode, seed).await;
        let world = world.expect("there is memory");
        let store = world.open().await;
        Self { world, store: Some(store) }
    }

    fn store(&self) -> &Opened {
        self.store.as_ref().expect("it is open")
    }

    pub(super) fn advance(&self, time: Duration) {
        self.world.clock().advance(time);
    }

    pub(super) async fn crash(&mut self) {
        let store = self.store.take().expect("it is open");
        self.store = Some(self.world.crash(store).await);
    }

    pub(super) async fn reopen(&mut self) {
        let store = self.store.take().expect("it is open");
        self.store = Some(self.world.reopen(store).await);
    }

    /// Makes the same call; the answer has to be the same, and an error to the letter.
    pub(super) async fn call(&self, call: &Call, answered: &Answered) -> Result<(), Wrong> {
        let said = |answered: &Answered| match answered {
            Ok((answer, secret)) => {
                format!("{answer:#?} {:?}", secret.as_ref().map(|secret| secret.expose()))
            }
            Err(error) => format!("{error:?}"),
        };
        let (here, there) = (said(answered), said(&call.perform(self.store()).await));
        if here == there {
            return Ok(());
        }
        Err(format!("the answer\n  is       {here}\n  in memory {there}"))
    }

    /// Both have to hold the same.
    pub(super) async fn compare(&self, store: &Opened) -> Result<(), Wrong> {
        let (here, there) = (digests(store).await?, digests(self.store()).await?);
        if here != there {
            return Err(format!("the digests\n  are      {here}\n  in memory {there}"));
        }
        let (here, there) = (export(store).await, export(self.store()).await);
        if here == there {
            return Ok(());
        }
        let differing = here.lines().zip(there.lines()).find(|(here, there)| here != there);
        let (here, there) = differing.unwrap_or(("longer or shorter", "shorter or longer"));
        Err(format!("a line of the export\n  is       {here}\n  in memory {there}"))
    }
}

async fn digests(store: &Opened) -> Result<String, Wrong> {
    let digests = store.digests().await.map_err(|error| error.to_string())?;
    Ok(format!("{digests:?}"))
}

/// Everything that is stored, in the portable form.
async fn export(store: &Opened) -> String {
    let mut bytes = Vec::new();
    fixtures::export(store, &mut bytes).await;
    String::from_utf8(bytes).expect("the portable form is text")
}
