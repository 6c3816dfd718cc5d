//! How fast commits, scans and opening are: `cargo run --release -p ghostwire-store-libsql
//! --example commit_speed -- [nodes] [directory]`. Figures are medians; the disk decides them.

#![allow(clippy::print_stdout)]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ghostwire_store_core::backend::{Backend, Commit, Head, KeyRange, Scan};
use ghostwire_store_core::block::{BlockBuilder, ChangeKind, RowChange, Serial};
use ghostwire_store_core::domain::*;
use ghostwire_store_core::error::Result;
use ghostwire_store_core::schema::{Record, Table};
use ghostwire_store_libsql::{LibsqlBackend, LibsqlOptions};

const GROUP: u32 = 256;

fn bytes<const N: usize>(kind: u8, number: u32) -> [u8; N] {
    let mut bytes = [kind; N];
    for (to, from) in bytes.iter_mut().rev().zip(number.to_le_bytes()) {
        *to = from;
    }
    bytes
}

fn node(number: u32, revision: u64) -> Result<Node> {
    let at = Timestamp::from_secs(1_700_000_000 + i64::from(number))?;
    let mut random = [0; 10];
    for (to, from) in random.iter_mut().zip(number.to_le_bytes()) {
        *to = from;
    }
    Ok(Node {
        id: NodeId::time_ordered(at, random),
        user: Some(UserId::from_bytes(bytes(2, number % 1000))),
        tags: TagSet::empty(),
        hostname: Hostname::new(format!("host-{number}"))?,
        label: DnsLabel::new(format!("host-{number}"))?,
        machine_key: MachineKey::from_bytes(bytes(3, number))?,
        node_key: NodeKey::from_bytes(bytes(4, number))?,
        disco_key: Some(DiscoKey::from_bytes(bytes(5, number))?),
        ipv4: Some(std::net::Ipv4Addr::from(0x6440_0000 + number)),
        ipv6: Some(std::net::Ipv6Addr::from(
            0xfd7a_115c_a1e0_0000_0000_0000_0000_0000 + u128::from(number),
        )),
        host_info: HostInfo::default(),
        register_method: RegisterMethod::AuthKey,
        preauth_key: None,
        ephemeral: false,
        expires_at: None,
        created_at: at,
        updated_at: at,
        revision: Revision::new(revision)?,
        families: AddressFamilies::Both,
        settings: None,
    })
}

/// A commit of one block, with its rows or without.
fn group(head: &Head, numbers: impl Iterator<Item = u32>, fold: bool) -> Result<Commit> {
    let mut builder = BlockBuilder::default();
    for number in numbers {
        builder.put(ChangeKind::Created, &node(number, head.serial.get() + 1)?);
    }
    let serial = head.serial.next();
    let mut id = [7; 16];
    for (to, from) in id.iter_mut().zip(serial.get().to_be_bytes()) {
        *to = from;
    }
    let time = Timestamp::from_secs(1_800_000_000)?;
    let closed = builder.finish(serial, BlockId::from_bytes(id), head.hash, time)?;
    Ok(Commit {
        block: Some(closed.block),
        rows: if fold { closed.changes } else { Vec::new() },
        checkpoint: fold.then_some(serial),
        ..Commit::on(head)
    })
}

fn report(what: &str, mut times: Vec<Duration>, each: usize) {
    let total: Duration = times.iter().sum();
    times.sort();
    let median = times.get(times.len() / 2).copied().unwrap_or_default();
    let rate = (times.len() * each) as f64 / total.as_secs_f64();
    println!("{what:44} median {median:>10.1?}  {:>9.0} a second", rate);
}

/// Commits groups and times them.
async fn commits(
    backend: &LibsqlBackend,
    what: &str,
    groups: impl Iterator<Item = Vec<u32>>,
    fold: bool,
) -> Result<()> {
    let mut head = backend.head().await?;
    let mut times = Vec::new();
    let mut each = 0;
    for numbers in groups {
        each = numbers.len();
        let commit = group(&head, numbers.into_iter(), fold)?;
        head = head.after(&commit)?;
        let start = Instant::now();
        backend.commit(&commit).await?;
        times.push(start.elapsed());
    }
    report(what, times, each);
    Ok(())
}

