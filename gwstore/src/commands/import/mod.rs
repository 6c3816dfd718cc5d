//! `gwstore import`.

mod absence;
mod credentials;
mod headscale;
mod portable;
mod series;
mod trail;

use std::sync::Arc;

use ghostwire_store::config::Config;
use ghostwire_store::domain::{Clock, SystemClock};
use ghostwire_store::{Result, Store};
use ghostwire_store_core::digest::Digests;
use ghostwire_store_core::state::State;

pub(super) use headscale::run as headscale;
pub(super) use portable::run as portable;

use super::init::InDatabase;
use super::{clock, init};
use crate::cli::TargetArgs;
use crate::failure::{Outcome, with_help};
use crate::output::Shell;
use crate::session::{Reading, open_to_write, refuse_to_forget, store_exists};

/// An empty store has an export, and moves; but nobody should take it for another.
const NOTHING_FOUND: &str = "the file is in order, and holds nothing: there is nothing to import";

/// Whether the store has to be made first, as the command line allows.
async fn is_missing(config: &Config, args: &TargetArgs) -> Result<bool> {
    let may_be_made = args.create && !store_exists(config);
    Ok(may_be_made && init::in_database(config).await? != InDatabase::Store)
}

/// The store as it is before an import; nothing is opened to be written to before that was tried on it.
struct Present {
    state: State,
    /// None if the store is yet to be made.
    reading: Option<Reading>,
}

impl Present {
    async fn of(config: &Config, args: &TargetArgs) -> Result<Self> {
        refuse_to_forget(config)?;
        clock::require_plausible(SystemClock.now())?;
        if is_missing(config, args).await? {
            return Ok(Self { state: State::default(), reading: None });
        }
        let help = "`gwstore init` makes the configured store, and so does --create";
        let explained = |error: ghostwire_store::Error| match error.kind() {
            ghostwire_store::ErrorKind::NotFound => with_help(error, help),
            ghostwire_store::ErrorKind::Busy => {
                with_help(error, "an import works on files that nobody else has open")
            }
            _ => error,
        };
        let reading = Reading::of_files(config).await.map_err(explained)?;
        let openable = clock::require_openable(clock::Standing::of_head(&reading.head), config);
        if let Err(error) = openable {
            // The error of the clock is the one to tell.
            let _ = reading.close().await;
            return Err(error);
        }
        Ok(Self { state: State::clone(&reading.store.view()), reading: Some(reading) })
    }

    /// Says so if what is written will have another time than the clock's.
    fn doubt_clock(&self, shell: &mut Shell<'_>) {
        let last = self.reading.is_some().then(|| self.state.time());
        if let Some(doubt) = clock::doubt(SystemClock.now(), last) {
            shell.caution(doubt);
        }
    }

    async fn close(self) -> Result<()> {
        match self.reading {
            Some(reading) => reading.close().await,
            None => Ok(()),
        }
    }
}

/// Opens the store to import into, and makes it if that is to be done.
async fn open_target(
    config: &Config,
    args: &TargetArgs,
    shell: &mut Shell<'_>,
) -> Outcome<Arc<dyn Store>> {
    if !is_missing(config, args).await? {
        return Ok(open_to_write(config).await?);
    }
    let made = init::create(config).await?;
    made.explain(config, shell)?;
    Ok(made.store)
}

/// Closes the store whatever happened, and tells what happened first.
async fn closed<T>(store: &dyn Store, outcome: Result<T>) -> Result<T> {
    let closed = store.close().await;
    let value = outcome.map_err(|error| {
        with_help(error, "what was written is whole; put the cause right and run it again")
    })?;
    closed.map(|()| value)
}

fn print_digests(digests: &Digests, shell: &mut Shell<'_>) -> Outcome {
    if shell.quiet { Ok(()) } else { super::digest::print(digests, shell) }
}
