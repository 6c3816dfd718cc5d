//! Checks of imported hashes. Each takes tens of milliseconds of CPU, and an attacker who knows the
//! public part of a key can ask for any number, so they are bounded.

use std::collections::HashMap;
use std::num::NonZero;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::domain::{Secret, SecretHash};
use crate::error::{EntityKind, Error, ErrorKind, Result};
use crate::secrets::verify_bcrypt;
use crate::threads::may_block;

/// How many callers may wait for one credential, with the one being served.
const MAX_QUEUE: usize = 1024;

/// The credential whose hash it is.
pub(crate) type Holder = (EntityKind, [u8; 16]);

type Verify = dyn Fn(&str, &SecretHash) -> Result<bool> + Send + Sync;

/// Half of the processors check hashes, at most one hash of a credential at a time: callers of one
/// credential queue up, and the first of each queue take turns. So guesses at one credential, however
/// many, delay the check of another by one check at most.
pub(crate) struct ImportedHashes {
    running: Arc<Semaphore>,
    queues: Arc<Queues>,
    timeout: Duration,
    checked: AtomicU64,
    verify: Arc<Verify>,
}

impl std::fmt::Debug for ImportedHashes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ImportedHashes").field("checked", &self.checked).finish_non_exhaustive()
    }
}

impl ImportedHashes {
    /// A caller waits at most `timeout`.
    pub(crate) fn new(timeout: Duration) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
        Self::with((processors / 2).max(1), timeout, Arc::new(verify_bcrypt))
    }

    fn with(at_once: usize, timeout: Duration, verify: Arc<Verify>) -> Self {
        Self {
            running: Arc::new(Semaphore::new(at_once)),
            queues: Arc::default(),
            timeout,
            checked: AtomicU64::new(0),
            verify,
        }
    }

    /// How many hashes were computed.
    pub(crate) fn checked(&self) -> u64 {
        self.checked.load(Ordering::Relaxed)
    }

    /// Waits until a hash of `holder` may be checked. Callers of one `holder` have their turns in the
    /// order of their calls.
    ///
    /// # Errors
    /// `Busy` if that takes too long, or too many wait already.
    pub(crate) async fn turn(&self, holder: Holder) -> Result<Turn<'_>> {
        let busy = |why| Error::new(ErrorKind::Busy, why).about(holder.0);
        let queued = Queues::join(&self.queues, holder)
            .ok_or_else(|| busy("is being checked for too many others; try again later"))?;
        let wait = async {
            let first = queued.first.clone().acquire_owned().await?;
            let running = self.running.clone().acquire_owned().await?;
            Ok::<_, tokio::sync::AcquireError>((first, running))
        };
        let permits = tokio::time::timeout(self.timeout, wait)
            .await
            .map_err(|_| busy("is being checked for others; try again later"))?
            .map_err(|error| {
                Error::new(ErrorKind::Unexpected, "a queue was closed").because(error)
            })?;
        Ok(Turn { hashes: self, held: (permits, queued) })
    }
}

/// The permission to check one hash.
pub(crate) struct Turn<'h> {
    hashes: &'h ImportedHashes,
    held: ((OwnedSemaphorePermit, OwnedSemaphorePermit), Queued),
}

impl Turn<'_> {
    /// Whether `hash` was made from this secret.
    ///
    /// # Errors
    /// `Crypto` if the hash cannot be read; `Unavailable` if the system gives no thread.
    pub(crate) async fn check(self, secret: &str, hash: &SecretHash) -> Result<bool> {
        let Self { hashes, held } = self;
        hashes.checked.fetch_add(1, Ordering::Relaxed);
        let (verify, secret, hash) =
            (hashes.verify.clone(), Secret::new(secret.to_owned()), hash.clone());
        may_block(move || {
            // The work goes on if its caller is dropped, so it holds the permits.
            let _held = held;
            verify(secret.expose(), &hash)
        })
        .await
    }
}

/// The credentials whose hashes are being checked.
#[derive(Default)]
struct Queues(Mutex<HashMap<Holder, Queue>>);

struct Queue {
    callers: usize,
    first: Arc<Semaphore>,
}

impl Queues {
    fn lock(&self) -> MutexGuard<'_, HashMap<Holder, Queue>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn join(queues: &Arc<Self>, holder: Holder) -> Option<Queued> {
        let mut held = queues.lock();
        let queue = held
            .entry(holder)
            .or_insert_with(|| Queue { callers: 0, first: Arc::new(Semaphore::new(1)) });
        if queue.callers == MAX_QUEUE {
            return None;
        }
        queue.callers += 1;
        Some(Queued { queues: queues.clone(), holder, first: queue.first.clone() })
    }
}

/// A caller in a queue; the last one to leave removes the queue.
struct Queued {
    queues: Arc<Queues>,
    holder: Holder,
    first: Arc<Semaphore>,
}

