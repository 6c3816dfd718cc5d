//! `gwstore import portable`.
//!
//! The file is read twice. The first time nothing is written: it has to be complete and unaltered,
//! and a copy of the state has to admit every entity.

use std::fs::File;
use std::io::{self, BufReader, Seek};
use std::path::Path;

use ghostwire_store::backend::Backend;
use ghostwire_store::command::Image;
use ghostwire_store::config::Config;
use ghostwire_store::digest::{Digest, Digests};
use ghostwire_store::portable::{Item, Reader, Summary};
use ghostwire_store::{Error, ErrorKind, Result, Store};
use serde_json::json;

use super::{closed, open_target, present_state, print_digests};
use crate::cli::PortableArgs;
use crate::credentials::KeyFit;
use crate::failure::{Failure, Outcome, file_error, with_help};
use crate::output::{Shell, printable};
use crate::progress::Progress;
use crate::restore::{Batches, Rehearsal, check_digest};
use crate::session::{Reading, SeriesCount, count_audit, count_metrics};

/// Entities that are tried at a time.
const IMAGES_PER_TRIAL: usize = 1000;
/// So many refusals are told one by one.
const MOST_TOLD: usize = 20;
const BUFFER: usize = 256 * 1024;
const OPERATION: &str = "import.portable";

/// An entity that the store's rules do not admit.
struct Refusal {
    line: u64,
    entity: &'static str,
    reason: String,
}

/// What the first reading found.
struct Tried {
    summary: Summary,
    rehearsal: Rehearsal,
    refusals: Vec<Refusal>,
}

/// Reads the file, and writes what it holds.
pub(in super::super) async fn run(
    config: &Config,
    args: &PortableArgs,
    shell: &mut Shell<'_>,
) -> Outcome {
    let mut file = source(&args.file).map_err(|error| error.during(OPERATION))?;
    let state = present_state(config, &args.target).await?;
    let named = |error: Error| error.with("path", args.file.display()).during(OPERATION);
    let tried = attempt(&file, Rehearsal::on(&state), shell.progress("checking", None));
    let tried = tried.map_err(named)?;
    if !tried.refusals.is_empty() {
        return refuse(&args.file, &tried.refusals, shell);
    }
    let expected = tried.rehearsal.digest();
    check_trailer(&tried, expected).map_err(named)?;
    if args.target.dry_run {
        return report(&tried, None, shell);
    }
    file.rewind().map_err(|error| file_error("cannot be read again", Some(&args.file), error))?;
    let store = open_target(config, &args.target, shell).await?;
    let progress = shell.progress("importing", Some(tried.summary.total()));
    let written = write(&file, &tried.summary, expected, store.as_ref(), progress).await;
    let digests = closed(store.as_ref(), written).await.map_err(named)?;
    check_stored(config, &tried.summary, shell).await?;
    report(&tried, Some(&digests), shell)
}

/// Opens the file. What can be read only once goes to a file of our own first, which has no name.
fn source(path: &Path) -> Result<File> {
    if path.as_os_str() == "-" {
        return spool(&mut io::stdin().lock(), path);
    }
    let failed = |error| file_error("the file cannot be opened", Some(path), error);
    let mut file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if metadata.is_dir() {
        return Err(Error::invalid("this is a directory; name a file").with("path", path.display()));
    }
    if metadata.is_file() { Ok(file) } else { spool(&mut file, path) }
}

fn spool(from: &mut dyn io::Read, path: &Path) -> Result<File> {
    let mut spooled = || -> io::Result<File> {
        let mut file = tempfile::tempfile()?;
        io::copy(from, &mut file)?;
        file.rewind()?;
        Ok(file)
    };
    spooled().map_err(|error| {
        let failed = file_error("the input cannot be kept in a temporary file", Some(path), error);
        with_help(failed, "TMPDIR names another directory for temporary files")
    })
}

fn reader(file: &File) -> Result<Reader<BufReader<&File>>> {
    Reader::new(BufReader::with_capacity(BUFFER, file))
}

fn attempt(file: &File, rehearsal: Rehearsal, mut progress: Progress) -> Result<Tried> {
    let mut reader = reader(file)?;
    let mut trial =
        Trial { rehearsal, images: Vec::new(), lines: Vec::new(), refusals: Vec::new() };
    while let Some(item) = reader.next() {
        if let Item::Image(image) = item? {
            trial.add(image, reader.line_number())?;
        }
        progress.advance(1);
    }
    trial.run()?;
    let summary = reader
        .summary()
        .cloned()
        .ok_or_else(|| Error::new(ErrorKind::Unexpected, "the reader ended without a summary"))?;
    Ok(Tried { summary, rehearsal: trial.rehearsal, refusals: trial.refusals })
}

