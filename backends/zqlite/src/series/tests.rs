//! The series against a plain map: commits, prunes, scans and replays at random, with limits so
//! small that something is always being compacted.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::BTreeMap;

use bytes::Bytes;
use ghostwire_store_core::backend::{KeyRange, Row, Scan};
use ghostwire_store_core::block::{ChangeKind, RowChange};
use ghostwire_store_core::error::ErrorKind;
use ghostwire_store_core::schema::{RowKey, Table};

use super::*;
use crate::series::scan::Page;

const LIMITS: Limits = Limits { immutable: 6_000, slice: 500, data_blocks: 8_000 };
const TABLES: [Table; 3] = [Table::Metrics, Table::Audit, Table::WriterPositions];

/// Numbers that look random (SplitMix64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }

    fn table(&mut self) -> Table {
        TABLES[self.roll(3) as usize]
    }

    /// Keys of a few series, some of which share no prefix, and the empty key.
    fn key(&mut self, time: u64) -> RowKey {
        let series = [0u8, 1, 7, 255][self.roll(4) as usize];
        let key = RowKey::new();
        match self.roll(40) {
            0 => key,
            1 => key.id(&[series; 16]),
            2 => key.id(&[series; 16]).text(&"x".repeat(self.roll(480) as usize)),
            _ => key.id(&[series; 16]).integer(i64::try_from(time).unwrap()),
        }
    }

    fn body(&mut self) -> Bytes {
        let length = match self.roll(60) {
            0 => 9_000,
            1 => 4_000,
            2 => 0,
            _ => self.roll(60) as usize,
        };
        vec![self.roll(256) as u8; length].into()
    }

    fn range(&mut self) -> KeyRange {
        let table = self.table();
        let (from, to) = (self.roll(600), self.roll(600));
        let to = (self.roll(5) > 0).then(|| self.key(to));
        KeyRange { table, from: self.key(from), to }
    }
}

/// What a file would hold.
struct Stored {
    head: SeriesHead,
    journal: BTreeMap<u64, Vec<u8>>,
    data_blocks: BTreeMap<(u8, Vec<u8>), Vec<u8>>,
}

impl DataBlocks for Stored {
    fn keys(
        &mut self,
        table: u8,
        from: &[u8],
        to: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Vec<u8>>> {
        let of_table = self.data_blocks.keys().filter(|key| key.0 == table).map(|key| &key.1);
        let covering = of_table.clone().rfind(|key| key[..] <= *from);
        let within = of_table.filter(|key| key[..] > *from && to.is_none_or(|to| key[..] < *to));
        Ok(covering.into_iter().chain(within).take(limit).cloned().collect())
    }

    fn rows(&mut self, table: u8, key: &[u8]) -> Result<SortedRun> {
        data_block::read(table, key, &self.data_blocks[&(table, key.to_vec())])
    }
}

impl Stored {
    fn replay(&self) -> Result<Memtable> {
        let mut replay = Replay::new(self.head);
        for (number, entry) in &self.journal {
            replay.take(*number, journal::read(entry)?)?;
        }
        replay.finish()
    }

    fn commit(&mut self, memtable: &mut Memtable, commit: &Commit) {
        let head = self.head;
        let Some(plan) = plan(&head, memtable, commit, LIMITS, self).unwrap() else { return };
        for removed in plan.edits.removed {
            self.data_blocks.remove(&removed).unwrap();
        }
        for data_block in plan.edits.put {
            self.data_blocks.insert((data_block.table, data_block.key), data_block.content);
        }
        self.journal.insert(head.next, plan.entry);
        self.head = plan.head;
        self.journal = self.journal.split_off(&self.head.first);
        *memtable = plan.memtable;
        assert_eq!(self.data_blocks.len() as u64, self.head.data_blocks);
    }

    fn scan(&self, memtable: &Memtable, scan: &Scan) -> Vec<Row> {
        let (table, from) = (scan.range.table.number(), scan.range.from.as_bytes());
        let to = scan.range.to.as_ref().map(RowKey::as_bytes);
        let of_table = || self.data_blocks.iter().filter(|((of, _), _)| *of == table);
        let first = of_table().map(|(key, _)| &key.1).rfind(|key| key[..] <= *from);
        let first = first.map_or(from, |first| &first[..]);
        let mut data_blocks: Vec<_> = of_table()
            .filter(|((_, key), _)| key[..] >= *first && to.is_none_or(|to| key[..] < *to))
            .collect();
        if scan.reverse {
            data_blocks.reverse();
        }
        let mut page = Page::new(scan, memtable);
        for ((_, key), content) in data_blocks {
            if page.is_full() {
                break;
            }
            page.take(key, content).unwrap();
        }
        page.finish().unwrap()
    }

