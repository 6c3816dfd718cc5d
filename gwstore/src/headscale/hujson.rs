//! HuJSON, the JSON with comments and trailing commas in which policies are written.

/// The same document as plain JSON. Comments and trailing commas become spaces, so that positions
/// stay what they were; everything else is left as it is, right or wrong.
///
/// `None` if a comment or string has no end.
pub fn to_json(text: &str) -> Option<String> {
    let mut json = String::with_capacity(text.len());
    // A comma is held back, with the spaces behind it, until what follows says whether it trails.
    let mut held_comma: Option<usize> = None;
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let taken = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.get(2..)?.find("*/")?.checked_add(4)?
        } else if next == '"' {
            string_length(rest)?
        } else {
            next.len_utf8()
        };
        let (piece, behind) = rest.split_at_checked(taken)?;
        rest = behind;
        if next == '/' && taken > 1 {
            json.extend(piece.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
            continue;
        }
        if let Some(at) = held_comma
            && !next.is_ascii_whitespace()
        {
            if matches!(next, '}' | ']') {
                json.replace_range(at..=at, " ");
            }
            held_comma = None;
        }
        // A comma behind a bracket or another comma ends no element: that is a fault to keep.
        if next == ',' && !json.trim_end().ends_with([',', '[', '{']) {
            held_comma = Some(json.len());
        }
        json.push_str(piece);
    }
    Some(json)
}

/// The length of the string that `text` begins with, both quotes included.
fn string_length(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at.checked_add(1),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn read(text: &str) -> Value {
        serde_json::from_str(&to_json(text).unwrap()).unwrap()
    }

    #[test]
    fn comments_and_trailing_commas_go() {
        let text = r#"// policy — für alle
        {
            "a": [1, 2, /* é */ 3, ], // tail
            "b": {"c": "x",/**/}, /* , */
            "d": "// no /* comment */ ,}",
            "e": "quote \" // \\", // ]
        } // end"#;
        let wanted = json!({
            "a": [1, 2, 3], "b": {"c": "x"}, "d": "// no /* comment */ ,}", "e": "quote \" // \\"
        });
        assert_eq!(read(text), wanted);
    }

    #[test]
    fn faults_stay_faults() {
        assert_eq!(to_json("/* open"), None);
        assert_eq!(to_json("{\"a"), None);
        for bad in ["[1,,]", "[,]", "{ ,}", "{/}", "[1 /**/ 2]", "/*/"] {
            let json = to_json(bad);
            assert!(json.is_none_or(|json| serde_json::from_str::<Value>(&json).is_err()), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn plain_json_is_left_alone(text in r#"[\[\]{}:, "\\a-z0-9/*é\n]{0,40}"#) {
            if serde_json::from_str::<Value>(&text).is_ok() {
                prop_assert_eq!(to_json(&text).unwrap(), text);
            }
        }

        #[test]
        fn nothing_panics(text in "\\PC{0,60}") {
            let _ = to_json(&text);
        }
    }
}
