//! `gwstore`: sets up, inspects, checks, moves and demonstrates stores of ghostwire-store.
//!
//! The program is a library with one function, so that its tests can ask for the Cargo features
//! `bench` and `conformance`, which a plain build leaves out.

mod actor;
mod cli;
mod commands;
mod confirm;
mod credentials;
#[allow(unreachable_pub, reason = "its entry is public wherever it is used")]
mod demo;
mod excerpt;
mod failure;
mod headscale;
mod intentions;
mod keyring;
mod live;
mod nouns;
mod output;
mod output_file;
mod permissions;
mod progress;
mod restore;
mod serve;
mod session;
mod top;
mod writing;

use std::ffi::OsString;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::panic;
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, Parser};
use tokio::runtime::Runtime;

use crate::cli::{Cli, Format};
use crate::failure::{Ending, Failure};
use crate::output::{Closed, Shell, json_line, printable, stdout_is_closed};

/// Bytes of a thread's stack, as the standard library has it where no variable says otherwise.
const STACK: usize = 2 * 1024 * 1024;

/// Runs the program with the arguments of this process.
pub fn main() -> ExitCode {
    #[cfg(feature = "zqlite-native")]
    if let Some(ended) = ghostwire_store::native::run_child() {
        return ended;
    }
    #[cfg(feature = "conformance")]
    if let Some(ended) = commands::conformance::run_child() {
        return ended;
    }
    #[cfg(feature = "bench")]
    if let Some(ended) = commands::bench::run_child() {
        return ended;
    }
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let stdout: Box<dyn Write> = match stdout_is_closed() {
        true => Box::new(Closed),
        false => Box::new(io::stdout().lock()),
    };
    let mut out = BufWriter::new(stdout);
    let mut notes = io::stderr();
    let cli = match Cli::try_parse_from(cli::settings_first(&arguments)) {
        Ok(cli) => cli,
        Err(error) => return explain_usage(error, &arguments, &mut out, &mut notes),
    };
    start_logging(&cli);
    let mut shell = Shell {
        out: &mut out,
        notes: &mut notes,
        json: cli.global.format() != Format::Table,
        is_array: cli.global.format() == Format::Json,
        is_terminal: io::stdout().is_terminal(),
        is_coloured: io::stdout().is_terminal() && wants_colours(),
        quiet: cli.global.quiet,
        is_interactive: io::stderr().is_terminal(),
    };
    let ended = run(&cli, &mut shell);
    let ended = ended.and_then(|()| shell.out.flush().map_err(Failure::from));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // What was found before the failure is said before it.
            let _ = shell.out.flush();
            failure.explain(&mut shell);
            failure.ending().into()
        }
    }
}

fn run(cli: &Cli, shell: &mut Shell<'_>) -> failure::Outcome {
    let runtime = runtime()
        .map_err(|error| failure::file_error("the runtime cannot be started", None, error))?;
    let ended = runtime.block_on(commands::run(cli, shell));
    if ended.is_err() && matches!(cli.command, cli::Command::Serve) {
        // Asked to end twice it waits for nothing.
        runtime.shutdown_background();
    }
    ended
}

/// What is said here is not left to variables of the environment.
fn runtime() -> io::Result<Runtime> {
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    // One more waits for work that blocks. It stays: tokio would wait for one that is not to be had.
    require_threads(workers + 1)?;
    let build = || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(workers)
            .thread_stack_size(STACK)
            .thread_keep_alive(Duration::from_secs(u64::from(u32::MAX)))
            .enable_all()
            .build()?;
        runtime.block_on(runtime.spawn_blocking(|| ())).map_err(io::Error::other)?;
        Ok::<_, io::Error>(runtime)
    };
    // Where there is no thread or file to be had, tokio panics. That is told as other errors are.
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let built = panic::catch_unwind(build).unwrap_or_else(|_| {
        let what = "there are no more threads or open files to be had; raise their limits";
        Err(io::Error::other(what))
    });
    panic::set_hook(hook);
    built
}

/// Starts so many threads, and ends them: a runtime that gets only some of its threads waits for ever.
fn require_threads(count: usize) -> io::Result<()> {
    let mut started = Vec::with_capacity(count);
    for _ in 0..count {
        let (ends, waits) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::Builder::new().stack_size(STACK);
        let thread = thread.spawn(move || {
            // Nothing is sent: it ends when the other end is dropped.
            let _ = waits.recv();
        });
        started.push((ends, thread.map_err(no_threads)?));
    }
    for (ends, thread) in started {
        drop(ends);
        thread.join().map_err(|_| io::Error::other("a thread stopped"))?;
    }
    Ok(())
}

