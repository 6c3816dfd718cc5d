//! Scripts as they are printed: one line for each call.

use std::fmt::{Display, Write as _};

use ghostwire_store_core::ErrorKind;

use super::call::{Answer, Call, Refusal};
use super::generator::Known;

impl Known {
    /// A call on one line. What was made has its number instead of its id, in the order of making.
    pub(super) fn describe(&self, call: &Call) -> String {
        fn numbered<I: Display>(text: String, what: &str, ids: &[I]) -> String {
            let numbers = (1..).zip(ids);
            numbers
                .fold(text, |text, (n, id)| text.replace(&id.to_string(), &format!("{what} {n}")))
        }
        let text = numbered(format!("{call:?}"), "user", &self.users);
        let text = numbered(text, "node", &self.nodes);
        let text = numbered(text, "route", &self.routes);
        let text = numbered(text, "pre-auth key", &self.preauth_keys);
        let text = numbered(text, "API key", &self.api_keys);
        let text = numbered(text, "DNS record", &self.dns_records);
        let text = numbered(text, "session", &self.sessions);
        let text = numbered(text, "sign-in", &self.sign_ins);
        numbered(text, "instance", &self.instances)
    }
}

/// The outcome of a call, in words.
pub(super) fn outcome(outcome: &Result<Answer, Refusal>) -> String {
    match outcome {
        Ok(Answer::Count(count)) => format!("{count}"),
        Ok(Answer::Nodes(nodes)) => format!("{} nodes", nodes.len()),
        Ok(_) => "done".to_owned(),
        Err(refusal) => refusal.describe(),
    }
}

impl Refusal {
    pub(super) fn describe(&self) -> String {
        let mut text = self.kind.name().to_owned();
        if let ErrorKind::AlreadyExists { constraint } = self.kind {
            let _ = write!(text, " ({constraint})");
        }
        if let Some(step) = &self.step {
            let _ = write!(text, " in step {step}");
        }
        text
    }
}

/// What is found and what ought to be: the lines that differ, or all if their number does.
pub(super) fn difference(found: &str, wanted: &str) -> String {
    if found.lines().count() != wanted.lines().count() {
        return format!("\n  is          {found}\n  ought to be {wanted}");
    }
    let mut text = String::new();
    for (found, wanted) in
        found.lines().zip(wanted.lines()).filter(|(found, wanted)| found != wanted)
    {
        let _ = write!(text, "\n  is          {}\n  ought to be {}", found.trim(), wanted.trim());
    }
    text
}
