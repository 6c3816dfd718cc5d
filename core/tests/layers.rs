//! What the layers do to a backend.
#![allow(clippy::unwrap_used, missing_docs)]

use std::sync::Arc;

use ghostwire_store_core::backend::{Backend, Commit, Head};
use ghostwire_store_core::block::{BlockBuilder, EncodedBlock};
use ghostwire_store_core::domain::*;
use ghostwire_store_core::error::ErrorKind;
use ghostwire_store_core::layer::{Chaos, FaultKind};
use ghostwire_store_memory::MemoryBackend;

fn chaos() -> Chaos {
    Chaos::new(Arc::new(MemoryBackend::new(StoreId::from_bytes([1; 16]))))
}

fn block_after(head: &Head) -> EncodedBlock {
    let id = BlockId::from_bytes([1; 16]);
    let builder = BlockBuilder::default();
    builder.finish(head.serial.next(), id, head.hash, head.time).unwrap().block
}

#[tokio::test]
async fn commits_fail_as_told() {
    let chaos = chaos();
    chaos.faults().fail_next_commits(1, FaultKind::Before);
    chaos.faults().fail_next_commits(2, FaultKind::DiskFull);
    chaos.faults().fail_next_commits(1, FaultKind::After);
    let head = chaos.head().await.unwrap();
    let commit = Commit { block: Some(block_after(&head)), ..Commit::default() };
    for (kind, serial) in [
        (ErrorKind::Unavailable, 0),
        (ErrorKind::Exhausted, 0),
        (ErrorKind::Exhausted, 0),
        (ErrorKind::OutcomeUnknown, 1),
        (ErrorKind::Conflict, 1),
    ] {
        assert_eq!(*chaos.commit(&commit).await.unwrap_err().kind(), kind);
        assert_eq!(chaos.head().await.unwrap().serial.get(), serial);
    }
    chaos.faults().fail_next_reopens(1);
    assert_eq!(*chaos.reopen().await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(chaos.reopen().await.unwrap().serial.get(), 1);
}

#[tokio::test]
async fn commits_wait_while_held() {
    let chaos = chaos();
    let hold = chaos.faults().hold_commits();
    let second = chaos.faults().hold_commits();
    let handle = chaos.clone();
    let waiting = tokio::spawn(async move { handle.commit(&Commit::default()).await });
    while chaos.faults().held_commits() == 0 {
        tokio::task::yield_now().await;
    }
    drop(hold);
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    drop(second);
    waiting.await.unwrap().unwrap();
    assert_eq!(chaos.faults().held_commits(), 0);
}
