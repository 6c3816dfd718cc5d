//! A store that another process has open, by its admin socket.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use ghostwire_store::admin::Client;
use ghostwire_store::config::{BackendChoice, Config};
use ghostwire_store::{Error, ErrorKind, Result};
use serde_json::Value;

use crate::failure::{Ending, Failure, Outcome, with_help};
use crate::output::{Shell, printable, shown};
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
/// somebody has the store open, so the files need not be tried first. Whoever serves another store at the
/// configured place is told of, and left alone.
///
/// # Errors
/// Those of [`Client::connect`], but for a denial.
pub(crate) async fn find(config: &Config, shell: &mut Shell<'_>) -> Result<Found> {
    match look(config, shell).await? {
        Looked::Found(found) => Ok(found),
        Looked::Another(served) => {
            static SAID: AtomicBool = AtomicBool::new(false);
            if !SAID.swap(true, Ordering::Relaxed) {
                shell.note(format_args!(
                    "process {} at the admin socket serves another store, {}; using the files of this one",
                    served.pid, served.what
                ));
            }
            Ok(Found::Nobody)
        }
    }
}

/// What is at the configured place.
enum Looked {
    Found(Found),
    Another(Another),
}

/// Who serves another store there.
struct Another {
    pid: u32,
    what: String,
    socket: PathBuf,
}

async fn look(config: &Config, shell: &mut Shell<'_>) -> Result<Looked> {
    let Some(socket) = config.admin_socket_path() else { return Ok(Looked::Found(Found::Nobody)) };
    let found = match Client::connect(&socket).await {
        Ok(client) => {
            require_trusted(&client, config)?;
            if let Some(what) = another_store(&client, config).await? {
                let pid = client.welcome().pid;
                return Ok(Looked::Another(Another { pid, what, socket }));
            }
            say(&client, shell);
            Found::Served(match std::env::var("TRACEPARENT") {
                Ok(trace) => client.in_trace(&trace),
                Err(_) => client,
            })
        }
        Err(error) => match error.kind() {
            ErrorKind::NotFound => Found::Nobody,
            ErrorKind::PermissionDenied => Found::Denied(error),
            // Such as a path that is too long, where no socket can be.
            ErrorKind::InvalidArgument if !socket.exists() => Found::Nobody,
            _ => return Err(error),
        },
    };
    Ok(Looked::Found(found))
}

/// What is served instead, if it is not the configured store. A socket beside a store's file is that store's;
/// one at a place of its own has to say what it serves.
async fn another_store(client: &Client, config: &Config) -> Result<Option<String>> {
    if config.admin.path.is_none() {
        return Ok(None);
    }
    let info = client.info().await?;
    let is = |backend: &BackendChoice| backend.is_at(info.name, info.location.as_deref());
    // A network that moves is on either of two stores.
    let target = config.migration.target.as_ref().and_then(|name| config.other_stores.get(name));
    let is_same = is(&config.backend) || target.is_some_and(|target| is(&target.backend));
    let location = info.location.as_deref().unwrap_or("without a file");
    Ok((!is_same).then(|| printable(&format!("{} {location}", info.name))))
}

/// Why a store that is served is not read or written, as whoever serves it says it: once a backend does not know what
/// is stored, its own error is for programs.
pub(crate) async fn told_by_health(client: &Client, error: Error) -> Error {
    if !matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Corrupt) {
        return error;
    }
    // A program that serves a store need not judge it.
    let Ok(health) = client.health().await else { return error };
    let text = |name: &str| health.get(name).and_then(Value::as_str);
    let (Some("poisoned"), Some(reason), Some(next_step)) =
        (text("state"), text("reason"), text("next_step"))
    else {
        return error;
    };
    let pid = client.welcome().pid;
    // It names the path.
    let last = health.pointer("/last_error/message").and_then(Value::as_str);
    let because = last.map_or_else(|| error.to_string(), str::to_owned);
    Error::new(error.kind().clone(), reason.to_owned())
        .with("pid", pid)
        .with("help", format_args!("{next_step}; what opens it anew is a restart of process {pid}"))
        .because(because)
}

/// Whoever has the store open, for what only that process can do.
///
/// # Errors
/// `Unavailable` if nobody has it open and serves it, which ends the program as what is missing does;
/// `Conflict` if another store is served there; as [`find`].
pub(crate) async fn require(config: &Config, shell: &mut Shell<'_>) -> Outcome<Client> {
    match look(config, shell).await? {
        Looked::Found(Found::Served(client)) => Ok(client),
        Looked::Found(Found::Denied(error)) => Err(error.into()),
        Looked::Another(another) => {
            let message = "the process at the admin socket serves another store";
            let configured = match config.backend.path() {
                Some(path) => shown(path),
                None => config.backend.location().unwrap_or_default(),
            };
            Err(Error::new(ErrorKind::Conflict, message)
                .with("socket", another.socket.display())
                .with("pid", another.pid)
                .with("served", another.what)
                .with("configured", configured)
                .with(
                    "help",
                    "name that store, or the socket of this one with --set admin.path=SOCKET",
                )
                .into())
        }
        Looked::Found(Found::Nobody) => {
            let message = "nobody who serves an admin socket has the store open";
            let error = Error::new(ErrorKind::Unavailable, message);
            let error = match config.admin_socket_path() {
                Some(socket) => error.with("socket", socket.display()),
                None => error,
            };
            let help = "start the program that uses the store, or `gwstore serve`; `gwstore doctor` looks at \
                        one that nobody has open";
            Err(Failure::As(Ending::Missing, error.with("help", help)))
        }
    }
}

/// Refuses to serve a store that is served, before anything else is begun. Whatever else is in the way, opening
/// it tells.
///
/// # Errors
/// `Busy`.
pub(crate) async fn require_unserved(config: &Config) -> Result<()> {
    let Some(socket) = config.admin_socket_path() else { return Ok(()) };
    let Ok(client) = Client::connect(&socket).await else { return Ok(()) };
    if another_store(&client, config).await?.is_some() {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Busy, "another process has this store open")
        .with("pid", client.welcome().pid)
        .with("socket", socket.display())
        .with("help", "one process at a time can serve a store: end the other one first"))
}

/// Refuses what needs the store's files to itself while somebody has it open, and says why.
///
/// # Errors
/// `Busy`; as [`find`].
pub(crate) async fn require_closed(
    config: &Config,
    why: &'static str,
    shell: &mut Shell<'_>,
) -> Outcome {
    let Looked::Found(Found::Served(client)) = look(config, shell).await? else { return Ok(()) };
    Err(Error::new(ErrorKind::Busy, "this cannot be done while another process has the store open")
        .with("pid", client.welcome().pid)
        .with("why", why)
        .with("help", "end that process, such as by `systemctl stop`, do this, and start it again")
        .into())
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
