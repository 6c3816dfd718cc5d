//! Subjects in a program of their own, since they cannot be linked into this one.

use std::path::{Path, PathBuf};
use std::process::Command;

use ghostwire_store_bench_workload::results::{Case, Run};
use ghostwire_store_bench_workload::subject::{About, Result};
use tokio::task::spawn_blocking;

const IS_IT: &str = "is it the program that is built in benches/others?";

#[derive(Debug, Clone)]
pub(super) struct Others {
    program: PathBuf,
}

impl Others {
    pub(super) fn new(program: PathBuf) -> Self {
        Self { program }
    }

    pub(super) async fn list(&self) -> Result<Vec<About>> {
        let answer = self.output(&["list".to_owned()]).await?;
        serde_json::from_str(&answer).map_err(|error| self.misunderstood(&error).into())
    }

    /// Measures one of them once.
    pub(super) async fn run(&self, subject: &str, case: &Case, directory: &Path) -> Result<Run> {
        let mut arguments = vec!["run".to_owned()];
        let mut add = |name: &str, value: &dyn std::fmt::Display| {
            arguments.extend([format!("--{name}"), value.to_string()]);
        };
        let content = &case.content;
        add("subject", &subject);
        add("operation", &case.operation);
        add("callers", &case.callers);
        add("seconds", &case.seconds);
        add("directory", &directory.display());
        add("nodes", &content.nodes);
        add("routes", &content.routes);
        add("rules", &content.rules);
        add("api-keys", &content.api_keys);
        add("preauth-keys", &content.preauth_keys);
        add("points", &content.points);
        add("audit", &content.audit);
        let answer = self.output(&arguments).await?;
        serde_json::from_str(&answer).map_err(|error| self.misunderstood(&error).into())
    }

    fn misunderstood(&self, error: &serde_json::Error) -> String {
        let program = self.program.display();
        format!("{program} answers what cannot be read ({error}); {IS_IT}")
    }

    async fn output(&self, arguments: &[String]) -> Result<String> {
        let mut called = Command::new(&self.program);
        called.args(arguments);
        let output = spawn_blocking(move || called.output()).await?;
        let output = output.map_err(|error| format!("{}: {error}", self.program.display()))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let said = Some(said.trim()).filter(|said| !said.is_empty()).unwrap_or(IS_IT);
            let (program, asked) = (self.program.display(), arguments.join(" "));
            return Err(format!("{program} {asked}: {}: {said}", output.status).into());
        }
        Ok(String::from_utf8(output.stdout)?)
    }
}
