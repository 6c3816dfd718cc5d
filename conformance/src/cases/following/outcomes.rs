//! Commits without a block whose answer is lost.

use crate::cases::shared::{NOT_SHARED, two};
use crate::prelude::*;

cases! {
    stored_unopened {
        "series-outcome" => [
            a_commit_whose_answer_was_lost_is_stored_once,
            another_process_may_commit_before_it_is_asked,
        ],
    }
    once_unopened {
        "lost-answer" => [what_arrives_before_another_takes_over_is_stored],
    }
    once {
        "series-outcome" => [it_is_open_only_while_the_backend_cannot_be_asked],
    }
}

/// Everything that is stored without a block.
const CALLS: usize = 7;

async fn call(store: &Opened, number: usize, round: u8) -> Result<()> {
    let load = point(None, "load", at(round.into()), round);
    let name = consumer(&format!("consumer-{round}"));
    match number {
        0 => store.metrics().record_many(vec![load]).await,
        1 => {
            let writer = WriterId::from_bytes([4; 16]);
            store.metrics().record_batch(writer, round.into(), vec![load]).await
        }
        2 => store.audit().append(vec![entry(round, at(round.into()))]).await,
        3 => store.consumers().register(name, 1_000_000).await.map(drop),
        4 => store.consumers().remove(&name).await,
        5 => store.metrics().prune(at(99)).await,
        _ => store.audit().prune(at(99)).await,
    }
}

async fn a_commit_whose_answer_was_lost_is_stored_once(env: &mut TestEnv) {
    let store = env.open().await;
    let mut recoveries = 0;
    for (round, fault) in (1..).zip([FaultKind::After, FaultKind::Lost].repeat(2)) {
        if round == 3 {
            follow(&store, "mirror").await;
        }
        for number in 0..CALLS {
            let before = store.view().position();
            env.faults().fail_next_commits(1, fault);
            call(&store, number, round).await.unwrap();
            recoveries += 1;
            assert_eq!(store.info().recoveries, recoveries);
            assert_eq!(store.view().position(), before.next(), "call {number}, {fault:?}");
            if round >= 3 {
                let entries = store.consumers().read(before, 9).await.unwrap();
                assert_eq!(entries.len(), 1);
            }
            let points = range(&store, &all_points(), 1000).await.len();
            let found = (points, audit_lines(&store).await);
            let wanted = (usize::from(number < 5), usize::from((2..6).contains(&number)));
            assert_eq!(found, wanted, "call {number}, {fault:?}");
        }
    }
    let position = store.view().position();
    let store = env.reload(store).await;
    assert_eq!(store.view().position(), position);
    // The sequence is known, though nobody was told at first.
    call(&store, 1, 4).await.unwrap();
    assert!(range(&store, &all_points(), 1000).await.is_empty());
    call(&store, 1, 5).await.unwrap();
    assert_eq!(range(&store, &all_points(), 1000).await.len(), 1);
}

async fn another_process_may_commit_before_it_is_asked(env: &mut TestEnv) -> Verdict {
    let Some((rival, other)) = two(env, |_| ()).await else { return NOT_SHARED };
    other.close().await.unwrap();
    let layer = LosesAnswers {
        inner: env.open_backend().await,
        rival: rival.clone(),
        next: Mutex::default(),
        number: AtomicUsize::new(0),
    };
    let layer = Arc::new(layer);
    let store = ghostwire_store_core::open(layer.clone(), env.options()).await.unwrap();
    let mut points = Vec::new();
    for (round, followed) in (1..).zip([false, true]) {
        if followed {
            follow(&rival, "mirror").await;
        }
        for fault in [FaultKind::After, FaultKind::Lost] {
            // With a block: that tells.
            let before = store.fresh_view().await.unwrap().position();
            layer.lose(fault);
            create(&store, &format!("user-{round}-{fault:?}")).await;
            let after = store.fresh_view().await.unwrap();
            assert_eq!(after.position().get(), before.get() + 2, "{fault:?}");
            // Without one: only the feed tells once others have gone on.
            let load = point(None, "load", at(points.len() as i64), round);
            layer.lose(fault);
            let outcome = store.metrics().record_many(vec![load.clone()]).await;
            match fault {
                FaultKind::After if !followed => drop(fails(outcome, OutcomeUnknown)),
                _ => outcome.unwrap(),
            }
            points.push(load);
            let later = store.fresh_view().await.unwrap();
            assert_eq!(later.position().get(), after.position().get() + 2, "{fault:?}");
        }
    }
    rival.close().await.unwrap();
    let store = env.reload(store).await;
    assert_eq!(range(&store, &all_points(), 1000).await, points);
    assert_eq!(store.view().users().len(), 4 + 8);
    Verdict::Passed
}

