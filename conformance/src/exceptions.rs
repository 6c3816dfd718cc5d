//! What a backend may skip, and why.

use serde::Deserialize;

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Exceptions {
    #[serde(default, rename = "exception")]
    list: Vec<Exception>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Exception {
    backends: Vec<String>,
    cases: Vec<String>,
    reason: String,
}

impl Exceptions {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let exceptions: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        match exceptions.list.iter().find(|exception| exception.reason.trim().is_empty()) {
            Some(exception) => Err(format!("no reason is given for {:?}", exception.cases)),
            None => Ok(exceptions),
        }
    }

    pub(crate) fn add(&mut self, others: Self) {
        self.list.extend(others.list);
    }

    /// Why this backend may skip this case; `None` if it may not.
    pub(crate) fn reason(&self, backend: &str, case: &str) -> Option<&str> {
        let found = self.list.iter().find(|exception| {
            exception.backends.iter().any(|name| name == backend)
                && exception.cases.iter().any(|name| name == case)
        });
        found.map(|exception| exception.reason.as_str())
    }

    /// What is listed and is no case.
    pub(crate) fn unknown(&self, cases: &[String]) -> Vec<&str> {
        let listed = self.list.iter().flat_map(|exception| &exception.cases);
        listed.filter(|case| !cases.contains(case)).map(String::as_str).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exception_needs_a_reason() {
        let text = "[[exception]]\nbackends = ['b']\ncases = ['r/c']\nreason = ' '";
        assert!(Exceptions::parse(text).unwrap_err().contains("r/c"));
        let text = text.replace("' '", "'why'");
        let exceptions = Exceptions::parse(&text).unwrap();
        assert_eq!(exceptions.reason("b", "r/c"), Some("why"));
        assert_eq!(exceptions.reason("c", "r/c"), None);
        assert_eq!(exceptions.unknown(&["r/d".to_owned()]), ["r/c"]);
    }
}
