//! Which issuer and which subject a user has.
//!
//! Headscale keeps both in one text, the issuer, a slash and the subject, so where the one ends and the
//! other begins has to be known, or guessed.

use std::collections::BTreeMap;

use ghostwire_store_core::domain::{Identity, Issuer};

use super::collect::Collector;
use super::findings::counted;
use super::tables::{Reason, parse};

const COLUMN: &str = "provider_identifier";

/// Who the issuers are.
pub(super) struct Issuers<'a> {
    named: &'a [Issuer],
    /// How many users have each of those that were guessed.
    guessed: BTreeMap<Issuer, usize>,
}

impl<'a> Issuers<'a> {
    /// These, as an operator says.
    pub(super) fn new(named: &'a [Issuer]) -> Self {
        Self { named, guessed: BTreeMap::new() }
    }

    /// The identity that a sign-in through the provider presents.
    pub(super) fn identity(
        &mut self,
        id: i64,
        identifier: &str,
        provider: Option<&str>,
        collector: &mut Collector,
    ) -> Result<Identity, Reason> {
        let behind = |issuer: &Issuer| Some((issuer.clone(), subject_behind(identifier, issuer)?));
        let named = self.named.iter().filter_map(behind);
        // Of two issuers the one that says more of it.
        if let Some((issuer, subject)) = named.min_by_key(|(_, subject)| subject.len()) {
            return identity(issuer, subject);
        }
        if let Some((issuer, subject)) = split(identifier) {
            if !self.named.is_empty() {
                let reason = "is of none of the issuers that --issuer names; what stands before the \
                              last slash of its identifier was taken";
                collector.repaired("users", id, reason);
            }
            let issuer: Issuer = parse(COLUMN, issuer)?;
            *self.guessed.entry(issuer.clone()).or_default() += 1;
            return identity(issuer, subject);
        }
        let issuer = match self.named {
            [only] => only.clone(),
            _ => parse(COLUMN, provider.unwrap_or("oidc"))?,
        };
        let reason = format!("its identifier names no issuer; {issuer} was taken");
        collector.repaired("users", id, reason);
        identity(issuer, identifier)
    }

    /// Says what was guessed.
    pub(super) fn tell(self, collector: &mut Collector) {
        if self.guessed.is_empty() {
            return;
        }
        let issuers: Vec<_> = self
            .guessed
            .iter()
            .map(|(issuer, users)| format!("{issuer} ({})", counted(*users, "user", "users")))
            .collect();
        collector.note(format!(
            "users: Headscale does not say where an issuer ends and a subject begins; what stands before the \
             last slash was taken for the issuer: {}. If sign-ins come from another one, or subjects have \
             slashes in them, say it: `--issuer URL`",
            issuers.join(", ")
        ));
    }
}

fn identity(provider: Issuer, subject: &str) -> Result<Identity, Reason> {
    let decoded = percent_decoded(subject);
    let subject = decoded.as_deref().unwrap_or(subject);
    Ok(Identity::Oidc { provider, subject: parse(COLUMN, subject)? })
}

/// What stands behind an issuer, however it is written, and the slashes after it.
fn subject_behind<'t>(identifier: &'t str, issuer: &Issuer) -> Option<&'t str> {
    let slashes =
        identifier.match_indices('/').filter_map(|(at, _)| identifier.split_at_checked(at));
    let is_it = |text: &str| Issuer::new(text).is_ok_and(|found| found == issuer.canonical());
    let subjects = slashes.filter(|(before, _)| is_it(before));
    let mut subjects = subjects.filter_map(|(_, behind)| behind.strip_prefix('/'));
    // The issuer may end with slashes, of which the last one joins the two.
    subjects.rfind(|subject| !subject.is_empty())
}

/// At the last slash, if there is something on both sides of it.
fn split(identifier: &str) -> Option<(&str, &str)> {
    let (issuer, subject) = identifier.rsplit_once('/')?;
    let name = issuer.split_once("://").map_or(issuer, |(_, name)| name);
    let is_named = !name.trim_matches('/').is_empty() && !issuer.ends_with(":/");
    (is_named && !subject.is_empty()).then_some((issuer, subject))
}

