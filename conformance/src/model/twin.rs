//! A store in memory that gets the same calls.

use std::sync::Arc;
use std::time::Duration;

use ghostwire_store_core::Store;
use ghostwire_store_core::domain::*;
use ghostwire_store_core::portable::Writer;
use ghostwire_store_core::schema::Table;

use super::call::{Answered, Call};
use super::run::Wrong;
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

    fn store(&self) -> &dyn Store {
        self.store.as_deref().expect("it is open")
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
    pub(super) async fn compare(&self, store: &dyn Store) -> Result<(), Wrong> {
        let (here, there) = (digests(store).await?, digests(self.store()).await?);
        if here != there {
            return Err(format!("the digests\n  are      {here}\n  in memory {there}"));
        }
        let (here, there) = (export(store).await?, export(self.store()).await?);
        if here == there {
            return Ok(());
        }
        let differing = here.lines().zip(there.lines()).find(|(here, there)| here != there);
        let (here, there) = differing.unwrap_or(("longer or shorter", "shorter or longer"));
        Err(format!("a line of the export\n  is       {here}\n  in memory {there}"))
    }
}

async fn digests(store: &dyn Store) -> Result<String, Wrong> {
    let digests = store.digests().await.map_err(|error| error.to_string())?;
    Ok(format!("{digests:?}"))
}

/// Everything that is stored, in the portable form.
async fn export(store: &dyn Store) -> Result<String, Wrong> {
    let written = async {
        let mut writer = Writer::new(Vec::new())?;
        let view = store.view();
        for image in Table::STATE.into_iter().flat_map(|table| view.images_of(table)) {
            writer.image(&image)?;
        }
        let everything =
            MetricQuery { node: None, metric: None, from: Timestamp::EPOCH, to: Timestamp::MAX };
        let mut request = PageRequest::first(Limit::MAX);
        loop {
            let page = store.metrics().range(&everything, &request).await?;
            page.items.iter().try_for_each(|point| writer.metric(point))?;
            let Some(next) = page.next else { break };
            request = PageRequest::after(Limit::MAX, next);
        }
        let mut request = PageRequest::first(Limit::MAX);
        loop {
            let page = store.audit().query(&AuditQuery::default(), &request).await?;
            page.items.iter().try_for_each(|entry| writer.audit(entry))?;
            let Some(next) = page.next else { break };
            request = PageRequest::after(Limit::MAX, next);
        }
        let digest = *store.digests().await?.state.as_bytes();
        writer.finish(Some(digest))
    };
    let (bytes, _) =
        written.await.map_err(|error: ghostwire_store_core::Error| error.to_string())?;
    Ok(String::from_utf8(bytes).expect("the portable form is text"))
}
