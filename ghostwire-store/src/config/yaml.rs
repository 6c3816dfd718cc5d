//! YAML into the tree that TOML becomes, with what YAML allows and a flag file does not refused.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};

use ghostwire_store_core::error::{Error, Result};
use granit_parser::{Event, Parser, ScalarStyle, ScanError, StrInput, Tag};

use super::source::{Entry, MAX_DEPTH, MAX_FILE_BYTES, Node, too_deep};

/// What the document may expand to. Without anchors it is never reached; it stops a small file
/// whose aliases multiply (the billion laughs).
const MAX_EXPANDED_BYTES: usize = 2 * MAX_FILE_BYTES;

pub(super) fn parse(text: &str) -> Result<Vec<Entry>> {
    let options = granit_parser::options! {
        // One more than is allowed here, which is refused with the line.
        flow_nesting_limit: MAX_DEPTH + 1,
        block_nesting_limit: MAX_DEPTH + 1,
    };
    let parser = Parser::new_from_str_with_options(text, options);
    let mut composer = Composer { parser, anchors: HashMap::new(), budget: MAX_EXPANDED_BYTES };
    let mut document = None;
    while let Some((event, line)) = composer.next()? {
        match event {
            Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
            Event::DocumentStart(..) if document.is_some() => {
                return Err(refused(line, "the file holds more than one document"));
            }
            Event::DocumentStart(..) => {}
            _ => document = Some(composer.compose(event, line, 0)?.node),
        }
    }
    match document {
        Some(Node::Table(entries)) => Ok(entries),
        None | Some(Node::Null) => Ok(Vec::new()),
        Some(_) => Err(Error::invalid("the flag file has to be a mapping of environments")),
    }
}

fn refused(line: usize, reason: &str) -> Error {
    Error::invalid("the flag file is not valid YAML").with("line", line).with("reason", reason)
}

/// A node, and what an alias of it costs.
#[derive(Clone)]
struct Composed {
    node: Node,
    /// What it takes to write it at the least, with its aliases in full.
    bytes: usize,
    /// How many lists and mappings lie within one another in it.
    height: usize,
}

struct Composer<'a> {
    parser: Parser<'a, StrInput<'a>>,
    anchors: HashMap<usize, Composed>,
    budget: usize,
}

impl<'a> Composer<'a> {
    fn next(&mut self) -> Result<Option<(Event<'a>, usize)>> {
        match self.parser.next().transpose() {
            Ok(next) => Ok(next.map(|(event, span)| (event, span.start.line()))),
            Err(error) => Err(refused(error.marker().line(), &reason(&error))),
        }
    }

    /// The next node of a list or mapping; `None` at its end.
    fn item(&mut self, line: usize, depth: usize) -> Result<Option<(Composed, usize)>> {
        match self.next()? {
            None => Err(refused(line, "the file ends too early")),
            Some((Event::SequenceEnd | Event::MappingEnd, _)) => Ok(None),
            Some((event, line)) => Ok(Some((self.compose(event, line, depth)?, line))),
        }
    }

    fn compose(&mut self, event: Event<'_>, line: usize, depth: usize) -> Result<Composed> {
        let (composed, anchor) = match event {
            Event::Alias(id) => (self.alias(id, line, depth)?, 0),
            Event::Scalar(text, style, anchor, tag) => {
                refuse_tag(tag.as_ref(), line)?;
                let bytes = text.len() + 1;
                self.spend(bytes, line)?;
                let node = match style {
                    ScalarStyle::Plain => plain(&text),
                    _ => Node::Text(text.into_owned()),
                };
                (Composed { node, bytes, height: 0 }, anchor)
            }
            Event::SequenceStart(_, anchor, tag) => {
                refuse_tag(tag.as_ref(), line)?;
                (self.list(line, depth)?, anchor)
            }
            Event::MappingStart(_, anchor, tag) => {
                refuse_tag(tag.as_ref(), line)?;
                (self.mapping(line, depth)?, anchor)
            }
            _ => return Err(refused(line, "there is no value")),
        };
        if anchor != 0 {
            // It is kept until the end, beside the node itself.
            self.spend(composed.bytes, line)?;
            self.anchors.insert(anchor, composed.clone());
        }
        Ok(composed)
    }

    fn alias(&mut self, id: usize, line: usize, depth: usize) -> Result<Composed> {
        let Some(anchored) = self.anchors.get(&id).cloned() else {
            return Err(refused(line, "an alias lies within what it stands for"));
        };
        if depth + anchored.height > MAX_DEPTH {
            return Err(too_deep().with("line", line));
        }
        self.spend(anchored.bytes, line)?;
        Ok(anchored)
    }

