//! Positions, epochs, and the head that has them.

use ghostwire_store_core::backend::{HeadChange, KeyChange, RecordChange};
use ghostwire_store_core::migration::{Membership, Part, Record, Role};
use ghostwire_store_core::position::Epoch;
use ghostwire_store_core::secrets::KeyCheck;

use super::*;

fn entry(head: &Head, number: u32, rows: Vec<RowChange>) -> Commit {
    Commit { entry: Some(CommitId::from_bytes(bytes(7, number))), rows, ..Commit::on(head) }
}

/// One that changes all of the head that a commit may.
fn change(head: &Head) -> Commit {
    let change = HeadChange {
        epoch: Some(Epoch::new(3)),
        lineage: Some(LineageId::from_bytes([5; 16])),
        credential_key: Some(KeyChange {
            before: head.credential_key,
            after: KeyCheck::from_bytes([6; 16]),
        }),
        filled: true,
        record: Some(RecordChange {
            before: head.record(),
            after: Record {
                epoch: Epoch::new(3),
                role: Role::ActiveAsync,
                membership: Some(Membership {
                    migration: MigrationId::from_bytes([8; 16]),
                    peer: SideId::from_bytes([9; 16]),
                    part: Part::Source,
                }),
            },
        }),
    };
    Commit { head: change, ..Commit::on(head) }
}

#[tokio::test]
async fn the_whole_head_is_stored_and_covered_by_its_check() {
    let (_directory, path) = place();
    let backend = open(&path).await.unwrap();
    fill(&backend).await;
    let head = backend.head().await.unwrap();
    assert_eq!((head.position.get(), head.credential_key, head.filling), (4, None, false));
    let counted = entry(&head, 1, vec![put(&metric(None, "rx", 1))]);
    backend.commit(&counted).await.unwrap();
    let head = head.after(&counted).unwrap();
    backend.commit(&change(&head)).await.unwrap();
    let head = head.after(&change(&head)).unwrap();
    assert_eq!((head.position.get(), head.serial.get(), head.epoch.get()), (5, 4, 3));
    assert_eq!(backend.head().await.unwrap(), head);
    assert_eq!(backend.reopen().await.unwrap(), head);
    backend.close().await.unwrap();
    assert_eq!(open(&path).await.unwrap().head().await.unwrap(), head);
    let whole = std::fs::read(&path).unwrap();
    for edited in [
        "side = '00000000-0000-0000-0000-000000000001'",
        "lineage = side",
        "epoch = 4",
        "position = 6",
        "[commit] = side",
        "credential_key = NULL",
        "credential_key = '00'",
        "filling = 1",
        "filling = 7",
        "role = 'fenced'",
        "role = 'active'",
        "role = NULL",
        "migration = side",
        "peer = side",
        "peer = NULL",
        "part = 'target'",
    ] {
        std::fs::write(&path, &whole).unwrap();
        edit(&path, &format!("UPDATE ghostwire_meta SET {edited}")).await;
        let error = open(&path).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Corrupt, "{edited}: {error}");
        assert!(error.to_string().contains("ghostwire_meta"), "{edited}: {error}");
    }
}

