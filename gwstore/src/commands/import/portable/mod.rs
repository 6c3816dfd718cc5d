//! `gwstore import portable`.
//!
//! The file is read twice. The first time nothing is written: it has to be complete and unaltered,
//! and a copy of the state has to admit every entity. The second time nothing is written that was
//! not read so the first time.

mod force;
mod parts;
mod source;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use ghostwire_store::config::Config;
use ghostwire_store::portable::{Item, Reader, Summary};
use ghostwire_store::{EntityKind, Error, ErrorKind, Result, Store};
use ghostwire_store_core::digest::{Digest, Digests};
use serde_json::{Value, json};

use self::force::InForce;
use self::parts::{Cutter, Parts};
use self::source::Source;
use super::series::{SeriesFound, SeriesTrial};
use super::{NOTHING_FOUND, Present, closed, open_target, print_digests, trail};
use crate::cli::PortableArgs;
use crate::commands::export::hex;
use crate::credentials::configured_key;
use crate::failure::{Outcome, file_error, with_help};
use crate::output::{Shell, printable};
use crate::progress::Progress;
use crate::restore::{Batches, Rehearsal, check_digest};
use crate::session::{Reading, SeriesCount, count_audit, count_metrics};

/// So many refusals are told one by one.
const MOST_TOLD: usize = 20;
const BUFFER: usize = 256 * 1024;
const OPERATION: &str = "import.portable";
const NOT_AS_WRITTEN: &str = "the file is not as `gwstore export` wrote it: copy it again, or export the store \
     once more; a database of Headscale is read by `gwstore import headscale`";

/// A line that the store's rules do not admit.
struct Refusal {
    line: u64,
    entity: &'static str,
    reason: String,
}

/// What the first reading found.
struct Tried {
    summary: Summary,
    parts: Parts,
    rehearsal: Rehearsal,
    series: SeriesFound,
    refusals: Vec<Refusal>,
}

/// Reads the file, and writes what it holds.
pub(in super::super) async fn run(
    config: &Config,
    args: &PortableArgs,
    shell: &mut Shell<'_>,
) -> Outcome {
    let mut source = Source::open(&args.file).map_err(|error| error.during(OPERATION))?;
    let present = Present::of(config, &args.target).await?;
    present.doubt_clock(shell);
    let named = |error: Error| advised(error).with("path", args.file.display()).during(OPERATION);
    let tried = attempt(&mut source, &present, shell.progress("checking", None)).await;
    let is_new = present.reading.is_none();
    let closing = present.close().await;
    let tried = tried.map_err(named)?;
    closing?;
    let key = configured_key(config).await?;
    let force =
        InForce::of(&tried.summary, &tried.rehearsal, key.as_ref(), is_new).map_err(named)?;
    if !tried.refusals.is_empty() {
        return refuse(&args.file, &tried.refusals, shell);
    }
    let expected = tried.rehearsal.digest();
    check_trailer(&tried, expected).map_err(named)?;
    force.check(args).map_err(named)?;
    if args.target.dry_run {
        return report(&tried, &force, None, shell);
    }
    if !is_new && !tried.changes() {
        // Writing again what is there already takes room.
        let digests = super::super::digest::of(config, shell).await?;
        report(&tried, &force, Some(&digests), shell)?;
        let counted = count_series(config, shell).await;
        tell_of_repeated(counted, &tried.summary, shell);
        return Ok(());
    }
    let file = source.again();
    let file = file.map_err(|error| file_error("cannot be read again", Some(&args.file), error))?;
    let store = open_target(config, &args.target, shell).await?;
    let progress = shell.progress("importing", Some(tried.summary.total()));
    let written = async {
        if !is_new {
            trail::write(store.as_ref(), OPERATION, &tried.summary.sha256, &tried.new_by_kind())
                .await?;
        }
        write(&file, &tried, expected, store.as_ref(), progress).await
    };
    let written = written.await;
    let digests = closed(store.as_ref(), written).await.map_err(named)?;
    report(&tried, &force, Some(&digests), shell)?;
    // The store is free again. Whoever has it now does not undo what was done and said.
    let counted = count_series(config, shell).await;
    tell_of_repeated(counted, &tried.summary, shell);
    Ok(())
}

impl Tried {
    /// Whether the store would hold anything else than before.
    fn changes(&self) -> bool {
        self.new_by_kind().values().any(|count| *count > 0)
    }

