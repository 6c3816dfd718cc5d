//! The feed of changes.

use ghostwire_store_core::changes::{CommitChanges, EntityChange, LogPosition};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::prelude::*;

cases! {
    stored {
        "watch" => [a_watcher_that_comes_back_misses_nothing],
    }
    once {
        "watch" => [
            every_commit_is_told_once_and_in_order,
            changes_name_what_was_created_updated_or_deleted,
            a_slow_watcher_that_starts_late_hears_everything,
            a_watch_continues_after_a_restart,
            what_is_not_durable_is_not_told,
            a_serial_that_is_still_to_come_is_refused,
            a_place_of_another_history_is_refused,
            closing_ends_every_watch,
        ],
    }
    once_unopened {
        "watch" => [if_blocks_are_gone_the_stream_ends_with_compacted],
    }
}

async fn a_watcher_that_comes_back_misses_nothing(env: &mut TestEnv, store: Opened) {
    create(&store, 0..10).await;
    let known = store.view();
    create(&store, 10..20).await;
    let store = env.reload(store).await;
    let mut seen: Vec<_> = known.users().iter().map(|user| user.name.to_string()).collect();
    let mut last = known.serial();
    let dropped = env.options().writer.retain_block_bytes == 0 && !env.place().is_of_two();
    let mut watch = store.watch(last);
    match watch.next().await.unwrap() {
        Ok(commit) => {
            assert!(!dropped);
            let rest = watch.take(9).map(Result::unwrap).collect::<Vec<_>>().await;
            for commit in std::iter::once(commit).chain(rest) {
                last = Serial::new(last.get() + 1);
                assert_eq!(commit.serial, last);
                seen.push(name_of(&store, &commit));
            }
        }
        Err(error) => {
            assert!(dropped, "{error}");
            assert!(matches!(error.kind(), Compacted { .. }), "{error}");
            assert!(watch.next().await.is_none());
            let view = store.view();
            seen = view.users().iter().map(|user| user.name.to_string()).collect();
            last = view.serial();
        }
    }
    // From here on blocks are kept, so the watcher cannot be outrun.
    store.close().await.unwrap();
    let store =
        env.open_with(StoreOptions { writer: WriterOptions::default(), ..env.options() }).await;
    let mut watch = store.watch(last);
    create(&store, 20..22).await;
    for _ in 0..2 {
        let commit = watch.next().await.unwrap().unwrap();
        seen.push(name_of(&store, &commit));
    }
    seen.sort();
    let mut expected: Vec<_> = (0..22).map(|n| format!("user{n}")).collect();
    expected.sort();
    assert_eq!(seen, expected);
}

async fn every_commit_is_told_once_and_in_order(_: &mut TestEnv, store: Opened) {
    let mut watchers: Vec<_> = (0..3).map(|_| follow(&store)).collect();
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let store = store.clone();
            tokio::spawn(async move { create(&store, writer * 50..writer * 50 + 50).await })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    store.metrics().record_many(Vec::new()).await.unwrap();
    let last = store.view().serial();
    let mut told = Vec::new();
    for watcher in &mut watchers {
        let mut commits: Vec<CommitChanges> = Vec::new();
        while commits.last().is_none_or(|commit| commit.serial < last) {
            commits.push(watcher.recv().await.unwrap().unwrap());
        }
        told.push(commits);
    }
    store.close().await.unwrap();
    for watcher in &mut watchers {
        assert!(watcher.recv().await.is_none(), "nothing follows the last commit");
    }
    let serials: Vec<_> = told[0].iter().map(|commit| commit.serial.get()).collect();
    assert_eq!(serials, (1..=last.get()).collect::<Vec<_>>());
    assert_eq!(told[0].iter().map(|commit| commit.changes.len()).sum::<usize>(), 200);
    assert_eq!(told[0], told[1]);
    assert_eq!(told[0], told[2]);
}

/// Watches from the beginning, whether or not somebody listens.
fn follow(store: &Opened) -> UnboundedReceiver<Result<CommitChanges>> {
    let mut watch = store.watch(Serial::ZERO);
    let (sender, receiver) = unbounded_channel();
    tokio::spawn(async move {
        while let Some(commit) = watch.next().await {
            if sender.send(commit).is_err() {
                break;
            }
        }
    });
    receiver
}

