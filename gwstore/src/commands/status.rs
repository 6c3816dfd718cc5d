//! `gwstore status`.

use std::path::PathBuf;

use data_encoding::HEXLOWER;
use ghostwire_store::config::Config;
use ghostwire_store::{EntityKind, HashKeys, Result};
use ghostwire_store_core::backend::{Head, LogInfo, Resealed};
use ghostwire_store_core::schema::Schema;
use ghostwire_store_core::state::{CredentialHashes, State};
use ghostwire_store_core::store::StoreInfo;
use serde_json::{Map, Value, json};

use crate::cli::StatusArgs;
use crate::credentials::{KeyFit, StoreKey, configured_key};
use crate::failure::{Outcome, one_line};
use crate::keyring;
use crate::output::{Shell, bytes};
use crate::session::{Reading, SeriesCount, count_audit, count_metrics};

/// Series are counted up to here unless all of it is asked for.
const QUICK_COUNT: u64 = 100_000;
/// What is plain beside a store whose keyring is away.
const NOT_KNOWN: &str = "not known without the keyring";

/// What the store is and holds.
pub(super) async fn run(config: &Config, args: &StatusArgs, shell: &mut Shell<'_>) -> Outcome {
    let reading = Reading::open(config, shell).await?;
    let most = if args.exact { u64::MAX } else { QUICK_COUNT };
    let counted = count(&reading, most).await;
    let (info, head) = (reading.store.info(), reading.head);
    let hashes = CredentialHashes::of(&reading.store.view());
    reading.close().await?;
    let counts = counted?;
    // Of two stores that the network moves between, the one that is served.
    let target = config.migration.target.as_ref().map(|name| config.for_store(name)).transpose()?;
    let (backend, location) = (info.backend.name, info.backend.location.as_deref());
    let served = target.filter(|target| target.backend.is_at(backend, location));
    let config = served.as_ref().unwrap_or(config);
    let key = configured_key(config).await;
    // A store that is served outlives its keyring's file; all else is told all the same.
    let keyring = keyring::header(config);
    if let Err(error) = &keyring {
        shell.caution(format_args!(
            "the keyring cannot be read, without which the store is not opened again: {}; put it back from its backup",
            one_line(error)
        ));
    }
    let plaintext = match keyring {
        Ok(_) => Some(keyring::plaintext_beside(config).await?),
        Err(_) => None,
    };
    if shell.json {
        let credentials = credentials_object(hashes, &key);
        let keyring = match &keyring {
            Ok(keyring) => keyring.as_ref().map(keyring::Summary::object),
            Err(error) => Some(json!({ "error": one_line(error) })),
        };
        let plaintext = match plaintext {
            Some(files) => json!(files),
            None => json!({ "error": NOT_KNOWN }),
        };
        print_json(config, &info, &head, &counts, &[credentials, keyring.into(), plaintext], shell)
    } else {
        let keyring = match keyring {
            Ok(keyring) => keyring.map(|keyring| keyring.to_string()),
            Err(error) => Some(error.message().to_owned()),
        };
        let plaintext = match plaintext {
            Some(files) => files.as_deref().map(describe_plaintext),
            None => Some(NOT_KNOWN.to_owned()),
        };
        let of_keys = [Some(credentials(hashes, &key)), keyring, plaintext];
        print(config, &info, &head, &counts, of_keys, shell)
    }
}

async fn count(reading: &Reading, most: u64) -> Result<Vec<(EntityKind, SeriesCount)>> {
    let view = reading.store.view();
    let state = entity_counts(&view).map(|(entity, count)| (entity, exactly(count)));
    let mut counts = Vec::from(state);
    counts.push((EntityKind::Metric, count_metrics(reading.backend.as_ref(), most).await?));
    counts.push((EntityKind::Audit, count_audit(reading.store.as_ref(), most).await?));
    Ok(counts)
}

/// Why people can or cannot sign in, as far as the hash key decides it.
fn credentials(hashes: CredentialHashes, key: &Result<Option<HashKeys>>) -> String {
    match key {
        Ok(key) => KeyFit::of(hashes, store_key(key.as_ref())).to_string(),
        Err(error) => format!("{}; {}", hashes.total(), error.message()),
    }
}

fn store_key(keys: Option<&HashKeys>) -> StoreKey {
    keys.map_or(StoreKey::Missing, StoreKey::from)
}

fn credentials_object(hashes: CredentialHashes, key: &Result<Option<HashKeys>>) -> Value {
    let keys = key.as_ref().ok().and_then(Option::as_ref);
    let mut object = KeyFit::of(hashes, store_key(keys)).object();
    if let Value::Object(fields) = &mut object {
        let key_id = keys.map(|keys| HEXLOWER.encode(&keys.current().id()));
        fields.insert("key_id".to_owned(), json!(key_id));
    }
    object
}

fn exactly(count: usize) -> SeriesCount {
    SeriesCount { count: count as u64, is_exact: true }
}

/// How many there are of each entity of the state.
pub(super) fn entity_counts(state: &State) -> [(EntityKind, usize); 12] {
    [
        (EntityKind::User, state.users().len()),
        (EntityKind::Node, state.nodes().len()),
        (EntityKind::Instance, state.instances().len()),
        (EntityKind::Presence, state.presence().len()),
        (EntityKind::Route, state.routes().len()),
        (EntityKind::ApiKey, state.api_keys().len()),
        (EntityKind::PreAuthKey, state.preauth_keys().len()),
        (EntityKind::Policy, state.policies().len()),
        (EntityKind::DnsRecord, state.dns_records().len()),
        (EntityKind::Session, state.sessions().len()),
        (EntityKind::SignIn, state.sign_ins().len()),
        (EntityKind::Setting, state.settings().iter().count()),
    ]
}

