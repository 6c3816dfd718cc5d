//! What a backend tells of a call that is under way. Whoever waits for the disk is deep in it, where no
//! recorder is, so it is told through the thread that made the call.

use std::cell::Cell;
use std::time::Duration;

thread_local! {
    static TOLD: Cell<Told> = const { Cell::new(Told { synced: None, compacted: None }) };
}

/// What was told during a call; each is missing if nothing was.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) synced: Option<Duration>,
    pub(crate) compacted: Option<Duration>,
}

/// A backend tells how long it took to make a commit durable. Several in one call are added.
///
/// For backends that commit on the thread that calls them; what is told elsewhere is not seen.
pub fn synced(took: Duration) {
    let told = TOLD.get();
    TOLD.set(Told { synced: Some(told.synced.unwrap_or_default() + took), ..told });
}

/// The same of merging rows of series within a commit.
pub fn compacted(took: Duration) {
    let told = TOLD.get();
    TOLD.set(Told { compacted: Some(told.compacted.unwrap_or_default() + took), ..told });
}

/// Runs `call`, and gives what it told.
pub(crate) async fn listening<T>(call: impl Future<Output = T>) -> (T, Told) {
    TOLD.take();
    let outcome = call.await;
    (outcome, TOLD.take())
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
            compacted(Duration::from_millis(1));
        };
        let (synced, compacted) = (Some(Duration::from_millis(5)), Some(Duration::from_millis(1)));
        assert_eq!(listening(call).await.1, Told { synced, compacted });
        assert_eq!(listening(async {}).await.1, Told::default());
    }
}
