//! A network that moves from libsql to zqlite while it is served, is killed on the way, goes back once, and arrives.

mod child;
mod page;
mod served;
mod timeline;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ghostwire_store::config::{BackendKind, Config, NamedStore};
use ghostwire_store::domain::{Clock, ManualClock};
use ghostwire_store::migration::{Stage, Status};
use ghostwire_store::{Error, ErrorKind, Result};

use super::stores::{self, Environment};
use super::table::say;
use super::{Args, differ, sample};
use crate::output_file::Target;
use crate::session::opener;
use child::{Ask, Sums, Told};
use served::{Served, unasked};
use timeline::{Killed, Standing, Timeline};

pub(super) use child::serve;
pub(super) use timeline::Moved;

/// The target's name.
const TARGET: &str = "next";

/// Writes that are waited for before the next step.
const WRITES: usize = 1_000;

/// How often it is asked how far the copy is, and how long at most.
const EVERY: Duration = Duration::from_millis(2);
const PATIENCE: Duration = Duration::from_secs(60);

/// How often a hand-over is tried, and how long it is let be in between.
const TRIES: usize = 20;
const BETWEEN_TRIES: Duration = Duration::from_millis(100);

/// Something did not come out as it must.
fn broken(what: &'static str) -> Error {
    Error::new(ErrorKind::Unexpected, what).during("demo.move")
}

/// Where both stores of the move are made. What is there from an earlier run is in the way.
pub(super) fn place_in(directory: &Path) -> Result<PathBuf> {
    let place = directory.join("move");
    if place.symlink_metadata().is_ok() {
        return Err(Error::new(
            ErrorKind::AlreadyExists { constraint: "path" },
            "there is a network that moved in an earlier run; remove it or name another directory",
        )
        .with("path", place.display()));
    }
    Ok(place)
}

/// A network in a libsql file that may move to a sealed zqlite file, with one hash key for both.
fn configuration(directory: &Path) -> Result<Config> {
    let hash_key = stores::write_hash_key(directory)?;
    stores::write_root_secret(directory)?;
    let built_in = Environment::of(Config::default());
    let source = built_in.config(BackendKind::Libsql, directory.join("source.db"), &hash_key);
    let target = built_in.config(BackendKind::Zqlite, directory.join("target.zqlite"), &hash_key);
    let target = NamedStore { backend: target.backend, secret_key_file: target.secret_key_file };
    let mut config =
        Config { other_stores: BTreeMap::from([(TARGET.to_owned(), target)]), ..source };
    config.migration.target = Some(TARGET.to_owned());
    // A busy disk is no reason to take a hand-over back; the timeline tells how long it took.
    config.migration.max_stall_ms = 1_000;
    // Those who write are to notice little of the copy.
    config.migration.copy_share = 25;
    Ok(config)
}

/// Moves a network, and writes the page if one is wanted.
///
/// # Errors
/// `Corrupt` if anything that was acknowledged is missing, or digests differ; `Unexpected` if a step did not do
/// what it must.
pub(super) async fn run(
    place: &Path,
    args: &Args,
    page: Option<Target>,
    out: &mut dyn io::Write,
    json: bool,
) -> Result<Moved> {
    super::make_directory(place).map_err(|error| super::disk::failed(place, error))?;
    say(out, json, format_args!("move: a day on libsql, in a process of its own ..."))?;
    let config = configuration(place)?;
    let served = Served::start(place, args.seed, args.scale)?;
    let mut moving = Moving { place, args, served, timeline: Timeline::begin(), out, json };
    let nodes = moving.ready().await?;
    moving.note(format!("a day is over, {nodes} nodes are there")).await?;
    let killed = moving.copy_and_kill().await?;
    moving.hand_over_and_back().await?;
    let digests = moving.arrive().await?;
    moving.reopen(&config, &digests).await?;
    let moved = moving.timeline.end(killed, digests);
    if let Some(page) = page {
        page.fill(moved.to_html().as_bytes())?;
    }
    Ok(moved)
}

/// The move under way.
struct Moving<'m> {
    place: &'m Path,
    args: &'m Args,
    served: Served,
    timeline: Timeline,
    out: &'m mut dyn io::Write,
    json: bool,
}

