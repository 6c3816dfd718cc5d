//! The level of the log while the program runs.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use ghostwire_store_core::error::{Error, ErrorKind, Result};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::{Registry, reload};

use crate::lock;

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
}

#[derive(Debug)]
struct State {
    current: String,
    /// What comes back after a while, and when this one began: a later change takes its place.
    lasting: String,
    changes: u64,
}

impl LogLevel {
    pub(super) fn new(handle: reload::Handle<Targets, Registry>, level: String) -> Self {
        let state = State { current: level.clone(), lasting: level, changes: 0 };
        Self(Arc::new(Inner { handle, state: Mutex::new(state) }))
    }

    /// The level at present.
    #[must_use]
    pub fn current(&self) -> String {
        lock(&self.0.state).current.clone()
    }

    /// Changes it until it is changed again.
    ///
    /// # Errors
    /// `InvalidArgument` for a level that is none.
    pub fn set(&self, level: &str) -> Result<()> {
        let mut state = lock(&self.0.state);
        self.apply(&mut state, level)?;
        level.clone_into(&mut state.lasting);
        Ok(())
    }

    /// Changes it for a while. Then the level comes back that was set last by [`set`](LogLevel::set), unless
    /// it was changed meanwhile.
    ///
    /// # Errors
    /// `InvalidArgument` for a level that is none; `Unavailable` if the system gives no thread to wait, and
    /// then nothing changes.
    pub fn set_for(&self, level: &str, time: Duration) -> Result<()> {
        parse(level)?;
        let (started, waits) = std::sync::mpsc::channel::<u64>();
        let this = Arc::downgrade(&self.0);
        let wait = move || {
            let Ok(change) = waits.recv() else { return };
            std::thread::sleep(time);
            if let Some(inner) = this.upgrade() {
                Self(inner).come_back(change);
            }
        };
        let thread = std::thread::Builder::new().name("log-level".to_owned()).spawn(wait);
        thread.map_err(|error| {
            Error::new(ErrorKind::Unavailable, "no thread can be started").because(error)
        })?;
        let mut state = lock(&self.0.state);
        self.apply(&mut state, level)?;
        let _ = started.send(state.changes);
        Ok(())
    }

    /// The time of a change is over.
    fn come_back(&self, change: u64) {
        let mut state = lock(&self.0.state);
        if state.changes == change {
            let lasting = state.lasting.clone();
            if let Err(error) = self.apply(&mut state, &lasting) {
                tracing::error!(%error, "the level of the log does not come back");
            }
        }
    }

    fn apply(&self, state: &mut State, level: &str) -> Result<()> {
        let targets = parse(level)?;
        self.0.handle.reload(targets).map_err(|error| {
            Error::new(ErrorKind::Unavailable, "nothing is logged any more").because(error)
        })?;
        state.changes += 1;
        level.clone_into(&mut state.current);
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_level_is_refused() {
        for level in ["info", "off", "info,ghostwire_store_core::writer=debug", "WARN"] {
            parse(level).unwrap();
        }
        for level in ["", "loud", "info,loud", "ghostwire=loud", "ghostwire"] {
            parse(level).unwrap_err();
        }
    }

    #[test]
    fn a_level_for_a_while_comes_back_unless_it_was_changed() {
        let (_layer, handle) = reload::Layer::new(parse("info").unwrap());
        let level = LogLevel::new(handle, "info".to_owned());
        level.set("warn").unwrap();
        // Given back by hand: what waits is not waited for here.
        level.set_for("debug", Duration::from_secs(3600)).unwrap();
        assert_eq!(level.current(), "debug");
        let change = lock(&level.0.state).changes;
        level.come_back(change);
        assert_eq!(level.current(), "warn");
        level.set_for("debug", Duration::from_secs(3600)).unwrap();
        let change = lock(&level.0.state).changes;
        level.set("trace").unwrap();
        level.come_back(change);
        assert_eq!(level.current(), "trace");
    }
}
