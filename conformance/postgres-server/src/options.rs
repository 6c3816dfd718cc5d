//! What a test asks of its server.

use crate::{Certificate, Result, Server, Way};

/// What a server is to be like. Durable unless something else is asked for.
#[derive(Debug, Clone, Default)]
pub struct Options {
    pub(crate) way: Option<Way>,
    pub(crate) own: bool,
    pub(crate) tls: bool,
    pub(crate) certificate: Option<Certificate>,
    pub(crate) disk_mib: Option<u32>,
    pub(crate) memory_mib: Option<u32>,
    pub(crate) settings: Vec<(String, String)>,
}

impl Options {
    /// What [`Server::start`] gives.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Only in this way; an error if it is not there.
    #[must_use]
    pub fn way(mut self, way: Way) -> Self {
        self.way = Some(way);
        self
    }

    /// A server that nobody else uses, so that it can be stopped, killed and paused.
    #[must_use]
    pub fn own(mut self) -> Self {
        self.own = true;
        self
    }

    /// With TLS, by a certificate for `localhost` and `127.0.0.1` that [`Server::authority`] signed.
    /// Connections without TLS are accepted as well.
    #[must_use]
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self.own()
    }

    /// With TLS, by another certificate than [`Options::tls`] makes.
    #[must_use]
    pub fn certificate(mut self, certificate: Certificate) -> Self {
        self.certificate = Some(certificate);
        self.tls()
    }

    /// On a disk of this size, in memory: [`Server::fill_disk`] then fills it. It needs root for
    /// `initdb`; what is in a container's is lost when that stops, so that one cannot be restarted.
    /// 96 MiB are enough for an empty server.
    #[must_use]
    pub fn disk_mib(mut self, size: u32) -> Self {
        self.disk_mib = Some(size);
        self.own()
    }

    /// With no more memory than this: whoever of its processes wants more is killed. In containers
    /// only.
    #[must_use]
    pub fn memory_mib(mut self, size: u32) -> Self {
        self.memory_mib = Some(size);
        self.own()
    }

    /// How many connections it accepts; 3 of them are kept for superusers, as the tests' user is
    /// one.
    #[must_use]
    pub fn max_connections(self, count: u16) -> Self {
        self.setting("max_connections", count.to_string())
    }

    /// A setting of `postgresql.conf`.
    #[must_use]
    pub fn setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.push((name.into(), value.into()));
        self.own()
    }

    /// Starts it, and returns once it answers queries.
    ///
    /// # Errors
    /// What was tried and what each came to, with the command that mends it.
    pub async fn start(self) -> Result<Server> {
        Server::with(self).await
    }
}
