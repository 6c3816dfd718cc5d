//! Lines of the log, as text and as JSON, and their level while the program runs.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use std::sync::{Arc, Mutex};

use ghostwire_store_telemetry::logs::{self, Format, LogLevel, LogOptions};

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Lines {
    fn take(&self) -> String {
        String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap()
    }
}

/// What is logged meanwhile.
fn logged(format: Format, work: impl FnOnce(&LogLevel, &Lines)) {
    let lines = Lines::default();
    let options = LogOptions { format, level: "info".to_owned() };
    let writer = lines.clone();
    let (dispatch, level) = logs::dispatch(&options, None, move || writer.clone()).unwrap();
    tracing::dispatcher::with_default(&dispatch, || work(&level, &lines));
}

fn say() {
    tracing::info!(name: "disk_full", path = "/var/a b", count = 3, error = %"no\x1b[31m room", "it\nbroke");
}

// One test, since which lines anybody wants is remembered for the whole process.
#[test]
fn lines_are_whole_and_their_level_follows() {
    logged(Format::Text, |_, lines| {
        say();
        let line = lines.take();
        assert_eq!(line.lines().count(), 1, "{line}");
        assert!(!line.contains('\x1b'));
        let (time, rest) = line.split_once(' ').unwrap();
        assert!(time.ends_with('Z') && time.contains('T'), "{time}");
        let wanted = "INFO  log: it\\nbroke event=disk_full count=3 exception.message=\"no\\u{1b}[31m room\" \
                      path=\"/var/a b\"\n";
        assert_eq!(rest, wanted);
    });
    logged(Format::Json, |level, lines| {
        say();
        let line: serde_json::Value = serde_json::from_str(&lines.take()).unwrap();
        assert_eq!(line["level"], "info");
        assert_eq!(line["target"], "log");
        assert_eq!(line["event"], "disk_full");
        assert_eq!(line["message"], "it\nbroke");
        assert_eq!(line["count"], 3);
        assert_eq!(line["exception.message"], "no\x1b[31m room");
        tracing::debug!("too much");
        assert_eq!(lines.take(), "");
        level.set("debug").unwrap();
        assert_eq!(level.current(), "debug");
        tracing::debug!("just right");
        assert!(lines.take().contains("just right"));
        level.set("off").unwrap();
        tracing::error!("not a word");
        assert_eq!(lines.take(), "");
        level.set("loud").unwrap_err();
        assert_eq!(level.current(), "off");
    });
    logged(Format::Json, |level, lines| {
        // Told once, at whichever of the two levels admits it.
        for [lasting, meanwhile] in [["info", "debug"], ["warn", "debug"], ["info", "error"]] {
            level.set(lasting).unwrap();
            lines.take();
            level.set_for(meanwhile, std::time::Duration::ZERO).unwrap();
            while level.current() != lasting || level.is_timed() {
                std::thread::yield_now();
            }
            let told = lines.take();
            let line: serde_json::Value = serde_json::from_str(&told).unwrap();
            assert_eq!((&line["event"], &line["level"]), (&"log_level".into(), &"info".into()));
            assert_eq!((&line["to"], &line["from"]), (&lasting.into(), &meanwhile.into()));
        }
    });
}
