//! This store on a PostgreSQL server, and beside it the `sqlx` crate on the same server.

mod following;
mod processes;
mod server;
mod sqlx_crate;

use std::path::Path;
use std::sync::Arc;

use ghostwire_store_bench_workload::Subject;
use ghostwire_store_bench_workload::results::{ON_POSTGRES, SQLX_ONE, SQLX_POOL};
use ghostwire_store_bench_workload::subject::{About, Candidate, Result};

use crate::subjects::{OfStore, about};
pub(crate) use following::measure_following;
pub(crate) use processes::{CHILD, measure, run_child};
pub(crate) use server::Server;

/// How many connections the larger pool has.
const POOL: u32 = 16;

/// This store, and the crate with many connections and with one.
pub(crate) fn candidates(server: &Arc<Server>) -> Vec<Candidate> {
    vec![of_store(server), of_sqlx(server, SQLX_POOL, POOL), of_sqlx(server, SQLX_ONE, 1)]
}

fn of_store(server: &Arc<Server>) -> Candidate {
    let server = server.clone();
    let about = about(ON_POSTGRES, "postgres", "commit", "fsync each group", true);
    Candidate::new(about, move |directory| {
        let server = server.clone();
        async move {
            let config = server.config(&schema_of(&directory, &server)?);
            let postmaster = server.postmaster();
            let opened = OfStore::on_server(config, directory, postmaster).await?;
            let subject: Arc<dyn Subject> = Arc::new(opened);
            Ok(subject)
        }
    })
}

fn of_sqlx(server: &Arc<Server>, name: &str, connections: u32) -> Candidate {
    let server = server.clone();
    let about: About = about(name, "sqlx 0.9, PostgreSQL", "-", "fsync each write", false);
    Candidate::new(about, move |directory| {
        let server = server.clone();
        async move {
            let schema = schema_of(&directory, &server)?;
            let opened = sqlx_crate::OfSqlx::open(&server, &schema, connections).await?;
            let subject: Arc<dyn Subject> = Arc::new(opened);
            Ok(subject)
        }
    })
}

/// The schema that belongs to a directory, which a subject finds again when it is opened again.
fn schema_of(directory: &Path, server: &Server) -> Result<String> {
    let file = directory.join("schema");
    match std::fs::read_to_string(&file) {
        Ok(schema) => Ok(schema),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let schema = server.new_schema();
            std::fs::write(&file, &schema)?;
            Ok(schema)
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests;
