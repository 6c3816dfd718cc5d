//! `gwstore migrate`: moving the network to another backend, by the process that has the store open, or here if
//! nobody has.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ghostwire_store::admin::protocol::MigrateRequest;
use ghostwire_store::admin::{Client, Migrations as _, note_migration};
use ghostwire_store::config::Config;
use ghostwire_store::migration::{Migrations, Plan, SideStatus, Stage, Status, has_moved};
use ghostwire_store::{Error, ErrorKind, Result, Store};
use ghostwire_store_sqlite::{
    Access, ROOT_FILE, StoreFile, directory_of, failed, is_beside, resolved, with_suffix,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::actor::actor;
use crate::cli::{MigrateCommand, MigrateGoOn};
use crate::confirm::{self, Advice};
use crate::failure::{Ending, Failure, Outcome};
use crate::live::{self, Found};
use crate::output::{Shell, bytes};
use crate::session::{advised, opener, refuse_to_forget};

/// How often the status is asked for while somebody waits.
const EVERY: Duration = Duration::from_millis(200);

pub(super) async fn run(
    config: &Config,
    command: &MigrateCommand,
    shell: &mut Shell<'_>,
) -> Outcome {
    refuse_to_forget(config)?;
    if let MigrateCommand::GoOn(args) = command {
        return go_on(config, args, shell).await;
    }
    let is_confirmed = match command {
        MigrateCommand::Abort(args) => args.yes,
        MigrateCommand::Finish(args) => args.yes,
        _ => true,
    };
    if !is_confirmed {
        confirm::ask(question(command), Advice::Confirm, shell)?;
    }
    let hand = match live::find(config, shell).await? {
        Found::Served(client) => Hand::Client(client.acting_as(actor())),
        Found::Denied(error) => live::denied(Hand::open(config, command).await, error)?,
        Found::Nobody => live::explained(Hand::open(config, command).await, config)?,
    };
    let done = take(&hand, config, command, shell).await;
    let closed = hand.close().await;
    done?;
    closed?;
    Ok(())
}

fn question(command: &MigrateCommand) -> &'static str {
    match command {
        MigrateCommand::Finish(args) if args.shred_source => {
            "Leave the source for good, and overwrite and remove its files, backups and copies? There is no way back."
        }
        MigrateCommand::Finish(_) => {
            "Leave the source for good? The network is then on the target alone, and there is no way back."
        }
        _ => "Abort the migration? What was copied is of no use then.",
    }
}

/// On the files: a process that has the other store open decides by itself, and one that cannot open both
/// serves nobody.
async fn go_on(config: &Config, args: &MigrateGoOn, shell: &mut Shell<'_>) -> Outcome {
    let lost = args.the_other_side_is_down;
    if let Found::Served(_) | Found::Denied(_) = live::find(config, shell).await? {
        return Err(Error::new(
            ErrorKind::Busy,
            "a process has one of both stores open; it goes on without the other one by itself, or is stopped first",
        )
        .into());
    }
    let survivor = opener(config).create(false).survivor(lost).await;
    let survivor = survivor.map_err(|error| advised(config, error))?;
    let (head, store) = (*survivor.head(), survivor.store().to_owned());
    let record = head.record();
    let may_lack = match survivor.may_lack() {
        true => "It followed later: what was answered after that may be lost.",
        false => {
            "It has what was answered while both were in step; if the other one went on alone since \
             (migration_fallback in its log), it lacks what was answered then."
        }
    };
    shell.note(format_args!(
        "{store} is {record}, at position {} and serial {}, last written at {}. {may_lack}",
        head.position, head.serial, head.time
    ));
    if let Some(server) = survivor.lost_server() {
        shell.note(format_args!(
            "Other processes may still reach {server}, and what they write there will be lost: stop all of them first."
        ));
    }
    if !args.yes {
        let question = "Have it be the network? Whatever the other side has is superseded then.";
        if let Err(refused) = confirm::ask(question, Advice::Confirm, shell) {
            survivor.leave().await?;
            return Err(refused);
        }
    }
    survivor.go_on().await?;
    if shell.json {
        return shell.object(&json!({ "store": store, "lost": lost, "position": head.position }));
    }
    shell.say(format_args!(
        "{store} is the network. Start the process as before: when the other store is there again, it is set aside and \
         copied anew. Never start that one alone."
    ))
}

/// Who does it.
enum Hand {
    Client(Client),
    /// Nobody has the store open, so this process does.
    Here(Arc<dyn Store>, Migrations),
}

