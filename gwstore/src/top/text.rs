//! Reading the text format of Prometheus, as far as this program's own metrics need it.

use std::collections::BTreeMap;

/// Labels and their values.
type Labels = BTreeMap<String, String>;

/// What a text says.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Samples {
    by_name: BTreeMap<String, Vec<(Labels, f64)>>,
}

impl Samples {
    /// Reads a text. Lines that are none of the format are passed by: newer programs may say more.
    pub(super) fn parse(text: &str) -> Self {
        let mut samples = Self::default();
        for line in text.lines() {
            if let Some((name, labels, value)) = parse_line(line) {
                samples.by_name.entry(name.to_owned()).or_default().push((labels, value));
            }
        }
        samples
    }

    /// Every sample of this name.
    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = (&Labels, f64)> {
        let samples = self.by_name.get(name).map(Vec::as_slice).unwrap_or_default();
        samples.iter().map(|(labels, value)| (labels, *value))
    }

    /// The sum of all samples of this name; `None` if there is none.
    pub(super) fn sum(&self, name: &str) -> Option<f64> {
        self.sum_where(name, |_| true)
    }

    /// The sum of those whose labels are as wanted; `None` if there is none.
    pub(super) fn sum_where(&self, name: &str, is_wanted: impl Fn(&Labels) -> bool) -> Option<f64> {
        let wanted = self.all(name).filter(|(labels, _)| is_wanted(labels));
        wanted.map(|(_, value)| value).fold(None, |sum, value| Some(sum.unwrap_or(0.0) + value))
    }

    /// The values that a label has.
    pub(super) fn values_of(&self, name: &str, label: &str) -> Vec<String> {
        let mut values: Vec<_> =
            self.all(name).filter_map(|(labels, _)| labels.get(label).cloned()).collect();
        values.sort_unstable();
        values.dedup();
        values
    }
}

fn parse_line(line: &str) -> Option<(&str, Labels, f64)> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let end = line.find(['{', ' ', '\t'])?;
    let (name, rest) = line.split_at_checked(end)?;
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => parse_labels(rest)?,
        None => (Labels::new(), rest),
    };
    // A time may follow.
    let value = rest.split_whitespace().next()?;
    Some((name, labels, parse_number(value)?))
}

fn parse_number(text: &str) -> Option<f64> {
    match text {
        "+Inf" => Some(f64::INFINITY),
        "-Inf" => Some(f64::NEG_INFINITY),
        text => text.parse().ok(),
    }
}

/// Labels up to the closing brace, and what follows it.
fn parse_labels(mut rest: &str) -> Option<(Labels, &str)> {
    let mut labels = Labels::new();
    loop {
        rest = rest.trim_start_matches([',', ' ']);
        if let Some(rest) = rest.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (name, quoted) = rest.split_once("=\"")?;
        let (value, after) = parse_quoted(quoted)?;
        labels.insert(name.trim().to_owned(), value);
        rest = after;
    }
}

/// A value up to its closing quote, and what follows it.
fn parse_quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return Some((value, text.get(at + 1..)?)),
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                escaped => value.push(escaped),
            },
            char => value.push(char),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_labels_and_numbers() {
        let samples = Samples::parse(
            "# HELP a What it is.\n# TYPE a counter\na 1\na{x=\"1\"} 2.5e1 1700000000\n\
             a{x=\"q\\\"\\\\\\n\",y=\"2\",} 3\nb_bucket{le=\"+Inf\"} +Inf\n",
        );
        assert_eq!(samples.sum("a"), Some(29.0));
        assert_eq!(samples.values_of("a", "x"), ["1", "q\"\\\n"]);
        assert_eq!(samples.sum_where("a", |labels| labels.contains_key("y")), Some(3.0));
        assert_eq!(samples.sum("b_bucket"), Some(f64::INFINITY));
        assert_eq!(samples.sum("c"), None);
    }

    #[test]
    fn what_is_none_of_the_format_is_passed_by() {
        let text = "a\na x\na{x=\"1} 2\na{x} 3\n{} 4\n<html>\na{x=\"1\"}\n\u{0}\né 1\nb 1";
        let samples = Samples::parse(text);
        assert_eq!((samples.sum("a"), samples.sum("b")), (None, Some(1.0)));
    }
}
