//! Ranges of keys as conditions of SQL.

use std::fmt::Write as _;

use ghostwire_store_core::backend::KeyRange;
use ghostwire_store_core::schema::{KeyColumn, KeyKind, RowKey};

use crate::wire::Param;

/// The condition that a row lies in `range`, and its parameters, of which the first is `$1`; `None` if no
/// row can. `names` are those of the key's columns.
pub(crate) fn condition(
    keys: &[KeyColumn],
    names: &[String],
    range: &KeyRange,
) -> Option<(String, Vec<Param>)> {
    let lower = Bound::of(keys, &range.from);
    let upper = range.to.as_ref().map(|to| Bound::of(keys, to));
    if upper.as_ref().is_some_and(|upper| upper.values.is_empty() && !upper.begins_before) {
        return None;
    }
    let mut condition = Condition::default();
    condition.compare(names, &lower, if lower.begins_before { ">" } else { ">=" });
    if let Some(upper) = &upper {
        condition.compare(names, upper, if upper.begins_before { "<=" } else { "<" });
    }
    // Behind every key.
    let is_empty = lower.values.is_empty() && lower.begins_before;
    (!is_empty).then_some((condition.sql, condition.parameters))
}

/// A comparison of a table's leading key columns with values, and those values.
#[derive(Debug, PartialEq)]
struct Bound {
    values: Vec<Param>,
    /// A key that begins with these values lies before the bound; otherwise behind it.
    begins_before: bool,
}

impl Bound {
    /// Translates a position between keys, given as bytes that need not be a whole key. Keys are at or
    /// behind it if and only if their columns are.
    fn of(columns: &[KeyColumn], key: &RowKey) -> Self {
        let mut rest = key.as_bytes();
        let mut bound = Self { values: Vec::new(), begins_before: false };
        for column in columns {
            if rest.is_empty() {
                return bound;
            }
            match column.kind {
                KeyKind::Id | KeyKind::OptionalId => {
                    bound.values.push(Param::id(&take_padded(&mut rest)));
                }
                KeyKind::Integer => {
                    let number = u64::from_be_bytes(take_padded(&mut rest));
                    let Ok(number) = i64::try_from(number) else {
                        // Behind every number that there is.
                        bound.values.push(Param::integer(i64::MAX));
                        bound.begins_before = true;
                        return bound;
                    };
                    bound.values.push(Param::integer(number));
                }
                KeyKind::Text => {
                    let end = rest.iter().position(|&byte| byte == 0).unwrap_or(rest.len());
                    let (text, tail) = rest.split_at_checked(end).unwrap_or((rest, &[]));
                    match std::str::from_utf8(text) {
                        Ok(text) => bound.values.push(Param::text(text)),
                        // Part of a key may end within a character. No text is equal to it, so what
                        // follows in the key says nothing.
                        Err(_) => {
                            match first_text_behind(text) {
                                Some(text) => bound.values.push(Param::text(&text)),
                                None => bound.begins_before = true,
                            }
                            return bound;
                        }
                    }
                    rest = tail.get(1..).unwrap_or_default();
                }
            }
        }
        bound.begins_before = !rest.is_empty();
        bound
    }
}

/// The smallest text whose bytes are larger than `bytes`, which are no text; `None` if there is none.
fn first_text_behind(bytes: &[u8]) -> Option<String> {
    let chunk = bytes.utf8_chunks().next()?;
    let (valid, cut) = bytes.split_at_checked(chunk.valid().len())?;
    let mut text = std::str::from_utf8(valid).ok()?.to_owned();
    // UTF-8 sorts like the characters, so the first that is not before the rest can be searched for.
    let is_before = |c: char| c.encode_utf8(&mut [0; 4]).as_bytes() < cut;
    if let Some(next) = first_char(is_before) {
        text.push(next);
        return Some(text);
    }
    // Every text that goes on from here is smaller.
    while let Some(last) = text.pop() {
        if let Some(next) = first_char(|c| c <= last) {
            text.push(next);
            return Some(text);
        }
    }
    None
}

