//! Checks of what is stored.

use std::sync::Arc;

use ghostwire_store::admin::{Client, RemoteBackend};
use ghostwire_store::config::{BackendKind, Config};
use ghostwire_store::domain::{Clock, SystemClock, Timestamp};
use ghostwire_store::{Error, ErrorKind, Result};
use ghostwire_store_core::backend::{Backend, Head, LogIndex, LogInfo};
use ghostwire_store_core::schema::Schema;
use ghostwire_store_core::state::{CredentialHashes, State};

use super::super::clock::{Standing, TOLERANCE, YEAR_2024};
use super::{Checkup, Finding};
use crate::credentials::{KeyFit, StoreKey, configured_key};
use crate::failure::Outcome;
use crate::live::{self, Found};
use crate::output::bytes;
use crate::session::{Reading, open_to_read};

/// Everything behind the first thing that cannot be opened is left out.
pub(super) async fn check(config: &Config, checkup: &mut Checkup<'_, '_>) -> Outcome {
    const CHECK: &str = "store";
    let (backend, client) = match open(config, checkup).await {
        Ok(opened) => opened,
        Err(error) => return checkup.add(Finding::error(CHECK, &error, advice_on(config, &error))),
    };
    let head = match backend.head().await {
        Ok(head) => head,
        Err(error) => {
            let _ = backend.close().await;
            return checkup.add(Finding::error(CHECK, &error, advice_on(config, &error)));
        }
    };
    check_log(backend.info().log, checkup)?;
    let is_current = check_schema(config, &head, checkup)?;
    check_clock(config, &head, checkup)?;
    if is_current {
        match Reading::on(backend.clone(), client).await {
            Ok(reading) => check_content(config, &reading, checkup).await?,
            Err(error) => checkup.add(Finding::error(CHECK, &error, advice_on(config, &error)))?,
        }
    } else {
        let verified = backend.verify().await;
        checkup.add(match verified {
            Ok(()) => Finding::unchecked(
                "integrity",
                if is_on_a_server(config) {
                    "the tables are whole; what is stored in them was not read"
                } else {
                    "the file is whole; what is stored in it was not read"
                },
                "run `gwstore upgrade`, and the doctor once more",
            ),
            Err(error) => Finding::error("integrity", &error, advice_on(config, &error)),
        })?;
    }
    // It was only read.
    let _ = backend.close().await;
    Ok(())
}

/// What lies beneath the store, and whoever has it open.
async fn open(
    config: &Config,
    checkup: &mut Checkup<'_, '_>,
) -> Result<(Arc<dyn Backend>, Option<Client>)> {
    let backend = match live::find(config, checkup.shell).await? {
        Found::Served(client) => {
            let backend = RemoteBackend::new(client.clone()).await?;
            return Ok((Arc::new(backend), Some(client)));
        }
        Found::Denied(error) => live::denied(open_to_read(config).await, error),
        Found::Nobody => live::explained(open_to_read(config).await, config),
    };
    Ok((backend?, None))
}

/// Whether what is stored is in tables of a server, and in no file.
fn is_on_a_server(config: &Config) -> bool {
    config.backend.kind() == BackendKind::Postgres
}

/// What helps, where the error does not say it.
fn advice_on(config: &Config, error: &Error) -> &'static str {
    if is_on_a_server(config) {
        return match error.kind() {
            ErrorKind::Corrupt => {
                "keep the database as it is, and restore a backup into another schema or database"
            }
            ErrorKind::PermissionDenied => {
                "correct postgres.user and its password_file, or grant the role its rights on the server"
            }
            ErrorKind::InvalidArgument | ErrorKind::Unsupported => {
                "correct the postgres.* keys, or the settings of the server that the error names"
            }
            ErrorKind::Unavailable => {
                "look at the database server and the way to it; nothing of what is stored was checked"
            }
            _ => "put that right; nothing of what is stored was checked",
        };
    }
    match error.kind() {
        ErrorKind::Corrupt => "keep the file as it is, and restore a backup under another name",
        ErrorKind::PermissionDenied => {
            "run this as the store's user, or give that one the file with `chown`"
        }
        ErrorKind::InvalidArgument | ErrorKind::Unsupported => {
            "name the store's file with --path, or in the flag file"
        }
        _ => "put that right; nothing of what is stored was checked",
    }
}

/// Whether the log has all that was acknowledged, as far as that can be told.
fn check_log(log: Option<LogInfo>, checkup: &mut Checkup<'_, '_>) -> Outcome {
    const CHECK: &str = "log";
    let Some(log) = log else { return Ok(()) };
    checkup.add(if log.ended_early {
        let found = "it ends before its last frame: acknowledged commits may be missing";
        let advice = "compare the serial of `gwstore status` with what others know of it; restore a \
                      backup if it is behind";
        Finding::fail(CHECK, found, advice)
    } else {
        let size = bytes(log.bytes);
        match log.index {
            _ if log.bytes == 0 => Finding::ok(CHECK, "there is none, as after a store was closed"),
            LogIndex::Compared => {
                Finding::ok(CHECK, format!("{size}, and no commit is known to be missing"))
            }
            LogIndex::Absent => {
                let found =
                    format!("{size}; whether its end was cut off cannot be told: its index (-shm) is not there");
                Finding::ok(CHECK, found)
            }
            LogIndex::Unread => {
                let found = format!("{size}, but its index was not looked at");
                let advice = "try again once nobody uses the store, as a user who may read its files";
                Finding { is_busy: true, ..Finding::unchecked(CHECK, found, advice) }
            }
        }
    })
}

