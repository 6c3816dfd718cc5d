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
use crate::way::{self, Running, Way, until};
use crate::{Authority, Database, Error, Options, Result};

/// How long a server that starts may take for one answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// A running PostgreSQL.
#[derive(Debug)]
pub struct Server {
    access: Access,
    running: Running,
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
    ) -> Result<(Running, Access)> {
        let made = match (&options.certificate, authority) {
            (None, Some(authority)) => Some(authority.certify(&["localhost", "127.0.0.1"])?),
            _ => None,
        };
        let certificate = options.certificate.as_ref().or(made.as_ref());
        match way {
            Way::Given if options.own => {
                Err(Error::new(format!("{} is not for a test that needs its own", way::URL)))
            }
            Way::Given => match std::env::var(way::URL) {
                Ok(url) => Ok((Running::Given, way::given(&url)?)),
                Err(_) => Err(Error::new(format!("{} is not set", way::URL))),
            },
            Way::Container => {
                let (container, access) = Container::start(options, certificate).await?;
                Ok((Running::Container(container), access))
            }
            Way::Installed => {
                let (installed, access) =
                    Installed::start(&installed::programs()?, options, certificate).await?;
                Ok((Running::Installed(installed), access))
            }
        }
    }

    async fn wait_until_it_answers(&self) -> Result<()> {
        let mut last = None;
        let answered = until("waiting for the server", async || {
            let ended = match &self.running {
                Running::Given => false,
                Running::Container(container) => container.has_ended().await?,
                Running::Installed(installed) => installed.has_ended()?,
            };
            if ended {
                return Err(Error::of("the server ended", self.log().await?));
            }
            let asked = self.access.run("postgres", "SELECT 1");
            let late = Err(Error::new("it does not answer"));
            match tokio::time::timeout(PATIENCE, asked).await.unwrap_or(late) {
                Ok(_) => Ok(Some(())),
                // Nobody else starts it.
                Err(error) if matches!(self.running, Running::Given) => Err(error),
                Err(error) => {
                    last = Some(error);
                    Ok(None)
                }
            }
        });
        let answered = answered.await;
        match (answered, last) {
            (Err(error), Some(last)) => Err(Error::of(error, last)),
            (answered, _) => answered,
        }
    }

    /// Says which of the ways it was, past what captures the output of tests.
    async fn announce(&self, refused: &[String]) -> Result<()> {
        let version = self.sql("postgres", "SHOW server_version").await?;
        let version = version.first().and_then(|row| row.first()).cloned().flatten();
        let how = match &self.running {
            Running::Given => format!("named by {}", way::URL),
            Running::Container(container) => format!("in the container {}", container.name()),
            Running::Installed(_) => "started by initdb and postgres".to_owned(),
        };
        let why =
            if refused.is_empty() { String::new() } else { format!(" ({})", refused.join("; ")) };
        let _ = writeln!(
            std::io::stderr(),
            "PostgreSQL {} at {}:{}, {how}{why}",
            version.unwrap_or_default(),
            self.access.host,
            self.access.port
        );
        Ok(())
    }

    /// Where it comes from.
    #[must_use]
    pub fn way(&self) -> Way {
        match &self.running {
            Running::Given => Way::Given,
            Running::Container(_) => Way::Container,
            Running::Installed(_) => Way::Installed,
        }
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
        match &self.running {
            Running::Installed(installed) => Some(installed.socket_directory()),
            _ => None,
        }
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
        match &self.running {
            Running::Given => Ok(String::new()),
            Running::Container(container) => container.log().await,
            Running::Installed(installed) => installed.log(),
        }
    }

    /// Stops it in order (`fast`): connections end, and a checkpoint is written.
    ///
    /// # Errors
    /// If it does not run, or was given.
    pub async fn stop(&self) -> Result<()> {
        match &self.running {
            Running::Given => self.not_ours("stopped"),
            Running::Container(container) => container.stop().await,
            Running::Installed(installed) => installed.stop().await,
        }
    }

    /// Kills all its processes at once.
    ///
    /// # Errors
    /// If it does not run, or was given.
    pub async fn kill(&self) -> Result<()> {
        match &self.running {
            Running::Given => self.not_ours("killed"),
            Running::Container(container) => container.kill().await,
            Running::Installed(installed) => installed.kill().await,
        }
    }

    /// Starts it after [`Server::stop`] or [`Server::kill`], and returns once it answers queries.
    ///
    /// # Errors
    /// If it runs, does not start, or was given.
    pub async fn start_again(&self) -> Result<()> {
        match &self.running {
            Running::Given => self.not_ours("started")?,
            Running::Container(container) => container.start_again().await?,
            Running::Installed(installed) => installed.start_again()?,
        }
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
        match &self.running {
            Running::Given => self.not_ours("paused"),
            Running::Container(container) => container.pause().await,
            Running::Installed(installed) => installed.pause(),
        }
    }

    /// Lets it go on after [`Server::pause`].
    ///
    /// # Errors
    /// If it does not run, or was given.
    pub async fn resume(&self) -> Result<()> {
        match &self.running {
            Running::Given => self.not_ours("resumed"),
            Running::Container(container) => container.resume().await,
            Running::Installed(installed) => installed.resume(),
        }
    }

    /// Leaves no room on the disk of [`Options::disk_mib`].
    ///
    /// # Errors
    /// If it has no such disk.
    pub async fn fill_disk(&self) -> Result<()> {
        match &self.running {
            Running::Given => self.not_ours("filled up"),
            Running::Container(container) => container.fill_disk().await,
            Running::Installed(installed) => installed.fill_disk(),
        }
    }

    /// Gives the room back.
    ///
    /// # Errors
    /// If it was not filled.
    pub async fn free_disk(&self) -> Result<()> {
        match &self.running {
            Running::Given => self.not_ours("emptied"),
            Running::Container(container) => container.free_disk().await,
            Running::Installed(installed) => installed.free_disk(),
        }
    }

    fn not_ours(&self, done: &str) -> Result<()> {
        Err(Error::new(format!(
            "a server that {} names is not {done} by a test; ask for one by Options::own",
            way::URL
        )))
    }
}

/// Not the same in two test programs, wherever they run.
pub(crate) fn unique() -> &'static str {
    static UNIQUE: OnceLock<String> = OnceLock::new();
    UNIQUE.get_or_init(|| format!("{:016x}", way::random()))
}
