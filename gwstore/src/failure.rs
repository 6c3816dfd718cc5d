//! How a command ends that cannot do what it should, and how that is told.

use std::fmt::Write as _;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use ghostwire_store::{Error, ErrorKind};
use serde_json::{Map, Value, json};

use crate::output::{Shell, called, json_line, printable};

/// How the program ends if not all of what was asked is done; `docs/command-line.md` has the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// An error that has no line of its own below.
    Failed = 1,
    /// It cannot be done as the command line says it.
    Usage = 2,
    /// What was looked at is not in order.
    Found = 3,
    /// What was named is not there.
    Missing = 4,
    /// What is there does not admit it, or whoever was asked.
    Refused = 5,
    /// Some of it was left out, as was allowed, or because it could not be done.
    Partly = 6,
    /// What was named is several.
    Ambiguous = 7,
    /// The store is in use; what sysexits.h calls `EX_TEMPFAIL`, so that a timer knows to try again.
    Busy = 75,
    /// Whoever read the output went away; what a shell makes of SIGPIPE.
    ReaderGone = 141,
}

impl Ending {
    fn of(error: &Error) -> Self {
        // Of what writes to a stream whose end it does not know, such as the portable form.
        let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref());
        if cause.is_some_and(is_broken_pipe) {
            return Self::ReaderGone;
        }
        match error.kind() {
            ErrorKind::Busy => Self::Busy,
            ErrorKind::NotFound => Self::Missing,
            ErrorKind::AlreadyExists { .. }
            | ErrorKind::Conflict
            | ErrorKind::Restricted
            | ErrorKind::PermissionDenied
            | ErrorKind::ReadOnly => Self::Refused,
            _ => Self::Failed,
        }
    }
}

fn is_broken_pipe(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::BrokenPipe
}

impl From<Ending> for ExitCode {
    fn from(ending: Ending) -> Self {
        Self::from(ending as u8)
    }
}

/// A fact of this name is advice.
const HELP: &str = "help";

/// Why a command failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The store, the configuration or a file.
    Error(Error),
    /// An error that ends the program otherwise than its kind says.
    As(Ending, Error),
    /// Nobody can be told: the output cannot be written.
    Output(io::Error),
    /// What is wrong was the command's output.
    Told(Ending),
}

/// What a command ends with.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

impl Failure {
    /// Options that do not go together, or not with the command.
    pub(crate) fn usage(error: Error) -> Self {
        Self::As(Ending::Usage, error)
    }

    /// What is wrong, without how this program would end.
    pub(crate) fn into_error(self) -> Error {
        match self {
            Self::Error(error) | Self::As(_, error) => error,
            Self::Output(error) => {
                Error::new(ErrorKind::Unavailable, "the output cannot be written").because(error)
            }
            Self::Told(_) => Error::new(ErrorKind::Unexpected, "what is wrong was said already"),
        }
    }

    /// How the program ends.
    pub(crate) fn ending(&self) -> Ending {
        match self {
            Self::Output(error) if is_broken_pipe(error) => Ending::ReaderGone,
            Self::Output(_) => Ending::Failed,
            Self::Error(error) => Ending::of(error),
            Self::As(ending, _) | Self::Told(ending) => *ending,
        }
    }

    /// Tells the person or program at the other end of standard error.
    pub(crate) fn explain(&self, shell: &mut Shell<'_>) {
        // Whoever reads has seen enough, as in `gwstore list … | head`.
        if self.ending() == Ending::ReaderGone {
            return;
        }
        let error = match self {
            Self::Told(_) => return,
            Self::Output(error) => {
                &Error::new(ErrorKind::Unavailable, "the output cannot be written")
                    .because(error.to_string())
            }
            Self::Error(error) | Self::As(_, error) => error,
        };
        // If standard error is gone too, the exit code has to do.
        let _ = if shell.json {
            json_line(&mut *shell.notes, &object(error))
        } else {
            writeln!(shell.notes, "{}", lines(error))
        };
    }
}

