//! Consumers that are away, and what is kept for them meanwhile.

use crate::prelude::*;

cases! {
    stored {
        "consumer-away" => [a_consumer_moves_forward_and_not_beyond_the_end],
    }
    stored_unopened {
        "consumer-away" => [
            what_a_consumer_has_not_taken_is_kept,
            beyond_its_bytes_a_consumer_has_to_begin_anew,
            what_another_one_lost_is_no_part_of_its_bytes,
        ],
    }
    once {
        "consumer-away" => [
            a_store_has_64_consumers_at_most,
            blocks_that_nobody_needs_go_without_a_further_write,
        ],
    }
}

/// Options under which no block outlives its flush, unless somebody needs it.
fn keeping_nothing(env: &TestEnv) -> StoreOptions {
    let mut options = env.options();
    options.writer.retain_block_bytes = 0;
    options
}

/// As many users as that, and some points of a series.
async fn write(store: &Opened, users: std::ops::Range<u32>) {
    for number in users {
        create(store, &format!("user-{number}")).await;
        let load = point(None, "load", at(number.into()), number);
        store.metrics().record(load).await.unwrap();
    }
}

/// Flushes, and purges what nobody needs.
async fn purge(store: &Opened) {
    for _ in 0..2 {
        store.checkpoint().await.unwrap();
        create(store, &format!("purge-{}", store.view().serial())).await;
    }
    store.checkpoint().await.unwrap();
}

/// Whether the block after this serial is gone.
async fn is_gone(store: &Opened, after: Serial) -> bool {
    match store.watch(after).next().await.unwrap() {
        Ok(commit) => {
            assert_eq!(commit.serial, after.next());
            false
        }
        Err(error) => {
            assert!(matches!(error.kind(), Compacted { .. }), "{error}");
            true
        }
    }
}

async fn is_compacted(store: &Opened, after: Position) -> bool {
    match store.consumers().read(after, 1000).await {
        Ok(entries) => {
            let positions: Vec<_> = entries.iter().map(|entry| entry.position.get()).collect();
            let last = store.view().position().get();
            assert_eq!(positions, Vec::from_iter(after.get() + 1..=last));
            false
        }
        Err(error) => {
            assert!(matches!(error.kind(), Compacted { .. }), "{error}");
            true
        }
    }
}

async fn what_a_consumer_has_not_taken_is_kept(env: &mut TestEnv) {
    let mut store = env.open_with(keeping_nothing(env)).await;
    let registered = follow(&store, "mirror").await;
    let replica = Replica::since(&registered).await;
    for round in 0..2 {
        write(&store, round * 4..round * 4 + 4).await;
        purge(&store).await;
    }
    store = env.reload(store).await;
    store.close().await.unwrap();
    store = env.open_with(keeping_nothing(env)).await;
    purge(&store).await;
    assert!(!is_gone(&store, registered.serial).await, "a block that is not taken yet was purged");
    replica.check(&store).await;
    let (name, middle) = (registered.name, store.view());
    write(&store, 8..12).await;
    let moved = store.consumers().advance(&name, middle.position()).await.unwrap();
    assert_eq!((moved.position, moved.serial), (middle.position(), middle.serial()));
    purge(&store).await;
    store = env.reload(store).await;
    assert!(is_compacted(&store, registered.position).await, "what was taken is still kept");
    assert!(!is_compacted(&store, middle.position()).await);
    assert!(!is_gone(&store, middle.serial()).await);
    replica.check(&store).await;
    store.close().await.unwrap();
    store = env.open_with(keeping_nothing(env)).await;
    purge(&store).await;
    assert!(is_gone(&store, registered.serial).await, "what was taken is still kept");
    let [listed] = &store.consumers().list().await.unwrap()[..] else { panic!("not one consumer") };
    assert_eq!(*listed, moved);
    // Once it is gone, nothing is kept.
    store.consumers().remove(&name).await.unwrap();
    purge(&store).await;
    assert!(is_gone(&store, middle.serial()).await);
    assert!(is_compacted(&store, middle.position()).await);
}

async fn beyond_its_bytes_a_consumer_has_to_begin_anew(env: &mut TestEnv) {
    const ROOM: u64 = 4_000;
    let mut store = env.open_with(keeping_nothing(env)).await;
    let small = store.consumers().register(consumer("small"), ROOM).await.unwrap();
    let large = follow(&store, "large").await;
    let is_behind = async |store: &Opened| {
        let listed = store.consumers().list().await.unwrap();
        let [large, small] = &listed[..] else { panic!("{listed:?}") };
        assert_eq!((large.name.as_str(), large.resync), ("large", false));
        assert_eq!((small.name.as_str(), small.max_bytes), ("small", ROOM));
        small.resync
    };
    let mut users = 0;
    while !is_behind(&store).await {
        // What there is to take is at least its blocks.
        let entries = store.consumers().read(small.position, 1000).await.unwrap();
        let blocks = entries.iter().filter_map(|entry| entry.block.as_ref());
        let bytes: usize = blocks.map(|block| block.bytes.len()).sum();
        assert!((bytes as u64) <= ROOM, "{bytes} bytes are kept for it");
        write(&store, users..users + 1).await;
        users += 1;
    }
    assert!((3..40).contains(&users), "{users} users of some hundred bytes were too much");
    let name = small.name;
    for _ in 0..2 {
        assert!(is_behind(&store).await);
        let last = store.view().position();
        fails(store.consumers().advance(&name, last).await, Conflict);
        assert!(!is_compacted(&store, large.position).await, "another one is not affected");
        store = env.reload(store).await;
    }
    // It holds nothing: what the others have taken goes.
    store.close().await.unwrap();
    store = env.open_with(keeping_nothing(env)).await;
    let last = store.view().position();
    store.consumers().advance(&large.name, last).await.unwrap();
    purge(&store).await;
    assert!(is_compacted(&store, small.position).await);
    assert!(is_gone(&store, small.serial).await);
    assert!(is_behind(&store).await);
    // It begins anew where the store is then.
    let again = store.consumers().register(name.clone(), ROOM).await.unwrap();
    assert_eq!((again.position, again.resync), (store.view().position(), false));
    assert!(!is_behind(&store).await);
    write(&store, 100..101).await;
    store = env.reload(store).await;
    assert!(!is_behind(&store).await);
    assert!(!is_compacted(&store, again.position).await);
    // A commit that alone is more than all its room is too much, also as the first one.
    let moved = store.consumers().advance(&name, store.view().position()).await.unwrap();
    assert!(!moved.resync);
    store.policies().swap(None, DocumentText::new("p".repeat(5_000)).unwrap()).await.unwrap();
    let store = env.reload(store).await;
    assert!(is_behind(&store).await);
    store.consumers().remove(&large.name).await.unwrap();
    store.consumers().remove(&name).await.unwrap();
    assert!(store.consumers().list().await.unwrap().is_empty());
}

