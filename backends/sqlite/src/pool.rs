//! The connections that read: a few are kept, and there are never more than so many.
//!
//! Each has a cache of its own of 16 MB, so without a limit a crowd of readers would cost gigabytes. Nothing
//! here has a timer: what has been idle for too long is closed when the pool is next used, by a reader or
//! by a commit.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use ghostwire_store_core::backend::{ConnectionObserver, PoolInfo};
use ghostwire_store_core::error::{Error, ErrorKind, Result};

/// How many connections there are, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolLimits {
    /// At once. Whoever comes beyond waits.
    pub max: usize,
    /// So many are kept, however long nobody needs them.
    pub idle_min: usize,
    /// So many are kept at most while nobody needs them.
    pub idle_max: usize,
    /// How long a read waits for one, before it gives `Busy`.
    pub acquire_timeout: Duration,
    /// How long those above `idle_min` are kept.
    pub idle_timeout: Duration,
}

impl Default for PoolLimits {
    fn default() -> Self {
        Self {
            max: 16,
            idle_min: 1,
            idle_max: 4,
            acquire_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(60),
        }
    }
}

/// What is told of a pool. It stays while connections are made anew.
#[derive(Debug, Default)]
pub struct PoolMeter {
    limits: PoolLimits,
    idle: AtomicU64,
    used: AtomicU64,
    pending: AtomicU64,
    timeouts: AtomicU64,
    observer: OnceLock<Arc<dyn ConnectionObserver>>,
}

impl PoolMeter {
    /// Who is told how long things take; only the first one is.
    pub fn observe(&self, observer: Arc<dyn ConnectionObserver>) {
        let _ = self.observer.set(observer);
    }

    /// How it is now.
    #[must_use]
    pub fn info(&self) -> PoolInfo {
        let read = |number: &AtomicU64| number.load(Ordering::Relaxed);
        PoolInfo {
            idle: read(&self.idle),
            used: read(&self.used),
            max: self.limits.max as u64,
            idle_min: self.limits.idle_min as u64,
            idle_max: self.limits.idle_max as u64,
            pending: read(&self.pending),
            timeouts: read(&self.timeouts),
        }
    }

    fn show<C>(&self, state: &State<C>) {
        self.idle.store(state.idle.len() as u64, Ordering::Relaxed);
        self.used.store(state.used as u64, Ordering::Relaxed);
        self.pending.store(state.pending as u64, Ordering::Relaxed);
    }

    fn tell(&self, tell: impl FnOnce(&dyn ConnectionObserver)) {
        if let Some(observer) = self.observer.get() {
            tell(observer.as_ref());
        }
    }
}

/// Connections, and who waits for one.
#[derive(Debug)]
pub(crate) struct Pool<C> {
    meter: Arc<PoolMeter>,
    state: Mutex<State<C>>,
    freed: Condvar,
}

struct State<C> {
    /// The one that was used last is at the end, and used next.
    idle: Vec<(C, Instant)>,
    /// Those that somebody has, or is connecting.
    used: usize,
    pending: usize,
}

impl<C> fmt::Debug for State<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("idle", &self.idle.len())
            .field("used", &self.used)
            .field("pending", &self.pending)
            .finish_non_exhaustive()
    }
}

impl<C> State<C> {
    /// Takes out those that are kept for too long, to be closed without the lock.
    fn overdue(&mut self, limits: &PoolLimits, now: Instant) -> Vec<C> {
        let is_overdue = |since: &Instant| now.duration_since(*since) >= limits.idle_timeout;
        // The oldest are at the beginning.
        let overdue = self.idle.iter().take_while(|(_, since)| is_overdue(since)).count();
        let count = overdue.min(self.idle.len().saturating_sub(limits.idle_min));
        self.idle.drain(..count).map(|(connection, _)| connection).collect()
    }
}

/// A connection that somebody has. Dropping it gives it back, to be kept for others or closed.
#[derive(Debug)]
pub(crate) struct Lease<'p, C> {
    pool: &'p Pool<C>,
    /// Always there until it is given back.
    connection: Option<C>,
    since: Instant,
}

