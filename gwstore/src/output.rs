//! What commands print: lines and tables for people, JSON for programs.

use std::fmt::Display;
use std::io::{self, Write};
use std::path::Path;

use clap::builder::styling::Style;
use ghostwire_store::EntityKind;
use ghostwire_store::domain::{Timestamp, is_visible};
use indicatif::HumanDuration;
use serde::Serialize;
use serde_json::Value;

use crate::failure::Outcome;
use crate::progress::Progress;

/// A cell of a table shows so many characters; JSON has the whole.
const WIDEST_CELL: usize = 60;

/// The other end: where to print, and in which form.
pub(crate) struct Shell<'a> {
    /// Results.
    pub(crate) out: &'a mut dyn Write,
    /// Everything else.
    pub(crate) notes: &'a mut dyn Write,
    /// Results are for a program.
    pub(crate) json: bool,
    /// Several results are one array.
    pub(crate) is_array: bool,
    /// Results go to a terminal.
    pub(crate) is_terminal: bool,
    /// Results may have colours.
    pub(crate) is_coloured: bool,
    /// Only results and errors.
    pub(crate) quiet: bool,
    /// Notes go to a terminal.
    pub(crate) is_interactive: bool,
}

impl Shell<'_> {
    /// A line of the result.
    pub(crate) fn line(&mut self, line: impl Display) -> Outcome {
        Ok(writeln!(self.out, "{line}")?)
    }

    /// A line that says what was done; neither programs nor the quiet want it.
    pub(crate) fn say(&mut self, line: impl Display) -> Outcome {
        if self.json || self.quiet { Ok(()) } else { self.line(line) }
    }

    /// The result of a look, in words: what programs have as an object, and what the quiet asked for.
    pub(crate) fn tell(&mut self, line: impl Display) -> Outcome {
        if self.json { Ok(()) } else { self.line(line) }
    }

    /// A remark beside the result.
    pub(crate) fn note(&mut self, note: impl Display) {
        if !self.quiet {
            self.caution(note);
        }
    }

    /// A remark without which the result would be misunderstood.
    pub(crate) fn caution(&mut self, note: impl Display) {
        // In the order in which it was said, where both ends are one terminal.
        let _ = self.out.flush();
        // A remark that cannot be made does not undo what was done.
        let _ = if self.json {
            let note = serde_json::json!({ "note": note.to_string() });
            json_line(&mut *self.notes, &note)
        } else {
            writeln!(self.notes, "note: {note}")
        };
    }

    /// A result for programs, on one line.
    pub(crate) fn object(&mut self, value: &impl Serialize) -> Outcome {
        Ok(json_line(&mut *self.out, value)?)
    }

    /// Several results for programs.
    pub(crate) fn items(&self) -> Items {
        Items { is_array: self.json && self.is_array, count: 0 }
    }

    /// Names and values, aligned.
    pub(crate) fn pairs(&mut self, pairs: &[(&str, String)]) -> Outcome {
        let width = pairs.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        for (name, value) in pairs {
            self.line(format_args!("{name:width$}  {}", exact(value)))?;
        }
        Ok(())
    }

    /// A progress bar that people see if it takes long.
    pub(crate) fn progress(&self, what: &'static str, total: Option<u64>) -> Progress {
        Progress::new(what, total, self.is_interactive && !self.quiet && !self.json)
    }
}

/// Results for programs, one a line or all in one array.
pub(crate) struct Items {
    is_array: bool,
    count: u64,
}

impl Items {
    pub(crate) fn item(&mut self, shell: &mut Shell<'_>, value: &impl Serialize) -> Outcome {
        if self.is_array {
            shell.out.write_all(if self.count == 0 { b"[" } else { b"," })?;
        }
        self.count += 1;
        shell.object(value)
    }

    pub(crate) fn end(&self, shell: &mut Shell<'_>) -> Outcome {
        match (self.is_array, self.count) {
            (false, _) => Ok(()),
            (true, 0) => shell.line("[]"),
            (true, _) => shell.line("]"),
        }
    }
}

/// A table whose rows come page by page. The first page decides how wide the columns are at least.
pub(crate) struct Table {
    titles: Vec<&'static str>,
    widths: Vec<usize>,
    is_begun: bool,
}

