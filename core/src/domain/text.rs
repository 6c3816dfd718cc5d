//! Free text of limited length, and documents.

use std::sync::Arc;

use super::{text_newtype, text_traits};
use crate::error::{Error, Result};

/// Refused input as it may appear in an error: on one line, without control characters, and short.
pub(crate) fn shown(text: &str) -> String {
    text.chars().take(201).flat_map(char::escape_debug).collect()
}

/// Refuses text that is empty (when `min` is 1), too long, or that contains NUL.
pub(crate) fn check_length(what: &'static str, text: &str, min: usize, max: usize) -> Result<()> {
    if text.len() < min || text.len() > max {
        return Err(Error::invalid(format!("{what} must be {min} to {max} bytes long"))
            .with("length", text.len()));
    }
    if text.contains('\0') {
        return Err(Error::invalid(format!("{what} must not contain NUL")));
    }
    Ok(())
}

/// Free text of at most `MAX` bytes: any valid UTF-8 without NUL, stored unmodified; may be empty.
///
/// ```
/// use ghostwire_store::domain::Text;
///
/// let comment: Text<32> = "office router".parse()?;
/// assert_eq!(comment.as_str(), "office router");
/// assert!(Text::<4>::new("too long").is_err());
/// # Ok::<(), ghostwire_store_core::error::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Text<const MAX: usize>(Box<str>);

impl<const MAX: usize> Text<MAX> {
    /// The greatest length, in bytes.
    pub const MAX_BYTES: usize = MAX;

    /// Checks the text and takes it unmodified.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` when the text is longer than `MAX` bytes or contains NUL.
    pub fn new(text: impl AsRef<str>) -> Result<Self> {
        let text = text.as_ref();
        check_length("the text", text, 0, MAX)?;
        Ok(Self(text.into()))
    }

    /// The same, without a copy.
    pub(crate) fn of(text: String) -> Result<Self> {
        check_length("the text", &text, 0, MAX)?;
        Ok(Self(text.into()))
    }

    /// The text, as it was given and is stored.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the text has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

text_traits!([const MAX: usize] Text<MAX>);

fn document(text: &str) -> Result<Arc<str>> {
    check_length("a document", text, 0, DocumentText::MAX_BYTES)?;
    Ok(text.into())
}

text_newtype! {
    /// A document such as an access policy (HuJSON): UTF-8 without NUL, at most 4 MiB, stored
    /// unmodified; may be empty. What it means is not checked here. A clone shares the text.
    #[derive(Default)]
    DocumentText(Arc<str>), document
}

impl DocumentText {
    /// The greatest length, in bytes: 4 MiB.
    pub const MAX_BYTES: usize = 4 * 1024 * 1024;

    /// The document without text.
    #[must_use]
    pub fn empty() -> Self {
        Self::default()
    }

    /// Whether the document has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn text_is_kept_unmodified_up_to_its_limit() {
        let text = Text::<8>::new(" \u{7f}\n é").unwrap();
        assert_eq!(text.as_str(), " \u{7f}\n é");
        assert!(Text::<8>::new("").unwrap().is_empty());
        assert!(Text::<8>::new("12345678").is_ok());
        assert!(Text::<8>::new("éééé1").is_err());
        assert!(Text::<8>::new("a\0b").is_err());
        let error = Text::<8>::new("123456789").unwrap_err().to_string();
        assert_eq!(error, "the text must be 0 to 8 bytes long [length=9]");
    }

    #[test]
    fn serde_checks_what_it_reads() {
        let text: Text<3> = serde_json::from_str(r#""abc""#).unwrap();
        assert_eq!(serde_json::to_string(&text).unwrap(), r#""abc""#);
        assert!(serde_json::from_str::<Text<3>>(r#""abcd""#).is_err());
        assert!(serde_json::from_str::<Text<3>>(r#""\u0000""#).is_err());
        assert!(serde_json::from_str::<Text<3>>("3").is_err());
    }

    #[test]
    fn documents_have_a_limit() {
        let document = DocumentText::new("// hujson\n{}").unwrap();
        assert_eq!(document.as_str(), "// hujson\n{}");
        assert!(DocumentText::empty().is_empty());
        assert!(DocumentText::new("a\0").is_err());
        let longest = "x".repeat(DocumentText::MAX_BYTES);
        assert!(DocumentText::new(&longest).is_ok());
        assert!(DocumentText::new(longest + "x").is_err());
    }

    #[test]
    fn refused_input_is_shown_on_one_line() {
        assert_eq!(shown("a\nb"), "a\\nb");
        assert_eq!(shown(&"x".repeat(5000)).len(), 201);
    }
}
