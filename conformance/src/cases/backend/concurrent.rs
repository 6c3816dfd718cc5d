//! Reading during a commit.

use std::sync::Condvar;

use super::fixtures::*;

cases! {
    stored_backend {
        "backend-concurrent-reads" => [
            reads_go_on_while_a_commit_waits,
            readers_see_all_of_a_commit_or_nothing,
        ],
    }
    stored_unopened {
        "backend-concurrent-reads" => [reads_go_on_at_every_operation_of_the_disk],
    }
}

/// The commit waits above the backend, so this is about layers; what is below one may lie far away.
async fn reads_go_on_while_a_commit_waits(env: &mut TestEnv, backend: OpenedBackend) {
    commit_block(&backend, vec![put(Table::Nodes, 1, 1), put(Table::Metrics, 1, 1)]).await;
    let before = Content::of(&backend).await;
    let block = block_after(&before.head, 9);
    let commit = Commit {
        block: Some(block.clone()),
        rows: vec![put(Table::Nodes, 1, 2), delete(Table::Metrics, 1)],
        ..Commit::on(&before.head)
    };
    let hold = env.faults().hold_commits();
    let handle = backend.clone();
    let waiting = tokio::spawn(async move { handle.commit(&commit).await });
    until_held(env).await;
    assert_eq!(Content::of(&backend).await, before);
    assert_eq!(backend.blocks(before.head.serial, 9).await.unwrap(), []);
    drop(hold);
    waiting.await.unwrap().unwrap();
    let backend = env.reload_backend(backend).await;
    assert_eq!(backend.blocks(before.head.serial, 9).await.unwrap(), [block]);
    assert_eq!(marks_of(&backend, Table::Nodes).await, [(1, 2)]);
    assert_eq!(marks_of(&backend, Table::Metrics).await, []);
}

/// The commit waits within the backend: before everything that it does to the disk.
async fn reads_go_on_at_every_operation_of_the_disk(env: &mut TestEnv) -> Verdict {
    const LIVELY: Duration = Duration::from_secs(10);
    // Asked for before the backend is opened.
    if env.place().disk().is_none() {
        return Verdict::Skipped("the place has no disk that can be made to wait");
    }
    let backend = env.open_backend().await;
    commit_block(&backend, vec![put(Table::Nodes, 1, 1), put(Table::Metrics, 1, 1)]).await;
    let before = Lively::of(&backend).await;
    let commit = Commit {
        block: Some(block_after(&before.head, 9)),
        rows: vec![put(Table::Nodes, 1, 2), delete(Table::Metrics, 1)],
        ..Commit::on(&before.head)
    };
    let mut found = Vec::new();
    {
        let disk = env.place().disk().expect("it was there before");
        let held = HeldDisk::new(disk);
        let handle = backend.clone();
        let waiting = tokio::spawn(async move { handle.commit(&commit).await });
        while held.next_operation(|| waiting.is_finished()).await {
            let reading = tokio::time::timeout(LIVELY, Lively::of(&backend)).await;
            found.push(reading.expect("no read is answered while a commit waits for the disk"));
            held.let_one_pass();
        }
        waiting.await.unwrap().unwrap();
    }
    let after = Lively::of(&backend).await;
    assert_ne!(after.head, before.head);
    // Once it is durable it may be seen, and the disk may have more to do.
    let unseen = found.iter().take_while(|content| **content == before).count();
    assert!(unseen > 0, "the commit used no disk, or was seen before it was stored: {found:?}");
    assert!(found[unseen..].iter().all(|content| *content == after), "torn: {found:?}");
    let backend = env.reload_backend(backend).await;
    assert_eq!(marks_of(&backend, Table::Nodes).await, [(1, 2)]);
    assert_eq!(marks_of(&backend, Table::Metrics).await, []);
    Verdict::Passed
}

/// What is read while a store is in use, and so must not wait for a commit.
#[derive(Debug, PartialEq)]
struct Lively {
    head: Head,
    series: Vec<Row>,
    blocks: Vec<EncodedBlock>,
}

impl Lively {
    async fn of(backend: &OpenedBackend) -> Self {
        Self {
            head: backend.head().await.unwrap(),
            series: rows_of(backend, Table::Metrics).await,
            blocks: backend.blocks(Serial::ZERO, usize::MAX).await.unwrap(),
        }
    }
}

/// Lets a disk do nothing without leave, until it is dropped.
struct HeldDisk<'d> {
    disk: &'d dyn Disk,
    gate: Arc<Gate>,
}