    /// What the import brings that is not there.
    fn new_by_kind(&self) -> std::collections::BTreeMap<EntityKind, u64> {
        let mut new = self.rehearsal.new_by_kind();
        let points = self.series.new_points + self.series.replaced_points;
        new.insert(EntityKind::Metric, points);
        new.insert(EntityKind::Audit, self.series.new_entries);
        new
    }
}

fn cutter<R: Read>(from: R) -> Result<Cutter<BufReader<R>>> {
    Reader::new(BufReader::with_capacity(BUFFER, from)).map(Cutter::new)
}

async fn attempt(from: impl Read, present: &Present, mut progress: Progress) -> Result<Tried> {
    let mut cutter = cutter(from)?;
    let mut parts = Parts::default();
    let mut rehearsal = Rehearsal::on(&present.state);
    let mut series = SeriesTrial::on(present.reading.as_ref());
    let mut refusals = Vec::new();
    loop {
        let part = cutter.next_new(&mut parts)?;
        if part.is_empty() {
            break;
        }
        progress.advance(part.len() as u64);
        let (mut lines, mut images) = (Vec::new(), Vec::new());
        for (line, item) in part {
            match item {
                Item::Entity(image) => {
                    lines.push(line);
                    images.push(image);
                }
                Item::Metric(point) => series.metric(point).await?,
                Item::Audit(entry) => series.audit(line, entry).await?,
            }
        }
        for (index, reason) in rehearsal.admit(&images)? {
            let line = lines.get(index).copied().unwrap_or_default();
            let entity = images.get(index).map_or("", |image| image.entity().name());
            refusals.push(Refusal { line, entity, reason });
        }
    }
    let series = series.finish().await?;
    refusals.extend(series.altered.iter().map(|&line| Refusal {
        line,
        entity: EntityKind::Audit.name(),
        reason: "another version of this line of the audit trail is there".to_owned(),
    }));
    refusals.sort_by_key(|refusal| refusal.line);
    let summary = cutter
        .summary()
        .cloned()
        .ok_or_else(|| Error::new(ErrorKind::Unexpected, "the reader ended without a summary"))?;
    Ok(Tried { summary, parts, rehearsal, series, refusals })
}

fn refuse(path: &Path, refusals: &[Refusal], shell: &mut Shell<'_>) -> Outcome {
    if shell.json {
        let told: Vec<_> = refusals
            .iter()
            .map(|refusal| {
                json!({ "line": refusal.line, "entity": refusal.entity, "reason": refusal.reason })
            })
            .collect();
        shell.object(&json!({ "problems": told }))?;
    } else {
        for refusal in refusals.iter().take(MOST_TOLD) {
            let Refusal { line, entity, reason } = refusal;
            shell.line(format_args!("line {line}: {entity}: {}", printable(reason)))?;
        }
        let more = refusals.len().saturating_sub(MOST_TOLD);
        if more > 0 {
            shell.line(format_args!("and {more} more; --json lists all"))?;
        }
    }
    let first = refusals.first();
    let message = "the store does not admit all of the file; nothing was written";
    let error = Error::new(ErrorKind::Restricted, message)
        .with("path", path.display())
        .with("problems", refusals.len())
        .with("first_line", first.map_or(0, |refusal| refusal.line))
        .with("first_problem", first.map_or("", |refusal| refusal.reason.as_str()))
        .with(
            "help",
            "an import replaces nothing that is there: import the file into a new store \
             (`--path FILE --create`), or take from this one what is in the way",
        );
    Err(error.during(OPERATION).into())
}

/// What to do about a file that is not as `gwstore export` wrote it.
fn advised(error: Error) -> Error {
    let help = match error.kind() {
        _ if error.operation() != Some("portable.read") => return error,
        ErrorKind::Corrupt => NOT_AS_WRITTEN,
        ErrorKind::Unsupported | ErrorKind::SchemaMismatch { .. } => {
            "another release wrote the file: import it with that one, or with a newer one"
        }
        _ => "look whether it can be read by other programs, such as `cat`",
    };
    with_help(error, help)
}

