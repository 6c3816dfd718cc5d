//! E-mail addresses.

use super::{Stored, check_length, is_visible, shown, text_newtype};
use crate::error::{Error, Result};

fn email(text: &str) -> Result<Box<str>> {
    let address = stored_email(text)?;
    if text.chars().all(is_visible) {
        return Ok(address);
    }
    Err(Error::invalid("an e-mail address must consist of characters that show")
        .with("email", shown(text)))
}

/// The rules of earlier releases.
fn stored_email(text: &str) -> Result<Box<str>> {
    check_length("an e-mail address", text, 3, 254)?;
    let malformed = |message: &'static str| Error::invalid(message).with("email", shown(text));
    if text.chars().any(|character| character.is_whitespace() || character.is_control()) {
        return Err(malformed(
            "an e-mail address must not contain white space or control characters",
        ));
    }
    match text.split_once('@') {
        Some((local, domain))
            if (1..=64).contains(&local.len()) && !domain.is_empty() && !domain.contains('@') =>
        {
            Ok(text.to_ascii_lowercase().into())
        }
        _ => Err(malformed(
            "an e-mail address must be 1 to 64 bytes, one `@` and a domain, such as ann@example.com",
        )),
    }
}

text_newtype! {
    /// An e-mail address: 3 to 254 bytes of characters that show ([`is_visible`]), exactly one `@`
    /// between 1 to 64 bytes and a domain, no white space. ASCII letters are stored in lower case, all
    /// else as is.
    ///
    /// ```
    /// use ghostwire_store::domain::Email;
    ///
    /// assert_eq!(Email::new("Ann@Example.COM")?.as_str(), "ann@example.com");
    /// assert!(Email::new("ann").is_err());
    /// # Ok::<(), ghostwire_store_core::error::Error>(())
    /// ```
    Email, email
}

impl Stored for Email {
    fn stored(text: &str) -> Result<Self> {
        stored_email(text).map(Self)
    }
}

impl Email {
    /// The address in what somebody else gives for one: what does not show is left out, and so is
    /// white space.
    ///
    /// # Errors
    /// `InvalidArgument` when what is left is no address.
    pub fn from_outside(text: impl AsRef<str>) -> Result<Self> {
        let is_kept = |character: &char| *character != ' ' && is_visible(*character);
        Self::new(text.as_ref().chars().filter(is_kept).collect::<String>())
    }

    /// What stands before the `@`.
    #[must_use]
    pub fn local(&self) -> &str {
        self.0.split_once('@').map_or("", |(local, _)| local)
    }

    /// The part after the `@`.
    #[must_use]
    pub fn domain(&self) -> &str {
        self.0.split_once('@').map_or("", |(_, domain)| domain)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn only_ascii_letters_are_lowered() {
        let email = Email::new("ÅNN+Tag@Exämple.ÖRG").unwrap();
        assert_eq!(email.as_str(), "Ånn+tag@exämple.Örg");
        assert_eq!(email.local(), "Ånn+tag");
        assert_eq!(email.domain(), "exämple.Örg");
        assert_eq!(Email::new("A@b").unwrap(), Email::new("a@B").unwrap());
    }

    #[test]
    fn lengths() {
        let of = |local: usize, domain: usize| {
            Email::new(format!("{}@{}", "x".repeat(local), "y".repeat(domain)))
        };
        assert!(of(64, 189).is_ok());
        assert!(of(64, 190).is_err());
        assert!(of(65, 10).is_err());
        assert!(of(1, 1).is_ok());
    }

    #[test]
    fn refuses_other_text() {
        for bad in [
            "",
            "a@",
            "@b",
            "aa@",
            "@bb",
            "abc",
            "a@b@c",
            "a@@b",
            "a b@c",
            "a@b\n",
            "a@b\0",
            "a\u{2003}@b",
            "a\u{200b}@b",
        ] {
            assert!(Email::new(bad).is_err(), "{bad:?}");
        }
        assert_eq!(Email::from_outside(" A\u{200b}nn@b\n").unwrap().as_str(), "ann@b");
        assert_eq!(Email::stored("a\u{200b}@b").unwrap().as_str(), "a\u{200b}@b");
        assert!(serde_json::from_str::<Email>("\"ann\"").is_err());
    }
}
