//! Threads. The system may give none, and that is an error like any other.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use tokio::runtime::{Handle, Runtime};
use tokio::sync::oneshot;

use crate::error::{Error, ErrorKind, Result};

/// Does what may block, on a thread of tokio's blocking pool; right here if there is no runtime.
///
/// # Errors
/// `Unavailable` if the pool is empty and the system gives no thread, or if the runtime is being
/// shut down; `Unexpected` if `work` panics; otherwise what `work` gives.
pub async fn may_block<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let Ok(runtime) = Handle::try_current() else { return work() };
    // If the system gives no thread, tokio panics.
    let spawned = catch_unwind(AssertUnwindSafe(|| runtime.spawn_blocking(work)));
    let task = spawned.map_err(|_| no_thread(io::Error::other("the blocking pool is empty")))?;
    task.await.unwrap_or_else(|error| {
        let (kind, message) = match error.is_panic() {
            true => (ErrorKind::Unexpected, "the work panicked; report this"),
            false => (ErrorKind::Unavailable, "the work was abandoned: the runtime shuts down"),
        };
        Err(Error::new(kind, message).because(error))
    })
}

/// What a thread's runtime can wait for.
#[derive(Debug, Clone, Copy)]
pub enum Waits {
    /// Timers and other threads: the cheapest to wake up.
    Timers,
    /// Sockets, too.
    Everything,
}

/// Bytes of a thread's stack: as much as the standard library gives, unless a variable of the
/// environment says otherwise.
pub(crate) const STACK: usize = 2 * 1024 * 1024;

/// Starts a thread that does `work` with a runtime of its own. It is there when this returns.
///
/// # Errors
/// `Unavailable` if the system gives no thread, or no descriptor for its runtime.
pub async fn start(
    name: &'static str,
    waits: Waits,
    work: impl FnOnce(&Runtime) + Send + 'static,
) -> Result<()> {
    let dispatch = tracing::dispatcher::get_default(Clone::clone);
    let (started, outcome) = oneshot::channel();
    let body = move || {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        match waits {
            Waits::Timers => runtime.enable_time(),
            Waits::Everything => runtime.enable_all(),
        };
        match runtime.thread_name(name).thread_stack_size(STACK).build() {
            Ok(runtime) => {
                // The opening may have been cancelled.
                if started.send(Ok(())).is_ok() {
                    tracing::dispatcher::with_default(&dispatch, || work(&runtime));
                }
            }
            Err(error) => drop(started.send(Err(error))),
        }
    };
    let thread = std::thread::Builder::new().name(name.to_owned()).stack_size(STACK);
    let started = match thread.spawn(body) {
        Ok(_) => outcome.await.unwrap_or_else(|_| Err(io::Error::other("it stopped at once"))),
        Err(error) => Err(error),
    };
    started.map_err(|error| no_thread(error).with("thread", name))
}

pub(crate) fn no_thread(error: io::Error) -> Error {
    Error::new(
        ErrorKind::Unavailable,
        "no thread can be started; raise the limits of threads, open files and memory",
    )
    .because(error)
}
