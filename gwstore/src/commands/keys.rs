//! `gwstore keys`: the keyring of a sealed store. What another process has open
//! is changed by that one, or is refused.

mod live;

use std::fmt::Display;
use std::fs;
use std::io::IsTerminal as _;
use std::path::Path;
use std::sync::Arc;

use data_encoding::HEXLOWER;
use ghostwire_store::admin::protocol::KeysRequest;
use ghostwire_store::config::Config;
use ghostwire_store::domain::{StoreId, Timestamp};
use ghostwire_store::info::Resealed;
use ghostwire_store::key_management::Rotation;
use ghostwire_store::keys::crypto::SystemRandom;
use ghostwire_store::keys::crypto::keyring::{Fingerprint, Identity, Keyring, Recipient};
use ghostwire_store::keys::crypto::root::{KeySource, Place};
use ghostwire_store::keys::crypto::signature::{PublicKeys, Purpose};
use ghostwire_store::keys::{Keys, write_identity};
use ghostwire_store::{Error, ErrorKind, Opener, Result, entropy};
use ghostwire_store_sqlite::directory_of;
use serde_json::{Value, json};

use crate::cli::{
    AddRecipientArgs, ChangeRootArgs, DestroyArgs, ExportRecipientArgs, IdentityCommand,
    KeysCommand, RemoveRecipientArgs, RotateArgs, UnlockArgs,
};
use crate::confirm;
use crate::failure::{Ending, Failure, Outcome, input_error, with_help};
use crate::output::{Shell, Table, shown};
use crate::progress::Progress;
use crate::session::store_exists;

/// A recipient's line is 1,959 bytes long; nobody writes much beside it.
const LONGEST_RECIPIENT_FILE: u64 = 64 * 1024;

pub(super) async fn run(config: &Config, command: &KeysCommand, shell: &mut Shell<'_>) -> Outcome {
    match command {
        KeysCommand::Init => init(config, shell).await,
        KeysCommand::List(unlock) => list(config, unlock, shell).await,
        KeysCommand::Identity(command) => identity(command, shell),
        KeysCommand::Rotate(args) => rotate(config, args, shell).await,
        KeysCommand::Reseal(unlock) => reseal_alone(config, unlock, shell).await,
        KeysCommand::Destroy(args) => destroy(config, args, shell).await,
        KeysCommand::RemoveRecipient(args) => remove_recipient(config, args, shell).await,
        KeysCommand::AddRecipient(args) => add_recipient(config, args, shell).await,
        KeysCommand::ExportRecipient(args) => export_recipient(config, args, shell).await,
        KeysCommand::ExportSigner(unlock) => export_signer(config, unlock, shell).await,
        KeysCommand::ChangeRoot(args) => change_root(config, args, shell).await,
        KeysCommand::Verify(unlock) => verify(config, unlock, shell).await,
    }
}

/// The keyring of the configured store, to be opened with the root secret or what is given instead.
fn keys<'c>(config: &'c Config, unlock: &UnlockArgs) -> Result<Keys<'c>> {
    let keys = Keys::of(config).ok_or_else(|| {
        Error::new(
            ErrorKind::Unsupported,
            "the configured store is not sealed, so it has no keyring",
        )
        .with("backend", config.backend.kind())
        .with("help", "only zqlite stores with zqlite.sealed = true have one")
    })?;
    Ok(match source(unlock) {
        Some(source) => keys.source(source),
        None => keys,
    })
}

fn source(unlock: &UnlockArgs) -> Option<Arc<dyn KeySource>> {
    let file = unlock.identity.clone()?;
    Some(Arc::new(Place::File(file)))
}

