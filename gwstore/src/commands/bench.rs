//! `gwstore bench`.

use std::path::PathBuf;
use std::process::ExitCode;

use ghostwire_store::{Error, ErrorKind};
use ghostwire_store_bench_workload::{machine, report, results::Results};
use ghostwire_store_benches::suite::{self, Effort, Request};

use crate::cli::BenchArgs;
use crate::failure::{Failure, Outcome};
use crate::output::Shell;
use crate::output_file::Target;

/// Does the job of a child that opens a store, if this process was started as one.
pub(crate) fn run_child() -> Option<ExitCode> {
    suite::run_child()
}

/// Measures, and says what was found.
pub(super) async fn run(args: &BenchArgs, shell: &mut Shell<'_>) -> Outcome {
    let request = request(args);
    if let Some(file) = &args.results {
        if !shell.json {
            let error = Error::invalid("a file is named, but not what for")
                .with("file", file.display())
                .with("help", "write it as `--json FILE` or `--html FILE`");
            return Err(Failure::usage(error));
        }
        // The file is for programs, the rest for people.
        shell.json = false;
    }
    let target = |path: &Option<PathBuf>| {
        path.as_deref().map(|path| Target::check(path, args.force, None)).transpose()
    };
    let (json, page) = (target(&args.results)?, target(&args.html)?);
    let mut bar = None;
    let results = {
        let mut done_before = 0;
        let mut watcher = |what: &str, done: u64, all: u64| {
            let bar = bar.get_or_insert_with(|| shell.progress("measuring", Some(all)));
            bar.name(what);
            tracing::info!(done, all, "{what}");
            bar.advance(done - done_before);
            done_before = done;
        };
        suite::run(&request, &mut watcher).await
    };
    drop(bar);
    let results = results.map_err(|error| {
        Error::new(ErrorKind::InvalidArgument, "the benchmarks did not run to the end")
            .with("reason", error)
    })?;
    json.map(|target| target.fill(pretty(&results).as_bytes())).transpose()?;
    page.map(|target| target.fill(report::page(&results).as_bytes())).transpose()?;
    if shell.json { shell.object(&results) } else { shell.line(report::text(&results).trim_end()) }
}

fn pretty(results: &Results) -> String {
    let text = serde_json::to_string_pretty(results).unwrap_or_default();
    format!("{text}\n")
}

/// The server that the variable names, for a build that can use one.
fn named_server() -> Option<String> {
    let named = std::env::var("GHOSTWIRE_TEST_POSTGRES_URL").ok();
    named.filter(|_| cfg!(feature = "postgres"))
}

fn request(args: &BenchArgs) -> Request {
    let effort = match (args.quick, args.full) {
        (true, _) => Effort::Quick,
        (_, true) => Effort::Full,
        _ => Effort::Default,
    };
    Request {
        effort,
        subjects: args.subject.clone(),
        operations: args.operation.clone(),
        callers: args.callers.iter().map(|&callers| callers as usize).collect(),
        rounds: args.rounds.map(|rounds| rounds as usize),
        seconds: args.seconds,
        directory: args.dir.clone().unwrap_or_else(machine::directory),
        others: args.others.clone(),
        postgres: args.postgres.clone().or_else(named_server),
    }
}
