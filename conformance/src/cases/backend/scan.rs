//! Pages of rows, in the order of their keys.

use std::ops::Bound;

use bytes::Bytes;

use super::fixtures::*;

cases! {
    stored_backend {
        "backend-scan" => [
            keys_compare_like_their_bytes,
            text_has_no_other_order_than_its_bytes,
            a_scan_gives_no_more_than_its_limit,
            a_scan_may_go_backwards,
            empty_and_inverted_ranges_are_empty,
            pages_give_every_row_once,
            a_scan_sees_what_was_stored_before_it,
            a_page_says_at_which_moment_it_was_read,
        ],
    }
    stored_unopened {
        "backend-scan" => [a_range_begins_at_its_first_key_and_ends_before_its_last],
    }
}

/// Ids in which 0x00 and 0xff are everywhere, and of which many begin alike.
fn ids() -> Vec<[u8; 16]> {
    let mut ids = vec![[0; 16], [0xff; 16], [0x80; 16], [0x7f; 16]];
    for place in [0, 1, 7, 14, 15] {
        for byte in [0x00, 0x01, 0xfe, 0xff] {
            for others in [0x00, 0x61, 0xff] {
                let mut id = [others; 16];
                id[place] = byte;
                ids.push(id);
            }
        }
    }
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// Words of which some are the beginnings of others; their bytes have another order than any
/// dictionary.
const WORDS: [&str; 25] = [
    "",
    "a",
    "A",
    "ab",
    "Ab",
    "aB",
    "AB",
    "abc",
    "a b",
    "a_b",
    "a-b",
    "a\u{1}",
    "a\u{7f}",
    "á",
    "a\u{301}",
    "b",
    "B",
    "z",
    "Z",
    "é",
    "ÿ",
    "ß",
    "ss",
    "\u{ffff}",
    "\u{10ffff}",
];

fn by_id(table: Table) -> Vec<RowChange> {
    let rows = (0..).zip(ids());
    rows.map(|(mark, id)| image(table, RowKey::new().id(&id), body(table, mark))).collect()
}

fn by_word() -> Vec<RowChange> {
    let table = Table::Settings;
    let rows = (0..).zip(WORDS);
    rows.map(|(mark, word)| image(table, RowKey::new().text(word), body(table, mark))).collect()
}

fn by_number() -> Vec<RowChange> {
    let numbers = [0, 1, 2, 0x7f, 0x80, 0xff, 0x100, 0x1ff, 0xff_ff, 1 << 40, i64::MAX];
    let key = |number| RowKey::new().integer(number);
    let rows = (0..).zip(numbers);
    rows.map(|(mark, number)| image(Table::Policies, key(number), body(Table::Policies, mark)))
        .collect()
}

/// Keys of three columns.
fn measured() -> Vec<RowChange> {
    let mut rows = Vec::new();
    for id in [[0; 16], [0xff; 16], *b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\xff"] {
        for word in ["", "a", "ab", "a_b", "B"] {
            for number in [0, 0xff, 0x100, i64::MAX] {
                let key = RowKey::new().id(&id).text(word).integer(number);
                let mark = u32::try_from(rows.len()).unwrap();
                rows.push(image(Table::Metrics, key, body(Table::Metrics, mark)));
            }
        }
    }
    rows
}

/// Positions at, before and behind keys: their beginnings, what follows these, and bytes that no
/// key has.
fn positions(model: &BTreeMap<RowKey, Bytes>) -> Vec<RowKey> {
    let mut positions = vec![
        RowKey::new(),
        RowKey::from_bytes(&[0]).unwrap(),
        RowKey::from_bytes(&[0xff; 40]).unwrap(),
        RowKey::from_bytes(&[0xff, 0xfe]).unwrap(),
    ];
    for (index, key) in model.keys().enumerate() {
        positions.push(key.clone());
        if index % 5 == 0 {
            let bytes = key.as_bytes();
            let half = RowKey::from_bytes(&bytes[..bytes.len() / 2]).unwrap();
            positions.push(key.clone().successor());
            positions.extend(key.clone().after_prefix());
            positions.extend(half.clone().after_prefix());
            positions.push(RowKey::from_bytes(&[half.as_bytes(), &[0xff]].concat()).unwrap());
            positions.push(half.successor());
        }
    }
    positions
}

fn wanted(model: &BTreeMap<RowKey, Bytes>, scan: &Scan) -> Vec<Row> {
    let KeyRange { from, to, .. } = &scan.range;
    if to.as_ref().is_some_and(|to| to <= from) {
        return Vec::new();
    }
    let to = to.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
    let row = |(key, body): (&RowKey, &Bytes)| Row { key: key.clone(), body: body.clone() };
    let mut rows: Vec<_> = model.range((Bound::Included(from), to)).map(row).collect();
    if scan.reverse {
        rows.reverse();
    }
    rows.truncate(scan.limit);
    rows
}

fn model_of(rows: &[RowChange]) -> BTreeMap<RowKey, Bytes> {
    rows.iter().map(|row| (row.key.clone(), row.body.clone().unwrap())).collect()
}

async fn check(backend: &OpenedBackend, model: &BTreeMap<RowKey, Bytes>, scan: Scan) {
    let found = backend.scan(scan.clone()).await.unwrap().rows;
    assert_eq!(found, wanted(model, &scan), "{scan:?}");
}

async fn keys_compare_like_their_bytes(env: &mut TestEnv, backend: OpenedBackend) {
    let sets =
        [by_id(Table::Nodes), by_id(Table::WriterPositions), by_word(), by_number(), measured()];
    for rows in &sets {
        // Stored in another order than the one they are read in.
        let mut shuffled: Vec<_> = rows.iter().rev().step_by(2).cloned().collect();
        shuffled.extend(rows.iter().rev().skip(1).step_by(2).cloned());
        commit_rows(&backend, shuffled).await;
    }
    let backend = env.reload_backend(backend).await;
    for rows in &sets {
        let table = rows[0].table;
        let model = model_of(rows);
        let positions = positions(&model);
        for (index, from) in positions.iter().enumerate() {
            let other = &positions[(index * 31 + 7) % positions.len()];
            let to = (index % 4 > 0).then(|| other.clone());
            let range = KeyRange { table, from: from.clone(), to };
            for (reverse, limit) in [(false, 1_000), (true, 2)] {
                check(&backend, &model, Scan { range: range.clone(), reverse, limit }).await;
            }
        }
    }
}

async fn text_has_no_other_order_than_its_bytes(env: &mut TestEnv, backend: OpenedBackend) {
    commit_rows(&backend, by_word()).await;
    let backend = env.reload_backend(backend).await;
    let mut words = WORDS;
    words.sort_unstable();
    let keys = |rows: Vec<Row>| rows.into_iter().map(|row| row.key).collect::<Vec<_>>();
    let mut sorted = words.map(|word| RowKey::new().text(word)).to_vec();
    assert_eq!(keys(rows_of(&backend, Table::Settings).await), sorted);
    let backwards = Scan { reverse: true, ..everything(Table::Settings) };
    sorted.reverse();
    assert_eq!(keys(backend.scan(backwards).await.unwrap().rows), sorted);
    // Everything that begins with `a`, and nothing that begins with `A` or `á`.
    let from = RowKey::from_bytes(b"a").unwrap();
    let to = from.clone().after_prefix();
    let range = KeyRange { table: Table::Settings, from, to };
    let scan = Scan { range, ..everything(Table::Settings) };
    let found = keys(backend.scan(scan).await.unwrap().rows);
    let begins = words.iter().filter(|word| word.starts_with('a'));
    assert_eq!(found, begins.map(|word| RowKey::new().text(word)).collect::<Vec<_>>());
}

async fn a_range_begins_at_its_first_key_and_ends_before_its_last(env: &mut TestEnv) {
    let backend = env.open_backend().await;
    for table in Table::ALL {
        commit_rows(&backend, (0..8).map(|number| put(table, number, number)).collect()).await;
    }
    let backend = env.reload_backend(backend).await;
    for table in Table::ALL {
        let keys = |rows: Vec<Row>| rows.into_iter().map(|row| row.key).collect::<Vec<_>>();
        for (from, to, wanted) in
            [(2, Some(5), 2..5), (0, Some(1), 0..1), (7, None, 7..8), (3, None, 3..8)]
        {
            let wanted: Vec<_> = wanted.map(|number| key(table, number)).collect();
            let mut scan = Scan { range: range(table, from, to), ..everything(table) };
            assert_eq!(keys(backend.scan(scan.clone()).await.unwrap().rows), wanted, "{scan:?}");
            scan.reverse = true;
            let wanted: Vec<_> = wanted.into_iter().rev().collect();
            assert_eq!(keys(backend.scan(scan.clone()).await.unwrap().rows), wanted, "{scan:?}");
        }
    }
}

async fn a_scan_gives_no_more_than_its_limit(env: &mut TestEnv, backend: OpenedBackend) {
    let tables = [Table::Nodes, Table::Metrics];
    let rows = |table| (0..20).map(|number| put(table, number, number)).collect::<Vec<_>>();
    for table in tables {
        commit_rows(&backend, rows(table)).await;
    }
    let backend = env.reload_backend(backend).await;
    for table in tables {
        let model = model_of(&rows(table));
        for limit in [0, 1, 2, 19, 20, 21, 1_000_000, u32::MAX as usize, usize::MAX] {
            for range in [KeyRange::all(table), range(table, 5, Some(15)), range(table, 18, None)] {
                for reverse in [false, true] {
                    check(&backend, &model, Scan { range: range.clone(), reverse, limit }).await;
                }
            }
        }
    }
}

async fn a_scan_may_go_backwards(env: &mut TestEnv, backend: OpenedBackend) {
    for table in [Table::Users, Table::Audit] {
        commit_rows(&backend, (0..10).map(|number| put(table, number, number)).collect()).await;
    }
    let backend = env.reload_backend(backend).await;
    for table in [Table::Users, Table::Audit] {
        let scan = Scan { range: range(table, 2, Some(9)), reverse: true, limit: 3 };
        let found = backend.scan(scan).await.unwrap().rows;
        let wanted =
            [8, 7, 6].map(|number| Row { key: key(table, number), body: body(table, number) });
        assert_eq!(found, wanted, "{table:?}");
    }
}

async fn empty_and_inverted_ranges_are_empty(env: &mut TestEnv, backend: OpenedBackend) {
    let tables = [Table::Nodes, Table::Metrics, Table::Audit, Table::Settings];
    for table in tables {
        commit_rows(&backend, (0..9).map(|number| put(table, number, 1)).collect()).await;
    }
    let backend = env.reload_backend(backend).await;
    for table in tables {
        let ranges = [
            range(table, 4, Some(4)),
            range(table, 5, Some(4)),
            range(table, 8, Some(0)),
            range(table, 20, Some(30)),
            range(table, 20, None),
            KeyRange { table, from: RowKey::new(), to: Some(RowKey::new()) },
            KeyRange { table, from: key(table, 3), to: Some(RowKey::new()) },
            KeyRange { table, from: RowKey::new(), to: Some(RowKey::from_bytes(&[0]).unwrap()) },
            KeyRange { table, from: key(table, 3).successor(), to: Some(key(table, 4)) },
            KeyRange { table, from: RowKey::from_bytes(&[0xff; 60]).unwrap(), to: None },
        ];
        for range in ranges {
            for reverse in [false, true] {
                let scan = Scan { range: range.clone(), reverse, limit: 9 };
                assert_eq!(backend.scan(scan.clone()).await.unwrap().rows, [], "{scan:?}");
            }
        }
    }
    // A table without rows beside those that have some.
    assert_eq!(rows_of(&backend, Table::Users).await, []);
}

async fn pages_give_every_row_once(env: &mut TestEnv, backend: OpenedBackend) {
    let rows = measured();
    commit_rows(&backend, rows.clone()).await;
    let backend = env.reload_backend(backend).await;
    let model = model_of(&rows);
    for limit in [1, 7, 20] {
        let (mut forwards, mut backwards) = (Vec::new(), Vec::new());
        let mut range = KeyRange::all(Table::Metrics);
        loop {
            let scan = Scan { range: range.clone(), reverse: false, limit };
            let page = backend.scan(scan).await.unwrap().rows;
            let Some(last) = page.last() else { break };
            range.from = last.key.clone().successor();
            forwards.extend(page);
        }
        let mut range = KeyRange::all(Table::Metrics);
        loop {
            let scan = Scan { range: range.clone(), reverse: true, limit };
            let page = backend.scan(scan).await.unwrap().rows;
            let Some(last) = page.last() else { break };
            range.to = Some(last.key.clone());
            backwards.extend(page);
        }
        let all = Scan { reverse: false, ..everything(Table::Metrics) };
        assert_eq!(forwards, wanted(&model, &all), "{limit} at a time");
        backwards.reverse();
        assert_eq!(backwards, forwards, "{limit} at a time");
    }
}

async fn a_scan_sees_what_was_stored_before_it(env: &mut TestEnv, backend: OpenedBackend) {
    for mark in 1..30 {
        for table in [Table::Nodes, Table::Metrics] {
            commit_rows(&backend, vec![put(table, 1, mark), put(table, mark + 1, 0)]).await;
            // Whoever reads: this task, and another one.
            let handle = backend.clone();
            let read = tokio::spawn(async move { marks_of(&handle, table).await });
            let mut wanted = vec![(1, mark)];
            wanted.extend((2..=mark + 1).map(|number| (number, 0)));
            assert_eq!(marks_of(&backend, table).await, wanted);
            assert_eq!(read.await.unwrap(), wanted);
        }
    }
    let backend = env.reload_backend(backend).await;
    assert_eq!(marks_of(&backend, Table::Nodes).await[0], (1, 29));
}

/// Every commit replaces all rows, and every third has no block: a page's rows tell its position, and that
/// tells the serial.
async fn a_page_says_at_which_moment_it_was_read(env: &mut TestEnv, backend: OpenedBackend) {
    const COMMITS: u64 = 60;
    const ROWS: u32 = 10;
    let tables = [Table::Nodes, Table::Metrics];
    let commit_at = move |head: &Head| {
        let number = head.position.next().get();
        let mark = u32::try_from(number).unwrap();
        let rows = move |table| (0..ROWS).map(move |number| put(table, number, mark));
        let rows = tables.into_iter().flat_map(rows).collect();
        let id = u8::try_from(number).unwrap();
        match number % 3 {
            0 => {
                let entry = Some(CommitId::from_bytes([id; 16]));
                Commit { entry, rows, ..Commit::on(head) }
            }
            _ => Commit { block: Some(block_after(head, id)), rows, ..Commit::on(head) },
        }
    };
    backend.commit(&commit_at(&genesis())).await.unwrap();
    let handle = backend.clone();
    let writer = tokio::spawn(async move {
        for number in 1..COMMITS {
            let head = handle.head().await.unwrap();
            handle.commit(&commit_at(&head)).await.unwrap();
            if number % 4 == 0 {
                // What does not count leaves pages as they are.
                let flush = Commit { checkpoint: Some(head.serial), ..Commit::default() };
                commit_next(&handle, flush).await.unwrap();
            }
            tokio::task::yield_now().await;
        }
    });
    let readers: Vec<_> = tables
        .into_iter()
        .map(|table| {
            let backend = backend.clone();
            tokio::spawn(async move {
                let mut pages = 0;
                loop {
                    let head = backend.head().await.unwrap();
                    let limit = [1, 3, usize::MAX][pages % 3];
                    let scan = Scan { reverse: pages % 2 == 0, limit, ..everything(table) };
                    let page = backend.scan(scan).await.unwrap();
                    let (position, serial) = (page.position.get(), page.serial.get());
                    assert!((position, serial) >= (head.position.get(), head.serial.get()));
                    assert_eq!(serial, position - position / 3, "the serial of another moment");
                    assert_eq!(page.rows.len(), limit.min(ROWS as usize));
                    let body = body(table, u32::try_from(position).unwrap());
                    let fit = page.rows.iter().all(|row| row.body == body);
                    assert!(fit, "rows of another moment than {position}");
                    if position == COMMITS {
                        break;
                    }
                    pages += 1;
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
    let page = backend.scan(everything(Table::Routes)).await.unwrap();
    assert_eq!((page.position.get(), page.serial.get()), (COMMITS, COMMITS - COMMITS / 3));
}
