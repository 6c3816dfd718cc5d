//! A database for one test.

use std::thread;

use crate::client::Access;

/// An empty database, which is dropped with this.
#[derive(Debug)]
pub struct Database {
    pub(crate) name: String,
    pub(crate) access: Access,
}

impl Database {
    /// What it is called.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Database {
    /// Fails in silence: by now the test may have stopped its server on purpose.
    fn drop(&mut self) {
        let sql = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        let access = self.access.clone();
        // Not on the test's runtime, which may be what is dropping this.
        let dropping = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.map(|runtime| {
                runtime.block_on(async {
                    let limit = std::time::Duration::from_secs(5);
                    let _ = tokio::time::timeout(limit, access.run("postgres", &sql)).await;
                });
            })
        });
        let _ = dropping.join();
    }
}
