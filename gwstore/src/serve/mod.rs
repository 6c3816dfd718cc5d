//! `gwstore serve`: a process that holds a store, and looks after it.

mod instance;
mod monitor;
mod notify;
mod reload;
mod served;

use std::sync::Arc;
use std::time::Duration;

use ghostwire_store::config::{Config, LogFormat, LogLevelName};
use ghostwire_store::health::Health;
use ghostwire_store::http::{Limits, Server, Source};
use ghostwire_store::jobs::{Duty, Jobs, Plan};
use ghostwire_store::shutdown::{Signal, Signals, drain_unless_asked_again};
use ghostwire_store::telemetry;
use ghostwire_store::{Error, ErrorKind, Opener, Result, Store};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::cli::GlobalOptions;
use crate::failure::{Failure, Outcome};
use crate::live;
use crate::output::Shell;
use crate::session::{advised, open_to_read, refuse_to_forget};
use instance::Membership;
use served::Served;

/// How long the collector is waited for at the end.
const LAST_EXPORT: Duration = Duration::from_secs(2);

/// How long whoever reads the log is waited for at the end.
const LAST_LINES: Duration = Duration::from_secs(1);

/// Serves the configured store until a signal ends that.
pub(crate) async fn run(global: &GlobalOptions, config: &Config, shell: &mut Shell<'_>) -> Outcome {
    let ended = run_logged(global, config, shell).await;
    // What is said of the end comes behind what led to it.
    telemetry::flush_log(LAST_LINES);
    ended
}

async fn run_logged(global: &GlobalOptions, config: &Config, shell: &mut Shell<'_>) -> Outcome {
    refuse_to_forget(config)?;
    // Before anything is opened: from here on a signal ends this in order.
    let mut signals = Signals::listen()?;
    live::require_unserved(config).await?;
    // How it ended is told to whoever reads the log.
    shell.json |= config.log.format == LogFormat::Json;
    let served = begin(global, config)?;
    let http = match Http::start(config, &served).await {
        Ok(http) => http,
        // What is wrong with the store is the graver of the two.
        Err(error) => {
            open_to_read(config).await?.close().await?;
            return Err(error.into());
        }
    };
    let monitor = tokio::spawn(monitor::watch(served.clone()));
    let ended = serve(&served, &mut signals, monitor).await;
    http.stop().await;
    if let Err(Failure::Error(error)) = &ended {
        notify::status(&format!("failed: {}", error.message()));
    }
    served.flush(LAST_EXPORT).await;
    ended
}

/// Sets up the log, metrics and traces.
fn begin(global: &GlobalOptions, config: &Config) -> Result<Arc<Served>> {
    const VERSION: &str = env!("CARGO_PKG_VERSION");
    let enabled = config.telemetry.enabled;
    let telemetry = enabled.then(|| telemetry::start(config, "gwstore", VERSION)).transpose()?;
    let mut logged = config.clone();
    match global.verbose {
        0 => {}
        1 => logged.log.level = LogLevelName::Debug,
        _ => logged.log.level = LogLevelName::Trace,
    }
    if global.quiet {
        logged.log.level = LogLevelName::Error;
    }
    if global.format() != crate::cli::Format::Table {
        logged.log.format = LogFormat::Json;
    }
    let log_level = telemetry::log(&logged, telemetry.as_ref())?;
    tracing::info!(
        name: "started",
        version = VERSION,
        pid = std::process::id(),
        store = config.store,
        backend = config.backend.kind().name(),
        environment = config.environment,
        flag_file = config.flag_file.as_deref().map(|path| path.display().to_string()),
        "serving a store"
    );
    Ok(Served::new(global, config, telemetry, log_level))
}