/// `None` if the text is not percent-encoded, or if what is encoded would be more than a part of a
/// segment of a path: Headscale leaves that as it was.
fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, escape)) = rest.split_once('%') {
        bytes.extend_from_slice(before.as_bytes());
        let (digits, behind) = escape.split_at_checked(2)?;
        if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let byte = u8::from_str_radix(digits, 16).ok()?;
        if matches!(byte, b'/' | b'%' | 0) {
            return None;
        }
        bytes.push(byte);
        rest = behind;
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// The issuer, the subject, and whether anything was said of it.
    fn read(identifier: &str, named: &[&str]) -> (String, String, bool) {
        let named: Vec<Issuer> = named.iter().map(|issuer| issuer.parse().unwrap()).collect();
        let mut issuers = Issuers::new(&named);
        let mut collector = Collector::default();
        let identity = issuers.identity(1, identifier, Some("oidc"), &mut collector).unwrap();
        issuers.tell(&mut collector);
        let (_, findings) = collector.finish();
        let is_told = !findings.repaired.is_empty() || !findings.notes.is_empty();
        match identity {
            Identity::Oidc { provider, subject } => (provider.into(), subject.into(), is_told),
            other => (format!("{other:?}"), String::new(), is_told),
        }
    }

    #[test]
    fn without_a_word_the_last_slash_divides_and_that_is_told() {
        for (identifier, provider, subject) in [
            ("https://accounts.google.com/1234", "https://accounts.google.com", "1234"),
            ("accounts.google.com/1234", "accounts.google.com", "1234"),
            ("https://id.example.com/realms/x/ab-cd", "https://id.example.com/realms/x", "ab-cd"),
            ("https://t.auth0.com//auth0%7C5f", "https://t.auth0.com", "auth0|5f"),
            ("https://id.example.com/a%2Fb", "https://id.example.com", "a%2Fb"),
            ("https://id.example.com/100%", "https://id.example.com", "100%"),
            ("https://id.example.com", "oidc", "https://id.example.com"),
            ("https://id.example.com/", "oidc", "https://id.example.com/"),
            ("/sub", "oidc", "/sub"),
            ("f00", "oidc", "f00"),
        ] {
            assert_eq!(
                read(identifier, &[]),
                (provider.into(), subject.into(), true),
                "{identifier}"
            );
        }
        let mut collector = Collector::default();
        let long = "x".repeat(256);
        assert!(Issuers::new(&[]).identity(1, &long, None, &mut collector).is_err());
    }

    #[test]
    fn whoever_names_the_issuer_guesses_nothing() {
        for (named, identifier, subject) in [
            ("https://id.example.com/", "https://id.example.com/team/ann", "team/ann"),
            ("https://id.example.com", "https://ID.example.com:443//team/ann", "team/ann"),
            ("https://id.example.com/realms/x", "https://id.example.com/realms/x/a%7Cb/c", "a|b/c"),
            ("accounts.google.com", "accounts.google.com/1234", "1234"),
            ("accounts.google.com/", "accounts.google.com/1/2", "1/2"),
            ("https://id.example.com", "https://id.example.com/a/", "a/"),
        ] {
            let issuer = Issuer::new(named).unwrap();
            let wanted = (String::from(issuer), subject.to_owned(), false);
            assert_eq!(read(identifier, &[named, "https://other.example"]), wanted, "{identifier}");
        }
        // Of two that fit, the longer one.
        let both = ["https://id.example.com", "https://id.example.com/realms/x"];
        assert_eq!(read("https://id.example.com/realms/x/1", &both).1, "1");
        // What is of another is guessed, and told; so is what is of none.
        let other = read("https://old.example/1", &["https://id.example.com"]);
        assert_eq!(other, ("https://old.example".into(), "1".into(), true));
        let bare = read("1234", &["https://id.example.com"]);
        assert_eq!(bare, ("https://id.example.com".into(), "1234".into(), true));
    }
}
