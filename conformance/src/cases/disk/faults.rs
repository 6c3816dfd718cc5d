//! Disks that fail while a store is in use.

use std::time::Instant;

use super::workload::{Workload, open, options, sound};
use crate::disk::Fault;
use crate::prelude::*;

const NO_DISK: Verdict = Verdict::Skipped("the place has no disk that fails");

/// Those after which nothing can be written until the disk is healed, and those that pass.
const LASTING: [Fault; 4] = [
    Fault::WritesFail(usize::MAX),
    Fault::SyncsFail(usize::MAX),
    Fault::Full(0),
    Fault::Full(50_000),
];
const PASSING: [Fault; 10] = [
    Fault::WritesFail(1),
    Fault::WritesFail(2),
    Fault::WritesFail(3),
    Fault::WritesFail(7),
    Fault::SyncsFail(1),
    Fault::SyncsFail(2),
    Fault::SyncsFail(3),
    Fault::SyncsFail(4),
    Fault::TornWrite,
    Fault::SlowSyncs(Duration::from_millis(3)),
];
const MATERIALIZE: [Materialize; 2] = [Materialize::Commit, Materialize::Checkpoint];

/// What a disk that fails may give a caller.
pub(super) fn is_of_a_disk(error: &Error) -> bool {
    matches!(error.kind(), Exhausted | OutcomeUnknown | Unavailable)
}

/// One caller. After each fault that passes, power is lost at once: what was acknowledged must not
/// only be read back, but be synchronised.
pub(super) async fn what_is_acknowledged_after_a_fault_is_durable(
    factory: Arc<dyn Factory>,
    effort: Effort,
) -> Verdict {
    for materialize in MATERIALIZE {
        let place = factory.create().await.unwrap();
        let Some(disk) = place.disk() else { return NO_DISK };
        let mut workload = Workload::new(effort.seed);
        let made = options(materialize, &workload.clock, effort.seed);
        let (_, store) = open(place.as_ref(), made).await.unwrap();
        let rng = Rng::new(effort.seed);
        for round in 0..effort.kills as usize {
            for _ in 0..3 {
                workload.step(&store).await.unwrap();
            }
            let fault = PASSING[rng.below(PASSING.len())];
            let when = format!("{materialize:?}, seed {}, round {round}, {fault:?}", effort.seed);
            let met = disk.met();
            disk.fail(fault);
            let user = local(&format!("fault-{round}"));
            let outcome = store.users().create(user.clone()).await;
            assert!(disk.met() > met, "nothing met the fault: {when}");
            let frozen = disk.freeze();
            let shown = store.digests().await.unwrap();
            let is_shown = store.users().get_by_name(&user.name).await.unwrap().is_some();
            match &outcome {
                Ok(_) => assert!(is_shown, "{when}"),
                Err(error) => {
                    assert!(is_of_a_disk(error), "{when}: {error:?}");
                    assert!(!is_shown, "{when}: {error:?}, and yet it is there");
                }
            }
            for _ in 0..2 {
                let seed = rng.number();
                let image = place.after_power_loss(frozen.as_ref(), seed).await.unwrap();
                image.disk();
                let again = options(materialize, &workload.clock, 99);
                let (_, left) = open(image.as_ref(), again).await.unwrap();
                let found = sound(&left).await.unwrap();
                let name = left.users().get_by_name(&user.name).await.unwrap();
                match &outcome {
                    Ok(_) => assert!(name.is_some(), "acknowledged, and lost: {when}, {seed}"),
                    // Refused for certain: it must not come back.
                    Err(error) if *error.kind() != OutcomeUnknown => {
                        assert!(name.is_none(), "refused, and there: {when}, {seed}: {error:?}");
                    }
                    Err(_) => {}
                }
                if name.is_some() == is_shown {
                    assert_eq!(found, shown, "{when}, {seed}");
                }
                left.close().await.unwrap();
            }
            disk.heal();
        }
        store.verify().await.unwrap();
        store.close().await.unwrap();
    }
    Verdict::Passed
}

