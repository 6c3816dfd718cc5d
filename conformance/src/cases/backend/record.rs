//! What a database says of its part in a network that moves between two.

use ghostwire_store_core::backend::RecordChange;
use ghostwire_store_core::domain::MigrationId;
use ghostwire_store_core::migration::{Membership, Part, Record, Role};

use super::fixtures::*;

cases! {
    stored_backend {
        "backend-record" => [
            a_record_is_stored_with_the_head_by_who_has_seen_it,
            of_two_who_replace_a_record_one_wins,
            what_was_fenced_takes_no_content_though_its_epoch_is_the_same,
        ],
    }
    once_unopened {
        "backend-record" => [
            a_database_that_is_not_the_network_is_not_opened,
            a_store_that_is_fenced_while_it_is_open_writes_nothing,
        ],
    }
}

fn membership(part: Part) -> Option<Membership> {
    let (migration, peer) = (MigrationId::from_bytes([3; 16]), SideId::from_bytes([4; 16]));
    Some(Membership { migration, peer, part })
}

fn replaced(before: Record, after: Record) -> HeadChange {
    HeadChange { record: Some(RecordChange { before, after }), ..HeadChange::default() }
}

async fn replace(backend: &OpenedBackend, after: Record) -> Result<()> {
    let before = backend.head().await?.record();
    commit_next(backend, Commit { head: replaced(before, after), ..Commit::default() }).await
}

async fn a_record_is_stored_with_the_head_by_who_has_seen_it(
    env: &mut TestEnv,
    mut backend: OpenedBackend,
) {
    let new = backend.head().await.unwrap().record();
    assert_eq!(new, Record { epoch: Epoch::ZERO, role: Role::None, membership: None });
    commit_block(&backend, vec![put(Table::Users, 1, 1)]).await;
    let mut wanted = backend.head().await.unwrap();
    assert_eq!(wanted.record(), Record { role: Role::ActiveAlone, ..new });
    for (epoch, role, part) in [
        (0, Role::ActiveAsync, Part::Source),
        (0, Role::ActiveSync, Part::Source),
        (0, Role::Fenced, Part::Source),
        (1, Role::PassiveAsync, Part::Source),
        (1, Role::PassiveSync, Part::Source),
        (u64::MAX, Role::ActiveSync, Part::Target),
        (u64::MAX, Role::Retired, Part::Target),
        (u64::MAX, Role::None, Part::Target),
    ] {
        let after = Record { epoch: Epoch::new(epoch), role, membership: membership(part) };
        replace(&backend, after).await.unwrap();
        // Neither content nor position changes, but for what the record says.
        wanted =
            Head { epoch: after.epoch, role: Some(role), membership: after.membership, ..wanted };
        assert_eq!(backend.head().await.unwrap(), wanted, "{role}");
        backend = env.reload_backend(backend).await;
        assert_eq!(backend.head().await.unwrap(), wanted, "{role}");
        assert_eq!(backend.reopen().await.unwrap().record(), after);
    }
    replace(&backend, wanted.record().released()).await.unwrap();
    let backend = env.reload_backend(backend).await;
    let head = backend.head().await.unwrap();
    assert_eq!((head.role, head.membership), (Some(Role::ActiveAlone), None));
    assert_eq!(marks_of(&backend, Table::Users).await, [(1, 1)]);
}

async fn of_two_who_replace_a_record_one_wins(env: &mut TestEnv, backend: OpenedBackend) {
    commit_block(&backend, vec![put(Table::Users, 1, 1)]).await;
    let before = backend.head().await.unwrap().record();
    let active = |part| Record { role: Role::ActiveAsync, membership: membership(part), ..before };
    replace(&backend, active(Part::Source)).await.unwrap();
    let backend = env.reload_backend(backend).await;
    let stored = Content::of(&backend).await;
    // It was seen before the other one wrote: with content or without, nothing of it is stored.
    let late = replaced(before, active(Part::Target));
    let block = Some(block_after(&stored.head, 9));
    let rows = vec![put(Table::Users, 1, 9)];
    for late in [
        Commit { head: late, ..Commit::default() },
        Commit { head: late, block, rows, ..Commit::default() },
    ] {
        fails(commit_next(&backend, late).await, Conflict);
        assert_eq!(Content::of(&backend).await, stored);
    }
    // Nor is one that goes back to an earlier epoch, or begins a copy over what is there.
    let raised = active(Part::Source).from_epoch(Epoch::new(7), Role::ActiveAlone);
    replace(&backend, raised).await.unwrap();
    for wrong in [active(Part::Source), raised.with(Role::Filling)] {
        fails(replace(&backend, wrong).await, InvalidArgument);
    }
    let backend = env.reload_backend(backend).await;
    assert_eq!(backend.head().await.unwrap().record(), raised);
    fails(backend.commit(&Commit::on(&stored.head)).await, Fenced { epoch: 7 });
}

