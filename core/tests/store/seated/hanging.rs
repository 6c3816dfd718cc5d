//! A side that hangs: what it was asked may still arrive.

use super::*;

fn brief() -> MoveOptions {
    MoveOptions { max_stall: Duration::from_millis(100), ..MoveOptions::default() }
}

#[tokio::test]
async fn a_target_that_hangs_before_the_fence_holds_nobody() {
    let moved = Moved::new().await;
    let migration = moved.begin(brief()).await;
    mirrored(&migration).await;
    moved.target.hang(Call::Probe);
    // Or the machine is too slow for it to come so far.
    let error = migration.advance("somebody").await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Busy, "{error}");
    assert!(!moved.source.was(Role::Fenced));
    moved.add("after").await;
    moved.target.go_on();
    // What hung does not go on by itself.
    mirrored(&migration).await;
    moved.add("later").await;
    assert_eq!(moved.source.role().await, Role::ActiveAsync);
}

#[tokio::test]
async fn a_source_that_hangs_when_it_is_to_be_left_holds_nobody() {
    let moved = Moved::new().await;
    let migration = moved.begin(patient()).await;
    mirrored(&migration).await;
    migration.advance("somebody").await.unwrap();
    moved.source.hang(Call::Probe);
    let finished = async {
        migration.finish("somebody").await.unwrap();
        moved.source.role().await
    };
    let meanwhile = async {
        for number in 0..20 {
            moved.add(&format!("meanwhile-{number}")).await;
        }
        assert_eq!(moved.target.role().await, Role::ActiveAsync);
        moved.source.go_on();
    };
    let (left, ()) = tokio::join!(finished, meanwhile);
    assert_eq!(left, Role::Retired);
}

#[tokio::test]
async fn a_target_that_hangs_after_the_fence_holds_nobody() {
    let moved = Moved::new().await;
    let second = MoveOptions { max_stall: Duration::from_secs(1), ..MoveOptions::default() };
    let migration = moved.begin(second).await;
    mirrored(&migration).await;
    moved.target.hang(Call::Activate);
    let error = migration.advance("somebody").await.unwrap_err();
    if !moved.source.was(Role::Fenced) {
        // The machine was too slow for it to come so far.
        assert_eq!(*error.kind(), ErrorKind::Busy, "{error}");
        return;
    }
    assert_eq!(*error.kind(), ErrorKind::Unavailable, "{error}");
    let error = moved.try_to_add("between").await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Unavailable, "{error}");
    moved.target.go_on();
    until(&migration, |status| status.stage == Stage::TargetReads && status.lag == Some(0)).await;
    // Served and settled are told one after the other.
    const MOST: usize = 3_000;
    for _ in 0..MOST {
        if moved.try_to_add("after").await.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    moved.add("later").await;
    assert_eq!(moved.target.role().await, Role::ActiveAsync);
    moved.store.verify().await.unwrap();
}

pub(super) const ANSWERS_WITHIN: Duration = Duration::from_millis(250);

impl Moved {
    /// Where nobody waits for long.
    async fn impatient() -> Self {
        let source = Failing::new(1);
        let options = SeatOptions { answers_within: ANSWERS_WITHIN, ..SeatOptions::default() };
        let seat = Seat::with_options(Occupant::new(Arc::new(source.clone())), options);
        Self::on(seat, source).await
    }
}

#[tokio::test]
async fn a_target_that_hangs_holds_no_order_no_status_and_no_closing() {
    let moved = Moved::impatient().await;
    let migration = moved.begin(patient()).await;
    mirrored(&migration).await;
    moved.target.hang(Call::Content);
    moved.add("after").await;
    let status = until(&migration, |status| status.last_error.is_some()).await;
    assert_eq!(status.stage, Stage::Mirror);
    for _ in 0..2 {
        let error = migration.advance("somebody").await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Busy, "{error}");
        assert!(
            error.to_string().contains("does not answer")
                || error.to_string().contains("not answered")
        );
    }
    moved.add("later").await;
    assert_eq!(moved.source.role().await, Role::ActiveAsync);
    moved.store.close().await.unwrap();
    // What was begun ends, and it is closed then.
    moved.target.go_on();
    const MOST: usize = 3_000;
    for _ in 0..MOST {
        if moved.target.wrongs.is_closed.load(Ordering::SeqCst) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("it is not closed");
}

