//! Issuers of OpenID Connect tokens.

use super::{Stored, check_length, text_newtype};
use crate::error::Result;

/// The canonical form. What is no URL has only white space and slashes at its end to lose.
fn canonical(text: &str) -> String {
    let text = text.trim();
    let Some((scheme, rest)) = text.split_once("://") else {
        return text.trim_end_matches(|it: char| it == '/' || it.is_whitespace()).to_owned();
    };
    let scheme = scheme.to_ascii_lowercase();
    let (rest, query) = rest.split_at(rest.find(['?', '#']).unwrap_or(rest.len()));
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (user, host) = authority.split_at(authority.rfind('@').map_or(0, |at| at + 1));
    let host = host.to_ascii_lowercase();
    let port = match scheme.as_str() {
        "https" => ":443",
        "http" => ":80",
        _ => "",
    };
    let host = host.strip_suffix(port).unwrap_or(&host);
    let mut canonical = format!("{scheme}://{user}{host}");
    for segment in path.split('/').filter(|segment| !segment.is_empty()) {
        canonical.push('/');
        canonical.push_str(segment);
    }
    canonical.push_str(query);
    canonical
}

fn stored_issuer(text: &str) -> Result<Box<str>> {
    check_length("an issuer", text, 0, Issuer::MAX_BYTES)?;
    Ok(text.into())
}

fn issuer(text: &str) -> Result<Box<str>> {
    stored_issuer(&canonical(text))
}

text_newtype! {
    /// The issuer of OpenID Connect tokens, at most 255 bytes, in one form however it is written:
    /// scheme and host of a URL in lower case, no default port, no empty segment and no slash at the end
    /// of its path. Anything else is taken as it is, without white space at its ends and slashes at its end.
    ///
    /// ```
    /// use ghostwire_store::domain::Issuer;
    ///
    /// let issuer = Issuer::new("HTTPS://Auth.example:443/application/o/vpn/")?;
    /// assert_eq!(issuer.as_str(), "https://auth.example/application/o/vpn");
    /// # Ok::<(), ghostwire_store_core::error::Error>(())
    /// ```
    Issuer, issuer
}

impl Issuer {
    /// The greatest length, in bytes.
    pub const MAX_BYTES: usize = 255;

    /// The same issuer as it is written today; one that an older release stored may be written otherwise.
    #[must_use]
    pub fn canonical(&self) -> Self {
        Self(canonical(&self.0).into())
    }
}

impl Stored for Issuer {
    fn stored(text: &str) -> Result<Self> {
        stored_issuer(text).map(Self)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_form() {
        for (text, form) in [
            ("https://a.example", "https://a.example"),
            ("https://a.example/", "https://a.example"),
            (" https://a.example//\n", "https://a.example"),
            ("HTTPS://A.Example/Realms//X/", "https://a.example/Realms/X"),
            ("https://a.example:443/x", "https://a.example/x"),
            ("http://a.example:80", "http://a.example"),
            ("https://a.example:80", "https://a.example:80"),
            ("https://a.example:8443/", "https://a.example:8443"),
            ("https://[2001:DB8::1]:443/", "https://[2001:db8::1]"),
            ("https://Ann@A.example", "https://Ann@a.example"),
            ("https://a.example/?x=Y/", "https://a.example?x=Y/"),
            ("accounts.example/", "accounts.example"),
            (" accounts.example / /", "accounts.example"),
            ("/", ""),
            ("oidc", "oidc"),
            ("", ""),
            ("https://", "https://"),
        ] {
            assert_eq!(Issuer::new(text).unwrap().as_str(), form, "{text}");
        }
        assert!(Issuer::new("x".repeat(255)).is_ok());
        assert!(Issuer::new("x".repeat(256)).is_err());
        assert!(Issuer::new("a\0").is_err());
    }

    #[test]
    fn what_was_stored_stays_as_it_is() {
        let old = Issuer::stored("https://A.example/").unwrap();
        assert_eq!(old.as_str(), "https://A.example/");
        assert_eq!(old.canonical(), Issuer::new("https://a.example").unwrap());
    }

    proptest! {
        #[test]
        fn the_form_has_itself_as_its_form(text in "[ -~é]{0,30}", url in "[htps]{1,5}://[A-c:/?#@443]{0,30}") {
            for text in [text, url] {
                let issuer = Issuer::new(&text).unwrap();
                prop_assert_eq!(&Issuer::new(issuer.as_str()).unwrap(), &issuer);
                prop_assert_eq!(issuer.canonical(), issuer);
            }
        }
    }
}