#[derive(Default)]
struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Default)]
struct GateState {
    waiting: usize,
    leaves: usize,
    open: bool,
}

impl Gate {
    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.waiting += 1;
        let mut state =
            self.changed.wait_while(state, |state| state.leaves == 0 && !state.open).unwrap();
        state.leaves = state.leaves.saturating_sub(1);
        state.waiting -= 1;
    }
}

impl<'d> HeldDisk<'d> {
    fn new(disk: &'d dyn Disk) -> Self {
        let gate = Arc::new(Gate::default());
        let watcher = gate.clone();
        disk.watch(Some(Arc::new(move |_| watcher.pass())));
        Self { disk, gate }
    }

    /// Waits until the disk is to do something, which it then does not do yet, or until `is_over`.
    async fn next_operation(&self, is_over: impl Fn() -> bool) -> bool {
        loop {
            {
                let state = self.gate.state.lock().unwrap();
                if state.waiting > state.leaves {
                    return true;
                }
            }
            if is_over() {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    fn let_one_pass(&self) {
        self.gate.state.lock().unwrap().leaves += 1;
        self.gate.changed.notify_all();
    }
}

impl Drop for HeldDisk<'_> {
    fn drop(&mut self) {
        self.disk.watch(None);
        self.gate.state.lock().unwrap().open = true;
        self.gate.changed.notify_all();
    }
}

/// Every commit replaces all rows of two tables; pruned ones are written under the same keys.
async fn readers_see_all_of_a_commit_or_nothing(env: &mut TestEnv, backend: OpenedBackend) {
    const ROUNDS: u32 = 25;
    const ROWS: u32 = 20;
    let tables = [Table::Nodes, Table::Metrics];
    let round_of = move |round: u32| {
        let rows = move |table| (0..ROWS).map(move |number| put(table, number, round));
        tables.into_iter().flat_map(rows).collect::<Vec<_>>()
    };
    commit_block(&backend, round_of(1)).await;
    let handle = backend.clone();
    let done = Arc::new(AtomicBool::new(false));
    let is_done = done.clone();
    let writer = tokio::spawn(async move {
        for round in 2..=ROUNDS {
            let head = handle.head().await.unwrap();
            let commit = Commit {
                block: Some(block_after(&head, 9)),
                rows: round_of(round),
                prune: tables.map(|table| range(table, 0, Some(round % ROWS))).to_vec(),
                ..Commit::on(&head)
            };
            handle.commit(&commit).await.unwrap();
        }
        done.store(true, Ordering::Release);
    });
    let readers: Vec<_> = tables
        .into_iter()
        .map(|table| {
            let backend = backend.clone();
            let is_done = is_done.clone();
            tokio::spawn(async move {
                let mut last = 0;
                loop {
                    let is_last = is_done.load(Ordering::Acquire);
                    // As many blocks as rounds, so a scan sees what the head told before it.
                    let head = backend.head().await.unwrap();
                    let rows = rows_of(&backend, table).await;
                    assert_eq!(rows.len(), ROWS as usize);
                    let seen = (last..=ROUNDS).find(|&mark| body(table, mark) == rows[0].body);
                    let seen = seen.expect("no older round than before");
                    assert!(u64::from(seen) >= head.serial.get(), "older than the head");
                    assert!(rows.iter().all(|row| row.body == rows[0].body), "a torn scan");
                    let half = Scan { reverse: true, limit: 5, ..everything(table) };
                    let rows = backend.scan(half).await.unwrap().rows;
                    assert!(rows.iter().all(|row| row.body == rows[0].body), "a torn scan");
                    let blocks = backend.blocks(Serial::ZERO, usize::MAX).await.unwrap();
                    assert!(blocks.len() as u64 >= head.serial.get());
                    let at_head = &blocks[usize::try_from(head.serial.get()).unwrap() - 1];
                    assert_eq!((at_head.hash, at_head.id), (head.hash, head.block));
                    last = seen;
                    if is_last {
                        assert_eq!(last, ROUNDS);
                        break;
                    }
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    writer.await.unwrap();
    for reader in readers {
        reader.await.unwrap();
    }
    let backend = env.reload_backend(backend).await;
    for table in tables {
        let wanted: Vec<_> = (0..ROWS).map(|number| (number, ROUNDS)).collect();
        assert_eq!(marks_of(&backend, table).await, wanted);
    }
}