async fn init(config: &Config, shell: &mut Shell<'_>) -> Outcome {
    let keys = keys(config, &UnlockArgs::default())?;
    if store_exists(config) {
        let error = Error::new(
            ErrorKind::AlreadyExists { constraint: "path" },
            "there is a store already, and a keyring is made before its store",
        );
        return Err(error
            .with("path", config.backend.path().unwrap_or(Path::new("")).display())
            .into());
    }
    let mut store = [0; 16];
    entropy::Entropy::fill(&entropy::SystemEntropy, &mut store)?;
    let root = keys.development_root().filter(|root| !root.exists());
    let keyring =
        keys.create(StoreId::from_bytes(store)).await.map_err(|e| e.during("keys.init"))?;
    if shell.json {
        return shell.object(&json!({
            "path": keys.path(),
            "store": StoreId::from_bytes(*keyring.store()),
            "generation": keyring.generation(),
            "root_secret_file": root,
        }));
    }
    shell.say(format_args!("Made a keyring at {}", shown(&keys.path())))?;
    explain_root(&keys, root.as_deref(), shell)?;
    shell.say("Next: `gwstore keys add-recipient` lets somebody else open it, `gwstore init` makes the store.")
}

/// Says where the root secret is, and what that is worth.
pub(super) fn explain_root(keys: &Keys<'_>, made: Option<&Path>, shell: &mut Shell<'_>) -> Outcome {
    if let Some(made) = made {
        shell.say(format_args!("Made its root secret at {}", shown(made)))?;
    }
    if keys.root_is_beside_store() {
        return shell.say(
            "Back the keyring up, and the root secret elsewhere: without both nothing can be read. Now \
             that\nlies beside the store, and whoever copies the directory can read everything. For more \
             than\ndevelopment, keep it elsewhere: docs/configuration.md says how.",
        );
    }
    shell.say(
        "Back the keyring up, and the root secret elsewhere: without both nothing can be read.",
    )
}

async fn list(config: &Config, unlock: &UnlockArgs, shell: &mut Shell<'_>) -> Outcome {
    let keys = keys(config, unlock)?;
    let keyring = keys.open().await.map_err(|error| error.during("keys.list"))?;
    if shell.json {
        return shell.object(&object(&keys, &keyring));
    }
    let signer = signer(&keyring)?.id().to_string();
    let before = keyring.leaving().map(|leaving| leaving.version());
    shell.pairs(&[
        ("keyring", keys.path().display().to_string()),
        ("store id", StoreId::from_bytes(*keyring.store()).to_string()),
        ("generation", keyring.generation().to_string()),
        ("signer", signer),
        ("root secret", keyring.passphrase().map_or("an identity", |_| "a passphrase").to_owned()),
        (
            "rotation",
            before.map_or("none under way".to_owned(), |it| format!("under way from version {it}")),
        ),
    ])?;
    shell.line("")?;
    let active = keyring.active().ok().map(|key| key.version());
    let data_keys = keyring.data_keys().iter().map(|key| {
        let use_ = if active == Some(key.version()) { "seals" } else { "opens" };
        row("data key", key.version(), use_, since(key.since()))
    });
    let newest = keyring.hash_keys().last().map(|key| key.number());
    let hash_keys = keyring.hash_keys().iter().map(|key| {
        let use_ = match newest == Some(key.number()) {
            _ if config.secret_key_file.is_some() => "unused",
            true => "hashes",
            false => "verifies",
        };
        let since = format!("{}, id {}", since(key.since()), HEXLOWER.encode(&key.id()));
        row("hash key", key.number(), use_, since)
    });
    let recipients = keyring.members().iter().map(|member| {
        let use_ = if member.is_root() { "unlocks the store" } else { "opens the keyring" };
        row("recipient", member.recipient().fingerprint(), use_, member.label().to_owned())
    });
    let rows: Vec<_> = data_keys.chain(hash_keys).chain(recipients).collect();
    Table::new(&["WHAT", "NUMBER", "USE", "SINCE OR LABEL"]).rows(shell, &rows)
}

fn row(what: &str, number: impl Display, use_: &str, more: String) -> Vec<String> {
    vec![what.to_owned(), number.to_string(), use_.to_owned(), more]
}