impl Hand {
    async fn open(config: &Config, command: &MigrateCommand) -> Result<Self> {
        // A plan goes on with nothing that was interrupted, and upgrades nothing.
        let only_reads = matches!(command, MigrateCommand::Plan);
        let opener = opener(config).create(false).read_only(only_reads);
        let opened = opener.open_movable().await.map_err(|error| advised(config, error));
        opened.map(|(store, migrations)| Self::Here(store, migrations))
    }

    async fn ask(&self, request: MigrateRequest) -> Result<Value> {
        match self {
            Self::Client(client) => client.migrate(request).await,
            Self::Here(store, migrations) => {
                let done = migrations.migrate(request, actor().as_str()).await?;
                note_migration(store.clone(), actor().into(), request).await;
                Ok(done)
            }
        }
    }

    async fn read<T: DeserializeOwned>(&self, request: MigrateRequest) -> Result<T> {
        serde_json::from_value(self.ask(request).await?).map_err(|error| {
            Error::new(ErrorKind::Unsupported, "the answer of the process cannot be read")
                .with(
                    "help",
                    "use a gwstore of the same release as the program that has the store open",
                )
                .because(error)
        })
    }

    async fn close(self) -> Result<()> {
        match self {
            Self::Client(_) => Ok(()),
            Self::Here(store, _) => store.close().await,
        }
    }

