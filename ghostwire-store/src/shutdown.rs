//! Ending in order: on a signal, what was accepted is completed and the store is closed.

use std::time::Duration;

use ghostwire_store_core::Store;
use ghostwire_store_core::error::{Error, ErrorKind, Result};

/// What a process is asked by a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// To end: the signal's name, `SIGTERM` or `SIGINT`.
    End(&'static str),
    /// To read its configuration again: `SIGHUP`.
    Reload,
}

/// The signals of this process, instead of what they do by themselves.
#[derive(Debug)]
pub struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    hangup: tokio::signal::unix::Signal,
}

impl Signals {
    /// Listens from now on, until the process ends. Call it before the store is opened, so that a signal
    /// while it is does not end the process.
    ///
    /// # Errors
    /// `Unavailable` if the system does not let it.
    pub fn listen() -> Result<Self> {
        cfg_if::cfg_if! {
            if #[cfg(unix)] {
                use tokio::signal::unix::{SignalKind, signal};
                let listen = |kind| signal(kind).map_err(|error| {
                    Error::new(ErrorKind::Unavailable, "signals cannot be listened for").because(error)
                });
                Ok(Self {
                    terminate: listen(SignalKind::terminate())?,
                    interrupt: listen(SignalKind::interrupt())?,
                    hangup: listen(SignalKind::hangup())?,
                })
            } else {
                Ok(Self {})
            }
        }
    }

    /// Waits for the next one. Cancel safe.
    pub async fn next(&mut self) -> Signal {
        cfg_if::cfg_if! {
            if #[cfg(unix)] {
                tokio::select! {
                    biased;
                    _ = self.terminate.recv() => Signal::End("SIGTERM"),
                    _ = self.interrupt.recv() => Signal::End("SIGINT"),
                    _ = self.hangup.recv() => Signal::Reload,
                }
            } else {
                // Fails where there is no console, and then there is nobody to ask.
                if tokio::signal::ctrl_c().await.is_err() {
                    std::future::pending::<()>().await;
                }
                Signal::End("SIGINT")
            }
        }
    }

    /// Waits for the next one that asks to end. Cancel safe.
    pub async fn end(&mut self) -> &'static str {
        loop {
            if let Signal::End(name) = self.next().await {
                return name;
            }
        }
    }
}

/// Closes the store: what was accepted is completed and brought into rows. Waits no longer than `deadline`.
///
/// # Errors
/// Those of [`Store::close`]. `Unavailable` if it took longer: closing goes on, and what was acknowledged is
/// durable also if the process ends now; the next opening then reads more blocks.
pub async fn drain(store: &dyn Store, deadline: Duration) -> Result<()> {
    match tokio::time::timeout(deadline, store.close()).await {
        Ok(closed) => closed,
        Err(_) => Err(Error::new(
            ErrorKind::Unavailable,
            "closing the store takes longer than it may; what was acknowledged is durable, and the next \
             opening reads the blocks that are not in rows yet",
        )
        .with("deadline_seconds", deadline.as_secs())
        .during("store.close")),
    }
}

/// Waits until the process is asked to end, and then closes the store. For programs that have nothing else
/// to do then:
///
/// ```no_run
/// # async fn example(store: std::sync::Arc<dyn ghostwire_store::Store>) -> ghostwire_store::Result<()> {
/// use ghostwire_store::shutdown::{Signals, drain_on_signal};
///
/// let mut signals = Signals::listen()?;
/// drain_on_signal(&mut signals, store.as_ref(), std::time::Duration::from_secs(30)).await?;
/// # Ok(()) }
/// ```
///
/// # Errors
/// As [`drain`]. A second signal while it drains ends that at once, as a deadline does.
pub async fn drain_on_signal(
    signals: &mut Signals,
    store: &dyn Store,
    deadline: Duration,
) -> Result<&'static str> {
    let name = signals.end().await;
    tracing::info!(signal = name, "the store is being closed");
    drain_unless_asked_again(signals, store, deadline).await.map(|()| name)
}

/// Drains; a further signal that asks to end is taken for the deadline.
///
/// # Errors
/// As [`drain`].
pub async fn drain_unless_asked_again(
    signals: &mut Signals,
    store: &dyn Store,
    deadline: Duration,
) -> Result<()> {
    tokio::select! {
        drained = drain(store, deadline) => drained,
        name = signals.end() => Err(Error::new(
            ErrorKind::Unavailable,
            "asked to end once more while the store was being closed; what was acknowledged is durable",
        )
        .with("signal", name)
        .during("store.close")),
    }
}
