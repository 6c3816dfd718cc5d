//! `gwstore import headscale`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use ghostwire_store::command::EntityRecord;
use ghostwire_store::config::Config;
use ghostwire_store::domain::{Clock, SystemClock, Timestamp};
use ghostwire_store::entropy::{Entropy, SystemEntropy};
use ghostwire_store::repository::preauth_key_hash;
use ghostwire_store::{Error, ErrorKind, HashKeys, Result, Store, read_hash_key};
use ghostwire_store_core::digest::Digests;
use ghostwire_store_core::error::EntityKind;
use ghostwire_store_core::secrets::HashKey;
use ghostwire_store_core::state::State;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::credentials::Credentials;
use super::{
    NOTHING_FOUND, Present, absence, closed, is_missing, open_target, print_digests, trail,
};
use crate::cli::HeadscaleArgs;
use crate::commands::export::hex;
use crate::credentials::{StoreKey, configured_key};
use crate::failure::{Ending, Failure, Outcome, input_error, with_help};
use crate::headscale::{self, Finding, Findings, Import, counted, grouped};
use crate::output::{Shell, counted as number_of, printable};
use crate::progress::Progress;
use crate::restore::{Batches, PolicyChange, Rehearsal, check_digest};

const OPERATION: &str = "import.headscale";

/// What is said where nothing is lost.
const NOTHING_LOST: &str = "Nothing is lost: every machine and every person comes in.";
/// The same of a file that may not be all there is.
const NOTHING_OF_IT_LOST: &str =
    "Nothing of what the file holds is lost: every machine and every person in it comes in.";

/// How much of what is known by somebody or something cannot come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
struct Lost {
    machines: usize,
    people: usize,
    keys: usize,
    /// Such as policies.
    other: usize,
}

impl std::fmt::Display for Lost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { machines, people, keys, other } = *self;
        let machines = counted(machines, "machine", "machines");
        write!(f, "Lost: {machines}, {}", counted(people, "person", "people"))?;
        if keys > 0 {
            write!(f, ", {}", counted(keys, "key", "keys"))?;
        }
        if other > 0 {
            write!(f, ", and {}", counted(other, "other row", "other rows"))?;
        }
        f.write_str(".")
    }
}

/// What becomes of what was found.
#[derive(Clone, Copy)]
enum Fate<'a> {
    /// Nothing: it is refused.
    Refused,
    Rehearsed,
    Written(&'a Digests),
}

/// What of a dump can be imported, and what cannot.
struct Found {
    import: Import,
    rehearsal: Rehearsal,
    /// Entities that the dump has right, but that the store does not admit.
    refused: Vec<Refused>,
    /// Of the file's bytes.
    sha256: [u8; 32],
    credentials: Credentials,
}

struct Refused {
    entity: &'static str,
    id: String,
    reason: String,
}

/// Reads the dump, and writes what it holds.
pub(in super::super) async fn run(
    config: &Config,
    args: &HeadscaleArgs,
    shell: &mut Shell<'_>,
) -> Outcome {
    let present = Present::of(config, &args.target).await?;
    present.doubt_clock(shell);
    let state = present.state.clone();
    let was_missing = present.reading.is_none();
    present.close().await?;
    // The dump is read with the SQLite that a backend may want to set up first.
    ghostwire_store::prepare_process().await?;
    let now = SystemClock.now();
    let mut found = read(config, args, now, &state).await?;
    let problems = found.left_out();
    if problems > 0 && !args.skip_invalid {
        report(&found, args, Fate::Refused, shell)?;
        let message = "not all of it can be imported; nothing was written";
        let error = Error::new(ErrorKind::Restricted, message)
            .with("file", args.file.display())
            .with("problems", problems)
            .with("machines_lost", found.lost().machines)
            .with("people_lost", found.lost().people)
            .with("keys_lost", found.lost().keys)
            .with("help", "--skip-invalid imports the rest")
            .during(OPERATION);
        return Err(error.into());
    }
    let named = |error: Error| error.with("file", args.file.display()).during(OPERATION);
    found.check_force(args).map_err(named)?;
    if args.target.dry_run {
        report(&found, args, Fate::Rehearsed, shell)?;
        return all_or_partly(problems);
    }
    let store = open_target(config, &args.target, shell).await?;
    if was_missing {
        // Now there is a key under which the store will know pre-auth keys.
        found = read(config, args, now, &state).await?;
    }
    let progress = shell.progress("importing", Some(found.import.images.len() as u64));
    let written = async {
        if !was_missing {
            let new = found.rehearsal.new_by_kind();
            trail::write(store.as_ref(), OPERATION, &found.sha256, &new).await?;
        }
        write(&found, store.as_ref(), progress).await
    };
    let written = written.await;
    let digests = closed(store.as_ref(), written).await.map_err(|error| error.during(OPERATION))?;
    report(&found, args, Fate::Written(&digests), shell)?;
    all_or_partly(problems)
}

