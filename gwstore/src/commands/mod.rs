//! What each subcommand does.

mod attest;
#[cfg(feature = "bench")]
pub(crate) mod bench;
mod clock;
mod compact;
mod config;
#[cfg(feature = "conformance")]
pub(crate) mod conformance;
mod consumers;
mod digest;
mod doctor;
mod documents;
mod edit;
mod export;
pub(crate) mod health;
mod import;
mod init;
#[cfg(feature = "zqlite")]
mod keys;
mod list;
pub(crate) mod live;
mod manual;
mod migrate;
#[cfg(feature = "zqlite-native")]
mod native;
#[cfg(feature = "zqlite")]
mod pin;
mod seal;
mod status;
mod upgrade;
#[cfg(feature = "zqlite")]
mod verify_attestation;

use ghostwire_store::config::Config;
use ghostwire_store::{Error, ErrorKind};

#[cfg(feature = "zqlite")]
use crate::cli::KeysCommand;
use crate::cli::{Cli, Command, ConfigCommand, GlobalOptions, ImportCommand};
use crate::failure::{Ending, Failure, Outcome};
use crate::nouns::Act;
use crate::output::{Shell, shown};
use crate::session::load_config;

/// Does what the command line says.
pub(crate) async fn run(cli: &Cli, shell: &mut Shell<'_>) -> Outcome {
    if let Command::Demo(args) = &cli.command {
        let why = "the demonstration makes stores of its own: --directory says where";
        refuse_store_options(&cli.global, why)?;
        return demo(args, shell).await;
    }
    #[cfg(feature = "bench")]
    if let Command::Bench(args) = &cli.command {
        let why = "the benchmarks make stores of their own: --dir says where";
        refuse_store_options(&cli.global, why)?;
        return bench::run(args, shell).await;
    }
    #[cfg(not(feature = "bench"))]
    if let Command::Bench(_) = &cli.command {
        return Err(not_built("bench"));
    }
    #[cfg(not(feature = "conformance"))]
    if let Command::Conformance(_) = &cli.command {
        return Err(not_built("conformance"));
    }
    #[cfg(feature = "conformance")]
    if let Command::Conformance(args) = &cli.command
        && args.list
    {
        let why = "--list says the same of every store, and looks at none";
        refuse_store_options(&cli.global, why)?;
        return conformance::list(args, shell);
    }
    // It is about no store, and comes before there is a configuration.
    #[cfg(feature = "zqlite")]
    if let Command::Keys(KeysCommand::Identity(command)) = &cli.command {
        return keys::identity(command, shell);
    }
    #[cfg(feature = "zqlite")]
    if let Command::VerifyAttestation(args) = &cli.command
        && !args.compare
    {
        let why = "an attestation is verified without a store; --compare asks one";
        refuse_store_options(&cli.global, why)?;
        return verify_attestation::offline(args, shell);
    }
    match &cli.command {
        Command::Completions { shell: of } => {
            refuse_store_options(&cli.global, "completions are the same for every store")?;
            return manual::completions(*of, shell);
        }
        Command::Version => return shell.line(manual::version()),
        Command::Man { directory } => {
            refuse_store_options(&cli.global, "manual pages are the same for every store")?;
            return manual::pages(directory, shell);
        }
        Command::Noun(noun) => match noun.act() {
            Act::CheckPolicy(check) => {
                refuse_store_options(&cli.global, "a policy is checked without a store")?;
                return documents::check_policy(check, shell);
            }
            Act::Unclear(error) => return Err(Failure::usage(error)),
            _ => {}
        },
        _ => {}
    }
    // The doctor reports a configuration that does not load as one of its findings.
    if matches!(cli.command, Command::Doctor) {
        return doctor::run(load_config(&cli.global), shell).await;
    }
    let config = load_config(&cli.global)?;
    if let Some(why) = needs_files(&cli.command) {
        crate::live::require_closed(&config, why, shell).await?;
    }
    match &cli.command {
        Command::Init => init::run(&config, shell).await,
        Command::Serve => crate::serve::run(&cli.global, &config, shell).await,
        Command::Health(args) => health::health(&config, args, shell).await,
        Command::Metrics(args) => health::metrics(&config, args, shell).await,
        Command::Top(args) => {
            let client = crate::live::require(&config, shell).await?;
            crate::top::run(&client, args, shell).await
        }
        Command::Status(args) => status::run(&config, args, shell).await,
        Command::Doctor
        | Command::Version
        | Command::Demo(_)
        | Command::Bench(_)
        | Command::Completions { .. }
        | Command::Man { .. } => Ok(()),
        Command::Attest(args) => attest::run(&config, args, shell).await,
        #[cfg(feature = "zqlite")]
        Command::VerifyAttestation(args) => {
            verify_attestation::beside_store(&config, args, shell).await
        }
        #[cfg(not(feature = "zqlite"))]
        Command::VerifyAttestation(_) => Err(not_built("zqlite")),
        Command::Clock(command) => clock::run(&config, command, shell).await,
        #[cfg(feature = "zqlite")]
        Command::Seal => seal::seal(&config, shell).await,
        #[cfg(feature = "zqlite")]
        Command::Unseal(args) => seal::unseal(&config, args, shell).await,
        #[cfg(feature = "zqlite")]
        Command::Keys(command) => keys::run(&config, command, shell).await,
        Command::Compact => compact::run(&config, shell).await,
        Command::Config(ConfigCommand::Show) => config::show(&config, shell),
        Command::Config(ConfigCommand::Reload) => live::reload(&config, shell).await,
        Command::Checkpoint => live::checkpoint(&config, shell).await,
        Command::Verify => live::verify(&config, shell).await,
        Command::Watch(args) => live::watch(&config, args, shell).await,
        Command::Log(command) => live::log(&config, command, shell).await,
        #[cfg(feature = "conformance")]
        Command::Conformance(args) => {
            conformance::run(&config, args, cli.global.verbose > 0, shell).await
        }
        #[cfg(not(feature = "conformance"))]
        Command::Conformance(_) => Ok(()),
        Command::Consumers(command) => consumers::run(&config, command, shell).await,
        Command::Digest => digest::run(&config, shell).await,
        Command::Import(ImportCommand::Headscale(args)) => {
            import::headscale(&config, args, shell).await
        }
        Command::Import(ImportCommand::Portable(args)) => {
            import::portable(&config, args, shell).await
        }
        Command::Export(args) => export::run(&config, args, shell).await,
        Command::List(listed) => list::run(&config, &listed.listing(), shell).await,
        Command::Noun(noun) => act(&config, noun.act(), shell).await,
        Command::Upgrade(args) => upgrade::run(&config, args, shell).await,
        Command::Migrate(command) => migrate::run(&config, command, shell).await,
        #[cfg(feature = "zqlite")]
        Command::Pin(command) => pin::run(&config, command, shell).await,
        #[cfg(not(feature = "zqlite"))]
        Command::Pin(_) => Err(not_built("zqlite")),
        #[cfg(feature = "zqlite-native")]
        Command::Native(crate::cli::NativeCommand::Check(args)) => {
            native::check(&config, args, shell)
        }
        #[cfg(not(feature = "zqlite-native"))]
        Command::Native(_) => Err(not_built("zqlite-native")),
    }
}

