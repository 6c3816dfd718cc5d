//! `gwstore export`.

use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

use data_encoding::HEXLOWER;
use ghostwire_store::config::Config;
use ghostwire_store::domain::{AuditQuery, Limit, MetricPoint, PageRequest};
use ghostwire_store::portable::{ORDER, Summary, Writer};
use ghostwire_store::{Error, Result};
use ghostwire_store_core::backend::{KeyRange, Scan};
use ghostwire_store_core::schema::{Record, RowKey, Table};
use ghostwire_store_core::secrets::HashKey;
use serde_json::json;

use crate::cli::ExportArgs;
use crate::credentials::configured_key;
use crate::failure::{Failure, Outcome, file_error};
use crate::output::{Shell, counted, shown, stdout_is_closed};
use crate::output_file::Target;
use crate::progress::Progress;
use crate::session::{Reading, refuse_to_forget};

/// Rows of a series that are read at a time.
const ROWS_PER_READ: usize = 10_000;
const BUFFER: usize = 256 * 1024;

/// Writes everything stored in the portable format.
pub(super) async fn run(config: &Config, args: &ExportArgs, shell: &mut Shell<'_>) -> Outcome {
    refuse_to_forget(config)?;
    if args.file.as_os_str() == "-" {
        if args.force {
            let error = Error::invalid("--force replaces a file, and standard output is none");
            return Err(Failure::usage(error.during("export")));
        }
        if stdout_is_closed() {
            let message = "standard output is closed; nothing was exported";
            return Err(Error::invalid(message).during("export").into());
        }
        let reading = Reading::open(config, shell).await?;
        let progress = shell.progress("exporting", None);
        let key = signing_key(config, shell).await;
        let out = BufWriter::with_capacity(BUFFER, &mut *shell.out);
        let written = write(&reading, out, key, progress).await.map(|(_, summary)| summary);
        reading.close().await?;
        written?;
        return Ok(());
    }
    let target = Target::check(&args.file, args.force, Some(config));
    let target = target.map_err(|error| error.during("export"))?;
    let reading = Reading::open(config, shell).await?;
    let key = signing_key(config, shell).await;
    let progress = shell.progress("exporting", None);
    let written = write_file(&reading, target, key, progress).await;
    reading.close().await?;
    let summary = written.map_err(|error| error.during("export"))?;
    report(config, &args.file, &summary, shell)
}

/// The key by which an import will know who wrote the file. An export without it is whole, too.
pub(super) async fn signing_key(config: &Config, shell: &mut Shell<'_>) -> Option<Arc<HashKey>> {
    let why = match configured_key(config).await {
        Ok(Some(keys)) => return Some(keys.current().clone()),
        Ok(None) => "there is none".to_owned(),
        Err(error) => error.message().to_owned(),
    };
    shell.caution(format_args!(
        "the export does not prove who wrote it, which needs the hash key: {why}"
    ));
    None
}

fn report(config: &Config, path: &Path, summary: &Summary, shell: &mut Shell<'_>) -> Outcome {
    if shell.json {
        return shell.object(&json!({
            "path": path,
            "counts": summary.counts,
            "state_digest": summary.state_digest.map(hex),
            "sha256": hex(summary.sha256),
            "mac_key_id": summary.mac.map(|mac| HEXLOWER.encode(&mac.key_id)),
        }));
    }
    for (entity, count) in &summary.counts {
        shell.say(counted(*count, entity.name()))?;
    }
    shell.say(format_args!("Wrote {} items to {}", summary.total(), shown(path)))?;
    let key = match config.is_sealed() && config.secret_key_file.is_none() {
        false => "The hash key\nis not in it; move that too.",
        true => {
            "The hash key\nis in the keyring, which only opens with this store: this is no backup of credentials. \
             Copy the\nstore's file and its keyring for that."
        }
    };
    shell.say(format_args!(
        "It holds names, addresses, policies and hashes of keys: treat it as confidential. {key}"
    ))
}

pub(super) fn hex(bytes: [u8; 32]) -> String {
    HEXLOWER.encode(&bytes)
}

async fn write_file(
    reading: &Reading,
    target: Target,
    key: Option<Arc<HashKey>>,
    progress: Progress,
) -> Result<Summary> {
    let path = target.path().to_owned();
    let written = write(reading, target.begin()?, key, progress).await;
    let (file, summary) = written.map_err(|error| match out_of_room(&error) {
        Some(cause) => file_error("the file cannot be written", Some(&path), cause),
        None => error.with("path", path.display()),
    })?;
    file.finish()?;
    Ok(summary)
}

/// The writer of the portable form does not look at why it cannot write.
fn out_of_room(error: &Error) -> Option<io::Error> {
    use io::ErrorKind::{QuotaExceeded, StorageFull};
    let cause = std::error::Error::source(error)?.downcast_ref::<io::Error>()?;
    let is_full = matches!(cause.kind(), StorageFull | QuotaExceeded);
    is_full.then(|| io::Error::from(cause.kind()))
}

async fn write<W: Write>(
    reading: &Reading,
    to: W,
    key: Option<Arc<HashKey>>,
    mut progress: Progress,
) -> Result<(W, Summary)> {
    let mut writer = match key {
        Some(key) => Writer::authenticated(to, key)?,
        None => Writer::new(to)?,
    };
    let view = reading.store.view();
    for table in ORDER {
        for image in view.images_of(table) {
            writer.image(&image)?;
            progress.advance(1);
        }
    }
    write_metrics(reading, &mut writer, &mut progress).await?;
    write_audit(reading, &mut writer, &mut progress).await?;
    let digest = *ghostwire_store_core::digest::state_digest(&view).as_bytes();
    writer.finish(Some(digest))
}

async fn write_metrics<W: Write>(
    reading: &Reading,
    writer: &mut Writer<W>,
    progress: &mut Progress,
) -> Result<()> {
    let mut from = RowKey::new();
    loop {
        let range = KeyRange { table: Table::Metrics, from, to: None };
        let scan = Scan { range, reverse: false, limit: ROWS_PER_READ };
        let rows = reading.backend.scan(scan).await?.rows;
        let Some(last) = rows.last() else { return Ok(()) };
        from = last.key.clone().successor();
        for row in &rows {
            writer.metric(&MetricPoint::decode(&row.key, &row.body)?)?;
        }
        progress.advance(rows.len() as u64);
    }
}

async fn write_audit<W: Write>(
    reading: &Reading,
    writer: &mut Writer<W>,
    progress: &mut Progress,
) -> Result<()> {
    let mut request = PageRequest::first(Limit::MAX);
    loop {
        let page = reading.store.audit().query(&AuditQuery::default(), &request).await?;
        for entry in &page.items {
            writer.audit(entry)?;
        }
        progress.advance(page.items.len() as u64);
        let Some(next) = page.next else { return Ok(()) };
        request = PageRequest::after(Limit::MAX, next);
    }
}
