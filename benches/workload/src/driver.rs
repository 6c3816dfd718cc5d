//! Callers, and how what they do is counted.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::runtime::Handle;

use crate::machine::thread_cpu;
use crate::results::{Case, Run};
use crate::rows::Rows;
use crate::statistics::Latencies;
use crate::subject::{Progress, Result, Subject, Write};
use crate::targets::{Targets, weight};
use crate::{Content, Operation, machine};

/// The thread that carries commands out in a store of this project.
const WRITER: &str = "ghostwire-store";
/// Reads shorter than this are not timed one by one: reading the clock would be a part of it.
const SHORT: Duration = Duration::from_micros(20);
/// So many of them are timed together.
const TOGETHER: u64 = 64;
/// A run that waits for checkpoints ends after so many times its seconds, whatever happened.
const PATIENCE: f64 = 12.0;

/// What callers have in common.
#[derive(Debug, Default)]
struct Callers {
    next: AtomicU64,
    done: AtomicU64,
    stop: AtomicBool,
    ran_out: AtomicBool,
}

impl Callers {
    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || self.ran_out.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Clone, Copy)]
struct Reading {
    at: Instant,
    done: u64,
    progress: Option<Progress>,
    writer_cpu: Duration,
    other_cpu: Duration,
    server_cpu: Option<Duration>,
}

fn reading(subject: &dyn Subject, callers: &Callers) -> Reading {
    let (writer_cpu, other_cpu) = thread_cpu(WRITER);
    Reading {
        at: Instant::now(),
        done: callers.done.load(Ordering::Relaxed),
        progress: subject.progress(),
        writer_cpu,
        other_cpu,
        server_cpu: subject.server_cpu(),
    }
}

/// One caller: a call, and when it is answered the next.
async fn call(
    subject: Arc<dyn Subject>,
    targets: Arc<Targets>,
    operation: Operation,
    callers: Arc<Callers>,
) -> Result<Vec<Duration>> {
    // A histogram for each of thousands of callers would take the processor's caches from the
    // subject.
    let mut latencies = Vec::new();
    while !callers.is_over() {
        let turn = callers.next.fetch_add(1, Ordering::Relaxed);
        let Some(write) = targets.write(operation, turn) else {
            callers.ran_out.store(true, Ordering::Relaxed);
            break;
        };
        let began = Instant::now();
        if let Err(error) = subject.write(write).await {
            callers.stop.store(true, Ordering::Relaxed);
            return Err(error);
        }
        latencies.push(began.elapsed());
        callers.done.fetch_add(weight(operation), Ordering::Relaxed);
    }
    Ok(latencies)
}

/// From the end of the warm-up to the end of the run. With `checkpoints`, both are moments at
/// which a checkpoint has just been completed, and at the second no more rows wait to be flushed
/// than at the first: work that is put off is not counted as done.
async fn watch(subject: &dyn Subject, callers: &Callers, case: &Case) -> (Reading, Reading) {
    let least = Duration::from_secs_f64(case.seconds);
    let began = Instant::now();
    let warm = least.min(Duration::from_secs(1)) / 2;
    let counts_checkpoints = case.checkpoints > 0 && subject.progress().is_some();
    let checkpoints = || subject.progress().unwrap_or_default().checkpoints;
    let mut seen = checkpoints();
    let mut first: Option<Reading> = None;
    loop {
        tokio::time::sleep(Duration::from_micros(500)).await;
        let is_late = began.elapsed().as_secs_f64() > case.seconds * PATIENCE;
        let is_over = callers.is_over() || is_late;
        let completed = checkpoints();
        if counts_checkpoints && completed == seen && !is_over {
            continue;
        }
        seen = completed;
        match first {
            None if began.elapsed() >= warm || is_over => {
                first = Some(reading(subject, callers));
            }
            None => {}
            Some(first) => {
                let now = reading(subject, callers);
                let (then, since) =
                    (first.progress.unwrap_or_default(), now.progress.unwrap_or_default());
                let is_complete = !counts_checkpoints
                    || (since.checkpoints >= then.checkpoints + case.checkpoints
                        && since.debt <= then.debt);
                if is_over || (now.at - first.at >= least && is_complete) {
                    return (first, now);
                }
            }
        }
    }
}