/// Why a command needs the store's files to itself, if it does.
fn needs_files(command: &Command) -> Option<&'static str> {
    let why = match command {
        Command::Import(_) => {
            "an import is many commits, and the store is as it has to be only after the last: nobody may work on \
             it meanwhile"
        }
        Command::Upgrade(_) => "the process that has it open reads and writes the older schema",
        Command::Compact => {
            "the file is written anew and put in place of the one that the process writes to"
        }
        #[cfg(feature = "zqlite")]
        Command::Seal | Command::Unseal(_) => {
            "the file is written anew and put in place of the one that the process writes to"
        }
        #[cfg(feature = "zqlite")]
        Command::Pin(_) => {
            "the process moves the pin with each commit, so what is compared or put right would not stay; \
             `gwstore status` says whether there is one"
        }
        _ => return None,
    };
    Some(why)
}

async fn act(config: &Config, act: Act<'_>, shell: &mut Shell<'_>) -> Outcome {
    match act {
        Act::List(listing) => list::run(config, &listing, shell).await,
        Act::Show(table, args) => list::show(config, table, args, shell).await,
        Act::Edit(plans, manner) => edit::run(config, plans, manner, shell).await,
        Act::Issue(issues, how) => edit::issue(config, issues, how, shell).await,
        Act::GetPolicy(args) => documents::get_policy(config, args, shell).await,
        Act::GetSetting(args) => documents::get_setting(config, args, shell).await,
        Act::CheckPolicy(args) => documents::check_policy(args, shell),
        Act::Unclear(error) => Err(Failure::usage(error)),
    }
}

/// A command that this build leaves out.
#[cfg(not(all(
    feature = "bench",
    feature = "conformance",
    feature = "zqlite",
    feature = "zqlite-native"
)))]
fn not_built(command: &str) -> Failure {
    let help = format!(
        "build it in with the Cargo feature of its name: cargo build --release --features {command}"
    );
    Error::new(ErrorKind::Unsupported, "this gwstore was built without that command")
        .with("command", command)
        .with("help", help)
        .into()
}

/// The demonstration, whose errors tell of a store that is not as it has to be.
async fn demo(args: &crate::demo::Args, shell: &mut Shell<'_>) -> Outcome {
    let done = crate::demo::run(args.clone(), &mut *shell.out, shell.json).await;
    done.map_err(|error| match error.kind() {
        ErrorKind::Corrupt | ErrorKind::Unexpected => Failure::As(Ending::Found, error),
        _ => error.into(),
    })?;
    match &args.write_sample {
        Some(path) => shell.say(format_args!("Wrote the sample network to {}", shown(path))),
        None => Ok(()),
    }
}

/// What would be ignored is a mistake.
fn refuse_store_options(global: &GlobalOptions, why: &'static str) -> Outcome {
    let given = [
        ("--config", global.config.is_some()),
        ("--environment", global.environment.is_some()),
        ("--set", !global.set.is_empty()),
        ("--store", global.store.is_some()),
        ("--backend", global.backend.is_some()),
        ("--path", global.path.is_some()),
    ];
    match given.iter().find(|(_, is_given)| *is_given) {
        None => Ok(()),
        Some((option, _)) => {
            let error = Error::invalid(why).with("option", option);
            Err(Failure::usage(error.with("help", "leave the option out")))
        }
    }
}