async fn serve(
    served: &Arc<Served>,
    signals: &mut Signals,
    mut monitor: JoinHandle<Health>,
) -> Outcome {
    let (store, asked_to_end) = open(served, signals).await?;
    let name = served.config().jobs.instance.filter(|_| !asked_to_end);
    let member = name.map(|name| Membership::begin(&store, name));
    let ended_by_itself =
        !asked_to_end && attend(served, signals, &mut monitor, &store, member.as_ref()).await;
    served.ending();
    let options = served.config().serve;
    let deadline = Duration::from_secs(options.drain_seconds);
    // Before it was open nobody was sent here.
    let delay = match ended_by_itself || asked_to_end {
        true => Duration::ZERO,
        false => Duration::from_millis(options.drain_delay_ms),
    };
    let patience = delay + deadline + instance::LAST_WORD + Duration::from_secs(5);
    notify::stopping("closing the store", patience);
    // Before the delay: others can do its jobs by then.
    if let Some(member) = member {
        member.end().await;
    }
    if !delay.is_zero() {
        go_on_for(delay, signals, &mut monitor).await;
    }
    let drained = drain_unless_asked_again(signals, store.as_ref(), deadline).await;
    monitor.abort();
    match drained {
        _ if ended_by_itself => Err(ended_unasked(served).into()),
        Ok(()) => {
            tracing::info!(name: "stopped", serial = store.view().serial().get(), "the store is closed");
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

/// Serves a little longer, so that whoever sends requests here sees in time that it ends. Asked to end once more, or if
/// the store ends by itself, it does so at once.
async fn go_on_for(delay: Duration, signals: &mut Signals, monitor: &mut JoinHandle<Health>) {
    tracing::info!(name: "drain_delay", ?delay, "serving a little longer, and not ready any more");
    // Each is a reason to go on with the end.
    tokio::select! {
        () = tokio::time::sleep(delay) => {}
        _ = signals.end() => {}
        _ = monitor => {}
    }
}

/// Does what there is to do while the store is open. Tells whether it ended unasked.
async fn attend(
    served: &Arc<Served>,
    signals: &mut Signals,
    monitor: &mut JoinHandle<Health>,
    store: &Arc<dyn Store>,
    member: Option<&Membership>,
) -> bool {
    let observer = served.clone();
    let mut jobs = Jobs::new(store.clone(), Plan::of(&served.config()))
        .following(&served.plan())
        .observer(move |run| observer.job_ended(run));
    match member {
        Some(member) => {
            let observer = served.clone();
            jobs = jobs
                .following_instance(member.id())
                .duty_observer(move |duty| observer.on_duty(duty == Duty::Here));
        }
        None if store.info().backend.shared => tracing::info!(
            name: "jobs_everywhere",
            "the store is shared and `jobs.instance` is not set: this process does the jobs, whoever else does them"
        ),
        None => {}
    }
    served.opened(store, jobs.records());
    let jobs = tokio::spawn(jobs.run());
    notify::ready(&served.summary());
    tracing::info!(name: "opened", serial = store.view().serial().get(), "the store is open");
    let ended_by_itself = loop {
        tokio::select! {
            biased;
            signal = signals.next() => match signal {
                Signal::End(signal) => {
                    tracing::info!(name: "draining", signal, "asked to end");
                    break false;
                }
                // It tells what came of it by itself.
                Signal::Reload => drop(served.take_up()),
            },
            // Whether it panicked or not: nobody looks after the store any more.
            _ = &mut *monitor => break true,
        }
    };
    // What a job has begun to write is completed with everything else that was accepted.
    jobs.abort();
    ended_by_itself
}

/// Opens the store, and tells whether this process was asked to end meanwhile. Opening goes on then: it may
/// have begun to write, and cannot be broken off in the middle of that.
///
/// # Errors
/// Those of [`Opener::open`]; `Unavailable` if asked to end once more.
async fn open(served: &Arc<Served>, signals: &mut Signals) -> Result<(Arc<dyn Store>, bool)> {
    let config = served.config();
    let mut opener = Opener::new(&config).create(false).progress(served.progress());
    if let Some(recorder) = served.recorder() {
        opener = opener.recorder(recorder);
    }
    #[cfg(unix)]
    let opener = opener.admin_hooks(served.clone());
    let opened = async { opener.open().await.map_err(|error| advised(&config, error)) };
    let mut opened = std::pin::pin!(opened);
    let mut asked_to_end = false;
    loop {
        tokio::select! {
            opened = &mut opened => {
                if let Err(error) = &opened {
                    served.not_opened(error);
                }
                return opened.map(|store| (store, asked_to_end));
            }
            signal = signals.next() => match signal {
                Signal::End(signal) if asked_to_end => return Err(not_waited_for(signal)),
                Signal::End(signal) => {
                    asked_to_end = true;
                    tracing::info!(name: "draining", signal, "asked to end: the store is closed once it is open");
                    notify::stopping("closing the store once it is open", monitor::LONGER);
                }
                Signal::Reload => tracing::warn!(
                    name: "reload_refused",
                    "the configuration is not read again while the store is opened: ask once it is"
                ),
            },
        }
    }
}

fn not_waited_for(signal: &str) -> Error {
    Error::new(
        ErrorKind::Unavailable,
        "asked to end once more while the store was being opened; what was acknowledged is durable, and the \
         next opening completes what this one has begun",
    )
    .with("signal", signal)
    .during("serve")
}

fn ended_unasked(served: &Served) -> Error {
    let health = Source::health(served);
    let reason = health.reason.unwrap_or_else(|| "for an unknown reason".to_owned());
    Error::new(ErrorKind::Unavailable, "the store ended by itself")
        .with("help", health.next_step.unwrap_or("start this program again"))
        .because(reason)
        .during("serve")
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
                tracing::warn!(name: "no_http", %error, "the store is served without HTTP");
                return Ok(Self { running: None });
            }
            Err(error) => return Err(error),
        };
        tracing::info!(name: "http", address = %server.address(), "answering over HTTP");
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