impl Table {
    pub(crate) fn new(titles: &[&'static str]) -> Self {
        let widths = titles.iter().map(|title| title.len()).collect();
        Self { titles: titles.to_vec(), widths, is_begun: false }
    }

    /// Prints further rows.
    pub(crate) fn rows(&mut self, shell: &mut Shell<'_>, rows: &[Vec<String>]) -> Outcome {
        let rows: Vec<Vec<String>> =
            rows.iter().map(|row| row.iter().map(|cell| shortened(cell)).collect()).collect();
        for row in &rows {
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        if !self.is_begun {
            self.is_begun = true;
            let titles: Vec<String> = self.titles.iter().map(|&title| title.to_owned()).collect();
            let style = if shell.is_coloured { Style::new().bold() } else { Style::new() };
            let line = self.row(&titles);
            shell.line(format_args!("{style}{line}{style:#}"))?;
        }
        rows.iter().try_for_each(|row| shell.line(self.row(row)))
    }

    fn row(&self, cells: &[String]) -> String {
        let mut line = String::new();
        for (width, cell) in self.widths.iter().zip(cells) {
            let padding = width.saturating_sub(cell.chars().count()) + 2;
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', padding));
        }
        line.truncate(line.trim_end().len());
        line
    }
}

fn shortened(cell: &str) -> String {
    let cell = exact(cell);
    if cell.chars().count() <= WIDEST_CELL {
        return cell;
    }
    let mut short: String = cell.chars().take(WIDEST_CELL - 1).collect();
    short.push('…');
    short
}

/// Text that cannot play tricks with a terminal, or look like other text: what does not show is shown
/// as an escape.
pub(crate) fn printable(text: &str) -> String {
    escaped(text, |character| !is_visible(character))
}

/// As [`printable`], and what looks like an escape is none: a backslash is shown as two.
fn exact(text: &str) -> String {
    escaped(text, |character| character == '\\' || !is_visible(character))
}

fn escaped(text: &str, is_escaped: impl Fn(char) -> bool) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if is_escaped(character) {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// A path for people.
pub(crate) fn shown(path: &Path) -> String {
    printable(&path.display().to_string())
}

/// Writes JSON on a line of its own, in which escapes stand for what does not show.
pub(crate) fn json_line(to: &mut dyn Write, value: &impl Serialize) -> io::Result<()> {
    let mut serializer = serde_json::Serializer::with_formatter(&mut *to, Escaping);
    value.serialize(&mut serializer)?;
    writeln!(to)
}

/// Compact, and safe for a terminal.
struct Escaping;

impl serde_json::ser::Formatter for Escaping {
    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut rest = fragment;
        while let Some((at, hidden)) = rest.char_indices().find(|(_, c)| !is_visible(*c)) {
            let (before, from_hidden) = rest.split_at(at);
            writer.write_all(before.as_bytes())?;
            for unit in hidden.encode_utf16(&mut [0; 2]) {
                write!(writer, "\\u{unit:04x}")?;
            }
            rest = from_hidden.strip_prefix(hidden).unwrap_or_default();
        }
        writer.write_all(rest.as_bytes())
    }
}

/// A time for people: so long before or after `now`, or, without that, as it is.
pub(crate) fn moment(at: Timestamp, now: Option<Timestamp>) -> String {
    match now {
        None => at.to_string(),
        Some(now) if at > now => format!("in {}", HumanDuration(at.since(now))),
        Some(now) => format!("{} ago", HumanDuration(now.since(at))),
    }
}

/// A JSON value for people.
pub(crate) fn plain(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Bool(is) => if *is { "yes" } else { "no" }.to_owned(),
        other => other.to_string(),
    }
}

/// What people call a kind of entities; programs get its name.
pub(crate) fn called(kind: EntityKind) -> &'static str {
    spoken(kind.name())
}

fn spoken(name: &str) -> &str {
    match name {
        "api_key" => "API key",
        "preauth_key" => "pre-auth key",
        "dns_record" => "DNS record",
        "sign_in" => "sign-in",
        "audit" => "audit entry",
        name => name,
    }
}

/// So many of a kind, for people.
pub(crate) fn counted(count: u64, name: &str) -> String {
    let name = spoken(name);
    match (count, name) {
        (1, _) | (_, "presence") => format!("{count:>10} {name}"),
        (_, "policy") => format!("{count:>10} policies"),
        (_, "audit entry") => format!("{count:>10} audit entries"),
        _ => format!("{count:>10} {name}s"),
    }
}

/// Whether standard output was closed: the standard library has put the null device there, to be read and
/// written, and what is printed would be nowhere.
#[cfg(unix)]
pub(crate) fn stdout_is_closed() -> bool {
    use rustix::fs::{OFlags, fcntl_getfl, fstat, stat};
    let stdout = io::stdout();
    let is_null = fstat(&stdout).is_ok_and(|out| {
        stat("/dev/null").is_ok_and(|null| (null.st_dev, null.st_ino) == (out.st_dev, out.st_ino))
    });
    is_null && fcntl_getfl(&stdout).is_ok_and(|flags| flags & OFlags::RWMODE == OFlags::RDWR)
}

#[cfg(not(unix))]
pub(crate) fn stdout_is_closed() -> bool {
    false
}

/// A standard output that was closed takes nothing.
pub(crate) struct Closed;

impl Write for Closed {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::Error::other("standard output is closed"))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Bytes for people.
pub(crate) fn bytes(count: u64) -> String {
    indicatif::BinaryBytes(count).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_steer_a_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\n\u{202e}é"), "a\\u{1b}[2Jb\\n\\u{202e}é");
        assert_eq!(printable("\u{200b}\u{2028}\u{3164}"), "\\u{200b}\\u{2028}\\u{3164}");
        assert_eq!(exact("\\u{202e}"), "\\\\u{202e}");
        assert_eq!(shortened(&"é".repeat(100)).chars().count(), WIDEST_CELL);
    }

    #[test]
    fn json_has_escapes_for_what_does_not_show() {
        let text = "a\"\\\n\u{7f}\u{9b}\u{202e}\u{e0001}é🦀";
        let mut line = Vec::new();
        assert!(json_line(&mut line, &text).is_ok());
        let line = String::from_utf8_lossy(&line);
        let expected = r#""a\"\\\n\u007f\u009b\u202e\udb40\udc01é🦀""#;
        assert_eq!(line.trim_end(), expected);
        assert_eq!(serde_json::from_str::<String>(&line).ok().as_deref(), Some(text));
    }

    #[test]
    fn columns_are_aligned_and_grow() {
        let (mut out, mut notes) = (Vec::new(), Vec::new());
        let mut shell = Shell {
            out: &mut out,
            notes: &mut notes,
            json: false,
            is_array: false,
            is_terminal: false,
            is_coloured: false,
            quiet: false,
            is_interactive: false,
        };
        let mut table = Table::new(&["NAME", "N"]);
        let row = |name: &str| vec![vec![name.to_owned(), "1".to_owned()]];
        assert!(table.rows(&mut shell, &row("annabel")).is_ok());
        assert!(table.rows(&mut shell, &row("b")).is_ok());
        assert_eq!(String::from_utf8_lossy(&out), "NAME     N\nannabel  1\nb        1\n");
    }
}
