//! SQLite's function `unistr`, which the `sqlite3` shell uses in dumps since 3.50 and which the
//! SQLite linked here does not have yet.

/// The text with its escapes replaced: `\\`, and `\`, `\u`, `\+` and `\U` before four, four,
/// six and eight hexadecimal digits. `None` if an escape is none of these.
pub(super) fn unistr(text: &str) -> Option<String> {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, escape)) = rest.split_once('\\') {
        plain.push_str(before);
        if let Some(behind) = escape.strip_prefix('\\') {
            plain.push('\\');
            rest = behind;
            continue;
        }
        let (digits, length) = match escape.chars().next()? {
            'u' => (escape.get(1..)?, 4),
            '+' => (escape.get(1..)?, 6),
            'U' => (escape.get(1..)?, 8),
            _ => (escape, 4),
        };
        let (digits, behind) = digits.split_at_checked(length)?;
        if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        plain.push(char::from_u32(u32::from_str_radix(digits, 16).ok()?)?);
        rest = behind;
    }
    plain.push_str(rest);
    Some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes() {
        assert_eq!(
            unistr(r"a\000ab\u000dc\+01f600\U0001f600\\é").as_deref(),
            Some("a\nb\rc😀😀\\é")
        );
        assert_eq!(unistr("plain").as_deref(), Some("plain"));
        for bad in [r"\", r"\u00", r"\x", r"\ud800", r"\u+123", r"\é000"] {
            assert_eq!(unistr(bad), None, "{bad}");
        }
    }
}
