//! Power that is lost while several callers write: their commands share commits.

use super::workload::{Workload, open, options};
use crate::prelude::*;

const CALLERS: u32 = 6;
const REGISTRATIONS: u32 = 12;

/// What was acknowledged, and what the disk held at moments in between.
#[derive(Default)]
struct Recorder {
    acknowledged: Mutex<Vec<NodeId>>,
    /// The disk, and how many registrations were acknowledged.
    losses: Mutex<Vec<(Arc<dyn Frozen>, usize)>>,
}

impl Recorder {
    fn record(&self, disk: &dyn Disk) {
        let acknowledged = self.acknowledged.lock().unwrap().len();
        self.losses.lock().unwrap().push((disk.freeze(), acknowledged));
    }
}

/// Each consumes a one-time key, takes addresses, makes a node and leaves a line in the audit
/// trail: all of that, or nothing.
pub(super) async fn of_concurrent_registrations_each_is_whole_or_absent(
    factory: Arc<dyn Factory>,
    effort: Effort,
) -> Verdict {
    for materialize in [Materialize::Commit, Materialize::Checkpoint] {
        let place = factory.create().await.unwrap();
        let Some(disk) = place.disk() else {
            return Verdict::Skipped("the place has no disk that loses power");
        };
        let workload = Workload::new(effort.seed);
        let made = options(materialize, &workload.clock, effort.seed);
        let (_, store) = open(place.as_ref(), made).await.unwrap();
        let owner = user(&store, "owner").await;
        let recorder = Arc::new(Recorder::default());
        let watcher = recorder.clone();
        disk.watch(Some(Arc::new(move |disk| watcher.record(disk))));
        let callers = (1..=CALLERS)
            .map(|caller| tokio::spawn(call(store.clone(), recorder.clone(), owner, caller)));
        for caller in callers.collect::<Vec<_>>() {
            caller.await.unwrap();
        }
        disk.watch(None);
        store.close().await.unwrap();
        let acknowledged = recorder.acknowledged.lock().unwrap().clone();
        assert_eq!(acknowledged.len(), (CALLERS * REGISTRATIONS) as usize);
        let losses = std::mem::take(&mut *recorder.losses.lock().unwrap());
        let rng = Rng::new(effort.seed);
        for _ in 0..effort.kills * 2 {
            let (disk, count) = &losses[rng.below(losses.len())];
            let seed = rng.number();
            let image = place.after_power_loss(disk.as_ref(), seed).await.unwrap();
            image.disk();
            let (_, left) =
                open(image.as_ref(), options(materialize, &workload.clock, 99)).await.unwrap();
            left.verify().await.unwrap();
            check(&left, &acknowledged[..*count]).await;
            left.close().await.unwrap();
        }
    }
    Verdict::Passed
}

async fn call(store: Arc<dyn Store>, recorder: Arc<Recorder>, owner: UserId, caller: u32) {
    for number in 0..REGISTRATIONS {
        let key = one_time_key(&store, owner).await;
        let node = register(&store, caller * 1000 + number, with(&key)).await;
        recorder.acknowledged.lock().unwrap().push(node.id);
    }
}

async fn check(store: &Opened, acknowledged: &[NodeId]) {
    let view = store.view();
    let lost: Vec<_> = acknowledged.iter().filter(|id| view.nodes().get(**id).is_none()).collect();
    assert!(lost.is_empty(), "acknowledged registrations are lost: {lost:?}");
    let trail = whole_trail(store).await;
    let registered = trail.iter().filter(|entry| entry.action.as_str() == "node.register");
    let registered: BTreeSet<_> = registered.map(|entry| entry.subject.to_string()).collect();
    let nodes: BTreeSet<_> = view.nodes().iter().map(|node| node.id.to_string()).collect();
    assert_eq!(registered, nodes);
    let addresses: BTreeSet<_> = view.nodes().iter().map(|node| node.ipv4.unwrap()).collect();
    assert_eq!(addresses.len(), nodes.len());
    let keys: BTreeSet<_> =
        view.preauth_keys().iter().filter(|key| key.used_at.is_some()).map(|key| key.id).collect();
    let used: BTreeSet<_> = view.nodes().iter().map(|node| node.preauth_key.unwrap()).collect();
    assert_eq!(keys, used);
}