    fn check_order(&self) {
        let mut before: Option<(u8, Vec<u8>)> = None;
        for ((table, key), content) in &self.data_blocks {
            let rows = data_block::read(*table, key, content).unwrap();
            assert!(before.is_none_or(|before| before < (*table, key.clone())));
            assert!(rows.get(0).unwrap().key >= &key[..]);
            before = rows.last().map(|last| (last.table, last.key.to_vec()));
        }
    }
}

type Model = BTreeMap<(Table, RowKey), Bytes>;

fn commit(dice: &mut Dice, time: u64) -> Commit {
    let mut commit = Commit::default();
    if dice.roll(6) == 0 {
        commit.prune = (0..=dice.roll(3)).map(|_| dice.range()).collect();
    }
    for _ in 0..dice.roll(40) {
        // Mostly behind what is there.
        let time = if dice.roll(5) == 0 { dice.roll(600) } else { time + dice.roll(3) };
        let body = (dice.roll(6) > 0).then(|| dice.body());
        let (table, key) = (dice.table(), dice.key(time));
        commit.rows.push(RowChange { table, kind: ChangeKind::Updated, key, body });
    }
    commit
}

fn apply(model: &mut Model, commit: &Commit) {
    for range in &commit.prune {
        model.retain(|(table, key), _| {
            *table != range.table
                || *key < range.from
                || range.to.as_ref().is_some_and(|to| key >= to)
        });
    }
    for row in &commit.rows {
        let place = (row.table, row.key.clone());
        match &row.body {
            Some(body) => model.insert(place, body.clone()),
            None => model.remove(&place),
        };
    }
}

fn expected(model: &Model, scan: &Scan) -> Vec<Row> {
    let within = model.iter().filter(|((table, key), _)| {
        *table == scan.range.table
            && *key >= scan.range.from
            && scan.range.to.as_ref().is_none_or(|to| key < to)
    });
    let row =
        |((_, key), body): (&(Table, RowKey), &Bytes)| Row { key: key.clone(), body: body.clone() };
    if scan.reverse {
        within.rev().take(scan.limit).map(row).collect()
    } else {
        within.take(scan.limit).map(row).collect()
    }
}

#[test]
fn a_plain_map_would_say_the_same() {
    let (mut cuts, mut most_data_blocks) = (0, 0);
    for seed in 0..40 {
        let mut dice = Dice(seed * 1_000_003);
        let mut stored = Stored {
            head: SeriesHead::EMPTY,
            journal: BTreeMap::new(),
            data_blocks: BTreeMap::new(),
        };
        let mut memtable = stored.replay().unwrap();
        let mut model = Model::new();
        for time in 0..150 {
            let commit = commit(&mut dice, time * 3);
            let first = stored.head.first;
            stored.commit(&mut memtable, &commit);
            apply(&mut model, &commit);
            cuts += u64::from(stored.head.first > first);
            most_data_blocks = most_data_blocks.max(stored.data_blocks.len());
            if dice.roll(12) == 0 {
                // As if the process died.
                memtable = stored.replay().unwrap();
            }
            for _ in 0..4 {
                let (reverse, limit) = (dice.roll(2) == 0, dice.roll(30) as usize + 1);
                let limit = if dice.roll(5) == 0 { usize::MAX } else { limit };
                let scan = Scan { range: dice.range(), reverse, limit };
                assert_eq!(stored.scan(&memtable, &scan), expected(&model, &scan), "{seed} {time}");
            }
            assert!(memtable.runs() < 16);
        }
        let replayed = stored.replay().unwrap();
        for table in TABLES {
            let scan = Scan { range: KeyRange::all(table), reverse: false, limit: usize::MAX };
            assert_eq!(stored.scan(&memtable, &scan), expected(&model, &scan));
            assert_eq!(stored.scan(&replayed, &scan), expected(&model, &scan));
        }
        stored.check_order();
    }
    assert!(cuts > 100 && most_data_blocks > 20, "{cuts} {most_data_blocks}");
}

#[test]
fn points_of_many_series_fill_their_chunks() {
    let mut stored =
        Stored { head: SeriesHead::EMPTY, journal: BTreeMap::new(), data_blocks: BTreeMap::new() };
    let mut memtable = stored.replay().unwrap();
    for time in 0..2_000 {
        let point = |node: u8| RowChange {
            table: Table::Metrics,
            kind: ChangeKind::Updated,
            key: RowKey::new().id(&[node; 16]).text("rx_bytes_total").integer(time * 300_000_000),
            body: Some(Bytes::from(vec![9; 10])),
        };
        let commit = Commit { rows: (0..20).map(point).collect(), ..Commit::default() };
        stored.commit(&mut memtable, &commit);
    }
    let bytes: usize = stored.data_blocks.values().map(Vec::len).sum();
    let fill = bytes / stored.data_blocks.len();
    // The last one of each series is not full yet.
    assert!(
        fill > 3_200 && bytes / 40_000 < 18,
        "{fill} of {} data blocks",
        stored.data_blocks.len()
    );
    assert!(stored.head.next - stored.head.first < 50, "{:?}", stored.head);
}

#[test]
fn the_journal_is_cut_also_where_entries_undo_each_other() {
    let empty = || Stored {
        head: SeriesHead::EMPTY,
        journal: BTreeMap::new(),
        data_blocks: BTreeMap::new(),
    };
    let row = |table: Table, time: i64| RowChange {
        table,
        kind: ChangeKind::Updated,
        key: RowKey::new().id(&[1; 16]).integer(time),
        body: Some(Bytes::from(vec![9; 40])),
    };
    let overwrites = |_| Commit { rows: vec![row(Table::WriterPositions, 1)], ..Commit::default() };
    let prunes = |time: i64| {
        let all = KeyRange {
            to: Some(RowKey::from_bytes(&[9; 30]).unwrap()),
            ..KeyRange::all(Table::Metrics)
        };
        let (rows, prune) = match time % 3 {
            0 => (Vec::new(), vec![all]),
            _ => (vec![row(Table::Metrics, time)], Vec::new()),
        };
        Commit { rows, prune, ..Commit::default() }
    };
    for commit_at in [&overwrites as &dyn Fn(i64) -> Commit, &prunes] {
        let mut stored = empty();
        let mut memtable = stored.replay().unwrap();
        let mut longest = 0;
        for time in 0..3_000 {
            stored.commit(&mut memtable, &commit_at(time));
            longest = longest.max(stored.journal.values().map(Vec::len).sum());
        }
        assert!(longest < 4 * LIMITS.immutable, "{longest}");
        assert!(stored.head.next - stored.head.first < 600, "{:?}", stored.head);
    }
}

#[test]
fn a_damaged_chunk_does_not_refuse_what_has_nothing_to_do_with_it() {
    let mut stored =
        Stored { head: SeriesHead::EMPTY, journal: BTreeMap::new(), data_blocks: BTreeMap::new() };
    let mut memtable = stored.replay().unwrap();
    let mut commit = |stored: &mut Stored, time: i64| {
        let row = |node: u8| RowChange {
            table: Table::Metrics,
            kind: ChangeKind::Updated,
            key: RowKey::new().id(&[node; 16]).integer(time),
            body: Some(Bytes::from(vec![9; 40])),
        };
        let commit = Commit { rows: (0..20).map(row).collect(), ..Commit::default() };
        stored.commit(&mut memtable, &commit);
        memtable.clone()
    };
    (0..50).for_each(|time| drop(commit(&mut stored, time)));
    assert!(stored.data_blocks.len() > 4);
    let whole = std::mem::take(&mut stored.data_blocks);
    stored.data_blocks = whole.keys().map(|key| (key.clone(), vec![0xff; 9])).collect();
    let first = stored.head.first;
    let memtable = (50..90).map(|time| commit(&mut stored, time)).last().unwrap();
    assert_eq!(stored.head.first, first);
    // Nothing got lost meanwhile.
    stored.data_blocks = whole;
    let all = Scan { range: KeyRange::all(Table::Metrics), reverse: false, limit: usize::MAX };
    assert_eq!(stored.scan(&memtable, &all).len(), 20 * 90);
    (90..200).for_each(|time| drop(commit(&mut stored, time)));
    assert!(stored.head.first > first);
}

/// Whatever the bytes, an error or rows that can be written again.
#[test]
fn damaged_bytes_are_refused_or_read_as_rows() {
    let mut dice = Dice(5);
    let mut run = SortedRun::default();
    for number in 0..50 {
        let (key, body) = (dice.key(number), dice.body());
        run.push(Image { table: 11, key: key.as_bytes(), body: Some(&body[..body.len().min(90)]) });
    }
    run.sort();
    let spans = [ranges::Span { table: 12, from: vec![1, 2], to: Some(vec![3]) }];
    let entry = journal::write(Some((11, b"abc")), &Ranges::new(spans), &run);
    let data_block = data_block::write(11, &[], &run, &[]).remove(0).content;
    let same = journal::read(&entry).unwrap();
    assert_eq!(same.rows.images().collect::<Vec<_>>(), run.images().collect::<Vec<_>>());
    assert_eq!(same.compacted, Some((11, b"abc".to_vec())));
    for (bytes, is_entry) in [(&entry, true), (&data_block, false)] {
        let mut refused = 0;
        for round in 0..20_000 {
            let mut damaged = bytes.clone();
            let at = dice.roll(damaged.len() as u64) as usize;
            damaged[at] ^= 1 << dice.roll(8);
            if round % 3 == 0 {
                damaged.truncate(dice.roll(damaged.len() as u64) as usize);
            }
            let read = if is_entry {
                journal::read(&damaged).map(|entry| entry.rows)
            } else {
                data_block::read(11, &[], &damaged)
            };
            match read {
                Ok(rows) => {
                    assert!(rows.images().is_sorted_by(|a, b| a.table_key() < b.table_key()))
                }
                Err(error) => {
                    assert_eq!(*error.kind(), ErrorKind::Corrupt);
                    refused += 1;
                }
            }
        }
        assert!(refused > 1_000, "{refused}");
    }
}

#[test]
fn entries_that_are_missing_show() {
    let mut stored =
        Stored { head: SeriesHead::EMPTY, journal: BTreeMap::new(), data_blocks: BTreeMap::new() };
    let mut memtable = stored.replay().unwrap();
    let mut dice = Dice(1);
    for time in 0..5 {
        let key = dice.key(time);
        let body = Some(dice.body());
        let row = RowChange { table: Table::Audit, kind: ChangeKind::Updated, key, body };
        stored.commit(&mut memtable, &Commit { rows: vec![row], ..Commit::default() });
    }
    for number in 1..=5 {
        let entry = stored.journal.remove(&number).unwrap();
        assert_eq!(*stored.replay().unwrap_err().kind(), ErrorKind::Corrupt);
        stored.journal.insert(number, entry);
    }
    stored.replay().unwrap();
    stored.journal.insert(6, stored.journal[&5].clone());
    assert_eq!(*stored.replay().unwrap_err().kind(), ErrorKind::Corrupt);
}

/// Opening replays the journal: many prunes in it must not cost a look at every row each.
#[test]
fn a_replay_looks_at_each_row_once_however_often_it_was_pruned() {
    const ROWS: usize = 20_000;
    const PRUNES: usize = 200;
    let key = |time: usize| RowKey::new().id(&[1; 16]).integer(i64::try_from(time).unwrap());
    let written = (0..ROWS).step_by(100).map(|first| {
        let mut rows = SortedRun::default();
        for time in first..first + 100 {
            let (key, body) = (key(time), Some(&b"body"[..]));
            rows.push(Image { table: Table::Metrics.number(), key: key.as_bytes(), body });
        }
        Entry { rows, ..Entry::default() }
    });
    let pruned = (0..PRUNES).map(|prune| {
        let (from, to) = (key(prune * 100), Some(key(prune * 100 + 50)));
        let pruned = Ranges::of(&[KeyRange { table: Table::Metrics, from, to }]);
        Entry { pruned, ..Entry::default() }
    });
    let entries: Vec<_> = written.chain(pruned).collect();
    let rows = |memtable: &Memtable| -> usize {
        let sources = memtable.sources(Table::Metrics.number(), &[], None);
        sources.iter().map(|source| source.span.len()).sum()
    };

    let before = ranges::LOOKUPS.get();
    let mut one_by_one = Memtable::empty(1);
    for entry in &entries {
        one_by_one.prune(&entry.pruned);
        one_by_one.push(entry.rows.clone());
    }
    let looked_one_by_one = ranges::LOOKUPS.get() - before;

    let before = ranges::LOOKUPS.get();
    let next = 1 + entries.len() as u64;
    let mut replay = Replay::new(SeriesHead { next, ..SeriesHead::EMPTY });
    for (number, entry) in (1..).zip(entries) {
        replay.take(number, entry).unwrap();
    }
    let replayed = replay.finish().unwrap();
    let looked = ranges::LOOKUPS.get() - before;
    assert_eq!((rows(&one_by_one), rows(&replayed)), (ROWS / 2, ROWS / 2));
    assert!(looked <= ROWS, "{looked} looks at {ROWS} rows");
    assert!(looked_one_by_one > 100 * looked, "{looked_one_by_one} looks one by one");
}
