//! Several processes that write to one store at once, each a control plane of its own.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use ghostwire_store::config::{BackendChoice, Config, PostgresOptions, PostgresTls};
use ghostwire_store_bench_workload::machine::{Postmaster, scratch};
use ghostwire_store_bench_workload::results::{Case, OfProcesses, Run};
use ghostwire_store_bench_workload::subject::{Result, Subject};
use ghostwire_store_bench_workload::{Content, Operation, Session, Spread};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::Server;
use crate::subjects::OfStore;

/// The first argument of a child that writes; a [`Task`] follows.
pub(crate) const CHILD: &str = "__write-for-bench";

/// So many processes are compared with one.
const SEVERAL: usize = 4;

/// What a child is to do.
#[derive(Debug, Serialize, Deserialize)]
struct Task {
    host: String,
    port: u64,
    user: String,
    password_file: Option<PathBuf>,
    database: String,
    schema: String,
    /// Where the key lies.
    directory: PathBuf,
    postmaster: Option<u32>,
    callers: usize,
    seconds: f64,
    nodes: u64,
}

impl Task {
    fn new(
        options: &PostgresOptions,
        (directory, postmaster): (&Path, Option<Postmaster>),
    ) -> Self {
        Self {
            host: options.host.clone(),
            port: options.port,
            user: options.user.clone(),
            password_file: options.password_file.clone(),
            database: options.database.clone(),
            schema: options.schema.clone(),
            directory: directory.to_owned(),
            postmaster: postmaster.map(Postmaster::number),
            callers: 0,
            seconds: 0.0,
            nodes: 0,
        }
    }

    fn config(&self) -> Config {
        let options = PostgresOptions {
            host: self.host.clone(),
            port: self.port,
            user: self.user.clone(),
            password_file: self.password_file.clone(),
            database: self.database.clone(),
            schema: self.schema.clone(),
            tls: Some(PostgresTls::Off),
            ..PostgresOptions::default()
        };
        Config { backend: BackendChoice::Postgres(options), ..Config::default() }
    }

    fn content(&self) -> Content {
        Content { nodes: self.nodes, ..Content::default() }
    }

    async fn open(&self) -> Result<Arc<dyn Subject>> {
        let postmaster = self.postmaster.map(Postmaster::of_number);
        let opened = OfStore::on_server(self.config(), self.directory.clone(), postmaster).await?;
        Ok(Arc::new(opened))
    }

    fn case(&self) -> Case {
        Case {
            operation: Operation::Heartbeat,
            callers: self.callers,
            content: self.content(),
            seconds: self.seconds,
            checkpoints: 0,
        }
    }
}

/// Does the job of a child: says that it is ready, waits for a line, writes, and says what came of it.
#[allow(clippy::print_stdout, reason = "a child reports to the process that started it")]
pub(crate) fn run_child(task: &str) -> Result<()> {
    let task: Task = serde_json::from_str(task)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let subject = task.open().await?;
        let session = Session::on(subject, task.content(), &task.directory)?;
        println!("ready");
        let mut go = String::new();
        BufReader::new(tokio::io::stdin()).read_line(&mut go).await?;
        let run = session.run(&task.case()).await?;
        println!("{}", serde_json::to_string(&run)?);
        session.end().await
    })
}

/// A child that is ready, or works.
struct Writing {
    child: Child,
    go: ChildStdin,
    says: BufReader<ChildStdout>,
}

impl Writing {
    async fn start(task: &Task) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(CHILD)
            .arg(serde_json::to_string(task)?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let (go, says) = (child.stdin.take(), child.stdout.take());
        let (go, says) = go.zip(says).ok_or("a child has no pipes")?;
        let mut writing = Self { child, go, says: BufReader::new(says) };
        writing.line().await?;
        Ok(writing)
    }

    async fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.says.read_line(&mut line).await? > 0 {
            return Ok(line);
        }
        let mut said = String::new();
        if let Some(stderr) = &mut self.child.stderr {
            stderr.read_to_string(&mut said).await?;
        }
        Err(format!("a process that writes ended: {}", said.trim()).into())
    }

    async fn end(mut self) -> Result<Run> {
        let line = self.line().await?;
        self.child.wait().await?;
        Ok(serde_json::from_str(&line)?)
    }
}

