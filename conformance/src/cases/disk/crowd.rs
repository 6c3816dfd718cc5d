//! Power that is lost while several callers write: their commands share commits.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use ghostwire_store_core::Store;
use ghostwire_store_core::domain::*;
use ghostwire_store_core::options::Materialize;

use super::life::{Life, open, options, registration};
use crate::case::Verdict;
use crate::dice::Dice;
use crate::disk::{Disk, Frozen};
use crate::factory::Factory;
use crate::suite::Effort;

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
        let life = Life::new(effort.seed);
        let made = options(materialize, &life.clock, effort.seed);
        let (_, store) = open(place.as_ref(), made).await.unwrap();
        let owner = NewUser::local("owner".parse().unwrap());
        let owner = store.users().create(owner).await.unwrap().id;
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
        let dice = Dice::new(effort.seed);
        for _ in 0..effort.kills * 2 {
            let (disk, count) = &losses[dice.below(losses.len())];
            let seed = dice.number();
            let image = place.after_power_loss(disk.as_ref(), seed).await.unwrap();
            image.disk();
            let (_, left) =
                open(image.as_ref(), options(materialize, &life.clock, 99)).await.unwrap();
            left.verify().await.unwrap();
            check(left.as_ref(), &acknowledged[..*count]).await;
            left.close().await.unwrap();
        }
    }
    Verdict::Passed
}

async fn call(store: Arc<dyn Store>, recorder: Arc<Recorder>, owner: UserId, caller: u32) {
    for number in 0..REGISTRATIONS {
        let new = NewPreAuthKey { user: Some(owner), ..NewPreAuthKey::default() };
        let (key, _) = store.preauth_keys().create(new).await.unwrap();
        let wanted = registration(caller * 1000 + number, Admission::PreAuthKey(key.id));
        let node = store.nodes().register(wanted).await.unwrap();
        recorder.acknowledged.lock().unwrap().push(node.id);
    }
}

async fn check(store: &dyn Store, acknowledged: &[NodeId]) {
    let view = store.view();
    let lost: Vec<_> = acknowledged.iter().filter(|id| view.nodes().get(**id).is_none()).collect();
    assert!(lost.is_empty(), "acknowledged registrations are lost: {lost:?}");
    let page = PageRequest::first(Limit::new(1000).unwrap());
    let trail = store.audit().query(&AuditQuery::default(), &page).await.unwrap();
    assert_eq!(trail.next, None);
    let registered = trail.items.iter().filter(|entry| entry.action.as_str() == "node.register");
    let registered: BTreeSet<_> =
        registered.map(|entry| entry.subject.as_str().to_owned()).collect();
    let nodes: BTreeSet<_> = view.nodes().iter().map(|node| node.id.to_string()).collect();
    assert_eq!(registered, nodes);
    let addresses: BTreeSet<_> = view.nodes().iter().map(|node| node.ipv4.unwrap()).collect();
    assert_eq!(addresses.len(), nodes.len());
    let keys: BTreeSet<_> =
        view.preauth_keys().iter().filter(|key| key.used_at.is_some()).map(|key| key.id).collect();
    let used: BTreeSet<_> = view.nodes().iter().map(|node| node.preauth_key.unwrap()).collect();
    assert_eq!(keys, used);
}