async fn series(backend: &LibsqlBackend) -> Result<()> {
    let head = backend.head().await?;
    let mut times = Vec::new();
    for batch in 0..100_i64 {
        let rows = (0..1000)
            .map(|index| {
                let point = MetricPoint {
                    node: Some(NodeId::from_bytes(bytes(1, index % 50))),
                    metric: MetricName::new("rx_bytes_total")?,
                    at: Timestamp::from_secs(1_700_000_000 + batch * 20 + i64::from(index / 50))?,
                    value: Sample::new(f64::from(index) * 1.5)?,
                };
                Ok(RowChange {
                    table: Table::Metrics,
                    kind: ChangeKind::Created,
                    key: point.key(),
                    body: Some(point.encode()),
                })
            })
            .collect::<Result<Vec<_>>>()?;
        let commit = Commit { rows, ..Commit::on(&head) };
        let start = Instant::now();
        backend.commit(&commit).await?;
        times.push(start.elapsed());
    }
    report("metrics, batches of 1,000", times, 1000);
    Ok(())
}

async fn reading(backend: &LibsqlBackend, nodes: u32) -> Result<()> {
    let start = Instant::now();
    let mut range = KeyRange::all(Table::Nodes);
    let mut count = 0;
    loop {
        let scan = Scan { range: range.clone(), reverse: false, limit: 4096 };
        let rows = backend.scan(scan).await?.rows;
        count += rows.len();
        let Some(last) = rows.last() else { break };
        range.from = last.key.clone().successor();
    }
    println!("scan of {count} nodes of {nodes} in pages of 4,096: {:.1?}", start.elapsed());
    let start = Instant::now();
    let blocks = backend.blocks(Serial::ZERO, usize::MAX).await?;
    println!("read of {} blocks: {:.1?}", blocks.len(), start.elapsed());
    Ok(())
}

async fn measure(nodes: u32, directory: &Path) -> Result<()> {
    let store = StoreId::from_bytes([1; 16]);
    let open = |name: &str| {
        LibsqlBackend::open(LibsqlOptions::new(directory.join(name), store).create(true))
    };
    let groups =
        |group: u32| (0..nodes / group).map(move |at| (at * group..(at + 1) * group).collect());
    let plain = open("blocks.db").await?;
    commits(&plain, "blocks of 256 nodes, not folded", groups(GROUP), false).await?;
    plain.close().await?;
    let folded = open("folded.db").await?;
    commits(&folded, "blocks of 256 new nodes, folded", groups(GROUP), true).await?;
    let updates = (0..50).map(|at| (at * 100..at * 100 + GROUP).collect());
    commits(&folded, "blocks of 256 neighbouring updates, folded", updates, true).await?;
    let scattered =
        (0..50_u32).map(|at| (0..GROUP).map(|i| (at * 7919 + i * 104_729) % nodes).collect());
    commits(&folded, "blocks of 256 scattered updates, folded", scattered, true).await?;
    let single = (0..1000).map(|at| vec![(at * 7919) % nodes]);
    commits(&folded, "blocks of 1 scattered update, folded", single, true).await?;
    let single = (0..1000).map(|at| vec![(at * 7919) % nodes]);
    commits(&folded, "blocks of 1 update, not folded", single, false).await?;
    series(&folded).await?;
    reading(&folded, nodes).await?;
    println!("bytes on disk: {:?}", folded.info().bytes);
    let start = Instant::now();
    folded.verify().await?;
    println!("verify: {:.1?}", start.elapsed());
    folded.close().await?;
    let start = Instant::now();
    open("folded.db").await?.close().await?;
    println!("open and close with the check of the structure: {:.1?}", start.elapsed());
    let options = LibsqlOptions::new(directory.join("folded.db"), store).check_structure(false);
    let start = Instant::now();
    LibsqlBackend::open(options).await?.close().await?;
    println!("open and close without: {:.1?}", start.elapsed());
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let nodes = arguments.next().and_then(|nodes| nodes.parse().ok()).unwrap_or(100_000);
    let base = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let directory = base.join(format!("commit-speed-{}", std::process::id()));
    let io = |error: std::io::Error| {
        ghostwire_store_core::error::Error::invalid("the directory will not do").because(error)
    };
    std::fs::create_dir(&directory).map_err(io)?;
    let result = measure(nodes, &directory).await;
    std::fs::remove_dir_all(&directory).map_err(io)?;
    result
}
