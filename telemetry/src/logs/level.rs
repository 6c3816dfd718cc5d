//! The level of the log while the program runs.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ghostwire_store_core::error::{Error, ErrorKind, Result};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::{Registry, reload};

use crate::lock;

/// For how long a level may be set for a while.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// Reads a level, or several for parts of the program.
pub(super) fn parse(level: &str) -> Result<Targets> {
    let is_one = |part: &str| {
        let name = part.rsplit_once('=').map_or(part, |(_, level)| level);
        ["off", "error", "warn", "info", "debug", "trace"]
            .contains(&name.to_ascii_lowercase().as_str())
    };
    let parsed = level.parse().ok().filter(|_| level.split(',').all(|part| is_one(part.trim())));
    parsed.ok_or_else(|| {
        Error::invalid(
            "this is no level of the log; use error, warn, info, debug, trace or off, as in \
             `info,ghostwire_store_core::writer=debug`",
        )
        .with("level", level)
    })
}

/// Changes the level of the log. Clones change the same.
#[derive(Debug, Clone)]
pub struct LogLevel(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    handle: reload::Handle<Targets, Registry>,
    state: Mutex<State>,
    /// Something of the state has changed.
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    current: String,
    /// What comes back after a while, and when.
    lasting: String,
    until: Option<Instant>,
    /// A thread waits for that.
    is_waited_for: bool,
}

impl LogLevel {
    pub(super) fn new(handle: reload::Handle<Targets, Registry>, level: String) -> Self {
        let (current, lasting) = (level.clone(), level);
        let state = State { current, lasting, until: None, is_waited_for: false };
        Self(Arc::new(Inner { handle, state: Mutex::new(state), changed: Condvar::new() }))
    }

    /// The level at present.
    #[must_use]
    pub fn current(&self) -> String {
        lock(&self.0.state).current.clone()
    }

    /// Whether it was changed for a while that is not over.
    #[must_use]
    pub fn is_timed(&self) -> bool {
        lock(&self.0.state).is_waited_for
    }

    /// Changes it until it is changed again.
    ///
    /// # Errors
    /// `InvalidArgument` for a level that is none.
    pub fn set(&self, level: &str) -> Result<()> {
        let mut state = lock(&self.0.state);
        self.apply(&mut state, level)?;
        level.clone_into(&mut state.lasting);
        state.until = None;
        self.0.changed.notify_all();
        Ok(())
    }

    /// Changes it for a while, of a day at most. Then the level comes back that was set last by [`set`](LogLevel::set), unless
    /// it was changed meanwhile.
    ///
    /// # Errors
    /// `InvalidArgument` for a level that is none and for a longer time; `Unavailable` if the system gives no
    /// thread to wait, and then nothing changes.
    pub fn set_for(&self, level: &str, time: Duration) -> Result<()> {
        if time > LONGEST {
            return Err(Error::invalid("a level of the log may be set for a day at most")
                .with("seconds", time.as_secs()));
        }
        parse(level)?;
        let mut state = lock(&self.0.state);
        if !state.is_waited_for {
            let (this, log) = (self.clone(), tracing::dispatcher::get_default(Clone::clone));
            let wait = move || tracing::dispatcher::with_default(&log, || this.wait());
            let thread = std::thread::Builder::new().name("log-level".to_owned()).spawn(wait);
            thread.map_err(|error| {
                Error::new(ErrorKind::Unavailable, "no thread can be started").because(error)
            })?;
            state.is_waited_for = true;
        }
        let applied = self.apply(&mut state, level);
        if applied.is_ok() {
            state.until = Some(Instant::now() + time);
        }
        self.0.changed.notify_all();
        applied
    }

    /// Waits until the time of a change is over, or nothing is left to wait for.
    fn wait(&self) {
        let mut state = lock(&self.0.state);
        while let Some(until) = state.until {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                state.until = None;
                let (was, lasting) = (state.current.clone(), state.lasting.clone());
                // Told at whichever of the two levels admits it.
                let is_told_first = admits_info(&was);
                if is_told_first {
                    tell_end(&was, &lasting);
                }
                match self.apply(&mut state, &lasting) {
                    Ok(()) if !is_told_first => tell_end(&was, &lasting),
                    Ok(()) => {}
                    Err(error) => {
                        tracing::error!(%error, "the level of the log does not come back")
                    }
                }
            } else {
                let waited = self.0.changed.wait_timeout(state, left);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
        }
        state.is_waited_for = false;
        self.0.changed.notify_all();
    }

    fn apply(&self, state: &mut State, level: &str) -> Result<()> {
        let targets = parse(level)?;
        self.0.handle.reload(targets).map_err(|error| {
            Error::new(ErrorKind::Unavailable, "nothing is logged any more").because(error)
        })?;
        level.clone_into(&mut state.current);
        Ok(())
    }
}

/// Whether what is said here at `info` is logged at a level.
fn admits_info(level: &str) -> bool {
    parse(level).is_ok_and(|targets| targets.would_enable(module_path!(), &tracing::Level::INFO))
}

fn tell_end(was: &str, level: &str) {
    tracing::info!(
        name: "log_level",
        from = was,
        to = level,
        "the time is over for which the level of the log was changed"
    );
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::logs::tests::ONE_LOG;

    #[test]
    fn what_is_no_level_is_refused() {
        for level in ["info", "off", "info,ghostwire_store_core::writer=debug", "WARN"] {
            parse(level).unwrap();
        }
        for level in ["", "loud", "info,loud", "ghostwire=loud", "ghostwire"] {
            parse(level).unwrap_err();
        }
    }

    fn info() -> (reload::Layer<Targets, Registry>, LogLevel) {
        let (layer, handle) = reload::Layer::new(parse("info").unwrap());
        (layer, LogLevel::new(handle, "info".to_owned()))
    }

    /// Waits until nobody waits for a time any more.
    fn settle(level: &LogLevel) {
        let state = level.0.state.lock().unwrap();
        drop(level.0.changed.wait_while(state, |state| state.is_waited_for).unwrap());
    }

    #[test]
    fn a_level_for_a_while_comes_back() {
        let _one_log = lock(&ONE_LOG);
        let (_layer, level) = info();
        level.set("warn").unwrap();
        level.set_for("debug", Duration::from_secs(3600)).unwrap();
        assert_eq!(level.current(), "debug");
        // A later time takes the place of the one before.
        level.set_for("trace", Duration::ZERO).unwrap();
        settle(&level);
        assert_eq!(level.current(), "warn");
    }

    #[test]
    fn one_thread_waits_and_only_while_there_is_something_to_wait_for() {
        let _one_log = lock(&ONE_LOG);
        let (_layer, level) = info();
        for _ in 0..1000 {
            level.set_for("debug", LONGEST).unwrap();
        }
        assert_eq!(Arc::strong_count(&level.0), 2);
        level.set("trace").unwrap();
        settle(&level);
        assert_eq!(level.current(), "trace");
        level.set_for("debug", LONGEST + Duration::from_nanos(1)).unwrap_err();
        level.set_for("debug", Duration::from_secs(u64::MAX)).unwrap_err();
        assert_eq!(level.current(), "trace");
    }
}