#[tokio::test]
async fn a_target_that_takes_longer_to_be_opened_than_anybody_waits_is_opened() {
    let moved = Moved::impatient().await;
    let migration = moved.begin(patient()).await;
    mirrored(&migration).await;
    moved.target.fail(|it| &it.reopens_slowly, true);
    moved.target.fail(|it| &it.is_stuck, true);
    moved.add("after").await;
    until(&migration, |status| status.last_error.is_some()).await;
    mirrored(&migration).await;
    moved.target.fail(|it| &it.reopens_slowly, false);
    migration.advance("somebody").await.unwrap();
}

#[tokio::test]
async fn a_source_that_hangs_is_not_taken_for_one_that_is_gone() {
    let moved = Moved::impatient().await;
    let migration = moved.begin(patient()).await;
    mirrored(&migration).await;
    migration.advance("somebody").await.unwrap();
    let follows = |status: &Status| status.stage == Stage::TargetReads && status.lag == Some(0);
    until(&migration, follows).await;
    moved.source.hang(Call::Content);
    moved.add("there").await;
    until(&migration, |status| status.last_error.is_some()).await;
    let error = migration.finish("somebody").await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Busy, "{error}");
    moved.source.go_on();
    until(&migration, |status| follows(status) && status.last_error.is_none()).await;
    migration.finish("somebody").await.unwrap();
    assert_eq!(moved.source.role().await, Role::Retired);
}

/// It hangs while it is told to follow later, and is dead then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_is_lost_while_nothing_is_settled_is_gone_on_without() {
    let moved = Moved::new().await;
    let options = MoveOptions { synchronous: true, ..brief() };
    let migration = moved.begin(options).await;
    until(&migration, |status| status.in_step).await;
    moved.target.hang(Call::Loosen);
    let error = migration.advance("somebody").await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Unavailable, "{error}");
    assert_eq!(*moved.try_to_add("not now").await.unwrap_err().kind(), ErrorKind::Unavailable);
    moved.target.fail(|it| &it.commits, true);
    moved.target.fail(|it| &it.reopens, true);
    moved.target.go_on();
    until(&migration, |status| status.fallbacks == 1).await;
    moved.add("alone").await;
    assert_eq!(moved.source.role().await, Role::ActiveAlone);
}

#[tokio::test]
async fn a_target_that_hung_is_sent_what_it_lacks_and_handed_over_to() {
    let moved = Moved::impatient().await;
    let migration = moved.begin(patient()).await;
    mirrored(&migration).await;
    moved.target.hang(Call::Content);
    for number in 0..20 {
        moved.add(&format!("meanwhile-{number}")).await;
    }
    until(&migration, |status| status.last_error.is_some()).await;
    moved.target.go_on();
    mirrored(&migration).await;
    migration.advance("somebody").await.unwrap();
    moved.add("there").await;
    moved.store.verify().await.unwrap();
}

#[tokio::test]
async fn a_migration_is_aborted_while_its_target_hangs() {
    let moved = Moved::impatient().await;
    let migration = moved.begin(patient()).await;
    mirrored(&migration).await;
    moved.target.hang(Call::Content);
    moved.add("after").await;
    until(&migration, |status| status.last_error.is_some()).await;
    migration.abort("somebody").await.unwrap();
    assert_eq!(moved.source.role().await, Role::ActiveAlone);
    moved.add("alone").await;
    moved.target.go_on();
}

#[tokio::test]
async fn a_follower_in_step_that_hangs_is_not_gone_on_without() {
    let moved = Moved::impatient().await;
    let mirror_timeout = ANSWERS_WITHIN;
    let options = MoveOptions { synchronous: true, mirror_timeout, ..patient() };
    let migration = moved.begin(options).await;
    until(&migration, |status| status.in_step).await;
    moved.target.hang(Call::Content);
    let error = moved.try_to_add("between").await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::OutcomeUnknown, "{error}");
    for _ in 0..4 {
        let error = moved.try_to_add("not now").await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Unavailable, "{error}");
    }
    assert_eq!(migration.status().await.unwrap().fallbacks, 0);
    moved.target.go_on();
    let status = until(&migration, |status| status.in_step && status.lag == Some(0)).await;
    assert_eq!(status.fallbacks, 0);
    let names: Vec<_> =
        moved.store.view().users().iter().map(|user| user.name.to_string()).collect();
    assert!(names.contains(&"between".to_owned()), "{names:?}");
}
