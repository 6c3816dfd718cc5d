//! `gwstore completions` and `gwstore man`.

use std::path::Path;
use std::{fs, io};

use clap::CommandFactory;
use clap_complete::Shell as Completed;

use crate::cli::Cli;
use crate::failure::{Outcome, file_error};
use crate::output::{Shell, shown};

const NAME: &str = "gwstore";

pub(super) fn completions(of: Completed, shell: &mut Shell<'_>) -> Outcome {
    // Where it is written may be gone, at which it would panic.
    let mut script = Vec::new();
    clap_complete::generate(of, &mut Cli::command(), NAME, &mut script);
    Ok(shell.out.write_all(&script)?)
}

/// As `--version` has it.
pub(super) fn version() -> String {
    Cli::command().render_version().trim_end().to_owned()
}

pub(super) fn pages(directory: &Path, shell: &mut Shell<'_>) -> Outcome {
    // The one above it is there, or it is misspelt.
    let made = match fs::create_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    };
    let written = made.and_then(|()| clap_mangen::generate_to(Cli::command(), directory));
    written.map_err(|error| file_error("the pages cannot be written", Some(directory), error))?;
    shell.say(format_args!("Wrote the manual pages to {}", shown(directory)))
}
