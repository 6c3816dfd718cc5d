//! A server, and what can happen to it.

use std::io::Write as _;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::OnceCell;

use crate::client::Access;
use crate::way::container::Container;
use crate::way::installed::{self, Installed};
use crate::way::{self, Given, Patience, Running, Way};
use crate::{Authority, Database, Error, Options, Result};

/// How long a server that starts may take for one answer.
const ONE_ANSWER: Duration = Duration::from_secs(10);

/// A running PostgreSQL.
#[derive(Debug)]
pub struct Server {
    access: Access,
    running: Box<dyn Running>,
    authority: Option<Authority>,
    databases: AtomicU64,
}

impl Server {
    /// One that nothing special is asked of.
    ///
    /// # Errors
    /// See [`Options::start`].
    pub async fn start() -> Result<Self> {
        Options::new().start().await
    }

    /// The one that all tests of this program use, if they leave it as it is.
    ///
    /// # Errors
    /// See [`Options::start`]. The next caller tries again.
    pub async fn shared() -> Result<&'static Self> {
        static SHARED: OnceCell<Server> = OnceCell::const_new();
        SHARED.get_or_try_init(Self::start).await
    }

    pub(crate) async fn with(options: Options) -> Result<Self> {
        let authority = if options.tls { Some(Authority::new()?) } else { None };
        let mut refused = Vec::new();
        for way in Way::ALL {
            if options.way.is_some_and(|wanted| wanted != way) {
                continue;
            }
            match Self::by(way, &options, authority.as_ref()).await {
                Ok((running, access)) => {
                    let server = Self { access, running, authority, databases: AtomicU64::new(0) };
                    server.wait_until_it_answers().await?;
                    server.announce(&refused).await?;
                    return Ok(server);
                }
                // Who names a server means that one.
                Err(error) if way == Way::Given && !options.own && named().is_some() => {
                    return Err(error);
                }
                Err(error) => refused.push(error.to_string()),
            }
        }
        Err(Error::new(format!("no PostgreSQL to test on: {}", refused.join("; "))))
    }

    /// Starts one in this way, or says why it cannot.
    async fn by(
        way: Way,
        options: &Options,
        authority: Option<&Authority>,
    ) -> Result<(Box<dyn Running>, Access)> {
        let made = match (&options.certificate, authority) {
            (None, Some(authority)) => Some(authority.certify(&["localhost", "127.0.0.1"])?),
            _ => None,
        };
        let certificate = options.certificate.as_ref().or(made.as_ref());
        match way {
            Way::Given if options.own => {
                Err(Error::new(format!("{} is not for a test that needs its own", way::URL)))
            }
            Way::Given => {
                let url = named().ok_or_else(|| Error::new(format!("{} is not set", way::URL)))?;
                Ok((Box::new(Given), way::given(&url)?))
            }
            Way::Container => {
                let (container, access) = Container::start(options, certificate).await?;
                Ok((Box::new(container), access))
            }
            Way::Installed => {
                let (installed, access) =
                    Installed::start(&installed::programs()?, options, certificate).await?;
                Ok((Box::new(installed), access))
            }
        }
    }

    async fn wait_until_it_answers(&self) -> Result<()> {
        let patience = Patience::until("the server answers");
        loop {
            if self.running.has_ended().await? {
                return Err(Error::of("the server ended", self.log().await?));
            }
            let asked = self.access.run("postgres", "SELECT 1");
            let late = Err(Error::new("it does not answer"));
            match tokio::time::timeout(ONE_ANSWER, asked).await.unwrap_or(late) {
                Ok(_) => return Ok(()),
                // Nobody else starts it.
                Err(error) if self.way() == Way::Given => return Err(error),
                Err(error) => {
                    let waited = patience.pause().await;
                    waited.map_err(|late| Error::of(late, error))?;
                }
            }
        }
    }

    /// Says which of the ways it was, past what captures the output of tests.
    async fn announce(&self, refused: &[String]) -> Result<()> {
        let version = self.sql("postgres", "SHOW server_version").await?;
        let version = version.first().and_then(|row| row.first()).cloned().flatten();
        let origin = self.running.origin();
        let why =
            if refused.is_empty() { String::new() } else { format!(" ({})", refused.join("; ")) };
        let _ = writeln!(
            std::io::stderr(),
            "PostgreSQL {} at {}:{}, {origin}{why}",
            version.unwrap_or_default(),
            self.access.host,
            self.access.port
        );
        Ok(())
    }

    /// Where it comes from.
    #[must_use]
    pub fn way(&self) -> Way {
        self.running.way()
    }

    /// On which host it is: `127.0.0.1`, unless it was given.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.access.host
    }

    /// On which port. It stays the same when the server starts again.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.access.port
    }

    /// A superuser, or whom the URL names.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.access.user
    }

    /// Its password, which is asked for by SCRAM.
    #[must_use]
    pub fn password(&self) -> &str {
        &self.access.password
    }

    /// Who signed its certificate, if it was asked to have one.
    #[must_use]
    pub fn authority(&self) -> Option<&Authority> {
        self.authority.as_ref()
    }

    /// Where its Unix socket is. Containers have theirs inside.
    #[must_use]
    pub fn socket_directory(&self) -> Option<&Path> {
        self.running.socket_directory()
    }

    /// An empty database, in UTF-8.
    ///
    /// # Errors
    /// If the server does not answer, or its user may not create any.
    pub async fn database(&self) -> Result<Database> {
        let number = self.databases.fetch_add(1, Ordering::Relaxed);
        // On a server that was given others may test at the same time.
        let name = format!("ghostwire_test_{}_{number}", unique());
        let sql = format!("CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'");
        self.access.run("postgres", &sql).await?;
        Ok(Database { name, access: self.access.clone() })
    }

    /// Runs statements by another client than the one under test, and returns the rows of the last
    /// as text.
    ///
    /// # Errors
    /// What the server says.
    pub async fn sql(&self, database: &str, sql: &str) -> Result<Vec<Vec<Option<String>>>> {
        self.access.run(database, sql).await
    }

    /// What it has written to its log. Empty for one that was given.
    ///
    /// # Errors
    /// If it cannot be read.
    pub async fn log(&self) -> Result<String> {
        self.running.log().await
    }

    /// Stops it in order (`fast`): connections end, and a checkpoint is written.
    ///
    /// # Errors
    /// If it does not run, or was given.
    pub async fn stop(&self) -> Result<()> {
        self.running.stop().await
    }

    /// Kills all its processes at once.
    ///
    /// # Errors
    /// If it does not run, or was given.
    pub async fn kill(&self) -> Result<()> {
        self.running.kill().await
    }

    /// Starts it after [`Server::stop`] or [`Server::kill`], and returns once it answers queries.
    ///
    /// # Errors
    /// If it runs, does not start, or was given.
    pub async fn start_again(&self) -> Result<()> {
        self.running.start_again().await?;
        self.wait_until_it_answers().await
    }

    /// Stops it in order and starts it again.
    ///
    /// # Errors
    /// Those of the two.
    pub async fn restart(&self) -> Result<()> {
        self.stop().await?;
        self.start_again().await
    }

    /// Stops all its processes where they are: connections stay open and nothing answers.
    ///
    /// # Errors
    /// If it does not run, or was given.
    pub async fn pause(&self) -> Result<()> {
        self.running.pause().await
    }

    /// Lets it go on after [`Server::pause`].
    ///
    /// # Errors
    /// If it does not run, or was given.
    pub async fn resume(&self) -> Result<()> {
        self.running.resume().await
    }

    /// Leaves no room on the disk of [`Options::disk_mib`].
    ///
    /// # Errors
    /// If it has no such disk.
    pub async fn fill_disk(&self) -> Result<()> {
        self.running.fill_disk().await
    }

    /// Gives the room back.
    ///
    /// # Errors
    /// If it was not filled.
    pub async fn free_disk(&self) -> Result<()> {
        self.running.free_disk().await
    }
}

/// The server that whoever runs the tests has named.
fn named() -> Option<String> {
    std::env::var_os(way::URL).map(|url| url.to_string_lossy().into_owned())
}

/// Not the same in two test programs, wherever they run.
pub(crate) fn unique() -> &'static str {
    static UNIQUE: OnceLock<String> = OnceLock::new();
    UNIQUE.get_or_init(|| format!("{:016x}", way::random()))
}