/// Durable writes by many callers at once. Without checkpoints to count from and to, the time
/// includes what the subject takes to do what it put off.
pub(crate) async fn writes(
    subject: &Arc<dyn Subject>,
    targets: &Arc<Targets>,
    case: &Case,
) -> Result<Run> {
    let callers = Arc::new(Callers::default());
    let tasks = start(subject, targets, case.operation, case.callers, &callers);
    let (first, mut last) = watch(subject.as_ref(), &callers, case).await;
    let ran_out = callers.ran_out.load(Ordering::Relaxed);
    callers.stop.store(true, Ordering::Relaxed);
    let latencies = finish(tasks).await?;
    if case.checkpoints == 0 || subject.progress().is_none() {
        // Those that were under way are done, and count like the time they took.
        subject.settle().await?;
        last = reading(subject.as_ref(), &callers);
    }
    let count = last.done - first.done;
    let each = |time: Duration| time.as_secs_f64() * 1e6 / count.max(1) as f64;
    let writer = last.writer_cpu.saturating_sub(first.writer_cpu);
    let others = last.other_cpu.saturating_sub(first.other_cpu);
    let of_server = |(first, last): (Duration, Duration)| each(last.saturating_sub(first));
    Ok(Run {
        seconds: (last.at - first.at).as_secs_f64(),
        count,
        p50_us: latencies.quantile(0.5),
        p99_us: latencies.quantile(0.99),
        progress: first.progress.zip(last.progress),
        cpu_us: Some((each(writer), each(writer + others))),
        server_cpu_us: first.server_cpu.zip(last.server_cpu).map(of_server),
        ran_out,
        ..Run::default()
    })
}

type Tasks = Vec<tokio::task::JoinHandle<Result<Vec<Duration>>>>;

fn start(
    subject: &Arc<dyn Subject>,
    targets: &Arc<Targets>,
    operation: Operation,
    count: usize,
    callers: &Arc<Callers>,
) -> Tasks {
    (0..count)
        .map(|_| tokio::spawn(call(subject.clone(), targets.clone(), operation, callers.clone())))
        .collect()
}

async fn finish(tasks: Tasks) -> Result<Latencies> {
    let mut all = Latencies::default();
    for task in tasks {
        task.await??.into_iter().for_each(|time| all.record(time));
    }
    Ok(all)
}

/// What one reading thread did.
#[derive(Default)]
struct Reads {
    count: u64,
    /// What the reads alone took, where something happens between them.
    spent: Duration,
    items: u64,
    latencies: Latencies,
}

/// Reads on a thread of their own until `is_over`, `together` of them timed at once. The runtime is the one that
/// everything else runs on: a connection that a pool makes here outlives this thread.
fn read_on(
    runtime: &Handle,
    subject: &dyn Subject,
    targets: &Targets,
    operation: Operation,
    (first, together): (u64, u64),
    is_over: &(dyn Fn() -> bool + Sync),
) -> Result<Reads> {
    runtime.block_on(async {
        let mut reads = Reads::default();
        let mut turn = first;
        while !is_over() {
            if operation == Operation::NetMap
                && let Some(write) = targets.write(Operation::Endpoints, turn)
            {
                subject.write(write).await?;
            }
            let began = Instant::now();
            for _ in 0..together {
                let read = targets.read(operation, turn).ok_or("there is nothing to read")?;
                reads.items += black_box(subject.read(&read).await?);
                turn = turn.wrapping_add(1);
            }
            let spent = began.elapsed();
            reads.spent += spent;
            reads.latencies.record(spent / u32::try_from(together).unwrap_or(1));
            reads.count += together;
        }
        Ok(reads)
    })
}

