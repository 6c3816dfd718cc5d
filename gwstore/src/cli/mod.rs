//! The command line.

#[cfg(feature = "zqlite")]
mod keys;
mod migrate;
mod optional;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use ghostwire_store::domain::{ConsumerName, Issuer};

use crate::commands::health::{HealthArgs, MetricsArgs};
use crate::commands::live::{LogCommand, WatchArgs};
use crate::nouns::{Listed, Noun};

#[cfg(feature = "zqlite")]
pub(crate) use keys::*;
pub(crate) use migrate::*;
pub(crate) use optional::*;

/// Sets up, inspects, checks and moves stores of a mesh VPN's control plane.
#[derive(Debug, Parser)]
#[command(name = "gwstore", version, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: GlobalOptions,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct GlobalOptions {
    /// The flag file [default: ./feature-flags.toml if there is one].
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Which table of the flag file holds.
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) environment: Option<String>,
    /// Override a configuration key, such as writer.max_group=512; may be repeated.
    #[arg(long, global = true, value_name = "KEY=VALUE", value_parser = key_and_value)]
    pub(crate) set: Vec<(String, String)>,
    /// Which of the configured stores is meant; short for --set store=….
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) store: Option<String>,
    /// The store's backend, whatever its key is called: zqlite, libsql, postgres, memory.
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) backend: Option<String>,
    /// The store file, whatever its key is called; relative to the working directory.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) path: Option<PathBuf>,
    /// Print JSON, an object a line, and behind a part of a listing one with the cursor of the `next`; short
    /// for --output jsonl. Errors and notes too, on standard error.
    #[arg(long, global = true, conflicts_with = "output")]
    json: bool,
    /// Tables, JSON (of listings and edits an array), or JSON with an object a line.
    #[arg(short, long, global = true, value_name = "FORMAT")]
    output: Option<Format>,
    /// Print errors and what was asked to be shown only: no notes, and not what was done or would be.
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// Say what is going on, on standard error; twice for more.
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,
}

/// The form of results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    #[value(alias = "text")]
    Table,
    Json,
    #[value(aliases = ["json-line", "json-lines", "ndjson"])]
    Jsonl,
}

/// The arguments, with every `--set` before the subcommand: of those on both sides of it clap keeps one side's.
pub(crate) fn settings_first(arguments: &[OsString]) -> Vec<OsString> {
    let mut left = arguments.iter().cloned();
    let program = left.next();
    let (mut settings, mut others) = (Vec::new(), Vec::new());
    while let Some(argument) = left.next() {
        if argument == "--" {
            others.push(argument);
            others.extend(left.by_ref());
        } else if argument == "--set" {
            match left.next() {
                Some(value) => settings.extend([argument, value]),
                None => others.push(argument),
            }
        } else if argument.as_encoded_bytes().starts_with(b"--set=") {
            settings.push(argument);
        } else {
            others.push(argument);
        }
    }
    program.into_iter().chain(settings).chain(others).collect()
}

impl GlobalOptions {
    pub(crate) fn format(&self) -> Format {
        let short = if self.json { Format::Jsonl } else { Format::Table };
        self.output.unwrap_or(short)
    }
}