fn since(micros: u64) -> String {
    let at = i64::try_from(micros).ok().and_then(|micros| Timestamp::from_micros(micros).ok());
    at.map_or_else(|| "unknown".to_owned(), |at| at.to_string())
}

/// No secret is in it.
fn object(keys: &Keys<'_>, keyring: &Keyring) -> Value {
    let data_keys = keyring.data_keys().iter();
    let hash_keys = keyring.hash_keys().iter();
    let recipients = keyring.members().iter().map(|member| {
        json!({
            "fingerprint": member.recipient().fingerprint().to_string(),
            "label": member.label(),
            "root": member.is_root(),
        })
    });
    json!({
        "path": keys.path(),
        "store": StoreId::from_bytes(*keyring.store()),
        "generation": keyring.generation(),
        "signer": signer(keyring).ok().map(|signer| signer.id().to_string()),
        "passphrase": keyring.passphrase().is_some(),
        "rotating_from": keyring.leaving().map(|leaving| leaving.version()),
        "data_keys": data_keys.map(|key| json!({ "version": key.version(), "since": since(key.since()) })).collect::<Vec<_>>(),
        "hash_keys": hash_keys.map(|key| json!({
            "number": key.number(),
            "id": HEXLOWER.encode(&key.id()),
            "since": since(key.since()),
        })).collect::<Vec<_>>(),
        "recipients": recipients.collect::<Vec<_>>(),
    })
}

pub(super) fn identity(command: &IdentityCommand, shell: &mut Shell<'_>) -> Outcome {
    let IdentityCommand::New { file } = command;
    if file.as_os_str() == "-" {
        let error = Error::invalid("an identity is secret, and is not printed: name a file for it");
        return Err(Failure::usage(error.with("file", "-")));
    }
    let drawn = Identity::draw(&SystemRandom);
    let identity = drawn.map_err(|error| Error::new(ErrorKind::Unavailable, error.to_string()))?;
    let fingerprint = write_identity(file, &identity, directory_of(file))
        .map_err(|error| error.during("keys.identity"))?;
    let recipient = identity.recipient().to_string();
    if shell.json {
        return shell.object(&json!({
            "path": file,
            "fingerprint": fingerprint.to_string(),
            "recipient": recipient,
        }));
    }
    shell.line(recipient)?;
    shell.note(format_args!(
        "made the identity {fingerprint} at {}; the line is its recipient, which is no secret",
        shown(file)
    ));
    Ok(())
}

async fn rotate(config: &Config, args: &RotateArgs, shell: &mut Shell<'_>) -> Outcome {
    let keys = keys(config, &args.unlock)?;
    if args.hash_key {
        let changed = keys.rotate_hash_key().await.map_err(|error| error.during("keys.rotate"))?;
        return changed_to(
            &keys,
            &changed,
            shell,
            "A new hash key hashes from now on; what the older ones hashed is hashed anew when it is used.",
        );
    }
    let rotation = if args.leaked { Rotation::Leaked } else { Rotation::Routine };
    let request = match args.from {
        Some(from) => KeysRequest::RotateFrom { from, rotation },
        None => KeysRequest::Rotate(rotation),
    };
    let changed = match live::change(config, &keys, (request, args.wait), shell).await? {
        Some(changed) => changed,
        None => {
            let opener = opener(config, &args.unlock);
            let changed = match args.from {
                Some(from) => opener.rotate_data_key_from(from, rotation).await,
                None => opener.rotate_data_key(rotation).await,
            };
            let changed = changed.map_err(|error| error.during("keys.rotate"))?;
            if args.wait {
                reseal(&opener, shell).await?;
            }
            changed
        }
    };
    if args.wait {
        return changed_to(
            &keys,
            &changed,
            shell,
            "A new data key seals, and has sealed everything.",
        );
    }
    changed_to(&keys, &changed, shell, RESEALED_LATER)
}

const RESEALED_LATER: &str = "A new data key seals from now on. What the older ones sealed is sealed anew \
    while the store is\nopen, or by `gwstore keys reseal`; `gwstore status` says how far that is.";