fn all_or_partly(problems: usize) -> Outcome {
    if problems == 0 { Ok(()) } else { Err(Failure::Told(Ending::Partly)) }
}

impl Found {
    fn left_out(&self) -> usize {
        self.import.findings.problems.len() + self.refused.len()
    }

    fn lost(&self) -> Lost {
        let of = |table: &str, kind: EntityKind| {
            let refused = self.refused.iter().filter(|refused| refused.entity == kind.name());
            self.import.findings.lost(table) + refused.count()
        };
        let (machines, people) = (of("nodes", EntityKind::Node), of("users", EntityKind::User));
        let keys = of("pre_auth_keys", EntityKind::PreAuthKey) + of("api_keys", EntityKind::ApiKey);
        Lost { machines, people, keys, other: self.left_out() - machines - people - keys }
    }

    /// Refuses what the operator has to ask for, and did not; and what comes to nothing.
    fn check_force(&self, args: &HeadscaleArgs) -> Result<()> {
        let left_out = self.left_out();
        if self.import.images.is_empty() && left_out > 0 {
            let message = "all of it was left out: nothing of it can be imported";
            let error = Error::new(ErrorKind::Restricted, message).with("left_out", left_out);
            return Err(error.with("help", "the problems say what to correct in Headscale first"));
        }
        self.credentials.check_hashed(args.other_key)?;
        let policy = self.rehearsal.policy_change();
        policy.map_or(Ok(()), |change| change.check_allowed(args.target.policy))
    }
}

/// The key under which the store will know pre-auth keys that Headscale has in plain text.
/// A key that is made for the occasion stands in for that of a store yet to be made.
async fn hash_key(config: &Config, args: &HeadscaleArgs) -> Result<HashKeys> {
    let found = configured_key(config).await;
    match (found, config.secret_key_path()) {
        (Ok(Some(keys)), _) => return Ok(keys),
        // If the dump is refused, nothing must be left behind, so the key is made later.
        (Ok(None), None) => return random_key(),
        (Ok(None), _) if is_missing(config, &args.target).await? => return random_key(),
        (Ok(None), Some(path)) => read_hash_key(&path),
        (Err(error), _) => Err(error),
    }
    .map_err(|error| {
        with_help(error, "hashes of pre-auth keys need the store's own key; put its file back")
    })
}

fn random_key() -> Result<HashKeys> {
    let mut key = [0; 32];
    SystemEntropy.fill(&mut key)?;
    Ok(HashKey::new(key).into())
}

async fn read(
    config: &Config,
    args: &HeadscaleArgs,
    now: Timestamp,
    state: &State,
) -> Result<Found> {
    let keys = hash_key(config, args).await?;
    let hasher = |text: &str| preauth_key_hash(keys.current(), text);
    let mut import = headscale::read(&args.file, now, &args.issuer, &hasher)?;
    absence::begin(&mut import.images, state, now);
    let mut rehearsal = Rehearsal::on(state);
    let refusals = rehearsal.admit(&import.images)?;
    let reasons: BTreeMap<usize, String> = refusals.into_iter().collect();
    let mut refused = Vec::new();
    let mut admitted = Vec::with_capacity(import.images.len());
    for (index, image) in std::mem::take(&mut import.images).into_iter().enumerate() {
        match reasons.get(&index) {
            Some(reason) => refused.push(Refused {
                entity: image.entity().name(),
                id: identifier(&image),
                reason: reason.clone(),
            }),
            None => admitted.push(image),
        }
    }
    import.images = admitted;
    let sha256 = sha256_of(&args.file)?;
    let credentials = Credentials::of(&rehearsal, StoreKey::from(&keys));
    Ok(Found { import, rehearsal, refused, sha256, credentials })
}

fn sha256_of(path: &Path) -> Result<[u8; 32]> {
    let read = || {
        let (mut file, mut hash) = (File::open(path)?, Sha256::new());
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(hash.finalize().into()),
                count => hash.update(buffer.get(..count).unwrap_or_default()),
            }
        }
    };
    read().map_err(|error| input_error("the file cannot be read", Some(path), error))
}