fn key_and_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write it as key=value")?;
    if key.is_empty() {
        return Err("the key is missing: write it as key=value".to_owned());
    }
    Ok((key.to_owned(), value.to_owned()))
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make the configured store and its hash key.
    Init,
    /// Say what the store is and holds.
    Status(StatusArgs),
    /// Check the configuration, the files, the disk and everything stored.
    #[command(alias = "check")]
    Doctor,
    /// Read everything stored and check it.
    Verify,
    /// Bring every block into rows, so that the next opening reads less.
    Checkpoint,
    /// Print what each commit of an open store changes, as it comes.
    Watch(WatchArgs),
    /// Have the program that has the store open log more or less.
    #[command(subcommand)]
    Log(LogCommand),
    /// Hold the store open and look after it: jobs on a schedule, health, an end in order.
    #[command(long_about = SERVE)]
    Serve,
    /// Say in a line whether a served store is ready, or live: 0 if so, 3 if not, 4 if nobody serves it, 75 if its
    /// socket has all the clients that it may have.
    Health(HealthArgs),
    /// Print what a served store measures, in the text format of Prometheus.
    Metrics(MetricsArgs),
    /// Watch what a served store does: throughput, latencies, queue, backlog, errors, jobs.
    Top(TopArgs),
    /// Print this program's version.
    #[command(hide = true)]
    Version,
    /// Compare the store's time with the machine's, or put it right.
    #[command(subcommand)]
    Clock(ClockCommand),
    /// Seal a plain store that nobody has open, with a keyring that is made for it.
    #[cfg(feature = "zqlite")]
    Seal,
    /// Make a sealed store that nobody has open plain.
    #[cfg(feature = "zqlite")]
    Unseal(UnsealArgs),
    /// Look after the keyring of a sealed store.
    #[cfg(feature = "zqlite")]
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Test the ZQLite library, which a zqlite store can run on instead of SQLite.
    #[cfg_attr(
        not(feature = "zqlite-native"),
        doc = "Not in this build: it needs the Cargo feature `zqlite-native`."
    )]
    #[command(subcommand)]
    Native(NativeCommand),
    /// Look at the configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// See who follows the store's log from elsewhere, and end that.
    #[command(subcommand)]
    Consumers(ConsumersCommand),
    /// Print digests of everything stored; equal digests mean equal content, on any backend.
    Digest,
    /// Sign the digest of the state, for somebody who has no key and no access to the store.
    Attest(AttestArgs),
    /// Check what `attest` signed: without the store, its keys or a configuration, and offline.
    VerifyAttestation(VerifyAttestationArgs),
    /// Bring entities in.
    #[command(subcommand)]
    Import(ImportCommand),
    /// Write everything stored to a file in the portable format.
    #[command(aliases = ["backup", "dump"])]
    Export(ExportArgs),
    /// List what is stored.
    #[command(subcommand)]
    List(Listed),
    #[command(flatten)]
    Noun(Noun),
    /// Bring the stored schema to this version's, keeping a backup beside the file.
    Upgrade(UpgradeArgs),
    /// Move the network to another backend while it is served, and back.
    #[command(subcommand)]
    Migrate(MigrateCommand),
    /// Give free pages of the store's file back to the disk; nobody may have it open.
    Compact,
    /// Look after the store's pin: the mark outside of it that tells when an older copy was put back.
    #[command(subcommand)]
    Pin(PinCommand),
    /// Prove that the configured backend keeps the contract, on scratch stores beside its own.
    #[cfg_attr(
        not(feature = "conformance"),
        doc = "Not in this build: it needs the Cargo feature `conformance`."
    )]
    Conformance(ConformanceArgs),
    /// Measure ghostwire-store beside databases that are called directly, on scratch files.
    #[cfg_attr(
        not(feature = "bench"),
        doc = "Not in this build: it needs the Cargo feature `bench`."
    )]
    Bench(BenchArgs),
    /// Print what completes this program's commands in a shell.
    #[command(alias = "completion")]
    Completions {
        /// Which shell: bash, elvish, fish, powershell, zsh.
        shell: clap_complete::Shell,
    },
    /// Write a manual page for each command.
    Man {
        /// The directory, which is made if it is not there; pages in it are replaced.
        directory: PathBuf,
    },
    /// Run the same day of a control plane on libsql and on zqlite, and compare them.
    Demo(crate::demo::Args),
}

const SERVE: &str = "\
Hold the store open and look after it: jobs on a schedule, health, an end in order.

It runs in the foreground, and logs on standard error. Ephemeral nodes are reaped, what expired is swept \
away, series are pruned and rows brought up to the last block as `jobs` of the configuration says. With \
`http.listen` it answers /livez, /readyz, /metrics and /status.

