//! What is stored, as callers read it.

use ghostwire_store_core::digest::Digest;
use sha2::{Digest as _, Sha256};

use crate::prelude::*;

/// Points of each series: a tree of three levels, where a row takes 80 bytes.
const MOMENTS: usize = 600;
/// They are recorded so many moments at a time, for all series at once, as they arrive in life.
const MOMENTS_AT_ONCE: usize = 50;
const NODES: u8 = 120;
const NODES_WITH_SERIES: usize = 7;
const ENTRIES: usize = 1_800;
/// Not the numbers of rows that the store reads at once: each page begins with a search.
const POINTS_PER_PAGE: usize = 90;
const ENTRIES_PER_PAGE: usize = 70;
/// What is recorded here is never pruned by random writes: it lies ahead of their clock.
const LATER: i64 = BEGINNING + 3_600_000_000;

fn at(moment: usize) -> Timestamp {
    Timestamp::from_micros(LATER + moment as i64 * 1_000_000).unwrap()
}

fn id(number: usize) -> [u8; 10] {
    let mut id = [0xfe; 10];
    id[2..].copy_from_slice(&(number as u64).to_be_bytes());
    id
}

/// Stores so much that the trees have inner pages, and series are in every place that a backend has
/// for them.
pub(super) async fn populate(store: &Opened) -> Result<()> {
    let moment = Timestamp::from_micros(BEGINNING).unwrap();
    let user = UserId::time_ordered(moment, id(0));
    let mut transaction = Transaction::new()
        .then(UserCommand::Create { id: user, user: NewUser::local("crowd".parse().unwrap()) })?;
    let mut nodes = Vec::new();
    for number in 1..=NODES {
        let node = NodeId::time_ordered(moment, id(number.into()));
        let registration = Box::new(machine(u32::MAX - u32::from(number), by(user)));
        let register: Command = NodeCommand::Register { id: node, registration }.into();
        transaction = transaction.then(register)?;
        nodes.push(node);
    }
    store.transact(transaction).await?;
    for first in (0..MOMENTS).step_by(MOMENTS_AT_ONCE) {
        let of_series = |(number, node): (usize, Option<NodeId>)| {
            (first..first + MOMENTS_AT_ONCE).map(move |moment| {
                point(node, "rx_bytes_total", at(moment), (moment * number) as f64 * 0.25)
            })
        };
        let nodes = nodes.iter().take(NODES_WITH_SERIES).copied().map(Some);
        let points = [None].into_iter().chain(nodes).enumerate().flat_map(of_series).collect();
        store.metrics().record_many(points).await?;
        let entries = ENTRIES * first / MOMENTS..ENTRIES * (first + MOMENTS_AT_ONCE) / MOMENTS;
        store.audit().append(entries.map(numbered).collect()).await?;
    }
    Ok(())
}

fn numbered(number: usize) -> AuditEntry {
    let at = at(number);
    let id = AuditId::time_ordered(at, id(number));
    AuditEntry { id, subject: text(&format!("{number:0>200}")), ..entry(1, at) }
}

/// What somebody finds who opens a store and reads all of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Contents {
    /// Every listing of entities is of this.
    pub(super) state: Digest,
    pub(super) serial: Serial,
    changes: Fingerprint,
    points: Fingerprint,
    aggregates: Fingerprint,
    entries: [Fingerprint; 2],
}

impl Contents {
    /// Without the series.
    pub(super) fn entities(&self) -> impl PartialEq + use<> {
        (self.state, self.serial, self.changes)
    }

    /// Reads everything by the calls that callers have, and with none that is there to find damage.
    pub(super) async fn read(store: &Opened) -> Result<Self> {
        let (points, aggregates) = read_metrics(store).await?;
        Ok(Self {
            state: state_digest(&store.view()),
            serial: store.view().serial(),
            changes: read_changes(store).await?,
            points,
            aggregates,
            entries: [read_entries(store, false).await?, read_entries(store, true).await?],
        })
    }
}

/// How many things were read, and a hash over them, in order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Fingerprint {
    count: usize,
    hash: [u8; 32],
}

impl Fingerprint {
    fn add(&mut self, thing: &impl Debug) {
        self.count += 1;
        let hash = Sha256::new().chain_update(self.hash).chain_update(format!("{thing:?}"));
        self.hash = hash.finalize().into();
    }
}

/// The points page by page, and each series' aggregates from its middle on.
async fn read_metrics(store: &Opened) -> Result<(Fingerprint, Fingerprint)> {
    let all = MetricQuery { node: None, metric: None, from: Timestamp::EPOCH, to: at(MOMENTS) };
    let (mut points, mut aggregates) = (Fingerprint::default(), Fingerprint::default());
    let mut series = BTreeSet::new();
    let limit = Limit::new(POINTS_PER_PAGE).unwrap();
    let mut request = PageRequest::first(limit);
    loop {
        let page = store.metrics().range(&all, &request).await?;
        for point in &page.items {
            points.add(point);
            series.insert((point.node, point.metric.clone()));
        }
        let Some(next) = page.next else { break };
        request = PageRequest::after(limit, next);
    }
    for (node, metric) in series {
        let of_series = MetricQuery { node: Some(node), metric: Some(metric), ..all.clone() };
        for moment in [MOMENTS / 3, MOMENTS / 2] {
            let query = MetricQuery { from: at(moment), to: at(moment + 40), ..of_series.clone() };
            aggregates.add(&store.metrics().aggregate(&query).await?);
            aggregates.add(&store.metrics().rollup(&query, Rollup::Minute).await?);
        }
    }
    Ok((points, aggregates))
}

async fn read_entries(store: &Opened, newest_first: bool) -> Result<Fingerprint> {
    let query = AuditQuery { newest_first, ..AuditQuery::default() };
    let mut found = Fingerprint::default();
    let limit = Limit::new(ENTRIES_PER_PAGE).unwrap();
    let mut request = PageRequest::first(limit);
    loop {
        let page = store.audit().query(&query, &request).await?;
        page.items.iter().for_each(|entry| found.add(entry));
        let Some(next) = page.next else { return Ok(found) };
        request = PageRequest::after(limit, next);
    }
}

/// The commits whose blocks are kept.
async fn read_changes(store: &Opened) -> Result<Fingerprint> {
    let last = store.view().serial();
    let (mut found, mut next) = (Fingerprint::default(), Serial::ZERO);
    let mut watch = store.watch(next);
    while next < last {
        match watch.next().await {
            Some(Ok(commit)) => {
                found.add(&commit);
                next = commit.serial;
            }
            Some(Err(error)) => match *error.kind() {
                Compacted { oldest } if found.count == 0 => {
                    next = Serial::new(oldest - 1);
                    watch = store.watch(next);
                    found.add(&oldest);
                }
                _ => return Err(error),
            },
            None => panic!("the stream of changes ended before the last commit"),
        }
    }
    Ok(found)
}