    fn list(&mut self, line: usize, depth: usize) -> Result<Composed> {
        self.open(line, depth)?;
        let mut list = Composed { node: Node::Other("a list"), bytes: 1, height: 1 };
        while let Some((item, _)) = self.item(line, depth + 1)? {
            list.bytes += item.bytes;
            list.height = list.height.max(item.height + 1);
        }
        Ok(list)
    }

    fn mapping(&mut self, line: usize, depth: usize) -> Result<Composed> {
        self.open(line, depth)?;
        let (mut bytes, mut height) = (1, 1);
        let mut entries = Vec::new();
        let mut names = BTreeSet::new();
        while let Some((key, line)) = self.item(line, depth + 1)? {
            let name = match key.node {
                Node::Text(name) => name,
                Node::Boolean(name) => name.to_string(),
                Node::Integer(name) => name.to_string(),
                _ => return Err(refused(line, "a key has to be text")),
            };
            if !names.insert(name.clone()) {
                let short: String = name.chars().take(64).collect();
                return Err(refused(line, &format!("duplicate key `{short}`")));
            }
            let Some((value, _)) = self.item(line, depth + 1)? else {
                return Err(refused(line, "a key has no value"));
            };
            bytes += key.bytes + value.bytes;
            height = height.max(value.height + 1);
            entries.push(Entry { name, line: Some(line), node: value.node });
        }
        Ok(Composed { node: Node::Table(entries), bytes, height })
    }

    fn open(&mut self, line: usize, depth: usize) -> Result<()> {
        if depth == MAX_DEPTH {
            return Err(too_deep().with("line", line));
        }
        self.spend(1, line)
    }

    fn spend(&mut self, bytes: usize, line: usize) -> Result<()> {
        match self.budget.checked_sub(bytes) {
            Some(left) => self.budget = left,
            None => return Err(refused(line, "the aliases expand to too much")),
        }
        Ok(())
    }
}

/// None of the parser's messages quotes a value, which may be a secret; this one could not be known
/// from its text.
fn reason(error: &ScanError) -> Cow<'static, str> {
    match error.kind() {
        granit_parser::ErrorKind::Custom(_) => "it cannot be read".into(),
        kind => kind.to_string().into(),
    }
}

fn refuse_tag(tag: Option<&Cow<'_, Tag>>, line: usize) -> Result<()> {
    tag.map_or(Ok(()), |_| Err(refused(line, "tags are not allowed")))
}

/// A scalar without quotes, by the core schema of YAML 1.2: `on` and `yes` are text, as the variants
/// of a switch need, and so are numbers with a leading zero.
fn plain(text: &str) -> Node {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Node::Null,
        "true" | "True" | "TRUE" => return Node::Boolean(true),
        "false" | "False" | "FALSE" => return Node::Boolean(false),
        ".nan" | ".NaN" | ".NAN" => return Node::Other(FRACTION),
        _ => {}
    }
    let (sign, digits) = match text.split_at_checked(1) {
        Some(("-", rest)) => ("-", rest),
        Some(("+", rest)) => ("", rest),
        _ => ("", text),
    };
    if matches!(digits, ".inf" | ".Inf" | ".INF") {
        return Node::Other(FRACTION);
    }
    let (radix, digits) = match digits.split_at_checked(2) {
        Some(("0x", rest)) => (16, rest),
        Some(("0o", rest)) => (8, rest),
        _ => (10, digits),
    };
    let is_number = digits.starts_with(|first: char| first.is_digit(radix) || first == '.');
    let has_leading_zero = digits.len() > 1
        && digits.starts_with('0')
        && digits.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number || (radix == 10 && has_leading_zero) {
        return Node::Text(text.to_owned());
    }
    match i128::from_str_radix(&format!("{sign}{digits}"), radix) {
        Ok(value) => Node::Integer(value),
        Err(_) if radix == 10 && digits.parse::<f64>().is_ok_and(f64::is_finite) => {
            Node::Other(FRACTION)
        }
        Err(_) => Node::Text(text.to_owned()),
    }
}

