//! Opening, in a process of its own, which the operating system charges for its memory alone.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use ghostwire_store_bench_workload::machine::{files_in, resident_bytes, scratch};
use ghostwire_store_bench_workload::results::Opening;
use ghostwire_store_bench_workload::subject::{Candidate, Result};
use ghostwire_store_bench_workload::{Spread, fill};
use tokio::task::spawn_blocking;

/// The first argument of a child that opens a subject; its name and directory follow. It is not an environment
/// variable, because every descendant would inherit that.
const CHILD: &str = "__open-for-bench";

/// Does the job of a child, which opens a subject or writes beside others, if this process was started as one. A program
/// that runs the suite calls this first.
pub fn run_child() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    let job = arguments.next()?;
    let done = match job.to_str()? {
        CHILD => {
            let name = arguments.next()?;
            open(&name.to_string_lossy(), PathBuf::from(arguments.next()?))
        }
        #[cfg(feature = "postgres")]
        crate::postgres::CHILD => {
            crate::postgres::run_child(arguments.next()?.to_str()?).map(|()| ExitCode::SUCCESS)
        }
        _ => return None,
    };
    Some(match done {
        Ok(ended) => ended,
        Err(error) => {
            complain(&error.to_string());
            ExitCode::FAILURE
        }
    })
}

#[allow(clippy::print_stderr, reason = "a child reports to the process that started it")]
fn complain(error: &str) {
    eprintln!("{error}");
}

#[allow(clippy::print_stdout, reason = "as above")]
fn open(name: &str, directory: PathBuf) -> Result<ExitCode> {
    let candidate = crate::candidates().into_iter().find(|one| one.about.name == name);
    let candidate = candidate.ok_or_else(|| format!("there is no subject {name:?}"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let before = resident_bytes();
        let began = Instant::now();
        let _subject = candidate.open(directory).await?;
        println!("{} {before} {}", began.elapsed().as_secs_f64(), resident_bytes());
        // What is in memory is let go without work on the files.
        std::process::exit(0)
    })
}

/// Gives the seconds it took, and the bytes that were resident before and after it.
async fn open_in_child(name: &str, directory: &Path) -> Result<[f64; 3]> {
    let mut child = Command::new(std::env::current_exe()?);
    child.arg(CHILD).arg(name).arg(directory);
    let output = spawn_blocking(move || child.output()).await??;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("opening {name} failed: {}", said.trim()).into());
    }
    let text = String::from_utf8(output.stdout)?;
    let figures: Option<Vec<f64>> =
        text.split_whitespace().map(|figure| figure.parse().ok()).collect();
    figures
        .and_then(|figures| figures.try_into().ok())
        .ok_or_else(|| format!("an opening said {text:?}").into())
}

/// Fills a subject with users and nodes, and opens it a few times.
pub(super) async fn measure(
    candidate: &Candidate,
    nodes: u64,
    rounds: usize,
    within: &Path,
) -> Result<Opening> {
    let directory = scratch(within)?;
    fill(candidate, nodes, directory.path()).await?;
    let bytes_on_disk = files_in(directory.path());
    let (mut seconds, mut before, mut resident) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let figures = open_in_child(&candidate.about.name, directory.path()).await?;
        let [took, bytes_before, bytes] = figures;
        seconds.push(took);
        before.push(bytes_before);
        resident.push(bytes);
    }
    Ok(Opening {
        about: candidate.about.clone(),
        nodes,
        seconds: Spread::of(seconds),
        resident_before_bytes: Spread::of(before),
        resident_bytes: Spread::of(resident),
        bytes_on_disk,
    })
}
