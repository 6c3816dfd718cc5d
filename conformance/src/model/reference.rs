//! A store in memory that gets the same calls.

use super::call::{Answered, Call};
use super::run::Mismatch;
use crate::fixtures;
use crate::in_memory::InMemory;
use crate::prelude::*;

/// The reference store, with the same clock and random numbers.
pub(super) struct Reference {
    env: TestEnv,
    /// `None` only while it is reopened.
    store: Option<Arc<dyn Store>>,
}

impl Reference {
    pub(super) async fn create(mode: Mode, seed: u64) -> Self {
        let env = TestEnv::create(&InMemory::new(), &Stack::bare(), mode, seed).await;
        let env = env.expect("there is memory");
        let store = env.open().await;
        Self { env, store: Some(store) }
    }

    fn store(&self) -> &Opened {
        self.store.as_ref().expect("it is open")
    }

    pub(super) fn advance(&self, time: Duration) {
        self.env.clock().advance(time);
    }

    pub(super) async fn crash(&mut self) {
        let store = self.store.take().expect("it is open");
        self.store = Some(self.env.crash(store).await);
    }

    pub(super) async fn reopen(&mut self) {
        let store = self.store.take().expect("it is open");
        self.store = Some(self.env.reopen(store).await);
    }

    /// Makes the same call; the answer has to be the same, and an error to the letter.
    pub(super) async fn call(&self, call: &Call, answered: &Answered) -> Result<(), Mismatch> {
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
    pub(super) async fn compare(&self, store: &Opened) -> Result<(), Mismatch> {
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

async fn digests(store: &Opened) -> Result<String, Mismatch> {
    let digests = store.digests().await.map_err(|error| error.to_string())?;
    Ok(format!("{digests:?}"))
}

/// Everything that is stored, in the portable form.
async fn export(store: &Opened) -> String {
    let mut bytes = Vec::new();
    fixtures::export(store, &mut bytes).await;
    String::from_utf8(bytes).expect("the portable form is text")
}