/// Reads on one thread or several.
pub(crate) async fn reads(
    subject: &Arc<dyn Subject>,
    targets: &Arc<Targets>,
    case: &Case,
) -> Result<Run> {
    let operation = case.operation;
    let single = targets.read(operation, 0).ok_or("there is nothing to read")?;
    // The first one may have to warm what later ones find warm.
    subject.read(&single).await?;
    let began = Instant::now();
    subject.read(&single).await?;
    let is_short = began.elapsed() < SHORT && operation != Operation::NetMap;
    let together = if is_short { TOGETHER } else { 1 };
    let (subject, targets) = (subject.clone(), targets.clone());
    let (threads, seconds) = (case.callers, case.seconds);
    let runtime = Handle::current();
    let (elapsed, reads) = tokio::task::spawn_blocking(move || {
        let began = Instant::now();
        let is_over = || began.elapsed().as_secs_f64() >= seconds;
        let (runtime, subject, targets) = (&runtime, subject.as_ref(), targets.as_ref());
        let found: Vec<Result<Reads>> = std::thread::scope(|scope| {
            let handles: Vec<_> = (0..threads as u64)
                .map(|thread| {
                    let numbers = (thread << 40, together);
                    scope.spawn(move || {
                        read_on(runtime, subject, targets, operation, numbers, &is_over)
                    })
                })
                .collect();
            let stopped = || Err("a reading thread stopped".into());
            handles.into_iter().map(|handle| handle.join().unwrap_or_else(|_| stopped())).collect()
        });
        (began.elapsed(), found)
    })
    .await?;
    let mut all = Reads::default();
    for reads in reads {
        let reads = reads?;
        all.count += reads.count;
        all.items += reads.items;
        all.spent += reads.spent;
        all.latencies.add(&reads.latencies);
    }
    let seconds = match operation {
        Operation::NetMap => all.spent / u32::try_from(threads).unwrap_or(1),
        _ => elapsed,
    };
    Ok(Run {
        seconds: seconds.as_secs_f64(),
        count: all.count,
        items: all.items as f64 / all.count.max(1) as f64,
        p50_us: all.latencies.quantile(0.5),
        p99_us: all.latencies.quantile(0.99).filter(|_| together == 1),
        ..Run::default()
    })
}

/// Reads one by one on a thread of their own, while callers write. The run's figures are those of
/// the reads.
pub(crate) async fn reads_while_writing(
    subject: &Arc<dyn Subject>,
    targets: &Arc<Targets>,
    case: &Case,
) -> Result<Run> {
    let callers = Arc::new(Callers::default());
    let tasks = start(subject, targets, case.operation, case.callers, &callers);
    tokio::time::sleep(Duration::from_secs_f64(case.seconds / 4.0)).await;
    let reading = {
        let (subject, targets, callers) = (subject.clone(), targets.clone(), callers.clone());
        let (operation, seconds) = (case.operation, case.seconds);
        tokio::task::spawn_blocking(move || {
            let began = Instant::now();
            let is_over = || callers.is_over() || began.elapsed().as_secs_f64() >= seconds;
            let runtime = Handle::current();
            let reads = read_on(&runtime, subject.as_ref(), &targets, operation, (0, 1), &is_over);
            reads.map(|reads| (began.elapsed(), reads))
        })
    };
    let found = reading.await?;
    let ran_out = callers.ran_out.load(Ordering::Relaxed);
    callers.stop.store(true, Ordering::Relaxed);
    finish(tasks).await?;
    let (elapsed, reads) = found?;
    Ok(Run {
        seconds: elapsed.as_secs_f64(),
        count: reads.count,
        items: 1.0,
        p50_us: reads.latencies.quantile(0.5),
        p99_us: reads.latencies.quantile(0.99),
        ran_out,
        ..Run::default()
    })
}

/// Measures bringing in whole nodes.
pub(crate) async fn import(subject: &Arc<dyn Subject>, content: Content) -> Result<Run> {
    let (users, nodes) = (users(content), nodes(content).collect::<Vec<_>>());
    bring_in(subject, users).await?;
    let began = Instant::now();
    bring_in(subject, nodes).await?;
    Ok(Run { seconds: began.elapsed().as_secs_f64(), count: content.nodes, ..Run::default() })
}

/// Users and nodes, and nothing else of the content.
pub(crate) async fn fill(subject: &Arc<dyn Subject>, content: Content) -> Result<()> {
    bring_in(subject, users(content).chain(nodes(content))).await
}

fn users(content: Content) -> impl Iterator<Item = Rows> {
    content.chunks().filter(|rows| matches!(rows, Rows::Users(_)))
}

fn nodes(content: Content) -> impl Iterator<Item = Rows> {
    content.chunks().filter(|rows| matches!(rows, Rows::Nodes(_)))
}

/// Writes batches, in order, as an importer does: the next one is handed over while one is stored.
async fn bring_in(
    subject: &Arc<dyn Subject>,
    batches: impl IntoIterator<Item = Rows>,
) -> Result<()> {
    const UNDER_WAY: usize = 2;
    let writes = batches.into_iter().map(|rows| subject.write(Write::Load(rows)));
    stream::iter(writes).buffered(UNDER_WAY).try_collect().await
}

/// What a run leaves on the disk.
pub(crate) fn with_files(run: Run, directory: &Path) -> Run {
    Run { bytes_on_disk: machine::files_in(directory), ..run }
}

#[cfg(test)]
#[path = "driver_tests.rs"]
mod tests;