fn lines(error: &Error) -> String {
    let mut text = "error: ".to_owned();
    // Writing to a string cannot fail.
    let _ = write_headline(&mut text, error);
    let facts = error.context().iter().filter(|(key, _)| *key != HELP);
    for (key, value) in facts {
        let _ = write!(text, "\n  {key}: {}", printable(value));
    }
    if let Some(source) = std::error::Error::source(error) {
        let _ = write!(text, "\n  because: {}", printable(&source.to_string()));
    }
    for (_, help) in error.context().iter().filter(|(key, _)| *key == HELP) {
        let _ = write!(text, "\nhelp: {}", printable(help));
    }
    text
}

/// All but the advice, in one line.
pub(crate) fn one_line(error: &Error) -> String {
    let mut text = String::new();
    let _ = write_headline(&mut text, error);
    let facts: Vec<_> = error
        .context()
        .iter()
        .filter(|(key, _)| *key != HELP)
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    if !facts.is_empty() {
        let _ = write!(text, " [{}]", facts.join(", "));
    }
    if let Some(source) = std::error::Error::source(error) {
        let _ = write!(text, ": {source}");
    }
    text
}

fn write_headline(text: &mut String, error: &Error) -> std::fmt::Result {
    if let Some(operation) = error.operation() {
        write!(text, "{operation}: ")?;
    }
    if let Some(entity) = error.entity() {
        write!(text, "{} ", called(entity))?;
    }
    text.push_str(&printable(error.message()));
    match error.constraint() {
        Some(constraint) => write!(text, " ({constraint})"),
        None => Ok(()),
    }
}

fn object(error: &Error) -> Value {
    let mut context = Map::new();
    for (key, value) in error.context().iter().filter(|(key, _)| *key != HELP) {
        // The first one is the innermost, and so the most precise.
        context.entry(*key).or_insert_with(|| Value::from(value.as_str()));
    }
    let help: Vec<_> =
        error.context().iter().filter(|(key, _)| *key == HELP).map(|(_, help)| help).collect();
    let mut object = json!({
        "kind": error.kind().name(),
        "operation": error.operation(),
        "entity": error.entity(),
        "message": error.message(),
        "context": context,
    });
    if let Value::Object(fields) = &mut object {
        if let Some(constraint) = error.constraint() {
            fields.insert("constraint".to_owned(), constraint.into());
        }
        if let Some(source) = std::error::Error::source(error) {
            fields.insert("because".to_owned(), source.to_string().into());
        }
        if !help.is_empty() {
            fields.insert(HELP.to_owned(), json!(help));
        }
    }
    object
}

/// Adds advice, unless there is some already.
pub(crate) fn with_help(error: Error, help: impl std::fmt::Display) -> Error {
    let has_help = error.context().iter().any(|(key, _)| *key == HELP);
    if has_help { error } else { error.with(HELP, help) }
}

/// An error with a file that was named to be read.
pub(crate) fn input_error(what: &'static str, path: Option<&Path>, error: io::Error) -> Error {
    let help = match error.kind() {
        io::ErrorKind::NotFound => {
            "correct the path; a relative one begins at the working directory"
        }
        io::ErrorKind::PermissionDenied => {
            "let this process's user read it, or copy it to where that one may"
        }
        io::ErrorKind::IsADirectory => "name a file in it",
        _ => "look whether it can be read by other programs, such as `cat`",
    };
    file_error(what, path, error).with(HELP, help)
}

/// An error of the file system, as the kind that says what to do.
pub(crate) fn file_error(what: &'static str, path: Option<&Path>, error: io::Error) -> Error {
    use io::ErrorKind as Io;
    let kind = match error.kind() {
        Io::NotFound => ErrorKind::NotFound,
        Io::AlreadyExists => ErrorKind::AlreadyExists { constraint: "path" },
        Io::PermissionDenied => ErrorKind::PermissionDenied,
        Io::ReadOnlyFilesystem => ErrorKind::ReadOnly,
        Io::StorageFull | Io::QuotaExceeded => ErrorKind::Exhausted,
        Io::IsADirectory | Io::NotADirectory | Io::InvalidInput => ErrorKind::InvalidArgument,
        _ => ErrorKind::Unavailable,
    };
    let failed = Error::new(kind, what);
    let failed = match path {
        Some(path) => failed.with("path", path.display()),
        None => failed,
    };
    failed.because(error)
}
