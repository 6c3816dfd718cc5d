//! Asking before something is done that cannot be taken back.

use std::io::{self, BufRead, IsTerminal};

use ghostwire_store::{Error, ErrorKind};

use crate::failure::{Ending, Failure, Outcome};
use crate::output::Shell;

/// What a command has for those who are not there to answer.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Advice {
    /// `--yes`.
    Confirm,
    /// `--dry-run`, too.
    Rehearse,
}

/// Refuses what nobody is there to confirm.
pub(crate) fn require_somebody(question: &str, advice: Advice, shell: &Shell<'_>) -> Outcome {
    if !shell.json && io::stdin().is_terminal() {
        return Ok(());
    }
    let error = Error::new(ErrorKind::Restricted, "this needs a confirmation");
    let help = match advice {
        Advice::Confirm => "say --yes",
        Advice::Rehearse => "look at it with --dry-run, then say --yes",
    };
    Err(error.with("question", question).with("help", help).into())
}

/// Asks; a refusal is told, and is no success.
pub(crate) fn ask(question: &str, advice: Advice, shell: &mut Shell<'_>) -> Outcome {
    require_somebody(question, advice, shell)?;
    shell.out.flush()?;
    write!(shell.notes, "{question} [y/N] ")?;
    shell.notes.flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => {
            shell.say("Nothing was changed.")?;
            Err(Failure::Told(Ending::Refused))
        }
    }
}