fn opener<'c>(config: &'c Config, unlock: &UnlockArgs) -> Opener<'c> {
    match source(unlock) {
        Some(source) => Opener::new(config).key_source(source),
        None => Opener::new(config),
    }
}

/// Seals everything under the newest key, with a bar.
async fn reseal(opener: &Opener<'_>, shell: &mut Shell<'_>) -> Outcome<Resealed> {
    let mut progress: Option<(Progress, u64)> = None;
    let is_wanted = !shell.json && std::io::stderr().is_terminal();
    let resealed = opener.reseal(|now| {
        let (bar, done) = progress
            .get_or_insert_with(|| (Progress::new("sealing anew", Some(now.of), is_wanted), 0));
        bar.advance(now.records.saturating_sub(*done));
        *done = (*done).max(now.records);
    });
    Ok(resealed.await.map_err(|error| error.during("keys.reseal"))?)
}

async fn reseal_alone(config: &Config, unlock: &UnlockArgs, shell: &mut Shell<'_>) -> Outcome {
    keys(config, unlock)?;
    let resealed = match live::reseal(config, shell).await? {
        Some(resealed) => resealed,
        None => reseal(&opener(config, unlock), shell).await?,
    };
    if shell.json {
        return shell.object(&json!({ "resealed": resealed }));
    }
    if resealed.is_under_way() {
        let missing = resealed.of - resealed.records;
        return Err(Failure::As(
            Ending::Found,
            Error::corrupt("records are counted under older keys and were not found")
                .with("records", missing)
                .with("help", "`gwstore doctor --verify` checks every record"),
        ));
    }
    shell.say(format_args!(
        "All {} records are sealed under version {} of the data key.\nWhat only the older ones sealed in \
         backups is still read with them: `gwstore keys destroy VERSION` ends that.",
        resealed.of, resealed.version
    ))
}

async fn destroy(config: &Config, args: &DestroyArgs, shell: &mut Shell<'_>) -> Outcome {
    let keys = keys(config, &args.unlock)?;
    let (opener, version) = (opener(config, &args.unlock), args.version);
    if !args.yes {
        if !std::io::stdin().is_terminal() || shell.json {
            return Err(Error::new(
                ErrorKind::Restricted,
                "a destroyed key does not come back; say --yes",
            )
            .with("version", version)
            .into());
        }
        confirm::ask(&format!("Destroy version {version} of the data key?"), shell)?;
    }
    // Before it is gone: afterwards none of them can be opened.
    let copies = opener.copies_sealed_under(version).await?;
    let request = (KeysRequest::Destroy { version }, false);
    let changed = match live::change(config, &keys, request, shell).await? {
        Some(changed) => changed,
        None => {
            let changed = opener.destroy_data_key(version).await;
            changed.map_err(|error| error.during("keys.destroy"))?
        }
    };
    if shell.json {
        let mut object = object(&keys, &changed);
        if let Value::Object(fields) = &mut object {
            fields.insert("unreadable".to_owned(), json!(copies));
        }
        return shell.object(&object);
    }
    for copy in &copies {
        shell.caution(format_args!("{} cannot be read with this keyring any more", shown(copy)));
    }
    let said = format!(
        "Version {version} of the data key is gone from the keyring. An older copy of the keyring, a backup \
         or one in\nescrow, brings it back together with an identity that opens it: destroy those copies, or \
         replace root and\nrecipients (`keys change-root`, new identities) and destroy the old identities."
    );
    changed_to(&keys, &changed, shell, &said)
}

