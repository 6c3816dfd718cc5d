//! YAML into the tree that TOML becomes, with what YAML allows and a flag file does not refused.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fmt;

use ghostwire_store_core::error::{Error, Result};
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error as _, MapAccess, SeqAccess, Visitor,
};

use super::source::{Entry, MAX_DEPTH, MAX_FILE_BYTES, Node};

/// What the document may expand to. Without aliases it is never reached; it stops a small file whose
/// aliases multiply (the billion laughs).
const MAX_EXPANDED_BYTES: usize = 2 * MAX_FILE_BYTES;

/// How many lists and mappings may be in brackets. The parser walks all open ones at each token, so a
/// megabyte of brackets would take it minutes.
const MAX_BRACKETS: usize = 2048;

pub(super) fn parse(text: &str) -> Result<Vec<Entry>> {
    if is_blank(text) {
        return Ok(Vec::new());
    }
    // Counts those in text and comments too: only a parser could tell, and it comes after.
    if text.bytes().filter(|byte| matches!(byte, b'[' | b'{')).count() > MAX_BRACKETS {
        return Err(Error::invalid(
            "the flag file has too many brackets: write its tables as indented blocks",
        )
        .with("allowed", MAX_BRACKETS));
    }
    let budget = Cell::new(MAX_EXPANDED_BYTES);
    let seed = NodeSeed { budget: &budget, depth: 0 };
    match seed.deserialize(serde_yaml_ng::Deserializer::from_str(text)) {
        Ok(Node::Table(entries)) => Ok(entries),
        Ok(Node::Null) => Ok(Vec::new()),
        Ok(_) => Err(Error::invalid("the flag file has to be a mapping of environments")),
        Err(error) => {
            let failure = Error::invalid("the flag file is not valid YAML");
            let failure = match error.location() {
                Some(location) => failure.with("line", location.line()),
                None => failure,
            };
            let reason = error.to_string();
            // These two quote the value, which may be a secret.
            let quotes =
                ["invalid value:", "invalid type:"].iter().any(|form| reason.contains(form));
            Err(failure
                .with("reason", if quotes { "a value does not fit its tag" } else { &reason }))
        }
    }
}

/// Comments alone make no document, which the parser takes for an error.
fn is_blank(text: &str) -> bool {
    text.lines().all(|line| matches!(line.trim_start().chars().next(), None | Some('#')))
}

#[derive(Clone, Copy)]
struct NodeSeed<'a> {
    budget: &'a Cell<usize>,
    depth: usize,
}

impl NodeSeed<'_> {
    /// Every node costs what it takes to write it at the least.
    fn spend<E: serde::de::Error>(self, bytes: usize) -> Result<(), E> {
        let left = self.budget.get().checked_sub(bytes.saturating_add(1));
        self.budget.set(left.ok_or_else(|| E::custom("the aliases expand to too much"))?);
        Ok(())
    }

    fn inner<E: serde::de::Error>(self) -> Result<Self, E> {
        if self.depth == MAX_DEPTH {
            return Err(E::custom("nested too deeply"));
        }
        Ok(Self { depth: self.depth + 1, ..self })
    }
}

impl<'de> DeserializeSeed<'de> for NodeSeed<'_> {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for NodeSeed<'_> {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a mapping, text, an integer, true or false")
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Node, E> {
        self.spend(0)?;
        Ok(Node::Boolean(value))
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Node, E> {
        self.visit_i128(value.into())
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Node, E> {
        self.visit_i128(value.into())
    }

    fn visit_i128<E: serde::de::Error>(self, value: i128) -> Result<Node, E> {
        self.spend(0)?;
        Ok(Node::Integer(value))
    }

    fn visit_u128<E: serde::de::Error>(self, value: u128) -> Result<Node, E> {
        // Both are beyond every key's range.
        self.visit_i128(i128::try_from(value).unwrap_or(i128::MAX))
    }

    fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<Node, E> {
        self.spend(0)?;
        Ok(Node::Other("a number with a fraction"))
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Node, E> {
        self.spend(value.len())?;
        Ok(Node::Text(value.to_owned()))
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Node, E> {
        self.spend(0)?;
        Ok(Node::Null)
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<Node, E> {
        self.visit_unit()
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
        self.spend(0)?;
        let inner = self.inner()?;
        while list.next_element_seed(inner)?.is_some() {}
        Ok(Node::Other("a list"))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        self.spend(0)?;
        let inner = self.inner()?;
        let mut entries = Vec::new();
        let mut names = BTreeSet::new();
        while let Some(name) = map.next_key_seed(inner)? {
            let name = match name {
                Node::Text(name) => name,
                Node::Boolean(name) => name.to_string(),
                Node::Integer(name) => name.to_string(),
                _ => return Err(A::Error::custom("a key has to be text")),
            };
            // An index map would keep the last one in silence.
            if !names.insert(name.clone()) {
                let short: String = name.chars().take(64).collect();
                return Err(A::Error::custom(format_args!("duplicate key `{short}`")));
            }
            let node = map.next_value_seed(inner)?;
            entries.push(Entry { name, line: None, node });
        }
        Ok(Node::Table(entries))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, _: A) -> Result<Node, A::Error> {
        // Said without the value, which the parser's own message would quote.
        Err(A::Error::custom("tags are not allowed"))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn refusal(text: &str) -> String {
        parse(text).unwrap_err().to_string()
    }

    fn entry(name: &str, node: Node) -> Entry {
        Entry { name: name.into(), line: None, node }
    }

    #[test]
    fn yaml_becomes_a_tree() {
        let text = "# flags\ndevelopment:\n  a: x\n  b: 5\n  on: off\n  c: true\n  d: 1.5\n  e:\n  f: [1]\n  7: -1\n";
        let inner = vec![
            entry("a", Node::Text("x".into())),
            entry("b", Node::Integer(5)),
            // YAML 1.2: these are words, not booleans, as the variants of a switch need.
            entry("on", Node::Text("off".into())),
            entry("c", Node::Boolean(true)),
            entry("d", Node::Other("a number with a fraction")),
            entry("e", Node::Null),
            entry("f", Node::Other("a list")),
            entry("7", Node::Integer(-1)),
        ];
        assert_eq!(parse(text).unwrap(), [entry("development", Node::Table(inner))]);
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
        ] {
            let message = refusal(text);
            assert!(message.contains(reason), "{text}: {message}");
        }
        let message = refusal("a:\n  b: 1\n  b: 2\n");
        assert!(message.contains("a: duplicate key `b`"), "{message}");
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
        let brackets = |unit: &str| {
            let opened = unit.repeat(MAX_BRACKETS);
            opened.clone() + &"a, ".repeat((MAX_FILE_BYTES - opened.len()) / 3)
        };
        let mut texts = vec![brackets("["), brackets("{a: ")];
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
