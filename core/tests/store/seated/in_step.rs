//! Both databases have what is answered, and one goes on when the other one is lost.

use ghostwire_store_core::domain::{MetricPoint, Sample, SideId, Timestamp};
use ghostwire_store_core::migration::{Witness, find_served};

use super::*;

fn options() -> MoveOptions {
    MoveOptions { synchronous: true, ..patient() }
}

async fn in_step(migration: &Migration) -> Status {
    until(migration, |status| status.in_step).await
}

impl Moved {
    async fn in_step(&self) -> Arc<Migration> {
        let migration = self.begin(options()).await;
        in_step(&migration).await;
        migration
    }

    async fn record(&self, second: i64) -> Result<()> {
        let at = Timestamp::from_millis(1_700_000_000_000 + second * 1_000).unwrap();
        let (metric, value) = ("load".parse().unwrap(), Sample::new(1.0).unwrap());
        self.store.metrics().record(MetricPoint { node: None, metric, at, value }).await
    }

    async fn are_level(&self) -> bool {
        let (source, target) = (self.source.inner.head().await, self.target.inner.head().await);
        let place = |head: Result<Head>| {
            let head = head.unwrap();
            (head.position, head.commit, head.serial, head.hash)
        };
        place(source) == place(target)
    }

    fn lose(&self, side: &Failing, is_lost: bool) {
        side.fail(|it| &it.commits, is_lost);
        side.fail(|it| &it.reopens, is_lost);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_answered_is_on_both() {
    let moved = Moved::new().await;
    let migration = moved.in_step().await;
    assert_eq!(moved.source.role().await, Role::ActiveSync);
    assert_eq!(moved.target.role().await, Role::PassiveSync);
    for number in 0..20 {
        moved.add(&format!("user-{number}")).await;
        assert!(moved.are_level().await);
        moved.record(number).await.unwrap();
        assert!(moved.are_level().await);
    }
    // Handed over, and in step again from the other side.
    migration.advance("somebody").await.unwrap();
    in_step(&migration).await;
    assert_eq!(moved.target.role().await, Role::ActiveSync);
    moved.add("after").await;
    assert!(moved.are_level().await);
    moved.store.verify().await.unwrap();
    migration.finish("somebody").await.unwrap();
    moved.add("alone").await;
    assert_eq!(moved.source.role().await, Role::Retired);
}

/// Databases that block their thread would take the sum of their times, and this would not end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_sides_store_at_the_same_time() {
    let moved = Moved::new().await;
    let _migration = moved.in_step().await;
    let meets = Arc::new(Barrier::new(2));
    for side in [&moved.source, &moved.target] {
        *side.wrongs.meets.lock().unwrap() = Some(meets.clone());
    }
    moved.add("second").await;
    assert!(moved.are_level().await);
    for side in [&moved.source, &moved.target] {
        *side.wrongs.meets.lock().unwrap() = None;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_side_lacks_is_rolled_forward() {
    let moved = Moved::new().await;
    let migration = moved.in_step().await;
    for (number, side) in [&moved.source, &moved.target].into_iter().enumerate() {
        // Not stored, and stored without anybody's knowing.
        side.fail(|it| &it.is_stuck, true);
        moved.add(&format!("stuck-{number}")).await;
        assert!(moved.are_level().await);
        side.fail(|it| &it.loses_answers, true);
        moved.add(&format!("lost-{number}")).await;
        assert!(moved.are_level().await);
        side.fail(|it| &it.loses_answers, true);
        moved.record(number as i64).await.unwrap();
        assert!(moved.are_level().await);
    }
    let status = in_step(&migration).await;
    assert_eq!(status.fallbacks, 0);
    moved.store.verify().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_no_reason_to_go_on_alone() {
    let moved = Moved::new().await;
    let mirror_timeout = Duration::from_millis(250);
    let migration = moved.begin(MoveOptions { mirror_timeout, ..options() }).await;
    in_step(&migration).await;
    moved.target.fail(|it| &it.is_full, true);
    let error = moved.try_to_add("second").await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::OutcomeUnknown, "{error}");
    // Before the follower has answered what timed out, it is asked nothing.
    const MOST: usize = 1_000;
    let mut kind = ErrorKind::OutcomeUnknown;
    for _ in 0..MOST {
        kind = moved.try_to_add("third").await.unwrap_err().kind().clone();
        if !matches!(kind, ErrorKind::OutcomeUnknown | ErrorKind::Unavailable) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(kind, ErrorKind::Exhausted);
    // Nobody is shown what only one side has.
    assert_eq!(moved.store.view().users().len(), 1);
    let status = migration.status().await.unwrap();
    assert_eq!((status.fallbacks, status.in_step), (0, false));
    moved.target.fail(|it| &it.is_full, false);
    in_step(&migration).await;
    moved.add("third").await;
    let view = moved.store.view();
    let names: Vec<_> = view.users().iter().map(|user| user.name.to_string()).collect();
    assert_eq!(names.len(), 3, "{names:?}");
    assert!(moved.are_level().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_went_on_without_the_source_leaves_it_for_good() {
    let moved = Moved::new().await;
    let migration = moved.in_step().await;
    migration.advance("somebody").await.unwrap();
    in_step(&migration).await;
    moved.lose(&moved.source, true);
    moved.add("without").await;
    assert_eq!(moved.target.role().await, Role::ActiveAlone);
    migration.finish("somebody").await.unwrap();
    assert!(moved.target.inner.head().await.unwrap().membership.is_none());
    moved.add("after").await;
    moved.store.verify().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_is_lost_is_gone_on_without() {
    let moved = Moved::new().await;
    let migration = moved.in_step().await;
    moved.lose(&moved.target, true);
    moved.add("without").await;
    assert_eq!(moved.source.role().await, Role::ActiveAlone);
    let status = migration.status().await.unwrap();
    assert_eq!((status.fallbacks, status.in_step), (1, false));
    assert!(status.last_fallback.unwrap().contains("followed"));
    moved.record(1).await.unwrap();
    // It is superseded, and nobody can make room for a copy here.
    moved.lose(&moved.target, false);
    let superseded = |status: &Status| {
        status.last_error.as_ref().is_some_and(|error| error.contains("superseded"))
    };
    until(&migration, superseded).await;
    moved.add("still").await;
    moved.store.verify().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_follower_goes_on_where_the_served_side_is_lost_and_that_is_filled_anew() {
    let (moved, fresh) = Moved::renewable().await;
    let migration = moved.in_step().await;
    moved.add("second").await;
    moved.lose(&moved.source, true);
    // Both had to have it; the one that is left does.
    moved.add("third").await;
    assert_eq!(moved.target.role().await, Role::ActiveAlone);
    assert_eq!(moved.store.view().users().len(), 3);
    moved.add("fourth").await;
    moved.record(1).await.unwrap();
    let digests = moved.store.digests().await.unwrap();
    let status = migration.status().await.unwrap();
    assert_eq!((status.served.as_str(), status.fallbacks), ("target", 1));
    moved.lose(&moved.source, false);
    let status = in_step(&migration).await;
    assert_eq!(status.stage, Stage::TargetReads);
    assert_eq!(moved.store.digests().await.unwrap(), digests);
    let copy = fresh.made().unwrap();
    assert_eq!(copy.role().await, Role::PassiveSync);
    // It is a copy like any other: the network goes back to it.
    migration.back("somebody").await.unwrap();
    in_step(&migration).await;
    assert_eq!(copy.role().await, Role::ActiveSync);
    assert_eq!(moved.store.digests().await.unwrap(), digests);
    moved.store.verify().await.unwrap();
}

#[derive(Debug, Default)]
struct Register(Mutex<Option<SideId>>);

#[async_trait]
impl Witness for Register {
    async fn grant(&self, _: StoreId, _: Epoch, side: SideId) -> Result<bool> {
        Ok(*self.0.lock().unwrap().get_or_insert(side) == side)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_there_is_a_witness_it_says_who_goes_on() {
    for grants in [true, false] {
        let (source, witness) = (Failing::new(1), Arc::new(Register::default()));
        let occupant = Occupant::new(Arc::new(source.clone()));
        let options = SeatOptions { witness: Some(witness.clone()), ..SeatOptions::default() };
        let moved = Moved::on(Seat::with_options(occupant, options), source).await;
        let migration = moved.in_step().await;
        let target = moved.target.inner.head().await.unwrap().side;
        *witness.0.lock().unwrap() = (!grants).then_some(target);
        moved.lose(&moved.target, true);
        let added = moved.try_to_add("without").await;
        assert_eq!(added.is_ok(), grants, "{added:?}");
        let status = migration.status().await.unwrap();
        assert_eq!(status.fallbacks, u64::from(grants));
        let role = if grants { Role::ActiveAlone } else { Role::ActiveSync };
        assert_eq!(moved.source.role().await, role);
    }
}

/// Only the follower has the last commit, and nobody is left who sent it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_opens_both_gives_each_what_only_the_other_one_has() {
    for is_series in [true, false] {
        let moved = Moved::new().await;
        let mirror_timeout = Duration::from_millis(250);
        let migration = moved.begin(MoveOptions { mirror_timeout, ..options() }).await;
        in_step(&migration).await;
        moved.source.fail(|it| &it.is_full, true);
        let stored = match is_series {
            true => moved.record(1).await,
            false => moved.try_to_add("second").await,
        };
        assert_eq!(*stored.unwrap_err().kind(), ErrorKind::OutcomeUnknown);
        assert!(!moved.are_level().await);
        let sides: [Arc<dyn Backend>; 2] =
            [Arc::new(moved.source.inner.clone()), Arc::new(moved.target.inner.clone())];
        let found = find_served(sides[0].clone(), sides[1].clone(), options()).await.unwrap();
        assert!(found.is_followed);
        assert!(moved.are_level().await, "{is_series}");
    }
}