async fn changes_name_what_was_created_updated_or_deleted(env: &mut TestEnv, store: Opened) {
    let mut watch = store.watch(Serial::ZERO);
    let mut next = async || watch.next().await.unwrap().unwrap();
    let alice = user(&store, "alice").await;
    let change = |entity, handle, kind| EntityChange { entity, handle, kind };
    let of_alice = |kind| change(EntityKind::User, EntityId::User(alice), kind);
    let first = next().await;
    assert_eq!(first.at, env.options().clock.now());
    assert_eq!((first.serial.get(), first.changes), (1, vec![of_alice(ChangeKind::Created)]));
    env.advance(5);
    let name = Update::Set("alicia".parse().unwrap());
    store.users().update(alice, UserPatch { name, ..UserPatch::default() }, None).await.unwrap();
    let second = next().await;
    assert_eq!(second.at, env.options().clock.now());
    assert_eq!(second.changes, [of_alice(ChangeKind::Updated)]);
    // A refused command and one that changes nothing make no commit.
    store.users().create(local("alicia")).await.unwrap_err();
    store.users().update(alice, UserPatch::default(), None).await.unwrap();
    let bob = UserId::from_bytes([9; 16]);
    let transaction = Transaction::new()
        .then(UserCommand::Create { id: bob, user: local("bob") })
        .unwrap()
        .then(UserCommand::Delete { id: alice, cascade: false, part: Part::WHOLE })
        .unwrap();
    store.transact(transaction).await.unwrap();
    let third = next().await;
    let created = change(EntityKind::User, EntityId::User(bob), ChangeKind::Created);
    assert_eq!(third.serial.get(), 3);
    assert_eq!(third.changes, [created, of_alice(ChangeKind::Deleted)]);
    store.policies().swap(None, DocumentText::empty()).await.unwrap();
    let version = EntityId::Policy(PolicyVersion::FIRST);
    assert_eq!(next().await.changes, [change(EntityKind::Policy, version, ChangeKind::Created)]);
    let dns = DnsSettings { magic_dns: true, ..DnsSettings::default() };
    store.settings().put(SettingDocument::Dns(dns), None).await.unwrap();
    let setting = EntityId::Setting(SettingKind::Dns);
    assert_eq!(next().await.changes, [change(EntityKind::Setting, setting, ChangeKind::Created)]);
    store.settings().reset(SettingKind::Dns).await.unwrap();
    assert_eq!(next().await.changes, [change(EntityKind::Setting, setting, ChangeKind::Updated)]);
}

async fn a_slow_watcher_that_starts_late_hears_everything(_: &mut TestEnv, store: Opened) {
    create(&store, 0..150).await;
    store.checkpoint().await.unwrap();
    create(&store, 150..200).await;
    let mut late = store.watch(Serial::ZERO);
    for serial in 1..=300 {
        if serial == 100 {
            // Commits go on while it is far behind.
            create(&store, 200..300).await;
        }
        assert_eq!(late.next().await.unwrap().unwrap().serial.get(), serial);
    }
    assert!(late.next().now_or_never().is_none(), "it waits at the end");
}

async fn a_watch_continues_after_a_restart(env: &mut TestEnv, mut store: Opened) {
    let mut last = Serial::ZERO;
    for round in 0..3 {
        let mut watch = store.watch(last);
        create(&store, round * 4..round * 4 + 4).await;
        // One is left for the next process.
        for _ in 0..if round == 0 { 3 } else { 4 } {
            let commit = watch.next().await.unwrap().unwrap();
            assert_eq!(commit.serial.get(), last.get() + 1);
            last = commit.serial;
        }
        drop(watch);
        store = if round == 1 { env.crash(store).await } else { env.reopen(store).await };
    }
    assert_eq!(last.get(), 11);
    let rest = store.watch(last).next().await.unwrap().unwrap();
    assert_eq!(rest.serial.get(), 12);
    assert!(store.watch(rest.serial).next().now_or_never().is_none());
}

async fn what_is_not_durable_is_not_told(env: &mut TestEnv, store: Opened) {
    create(&store, 0..1).await;
    let mut watch = store.watch(Serial::ZERO);
    assert_eq!(watch.next().await.unwrap().unwrap().serial.get(), 1);
    let hold = env.faults().hold_commits();
    let write = tokio::spawn({
        let store = store.clone();
        async move { create(&store, 1..2).await }
    });
    until_held(env).await;
    assert!(watch.next().now_or_never().is_none());
    drop(hold);
    write.await.unwrap();
    assert_eq!(watch.next().await.unwrap().unwrap().serial.get(), 2);
}

