use ghostwire_store_bench_workload::results::Case;
use ghostwire_store_bench_workload::subject::{About, Progress};
use ghostwire_store_bench_workload::{Content, Spread};

use super::*;

fn about(name: &str) -> About {
    About {
        name: name.to_owned(),
        backend: name.to_owned(),
        materialize: "checkpoint".to_owned(),
        durability: "fsync".to_owned(),
        shares_commits: true,
        allocator: "the system's".to_owned(),
    }
}

fn table(
    operation: Operation,
    callers: usize,
    content: Content,
    runs: Vec<(&str, Run)>,
) -> Measured {
    let case = Case { operation, callers, content, seconds: 1.0, checkpoints: 3 };
    let of = |(name, run)| OfSubject { about: about(name), runs: vec![run], left_out: None };
    Measured { case, subjects: runs.into_iter().map(of).collect() }
}

fn registering(count: u64, debt: u64) -> Measured {
    let at = |groups, checkpoints, debt| Progress { groups, checkpoints, debt };
    let run = Run {
        seconds: 1.0,
        count,
        progress: Some((at(0, 1, 100), at(100, 4, debt))),
        block_bytes: Some(300_000.0),
        bare_sync_us: Some(5_000.0),
        ..Run::default()
    };
    table(Operation::Register, 2_048, Content::default(), vec![("zqlite", run)])
}

fn found(tables: &[Measured], words: &str) -> Reach {
    let all = reach((tables, &[], &[]), [1_000, LARGE]);
    let matching = all.into_iter().find(|reach| reach.target.contains(words));
    matching.unwrap_or_else(|| not_measured(words, "there is no such goal"))
}

#[test]
fn registrations_need_rate_and_flushing() {
    let goal = |count, debt| found(&[registering(count, debt)], "over three").reached;
    assert_eq!(goal(100_000, 100), Some(true));
    assert_eq!(goal(99_000, 100), Some(false));
    assert_eq!(goal(100_000, 101), Some(false), "work that is put off is not done");
    assert_eq!(found(&[], "over three").reached, None);
}

#[test]
fn the_plain_file_is_the_bound() {
    // 1,000 a group, 5 ms a group: 200,000 a second.
    let goal = |count| found(&[registering(count, 0)], "plain file, with one fsync").reached;
    let target = found(&[registering(160_000, 0)], "80 %");
    assert!(target.measured.starts_with("50 %"), "{}", target.measured);
    assert_eq!(target.reached, Some(false));
    assert_eq!(goal(160_000), None, "the words are of no goal");
}

#[test]
fn costs_are_compared_by_row_where_all_nodes_are_the_answer() {
    let of = |operation, nodes, us, items| {
        let content = Content { nodes, preauth_keys: 1, ..Content::default() };
        let run = Run { p50_us: Some(us), items, ..Run::default() };
        table(operation, 1, content, vec![("zqlite", run)])
    };
    let mut tables = vec![
        of(Operation::NetMap, 1_000, 10.0, 1_000.0),
        of(Operation::NetMap, LARGE, 20_000.0, 1e6),
        of(Operation::NodeById, 1_000, 0.1, 1.0),
        of(Operation::NodeById, LARGE, 0.29, 1.0),
    ];
    let reach = found(&tables, "any operation");
    assert_eq!(reach.reached, Some(true), "{}", reach.measured);
    assert!(reach.measured.contains("node-by-id 2.9"), "{}", reach.measured);
    tables.push(of(Operation::NodeByKey, 1_000, 0.1, 1.0));
    tables.push(of(Operation::NodeByKey, LARGE, 0.4, 1.0));
    assert_eq!(found(&tables, "any operation").reached, Some(false));
}

#[test]
fn memory_leaves_the_program_out() {
    let opened = |nodes, before, bytes| Opening {
        about: about("zqlite"),
        nodes,
        seconds: Spread::of([1.0]),
        resident_before_bytes: Spread::of([before]),
        resident_bytes: Spread::of([bytes]),
        bytes_on_disk: 1,
    };
    let reached = |openings: &[Opening], words: &str| {
        let all = reach((&[], openings, &[]), [1_000, LARGE]);
        let found = all.into_iter().find(|reach| reach.target.contains(words));
        found.map(|reach| (reach.reached, reach.measured))
    };
    let openings = [opened(0, 14e6, 19e6), opened(LARGE, 14e6, 19e6 + 1.1e9)];
    let a_node = reached(&openings, "of a node, at");
    assert_eq!(a_node, Some((Some(true), "1,100 bytes".to_owned())));
    let of_empty =
        |openings: &[Opening]| reached(openings, "empty zqlite").and_then(|found| found.0);
    assert_eq!(of_empty(&openings), Some(true));
    assert_eq!(of_empty(&[opened(0, 1e6, 11.5e6)]), Some(false));
}

#[test]
fn a_sealed_store_is_compared_with_the_plain_one_of_the_same_round() {
    let run = |count| Run { seconds: 1.0, count, ..Run::default() };
    let tables = |count| {
        let runs = vec![("zqlite", run(1_000)), ("zqlite-sealed", run(count))];
        [table(Operation::Register, 2_048, Content::default(), runs)]
    };
    let goal = |count| found(&tables(count), "at least 0.9 of plain").reached;
    assert_eq!((goal(900), goal(899)), (Some(true), Some(false)));
    assert_eq!(found(&[registering(1, 0)], "at least 0.9 of plain").reached, None);
}