/// The first character that is not before something.
fn first_char(is_before: impl Fn(char) -> bool) -> Option<char> {
    const SURROGATES: u32 = 0x800;
    // Without the gap that surrogates leave.
    let char_at = |index: u32| match index {
        0..0xd800 => char::from_u32(index),
        _ => char::from_u32(index + SURROGATES),
    };
    let (mut low, mut high) = (0, u32::from(char::MAX) + 1 - SURROGATES);
    while low < high {
        let middle = low + (high - low) / 2;
        match char_at(middle).is_some_and(&is_before) {
            true => low = middle + 1,
            false => high = middle,
        }
    }
    char_at(low)
}

/// A WHERE clause in the making.
#[derive(Default)]
struct Condition {
    sql: String,
    parameters: Vec<Param>,
}

impl Condition {
    /// One more comparison; of no columns it says nothing.
    fn compare(&mut self, names: &[String], bound: &Bound, operator: &str) {
        if bound.values.is_empty() {
            return;
        }
        let word = if self.sql.is_empty() { "WHERE" } else { "AND" };
        let (mut columns, mut marks) = (Vec::new(), Vec::new());
        for (name, value) in names.iter().zip(&bound.values) {
            self.parameters.push(value.clone());
            columns.push(name.as_str());
            marks.push(format!("${}", self.parameters.len()));
        }
        let (columns, marks) = (columns.join(", "), marks.join(", "));
        let _ = write!(self.sql, " {word} ({columns}) {operator} ({marks})");
    }
}

fn take_padded<const N: usize>(rest: &mut &[u8]) -> [u8; N] {
    let (head, tail) = rest.split_at_checked(N).unwrap_or((rest, &[]));
    *rest = tail;
    let mut bytes = [0; N];
    for (to, from) in bytes.iter_mut().zip(head) {
        *to = *from;
    }
    bytes
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_first_text_behind_bytes_is_the_first(
            bytes in prop::collection::vec(any::<u8>(), 1..6), text in "\\PC{0,4}",
        ) {
            prop_assume!(std::str::from_utf8(&bytes).is_err());
            match first_text_behind(&bytes) {
                Some(first) => {
                    prop_assert!(first.as_bytes() > bytes.as_slice());
                    prop_assert_eq!(text.as_bytes() > bytes.as_slice(), text >= first);
                }
                None => prop_assert!(text.as_bytes() < bytes.as_slice()),
            }
        }
    }

    #[test]
    fn a_character_that_is_cut_is_behind_its_part() {
        for (bytes, behind) in [
            (&b"a\xc3"[..], Some("a\u{c0}")),
            (&b"a\xed\xa0"[..], Some("a\u{e000}")),
            (&b"a\xff"[..], Some("b")),
            (&b"\xf4\x8f\xbf\xbf\xff"[..], None),
            (&b"\xff"[..], None),
        ] {
            assert_eq!(first_text_behind(bytes).as_deref(), behind, "{bytes:02x?}");
        }
    }

    #[test]
    fn ranges_that_can_hold_no_row_are_seen() {
        use ghostwire_store_core::schema::Table;
        let keys = [KeyColumn { name: "name", kind: KeyKind::Text }];
        let names = ["\"name\"".to_owned()];
        let range = |from: &[u8], to: Option<&[u8]>| KeyRange {
            table: Table::Feed,
            from: RowKey::from_bytes(from).unwrap(),
            to: to.map(|to| RowKey::from_bytes(to).unwrap()),
        };
        let sql = |from, to| condition(&keys, &names, &range(from, to)).map(|(sql, _)| sql);
        assert_eq!(sql(b"", Some(b"")), None);
        assert_eq!(sql(b"\xff", None), None);
        assert_eq!(sql(b"", Some(b"\xff")).as_deref(), Some(""));
        assert_eq!(sql(b"a", None).as_deref(), Some(" WHERE (\"name\") >= ($1)"));
        assert_eq!(sql(b"a\0b", None).as_deref(), Some(" WHERE (\"name\") > ($1)"));
    }
}