async fn what_another_one_lost_is_no_part_of_its_bytes(env: &mut TestEnv) {
    let store = env.open_with(keeping_nothing(env)).await;
    let lost = store.consumers().register(consumer("lost"), 20_000).await.unwrap();
    write(&store, 0..4).await;
    let taken = store.view().position();
    store.consumers().advance(&lost.name, taken).await.unwrap();
    store.policies().swap(None, DocumentText::new("p".repeat(30_000)).unwrap()).await.unwrap();
    let store = env.reload(store).await;
    let next = store.consumers().register(consumer("next"), 20_000).await.unwrap();
    let store = env.reload(store).await;
    write(&store, 4..6).await;
    let listed = store.consumers().list().await.unwrap();
    let behind: Vec<_> = listed.iter().map(|it| (it.name.as_str(), it.resync)).collect();
    assert_eq!(behind, [("lost", true), ("next", false)]);
    assert!(!is_compacted(&store, next.position).await);
    close(store).await;
}

async fn blocks_that_nobody_needs_go_without_a_further_write(env: &mut TestEnv, store: Opened) {
    close(store).await;
    let store = env.open_with(keeping_nothing(env)).await;
    let mirror = follow(&store, "mirror").await;
    // More than are purged in one commit.
    for number in 0..300 {
        create(&store, &format!("user-{number}")).await;
    }
    store.checkpoint().await.unwrap();
    assert!(!is_gone(&store, mirror.serial).await);
    store.consumers().remove(&mirror.name).await.unwrap();
    let last = store.view().serial();
    store.checkpoint().await.unwrap();
    assert!(is_gone(&store, Serial::new(last.get() - 1)).await);
    assert_eq!(store.view().serial(), last);
    close(store).await;
}

async fn a_consumer_moves_forward_and_not_beyond_the_end(env: &mut TestEnv, store: Opened) {
    write(&store, 0..2).await;
    let begin = follow(&store, "mirror").await;
    let other = follow(&store, "other").await;
    let name = begin.name;
    write(&store, 2..5).await;
    let (middle, last) = (Position::new(begin.position.get() + 3), store.view().position());
    let moved = store.consumers().advance(&name, middle).await.unwrap();
    assert_eq!(moved.position, middle);
    let store = env.reload(store).await;
    let listed = || async { store.consumers().list().await.unwrap() };
    let before = listed().await;
    assert_eq!(before, [moved.clone(), other]);
    for back in [0, begin.position.get(), middle.get() - 1] {
        let back = Position::new(back);
        fails(store.consumers().advance(&name, back).await, InvalidArgument);
    }
    for ahead in [last.get() + 1, u64::MAX] {
        let ahead = Position::new(ahead);
        fails(store.consumers().advance(&name, ahead).await, InvalidArgument);
        // Another history has come that far.
        fails(store.consumers().read(ahead, 1).await, Conflict);
    }
    assert_eq!(store.consumers().advance(&name, middle).await.unwrap(), moved);
    let taken = AlreadyExists { constraint: "name" };
    fails(store.consumers().register(name.clone(), 1).await, taken);
    for bytes in [0, u64::MAX] {
        fails(store.consumers().register(consumer("third"), bytes).await, InvalidArgument);
    }
    fails(store.consumers().advance(&consumer("third"), middle).await, NotFound);
    fails(store.consumers().remove(&consumer("third")).await, NotFound);
    assert_eq!(listed().await, before, "what is refused leaves no trace");
    assert_eq!(store.view().position(), last);
    store.consumers().advance(&name, last).await.unwrap();
    store.consumers().remove(&name).await.unwrap();
    fails(store.consumers().remove(&name).await, NotFound);
    // Names are byte-exact, and a freed one can be taken again.
    follow(&store, "MIRROR").await;
    follow(&store, "mirror").await;
    let store = env.reload(store).await;
    let listed = store.consumers().list().await.unwrap();
    let names: Vec<_> = listed.iter().map(|consumer| consumer.name.as_str()).collect();
    assert_eq!(names, ["MIRROR", "mirror", "other"]);
}

async fn a_store_has_64_consumers_at_most(_: &mut TestEnv, store: Opened) {
    for number in 0..64 {
        follow(&store, &format!("consumer-{number}")).await;
    }
    let more = || store.consumers().register(consumer("more"), 1_000);
    fails(more().await, Exhausted);
    create(&store, "alice").await;
    store.consumers().remove(&consumer("consumer-5")).await.unwrap();
    more().await.unwrap();
    assert_eq!(store.consumers().list().await.unwrap().len(), 64);
}