async fn remove_recipient(
    config: &Config,
    args: &RemoveRecipientArgs,
    shell: &mut Shell<'_>,
) -> Outcome {
    let keys = keys(config, &args.unlock)?;
    let fingerprint = args.fingerprint.clone();
    let request = (KeysRequest::RemoveRecipient { fingerprint }, args.wait);
    let changed = match live::change(config, &keys, request, shell).await? {
        Some(changed) => changed,
        None => {
            let opener = opener(config, &args.unlock);
            let changed = opener.remove_recipient(&args.fingerprint).await;
            let changed = changed.map_err(|error| error.during("keys.remove-recipient"))?;
            if args.wait {
                reseal(&opener, shell).await?;
            }
            changed
        }
    };
    let said = format!(
        "{} does not open the keyring any more, and new keys seal and sign from now on. Who leaves keeps \
         what he\ncould read: everything up to now, and each older copy of keyring and store.",
        args.fingerprint
    );
    changed_to(&keys, &changed, shell, &said)
}

/// What the keyring has become.
fn changed_to(keys: &Keys<'_>, keyring: &Keyring, shell: &mut Shell<'_>, said: &str) -> Outcome {
    if shell.json {
        return shell.object(&object(keys, keyring));
    }
    shell.say(said)?;
    shell.say(format_args!(
        "The keyring is of generation {} now: replace its backups. Older ones still open what they did.",
        keyring.generation()
    ))
}

async fn add_recipient(config: &Config, args: &AddRecipientArgs, shell: &mut Shell<'_>) -> Outcome {
    let keys = keys(config, &args.unlock)?;
    let recipient = read_recipient(&args.recipient)?;
    let (fingerprint, label) = (recipient.fingerprint(), args.label.clone().unwrap_or_default());
    let changed = keys.change(move |keyring| keyring.add_recipient(recipient, &label)).await;
    let changed = changed.map_err(|error| error.during("keys.add-recipient"))?;
    let said = format!(
        "{fingerprint} opens the keyring from now on, and with it everything that is and will be in the store."
    );
    changed_to(&keys, &changed, shell, &said)
}

/// A line, or the file that has it.
fn read_recipient(text: &str) -> Outcome<Recipient> {
    let parse =
        |line: &str| line.parse::<Recipient>().map_err(|error| Error::invalid(error.to_string()));
    if text.starts_with("age1") {
        return Ok(parse(text)?);
    }
    let path = Path::new(text);
    let size = fs::metadata(path).map(|metadata| metadata.len());
    let size = size.map_err(|error| {
        input_error("this is no line age1pq1…, and no file that can be read", Some(path), error)
    })?;
    let none = || {
        Error::invalid("the file has no line age1pq1…").with("path", path.display()).with(
            "help",
            "`gwstore keys identity new` prints such a line, and so does `age-keygen -y`",
        )
    };
    if size > LONGEST_RECIPIENT_FILE {
        return Err(none().into());
    }
    let content = fs::read_to_string(path)
        .map_err(|error| input_error("the recipient's file cannot be read", Some(path), error))?;
    if content.contains("AGE-SECRET-KEY-") {
        return Err(Error::invalid(
            "the file has an identity, which is secret, and not a recipient",
        )
        .with("path", path.display())
        .with("help", "give the line age1pq1… that belongs to it")
        .into());
    }
    let mut lines =
        content.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    match (lines.next(), lines.next()) {
        (Some(line), None) => Ok(parse(line).map_err(|error| error.with("path", path.display()))?),
        _ => Err(none().into()),
    }
}

async fn export_recipient(
    config: &Config,
    args: &ExportRecipientArgs,
    shell: &mut Shell<'_>,
) -> Outcome {
    let keys = keys(config, &args.unlock)?;
    let keyring = keys.open().await.map_err(|error| error.during("keys.export-recipient"))?;
    let wanted = args.fingerprint.as_deref();
    let is_it = |fingerprint: Fingerprint, is_root: bool| match wanted {
        Some(wanted) => fingerprint.to_string() == wanted,
        None => is_root,
    };
    let found = keyring
        .members()
        .iter()
        .find(|member| is_it(member.recipient().fingerprint(), member.is_root()));
    let Some(member) = found else {
        let known: Vec<_> = keyring
            .members()
            .iter()
            .map(|member| member.recipient().fingerprint().to_string())
            .collect();
        return Err(Error::new(ErrorKind::NotFound, "the keyring is not sealed to this recipient")
            .with("known", known.join(", "))
            .into());
    };
    let line = member.recipient().to_string();
    if shell.json {
        let fingerprint = member.recipient().fingerprint().to_string();
        return shell.object(&json!({ "fingerprint": fingerprint, "recipient": line }));
    }
    shell.line(line)
}

