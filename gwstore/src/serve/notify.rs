//! What the service manager is told, where there is one: `NOTIFY_SOCKET`, as systemd has it.

use std::time::Duration;

/// Tells the service manager. Where there is none, or it does not listen, nothing happens.
#[cfg(unix)]
mod told {
    use sd_notify::NotifyState;

    pub(super) fn notify(states: &[NotifyState<'_>]) {
        if let Err(error) = sd_notify::notify(states) {
            tracing::debug!(%error, "the service manager is not told");
        }
    }
}

fn micros(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)
}

/// The store is being opened; the manager is to wait for so much longer, if that is given.
pub(super) fn opening(status: &str, longer: Option<Duration>) {
    #[cfg(unix)]
    {
        use sd_notify::NotifyState::{ExtendTimeoutUsec, Status};
        let longer = longer.map(|longer| ExtendTimeoutUsec(micros(longer)));
        let states: Vec<_> = std::iter::once(Status(status)).chain(longer).collect();
        told::notify(&states);
    }
    #[cfg(not(unix))]
    let _ = (status, longer.map(micros));
}

/// The store is open, or the configuration was read again.
pub(super) fn ready(status: &str) {
    #[cfg(unix)]
    told::notify(&[sd_notify::NotifyState::Ready, sd_notify::NotifyState::Status(status)]);
    #[cfg(not(unix))]
    let _ = status;
}

pub(super) fn status(status: &str) {
    #[cfg(unix)]
    told::notify(&[sd_notify::NotifyState::Status(status)]);
    #[cfg(not(unix))]
    let _ = status;
}

/// The configuration is being read again; [`ready`] has to follow.
pub(super) fn reloading() {
    #[cfg(unix)]
    {
        use sd_notify::NotifyState;
        match NotifyState::monotonic_usec_now() {
            Ok(now) => told::notify(&[NotifyState::Reloading, now]),
            Err(error) => tracing::debug!(%error, "the service manager is not told"),
        }
    }
}

/// The store is being closed, for so long at most.
pub(super) fn stopping(status: &str, deadline: Duration) {
    #[cfg(unix)]
    {
        use sd_notify::NotifyState::{ExtendTimeoutUsec, Status, Stopping};
        told::notify(&[Stopping, Status(status), ExtendTimeoutUsec(micros(deadline))]);
    }
    #[cfg(not(unix))]
    let _ = (status, micros(deadline));
}

/// The process lives.
pub(super) fn alive() {
    #[cfg(unix)]
    told::notify(&[sd_notify::NotifyState::Watchdog]);
}

/// How often the manager wants to hear that: `WATCHDOG_USEC`, halved as it recommends.
pub(super) fn watchdog_interval() -> Option<Duration> {
    #[cfg(unix)]
    return sd_notify::watchdog_enabled().map(|interval| interval / 2);
    #[cfg(not(unix))]
    None
}
