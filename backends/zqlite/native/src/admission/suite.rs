//! The last step: the conformance suite, on scratch stores with the library.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use ghostwire_store_sqlite::create_private_directory;

use super::Verdict;
use crate::process::{Program, ends_before};

/// The store that the suite is to be run for, in the working directory of the program that runs it. It is never
/// made: the suite makes scratch stores beside it.
pub const SCRATCH_STORE: &str = "store.db";

/// How long the suite may take by default. It opens stores by the thousand, each in a process of its own.
pub const SUITE_LIMIT: Duration = Duration::from_secs(2 * 60 * 60);

/// How much is read of what the program says.
const MAX_TEXT: u64 = 4 << 20;

/// What becomes of the last step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Suite {
    /// It is run.
    Run(SuiteRun),
    /// The operator leaves it out.
    LeftOut,
    /// Who examines the library has no suite.
    NotBuilt,
}

impl Suite {
    pub(super) fn extent(&self) -> Conformance {
        match self {
            Self::Run(run) if run.is_whole => Conformance::Whole,
            Self::Run(_) => Conformance::Part,
            Self::LeftOut => Conformance::LeftOut,
            Self::NotBuilt => Conformance::NotBuilt,
        }
    }
}

/// How the suite is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SuiteRun {
    /// Runs it for [`SCRATCH_STORE`]. It ends with 0 if everything passed, and has said so in the last line of
    /// its output; otherwise the first line of its errors says what did not.
    pub program: Program,
    /// Whether that is all of it.
    pub is_whole: bool,
    /// How long it may take.
    pub limit: Duration,
}

/// How much of the conformance suite was run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Conformance {
    /// All of it.
    Whole,
    /// Some of it.
    Part,
    /// Nothing, as the operator wanted.
    LeftOut,
    /// Nothing, as there was no program that has it.
    NotBuilt,
    /// It is being run: of the verdict that its own scratch stores are opened with.
    UnderWay,
}

impl SuiteRun {
    /// Runs it in a directory of its own within the test's, where a provisional verdict lies.
    pub(super) fn within(
        &self,
        scratch: &Path,
        lock: &File,
        provisional: &Verdict,
    ) -> Result<String, String> {
        let directory = scratch.join("conformance");
        let prepared = create_private_directory(&directory).map_err(|error| error.to_string());
        let prepared = prepared.and_then(|()| {
            let written = provisional.write(&directory.join(SCRATCH_STORE));
            written.map_err(|error| error.to_string())
        });
        prepared.map_err(|error| format!("the conformance suite has no place: {error}"))?;
        let ran = self.run(scratch, &directory, lock);
        let program = self.program.path.display();
        ran.unwrap_or_else(|error| Err(format!("{program} cannot run the suite: {error}")))
    }

    fn run(
        &self,
        scratch: &Path,
        directory: &Path,
        lock: &File,
    ) -> io::Result<Result<String, String>> {
        let (output, errors) = (scratch.join("conformance.out"), scratch.join("conformance.err"));
        let mut child = Command::new(&self.program.path)
            .args(&self.program.arguments)
            // The operator's configuration is not the scratch stores'.
            .env_clear()
            .envs(std::env::var_os("TMPDIR").map(|directory| ("TMPDIR", directory)))
            .current_dir(directory)
            // It reads nothing: what it has keeps the directory locked, should it outlive this process.
            .stdin(lock.try_clone()?)
            .stdout(File::create(&output)?)
            .stderr(File::create(&errors)?)
            .spawn()?;
        if !ends_before(&child, Instant::now() + self.limit) {
            child.kill()?;
            child.wait()?;
            let seconds = self.limit.as_secs();
            return Ok(Err(format!("the suite did not end within {seconds} s, and was ended")));
        }
        let status = child.wait()?;
        let (output, errors) = (text(&output)?, text(&errors)?);
        let is_something = |line: &&str| !line.trim().is_empty();
        Ok(match status.success() {
            true => Ok(output.lines().rev().find(is_something).unwrap_or_default().to_owned()),
            false => Err(errors
                .lines()
                .find(is_something)
                .map_or_else(|| format!("the suite ended: {status}"), without_mark)),
        })
    }
}

/// What a line of errors says.
fn without_mark(line: &str) -> String {
    let marks = ["note: ", "error: "];
    marks.iter().find_map(|mark| line.strip_prefix(mark)).unwrap_or(line).to_owned()
}

fn text(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_TEXT).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
