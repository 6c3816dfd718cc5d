//! Opening a store in PostgreSQL.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ghostwire_store_core::backend::Backend;
use ghostwire_store_core::domain::StoreId;
use ghostwire_store_core::error::{Error, ErrorKind, Result};
use ghostwire_store_postgres::{
    Durability, Password, PoolOptions, PostgresBackend, PostgresOptions, Tls,
};
use ghostwire_store_sqlite::failed;
use zeroize::Zeroizing;

use super::{Opener, deadlines};
use crate::config::{self, PostgresDurability, PostgresTls};

/// Longer files have no password.
const MAX_BYTES: u64 = 4096;

impl Opener<'_> {
    pub(super) async fn postgres(
        &self,
        options: &config::PostgresOptions,
        store: StoreId,
    ) -> Result<Arc<dyn Backend>> {
        let seconds = Duration::from_secs;
        let count = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        let port = |number: u64| u16::try_from(number).unwrap_or(0);
        let mut wanted =
            PostgresOptions::new(&options.host, &options.database, &options.user, store)
                .port(port(options.port))
                .password(password(options)?)
                .tls(options.tls.map(|tls| match tls {
                    PostgresTls::VerifyFull => Tls::VerifyFull,
                    PostgresTls::VerifyCa => Tls::VerifyCa,
                    PostgresTls::Off => Tls::Off,
                }))
                .root_certificate(options.root_certificate_file.clone())
                .schema_name(&options.schema)
                .pool(PoolOptions {
                    min: count(options.pool_min),
                    max: count(options.pool_max),
                    idle: seconds(options.pool_idle_seconds),
                    lifetime: seconds(options.pool_lifetime_seconds),
                })
                .deadlines(deadlines(&self.config.backend))
                .notify(options.notify)
                .durability(match options.durability {
                    PostgresDurability::Required => Durability::Required,
                    PostgresDurability::Unsafe => Durability::Unsafe,
                })
                .max_clock_ahead(Some(Duration::from_millis(options.max_clock_ahead_ms)))
                .create(self.may_make())
                .only_new(self.only_new)
                .read_only(self.read_only);
        if options.listen_host.is_some() || options.listen_port.is_some() {
            let host = options.listen_host.as_ref().unwrap_or(&options.host);
            wanted = wanted.listen(host, port(options.listen_port.unwrap_or(options.port)));
        }
        if let Some(schema) = self.schema {
            wanted = wanted.schema(schema);
        }
        Ok(Arc::new(PostgresBackend::open(wanted).await?))
    }
}

/// The password, from its file or its variable; `None` if neither is named.
fn password(options: &config::PostgresOptions) -> Result<Option<Password>> {
    if let Some(path) = &options.password_file {
        let named = |error: Error| error.with("password_file", path.display());
        return read_password(path).map_err(named).map(Some);
    }
    let Some(name) = &options.password_variable else { return Ok(None) };
    let value = std::env::var(name).map_err(|_| {
        Error::new(ErrorKind::NotFound, "the variable of the database's password is not set")
            .with("password_variable", name)
    })?;
    let password = Password::new(value);
    password.map_err(|error| error.with("password_variable", name)).map(Some)
}

/// Reads a file of one line.
fn read_password(path: &Path) -> Result<Password> {
    let cannot = |error| failed("the file of the database's password cannot be read", path, error);
    // Before it is opened: a pipe would wait for somebody to write.
    if !fs::metadata(path).map_err(cannot)?.is_file() {
        return Err(Error::invalid("the path of the database's password is no regular file"));
    }
    let file = File::open(path).map_err(cannot)?;
    #[cfg(unix)]
    if is_exposed(&file.metadata().map_err(cannot)?) {
        return Err(Error::new(
            ErrorKind::PermissionDenied,
            "the file of the database's password can be read by others; run `chmod 600` on it",
        ));
    }
    let mut text = Zeroizing::new(String::with_capacity(2 * MAX_BYTES as usize));
    file.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(cannot)?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    match line.contains('\n') || text.len() as u64 > MAX_BYTES {
        true => Err(Error::invalid("the file of the database's password has more than one line")),
        false => Password::new(line),
    }
}

/// Whether others than its owner may read it; root may let a group.
#[cfg(unix)]
fn is_exposed(metadata: &fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    let allowed = if metadata.uid() == 0 { 0o740 } else { 0o700 };
    metadata.mode() & 0o777 & !allowed != 0
}