async fn together(task: &Task, processes: usize) -> Result<Vec<Run>> {
    let mut writing = Vec::new();
    for _ in 0..processes {
        writing.push(Writing::start(task).await?);
    }
    for one in &mut writing {
        one.go.write_all(b"go\n").await?;
    }
    let mut runs = Vec::new();
    for one in writing {
        runs.push(one.end().await?);
    }
    Ok(runs)
}

/// One process and several, in turns, on one store of so many nodes.
pub(crate) async fn measure(
    server: &Server,
    (callers, nodes): (usize, u64),
    (rounds, seconds): (usize, f64),
    within: &Path,
) -> Result<Vec<OfProcesses>> {
    let directory = scratch(within)?;
    let BackendChoice::Postgres(options) = server.config(&server.new_schema()).backend else {
        return Err("the server gives another backend".into());
    };
    let task = Task::new(&options, (directory.path(), server.postmaster()));
    let task = Task { callers, seconds, nodes, ..task };
    let subject = task.open().await?;
    ghostwire_store_bench_workload::subject::load(subject.as_ref(), task.content()).await?;
    subject.close().await?;
    let mut found = [1, SEVERAL].map(|processes| (processes, Vec::new()));
    for _ in 0..rounds {
        for (processes, runs) in &mut found {
            runs.push(together(&task, *processes).await?);
        }
    }
    Ok(found.into_iter().map(|(processes, runs)| summary(processes, callers, &runs)).collect())
}

/// `runs` are those of each round's processes.
fn summary(processes: usize, callers: usize, runs: &[Vec<Run>]) -> OfProcesses {
    let spread = |figure: fn(&[Run]) -> f64| Spread::of(runs.iter().map(|runs| figure(runs)));
    let of_server: Option<Vec<f64>> = runs.iter().map(|runs| server_cpu(runs)).collect();
    OfProcesses {
        processes,
        callers,
        rate: spread(rate),
        group: spread(|runs| {
            let groups: u64 = runs.iter().map(Run::groups).sum();
            count(runs) / groups.max(1) as f64
        }),
        least_share: spread(|runs| {
            let least = runs.iter().map(Run::rate).fold(f64::INFINITY, f64::min);
            least * runs.len() as f64 / rate(runs).max(f64::MIN_POSITIVE)
        }),
        cpu_us: spread(|runs| {
            let spent = runs.iter().filter_map(|run| Some(run.cpu_us?.1 * run.count as f64));
            spent.sum::<f64>() / count(runs)
        }),
        server_cpu_us: of_server.map(Spread::of),
    }
}

fn rate(runs: &[Run]) -> f64 {
    runs.iter().map(Run::rate).sum()
}

fn count(runs: &[Run]) -> f64 {
    runs.iter().map(|run| run.count).sum::<u64>().max(1) as f64
}

/// Each process saw all that the server did, in about the same time.
fn server_cpu(runs: &[Run]) -> Option<f64> {
    let each = runs.iter().map(|run| Some(run.server_cpu_us? * run.count as f64));
    let all: f64 = each.collect::<Option<Vec<_>>>()?.into_iter().sum();
    Some(all / runs.len().max(1) as f64 / count(runs))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_several_came_to_is_added_up() {
        let run = |count: u64, cpu: f64| Run {
            seconds: 2.0,
            count,
            cpu_us: Some((0.0, cpu)),
            server_cpu_us: Some(12_000.0 / count as f64),
            ..Run::default()
        };
        let of = summary(2, 8, &[vec![run(100, 10.0), run(300, 20.0)]]);
        assert_eq!(of.rate.median, 200.0);
        assert_eq!(of.least_share.median, 0.5);
        assert_eq!(of.cpu_us.median, 17.5);
        assert_eq!(of.server_cpu_us.map(|cpu| cpu.median), Some(30.0));
    }
}