const FRACTION: &str = "a number with a fraction";

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn refusal(text: &str) -> String {
        parse(text).unwrap_err().to_string()
    }

    fn entry(line: usize, name: &str, node: Node) -> Entry {
        Entry { name: name.into(), line: Some(line), node }
    }

    #[test]
    fn yaml_becomes_a_tree() {
        let text = "# flags\ndevelopment:\n  a: x\n  b: 5\n  on: off\n  c: true\n  d: 1.5\n  e:\n  f: [1]\n  7: -1\n";
        let inner = vec![
            entry(3, "a", Node::Text("x".into())),
            entry(4, "b", Node::Integer(5)),
            // YAML 1.2: these are words, not booleans, as the variants of a switch need.
            entry(5, "on", Node::Text("off".into())),
            entry(6, "c", Node::Boolean(true)),
            entry(7, "d", Node::Other("a number with a fraction")),
            entry(8, "e", Node::Null),
            entry(9, "f", Node::Other("a list")),
            entry(10, "7", Node::Integer(-1)),
        ];
        assert_eq!(parse(text).unwrap(), [entry(2, "development", Node::Table(inner))]);
    }

    #[test]
    fn plain_scalars_are_numbers_words_or_text() {
        for (text, value) in [
            ("0", 0),
            ("-12", -12),
            ("+7", 7),
            ("0x1F", 31),
            ("-0xf", -15),
            ("0o17", 15),
            ("170141183460469231731687303715884105727", i128::MAX),
        ] {
            assert_eq!(plain(text), Node::Integer(value), "{text}");
        }
        for text in ["1.5", "-.5", "1e3", ".inf", "-.INF", ".nan", "1.", &"9".repeat(40)] {
            assert_eq!(plain(text), Node::Other(FRACTION), "{text}");
        }
        for text in [
            "on", "yes", "007", "1_000", "0x", "0x-5", "0o8", "-", ".", "inf", "nan", "1.2.3", "é",
            "-é",
        ] {
            assert_eq!(plain(text), Node::Text(text.to_owned()), "{text}");
        }
    }

    #[test]
    fn empty_documents_are_empty() {
        for text in ["", "\n  \n", "# only a comment\n", "---\n", "{}", "~"] {
            assert_eq!(parse(text).unwrap(), [], "{text:?}");
        }
    }

    #[test]
    fn what_is_not_a_flag_file_is_refused() {
        for (text, reason) in [
            ("a: {b: 1, b: 2}", "duplicate key `b`"),
            ("a: 1\na: 2", "duplicate key `a`"),
            ("a: 1\n'a': 2", "duplicate key `a`"),
            ("- a\n- b", "mapping of environments"),
            ("just text", "mapping of environments"),
            ("a: 1\n---\nb: 2", "more than one document"),
            ("a: !secret x", "tags are not allowed"),
            ("? [a, b]\n: 1", "a key has to be text"),
            ("~: 1", "a key has to be text"),
            ("a: *nowhere", "unknown anchor"),
            ("a: [1, 2", "not valid YAML"),
            ("a: !!str x", "tags are not allowed"),
            ("a: &a [*a]", "within what it stands for"),
            ("a: 'x", "not valid YAML"),
        ] {
            let message = refusal(text);
            assert!(message.contains(reason), "{text}: {message}");
        }
        let message = refusal("a:\n  b: 1\n  b: 2\n");
        assert!(message.contains("line=3") && message.contains("duplicate key `b`"), "{message}");
    }

    #[test]
    fn values_are_not_quoted_in_errors() {
        for text in ["password: !!int hunter2", "password: !x hunter2", "password: \"hunter2"] {
            let message = refusal(text);
            assert!(!message.contains("hunter2"), "{message}");
        }
    }

    #[test]
    fn aliases_work_and_cannot_multiply() {
        let shared = parse("a: &x {b: 1}\nc: *x\n").unwrap();
        assert_eq!(shared.first().unwrap().node, shared.last().unwrap().node);

        let mut laughs = "l0: &l0 [ha, ha, ha, ha, ha, ha, ha, ha, ha, ha]\n".to_owned();
        for level in 1..9 {
            let below = vec![format!("*l{}", level - 1); 10].join(", ");
            laughs.push_str(&format!("l{level}: &l{level} [{below}]\n"));
        }
        let long_text = format!("a: &a {}\nb: [{}]", "x".repeat(1000), "*a, ".repeat(50_000));
        let itself = "a: &a [*a]".to_owned();
        for text in [laughs, long_text, itself] {
            let started = Instant::now();
            assert!(parse(&text).is_err());
            assert!(started.elapsed() < Duration::from_secs(5));
        }
    }

    #[test]
    fn hostile_nesting_ends_in_an_error() {
        let mut texts = vec!["a: [".to_owned() + &"[], ".repeat(MAX_FILE_BYTES / 4)];
        for unit in ["[", "{", "{a: ", "- ", "? ", "&a ", "!", "a: [", "'", "- - - \n", "a:\n "] {
            texts.push(unit.repeat(MAX_FILE_BYTES / unit.len()));
        }
        for text in texts {
            let started = Instant::now();
            assert!(parse(&text).is_err(), "{:.8}", text);
            assert!(started.elapsed() < Duration::from_secs(60), "{:.8}", text);
        }
    }
}