impl<C> Pool<C> {
    pub(crate) fn new(meter: Arc<PoolMeter>) -> Self {
        let state = State { idle: Vec::new(), used: 0, pending: 0 };
        meter.show(&state);
        Self { meter, state: Mutex::new(state), freed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State<C>> {
        // What is in there is whole at any time.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection that is idle, or a new one.
    ///
    /// # Errors
    /// `Busy` if all stay in use; those of `connect`.
    pub(crate) fn acquire(&self, connect: impl FnOnce() -> Result<C>) -> Result<Lease<'_, C>> {
        let connection = self.take(false)?;
        self.lend(connection, connect)
    }

    /// A new connection, as one of those that there may be.
    ///
    /// # Errors
    /// As [`Pool::acquire`].
    pub(crate) fn acquire_new(&self, connect: impl FnOnce() -> Result<C>) -> Result<Lease<'_, C>> {
        let replaced = self.take(true)?;
        drop(replaced);
        self.lend(None, connect)
    }

    fn lend(
        &self,
        connection: Option<C>,
        connect: impl FnOnce() -> Result<C>,
    ) -> Result<Lease<'_, C>> {
        // Gives the place back if connecting fails.
        let mut lease = Lease { pool: self, connection, since: Instant::now() };
        if lease.connection.is_none() {
            lease.connection = Some(connect()?);
            let took = lease.since.elapsed();
            self.meter.tell(|observer| observer.created(took));
            lease.since = Instant::now();
        }
        Ok(lease)
    }

    /// Waits until one more may be in use. Gives an idle connection, if there is one; to make room for a
    /// new one only where there is no other.
    fn take(&self, is_new: bool) -> Result<Option<C>> {
        let (begun, limits) = (Instant::now(), self.meter.limits);
        let mut state = self.lock();
        let overdue = state.overdue(&limits, begun);
        let is_full = |state: &mut State<C>| state.used >= limits.max;
        if is_full(&mut state) {
            state.pending += 1;
            self.meter.show(&state);
            let timeout = limits.acquire_timeout;
            let waited = self.freed.wait_timeout_while(state, timeout, is_full);
            (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
            state.pending -= 1;
            if is_full(&mut state) {
                self.meter.show(&state);
                drop(state);
                self.meter.timeouts.fetch_add(1, Ordering::Relaxed);
                return Err(all_in_use(&limits));
            }
        }
        state.used += 1;
        let all = state.used + state.idle.len();
        let idle = match is_new && all <= limits.max {
            true => None,
            false => state.idle.pop().map(|(connection, _)| connection),
        };
        self.meter.show(&state);
        drop(state);
        drop(overdue);
        self.meter.tell(|observer| observer.waited(begun.elapsed()));
        Ok(idle)
    }

    /// Closes what is idle for too long.
    pub(crate) fn prune(&self) {
        let mut state = self.lock();
        let overdue = state.overdue(&self.meter.limits, Instant::now());
        self.meter.show(&state);
        drop(state);
        drop(overdue);
    }

    /// It is no longer in use.
    fn freed(&self, connection: Option<C>, since: Instant) {
        let now = Instant::now();
        let mut state = self.lock();
        state.used -= 1;
        let mut closed = state.overdue(&self.meter.limits, now);
        match connection {
            Some(connection) if state.idle.len() < self.meter.limits.idle_max => {
                state.idle.push((connection, now));
            }
            connection => closed.extend(connection),
        }
        self.meter.show(&state);
        drop(state);
        self.freed.notify_one();
        drop(closed);
        self.meter.tell(|observer| observer.used(now.duration_since(since)));
    }
}

fn all_in_use(limits: &PoolLimits) -> Error {
    Error::new(
        ErrorKind::Busy,
        "all connections that read stayed in use; try again later, or read less at once",
    )
    .with("connections", limits.max)
    .with("waited", format_args!("{:?}", limits.acquire_timeout))
}

impl<C> Lease<'_, C> {
    /// The connection.
    pub(crate) fn connection(&mut self) -> Result<&mut C> {
        self.connection
            .as_mut()
            .ok_or_else(|| Error::new(ErrorKind::Unexpected, "a reader is used after its end"))
    }

    /// Whether it may be used again is for whoever has it to say.
    pub(crate) fn retain_if(&mut self, is_usable: impl FnOnce(&mut C) -> bool) {
        self.connection.take_if(|connection| !is_usable(connection));
    }
}

