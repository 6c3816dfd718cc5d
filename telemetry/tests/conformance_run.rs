//! The whole conformance suite, watched: what is measured has few labels, and nothing that is secret or of a network
//! is in a trace.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use common::Scrape;
use ghostwire_store_conformance::{Effort, Factory, InMemory, Place, Stack, Suite};
use ghostwire_store_core::Result;
use ghostwire_store_core::observe::Recorder;
use ghostwire_store_telemetry::{Options, Telemetry};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry};

/// A label has no more values, whatever is stored. Most have a handful; there are some hundred commands.
const MOST_VALUES: usize = 120;
/// How every credential and every key of a node begins, and the hash key of the suite in two forms.
const SECRET: [&str; 9] = [
    "gwapi-",
    "gwauth-",
    "gwsession-",
    "hskey-",
    "mkey:",
    "nodekey:",
    "discokey:",
    "03030303030303030303030303030303",
    "3, 3, 3, 3, 3, 3, 3, 3",
];

/// What was seen in fields of spans and events.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Fields>>);

#[derive(Default)]
struct Fields {
    /// Texts in spans, by field.
    of_spans: BTreeMap<&'static str, BTreeSet<String>>,
    secrets: Vec<String>,
    events: u64,
}

struct Reading<'f> {
    fields: &'f mut Fields,
    is_span: bool,
}

impl Reading<'_> {
    fn text(&mut self, field: &Field, text: &str) {
        if SECRET.iter().any(|secret| text.contains(secret)) {
            self.fields.secrets.push(format!("{}: {text}", field.name()));
        }
        if self.is_span {
            self.fields.of_spans.entry(field.name()).or_default().insert(text.to_owned());
        }
    }
}

impl Visit for Reading<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.text(field, &format!("{value:?}"));
    }

    // Numbers are no secrets, and serials have many values.
    fn record_u64(&mut self, _: &Field, _: u64) {}
    fn record_i64(&mut self, _: &Field, _: i64) {}
    fn record_bool(&mut self, _: &Field, _: bool) {}
}

impl Layer<Registry> for Seen {
    fn on_new_span(&self, attributes: &Attributes<'_>, _: &Id, _: Context<'_, Registry>) {
        let mut fields = self.0.lock().unwrap();
        attributes.record(&mut Reading { fields: &mut fields, is_span: true });
    }

    fn on_record(&self, _: &Id, values: &Record<'_>, _: Context<'_, Registry>) {
        let mut fields = self.0.lock().unwrap();
        values.record(&mut Reading { fields: &mut fields, is_span: true });
    }

    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, Registry>) {
        let mut fields = self.0.lock().unwrap();
        fields.events += 1;
        event.record(&mut Reading { fields: &mut fields, is_span: false });
    }
}

/// Stores in memory that are all told to one recorder.
#[derive(Debug)]
struct Recorded(InMemory, Arc<dyn Recorder>);

#[async_trait::async_trait]
impl Factory for Recorded {
    fn name(&self) -> &str {
        self.0.name()
    }

    async fn create(&self) -> Result<Box<dyn Place>> {
        self.0.create().await
    }

    fn recorder(&self) -> Option<Arc<dyn Recorder>> {
        Some(self.1.clone())
    }
}

#[test]
fn labels_are_few_and_nothing_secret_is_traced_over_the_conformance_run() {
    let seen = Seen::default();
    tracing_subscriber::registry().with(seen.clone()).init();
    let telemetry = Telemetry::start(Options::default()).unwrap();
    let suite = Suite::new()
        .on(vec![Stack::bare()], |suite| {
            suite.backend(Recorded(InMemory::new(), telemetry.recorder("main")))
        })
        .effort(Effort { sequences: 20, kills: 1, seed: 1 })
        .exceptions(include_str!("../../conformance/tests/exceptions.toml"));
    let report = suite.run("", &mut |_, _, _| ());
    let (passed, failed, _) = report.counts();
    assert!(passed > 200 && failed == 0, "{:#?}", report.failures().collect::<Vec<_>>());

    let scrape = Scrape::of(&telemetry.text());
    let mut values: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (_, labels, _) in &scrape.series {
        for (label, value) in labels.iter().filter(|(label, _)| *label != "le") {
            values.entry(label).or_default().insert(value);
        }
    }
    assert_eq!(values.get("db_namespace"), Some(&BTreeSet::from(["main"])));
    let commands = values.get("ghostwire_store_command").map_or(0, BTreeSet::len);
    assert!(commands > 40, "the suite was not watched: {commands} commands");
    for (label, values) in &values {
        assert!(values.len() <= MOST_VALUES, "{label} has {} values: {values:?}", values.len());
    }

    let fields = seen.0.lock().unwrap();
    assert!(fields.events > 100 && fields.of_spans.contains_key("ghostwire.store.command"));
    assert!(fields.secrets.is_empty(), "{:#?}", fields.secrets);
    // What has few values in all cases of the suite is no id, no name and no key.
    for (field, texts) in &fields.of_spans {
        assert!(texts.len() <= MOST_VALUES, "{field} of spans has {} values", texts.len());
    }
}