async fn export_signer(config: &Config, unlock: &UnlockArgs, shell: &mut Shell<'_>) -> Outcome {
    let keys = keys(config, unlock)?;
    let keyring = keys.open().await.map_err(|error| error.during("keys.export-signer"))?;
    let signer = signer(&keyring)?;
    let (fingerprint, line) = (signer.id().to_string(), signer.to_string());
    if shell.json {
        return shell.object(&json!({ "fingerprint": fingerprint, "public_key": line }));
    }
    shell.line(line)?;
    shell.note(format_args!("its fingerprint is {fingerprint}; neither is a secret"));
    Ok(())
}

/// Whose signatures the store has.
fn signer(keyring: &Keyring) -> Result<PublicKeys> {
    let signer = keyring.authority().signer(Purpose::Manifest);
    let signer = signer.map_err(|error| Error::new(ErrorKind::Unavailable, error.to_string()))?;
    Ok(signer.public().clone())
}

async fn change_root(config: &Config, args: &ChangeRootArgs, shell: &mut Shell<'_>) -> Outcome {
    let keys = keys(config, &args.unlock)?;
    let place = args.root.place().ok_or_else(|| {
        Failure::usage(Error::invalid("the new root secret's place has to be given"))
    })?;
    let changed =
        keys.change_root(&place).await.map_err(|error| error.during("keys.change-root"))?;
    let said = format!(
        "The store is unlocked by {} from now on: name it in the configuration. Older copies of the \
         keyring still open with the old root secret.",
        place.name()
    );
    changed_to(&keys, &changed, shell, &said)
}

/// Whether the keyring opens and is its store's.
async fn verify(config: &Config, unlock: &UnlockArgs, shell: &mut Shell<'_>) -> Outcome {
    let keys = keys(config, unlock)?;
    let found = |error: Error| Failure::As(Ending::Found, error.during("keys.verify"));
    let keyring = keys.open().await.map_err(found)?;
    let has_store = store_exists(config);
    if let Some(there) = live::signer(config, shell).await? {
        let here = signer(&keyring)?.id().to_string();
        if here != there {
            let message =
                "the process that has the store open uses other keys than this keyring has";
            let error = Error::new(ErrorKind::Crypto, message);
            let error = error.with("keyring", here).with("process", there);
            return Err(found(with_help(error, "put the store's own keyring in this place")));
        }
    } else if has_store {
        let mut opener = Opener::new(config).create(false).read_only(true);
        if let Some(source) = source(unlock) {
            opener = opener.key_source(source);
        }
        match opener.open_backend().await {
            Ok(backend) => backend.close().await?,
            // It is not known, then.
            Err(error) if *error.kind() == ErrorKind::Busy => return Err(error.into()),
            Err(error) => return Err(found(error)),
        }
    } else if !keys.is_unused()? {
        let error =
            Error::new(ErrorKind::NotFound, "the keyring is in order, but its store is not there");
        return Err(found(with_help(error, "restore the store's file")));
    }
    if shell.json {
        let mut object = object(&keys, &keyring);
        if let Value::Object(fields) = &mut object {
            fields.insert("store_opens".to_owned(), json!(has_store));
        }
        return shell.object(&object);
    }
    shell.tell(format_args!(
        "The keyring is in order: generation {}, signed, and sealed to {}.",
        keyring.generation(),
        match keyring.members().len() {
            1 => "one recipient".to_owned(),
            more => format!("{more} recipients"),
        }
    ))?;
    shell.tell(if has_store { "It opens the store." } else { "Its store is still to be made." })
}
