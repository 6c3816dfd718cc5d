//! That everything is checked while commits go on, and nothing whole is taken for damaged.

use std::cell::RefCell;

use super::*;
use crate::backend::Shared;
use crate::check::{Opened, verify};
use crate::opening::Open;

/// A store in which something is done before every page.
struct Between<'s, W> {
    shared: &'s Shared,
    work: RefCell<W>,
}

impl<W: FnMut()> Opened for Between<'_, W> {
    fn with_open<T>(&self, work: impl FnOnce(&Open) -> Result<T>) -> Result<T> {
        (self.work.borrow_mut())();
        self.shared.with_open(work)
    }
}

fn verify_beside(backend: &LibsqlBackend, work: impl FnMut()) -> Result<()> {
    verify(&Between { shared: &backend.shared, work: RefCell::new(work) }).map(drop)
}

/// One of many commits: rows and points that come, change and go, a block, and the end of older ones.
fn busy(head: &Head, round: u32) -> Commit {
    let scattered = |count: u32, below: u32| {
        (0..count).map(move |number| (round * 7919 + number * 104_729) % below)
    };
    let mut commit = commit(head, |block| {
        scattered(60, 2_000).for_each(|number| block.put(ChangeKind::Updated, &node(number)));
    });
    let points = (0..60).map(|number| put(&metric(Some(number % 5), "rx", (round * 60).into())));
    commit.rows.extend(points);
    let gone = scattered(60, 2_000).filter(|number| number.is_multiple_of(7));
    commit.rows.extend(gone.map(|number| delete(Table::Nodes, node(number).key())));
    if round.is_multiple_of(9) {
        let from = RowKey::new().id(&bytes(1, 1));
        let range = KeyRange { table: Table::Metrics, to: from.clone().after_prefix(), from };
        commit.prune.push(range);
    }
    commit.purge_before = Some(Serial::new(head.serial.get().saturating_sub(30)));
    commit
}

/// A store after so many such commits, and its head.
async fn filled(path: &Path, rounds: u32) -> (LibsqlBackend, Head) {
    let backend = open(path).await.unwrap();
    let mut head = backend.head().await.unwrap();
    for round in 0..rounds {
        let commit = busy(&head, round);
        backend.commit(&commit).await.unwrap();
        head = head.after(&commit).unwrap();
    }
    (backend, head)
}

#[tokio::test]
async fn what_commits_change_between_two_pages_is_no_damage() {
    let (_directory, path) = place();
    let (backend, mut head) = filled(&path, 60).await;
    for _ in 0..3 {
        let mut round = 60;
        verify_beside(&backend, || {
            let commit = busy(&head, round);
            backend.shared.commit_inline(&commit).unwrap();
            head = head.after(&commit).unwrap();
            if round == 70 {
                assert_eq!(backend.shared.reopen_inline().unwrap(), head);
            }
            round += 1;
        })
        .unwrap();
        assert!(round > 75, "{round}");
        backend.verify().await.unwrap();
    }
}

#[tokio::test]
async fn the_log_stays_short_whatever_is_written_between_two_pages() {
    const MOST: u64 = 16 << 20;
    let (_directory, path) = place();
    let (backend, mut head) = filled(&path, 60).await;
    let policy = put(&Policy {
        version: PolicyVersion::FIRST,
        document: DocumentText::new("x".repeat(1 << 20)).unwrap(),
        author: ActorName::system(),
        created_at: at(1),
    });
    let (mut pages, mut longest) = (0, 0);
    verify_beside(&backend, || {
        pages += 1;
        // Among rows of the state.
        if pages == 4 {
            for _ in 0..80 {
                let commit = rows_only(&head, vec![policy.clone()]);
                backend.shared.commit_inline(&commit).unwrap();
                head = head.after(&commit).unwrap();
                longest = backend.info().log.unwrap().bytes.max(longest);
            }
        }
    })
    .unwrap();
    assert!(pages > 4, "{pages}");
    assert!(longest < MOST, "{longest}");
    assert_eq!(backend.info().log.unwrap().held, 0);
}

/// The connections that read for the store may have the whole page in their caches.
#[tokio::test]
async fn damage_that_comes_while_the_store_is_open_is_found() {
    let (_directory, path) = place();
    let (backend, _) = filled(&path, 60).await;
    backend.verify().await.unwrap();
    edit(&path, "CREATE TABLE chain AS SELECT * FROM ghostwire_blocks").await;
    for (damage, undo) in [
        (
            "UPDATE nodes SET row_check = row_check + 1 WHERE id = (SELECT min(id) FROM nodes)",
            "UPDATE nodes SET row_check = row_check - 1 WHERE id = (SELECT min(id) FROM nodes)",
        ),
        (
            "UPDATE metrics SET row_check = row_check + 1 WHERE node LIKE '%3'",
            "UPDATE metrics SET row_check = row_check - 1 WHERE node LIKE '%3'",
        ),
        (
            "DELETE FROM ghostwire_blocks WHERE serial = 40",
            "INSERT INTO ghostwire_blocks SELECT * FROM chain WHERE serial = 40",
        ),
        (
            "DELETE FROM ghostwire_blocks WHERE serial = 60",
            "INSERT INTO ghostwire_blocks SELECT * FROM chain WHERE serial = 60",
        ),
        (
            "UPDATE ghostwire_blocks SET time = time + 1 WHERE serial = 40",
            "UPDATE ghostwire_blocks SET time = time - 1 WHERE serial = 40",
        ),
        (
            "INSERT INTO ghostwire_blocks SELECT 3, id, time, hash, previous, body FROM chain LIMIT 1",
            "DELETE FROM ghostwire_blocks WHERE serial = 3",
        ),
        (
            "INSERT INTO ghostwire_blocks SELECT 99, id, time, hash, previous, body FROM chain LIMIT 1",
            "DELETE FROM ghostwire_blocks WHERE serial = 99",
        ),
        (
            "UPDATE ghostwire_meta SET epoch = epoch + 1",
            "UPDATE ghostwire_meta SET epoch = epoch - 1",
        ),
    ] {
        edit(&path, damage).await;
        let error = backend.verify().await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Corrupt, "{damage}: {error}");
        edit(&path, undo).await;
        backend.verify().await.unwrap();
    }
}

#[tokio::test]
async fn a_check_of_structures_can_be_interrupted() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let (_directory, path) = place();
    let (_backend, _) = filled(&path, 60).await;
    let mut link: Link = connect(&path, Role::Reader).unwrap();
    let (interrupt, has_ended) = (link.interrupter(), AtomicBool::new(false));
    let error = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !has_ended.load(Ordering::Relaxed) {
                interrupt();
            }
        });
        let error = loop {
            if let Err(error) = check_structure(&mut link) {
                break error;
            }
        };
        has_ended.store(true, Ordering::Relaxed);
        error
    });
    assert!(error.to_string().contains("sqlite_code=9"), "{error}");
    check_structure(&mut link).unwrap();
}
