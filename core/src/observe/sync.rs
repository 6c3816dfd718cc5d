//! How long the synchronisation of commits takes. It happens deep in a backend, on the thread that called
//! it, so it is told through that thread.

use std::cell::Cell;
use std::time::Duration;

thread_local! {
    static SYNCED: Cell<Option<Duration>> = const { Cell::new(None) };
}

/// A backend tells how long it took to make a commit durable. Several in one call are added.
///
/// For backends that commit on the thread that calls them; what is told elsewhere is not seen.
pub fn synced(took: Duration) {
    SYNCED.set(Some(SYNCED.get().unwrap_or_default() + took));
}

/// What was told during a call.
pub(crate) type Syncs = Option<Duration>;

/// Runs `call`, and gives what it told.
pub(crate) async fn with_syncs<T>(call: impl Future<Output = T>) -> (T, Syncs) {
    SYNCED.set(None);
    let outcome = call.await;
    (outcome, SYNCED.take())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_a_call_tells_is_its_own() {
        synced(Duration::from_secs(9));
        let call = async {
            synced(Duration::from_millis(2));
            synced(Duration::from_millis(3));
        };
        assert_eq!(with_syncs(call).await.1, Some(Duration::from_millis(5)));
        assert_eq!(with_syncs(async {}).await.1, None);
    }
}
