//! How much one commit holds.

use crate::prelude::*;

cases! {
    once {
        "block-size" => [
            a_large_transaction_is_one_commit,
            what_is_too_large_for_one_commit_is_exhausted,
        ],
    }
    once_unopened {
        "block-size" => [
            a_group_that_grows_too_large_is_continued_in_the_next_commit,
            what_is_too_large_by_itself_disturbs_nobody_in_its_group,
        ],
    }
}
async fn a_group_that_grows_too_large_is_continued_in_the_next_commit(env: &mut TestEnv) {
    // Four texts of 4 MiB and the rows around them are more than 16 MiB.
    const POLICIES: u64 = 12;
    let store = env.open().await;
    let hold = env.faults().hold_commits();
    let first = spawn_create(&store, "first");
    until_held(env).await;
    let document = large_text();
    let mut calls =
        Box::pin(join_all((0..POLICIES).map(|version| {
            store.policies().swap(PolicyVersion::new(version).ok(), document.clone())
        })));
    assert!((&mut calls).now_or_never().is_none());
    drop(hold);
    first.await.unwrap().unwrap();
    for (n, outcome) in calls.await.into_iter().enumerate() {
        assert_eq!(outcome.unwrap().version.get(), n as u64 + 1);
    }
    let commits = store.view().serial().get() as usize - 1;
    let told: Vec<_> = store.watch(Serial::new(1)).take(commits).collect().await;
    let sizes: Vec<_> = told.into_iter().map(|commit| commit.unwrap().changes.len()).collect();
    assert_eq!(sizes.iter().sum::<usize>() as u64, POLICIES);
    assert!(sizes.iter().all(|size| (1..=4).contains(size)), "{sizes:?}");
    let store = env.reopen(store).await;
    assert_eq!(store.view().policies().len() as u64, POLICIES);
    assert!(store.view().policies().iter().all(|policy| policy.document == document));
}

async fn a_large_transaction_is_one_commit(env: &mut TestEnv, store: Opened) {
    const POLICIES: u64 = 5;
    let committed = store.transact(large_transaction(POLICIES)).await.unwrap();
    assert_eq!(committed.serial, Serial::new(1));
    let changes = store.watch(Serial::ZERO).next().await.unwrap().unwrap().changes;
    assert_eq!(changes.len() as u64, POLICIES);
    assert!(changes.iter().all(|change| change.entity == EntityKind::Policy));
    assert!(changes.iter().all(|change| change.kind == ChangeKind::Created));
    let store = env.reopen(store).await;
    let large = large_text();
    for version in 1..=POLICIES {
        let version = PolicyVersion::new(version).unwrap();
        assert!(store.policies().get(version).await.unwrap().unwrap().document == large);
    }
}

async fn what_is_too_large_for_one_commit_is_exhausted(_: &mut TestEnv, store: Opened) {
    // 64 texts of 4 MiB and the rows around them are more than 256 MiB.
    const POLICIES: u64 = 64;
    create(&store, "alice").await;
    let before = store.digests().await.unwrap();
    let error = fails(store.transact(large_transaction(POLICIES)).await, Exhausted);
    assert!(!error.is_retryable());
    let document = large_text();
    let image = |version| {
        let version = PolicyVersion::new(version).unwrap();
        let author = ActorName::system();
        let created_at = at(0);
        EntityRecord::Policy(
            Policy { version, document: document.clone(), author, created_at }.into(),
        )
    };
    let images = (1..=POLICIES).map(image).collect();
    fails(store.restore(Restore { images, skip_invalid: true }).await, Exhausted);
    assert_eq!(store.digests().await.unwrap(), before);
    // Those that are too large fail alone, and the store goes on.
    store.policies().swap(None, DocumentText::empty()).await.unwrap();
}

async fn what_is_too_large_by_itself_disturbs_nobody_in_its_group(env: &mut TestEnv) {
    let mut options = env.options();
    options.writer.max_block_bytes = 64 * 1024;
    let store = env.open_with(options).await;
    let hold = env.faults().hold_commits();
    let first = spawn_create(&store, "first");
    until_held(env).await;
    let mut before =
        Box::pin(join_all(["a", "b", "a"].map(|name| store.users().create(local(name)))));
    assert!((&mut before).now_or_never().is_none());
    let mut large = store.policies().swap(None, large_text());
    assert!((&mut large).now_or_never().is_none());
    let mut behind = Box::pin(join_all(["b", "c"].map(|name| store.users().create(local(name)))));
    assert!((&mut behind).now_or_never().is_none());
    drop(hold);
    first.await.unwrap().unwrap();
    fails(large.await, Exhausted);
    let told = before.await.into_iter().chain(behind.await).map(|outcome| outcome.is_ok());
    assert_eq!(told.collect::<Vec<_>>(), [true, true, false, false, true]);
    let store = env.reopen(store).await;
    assert_eq!((store.view().users().len(), store.view().policies().len()), (4, 0));
}

fn large_text() -> DocumentText {
    DocumentText::new("x".repeat(DocumentText::MAX_BYTES)).unwrap()
}

fn large_transaction(policies: u64) -> Transaction {
    let document = large_text();
    (0..policies).fold(Transaction::new(), |whole, version| {
        let expected = PolicyVersion::new(version).ok();
        whole.then(PolicyCommand::Swap { expected, document: document.clone() }).unwrap()
    })
}