async fn it_is_open_only_while_the_backend_cannot_be_asked(env: &mut TestEnv, store: Opened) {
    for (fault, number) in [(FaultKind::After, 1), (FaultKind::Lost, 2)] {
        let before = store.view().position();
        env.faults().fail_next_commits(1, fault);
        env.faults().fail_next_reopens(usize::MAX);
        let load = point(None, "load", at(number), 1.0);
        fails(store.metrics().record_many(vec![load]).await, OutcomeUnknown);
        assert_eq!(store.view().position(), before);
        env.faults().clear();
        // The next write asks; then reading tells.
        create(&store, &format!("user-{number}")).await;
        let stored = u64::from(fault == FaultKind::After);
        assert_eq!(store.view().position().get(), before.get() + 1 + stored);
        assert_eq!(range(&store, &all_points(), 1000).await.len(), 1);
    }
}

/// A process whose next commit gets no answer, and is overtaken by another one before it asks.
#[derive(Debug)]
struct LosesAnswers {
    inner: Arc<dyn Backend>,
    rival: Arc<dyn Store>,
    next: Mutex<Option<FaultKind>>,
    number: AtomicUsize,
}

impl LosesAnswers {
    fn lose(&self, fault: FaultKind) {
        *self.next.lock().unwrap() = Some(fault);
    }
}

#[async_trait]
impl Layer for LosesAnswers {
    fn inner(&self) -> &dyn Backend {
        self.inner.as_ref()
    }

    async fn commit(&self, commit: &Commit) -> Result<()> {
        let next = self.next.lock().unwrap().take();
        let Some(fault) = next else { return self.inner.commit(commit).await };
        if fault == FaultKind::After {
            self.inner.commit(commit).await?;
        }
        let number = self.number.fetch_add(1, Ordering::SeqCst);
        self.rival.users().create(local(&format!("rival-{number}"))).await?;
        Err(Error::new(OutcomeUnknown, "the answer got lost"))
    }
}

/// A process whose next commit arrives late: after it was given up, and before another process takes over
/// and the commit is sent again.
#[derive(Debug)]
struct ArrivesLate {
    inner: Arc<dyn Backend>,
    late: Mutex<Option<Commit>>,
    /// Whether it arrives at all.
    arrives: bool,
}

#[async_trait]
impl Layer for ArrivesLate {
    fn inner(&self) -> &dyn Backend {
        self.inner.as_ref()
    }

    async fn commit(&self, commit: &Commit) -> Result<()> {
        let late = self.late.lock().unwrap().replace(commit.clone());
        let Some(late) = late else { return Err(Error::new(OutcomeUnknown, "given up")) };
        if self.arrives {
            self.inner.commit(&late).await?;
        }
        let head = self.inner.head().await?;
        if head.epoch == commit.epoch {
            let change = HeadChange { epoch: Some(head.epoch.next()), ..HeadChange::default() };
            self.inner.commit(&Commit { head: change, ..Commit::on(&head) }).await?;
        }
        self.inner.commit(commit).await
    }

    /// It is opened again by the test.
    async fn close(&self) -> Result<()> {
        Ok(())
    }
}

async fn what_arrives_before_another_takes_over_is_stored(env: &mut TestEnv) -> Verdict {
    if env.place().is_of_two() {
        return Verdict::Skipped("whoever takes over by itself leaves the other side out");
    }
    let backend = env.open_backend().await;
    for (epoch, (arrives, name)) in (1..).zip([(true, "alice"), (false, "bob"), (true, "carol")]) {
        let (inner, late) = (backend.clone(), Mutex::default());
        let layer = Arc::new(ArrivesLate { inner, late, arrives });
        // Nothing but the user is written.
        let options = StoreOptions { hash_key: None, ..never_flushing(env) };
        let store = ghostwire_store_core::open(layer, options).await.unwrap();
        let created = store.users().create(local(name)).await;
        match arrives {
            true => assert_eq!(created.unwrap().name.as_str(), name),
            false => drop(fails(created, Fenced { epoch })),
        }
        fails(store.users().create(local("late")).await, Fenced { epoch });
        close(store).await;
    }
    let options = never_flushing(env);
    let store = ghostwire_store_core::open(backend, options).await.unwrap();
    assert_eq!(names(&store), ["alice", "carol"]);
    close(store).await;
    Verdict::Passed
}
