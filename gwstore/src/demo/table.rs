//! What the demonstration prints: at most 100 columns.

use std::io;
use std::path::Path;

use ghostwire_store::config::BackendChoice;
use ghostwire_store::{Error, ErrorKind, Result};
use serde_json::{Value, json};

use super::disk::{Disk, ROUNDS};
use super::measure::{Figures, micros};
use super::{Ran, Results};

/// Everything that is said about the engines beside the figures.
const NOTES: [&str; 4] = [
    "zqlite runs on this project's own embedded engine (the SQLite core), not on the Zig library.",
    "Throughput of writes depends on fsync: a reply means durable, and calls made at once share one.",
    "One run of each, one after the other: it shows that both do the work, not which one is faster.",
    "Waves of 256 calls are in flight at once; p50 and p99 are what each of their callers waited.",
];

/// Prints the table.
pub(super) fn print(out: &mut dyn io::Write, results: &Results) -> Result<()> {
    write_table(out, results).map_err(unwritable)
}

/// Prints the same as one JSON object.
pub(super) fn print_json(out: &mut dyn io::Write, results: &Results) -> Result<()> {
    let text = serde_json::to_string_pretty(&as_json(results)).map_err(|error| {
        Error::new(ErrorKind::Unexpected, "the results have no JSON form").because(error)
    })?;
    writeln!(out, "{text}").map_err(unwritable)
}

pub(super) fn unwritable(error: io::Error) -> Error {
    Error::new(ErrorKind::Unavailable, "the output cannot be written").because(error)
}

/// One line for a person who waits; nothing in JSON.
pub(super) fn say(
    out: &mut dyn io::Write,
    json: bool,
    line: std::fmt::Arguments<'_>,
) -> Result<()> {
    if json {
        return Ok(());
    }
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(unwritable)
}

fn write_table(out: &mut dyn io::Write, results: &Results) -> io::Result<()> {
    writeln!(out)?;
    write!(out, "{:<24}{:>7}", "", "")?;
    for ran in &results.stores {
        write!(out, " |{:^30}", ran.kind.name())?;
    }
    writeln!(out)?;
    write!(out, "{:<24}{:>7}", "operation", "count")?;
    for _ in &results.stores {
        write!(out, " |{:>10}{:>10}{:>10}", "per second", "p50", "p99")?;
    }
    writeln!(out)?;
    writeln!(out, "{}", "-".repeat(31 + 32 * results.stores.len()))?;
    for name in operations(results) {
        let figures: Vec<_> = results.stores.iter().map(|ran| figures(ran, name)).collect();
        let count = figures.iter().flatten().map(|figures| figures.count).next().unwrap_or(0);
        write!(out, "{name:<24}{count:>7}")?;
        for figures in figures {
            match figures {
                Some(figures) => write!(
                    out,
                    " |{:>10}{:>10}{:>10}",
                    rate(figures.per_second),
                    time(figures.p50_micros),
                    time(figures.p99_micros)
                )?,
                None => write!(out, " |{:>30}", "-")?,
            }
        }
        writeln!(out)?;
    }
    writeln!(out)?;
    write_facts(out, results)?;
    results.moved.as_ref().map_or(Ok(()), |moved| moved.write(out))
}

fn write_facts(out: &mut dyn io::Write, results: &Results) -> io::Result<()> {
    let mut fact = |name: &str, of: &dyn Fn(&Ran) -> String| {
        write!(out, "{name:<24}")?;
        for ran in &results.stores {
            write!(out, "{:<36}", format!("{}: {}", ran.kind.name(), of(ran)))?;
        }
        writeln!(out)
    };
    fact("calls in all", &|ran| {
        let (count, busy) = (ran.report.measurements.count(), ran.report.measurements.busy());
        format!("{count} in {:.2} s", busy.as_secs_f64())
    })?;
    fact("writes and commits", &|ran| format!("{} in {}", ran.info.commands, ran.info.groups))?;
    fact("changes watched", &|ran| format!("{} commits, no gap", ran.report.watched))?;
    fact("nodes at the end", &|ran| ran.report.nodes.to_string())?;
    fact("fsync meanwhile", &|ran| {
        format!("{} (median of {})", time(micros(ran.fsync)), 2 * ROUNDS)
    })?;
    fact("bytes on disk, closed", &|ran| bytes(ran.bytes))?;
    fact("reopened in", &|ran| time(micros(ran.reopened_in)))?;
    fact("engine", &|ran| ran.info.backend.engine.to_string())?;
    writeln!(out, "{:<24}{}", "filesystem", filesystem(&results.disk))?;
    writeln!(out, "{:<24}{}", "directory", directory(results))?;
    let flips = results.flips();
    writeln!(
        out,
        "{:<24}{} tried, {} detected, {} harmless (in unused space), 0 silent",
        "flipped bytes", flips.tried, flips.detected, flips.harmless
    )?;
    writeln!(out, "\nDigests of what is stored, read again after closing and reopening:\n")?;
    for ran in &results.stores {
        for (what, digest) in [
            ("state", ran.digests.state),
            ("metrics", ran.digests.metrics),
            ("audit", ran.digests.audit),
        ] {
            writeln!(out, "  {:<8}{what:<9}{digest}", ran.kind.name())?;
        }
    }
    writeln!(
        out,
        "\nEqual on both, before closing and after reopening, and in every run with this seed.\n"
    )?;
    NOTES.iter().try_for_each(|note| writeln!(out, "{note}"))?;
    if results.kept {
        writeln!(out, "\nTo look at one of them, name its hash key, too:\n")?;
        for ran in &results.stores {
            let options = looking_at(ran);
            writeln!(out, "  gwstore {options} status")?;
        }
    }
    Ok(())
}

