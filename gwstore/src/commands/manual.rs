//! `gwstore completions` and `gwstore man`.

use std::fs;
use std::path::Path;

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

pub(super) fn pages(directory: &Path, shell: &mut Shell<'_>) -> Outcome {
    let written = fs::create_dir_all(directory)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), directory));
    written.map_err(|error| file_error("the pages cannot be written", Some(directory), error))?;
    shell.say(format_args!("Wrote the manual pages to {}", shown(directory)))
}
