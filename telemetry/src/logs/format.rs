//! Lines of the log.

use std::fmt::{self, Debug, Write};
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use ghostwire_store_core::domain::Timestamp;
use opentelemetry::trace::TraceContextExt;
use serde_json::{Map, Value};
use tracing::dispatcher::WeakDispatch;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_opentelemetry::get_otel_context;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// How a line is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    /// For people: time, level, target, message, fields.
    #[default]
    Text,
    /// An object a line.
    Json,
}

/// Writes lines, with the trace that each belongs to.
pub(super) struct Lines {
    pub(super) format: Format,
    /// What the lines come through; it knows the current span.
    pub(super) dispatch: Arc<OnceLock<WeakDispatch>>,
}

impl Lines {
    /// The ids of the trace and of the span, if the trace is followed.
    fn trace(&self) -> Option<(String, String)> {
        let dispatch = self.dispatch.get()?.upgrade()?;
        let current = dispatch.current_span();
        let context = get_otel_context(current.id()?, &dispatch)?;
        let span = context.span();
        let of = span.span_context();
        of.is_valid().then(|| (of.trace_id().to_string(), of.span_id().to_string()))
    }
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'s> LookupSpan<'s>,
    N: for<'w> FormatFields<'w> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut to: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        super::count(*event.metadata().level());
        let line = Line::of(event, self.trace());
        match self.format {
            Format::Text => line.text(&mut to),
            Format::Json => line.json(&mut to),
        }
    }
}

/// What a line says.
struct Line {
    time: String,
    level: &'static str,
    target: String,
    /// The name of the event, if it was given one.
    event: Option<&'static str>,
    message: String,
    fields: Map<String, Value>,
}

impl Line {
    fn of(event: &Event<'_>, trace: Option<(String, String)>) -> Self {
        let metadata = event.metadata();
        let mut fields = Fields::default();
        event.record(&mut fields);
        let Fields { message, mut fields } = fields;
        if let Some((trace, span)) = trace {
            fields.insert("trace_id".to_owned(), trace.into());
            fields.insert("span_id".to_owned(), span.into());
        }
        Self {
            time: now(),
            level: super::level_name(*metadata.level()),
            target: metadata.target().to_owned(),
            // By default it is where the line stands in the source.
            event: Some(metadata.name()).filter(|name| !name.starts_with("event ")),
            message,
            fields,
        }
    }

    fn text(&self, to: &mut impl Write) -> fmt::Result {
        let Self { time, level, target, event, message, fields } = self;
        let mut line = format!("{time} {:<5} {target}: {}", level.to_uppercase(), Plain(message));
        if let Some(event) = event {
            write!(line, " event={event}")?;
        }
        for (name, value) in fields {
            match value {
                Value::String(text) if !text.is_empty() && !text.contains([' ', '"', '=']) => {
                    write!(line, " {name}={}", Plain(text))?;
                }
                Value::String(text) => write!(line, " {name}=\"{}\"", Plain(text))?,
                other => write!(line, " {name}={other}")?,
            }
        }
        writeln!(to, "{line}")
    }

    fn json(self, to: &mut impl Write) -> fmt::Result {
        let mut object = Map::new();
        object.insert("timestamp".to_owned(), self.time.into());
        object.insert("level".to_owned(), self.level.into());
        object.insert("target".to_owned(), self.target.into());
        if let Some(event) = self.event {
            object.insert("event".to_owned(), event.into());
        }
        object.insert("message".to_owned(), self.message.into());
        for (name, value) in self.fields {
            object.entry(name).or_insert(value);
        }
        writeln!(to, "{}", Value::Object(object))
    }
}

/// Text without what moves a terminal or begins a line.
struct Plain<'t>(&'t str);

impl fmt::Display for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character.is_control() {
                true => write!(f, "{}", character.escape_default())?,
                false => f.write_char(character)?,
            }
        }
        Ok(())
    }
}

fn now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let micros = i64::try_from(since.as_micros()).unwrap_or(i64::MAX);
    Timestamp::from_micros(micros).unwrap_or(Timestamp::EPOCH).to_string()
}

/// The fields of an event, under the names of OpenTelemetry where it has one.
#[derive(Default)]
struct Fields {
    message: String,
    fields: Map<String, Value>,
}

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
        let name = match field.name() {
            "error" => "exception.message",
            name => name,
        };
        self.fields.insert(name.to_owned(), value);
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let text = format!("{value:?}");
        match field.name() {
            "message" => self.message = text,
            _ => self.put(field, text.into()),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => value.clone_into(&mut self.message),
            _ => self.put(field, value.into()),
        }
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }
}