impl Moving<'_> {
    /// Waits until the store is open, and everything is in it that was acknowledged. Gives how many nodes there are.
    async fn ready(&mut self) -> Result<usize> {
        match self.served.answer(&mut self.timeline).await? {
            Told::Ready { nodes, serial } if serial >= self.timeline.serial => Ok(nodes),
            Told::Ready { serial, .. } => Err(differ("commits are gone that callers knew of")
                .with("last_known", self.timeline.serial)
                .with("last_found", serial)),
            told => Err(unasked(&told)),
        }
    }

    async fn ask(&mut self, ask: Ask) -> Result<Told> {
        self.served.ask(ask, &mut self.timeline).await
    }

    async fn writes(&mut self) -> Result<()> {
        self.served.writes(WRITES, &mut self.timeline).await
    }

    async fn standing(&mut self) -> Result<Standing> {
        self.ask(Ask::Status).await.and_then(stood)
    }

    async fn note(&mut self, what: String) -> Result<()> {
        let standing = self.standing().await?;
        self.happened(what, &standing)
    }

    fn happened(&mut self, what: String, standing: &Standing) -> Result<()> {
        say(self.out, self.json, format_args!("move: {what}"))?;
        self.timeline.happened(what, standing);
        Ok(())
    }

    /// Asks until it stands as it should.
    async fn until(&mut self, is_reached: impl Fn(&Status) -> bool) -> Result<Box<Status>> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let Some(status) = self.standing().await?.status else {
                return Err(broken("the migration is not under way any more"));
            };
            if is_reached(status.as_ref()) {
                return Ok(status);
            }
            if Instant::now() > deadline {
                let error = broken("the copy does not go on")
                    .with("stage", status.stage.name())
                    .with(
                        "lag",
                        status.lag.map_or_else(|| "unknown".to_owned(), |lag| lag.to_string()),
                    )
                    .with("rows", status.copy.map_or(0, |copy| copy.rows));
                return Err(match &status.last_error {
                    Some(why) => error.because(why.clone()),
                    None => error,
                });
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    /// Begins the copy, kills the process that makes it, and goes on in another one.
    async fn copy_and_kill(&mut self) -> Result<Killed> {
        self.writes().await?;
        let standing = self.ask(Ask::Start).await.and_then(stood)?;
        self.happened("the copy begins".to_owned(), &standing)?;
        let status = self
            .until(|status| match status.stage {
                Stage::Filling => status.copy.is_some_and(|copy| copy.rows > 0),
                Stage::Between | Stage::Unknown => false,
                _ => true,
            })
            .await?;
        let during = match status.copy {
            Some(copy) if copy.total > 0 => {
                format!("when {} of {} rows were copied", copy.rows, copy.total)
            }
            Some(copy) => format!("when {} rows were copied", copy.rows),
            None => "when the copy had just become complete".to_owned(),
        };
        self.served.kill(&mut self.timeline).await?;
        let acknowledged = self.timeline.acknowledged();
        let standing = Standing { status: Some(status), backend: "nobody".to_owned() };
        self.happened("killed with SIGKILL".to_owned(), &standing)?;
        self.served = Served::start(self.place, self.args.seed, self.args.scale)?;
        self.ready().await?;
        self.require_all("after the process was killed").await?;
        self.note("opened again, nothing is missing".to_owned()).await?;
        self.until(|status| status.stage == Stage::Mirror).await?;
        self.note("the copy is complete, and follows".to_owned()).await?;
        Ok(Killed { during, acknowledged })
    }

    async fn require_all(&mut self, when: &'static str) -> Result<()> {
        // What is acknowledged while it looks may not be among what it finds.
        let known = self.timeline.acknowledged();
        match self.ask(Ask::Names).await? {
            Told::Names(found) => self.compare(known, found, when),
            told => Err(unasked(&told)),
        }
    }

    fn compare(&self, known: usize, found: Vec<String>, when: &'static str) -> Result<()> {
        let missing = self.timeline.missing(known, found);
        match missing.first() {
            None => Ok(()),
            Some(first) => Err(differ("writes that were acknowledged are not there")
                .with("when", when)
                .with("missing", missing.len())
                .with("first", first)),
        }
    }

    /// Serves from the other side, however often that has to be tried.
    async fn hand_over(&mut self, ask: Ask) -> Result<()> {
        let mut refused = None;
        for _ in 0..TRIES {
            match self.ask(ask).await? {
                Told::Stands { status, backend } => {
                    let stall = status.as_ref().and_then(|status| status.last_stall_ms);
                    let stall = stall.map_or_else(String::new, |ms| format!(", stalled {ms} ms"));
                    let what = format!("{backend} is served{stall}");
                    return self.happened(what, &Standing { status, backend });
                }
                Told::Refused { why } => {
                    self.note("handing over is refused: busy".to_owned()).await?;
                    refused = Some(why);
                }
                told => return Err(unasked(&told)),
            }
            tokio::time::sleep(BETWEEN_TRIES).await;
        }
        let error = broken("the network was not handed over").with("tries", TRIES);
        Err(match refused {
            Some(why) => error.because(why),
            None => error,
        })
    }

    async fn hand_over_and_back(&mut self) -> Result<()> {
        for ask in [Ask::Advance, Ask::Back] {
            self.writes().await?;
            self.hand_over(ask).await?;
        }
        self.writes().await
    }

    async fn digests(&mut self) -> Result<Sums> {
        match self.ask(Ask::Digests).await? {
            Told::Holds(digests) => Ok(digests),
            told => Err(unasked(&told)),
        }
    }

    /// Compares both sides, and leaves the first one. Gives what the network holds then.
    async fn arrive(&mut self) -> Result<Sums> {
        let source = self.digests().await?;
        self.note("nobody writes, for the digests".to_owned()).await?;
        self.hand_over(Ask::Advance).await?;
        require_equal(&source, &self.digests().await?, "served from the target")?;
        self.note("digests of both are equal".to_owned()).await?;
        let told = self.ask(Ask::Write).await?;
        let Told::Writing = told else { return Err(unasked(&told)) };
        self.writes().await?;
        let standing = self.ask(Ask::Finish).await.and_then(stood)?;
        self.happened("the source is left for good".to_owned(), &standing)?;
        self.writes().await?;
        let digests = self.digests().await?;
        self.note("nobody writes any more".to_owned()).await?;
        self.served.end(&mut self.timeline).await?;
        Ok(digests)
    }

    /// Opens the target as the only store there is.
    async fn reopen(&mut self, config: &Config, expected: &Sums) -> Result<()> {
        let alone = config.for_store(TARGET)?;
        let clock = ManualClock::new(sample::END.parse()?);
        clock.advance(child::A_DAY);
        let clock: Arc<dyn Clock> = Arc::new(clock);
        let store = opener(&alone).create(false).clock(clock).open().await?;
        let read = async {
            store.verify().await?;
            let found = Sums::from(store.digests().await?);
            require_equal(expected, &found, "opened alone")?;
            self.compare(self.timeline.acknowledged(), child::names(store.as_ref()), "opened alone")
        };
        let read = read.await;
        let backend = store.info().backend.name.to_owned();
        store.close().await?;
        read?;
        let standing = Standing { status: None, backend };
        self.happened("reopened alone, digests are equal".to_owned(), &standing)
    }
}

