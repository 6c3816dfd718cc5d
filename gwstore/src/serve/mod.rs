//! `gwstore serve`: a process that holds a store, and looks after it.

mod monitor;
mod notify;
mod reload;
mod served;

use std::sync::Arc;
use std::time::Duration;

use ghostwire_store::config::Config;
use ghostwire_store::http::{Limits, Server};
use ghostwire_store::jobs::{Jobs, Plan};
use ghostwire_store::shutdown::{Signal, Signals, drain_unless_asked_again};
use ghostwire_store::{Error, ErrorKind, Opener, Result, Store};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::cli::GlobalOptions;
use crate::failure::{Failure, Outcome};
use crate::output::Shell;
use crate::session::{advised, load_config, refuse_to_forget};
use served::Served;

/// Serves the configured store until a signal ends that.
pub(crate) async fn run(global: &GlobalOptions, config: &Config, shell: &mut Shell<'_>) -> Outcome {
    refuse_to_forget(config)?;
    // Before anything is opened: from here on a signal ends this in order.
    let mut signals = Signals::listen()?;
    let served = Served::new(config);
    let http = Http::start(config, &served).await?;
    tracing::info!(
        event = "started",
        version = env!("CARGO_PKG_VERSION"),
        pid = std::process::id(),
        store = config.store,
        backend = config.backend.kind().name(),
        environment = config.environment,
        flag_file = config.flag_file.as_deref().map(|path| path.display().to_string()),
        "serving a store"
    );
    let monitor = tokio::spawn(monitor::watch(served.clone()));
    let ended = serve(global, &served, &mut signals, monitor, shell).await;
    http.stop().await;
    if let Err(Failure::Error(error)) = &ended {
        notify::status(&format!("failed: {}", error.message()));
    }
    ended
}

async fn serve(
    global: &GlobalOptions,
    served: &Arc<Served>,
    signals: &mut Signals,
    mut monitor: JoinHandle<ghostwire_store::health::Health>,
    shell: &mut Shell<'_>,
) -> Outcome {
    let Some(store) = open(served, signals).await? else {
        monitor.abort();
        shell.note("asked to end before the store was open; nothing was changed");
        return Ok(());
    };
    let jobs = Jobs::new(store.clone(), Plan::of(&served.config()));
    let plan = jobs.plan();
    served.opened(&store, jobs.records());
    let jobs = tokio::spawn(jobs.run());
    notify::ready(&served.summary());
    tracing::info!(event = "ready", serial = %store.view().serial(), "the store is open");
    let ended_by_itself = loop {
        tokio::select! {
            biased;
            signal = signals.next() => match signal {
                Signal::End(name) => {
                    tracing::info!(event = "draining", signal = name, "asked to end");
                    break false;
                }
                Signal::Reload => take_up(global, served, &plan),
            },
            // Whether it panicked or not: nobody looks after the store any more.
            _ = &mut monitor => break true,
        }
    };
    // What a job has begun to write is completed with everything else that was accepted.
    jobs.abort();
    let deadline = Duration::from_secs(served.config().serve.drain_seconds);
    notify::stopping("closing the store", deadline + Duration::from_secs(5));
    let drained = drain_unless_asked_again(signals, store.as_ref(), deadline).await;
    monitor.abort();
    match drained {
        Ok(()) if ended_by_itself => Err(ended_unasked(served).into()),
        Ok(()) => {
            tracing::info!(event = "stopped", serial = %store.view().serial(), "the store is closed");
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

/// Opens the store; `None` if a signal comes first.
async fn open(served: &Served, signals: &mut Signals) -> Result<Option<Arc<dyn Store>>> {
    let config = served.config();
    let opener = Opener::new(&config).create(false).progress(served.progress());
    let opened = async { opener.open().await.map_err(|error| advised(&config, error)) };
    let mut opened = std::pin::pin!(opened);
    loop {
        tokio::select! {
            opened = &mut opened => {
                if let Err(error) = &opened {
                    served.not_opened(error);
                }
                return opened.map(Some);
            }
            signal = signals.next() => match signal {
                Signal::End(_) => return Ok(None),
                Signal::Reload => tracing::warn!(
                    event = "reload refused",
                    "the configuration is not read again while the store is opened: ask once it is"
                ),
            },
        }
    }
}

fn ended_unasked(served: &Served) -> Error {
    use ghostwire_store::http::Source;
    let health = served.health();
    let reason = health.reason.unwrap_or_else(|| "for an unknown reason".to_owned());
    Error::new(ErrorKind::Unavailable, "the store ended by itself")
        .with("help", health.next_step.unwrap_or("start this program again"))
        .because(reason)
        .during("serve")
}

/// Reads the configuration again, and takes up what may change while the store is open.
fn take_up(global: &GlobalOptions, served: &Served, jobs: &watch::Sender<Plan>) {
    notify::reloading();
    let read = load_config(global).map_err(|failure| failure.in_one_line());
    match served.reload(read) {
        Ok(changes) => {
            jobs.send_replace(Plan::of(&served.config()));
            for change in &changes.refused {
                tracing::warn!(
                    event = "reload refused",
                    key = change.key,
                    before = change.before,
                    after = change.after,
                    "this key holds only once the process is started anew"
                );
            }
            let applied: Vec<_> = changes.applied.iter().map(|change| &change.key).collect();
            tracing::info!(event = "reloaded", ?applied, "the configuration was read again");
        }
        Err(error) => tracing::error!(
            event = "reload refused",
            error,
            "the configuration cannot be read; what held before holds on"
        ),
    }
    notify::ready(&served.summary());
}

/// The answers over HTTP, if there are to be some.
struct Http {
    running: Option<(watch::Sender<bool>, JoinHandle<()>)>,
}

impl Http {
    async fn start(config: &Config, served: &Arc<Served>) -> Result<Self> {
        let Some(address) = config.http.listen else { return Ok(Self { running: None }) };
        let connections = usize::try_from(config.http.max_connections).unwrap_or(usize::MAX);
        let server = match Server::bind(address, Limits { connections, ..Limits::default() }).await
        {
            Ok(server) => server,
            Err(error) if config.http.optional => {
                tracing::warn!(event = "no http", %error, "the store is served without HTTP");
                return Ok(Self { running: None });
            }
            Err(error) => return Err(error),
        };
        tracing::info!(event = "http", address = %server.address(), "answering over HTTP");
        let (stop, mut stopped) = watch::channel(false);
        let stopped = async move {
            // An error means that the process ends without saying so.
            let _ = stopped.wait_for(|stopped| *stopped).await;
        };
        let serving = tokio::spawn(server.serve(served.clone(), stopped));
        Ok(Self { running: Some((stop, serving)) })
    }

    async fn stop(self) {
        let Some((stop, serving)) = self.running else { return };
        stop.send_replace(true);
        // A second for those who are being answered, at most.
        let _ = serving.await;
    }
}