/// The options by which another command finds a store that was kept.
fn looking_at(ran: &Ran) -> String {
    let absolute = |path: &Path| {
        std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string()
    };
    let key = ran.config.secret_key_path().map(|key| absolute(&key)).unwrap_or_default();
    let (kind, path) = (ran.kind.name(), absolute(&ran.path));
    let mut options = format!("--backend {kind} --path {path} --set secret_key_file={key}");
    if let BackendChoice::Zqlite(zqlite) = &ran.config.backend {
        let (keyring, root) = (&zqlite.keyring_file, &zqlite.root.secret_file);
        for (name, file) in [("keyring_file", keyring), ("root_secret_file", root)] {
            if let Some(file) = file {
                options.push_str(&format!(
                    " --set {}={}",
                    ran.config.store_key(name),
                    absolute(file)
                ));
            }
        }
    }
    options
}

fn directory(results: &Results) -> String {
    let shown = results.directory.display();
    if results.kept { format!("{shown}, kept") } else { format!("{shown}, removed") }
}

fn filesystem(disk: &Disk) -> String {
    match (&disk.filesystem, &disk.device) {
        (Some(filesystem), Some(device)) => format!("{filesystem} on {device}"),
        _ => "unknown (there is no /proc/mounts)".to_owned(),
    }
}

fn as_json(results: &Results) -> Value {
    let path = |path: &Path| path.display().to_string();
    let stores: Vec<_> = results
        .stores
        .iter()
        .map(|ran| {
            let operations: serde_json::Map<_, _> = ran
                .report
                .measurements
                .kinds()
                .iter()
                .map(|kind| (kind.name.to_owned(), json!(kind.figures())))
                .collect();
            json!({
                "backend": ran.kind.name(),
                "info": ran.info,
                "operations": operations,
                "calls": ran.report.measurements.count(),
                "seconds": ran.report.measurements.busy().as_secs_f64(),
                "commits_watched": ran.report.watched,
                "nodes": ran.report.nodes,
                "bytes_on_disk": ran.bytes,
                "fsync_micros": micros(ran.fsync),
                "reopened_in_micros": micros(ran.reopened_in),
                "digests": ran.digests,
                "flipped_bytes": ran.flips,
            })
        })
        .collect();
    json!({
        "equal": true,
        "seed": results.seed,
        "scale": results.scale,
        "directory": path(&results.directory),
        "kept": results.kept,
        "filesystem": results.disk.filesystem,
        "device": results.disk.device,
        "stores": stores,
        "move": results.moved,
        "notes": NOTES,
    })
}

/// The operations of all stores, in the order of the first one.
fn operations(results: &Results) -> Vec<&'static str> {
    let mut names = Vec::new();
    for kind in results.stores.iter().flat_map(|ran| ran.report.measurements.kinds()) {
        if !names.contains(&kind.name) {
            names.push(kind.name);
        }
    }
    names
}

fn figures(ran: &Ran, name: &str) -> Option<Figures> {
    let kinds = ran.report.measurements.kinds();
    kinds.iter().find(|kind| kind.name == name).map(super::measure::Kind::figures)
}

pub(super) fn time(micros: f64) -> String {
    match micros {
        micros if micros < 0.9995 => format!("{:.0} ns", micros * 1e3),
        micros if micros < 9.995 => format!("{micros:.2} us"),
        micros if micros < 999.5 => format!("{micros:.0} us"),
        micros if micros < 9_995.0 => format!("{:.2} ms", micros / 1e3),
        micros if micros < 999_500.0 => format!("{:.0} ms", micros / 1e3),
        micros => format!("{:.2} s", micros / 1e6),
    }
}

fn rate(per_second: f64) -> String {
    match per_second {
        rate if rate < 99.95 => format!("{rate:.1}"),
        rate if rate < 99_950.0 => format!("{rate:.0}"),
        rate if rate < 999_500.0 => format!("{:.0}k", rate / 1e3),
        rate => format!("{:.1}M", rate / 1e6),
    }
}

#[allow(clippy::cast_precision_loss)]
fn bytes(bytes: u64) -> String {
    match bytes as f64 {
        bytes if bytes < 1024.0 * 1024.0 => format!("{:.0} KiB", bytes / 1024.0),
        bytes => format!("{:.1} MiB", bytes / 1024.0 / 1024.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_fit_their_columns() {
        assert_eq!(time(0.25), "250 ns");
        assert_eq!(time(3.254), "3.25 us");
        assert_eq!(time(999.7), "1.00 ms");
        assert_eq!(time(45_678.0), "46 ms");
        assert_eq!(time(2e6), "2.00 s");
        assert_eq!(rate(12.34), "12.3");
        assert_eq!(rate(99_999.0), "100k");
        assert_eq!(rate(2_500_000.0), "2.5M");
        assert_eq!(bytes(2048), "2 KiB");
        for value in [1e-3, 0.5, 1.0, 99.0, 1e3, 1e5, 1e6, 5e7] {
            assert!(time(value).len() < 10 && rate(value).len() < 10, "{value}");
        }
    }
}