fn stood(told: Told) -> Result<Standing> {
    match told {
        Told::Stands { status, backend } => Ok(Standing { status, backend }),
        told => Err(unasked(&told)),
    }
}

fn require_equal(expected: &Sums, found: &Sums, when: &'static str) -> Result<()> {
    let pairs = [
        ("state", &expected.state, &found.state),
        ("metrics", &expected.metrics, &found.metrics),
        ("audit", &expected.audit, &found.audit),
    ];
    match pairs.into_iter().find(|(_, expected, found)| expected != found) {
        None => Ok(()),
        Some((what, expected, found)) => {
            Err(differ("the network does not hold what it did before it was moved")
                .with("what", what)
                .with("when", when)
                .with("before", expected)
                .with("after", found))
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn digests_that_differ_are_corruption_with_the_series_named() {
        let sums = |audit: &str| Sums {
            state: "1".to_owned(),
            metrics: "2".to_owned(),
            audit: audit.to_owned(),
        };
        require_equal(&sums("3"), &sums("3"), "then").unwrap();
        let error = require_equal(&sums("3"), &sums("4"), "then").unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains("what=audit, when=then, before=3, after=4"), "{error}");
    }

    #[test]
    fn both_stores_are_configured_with_one_hash_key() {
        let directory = tempfile::tempdir().unwrap();
        let config = configuration(directory.path()).unwrap();
        let target = config.for_store(TARGET).unwrap();
        assert!(!config.is_sealed() && target.is_sealed());
        assert_eq!(config.secret_key_path(), target.secret_key_path());
        // Once more, as by the process that serves it.
        assert_eq!(configuration(directory.path()).unwrap().backend, config.backend);
    }
}