fn identifier(image: &EntityRecord) -> String {
    match image {
        EntityRecord::User(user) => format!("{} ({})", user.id, user.name),
        EntityRecord::Node(node) => format!("{} ({})", node.id, node.label),
        EntityRecord::Instance(instance) => format!("{} ({})", instance.id, instance.name),
        EntityRecord::Presence(presence) => presence.node.to_string(),
        EntityRecord::Route(route) => format!("{} ({})", route.id, route.prefix),
        EntityRecord::ApiKey(key) => key.id.to_string(),
        EntityRecord::PreAuthKey(key) => key.id.to_string(),
        EntityRecord::Policy(policy) => policy.version.to_string(),
        EntityRecord::DnsRecord(record) => format!("{} ({})", record.id, record.name),
        EntityRecord::Session(session) => session.id.to_string(),
        EntityRecord::SignIn(sign_in) => sign_in.id.to_string(),
        EntityRecord::Setting(setting) => format!("{:?}", setting.document.kind()),
    }
}

async fn write(found: &Found, store: &dyn Store, progress: Progress) -> Result<Digests> {
    let mut batches = Batches::new(store, progress);
    for image in &found.import.images {
        batches.image(image.clone()).await?;
    }
    batches.finish().await?;
    let digests = store.digests().await?;
    check_digest(found.rehearsal.digest(), digests.state)?;
    Ok(digests)
}

fn counts(found: &Found) -> BTreeMap<&'static str, u64> {
    let mut counts = BTreeMap::new();
    for image in &found.import.images {
        *counts.entry(image.entity().name()).or_default() += 1;
    }
    counts
}

fn report(found: &Found, args: &HeadscaleArgs, fate: Fate<'_>, shell: &mut Shell<'_>) -> Outcome {
    let digests = match fate {
        Fate::Written(digests) => Some(digests),
        Fate::Refused | Fate::Rehearsed => None,
    };
    let Found { import, rehearsal, refused, credentials, .. } = found;
    let Findings { problems, repaired, left_over, notes } = &import.findings;
    if import.images.is_empty() && found.left_out() == 0 {
        shell.caution(NOTHING_FOUND);
    }
    if shell.json {
        let rows = |findings: &[Finding]| -> Vec<Value> {
            let row = |Finding { table, id, reason }: &Finding| json!({ "table": table, "id": id, "reason": reason });
            findings.iter().map(row).collect()
        };
        let mut problems = rows(problems);
        problems.extend(refused.iter().map(|refused| {
            json!({ "entity": refused.entity, "id": refused.id, "reason": refused.reason })
        }));
        return shell.object(&json!({
            "release": import.origin.release,
            "version": import.origin.version,
            "counts": counts(found),
            "new_entities": rehearsal.new,
            "unchanged_entities": rehearsal.unchanged,
            "changed": rehearsal.new > 0 && !matches!(fate, Fate::Refused),
            "lost": found.lost(),
            "problems": problems,
            "repaired": rows(repaired),
            "left_over": rows(left_over),
            "notes": notes,
            "users_without_identity": import.without_identity,
            "policy": rehearsal.policy_change().as_ref().map(PolicyChange::object),
            "credentials": credentials.object(),
            "sha256": hex(found.sha256),
            "dry_run": args.target.dry_run,
            "written": digests.is_some(),
            "digests": digests,
        }));
    }
    let is_somebody =
        |it: &EntityRecord| matches!(it, EntityRecord::User(_) | EntityRecord::Node(_));
    let has_somebody = import.images.iter().any(is_somebody);
    match found.left_out() {
        0 if !has_somebody => {}
        0 if import.lacks_log => shell.say(NOTHING_OF_IT_LOST)?,
        0 => shell.say(NOTHING_LOST)?,
        _ => shell.line(found.lost())?,
    }
    for Finding { table, id, reason } in problems {
        shell.line(format_args!("problem: {table} {id}: {}", printable(reason)))?;
    }
    for Refused { entity, id, reason } in refused {
        let (id, reason) = (printable(id), printable(reason));
        shell.line(format_args!("problem: {entity} {id}: {reason}"))?;
    }
    for (level, findings) in [("repaired", repaired), ("left over", left_over)] {
        for line in grouped(findings) {
            shell.note(format_args!("{level}: {}", printable(&line)));
        }
    }
    for note in notes {
        shell.note(printable(note));
    }
    if import.without_identity > 0 {
        let users = counted(import.without_identity, "user has", "users have");
        shell.say(format_args!("{users} no identity of a provider"))?;
    }
    for (entity, count) in counts(found) {
        shell.say(number_of(count, entity))?;
    }
    let Rehearsal { new, unchanged, .. } = rehearsal;
    if let Some(change) = rehearsal.policy_change() {
        shell.say(change)?;
    }
    credentials.tell(shell)?;
    if !import.images.is_empty() && *new == 0 {
        shell.say("Nothing changes: all that could be imported is there already.")?;
    }
    match digests {
        Some(digests) => {
            shell.say(format_args!(
                "Imported: {new} new entities, {unchanged} were there already"
            ))?;
            print_digests(digests, shell)
        }
        None => shell.say(format_args!(
            "{new} new entities, {unchanged} are there already. Nothing was written."
        )),
    }
}
