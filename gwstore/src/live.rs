//! A store that another process has open, by its admin socket.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use ghostwire_store::admin::Client;
use ghostwire_store::config::Config;
use ghostwire_store::{Error, ErrorKind, Result};

use crate::failure::with_help;
use crate::output::{Shell, shown};
use crate::permissions::{owner, this_user};

/// Who is at the configured store's admin socket.
pub(crate) enum Found {
    /// Whoever has the store open.
    Served(Client),
    /// Somebody who does not answer this user, or the system does not let this user ask.
    Denied(Error),
    Nobody,
}

/// Looks for whoever has the configured store open, and says it if it is found. A socket is there only while
/// somebody has the store open, so the files need not be tried first.
///
/// # Errors
/// Those of [`Client::connect`], but for a denial.
pub(crate) async fn find(config: &Config, shell: &mut Shell<'_>) -> Result<Found> {
    let Some(socket) = config.admin_socket_path() else { return Ok(Found::Nobody) };
    match Client::connect(&socket).await {
        Ok(client) => {
            require_trusted(&client, config)?;
            say(&client, shell);
            Ok(Found::Served(match std::env::var("TRACEPARENT") {
                Ok(trace) => client.in_trace(&trace),
                Err(_) => client,
            }))
        }
        Err(error) => match error.kind() {
            ErrorKind::NotFound => Ok(Found::Nobody),
            ErrorKind::PermissionDenied => Ok(Found::Denied(error)),
            // Such as a path that is too long, where no socket can be.
            ErrorKind::InvalidArgument if !socket.exists() => Ok(Found::Nobody),
            _ => Err(error),
        },
    }
}

/// Whoever has the store open, for what only that process can do.
///
/// # Errors
/// `Unavailable` if nobody has it open and serves it; as [`find`].
pub(crate) async fn require(config: &Config, shell: &mut Shell<'_>) -> Result<Client> {
    match find(config, shell).await? {
        Found::Served(client) => Ok(client),
        Found::Denied(error) => Err(error),
        Found::Nobody => {
            let message = "nobody who serves an admin socket has the store open";
            let error = Error::new(ErrorKind::Unavailable, message);
            let error = match config.admin_socket_path() {
                Some(socket) => error.with("socket", socket.display()),
                None => error,
            };
            Err(error.with("help", "start the program that uses the store, or `gwstore serve`; `gwstore doctor` looks at one that nobody has open"))
        }
    }
}

/// Once, however often the store is asked.
fn say(client: &Client, shell: &mut Shell<'_>) {
    static SAID: AtomicBool = AtomicBool::new(false);
    if !SAID.swap(true, Ordering::Relaxed) {
        let (pid, socket) = (client.welcome().pid, shown(client.socket()));
        shell.note(format_args!("process {pid} has the store open; asking it by {socket}"));
    }
}

/// Somebody else's process could tell anything.
fn require_trusted(client: &Client, config: &Config) -> Result<()> {
    let Some(user) = client.server_user() else { return Ok(()) };
    let store = config.backend.path().and_then(|path| fs::metadata(path).ok());
    let store = store.as_ref().and_then(owner);
    let trusted = [Some(0), this_user(), store];
    if trusted.contains(&Some(user)) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::PermissionDenied,
        "the admin socket is served by a user to whom the store does not belong",
    )
    .with("socket", client.socket().display())
    .with("user", user)
    .with("help", "look what process that is, and who may write the socket's directory"))
}

/// What opening the files came to, where nobody was found at the socket.
pub(crate) fn explained<T>(opened: Result<T>, config: &Config) -> Result<T> {
    opened.map_err(|error| match (error.kind(), config.admin_socket_path()) {
        (ErrorKind::Busy, Some(socket)) => with_help(
            error.with("socket", socket.display()),
            "it serves no admin socket there, by which this could work beside it: admin.socket and \
             admin.path say whether and where; a program that only reads serves none, so try again",
        ),
        _ => error,
    })
}

/// What opening the files came to, where a socket does not answer this user: he cannot use the store by
/// either.
pub(crate) fn denied<T>(opened: Result<T>, denial: Error) -> Result<T> {
    opened.map_err(|error| match error.kind() {
        ErrorKind::Busy | ErrorKind::PermissionDenied => denial,
        _ => error,
    })
}
