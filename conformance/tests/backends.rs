//! The suite, on every backend of this repository.
#![allow(missing_docs, clippy::expect_used)]

mod files;
mod keyrings;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};

use ghostwire_store_conformance::{Disk, InMemory, LocalFiles, Migrating, Opening, Stack, Suite};
use ghostwire_store_core::backend::Backend;
use ghostwire_store_faulty_disk::FaultyDisk;
use ghostwire_store_zqlite::{NativeOptions, ZqliteBackend};
use ghostwire_store_zqlite_native::Program;
use ghostwire_store_zqlite_native::admission::{
    Effort, Examination, LIMIT, Suite as LastStep, Verdict, examine, verdict_path,
};

/// What a side that follows may get wrong: commits of every kind and size, those that fail or whose outcome is not
/// known, and what is in the head beside them.
const BETWEEN_TWO: [&str; 8] = [
    "block-size",
    "credential-key",
    "durable-reply",
    "failed-commit",
    "metrics-replace",
    "retention",
    "series-moments",
    "transaction",
];

/// What makes this program the child that loads the double of the ZQLite library.
const CHILD: &str = "--zqlite-native";

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some(CHILD) {
        return ghostwire_store_zqlite_native::child::run();
    }
    // The SQLite that both of them link is set up by libsql, or not at all.
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(ghostwire_store_libsql::prepare_process()).expect("SQLite is not in use yet");
    ghostwire_store_faulty_disk::install();
    Suite::new()
        .backend(InMemory::new())
        .backend(InMemory::shared())
        .backend(files::zqlite().disk(faulty_disk))
        // A layer knows no backend: what it does to one in memory and to one in files it does to all of them.
        .on(vec![Stack::bare()], |suite| {
            suite
                .backend(files::libsql().disk(faulty_disk))
                // It differs in its frames alone, and damage is what those are for.
                .backend_for(
                    &["backend-damage"],
                    LocalFiles::new("zqlite-plain", |path, opening: Opening| async move {
                        let options = files::zqlite_options(path, &opening);
                        Ok(Arc::new(ZqliteBackend::open(options).await?) as Arc<dyn Backend>)
                    }),
                )
                .backend(native())
                // All of it, and on files, is run by the test `migrating`.
                .backend_for(&BETWEEN_TWO, Migrating::in_step(InMemory::new(), InMemory::new()))
                .backend_for(&BETWEEN_TWO, Migrating::following(InMemory::new(), InMemory::new()))
        })
        .exceptions(include_str!("exceptions.toml"))
        .main()
}

fn faulty_disk(directory: &Path) -> std::io::Result<Box<dyn Disk>> {
    Ok(Box::new(FaultyDisk::under(directory)?))
}

/// The native engine, on the double of its library.
fn native() -> LocalFiles {
    LocalFiles::new("zqlite-native", |path, opening: Opening| async move {
        // The copy from before a migration.
        if std::fs::read(&path).is_ok_and(|content| content.starts_with(b"SQLite format 3")) {
            let opened =
                keyrings::open(files::zqlite_options(path, &opening), opening.store).await?;
            return Ok(Arc::new(opened) as Arc<dyn Backend>);
        }
        let double = Double::the_one();
        // A place of its own for each store, and one test of the library for all.
        let verdict = verdict_path(&path);
        if !opening.read_only && !verdict.exists() {
            ghostwire_zqlite_double::vouch(&double.verdict, &verdict)
                .map_err(|error| ghostwire_store_sqlite::failed("no verdict", &verdict, error))?;
        }
        let options = files::zqlite_options(path, &opening)
            .native(NativeOptions::new(double.library.clone(), double.program.clone()));
        let opened = keyrings::open(options, opening.store).await?;
        Ok(Arc::new(opened) as Arc<dyn Backend>)
    })
    .opaque()
}

/// The double, found fit for the file system on which stores are made.
struct Double {
    library: PathBuf,
    program: Program,
    verdict: Verdict,
    _directories: [tempfile::TempDir; 2],
}

impl Double {
    fn the_one() -> &'static Self {
        static DOUBLE: OnceLock<Double> = OnceLock::new();
        DOUBLE.get_or_init(|| {
            let directory = tempfile::tempdir().expect("a directory");
            let stores = tempfile::tempdir_in(LocalFiles::directory()).expect("a directory");
            let library = ghostwire_zqlite_double::install(directory.path(), None);
            let library = library.expect("the double is built with this test");
            let path = std::env::current_exe().expect("this program");
            let program = Program { path, arguments: vec![CHILD.into()] };
            let examination = Examination {
                program: program.clone(),
                library: library.clone(),
                store: stores.path().join("store.db"),
                effort: Effort { kills_in_transaction: 1, kills_in_commit: 1, rows: 1_000 },
                limit: LIMIT,
                // It is what is run here.
                suite: LastStep::LeftOut,
            };
            let report = examine(&examination, |_| {}).expect("the double can be tested");
            let verdict = report.require().expect("the double passes").clone();
            Self { library, program, verdict, _directories: [directory, stores] }
        })
    }
}
