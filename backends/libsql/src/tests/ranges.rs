//! Ranges of keys: scanning and pruning.

use super::*;
use crate::shape::Shape;

fn positions(keys: &[RowKey]) -> Vec<RowKey> {
    let mut positions = vec![RowKey::new()];
    for key in keys {
        let bytes = key.as_bytes();
        positions.push(key.clone().successor());
        for end in [1, 3, 8, 15, 16, 17, 19, 24, 25, 30, 31, 33, 38, bytes.len()] {
            let Some(prefix) = bytes.get(..end) else { continue };
            let prefix = RowKey::from_bytes(prefix).unwrap();
            positions.extend(prefix.clone().after_prefix());
            positions.push(prefix.clone().successor());
            let high = [prefix.as_bytes(), &[0xff, 0xfe]].concat();
            positions.push(RowKey::from_bytes(&high).unwrap());
            positions.push(prefix);
        }
    }
    positions
}

async fn ranges_agree(backend: &LibsqlBackend, rows: Vec<RowChange>) {
    let table = rows[0].table;
    let model: BTreeMap<RowKey, Bytes> =
        rows.iter().map(|row| (row.key.clone(), row.body.clone().unwrap())).collect();
    let head = backend.head().await.unwrap();
    backend.commit(&rows_only(&head, rows)).await.unwrap();
    let keys: Vec<RowKey> = model.keys().step_by(7).cloned().collect();
    let positions = positions(&keys);
    for (index, from) in positions.iter().enumerate() {
        let to = &positions[(index * 31 + 7) % positions.len()];
        for to in [None, Some(to.clone())] {
            let upper = to.clone().map_or(Bound::Unbounded, Bound::Excluded);
            let is_empty = to.as_ref().is_some_and(|to| to <= from);
            let mut wanted: Vec<&RowKey> = if is_empty {
                Vec::new()
            } else {
                model.range((Bound::Included(from.clone()), upper)).map(|(key, _)| key).collect()
            };
            let range = KeyRange { table, from: from.clone(), to };
            for (reverse, limit) in [(false, 1000), (true, 1000), (false, 5), (true, 3)] {
                let scan = Scan { range: range.clone(), reverse, limit };
                let found = backend.scan(scan.clone()).await.unwrap().rows;
                let found: Vec<&RowKey> = found.iter().map(|row| &row.key).collect();
                if reverse {
                    wanted.reverse();
                }
                assert_eq!(found, wanted[..limit.min(wanted.len())], "{scan:?}");
                if reverse {
                    wanted.reverse();
                }
            }
        }
    }
}

#[tokio::test]
async fn ranges_compare_like_bytes() {
    let (_directory, path) = place();
    let backend = open(&path).await.unwrap();
    let mut rows = Vec::new();
    for node in [None, Some(0), Some(1), Some(300)] {
        for name in ["a", "cpu", "cpu_load", "rx_bytes_total"] {
            rows.extend((0..8).map(|second| put(&metric(node, name, second * 1000))));
        }
    }
    ranges_agree(&backend, rows).await;
    ranges_agree(&backend, (0..60).map(|number| put(&audit(number))).collect()).await;
    ranges_agree(&backend, (0..60).map(|number| put(&node(number))).collect()).await;
}

/// How SQLite would look for the rows of `range`.
fn plan_of(path: &Path, range: KeyRange) -> String {
    let shape = Shape::new(range.table, Schema::current(), Vec::new());
    let (sql, parameters) = shape.scan(&range, false, 1000).unwrap();
    let mut link = connect::<Link>(path, Role::Reader).unwrap();
    let mut plan = String::new();
    link.query(&format!("EXPLAIN QUERY PLAN {sql}"), parameters, |step| {
        plan += &step.get::<String>(3).unwrap();
        Ok(())
    })
    .unwrap();
    plan
}

#[tokio::test]
async fn a_series_is_sought_by_all_columns_of_its_key() {
    let (_directory, path) = place();
    let _backend = open(&path).await.unwrap();
    let cpu = || RowKey::new().id(&bytes(1, 1)).text("cpu");
    let within = |from: RowKey, to| KeyRange { table: Table::Metrics, from, to };
    let hour = within(cpu().integer(at(0).as_micros()), Some(cpu().integer(at(3600).as_micros())));
    let plan = plan_of(&path, hour);
    assert!(plan.contains("PRIMARY KEY (node=? AND metric=? AND at>? AND at<?)"), "{plan}");
    let plan = plan_of(&path, within(cpu().integer(at(0).as_micros()), None));
    assert!(plan.contains("PRIMARY KEY ((node,metric,at)>(?,?,?))"), "{plan}");
}

#[tokio::test]
async fn pruning_deletes_a_range_before_rows_are_written() {
    let (_directory, path) = place();
    let backend = open(&path).await.unwrap();
    let head = backend.head().await.unwrap();
    let points = |seconds: std::ops::Range<i64>| {
        seconds.map(|second| put(&metric(Some(1), "cpu", second))).collect::<Vec<_>>()
    };
    let mut rows = points(0..50);
    rows.extend([put(&metric(Some(2), "cpu", 3)), put(&metric(None, "cpu", 3))]);
    backend.commit(&rows_only(&head, rows)).await.unwrap();
    let prefix = || RowKey::new().id(&bytes(1, 1)).text("cpu");
    let range = KeyRange {
        table: Table::Metrics,
        from: prefix(),
        to: Some(prefix().integer(at(40).as_micros())),
    };
    let nothing = KeyRange { to: Some(RowKey::new()), ..range.clone() };
    let mut commit = rows_only(&head, points(7..8));
    commit.prune = vec![range, nothing];
    backend.commit(&commit).await.unwrap();
    let mut wanted = points(40..50);
    wanted.extend(points(7..8));
    wanted.extend([put(&metric(Some(2), "cpu", 3)), put(&metric(None, "cpu", 3))]);
    assert_eq!(all(&backend, Table::Metrics).await.unwrap(), expected(&wanted, Table::Metrics));
}