/// With a write behind each probe: neither is acknowledged by a disk that would not keep it.
pub(super) async fn a_probe_fails_on_a_disk_that_does(
    factory: Arc<dyn Factory>,
    effort: Effort,
) -> Verdict {
    let faults = [
        Fault::WritesFail(usize::MAX),
        Fault::SyncsFail(usize::MAX),
        Fault::Full(0),
        Fault::WritesFail(1),
        Fault::SyncsFail(1),
        Fault::TornWrite,
    ];
    for materialize in MATERIALIZE {
        let place = factory.create().await.unwrap();
        let Some(disk) = place.disk() else { return NO_DISK };
        let mut workload = Workload::new(effort.seed);
        let made = options(materialize, &workload.clock, effort.seed);
        let (_, store) = open(place.as_ref(), made).await.unwrap();
        for fault in faults {
            let when = format!("{materialize:?}, {fault:?}");
            workload.step(&store).await.unwrap();
            store.probe().await.unwrap();
            let (before, met) = (store.digests().await.unwrap(), disk.met());
            disk.fail(fault);
            let error = store.probe().await.err();
            let error = error.unwrap_or_else(|| panic!("the probe succeeds: {when}"));
            assert!(is_of_a_disk(&error), "{when}: {error:?}");
            assert!(disk.met() > met, "nothing met the fault: {when}");
            disk.heal();
            store.probe().await.unwrap_or_else(|error| panic!("healed: {when}: {error}"));
            assert_eq!(store.digests().await.unwrap(), before, "{when}");
            workload.step(&store).await.unwrap();
        }
        store.verify().await.unwrap();
        store.close().await.unwrap();
    }
    Verdict::Passed
}

/// What concurrent callers were told.
#[derive(Default)]
struct Told {
    nodes: Mutex<BTreeSet<NodeId>>,
    /// Numbers of machines that were refused for certain.
    refused: Mutex<BTreeSet<u32>>,
    errors: AtomicUsize,
    points: AtomicUsize,
    reads: AtomicUsize,
    stop: AtomicBool,
    /// What a caller or reader found wrong.
    trouble: Mutex<Option<String>>,
}

impl Told {
    fn wrong(&self, what: String) {
        self.trouble.lock().unwrap().get_or_insert(what);
    }
}

const CALLERS: u32 = 4;

pub(super) async fn reads_go_on_and_writes_do_once_the_disk_is_healed(
    factory: Arc<dyn Factory>,
    effort: Effort,
) -> Verdict {
    for materialize in MATERIALIZE {
        for fault in LASTING.into_iter().chain(PASSING) {
            let place = factory.create().await.unwrap();
            if place.disk().is_none() {
                return NO_DISK;
            }
            let when = format!("{materialize:?}, {fault:?}");
            endure(place.as_ref(), materialize, fault, effort.seed, &when).await;
        }
    }
    Verdict::Passed
}

async fn endure(place: &dyn Place, materialize: Materialize, fault: Fault, seed: u64, when: &str) {
    let disk = place.disk().unwrap();
    let mut workload = Workload::new(seed);
    let made = options(materialize, &workload.clock, seed);
    let (_, store) = open(place, made).await.unwrap();
    for _ in 0..12 {
        workload.step(&store).await.unwrap();
    }
    let owner = user(&store, "owner").await;
    let told = Arc::new(Told::default());
    let mut tasks = Vec::new();
    for caller in 0..CALLERS {
        tasks.push(tokio::spawn(call(store.clone(), told.clone(), owner, caller)));
    }
    tasks.push(tokio::spawn(read(store.clone(), told.clone(), when.to_owned())));

    let acknowledged = || told.nodes.lock().unwrap().len();
    until(&told, when, "writes begin", || acknowledged() > 10).await;
    let recoveries = store.info().recoveries;
    let (errors, reads) = (told.errors.load(Ordering::Acquire), told.reads.load(Ordering::Acquire));
    let before = acknowledged();
    let met = disk.met();
    disk.fail(fault);
    if LASTING.contains(&fault) {
        until(&told, when, "writes fail", || told.errors.load(Ordering::Acquire) > errors + 20)
            .await;
    } else if matches!(fault, Fault::SlowSyncs(_)) {
        until(&told, when, "writes go on", || acknowledged() > before + 10).await;
    } else {
        until(&told, when, "the fault is met", || store.info().recoveries > recoveries).await;
    }
    until(&told, when, "reads go on", || told.reads.load(Ordering::Acquire) > reads + 10).await;
    assert!(disk.met() > met, "nothing met the fault: {when}");
    disk.heal();
    let before = acknowledged();
    until(&told, when, "writes go on", || acknowledged() > before + 10).await;
    told.stop.store(true, Ordering::Release);
    for task in tasks {
        task.await.unwrap();
    }

    let digests = sound(&store).await.unwrap();
    let frozen = disk.freeze();
    check(&store, &told, when).await;
    store.close().await.unwrap();
    let again = || options(materialize, &workload.clock, 99);
    let (_, store) = open(place, again()).await.unwrap();
    assert_eq!(sound(&store).await.unwrap(), digests, "after a reopen: {when}");
    check(&store, &told, when).await;
    store.close().await.unwrap();
    for seed in 0..3 {
        let image = place.after_power_loss(frozen.as_ref(), seed).await.unwrap();
        image.disk();
        let (_, left) = open(image.as_ref(), again()).await.unwrap();
        assert_eq!(sound(&left).await.unwrap(), digests, "after power was lost: {when}");
        left.close().await.unwrap();
    }
}