struct Trial {
    rehearsal: Rehearsal,
    images: Vec<Image>,
    lines: Vec<u64>,
    refusals: Vec<Refusal>,
}

impl Trial {
    fn add(&mut self, image: Image, line: u64) -> Result<()> {
        self.images.push(image);
        self.lines.push(line);
        if self.images.len() >= IMAGES_PER_TRIAL { self.run() } else { Ok(()) }
    }

    fn run(&mut self) -> Result<()> {
        for (index, reason) in self.rehearsal.admit(&self.images)? {
            let line = self.lines.get(index).copied().unwrap_or_default();
            let entity = self.images.get(index).map_or("", |image| image.entity().name());
            self.refusals.push(Refusal { line, entity, reason });
        }
        self.images.clear();
        self.lines.clear();
        Ok(())
    }
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
    let error = Error::invalid("the store does not admit all of the file; nothing was written")
        .with("path", path.display())
        .with("problems", refusals.len())
        .with("first_line", first.map_or(0, |refusal| refusal.line))
        .with("first_problem", first.map_or("", |refusal| refusal.reason.as_str()))
        .during(OPERATION);
    Err(Failure::from(with_help(error, "import into a new store, or export that store first")))
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
            .with("state_digest", super::super::export::hex(exported))
            .with("computed_digest", expected))
        }
        _ => Ok(()),
    }
}

async fn write(
    file: &File,
    summary: &Summary,
    expected: Digest,
    store: &dyn Store,
    progress: Progress,
) -> Result<Digests> {
    let mut reader = reader(file)?;
    let mut batches = Batches::new(store, progress);
    for item in &mut reader {
        match item? {
            Item::Image(image) => batches.image(image).await?,
            Item::Metric(point) => batches.metric(point).await?,
            Item::Audit(entry) => batches.audit(entry).await?,
        }
    }
    batches.finish().await?;
    if reader.summary() != Some(summary) {
        return Err(Error::new(ErrorKind::Conflict, "the file was changed while it was read"));
    }
    let digests = store.digests().await?;
    check_digest(expected, digests.state)?;
    Ok(digests)
}

/// Looks at what is stored now. Points and entries with one key replace each other, so a file made by other means than
/// `gwstore export` may come to fewer of them than it has lines.
async fn check_stored(config: &Config, summary: &Summary, shell: &mut Shell<'_>) -> Outcome {
    if config.backend.path().is_none() {
        return Ok(());
    }
    let reading = Reading::open(config).await?;
    let backend: &dyn Backend = reading.backend.as_ref();
    let counted = async {
        Ok::<_, Error>([
            (ghostwire_store::Entity::Metric, count_metrics(backend, u64::MAX).await?),
            (ghostwire_store::Entity::Audit, count_audit(reading.store.as_ref(), u64::MAX).await?),
        ])
    };
    let counted = counted.await;
    let misfit = KeyFit::of_configured(&reading.store.view(), config).and_then(|fit| fit.misfit());
    reading.close().await?;
    if let Some(misfit) = misfit {
        shell.note(format_args!(
            "{misfit}; move that key too, and name its file as secret_key_file"
        ));
    }
    for (entity, SeriesCount { count, .. }) in counted? {
        let imported = summary.counts.get(&entity).copied().unwrap_or_default();
        if count < imported {
            shell.note(format_args!(
                "the file has {imported} lines of kind {entity}, but only {count} different keys"
            ));
        }
    }
    Ok(())
}

fn report(tried: &Tried, digests: Option<&Digests>, shell: &mut Shell<'_>) -> Outcome {
    let Rehearsal { new, unchanged, .. } = tried.rehearsal;
    if shell.json {
        return shell.object(&json!({
            "counts": tried.summary.counts,
            "new_entities": new,
            "unchanged_entities": unchanged,
            "dry_run": digests.is_none(),
            "digests": digests,
        }));
    }
    for (entity, count) in &tried.summary.counts {
        shell.say(format_args!("{count:>10} {entity}"))?;
    }
    match digests {
        Some(digests) => {
            shell.say(format_args!(
                "Imported: {new} new entities, {unchanged} were there already"
            ))?;
            print_digests(digests, shell)
        }
        None => shell.say(format_args!(
            "The file is in order: {new} new entities, {unchanged} are there already. Nothing was \
             written."
        )),
    }
}
