//! The text that Prometheus reads.

use prometheus::proto::MetricFamily;
use prometheus::{Encoder, TextEncoder};

/// The families as text. A unit that a name ends with already is not said twice, as OpenTelemetry wants it and
/// the exporter does not do.
pub(crate) fn of(mut families: Vec<MetricFamily>) -> String {
    for family in &mut families {
        if let Some(name) = family.name().strip_suffix("_bytes_bytes") {
            let name = format!("{name}_bytes");
            family.set_name(name);
        }
    }
    let mut text = Vec::new();
    // Fails only for a family that has no name or no metric, and then the others are lost with it.
    if let Err(error) = TextEncoder::new().encode(&families, &mut text) {
        tracing::error!(%error, "the metrics cannot be written as text");
    }
    String::from_utf8_lossy(&text).into_owned()
}