impl Drop for Queued {
    fn drop(&mut self) {
        let mut held = self.queues.lock();
        if let Some(queue) = held.get_mut(&self.holder) {
            queue.callers -= 1;
            if queue.callers == 0 {
                held.remove(&self.holder);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::mpsc;

    use tokio::task::JoinHandle;

    use super::*;

    const NEVER: Duration = Duration::from_secs(3600);

    /// A check that reports itself, and ends when it is told to.
    struct Gate {
        begun: Arc<Mutex<mpsc::Receiver<String>>>,
        end: mpsc::Sender<bool>,
    }

    /// Hashes that are checked by hand.
    fn by_hand(at_once: usize, timeout: Duration) -> (Arc<ImportedHashes>, Gate) {
        let (began, begun) = mpsc::channel();
        let (end, ended) = mpsc::channel();
        let (began, ended) = (Mutex::new(began), Mutex::new(ended));
        let verify = move |secret: &str, _: &SecretHash| {
            began.lock().unwrap().send(secret.to_owned()).unwrap();
            Ok(ended.lock().unwrap().recv().unwrap())
        };
        let hashes = ImportedHashes::with(at_once, timeout, Arc::new(verify));
        (Arc::new(hashes), Gate { begun: Arc::new(Mutex::new(begun)), end })
    }

    impl Gate {
        /// The secret whose check began next.
        async fn begun(&self) -> String {
            let begun = self.begun.clone();
            let begun = move || begun.lock().unwrap().recv().unwrap();
            tokio::task::spawn_blocking(begun).await.unwrap()
        }
    }

    fn holder(n: u8) -> Holder {
        (EntityKind::ApiKey, [n; 16])
    }

    fn hash() -> SecretHash {
        SecretHash::bcrypt("$2a$04$abcdefghijklmnopqrstuuQSLmioUYOEmKTL16wobTks4j4shJ2JG").unwrap()
    }

    /// A check that has joined its queue when this returns.
    async fn check(hashes: &Arc<ImportedHashes>, n: u8, secret: &str) -> JoinHandle<Result<bool>> {
        let (hashes, secret) = (hashes.clone(), secret.to_owned());
        let check =
            tokio::spawn(
                async move { hashes.turn(holder(n)).await?.check(&secret, &hash()).await },
            );
        tokio::task::yield_now().await;
        check
    }

    #[tokio::test]
    async fn guesses_at_one_credential_leave_the_others_their_turns() {
        let (hashes, gate) = by_hand(1, NEVER);
        let mut guesses = Vec::new();
        for number in 0..50 {
            guesses.push(check(&hashes, 1, &format!("guess {number}")).await);
        }
        let others = [check(&hashes, 2, "two").await, check(&hashes, 3, "three").await];
        for expected in ["guess 0", "two", "three", "guess 1"] {
            assert_eq!(gate.begun().await, expected);
            gate.end.send(expected == "two").unwrap();
        }
        let [two, three] = others;
        assert!(two.await.unwrap().unwrap() && !three.await.unwrap().unwrap());
        guesses.iter().for_each(JoinHandle::abort);
        gate.end.send(false).unwrap();
    }

    #[tokio::test]
    async fn the_number_of_checks_is_bounded_even_if_callers_leave() {
        let (hashes, gate) = by_hand(2, NEVER);
        let mut checks = Vec::new();
        for n in 0..5 {
            checks.push(check(&hashes, n, &format!("secret {n}")).await);
        }
        assert_eq!(hashes.checked(), 2);
        // The callers of the first two have left, and the checks run on.
        for check in checks.drain(..2) {
            check.abort();
            assert!(check.await.unwrap_err().is_cancelled());
        }
        assert_eq!((hashes.running.available_permits(), hashes.checked()), (0, 2));
        let mut begun = [gate.begun().await, gate.begun().await];
        begun.sort();
        assert_eq!(begun, ["secret 0", "secret 1"]);
        for (expected, check) in ["secret 2", "secret 3", "secret 4"].into_iter().zip(checks) {
            gate.end.send(true).unwrap();
            assert_eq!(gate.begun().await, expected);
            drop(check);
        }
        assert_eq!(hashes.checked(), 5);
        (0..2).for_each(|_| gate.end.send(true).unwrap());
    }

    #[tokio::test]
    async fn a_queue_is_bounded_and_removed_by_the_last_to_leave() {
        let (hashes, gate) = by_hand(1, NEVER);
        let mut checks = Vec::new();
        for _ in 0..MAX_QUEUE {
            checks.push(check(&hashes, 1, "guess").await);
        }
        let error = hashes.turn(holder(1)).await.err().unwrap();
        assert_eq!(*error.kind(), ErrorKind::Busy);
        for check in checks.drain(..) {
            check.abort();
            let _ = check.await;
        }
        // The one that runs still counts.
        assert_eq!(hashes.queues.lock().get(&holder(1)).map(|queue| queue.callers), Some(1));
        gate.begun().await;
        gate.end.send(false).unwrap();
        let last = check(&hashes, 1, "last").await;
        assert_eq!(gate.begun().await, "last");
        gate.end.send(true).unwrap();
        assert!(last.await.unwrap().unwrap());
        assert!(hashes.queues.lock().is_empty());
    }

    #[tokio::test]
    async fn who_would_wait_too_long_is_told() {
        let (hashes, gate) = by_hand(1, Duration::ZERO);
        let first = check(&hashes, 1, "first").await;
        for n in [1, 2] {
            let error = check(&hashes, n, "later").await.await.unwrap().unwrap_err();
            assert_eq!(
                (error.kind(), error.entity()),
                (&ErrorKind::Busy, Some(EntityKind::ApiKey))
            );
        }
        gate.end.send(true).unwrap();
        assert!(first.await.unwrap().unwrap());
        assert_eq!((gate.begun().await.as_str(), hashes.checked()), ("first", 1));
    }
}