/// Writes until it is told to stop.
async fn call(store: Arc<dyn Store>, told: Arc<Told>, owner: UserId, caller: u32) {
    let mut number = (caller + 1) * 10_000_000;
    while !told.stop.load(Ordering::Acquire) {
        number += 1;
        let admission = by(owner);
        match store.nodes().register(machine(number, admission)).await {
            Ok(node) => {
                told.nodes.lock().unwrap().insert(node.id);
            }
            Err(error) => {
                failed(&told, &error);
                if *error.kind() != OutcomeUnknown {
                    told.refused.lock().unwrap().insert(number);
                }
            }
        }
        match store.metrics().record(call_point(number)).await {
            Ok(()) => {
                told.points.fetch_add(1, Ordering::AcqRel);
            }
            Err(error) => failed(&told, &error),
        }
        tokio::task::yield_now().await;
    }
}

fn failed(told: &Told, error: &Error) {
    if !is_of_a_disk(error) {
        told.wrong(format!("a disk that fails gave {error:?}"));
    }
    told.errors.fetch_add(1, Ordering::AcqRel);
}

fn call_point(number: u32) -> MetricPoint {
    let at = Timestamp::from_micros(1_000_000 + i64::from(number)).unwrap();
    point(None, "calls", at, 1.0)
}

fn call_points() -> MetricQuery {
    MetricQuery { metric: "calls".parse().ok(), ..all_points() }
}

/// Reads the state and both series until it is told to stop; everything has to work.
async fn read(store: Arc<dyn Store>, told: Arc<Told>, when: String) {
    let page = PageRequest::first(Limit::new(100).unwrap());
    while !told.stop.load(Ordering::Acquire) {
        let known = told.nodes.lock().unwrap().last().copied();
        // Before the series are asked, since what was acknowledged by now is there.
        let acknowledged = told.points.load(Ordering::Acquire);
        let reading = async {
            let there = match known {
                Some(id) => store.nodes().get(id).await?.is_some(),
                None => true,
            };
            let aggregate = store.metrics().aggregate(&call_points()).await?;
            let count = aggregate.map_or(0, |aggregate| aggregate.count as usize);
            store.audit().query(&AuditQuery::default(), &page).await?;
            Result::<bool>::Ok(there && count >= acknowledged)
        };
        match reading.await {
            Ok(true) => {}
            Ok(false) => told.wrong(format!("what was acknowledged is not read: {when}")),
            Err(error) => told.wrong(format!("a read failed: {when}: {error:?}")),
        }
        told.reads.fetch_add(1, Ordering::AcqRel);
        tokio::task::yield_now().await;
    }
}

/// Whether what callers were told is so.
async fn check(store: &Opened, told: &Told, when: &str) {
    let view = store.view();
    for id in told.nodes.lock().unwrap().iter() {
        assert!(view.nodes().get(*id).is_some(), "an acknowledged node is lost: {when}");
    }
    for number in told.refused.lock().unwrap().iter() {
        let admission = Admission::PreAuthKey(PreAuthKeyId::from_bytes([1; 16]));
        let key = machine(*number, admission).machine_key;
        assert!(view.nodes().by_machine_key(&key).is_none(), "a refused node is there: {when}");
    }
    let aggregate = store.metrics().aggregate(&call_points()).await.unwrap().unwrap();
    assert!(aggregate.count as usize >= told.points.load(Ordering::Acquire), "{when}");
}

/// Waits for something that is bound to happen.
async fn until(told: &Told, when: &str, what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        if let Some(trouble) = told.trouble.lock().unwrap().take() {
            panic!("{trouble}");
        }
        assert!(began.elapsed() < Duration::from_secs(120), "never: {what}: {when}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