impl<C> Drop for Lease<'_, C> {
    fn drop(&mut self) {
        self.pool.freed(self.connection.take(), self.since);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    const LIMITS: PoolLimits = PoolLimits {
        max: 2,
        idle_min: 1,
        idle_max: 2,
        acquire_timeout: Duration::from_secs(60),
        idle_timeout: Duration::from_secs(3600),
    };

    fn pool_of<C>(limits: PoolLimits) -> Pool<C> {
        Pool::new(Arc::new(PoolMeter { limits, ..PoolMeter::default() }))
    }

    /// Counts the connections that it makes.
    #[derive(Default)]
    struct Maker(AtomicUsize);

    impl Maker {
        fn make(&self) -> Result<usize> {
            Ok(self.0.fetch_add(1, Ordering::SeqCst))
        }
    }

    fn numbers<C>(pool: &Pool<C>) -> (u64, u64) {
        let info = pool.meter.info();
        (info.idle, info.used)
    }

    #[test]
    fn what_is_idle_is_used_again_the_latest_first() {
        let (pool, maker) = (pool_of(LIMITS), Maker::default());
        let mut one = pool.acquire(|| maker.make()).unwrap();
        let two = pool.acquire(|| maker.make()).unwrap();
        assert_eq!(numbers(&pool), (0, 2));
        assert_eq!(*one.connection().unwrap(), 0);
        drop(one);
        drop(two);
        assert_eq!(numbers(&pool), (2, 0));
        assert_eq!(*pool.acquire(|| maker.make()).unwrap().connection().unwrap(), 1);
        assert_eq!(maker.0.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn whoever_comes_beyond_the_limit_waits_for_who_is_there() {
        let (pool, maker) = (pool_of(LIMITS), Maker::default());
        std::thread::scope(|scope| {
            let held =
                [pool.acquire(|| maker.make()).unwrap(), pool.acquire(|| maker.make()).unwrap()];
            let waiting = scope.spawn(|| pool.acquire(|| maker.make()).map(drop));
            while pool.meter.info().pending == 0 {
                std::thread::yield_now();
            }
            drop(held);
            waiting.join().unwrap().unwrap();
        });
        assert_eq!(maker.0.load(Ordering::SeqCst), 2);
        assert_eq!((pool.meter.info().pending, pool.meter.info().timeouts), (0, 0));
    }

    #[test]
    fn nobody_waits_for_ever() {
        let limits = PoolLimits { acquire_timeout: Duration::from_millis(1), max: 1, ..LIMITS };
        let (pool, maker) = (pool_of(limits), Maker::default());
        let held = pool.acquire(|| maker.make()).unwrap();
        let error = pool.acquire(|| maker.make()).err().unwrap();
        assert_eq!(*error.kind(), ErrorKind::Busy, "{error}");
        assert_eq!(pool.meter.info().timeouts, 1);
        drop(held);
        assert!(pool.acquire(|| maker.make()).is_ok());
    }

    #[test]
    fn a_connection_that_cannot_be_made_takes_no_place() {
        let pool: Pool<usize> = pool_of(PoolLimits { max: 1, ..LIMITS });
        for _ in 0..3 {
            assert!(pool.acquire(|| Err(Error::corrupt("x"))).is_err());
        }
        assert_eq!(numbers(&pool), (0, 0));
        assert!(pool.acquire(|| Ok(1)).is_ok());
    }

    #[test]
    fn one_that_is_not_to_be_used_again_is_closed() {
        let (pool, maker) = (pool_of(LIMITS), Maker::default());
        let mut lease = pool.acquire(|| maker.make()).unwrap();
        lease.retain_if(|_| false);
        drop(lease);
        assert_eq!(numbers(&pool), (0, 0));
    }

    #[test]
    fn what_nobody_needs_is_closed_but_for_the_least() {
        let limits = PoolLimits { idle_timeout: Duration::ZERO, ..LIMITS };
        let (pool, maker) = (pool_of(limits), Maker::default());
        let leases =
            [pool.acquire(|| maker.make()).unwrap(), pool.acquire(|| maker.make()).unwrap()];
        drop(leases);
        pool.prune();
        assert_eq!(numbers(&pool), (1, 0));
        // Within its time it stays.
        let pool = pool_of(LIMITS);
        let leases =
            [pool.acquire(|| maker.make()).unwrap(), pool.acquire(|| maker.make()).unwrap()];
        drop(leases);
        pool.prune();
        assert_eq!(numbers(&pool), (2, 0));
    }

    #[test]
    fn a_new_one_takes_the_place_of_an_idle_one() {
        let (pool, maker) = (pool_of(PoolLimits { max: 1, ..LIMITS }), Maker::default());
        drop(pool.acquire(|| maker.make()).unwrap());
        assert_eq!(*pool.acquire_new(|| maker.make()).unwrap().connection().unwrap(), 1);
        assert_eq!(numbers(&pool), (1, 0));
    }

    #[derive(Debug, Default)]
    struct Times(Mutex<Vec<&'static str>>);

    impl ConnectionObserver for Times {
        fn created(&self, _: Duration) {
            self.0.lock().unwrap().push("created");
        }
        fn waited(&self, _: Duration) {
            self.0.lock().unwrap().push("waited");
        }
        fn used(&self, _: Duration) {
            self.0.lock().unwrap().push("used");
        }
    }

    #[test]
    fn times_are_told() {
        let (pool, maker) = (pool_of(LIMITS), Maker::default());
        let times = Arc::new(Times::default());
        pool.meter.observe(times.clone());
        drop(pool.acquire(|| maker.make()).unwrap());
        drop(pool.acquire(|| maker.make()).unwrap());
        assert_eq!(*times.0.lock().unwrap(), ["waited", "created", "used", "waited", "used"]);
    }
}