/// The exporter's digest can be checked before anything is written, if the store held nothing else.
fn check_trailer(tried: &Tried, expected: Digest) -> Result<()> {
    match tried.summary.state_digest {
        Some(exported)
            if exported != *expected.as_bytes()
                && tried.rehearsal.holds_only_what_was_admitted() =>
        {
            Err(Error::corrupt(
                "the last line's digest is not that of the entities; nothing was written",
            )
            .with("state_digest", hex(exported))
            .with("computed_digest", expected)
            .with("help", NOT_AS_WRITTEN))
        }
        _ => Ok(()),
    }
}

async fn write(
    file: &File,
    tried: &Tried,
    expected: Digest,
    store: &dyn Store,
    progress: Progress,
) -> Result<Digests> {
    let mut cutter = cutter(file)?;
    let mut batches = Batches::new(store, progress);
    loop {
        let part = cutter.next_again(&tried.parts)?;
        if part.is_empty() {
            break;
        }
        for (_, item) in part {
            match item {
                Item::Entity(image) => batches.image(image).await?,
                Item::Metric(point) => batches.metric(point).await?,
                Item::Audit(entry) => batches.audit(entry).await?,
            }
        }
    }
    batches.finish().await?;
    let digests = store.digests().await?;
    check_digest(expected, digests.state)?;
    Ok(digests)
}

/// Counts the series that are stored now.
async fn count_series(
    config: &Config,
    shell: &mut Shell<'_>,
) -> Result<[(EntityKind, SeriesCount); 2]> {
    let reading = Reading::open(config, shell).await?;
    let counted = async {
        Ok([
            (EntityKind::Metric, count_metrics(reading.backend.as_ref(), u64::MAX).await?),
            (EntityKind::Audit, count_audit(reading.store.as_ref(), u64::MAX).await?),
        ])
    };
    let counted = counted.await;
    reading.close().await?;
    counted
}

/// Points and entries with one key replace each other, so a file made by other means than `gwstore
/// export` may come to fewer of them than it has lines.
fn tell_of_repeated(
    counted: Result<[(EntityKind, SeriesCount); 2]>,
    summary: &Summary,
    shell: &mut Shell<'_>,
) {
    let counted = match counted {
        Ok(counted) => counted,
        Err(error) => {
            let why = printable(error.message());
            return shell.note(format_args!("the series were not counted once more: {why}"));
        }
    };
    for (entity, SeriesCount { count, .. }) in counted {
        let imported = summary.counts.get(&entity).copied().unwrap_or_default();
        if count < imported {
            shell.note(format_args!(
                "the file has {imported} lines of kind {entity}, but only {count} different keys"
            ));
        }
    }
}

/// What the import finds, or does.
fn report(
    tried: &Tried,
    force: &InForce,
    digests: Option<&Digests>,
    shell: &mut Shell<'_>,
) -> Outcome {
    let Rehearsal { new, unchanged, .. } = tried.rehearsal;
    let SeriesFound { new_points, replaced_points, new_entries, .. } = tried.series;
    if tried.summary.total() == 0 {
        shell.caution(NOTHING_FOUND);
    }
    if shell.json {
        let mut report = json!({
            "counts": tried.summary.counts,
            "new_entities": new,
            "unchanged_entities": unchanged,
            "new_metrics": new_points,
            "replaced_metrics": replaced_points,
            "new_audit": new_entries,
            "changed": tried.changes(),
            "sha256": hex(tried.summary.sha256),
            "dry_run": digests.is_none(),
            "digests": digests,
        });
        if let Value::Object(report) = &mut report {
            report.extend(force.fields().map(|(name, value)| (name.to_owned(), value)));
        }
        return shell.object(&report);
    }
    for (entity, count) in &tried.summary.counts {
        shell.say(format_args!("{count:>10} {entity}"))?;
    }
    if tried.summary.total() > 0 && !tried.changes() {
        shell.say("Nothing changes: all that the file has is there already.")?;
    }
    let series = format!("{new_points} new points, {new_entries} new lines of the audit trail");
    match digests {
        Some(_) => shell.say(format_args!(
            "Imported: {new} new entities, {unchanged} were there already; {series}"
        ))?,
        None => shell.say(format_args!(
            "The file is in order: {new} new entities, {unchanged} are there already; {series}. \
             Nothing was written."
        ))?,
    }
    if replaced_points > 0 {
        shell.say(format_args!("points that get another value: {replaced_points}"))?;
    }
    force.tell(shell)?;
    match digests {
        Some(digests) => print_digests(digests, shell),
        None => Ok(()),
    }
}