SIGTERM and SIGINT end it: what was accepted is completed and the store closed, within \
`serve.drain_seconds`; a second one ends it at once, and nothing that was acknowledged is lost. SIGHUP reads \
the configuration again: `jobs` (but `jobs.instance`), `series`, `serve`, `switches` and `log.level` hold at \
once, other keys once it is started anew, which is said. Of several processes on one store that have a \
`jobs.instance` one does the jobs. systemd is told of all that (Type=notify-reload); deploy/systemd has a unit.";

#[derive(Debug, Args)]
pub(crate) struct TopArgs {
    /// Print the figures of one interval, and end.
    #[arg(long)]
    pub(crate) once: bool,
    /// Seconds between two looks, 1 to 60.
    #[arg(long, value_name = "SECONDS", default_value_t = 2,
        value_parser = clap::value_parser!(u64).range(1..=60))]
    pub(crate) interval: u64,
}

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Count metrics and audit entries to the end; otherwise up to 100,000 of each.
    #[arg(long)]
    pub(crate) exact: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ClockCommand {
    /// Say when the last commit was and what the clock says, and count what is dated beyond it.
    Show,
    /// The clock is right, though it is far ahead of the last commit: the store may be opened.
    Accept(ConfirmArgs),
    /// Bring what a clock that was ahead has dated back to the present.
    Repair(ConfirmArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum NativeCommand {
    /// Find out whether a library keeps what a store needs, in scratch files beside the configured store; 3 if
    /// not. The verdict on the configured library is kept: the store is opened with that alone.
    Check(NativeCheckArgs),
}

#[derive(Debug, Args)]
#[cfg_attr(not(feature = "zqlite-native"), allow(dead_code))]
pub(crate) struct NativeCheckArgs {
    /// The library's file [default: the configured one].
    pub(crate) library: Option<PathBuf>,
    /// Kill so many processes inside a transaction.
    #[arg(long, value_name = "N", default_value_t = 200)]
    pub(crate) kills_in_transaction: u32,
    /// Kill so many processes during commits.
    #[arg(long, value_name = "N", default_value_t = 500)]
    pub(crate) kills_in_commit: u32,
    /// Store so many rows.
    #[arg(long, value_name = "N", default_value_t = 50_000,
        value_parser = clap::value_parser!(u32).range(1_000..=10_000_000))]
    pub(crate) rows: u32,
    /// Of the conformance suite, the last step, run only what has this in its name.
    #[arg(long, value_name = "FILTER")]
    pub(crate) conformance_filter: Option<String>,
    /// Leave the conformance suite out. The verdict is kept all the same, and says so.
    #[arg(long, conflicts_with = "conformance_filter")]
    pub(crate) without_conformance: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConsumersCommand {
    /// List the mirrors, followers and backups for which commits are kept, and how far they are.
    Show,
    /// Keep nothing for this one any longer. If it comes back it has to copy the store anew.
    Remove {
        /// Its name, as `show` prints it.
        name: ConsumerName,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum PinCommand {
    /// Make the configured pin for a store that has none.
    Init {
        /// The store has one, and it is lost: what was put back meanwhile is not noticed.
        #[arg(long)]
        accept_missing: bool,
    },
    /// Say where the pin stands.
    Show,
    /// Compare the store with its pin.
    Verify,
    /// Go on from an older copy of the store that was put back, without what it lacks.
    Accept {
        /// The last serial of that copy, as `verify` prints it.
        #[arg(long)]
        serial: u64,
    },
}

#[derive(Debug, Args)]
pub(crate) struct AttestArgs {
    /// The file, or `-` for standard output.
    #[arg(default_value = "-")]
    pub(crate) file: PathBuf,
    /// Replace the file if there is one; never one that belongs to a store.
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyAttestationArgs {
    /// The file that `attest` wrote, or `-` for standard input.
    pub(crate) file: PathBuf,
    /// Who has to have signed it: a fingerprint, or a file with one or with what `keys export-signer`
    /// printed. It has to come from elsewhere than the attestation.
    #[arg(long, value_name = "FINGERPRINT|FILE")]
    pub(crate) public_key: String,
    /// Also ask the configured store whether it is, or was, in that state.
    #[arg(long)]
    pub(crate) compare: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ConfirmArgs {
    /// Only say what would be done.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Do it without asking.
    #[arg(long, conflicts_with = "dry_run")]
    pub(crate) yes: bool,
}

#[cfg(feature = "zqlite")]
#[derive(Debug, Args)]
pub(crate) struct UnsealArgs {
    /// Do it without asking.
    #[arg(long)]
    pub(crate) yes: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print each effective value and where it came from.
    Show,
    /// Have the program that has the store open read its configuration again.
    Reload,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ImportCommand {
    /// Read a Headscale database: its SQLite file, or a dump of it.
    Headscale(HeadscaleArgs),
    /// Read what `gwstore export` wrote. After an interruption, run it again to continue.
    Portable(PortableArgs),
}

#[derive(Debug, Args)]
pub(crate) struct HeadscaleArgs {
    /// The SQLite file or SQL dump; it is only read.
    pub(crate) file: PathBuf,
    /// Leave out what cannot be imported, and report it.
    #[arg(long)]
    pub(crate) skip_invalid: bool,
    /// The issuer of the tokens with which users sign in, as the identity provider writes it; several if
    /// the provider was changed. Without it what stands before the last slash of each identity is taken.
    #[arg(long, value_name = "URL")]
    pub(crate) issuer: Vec<Issuer>,
    /// Hash plain keys with the configured hash key, though the store's credentials have another.
    #[arg(long)]
    pub(crate) other_key: bool,
    #[command(flatten)]
    pub(crate) target: TargetArgs,
}

#[derive(Debug, Args)]
pub(crate) struct PortableArgs {
    /// The file, or `-` for standard input.
    pub(crate) file: PathBuf,
    /// Admit keys with bcrypt or BLAKE3 hashes, which anybody can make, from a file that was not written by a
    /// holder of this store's hash key.
    #[arg(long)]
    pub(crate) unsigned: bool,
    #[command(flatten)]
    pub(crate) target: TargetArgs,
}

#[derive(Debug, Args)]
pub(crate) struct TargetArgs {
    /// Check everything, write nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Make the store first if there is none, as `gwstore init` does.
    #[arg(long)]
    pub(crate) create: bool,
    /// Let a policy of the file come into force in place of the store's.
    #[arg(long)]
    pub(crate) policy: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// The file, which only its owner may read, or `-` for standard output.
    pub(crate) file: PathBuf,
    /// Replace the file if there is one; never one that belongs to a store.
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct UpgradeArgs {
    /// Only say what would be done.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn no_two_commands_of_one_kind_are_described_alike() {
        fn check(command: &clap::Command) {
            let mut seen = std::collections::BTreeMap::new();
            for inner in command.get_subcommands() {
                let about = inner.get_about().map(ToString::to_string).unwrap_or_default();
                assert!(!about.is_empty(), "{}", inner.get_name());
                let other = seen.insert(about, inner.get_name());
                assert_eq!(other, None, "as {}", inner.get_name());
                check(inner);
            }
        }
        check(&<Cli as clap::CommandFactory>::command());
    }

    #[test]
    fn overrides_need_a_key() {
        assert_eq!(key_and_value("a.b=c=d"), Ok(("a.b".to_owned(), "c=d".to_owned())));
        assert!(key_and_value("a").is_err());
        assert!(key_and_value("=a").is_err());
    }

    #[test]
    fn settings_are_moved_and_nothing_else() {
        for (given, moved) in [
            ("gwstore -q init --set a=1", "gwstore --set a=1 -q init"),
            ("gwstore --set=a=1 init --set b=2", "gwstore --set=a=1 --set b=2 init"),
            ("gwstore user create -- --set a", "gwstore user create -- --set a"),
            ("gwstore init --set", "gwstore init --set"),
            ("gwstore", "gwstore"),
        ] {
            let of = |line: &str| line.split(' ').map(OsString::from).collect::<Vec<_>>();
            assert_eq!(settings_first(&of(given)), of(moved));
        }
    }
}