fn print(
    config: &Config,
    info: &StoreInfo,
    head: &Head,
    counts: &[(EntityKind, SeriesCount)],
    [credentials, keyring, plaintext]: [Option<String>; 3],
    shell: &mut Shell<'_>,
) -> Outcome {
    let backend = &info.backend;
    let yes_or_no = |is: bool| if is { "yes" } else { "no" }.to_owned();
    let last_commit = if info.serial.get() == 0 { "never".into() } else { head.time.to_string() };
    let flag_file = config.flag_file.as_deref();
    let flag_file = flag_file.map_or_else(|| "none".to_owned(), |path| path.display().to_string());
    let mut pairs = vec![
        ("flag file", flag_file),
        ("store", config.store.clone()),
        ("backend", backend.name.to_owned()),
        ("engine", backend.engine.clone()),
        ("location", backend.location.clone().unwrap_or_else(|| "none".to_owned())),
        ("store id", head.store.to_string()),
        ("side id", head.side.to_string()),
        ("lineage", head.lineage.to_string()),
        ("durable", yes_or_no(backend.durable)),
        ("sealed", yes_or_no(backend.sealed)),
        ("pinned", yes_or_no(backend.pinned)),
        ("signer", backend.signer.clone().unwrap_or_else(|| "none".to_owned())),
        ("shared", yes_or_no(backend.shared)),
        ("on disk", backend.bytes.map_or_else(|| "unknown".to_owned(), bytes)),
        ("log", backend.log.map_or_else(|| "none".to_owned(), |log| describe_log(&log))),
        (
            "schema",
            format!("{} (supported: {})", head.schema.version, Schema::current().version().version),
        ),
        ("epoch", head.epoch.to_string()),
        ("position", info.position.to_string()),
        ("serial", info.serial.to_string()),
        ("last commit", last_commit),
        ("checkpoint", head.checkpoint.to_string()),
        ("oldest block", head.oldest_block.to_string()),
        ("dirty rows", info.dirty_rows.to_string()),
        ("credentials", credentials.unwrap_or_default()),
        ("re-sealed", describe_resealed(backend.resealed)),
        ("keyring", keyring.unwrap_or_else(|| "none".to_owned())),
        ("plaintext", plaintext.unwrap_or_else(|| "everything: it is not sealed".to_owned())),
    ];
    pairs.extend(backend.clock_ahead_ms.map(|ms| ("server's clock", describe_clock(ms))));
    shell.pairs(&pairs)?;
    shell.line("")?;
    let counts: Vec<_> = counts
        .iter()
        .map(|(entity, counted)| {
            let more = if counted.is_exact { "" } else { " or more; --exact counts them" };
            (entity.name(), format!("{}{more}", counted.count))
        })
        .collect();
    shell.pairs(&counts)
}

/// What is plain beside a sealed store.
fn describe_plaintext(files: &[PathBuf]) -> String {
    match files {
        [] => "none in its files".to_owned(),
        files => {
            let files: Vec<_> = files.iter().map(|file| file.display().to_string()).collect();
            format!("remains in {}", files.join(", "))
        }
    }
}

/// The share of what is sealed under the newest key.
fn describe_resealed(resealed: Option<Resealed>) -> String {
    let Some(resealed) = resealed else { return "not sealed".to_owned() };
    let Resealed { version, records, of } = resealed;
    let left = match resealed.is_under_way() {
        true => "; the rest while the store is open, or by `gwstore keys reseal`",
        false => "",
    };
    format!("{}% under version {version} ({records} of {of} records){left}", resealed.percent())
}

fn describe_clock(ahead_ms: i64) -> String {
    let than = if ahead_ms < 0 { "behind" } else { "ahead of" };
    format!("{} ms {than} this machine's", ahead_ms.unsigned_abs())
}

fn describe_log(log: &LogInfo) -> String {
    let lost = "; it ended before its last frame: acknowledged commits may be missing";
    format!("{}{}", bytes(log.bytes), if log.ended_early { lost } else { "" })
}

fn print_json(
    config: &Config,
    info: &StoreInfo,
    head: &Head,
    counts: &[(EntityKind, SeriesCount)],
    [credentials, keyring, plaintext]: &[Value; 3],
    shell: &mut Shell<'_>,
) -> Outcome {
    let number = |(entity, counted): &(EntityKind, SeriesCount)| {
        (entity.name().to_owned(), counted.count.into())
    };
    let inexact: Vec<_> =
        counts.iter().filter(|(_, counted)| !counted.is_exact).map(|(entity, _)| entity).collect();
    shell.object(&json!({
        "flag_file": config.flag_file,
        "store_name": config.store,
        "backend": info.backend,
        "store": head.store,
        "side": head.side,
        "lineage": head.lineage,
        "epoch": head.epoch,
        "position": info.position,
        "schema": {
            "found": head.schema.version,
            "supported": Schema::current().version().version,
        },
        "serial": info.serial,
        "time": head.time,
        "checkpoint": head.checkpoint,
        "oldest_block": head.oldest_block,
        "dirty_rows": info.dirty_rows,
        "credentials": credentials,
        "keyring": keyring,
        "plaintext_remains": plaintext,
        "counts": counts.iter().map(number).collect::<Map<_, _>>(),
        "counts_at_least": inexact,
    }))
}