async fn what_was_fenced_takes_no_content_though_its_epoch_is_the_same(
    env: &mut TestEnv,
    backend: OpenedBackend,
) {
    commit_block(&backend, vec![put(Table::Users, 1, 1)]).await;
    let active = backend.head().await.unwrap().record();
    for role in [Role::Fenced, Role::Retired, Role::None] {
        let left = Record { role, membership: membership(Part::Source), ..active };
        replace(&backend, left).await.unwrap();
        let before = Content::of(&backend).await;
        let block = Some(block_after(&before.head, 9));
        let entry = Some(CommitId::from_bytes([9; 16]));
        let rows = vec![put(Table::Users, 1, 9), put(Table::Metrics, 1, 9)];
        for content in [
            Commit { block, rows: rows.clone(), ..Commit::default() },
            Commit { entry, rows, ..Commit::default() },
        ] {
            fails(commit_next(&backend, content).await, Fenced { epoch: 0 });
        }
        assert_eq!(Content::of(&backend).await, before);
        // What was acknowledged before is still flushed.
        let checkpoint = Some(before.head.serial);
        commit_next(&backend, Commit { checkpoint, ..Commit::default() }).await.unwrap();
        replace(&backend, active).await.unwrap();
    }
    let backend = env.reload_backend(backend).await;
    commit_block(&backend, vec![put(Table::Users, 1, 2)]).await;
    assert_eq!(marks_of(&backend, Table::Users).await, [(1, 2)]);
}

async fn a_database_that_is_not_the_network_is_not_opened(env: &mut TestEnv) {
    let backend = env.open_backend().await;
    commit_block(&backend, Vec::new()).await;
    let active = backend.head().await.unwrap().record();
    backend.close().await.unwrap();
    for (role, kind) in [
        (Role::None, Restricted),
        (Role::PassiveAsync, Restricted),
        (Role::PassiveSync, Unavailable),
        (Role::ActiveSync, Unavailable),
        (Role::Fenced, Restricted),
        (Role::Retired, Restricted),
    ] {
        let backend = env.open_backend().await;
        let record = Record { role, membership: membership(Part::Source), ..active };
        replace(&backend, record).await.unwrap();
        backend.close().await.unwrap();
        let opened = ghostwire_store_core::open(env.open_backend().await, env.options()).await;
        let error = fails(opened, kind);
        // With what it is, of which migration, and where the other side is.
        for told in [role.name(), "source", &SideId::from_bytes([4; 16]).to_string()] {
            assert!(error.to_string().contains(told), "{error}");
        }
        // What is in sync may be read.
        let options = StoreOptions { read_only: true, ..env.options() };
        let opened = ghostwire_store_core::open(env.open_backend().await, options).await;
        match role {
            Role::PassiveSync | Role::ActiveSync => opened.unwrap().close().await.unwrap(),
            _ => drop(fails(opened, Restricted)),
        }
    }
    let backend = env.open_backend().await;
    replace(&backend, active.with(Role::ActiveAsync)).await.unwrap();
    backend.close().await.unwrap();
    let store = env.open().await;
    create(&store, "alice").await;
}

async fn a_store_that_is_fenced_while_it_is_open_writes_nothing(env: &mut TestEnv) {
    let backend = env.open_backend().await;
    let store = ghostwire_store_core::open(backend.clone(), env.options()).await.unwrap();
    create(&store, "alice").await;
    let head = backend.head().await.unwrap();
    let fenced = Record { membership: membership(Part::Source), ..head.record() };
    replace(&backend, fenced.with(Role::Fenced)).await.unwrap();
    for _ in 0..2 {
        fails(store.users().create(local("bob")).await, Fenced { epoch: 0 });
        assert_eq!(store.view().users().len(), 1);
    }
    drop(store.close().await);
    drop(store);
    let backend = env.open_backend().await;
    let after = backend.head().await.unwrap();
    assert_eq!((after.position, after.hash), (head.position, head.hash));
}