fn no_threads(error: io::Error) -> io::Error {
    io::Error::new(
        error.kind(),
        format!("no more threads are to be had; raise their limit: {error}"),
    )
}

/// Help and version are no errors, and go where they are asked for.
fn explain_usage(
    error: clap::Error,
    arguments: &[OsString],
    out: &mut dyn Write,
    notes: &mut dyn Write,
) -> ExitCode {
    if !error.use_stderr() {
        let shown = write!(out, "{}", error.render()).and_then(|()| out.flush());
        return shown
            .map_or_else(|error| Failure::from(error).ending().into(), |()| ExitCode::SUCCESS);
    }
    // It repeats arguments as they are, so the same is asked of what can be shown.
    let shown = arguments
        .iter()
        .map(|argument| printable(&nouns::without_secret(&argument.to_string_lossy())));
    let shown: Vec<String> = shown.collect();
    let advice = intentions::advice(&shown);
    let again = Cli::try_parse_from(shown).err().filter(clap::Error::use_stderr);
    let mut error = again.unwrap_or(error);
    intentions::without_misleading_tips(&mut error, &Cli::command());
    let text = error.render().to_string();
    let said = if wants_json(arguments) {
        let message = text.trim().trim_start_matches("error: ");
        let mut object = serde_json::json!({ "kind": "usage", "message": message });
        if let (Some(fields), Some(advice)) = (object.as_object_mut(), advice) {
            fields.insert("help".to_owned(), serde_json::json!([advice]));
        }
        json_line(notes, &object)
    } else {
        let advice = advice.map(|advice| format!("help: {advice}"));
        let mut lines = text.lines().chain(advice.as_deref());
        lines.try_for_each(|line| writeln!(notes, "{}", printable(line)))
    };
    // There is nowhere left to say that it could not be said.
    let _ = said;
    Ending::Usage.into()
}

/// What was asked for, though the command line as a whole cannot be read.
fn wants_json(arguments: &[OsString]) -> bool {
    let is_format = |text: &str| text.starts_with("json") || text == "ndjson";
    let mut is_value = false;
    arguments.iter().filter_map(|argument| argument.to_str()).any(|argument| {
        let value = ["--output=", "-o="].iter().find_map(|option| argument.strip_prefix(option));
        let found =
            argument == "--json" || value.is_some_and(is_format) || is_value && is_format(argument);
        is_value = matches!(argument, "--output" | "-o");
        found
    })
}

/// <https://no-color.org>, and terminals that have none.
fn wants_colours() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::env::var_os("TERM").is_none_or(|terminal| terminal != "dumb")
}

fn start_logging(cli: &Cli) {
    // As its configuration says, once that is read.
    if matches!(cli.command, cli::Command::Serve) {
        return;
    }
    use tracing::level_filters::LevelFilter;
    use tracing_subscriber::field::MakeExt;
    use tracing_subscriber::filter::filter_fn;
    use tracing_subscriber::fmt::format::debug_fn;
    use tracing_subscriber::layer::SubscriberExt;
    use tracing_subscriber::util::SubscriberInitExt;
    let level = match (cli.global.quiet, cli.global.verbose) {
        // A program reads the one object that says how it ended.
        (_, 0) if cli.global.format() != Format::Table => LevelFilter::OFF,
        // It does damage on purpose.
        (_, 0) if matches!(cli.command, cli::Command::Demo(_)) => LevelFilter::ERROR,
        // It makes commits fail on purpose.
        (_, 0) if matches!(cli.command, cli::Command::Conformance(_)) => LevelFilter::OFF,
        (true, _) => LevelFilter::ERROR,
        (false, 0) => LevelFilter::WARN,
        (false, 1) => LevelFilter::INFO,
        (false, 2) => LevelFilter::DEBUG,
        (false, _) => LevelFilter::TRACE,
    };
    let fields = debug_fn(|to, field, value| {
        let value = printable(&format!("{value:?}"));
        match field.name() {
            "message" => write!(to, "{value}"),
            name => write!(to, "{name}={value}"),
        }
    });
    // `status` and `doctor` count such credentials; of other commands those that make one say it.
    let is_told_otherwise = |metadata: &tracing::Metadata<'_>| {
        metadata.fields().field("others").is_some()
            && metadata.fields().field("configured_key").is_some()
    };
    let is_quiet = cli.global.verbose == 0;
    let wanted = filter_fn(move |metadata| !(is_quiet && is_told_otherwise(metadata)));
    tracing_subscriber::fmt()
        .fmt_fields(fields.delimited(" "))
        .with_max_level(level)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .without_time()
        .with_target(cli.global.verbose > 1)
        .finish()
        .with(wanted)
        .init();
}
