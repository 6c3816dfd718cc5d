//! What telemetry is started with.

use std::time::Duration;

use ghostwire_store_core::error::{Error, Result};
use opentelemetry::KeyValue;

use crate::catalogue::attribute;

/// What telemetry is started with. The default sends nothing anywhere.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// What the program calls itself, unless `OTEL_SERVICE_NAME` says otherwise.
    pub service: String,
    /// What runs.
    pub build: Build,
    /// Where the collector takes OTLP over HTTP, such as `http://localhost:4318`; `None` sends nothing.
    pub endpoint: Option<String>,
    /// Which share of traces is followed, from 0 to 1. Metrics count everything.
    pub sampled: f64,
    /// How often metrics are sent.
    pub interval: Duration,
    /// From how long on a write is logged with its phases; `None` logs none.
    pub slow_after: Option<Duration>,
}

/// What runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Build {
    /// The version of the program.
    pub version: String,
    /// Its Cargo features, with commas.
    pub features: String,
}

impl Build {
    pub(crate) fn version_attribute(&self) -> KeyValue {
        KeyValue::new(attribute::VERSION, self.version.clone())
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            service: "ghostwire-store".to_owned(),
            build: Build { version: env!("CARGO_PKG_VERSION").to_owned(), features: String::new() },
            endpoint: None,
            sampled: 0.01,
            interval: Duration::from_secs(60),
            slow_after: Some(Duration::from_secs(1)),
        }
    }
}

impl Options {
    /// Takes what OpenTelemetry's variables say and these do not: `OTEL_EXPORTER_OTLP_ENDPOINT`,
    /// `OTEL_SDK_DISABLED`, `OTEL_TRACES_SAMPLER` with its `_ARG`, `OTEL_METRIC_EXPORT_INTERVAL`. The headers,
    /// timeouts, resource attributes and queue sizes are read by the exporters themselves.
    ///
    /// # Errors
    /// `InvalidArgument` for a sampler or a share that is none.
    pub fn with_variables(mut self, variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        if self.endpoint.is_none() {
            self.endpoint = variable("OTEL_EXPORTER_OTLP_ENDPOINT");
        }
        if let Some(protocol) = variable("OTEL_EXPORTER_OTLP_PROTOCOL")
            && self.endpoint.is_some()
            && protocol != "http/protobuf"
        {
            return Err(Error::invalid(
                "OTEL_EXPORTER_OTLP_PROTOCOL must be http/protobuf, which a collector takes at port 4318, \
                 or be left out",
            )
            .with("value", protocol));
        }
        if let Some(sampler) = variable("OTEL_TRACES_SAMPLER") {
            self.sampled = share(&sampler, variable("OTEL_TRACES_SAMPLER_ARG").as_deref())?;
        }
        if let Some(interval) = variable("OTEL_METRIC_EXPORT_INTERVAL") {
            let millis = interval.parse().ok().filter(|millis| *millis > 0);
            let millis = millis.ok_or_else(|| {
                Error::invalid("OTEL_METRIC_EXPORT_INTERVAL is no number of milliseconds")
                    .with("value", &interval)
            })?;
            self.interval = Duration::from_millis(millis);
        }
        if variable("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            self.endpoint = None;
        }
        Ok(self)
    }

    /// Where to send to.
    ///
    /// # Errors
    /// `InvalidArgument`.
    pub(crate) fn endpoint(&self) -> Result<Option<String>> {
        let Some(endpoint) = &self.endpoint else { return Ok(None) };
        let endpoint = endpoint.trim_end_matches('/');
        let address = endpoint.strip_prefix("http://").filter(|rest| !rest.is_empty());
        if address.is_none() || address.is_some_and(|rest| rest.contains('@')) {
            let error = Error::invalid(
                "the endpoint of the collector must be http://HOST:PORT; for one that wants TLS or a \
                 password, send to a collector on this machine that forwards",
            );
            let error = error.with("keys", "telemetry.otlp_endpoint, OTEL_EXPORTER_OTLP_ENDPOINT");
            // What stands before an @ may be a password.
            return Err(match endpoint.contains('@') {
                true => error,
                false => error.with("value", endpoint),
            });
        }
        Ok(Some(endpoint.to_owned()))
    }
}

fn share(sampler: &str, argument: Option<&str>) -> Result<f64> {
    let name = sampler.strip_prefix("parentbased_").unwrap_or(sampler);
    match (name, argument.map_or(Ok(1.0), str::parse::<f64>)) {
        ("always_on", _) => Ok(1.0),
        ("always_off", _) => Ok(0.0),
        ("traceidratio", Ok(share)) if (0.0..=1.0).contains(&share) => Ok(share),
        ("traceidratio", _) => Err(Error::invalid(
            "OTEL_TRACES_SAMPLER_ARG is no number from 0 to 1",
        )
        .with("value", argument.unwrap_or_default())),
        _ => Err(Error::invalid(
            "OTEL_TRACES_SAMPLER is none of always_on, always_off, traceidratio, also with parentbased_",
        )
        .with("value", sampler)),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn with(variables: &'static [(&str, &str)]) -> Result<Options> {
        let variable = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        Options::default().with_variables(variable)
    }

    #[test]
    fn variables_say_where_to_send_to_and_how_much() {
        let options = with(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4318/"),
            ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "5000"),
        ])
        .unwrap();
        assert_eq!(options.endpoint().unwrap().as_deref(), Some("http://localhost:4318"));
        assert_eq!((options.sampled, options.interval), (0.25, Duration::from_secs(5)));
        let off = with(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4318"),
            ("OTEL_SDK_DISABLED", "true"),
        ]);
        assert_eq!(off.unwrap().endpoint().unwrap(), None);
        assert_eq!(with(&[]).unwrap(), Options::default());
    }

    #[test]
    fn what_cannot_be_used_is_refused() {
        with(&[("OTEL_TRACES_SAMPLER", "sometimes")]).unwrap_err();
        with(&[("OTEL_TRACES_SAMPLER", "traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "2")])
            .unwrap_err();
        with(&[("OTEL_METRIC_EXPORT_INTERVAL", "soon")]).unwrap_err();
        const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4318");
        with(const { &[ENDPOINT, ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")] }).unwrap_err();
        with(const { &[ENDPOINT, ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")] }).unwrap();
        with(&[("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]).unwrap();
        for endpoint in ["https://collector", "localhost:4318", "http://", "http://me:secret@host"]
        {
            let options = Options { endpoint: Some(endpoint.to_owned()), ..Options::default() };
            let error = options.endpoint().unwrap_err();
            assert!(!format!("{error:?}").contains("secret"));
        }
    }
}