#[tokio::test]
async fn a_commit_is_guarded_by_position_and_epoch() {
    let (_directory, path) = place();
    let backend = open(&path).await.unwrap();
    let genesis = backend.head().await.unwrap();
    let first = entry(&genesis, 1, vec![put(&node(1))]);
    backend.commit(&first).await.unwrap();
    let head = genesis.after(&first).unwrap();
    let before = content(&backend).await.unwrap();
    assert_eq!(before.head, head);
    let stale = entry(&genesis, 2, vec![put(&node(2))]);
    assert_eq!(*backend.commit(&stale).await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(content(&backend).await.unwrap(), before);
    // What only flushes moves nothing, and the next one builds on the same position.
    let flush = rows_only(&head, vec![put(&node(3))]);
    backend.commit(&flush).await.unwrap();
    assert_eq!(backend.head().await.unwrap(), head);
    backend.commit(&change(&head)).await.unwrap();
    let fenced = entry(&head, 4, vec![put(&node(4))]);
    let error = backend.commit(&fenced).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Fenced { epoch: 3 });
    assert_eq!(all(&backend, Table::Nodes).await.unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_and_its_position_are_of_one_moment() {
    let (_directory, path) = place();
    let backend = std::sync::Arc::new(open(&path).await.unwrap());
    let reader = {
        let backend = std::sync::Arc::clone(&backend);
        tokio::spawn(async move {
            let mut last = 0;
            while last < 200 {
                let scan =
                    Scan { range: KeyRange::all(Table::Metrics), reverse: false, limit: 999 };
                let page = backend.scan(scan).await.unwrap();
                assert_eq!((page.rows.len() as u64, page.serial.get()), (page.position.get(), 0));
                assert!(page.position.get() >= last);
                last = page.position.get();
            }
        })
    };
    let mut head = backend.head().await.unwrap();
    for number in 0..200 {
        let commit = entry(&head, number, vec![put(&metric(None, "rx", number.into()))]);
        backend.commit(&commit).await.unwrap();
        head = head.after(&commit).unwrap();
    }
    reader.await.unwrap();
    let nothing = KeyRange { to: Some(RowKey::new()), ..KeyRange::all(Table::Users) };
    let scan = Scan { range: nothing, reverse: false, limit: 9 };
    let page = backend.scan(scan).await.unwrap();
    assert_eq!((page.rows.len(), page.position), (0, head.position));
}

#[tokio::test]
async fn only_an_empty_store_adopts_a_head() {
    let (_directory, path) = place();
    let (_other, copy) = place();
    let source = open(&path).await.unwrap();
    fill(&source).await;
    let head = source.head().await.unwrap();
    let options = LibsqlOptions::new(&copy, StoreId::from_bytes([1; 16])).create(true);
    let backend = LibsqlBackend::open(options).await.unwrap();
    let side = backend.head().await.unwrap().side;
    backend.adopt(&head).await.unwrap();
    let adopted = backend.head().await.unwrap();
    assert_eq!((adopted.store, adopted.side, adopted.filling), (STORE, side, true));
    assert_eq!((adopted.position, adopted.hash), (head.position, head.hash));
    backend.verify().await.unwrap();
    let next = commit(&adopted, |block| block.put(ChangeKind::Created, &node(900)));
    backend.commit(&next).await.unwrap();
    assert_eq!(backend.blocks(head.serial, 9).await.unwrap().len(), 1);
    backend.close().await.unwrap();
    // The path is this database's, whatever it holds.
    let lock = std::fs::read_to_string(format!("{}.lock", copy.display())).unwrap();
    assert!(lock.ends_with(&format!("\nstore {side}\n")), "{lock}");
    let options = LibsqlOptions::new(&copy, STORE).read_only(true);
    let reader = LibsqlBackend::open(options).await.unwrap();
    assert_eq!(*reader.adopt(&head).await.unwrap_err().kind(), ErrorKind::ReadOnly);
    reader.close().await.unwrap();
    let (_third, flushed) = place();
    let flushed = open(&flushed).await.unwrap();
    let genesis = flushed.head().await.unwrap();
    flushed.commit(&rows_only(&genesis, vec![put(&node(1))])).await.unwrap();
    for refused in [open(&copy).await.unwrap(), flushed, source] {
        let before = content(&refused).await.unwrap();
        assert_eq!(*refused.adopt(&head).await.unwrap_err().kind(), ErrorKind::Restricted);
        assert_eq!(content(&refused).await.unwrap(), before);
    }
}

#[tokio::test]
async fn bytes_come_back_as_they_were() {
    let (_directory, path) = place();
    let backend = open(&path).await.unwrap();
    let mut head = backend.head().await.unwrap();
    let blobs: [Vec<u8>; 5] =
        [vec![], vec![0], b"a\0b".to_vec(), vec![0xff, 0xfe], vec![7; 4 << 20]];
    let version = Schema::current().version().version;
    let mut rows = Vec::new();
    for (blob, number) in blobs.iter().zip(1..) {
        let id = [7; 16];
        let columns = [
            Value::Bytes(&id),
            Value::Integer(0),
            Value::Integer(0),
            Value::Integer(1),
            Value::Integer(9),
            Value::Bytes(blob),
        ];
        rows.push(RowChange {
            table: Table::Feed,
            kind: ChangeKind::Created,
            key: RowKey::new().integer(number).integer(0),
            body: Some(encode_values(version, columns)),
        });
        let commit = entry(&head, u32::try_from(number).unwrap(), rows.clone());
        backend.commit(&commit).await.unwrap();
        head = head.after(&commit).unwrap();
    }
    let wanted = expected(&rows, Table::Feed);
    assert_eq!(all(&backend, Table::Feed).await.unwrap(), wanted);
    backend.verify().await.unwrap();
    backend.close().await.unwrap();
    let backend = open(&path).await.unwrap();
    assert_eq!(all(&backend, Table::Feed).await.unwrap(), wanted);
    backend.close().await.unwrap();
    edit(&path, "UPDATE feed SET body = x'01' WHERE length(body) = 1").await;
    let error = open(&path).await.unwrap().verify().await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Corrupt, "{error}");
}