/// Tells whether the store can be read without a migration.
fn check_schema(config: &Config, head: &Head, checkup: &mut Checkup<'_, '_>) -> Outcome<bool> {
    const CHECK: &str = "schema";
    let current = Schema::current();
    let found = format!("version {}, supported {}", head.schema.version, current.version().version);
    match current.steps_from(head.schema) {
        Ok([]) => checkup.add(Finding::ok(CHECK, found)).map(|()| true),
        Ok(_) => {
            let advice = if is_on_a_server(config) {
                "run `gwstore upgrade` as the owner of the tables; it keeps no backup"
            } else {
                "run `gwstore upgrade`; it keeps a backup"
            };
            checkup.add(Finding::warn(CHECK, found, advice)).map(|()| false)
        }
        Err(error) => {
            let advice = "a newer release wrote this store; use that one";
            checkup.add(Finding::error(CHECK, &error, advice)).map(|()| false)
        }
    }
}

/// Time in a store does not move back by itself: with a block from the future, new writes get its
/// time.
fn check_clock(config: &Config, head: &Head, checkup: &mut Checkup<'_, '_>) -> Outcome {
    const CHECK: &str = "clock";
    let now = SystemClock.now();
    let ahead = head.time.since(now);
    let is_old = Timestamp::from_secs(YEAR_2024).is_ok_and(|earliest| now < earliest);
    let days = config.clock.max_gap_days;
    checkup.add(if is_old {
        let advice = "set the clock; expiry and new writes depend on it";
        Finding::fail(CHECK, format!("it says {now}"), advice)
    } else if ahead > TOLERANCE {
        let seconds = ahead.as_secs();
        Finding::fail(
            CHECK,
            format!("the last commit is from {}, {seconds} seconds ahead of now", head.time),
            "if the clock is wrong, set it; if it is right, run `gwstore clock repair`: until then \
             everything that is written gets that time",
        )
    } else if Standing::of_head(head).is_beyond_gap(config) {
        Finding::fail(
            CHECK,
            format!("the last commit is from {}, more than {days} days ago", head.time),
            "if the clock is wrong, set it; if it is right, run `gwstore clock accept`: until then \
             no control plane can open the store",
        )
    } else {
        Finding::ok(CHECK, "no commit is from the future")
    })
}

async fn check_content(
    config: &Config,
    reading: &Reading,
    checkup: &mut Checkup<'_, '_>,
) -> Outcome {
    const CHECK: &str = "integrity";
    let info = reading.store.info();
    checkup.add(Finding::ok("store", format!("opens, serial {}", info.serial)))?;
    // Of rows that are not flushed the engine alone is asked, unless whoever has them in memory is.
    let verified = if info.dirty_rows == 0 || reading.is_live() {
        reading.verify().await.map(|()| {
            if is_on_a_server(config) {
                "tables, rows and blocks are whole, and agree"
            } else {
                "file, rows and blocks are whole, and agree"
            }
        })
    } else {
        reading.backend.verify().await.map(
            |()| "file, rows and blocks are whole; some rows wait to be flushed, as after a crash",
        )
    };
    checkup.add(match verified {
        Ok(found) => Finding::ok(CHECK, found),
        Err(error) => Finding::error(CHECK, &error, advice_on(config, &error)),
    })?;
    check_credentials(config, &reading.store.view(), checkup).await
}

/// Credentials that were hashed with another key are lost until that key is back.
async fn check_credentials(
    config: &Config,
    state: &State,
    checkup: &mut Checkup<'_, '_>,
) -> Outcome {
    const CHECK: &str = "credentials";
    let hashes = CredentialHashes::of(state);
    let key = match configured_key(config).await {
        Ok(key) => key.as_ref().map_or(StoreKey::Missing, StoreKey::from),
        Err(error) => {
            let found = format!("{}; {}", hashes.total(), error.message());
            let advice = "the check of the hash key says what to do";
            return checkup.add(Finding::unchecked(CHECK, found, advice));
        }
    };
    let fit = KeyFit::of(hashes, key);
    checkup.add(if fit.misfit().is_some() {
        let advice = fit.advice();
        Finding::fail(CHECK, fit, advice)
    } else if fit.hashes.too_costly > 0 {
        Finding::warn(CHECK, fit, "issue new ones in place of those that are never usable")
    } else {
        Finding::ok(CHECK, fit)
    })
}