async fn if_blocks_are_gone_the_stream_ends_with_compacted(env: &mut TestEnv) -> Verdict {
    if env.place().is_of_two() {
        return KEEPS_BLOCKS;
    }
    let mut options = env.options();
    options.writer.retain_block_bytes = 0;
    let store = env.open_with(options).await;
    create(&store, 0..5).await;
    store.checkpoint().await.unwrap();
    create(&store, 5..6).await;
    store.checkpoint().await.unwrap();
    let mut watch = store.watch(Serial::ZERO);
    let error = watch.next().await.unwrap().unwrap_err();
    let Compacted { oldest } = *error.kind() else { panic!("{error}") };
    assert!((2..=7).contains(&oldest), "{oldest}");
    assert!(watch.next().await.is_none(), "the stream has ended");
    store.close().await.unwrap();
    // What is left can still be had, and what is to come.
    let store =
        env.open_with(StoreOptions { writer: WriterOptions::default(), ..env.options() }).await;
    let view = store.view();
    assert_eq!((view.serial().get(), view.users().len()), (6, 6));
    let mut watch = store.watch(Serial::new(oldest - 1));
    create(&store, 6..7).await;
    for serial in oldest..=7 {
        assert_eq!(watch.next().await.unwrap().unwrap().serial.get(), serial);
    }
    Verdict::Passed
}

async fn a_serial_that_is_still_to_come_is_refused(_: &mut TestEnv, store: Opened) {
    create(&store, 0..3).await;
    // Behind the last commit one waits.
    let mut waiting = store.watch(Serial::new(3));
    assert!(waiting.next().now_or_never().is_none());
    // Whoever has seen more has seen another store, or a newer copy of this one.
    for after in [4, 10, u64::MAX] {
        let mut watch = store.watch(Serial::new(after));
        let error = fails(watch.next().await.unwrap(), Conflict);
        assert!(error.to_string().contains("serial=3"), "{error}");
        assert!(watch.next().await.is_none(), "the stream has ended");
    }
    create(&store, 3..4).await;
    assert_eq!(waiting.next().await.unwrap().unwrap().serial.get(), 4);
}

async fn a_place_of_another_history_is_refused(env: &mut TestEnv, mut store: Opened) {
    let start = store.view().log_position();
    create(&store, 0..3).await;
    let mut positions = vec![start];
    positions.extend(
        store
            .watch_from(start)
            .take(3)
            .map(|commit| commit.unwrap().log_position())
            .collect::<Vec<_>>()
            .await,
    );
    for restart in 0..3 {
        assert_eq!(store.view().log_position(), positions[3]);
        for (position, next) in positions.iter().zip(&positions[1..]) {
            let commit = store.watch_from(*position).next().await.unwrap().unwrap();
            assert_eq!(commit.log_position(), *next);
        }
        let mut waiting = store.watch_from(positions[3]);
        assert!(waiting.next().now_or_never().is_none());
        // Of the same serial, but of other commits: before the last one, at it, and behind it.
        for (serial, hash) in [(1, 2), (3, 1), (4, 3)] {
            let position = LogPosition { serial: Serial::new(serial), hash: positions[hash].hash };
            let mut watch = store.watch_from(position);
            fails(watch.next().await.unwrap(), Conflict);
            assert!(watch.next().await.is_none(), "the stream has ended");
        }
        drop(waiting);
        store = if restart == 0 { env.crash(store).await } else { env.reopen(store).await };
    }
}

async fn closing_ends_every_watch(_: &mut TestEnv, store: Opened) {
    create(&store, 0..3).await;
    let mut waiting = store.watch(Serial::new(3));
    let waits = tokio::spawn(async move { waiting.next().await.is_none() });
    let mut reader = store.watch(Serial::ZERO);
    assert_eq!(reader.next().await.unwrap().unwrap().serial.get(), 1);
    store.close().await.unwrap();
    assert!(waits.await.unwrap());
    let mut after = store.watch(Serial::new(3));
    assert!(after.next().await.is_none());
}

async fn create(store: &Opened, numbers: std::ops::Range<u32>) {
    for n in numbers {
        store.users().create(local(&format!("user{n}"))).await.unwrap();
    }
}

/// Of the one user that a commit created.
fn name_of(store: &Opened, commit: &CommitChanges) -> String {
    let [EntityChange { handle: EntityId::User(id), kind: ChangeKind::Created, .. }] =
        commit.changes[..]
    else {
        panic!("{commit:?}")
    };
    store.view().users().get(id).unwrap().name.to_string()
}