    /// Where the migration stands; `None` if there is none.
    async fn status(&self) -> Result<Option<Status>> {
        match self.read(MigrateRequest::Status).await {
            Ok(status) => Ok(Some(status)),
            Err(error) if *error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

async fn take(
    hand: &Hand,
    config: &Config,
    command: &MigrateCommand,
    shell: &mut Shell<'_>,
) -> Outcome {
    match command {
        MigrateCommand::Plan => plan(&hand.read(MigrateRequest::Plan).await?, shell),
        MigrateCommand::Status(args) => match hand.read(MigrateRequest::Status).await {
            Ok(status) if args.wait => {
                let status = wait(hand, status, shell).await?;
                show(&status, shell)
            }
            Ok(status) => show(&status, shell),
            Err(error) if *error.kind() == ErrorKind::NotFound => none(config, &error, shell),
            Err(error) => Err(error.into()),
        },
        MigrateCommand::Start(args) => {
            let status: Status = hand.read(MigrateRequest::Start).await?;
            // Whoever began it here has to bring it to where another process can go on.
            let waits = args.wait || matches!(hand, Hand::Here(..));
            let status = if waits { wait(hand, status, shell).await? } else { status };
            show(&status, shell)?;
            match status.stage {
                Stage::Filling => shell.say(
                    "The target is being filled; `gwstore migrate status --wait` waits for it.",
                ),
                Stage::Mirror => {
                    shell.say("The target follows; `gwstore migrate advance` serves from it.")
                }
                _ => shell.say("The target does not answer; `gwstore migrate status` tells why."),
            }
        }
        MigrateCommand::Advance => {
            let status: Status = hand.read(MigrateRequest::Advance).await?;
            show(&status, shell)?;
            shell.say("The target is served. `gwstore migrate back` goes back; `gwstore migrate finish` ends that.")
        }
        MigrateCommand::Back => {
            let status: Status = hand.read(MigrateRequest::Back).await?;
            show(&status, shell)?;
            shell.say("The source is served again, and the target follows.")
        }
        MigrateCommand::Abort(_) => {
            hand.ask(MigrateRequest::Abort).await?;
            if shell.json {
                return shell.object(&json!({ "stage": Stage::SourceOnly }));
            }
            shell.say("The migration was aborted. The source is served alone; remove the target's files, or drop its schema, before another one begins.")
        }
        MigrateCommand::Finish(args) => finish(hand, config, args.shred_source, shell).await,
        // It needs nobody who has the store open.
        MigrateCommand::GoOn(_) => Ok(()),
    }
}

async fn finish(hand: &Hand, config: &Config, shreds: bool, shell: &mut Shell<'_>) -> Outcome {
    if let Some(location) = config.backend.server().filter(|_| shreds) {
        let error =
            Error::invalid("only files are overwritten; drop the schema of the source afterwards")
                .with("source", location);
        return Err(error.into());
    }
    hand.ask(MigrateRequest::Finish).await?;
    let left = left_of_source(config);
    if shreds {
        let _held = hold(config)?;
        left.iter().try_for_each(|path| shred(path))?;
    }
    let target = config.migration.target.as_deref().unwrap_or_default();
    let key = config.for_store(target).ok().and_then(|target| target.secret_key_path());
    let key = key.filter(|key| key.exists());
    if shell.json {
        let left: Vec<_> = left.iter().map(|path| path.display().to_string()).collect();
        let keep = key.map(|key| key.display().to_string());
        let which = if shreds { "shredded" } else { "left" };
        return shell.object(&json!({ "stage": Stage::TargetOnly, which: left, "keep": keep }));
    }
    shell.say("The network is on the target alone.")?;
    let then = match shreds {
        _ if config.backend.server().is_some() => {
            "The schema of the source can be dropped then; there are no files of it."
        }
        true => "These files of the source were overwritten and removed:",
        false => "Then these files of the source can be removed, and nothing else:",
    };
    shell.say(format_args!("{} {then}", after_finish(target)))?;
    for path in left {
        shell.say(format_args!("  {}", path.display()))?;
    }
    match key {
        Some(key) => shell.say(format_args!(
            "Keep {}: every credential is hashed with this key, and the target uses it.",
            key.display()
        )),
        None => Ok(()),
    }
}

/// What is left to be done once the network has moved.
fn after_finish(target: &str) -> String {
    format!(
        "Say store = \"{target}\" in the flag file, leave migration.target out, and start the process anew."
    )
}

/// The files of the source that are there: the database with what its engine and its lock left, backups, copies that
/// were set aside, and its keyring. Its hash key is the target's, too, and a root secret may be.
fn left_of_source(config: &Config) -> Vec<PathBuf> {
    let Some(path) = config.backend.path().map(resolved) else { return Vec::new() };
    let target = config.migration.target.as_deref().and_then(|name| config.for_store(name).ok());
    let target = target.and_then(|target| target.backend.path().map(resolved));
    let is_of_target = |file: &Path| target.as_ref().is_some_and(|target| is_beside(target, file));
    let aside = with_suffix(&path, ".superseded-");
    let is_aside = |file: &Path| {
        file.as_os_str().as_encoded_bytes().starts_with(aside.as_os_str().as_encoded_bytes())
    };
    let root = with_suffix(&path, ROOT_FILE);
    let entries = std::fs::read_dir(directory_of(&path)).into_iter().flatten().flatten();
    let files = entries.map(|entry| entry.path()).filter(|file| {
        let is_file = file.symlink_metadata().is_ok_and(|metadata| metadata.is_file());
        let is_left = *file != root && (is_beside(&path, file) || is_aside(file));
        is_file && is_left && !is_of_target(file)
    });
    let mut files: Vec<_> = files.collect();
    files.sort();
    files
}

/// Keeps everybody from the source. Whoever still has it open, since its disk is slow, may write to it when it is closed.
fn hold(config: &Config) -> Result<Option<StoreFile>> {
    let Some((path, kind)) = config.backend.path().zip(config.backend.file_kind()) else {
        return Ok(None);
    };
    match StoreFile::open(path, kind, Access::Existing) {
        Ok(held) => Ok(Some(held)),
        Err(error) if *error.kind() == ErrorKind::Busy => Err(error.with(
            "help",
            "the migration has ended, and nothing was overwritten; end whoever has the source open, and remove its \
             files by hand",
        )),
        Err(_) => Ok(None),
    }
}

/// Overwrites a file once, and removes it.
fn shred(path: &Path) -> Result<()> {
    let overwrite = || {
        let mut file = std::fs::OpenOptions::new().write(true).open(path)?;
        let bytes = file.metadata()?.len();
        io::copy(&mut io::repeat(0).take(bytes), &mut file)?;
        file.sync_all()?;
        std::fs::remove_file(path)
    };
    overwrite().map_err(|error| {
        failed("a file of the source cannot be overwritten and removed", path, error)
            .with("help", "the migration has ended; remove the file by hand")
    })
}

/// There is no migration, as `error` says.
fn none(config: &Config, error: &Error, shell: &mut Shell<'_>) -> Outcome {
    let has_moved = has_moved(error);
    if shell.json {
        let stage = has_moved.then_some(Stage::TargetOnly);
        return shell.object(&json!({ "stage": stage, "target": config.migration.target }));
    }
    match &config.migration.target {
        Some(target) if has_moved => shell.tell(format_args!(
            "The network has moved to {target}, for good. {}",
            after_finish(target)
        )),
        Some(target) => shell.tell(format_args!(
            "No migration is under way. `gwstore migrate start` moves the network to {target}."
        )),
        None => shell.tell("No migration is under way, and migration.target names no store."),
    }
}

/// Waits until the copy is complete.
async fn wait(hand: &Hand, first: Status, shell: &mut Shell<'_>) -> Outcome<Status> {
    let mut status = first;
    let mut progress = None;
    let mut seen = 0;
    while matches!(status.stage, Stage::Filling | Stage::Between | Stage::Unknown) {
        if let Some(error) = &status.last_error {
            let error = Error::new(ErrorKind::Unavailable, "the copy does not go on")
                .with(
                    "help",
                    "`gwstore migrate status` tells whether it does again; it goes on by itself",
                )
                .because(error.clone());
            return Err(Failure::As(Ending::Refused, error));
        }
        if let Some(copy) = status.copy.filter(|copy| copy.total > 0) {
            let bar = progress.get_or_insert_with(|| shell.progress("copying", Some(copy.total)));
            bar.advance(copy.rows.saturating_sub(seen));
            seen = copy.rows;
        }
        tokio::time::sleep(EVERY).await;
        let Some(next) = hand.status().await? else {
            return Err(Error::new(ErrorKind::Conflict, "the migration ended meanwhile")
                .with("help", "`gwstore migrate status` tells how")
                .into());
        };
        status = next;
    }
    Ok(status)
}

fn plan(plan: &Plan, shell: &mut Shell<'_>) -> Outcome {
    if shell.json {
        shell.object(plan)?;
    } else {
        let place = |place: &ghostwire_store::migration::Place| {
            let location = place.location.as_deref().unwrap_or("no file");
            let sealed = if place.sealed { ", sealed" } else { "" };
            format!("{} ({}{sealed}), {location}", place.store, place.backend)
        };
        let makes = if plan.makes_target { "is made" } else { "is there, and empty" };
        shell.pairs(&[
            ("from", place(&plan.source)),
            ("to", place(&plan.target)),
            (
                "target",
                if plan.refused.is_some() { "refused".to_owned() } else { makes.to_owned() },
            ),
            ("to copy", plan.bytes.map_or_else(|| "unknown".to_owned(), bytes)),
            ("nodes", plan.nodes.to_string()),
        ])?;
    }
    match &plan.refused {
        None => shell.say("It can begin: `gwstore migrate start`."),
        Some(reason) => Err(Failure::As(
            Ending::Refused,
            Error::new(ErrorKind::Restricted, "the migration cannot begin").because(reason.clone()),
        )),
    }
}

fn show(status: &Status, shell: &mut Shell<'_>) -> Outcome {
    if shell.json {
        return shell.object(status);
    }
    let side = |side: &SideStatus| {
        let place = format!("{} {}", side.backend, side.location.as_deref().unwrap_or_default());
        let SideStatus { side: id, role, epoch, position, .. } = side;
        let place = format!("{place} ({id})");
        match side.answers {
            _ if role == SideStatus::UNKNOWN => format!("{place}, has not answered so far"),
            true => format!("{place}, {role} in epoch {epoch}, position {position}"),
            false => format!(
                "{place}, does not answer; was {role} in epoch {epoch}, position {position}"
            ),
        }
    };
    let mut pairs = vec![
        ("stage", status.stage.name().to_owned()),
        ("served", status.served.clone()),
        ("source", side(&status.source)),
        ("target", side(&status.target)),
        (
            "lag",
            match status.in_step {
                true => "none: an answer means that both have it".to_owned(),
                false => status.lag.map_or_else(
                    || "unknown: not both stores answer".to_owned(),
                    |lag| format!("{lag} commits"),
                ),
            },
        ),
    ];
    if let Some(copy) = &status.copy {
        let left = copy.seconds_left.map_or_else(String::new, |left| format!(", {left} s left"));
        pairs.push((
            "copied",
            format!("{} of {} rows, {} a second{left}", copy.rows, copy.total, copy.per_second),
        ));
    }
    if let Some(stall) = status.last_stall_ms {
        pairs.push(("last hand-over", format!("nobody was served for {stall} ms")));
    }
    if let Some(running) = &status.running {
        pairs.push((
            "running",
            format!("{} by {} since {}", running.what, running.by, running.since),
        ));
    }
    if let Some(fallback) = &status.last_fallback {
        let times = status.fallbacks;
        pairs.push(("went on without one", format!("{times} times; the last time {fallback}")));
    }
    if let Some(error) = &status.last_error {
        pairs.push(("the copy does not go on", error.clone()));
    }
    shell.pairs(&pairs)
}
