//! Metrics, traces and the log of a program that holds stores; feature `telemetry`.
//! [docs/observability.md](https://github.com/ghostwire/ghostwire-store/blob/main/docs/observability.md)
//! has every name.
//!
//! ```no_run
//! use ghostwire_store::config::Config;
//! use ghostwire_store::{Opener, telemetry};
//!
//! # async fn example(config: Config) -> ghostwire_store::Result<()> {
//! let telemetry = telemetry::start(&config, "my-control-plane", env!("CARGO_PKG_VERSION"))?;
//! let log_level = telemetry::log(&config, Some(&telemetry))?;
//! let store = Opener::new(&config).recorder(telemetry.recorder(&config.store)).open().await?;
//!
//! // For a scrape by Prometheus:
//! let text = telemetry.text();
//! // While something is looked into:
//! log_level.set_for("debug", std::time::Duration::from_secs(600))?;
//! # drop((store, text));
//! # Ok(())
//! # }
//! ```

use std::time::Duration;

use ghostwire_store_core::error::Result;

#[doc(inline)]
pub use ghostwire_store_telemetry::catalogue;
#[doc(inline)]
pub use ghostwire_store_telemetry::logs::{Format, LogLevel, LogOptions, flush as flush_log};
#[doc(inline)]
pub use ghostwire_store_telemetry::traces;
#[doc(inline)]
pub use ghostwire_store_telemetry::{Build, Health, HealthSource, Options, Telemetry};

use crate::config::{Config, LogFormat};

/// The features of this crate that are on and can be chosen.
const FEATURES: &[(&str, bool)] = &[
    ("zqlite", cfg!(feature = "zqlite")),
    ("libsql", cfg!(feature = "libsql")),
    ("memory", cfg!(feature = "memory")),
    ("admin", cfg!(feature = "admin")),
    ("http", cfg!(feature = "http")),
    ("serve", cfg!(feature = "serve")),
    ("telemetry", true),
];

/// What the configuration says, and OpenTelemetry's variables where it says nothing.
///
/// # Errors
/// `InvalidArgument` for a variable that cannot be used.
pub fn options(config: &Config, service: &str, version: &str) -> Result<Options> {
    let on = FEATURES.iter().filter(|(_, is_on)| *is_on).map(|(name, _)| *name);
    let features = on.collect::<Vec<_>>().join(",");
    let slow_ms = config.log.slow_ms;
    let mut options = Options {
        service: service.to_owned(),
        build: Build { version: version.to_owned(), features },
        slow_after: (slow_ms > 0).then(|| Duration::from_millis(slow_ms)),
        ..Options::default()
    };
    options = options.with_variables(|name| std::env::var(name).ok())?;
    let configured = &config.telemetry;
    if configured.otlp_endpoint.is_some() {
        options.endpoint.clone_from(&configured.otlp_endpoint);
    }
    if let Some(percent) = configured.sample_percent {
        options.sampled = percent as f64 / 100.0;
    }
    if let Some(seconds) = configured.export_interval_seconds {
        options.interval = Duration::from_secs(seconds);
    }
    Ok(options)
}

/// Begins to count, and to send to the collector if there is one. Whether to, says
/// [`TelemetryOptions::enabled`](crate::config::TelemetryOptions::enabled).
///
/// # Errors
/// As [`options`] and [`Telemetry::start`].
pub fn start(config: &Config, service: &str, version: &str) -> Result<Telemetry> {
    Telemetry::start(options(config, service, version)?)
}

/// Begins to log as the configuration says; `RUST_LOG` takes precedence. Once for a process.
///
/// # Errors
/// As [`logs::init`](ghostwire_store_telemetry::logs::init).
pub fn log(config: &Config, telemetry: Option<&Telemetry>) -> Result<LogLevel> {
    let format = match config.log.format {
        LogFormat::Json => Format::Json,
        LogFormat::Text => Format::Text,
    };
    let variable = std::env::var("RUST_LOG").ok().filter(|level| !level.is_empty());
    let level = variable.unwrap_or_else(|| config.log.level.name().to_owned());
    ghostwire_store_telemetry::logs::init(&LogOptions { format, level }, telemetry)
}
