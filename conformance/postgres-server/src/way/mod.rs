//! The ways to a server.

pub(crate) mod container;
pub(crate) mod installed;

use std::fmt;
use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};

use async_trait::async_trait;

use crate::client::Access;
use crate::{Error, Result};

/// Where a server comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// It was there: `GHOSTWIRE_TEST_POSTGRES_URL` names it.
    Given,
    /// A container of the image that `deploy/images/build postgres` makes.
    Container,
    /// `initdb` and `postgres` of the installed package.
    Installed,
}

impl Way {
    /// In the order in which they are tried.
    pub const ALL: [Self; 3] = [Self::Given, Self::Container, Self::Installed];
}

/// The variable that names a server.
pub(crate) const URL: &str = "GHOSTWIRE_TEST_POSTGRES_URL";

/// The user of servers that are started here, a superuser, and its password.
pub(crate) const USER: &str = "ghostwire_test";
pub(crate) const PASSWORD: &str = "a password for tests";

/// A server, as what becomes of it. By itself nothing may.
#[async_trait]
pub(crate) trait Running: fmt::Debug + Send + Sync {
    fn way(&self) -> Way;

    /// How it came to be, for people.
    fn origin(&self) -> String;

    fn socket_directory(&self) -> Option<&Path> {
        None
    }

    /// Whether it has ended by itself.
    async fn has_ended(&self) -> Result<bool>;

    async fn log(&self) -> Result<String>;

    async fn stop(&self) -> Result<()> {
        Err(not_ours())
    }

    async fn kill(&self) -> Result<()> {
        Err(not_ours())
    }

    async fn start_again(&self) -> Result<()> {
        Err(not_ours())
    }

    async fn pause(&self) -> Result<()> {
        Err(not_ours())
    }

    async fn resume(&self) -> Result<()> {
        Err(not_ours())
    }

    async fn fill_disk(&self) -> Result<()> {
        Err(not_ours())
    }

    async fn free_disk(&self) -> Result<()> {
        Err(not_ours())
    }
}

fn not_ours() -> Error {
    Error::new(format!(
        "tests do nothing to a server that {URL} names; ask for one by Options::own"
    ))
}

/// A server that was there.
#[derive(Debug)]
pub(crate) struct Given;

#[async_trait]
impl Running for Given {
    fn way(&self) -> Way {
        Way::Given
    }

    fn origin(&self) -> String {
        format!("named by {URL}")
    }

    async fn has_ended(&self) -> Result<bool> {
        Ok(false)
    }

    async fn log(&self) -> Result<String> {
        Ok(String::new())
    }
}

/// The server that `url` names.
pub(crate) fn given(url: &str) -> Result<Access> {
    use tokio_postgres::config::Host;

    // What is wrong with it is not shown: that may be the password.
    let form =
        || Error::new(format!("{URL} is not of the form postgres://USER:PASSWORD@HOST:PORT"));
    let config: tokio_postgres::Config = url.parse().map_err(|_| form())?;
    let host = match config.get_hosts() {
        [Host::Tcp(host)] => host.clone(),
        _ => return Err(form()),
    };
    let user = config.get_user().ok_or_else(form)?;
    let password = config.get_password().unwrap_or_default();
    Ok(Access {
        host,
        port: config.get_ports().first().copied().unwrap_or(5432),
        user: user.to_owned(),
        password: String::from_utf8(password.to_vec()).map_err(|_| form())?,
    })
}

/// A listener of the loopback interface. Its port is none that the system gives to clients: one of
/// those would be taken while a server restarts, or connect to itself.
pub(crate) fn listen() -> Result<TcpListener> {
    const PORTS: std::ops::Range<u16> = 20_000..30_000;
    let first = PORTS.start + (random() % 10_000) as u16;
    (first..PORTS.end)
        .chain(PORTS.start..first)
        .find_map(|port| TcpListener::bind(("127.0.0.1", port)).ok())
        .ok_or_else(|| Error::new(format!("no port of {PORTS:?} is free on 127.0.0.1")))
}

/// A port as [`listen`] finds it, which nobody uses now.
pub(crate) fn free_port() -> Result<u16> {
    let address = listen()?.local_addr();
    address.map(|address| address.port()).map_err(|error| Error::of("127.0.0.1", error))
}

/// Not the same in two test programs.
pub(crate) fn random() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};

    RandomState::new().hash_one(std::process::id())
}

/// Nobody fills up the machine's.
pub(crate) fn no_disk() -> Error {
    Error::new("the server has no disk of its own; ask for one by Options::disk_mib")
}

/// Waits for something to be so, and gives up after a time in which even a busy machine gets there.
pub(crate) struct Patience {
    what: &'static str,
    began: Instant,
}

impl Patience {
    pub(crate) fn until(what: &'static str) -> Self {
        Self { what, began: Instant::now() }
    }

    /// A moment until it is worth looking again.
    pub(crate) async fn pause(&self) -> Result<()> {
        const LIMIT: Duration = Duration::from_secs(60);
        if self.began.elapsed() > LIMIT {
            return Err(Error::new(format!("{}: not after {} s", self.what, LIMIT.as_secs())));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart_and_never_shown() {
        let access = given("postgres://me:secret@[::1]:6543/ignored").unwrap();
        assert_eq!(format!("{access:?}"), "me@::1:6543");
        assert_eq!(access.password, "secret");
        assert_eq!(given("postgres://me:p%40ss@db").unwrap().password, "p@ss");
        for wrong in [
            "",
            "secret",
            "postgres://me:secret@a,b",
            "postgres:///x?host=/secret",
            "http://secret",
        ] {
            let error = given(wrong).unwrap_err().to_string();
            assert!(error.starts_with(URL) && !error.contains("secret"), "{wrong}: {error}");
        }
    }
}
