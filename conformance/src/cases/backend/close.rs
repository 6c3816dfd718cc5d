//! A backend that was closed.

use ghostwire_store_core::backend::{Backend, Commit};
use ghostwire_store_core::block::Serial;
use ghostwire_store_core::error::ErrorKind;
use ghostwire_store_core::schema::{Schema, Table};

use super::hand::*;
use crate::case::cases;
use crate::world::World;

cases! {
    stored {
        "backend-close" => [
            a_closed_backend_is_unavailable,
            the_place_can_be_opened_again_at_once,
        ],
    }
}

async fn refuses_everything(backend: &dyn Backend) {
    let commit = Commit { rows: vec![put(Table::Users, 9, 9)], ..Commit::default() };
    let kinds = [
        ("head", kind_of(backend.head().await)),
        ("scan", kind_of(backend.scan(everything(Table::Users)).await)),
        ("blocks", kind_of(backend.blocks(Serial::ZERO, 9).await)),
        ("commit", kind_of(backend.commit(&commit).await)),
        ("migrate", kind_of(backend.migrate(Schema::current()).await)),
        ("reopen", kind_of(backend.reopen().await)),
        ("verify", kind_of(backend.verify().await)),
        ("head, after all that", kind_of(backend.head().await)),
    ];
    for (call, kind) in kinds {
        assert_eq!(kind, ErrorKind::Unavailable, "{call}");
    }
}

async fn a_closed_backend_is_unavailable(world: &mut World) {
    let backend = world.open_backend().await;
    commit_block(&*backend, vec![put(Table::Users, 1, 1)]).await;
    let backend = world.pass_backend(backend).await;
    let before = Content::of(&*backend).await;
    backend.close().await.unwrap();
    refuses_everything(&*backend).await;
    drop(backend);
    let backend = world.open_backend().await;
    assert_eq!(Content::of(&*backend).await, before);
}

async fn the_place_can_be_opened_again_at_once(world: &mut World) {
    let mut backend = world.open_backend().await;
    for round in 1..5 {
        commit_block(&*backend, vec![put(Table::Users, round, round)]).await;
        backend = world.pass_backend(backend).await;
        let before = Content::of(&*backend).await;
        backend.close().await.unwrap();
        // The old handle is still there, and stays closed.
        let next = world.open_backend().await;
        refuses_everything(&*backend).await;
        assert_eq!(Content::of(&*next).await, before);
        assert_eq!(next.head().await.unwrap().serial.get(), u64::from(round));
        backend = next;
    }
}
