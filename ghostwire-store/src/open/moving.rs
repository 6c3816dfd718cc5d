//! Opening both sides of a move between two stores.

use std::sync::Arc;

use ghostwire_store_core::Store;
use ghostwire_store_core::backend::{Backend, Head};
use ghostwire_store_core::domain::SideId;
use ghostwire_store_core::error::{Error, ErrorKind, Result};
use ghostwire_store_core::layer::Deadlines;
use ghostwire_store_core::migration::Witness;
use ghostwire_store_core::migration::{
    Found, Occupant, Role, SeatOptions, Which, find_served, go_on_alone,
};
use ghostwire_store_core::schema::Schema;
use ghostwire_store_core::secrets::HashKeys;

use super::absent::Absent;
use super::anew::set_aside_before;
use super::key::Key;
use super::place::is_missing;
use super::witness::WitnessCommand;
use super::{Beneath, Opener, deadlines, materialize};
use crate::config::{BackendChoice, Config};
use crate::hash_key::{hash_key_is_absent, read_hash_key};
use crate::migration::{Migrations, move_options};

impl<'c> Opener<'c> {
    /// The same for another configuration.
    pub(super) fn with_config<'o>(&self, config: &'o Config) -> Opener<'o>
    where
        'c: 'o,
    {
        Opener { config, ..self.clone() }
    }

    /// The configuration of the target, if one is named.
    pub(super) fn other_side(&self) -> Result<Option<Config>> {
        let name = self.config.migration.target.as_ref();
        name.map(|name| self.config.for_store(name)).transpose()
    }

    /// What holds of the seat that this store is opened on, and how long a server may take to answer.
    pub(super) fn seat_options(&self) -> Result<(SeatOptions, Deadlines)> {
        let target = self.other_side()?;
        let mut sides = [Some(self.config), target.as_ref()].into_iter().flatten();
        let server = sides.find(|side| matches!(side.backend, BackendChoice::Postgres(_)));
        let options = SeatOptions {
            witness: self.witness(),
            is_shared: server.is_some(),
            ..SeatOptions::default()
        };
        Ok((options, deadlines(&server.unwrap_or(self.config).backend)))
    }

    /// Who is asked before one store goes on without the other one.
    pub(super) fn witness(&self) -> Option<Arc<dyn Witness>> {
        let program = self.config.migration.witness_command.clone()?;
        Some(Arc::new(WitnessCommand::new(program)))
    }

    /// Which of both stores is the network, by their records. Both are only read.
    ///
    /// # Errors
    /// Those of opening them; why neither can be served.
    pub async fn served_config(&self) -> Result<Config> {
        self.config.check()?;
        let Some(target) = self.other_side()? else { return Ok(self.config.clone()) };
        if is_gone(&target) {
            return Ok(self.config.clone());
        }
        if is_gone(self.config) {
            let head = self.head_of(&target).await?;
            return match head.membership.is_some() || is_left_alone(&head) {
                true => Ok(target),
                false => Err(source_is_gone(self.config)),
            };
        }
        let heads = (self.head_of(self.config).await, self.head_of(&target).await);
        let is_target = match heads {
            (Ok(source), Ok(target)) => {
                let (here, there) = (source.record(), target.record());
                let is_of_both = target.membership.is_some_and(|it| it.peer == source.side)
                    || source.membership.is_some_and(|it| it.peer == target.side);
                let is_superseded = there.epoch > here.epoch || !here.role.is_active();
                // One that was made in place of a lost source is nothing yet.
                let is_made = here.role == Role::None && here.membership.is_none();
                let goes_on = there.role == Role::ActiveAlone && there.membership.is_some();
                is_of_both && there.role.is_active() && is_superseded || is_made && goes_on
            }
            (Ok(source), Err(_)) if serves_without(&source, true) => false,
            (Err(_), Ok(target)) if serves_without(&target, false) => true,
            (Err(error), _) | (_, Err(error)) => return Err(error),
        };
        Ok(if is_target { target } else { self.config.clone() })
    }

    async fn head_of(&self, config: &Config) -> Result<Head> {
        let opener = self.with_config(config).create(false).read_only(true);
        let backend = opener.open_backend().await?;
        let head = backend.head().await;
        backend.close().await?;
        head
    }

    /// Opens both, ends what was interrupted, and serves the side that the records name.
    pub(super) async fn open_of_two(
        &self,
        target: &Config,
    ) -> Result<(Arc<dyn Store>, Migrations)> {
        if self.read_only {
            let served = self.served_config().await?;
            return self.with_config(&served).open_alone(self).await;
        }
        let there = self.with_config(target).create(false);
        if is_gone(self.config) {
            if is_gone(target) {
                return Err(neither_is_there(self.config, target));
            }
            return self.open_without_source(&there).await;
        }
        let here = self.clone().create(false);
        let (first, second) = match (here.open_side().await, there.open_side().await) {
            (Ok(first), Ok(second)) => (first, second),
            (Ok(side), Err(error)) => return self.open_without((&here, side), &there, error).await,
            (Err(error), Ok(side)) => return self.open_without((&there, side), &here, error).await,
            (Err(error), Err(_)) => return Err(error),
        };
        let backends = [first.0.backend.clone(), second.0.backend.clone()];
        let found = match find(&backends, self.config).await {
            Ok(found) => Ok(found),
            Err(error) => found_alone(&backends, &error).await.ok_or(error),
        };
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                for backend in &backends {
                    let _ = backend.close().await;
                }
                return Err(error.during("store.open"));
            }
        };
        if found.served == Which::Second && !found.is_followed {
            tell_of_move(target);
        }
        let (served, (opened, other), other_config) = match found.served {
            Which::First => (&here, (first, second), target),
            Which::Second => (&there, (second, first), self.config),
        };
        let beside = match found.is_followed {
            true => {
                let keys = other.0.manager(false).await;
                let materialize = materialize(&other_config.backend);
                Some(Occupant { backend: other.0.backend, keys, materialize })
            }
            false => {
                other.0.backend.close().await?;
                None
            }
        };
        served.open_seated(self, opened, beside, None).await
    }

    /// The source's file is not there, and no new one is made in its place.
    async fn open_without_source(
        &self,
        there: &Opener<'_>,
    ) -> Result<(Arc<dyn Store>, Migrations)> {
        let side = there.open_side().await?;
        let backend = side.0.backend.clone();
        let is_left = match backend.head().await {
            // The source was left for good, and its file removed.
            Ok(head) => is_left_alone(&head),
            Err(error) => {
                // Its files must not stay locked.
                let _ = backend.close().await;
                return Err(error);
            }
        };
        if is_left {
            tell_of_move(there.config);
            return there.open_seated(self, side, None, None).await;
        }
        let here = self.clone().create(false);
        self.open_without((there, side), &here, source_is_gone(self.config)).await
    }

    /// Opens the one of both that can be opened, if its record says that it may be served without the other
    /// one. That is tried again while it is served.
    async fn open_without(
        &self,
        (served, opened): (&Opener<'_>, (Beneath, Key)),
        other: &Opener<'_>,
        error: Error,
    ) -> Result<(Arc<dyn Store>, Migrations)> {
        let is_source = served.config.store == self.config.store;
        let backend = opened.0.backend.clone();
        let head = match backend.head().await {
            Ok(head) if serves_without(&head, is_source) => head,
            found => {
                // Its files must not stay locked.
                let _ = backend.close().await;
                return Err(match found {
                    Ok(head) => needs_other(&head, error),
                    Err(_) => error,
                });
            }
        };
        if let Some(beside) = self.renewed(&opened, &head, other).await {
            return served.open_seated(self, opened, Some(beside), None).await;
        }
        let is_absent = is_gone(other.config) || is_empty_schema(&error);
        let is_made_by_start = head.membership.is_none() && is_absent;
        if !is_made_by_start {
            tracing::warn!(
                %error,
                store = other.config.store,
                "the other store of `migration.target` cannot be opened; this one is served alone"
            );
        }
        let absent = head.membership.map(|it| Arc::new(Absent::new(other, it.peer, error)));
        let beside = absent.clone().map(|absent| Occupant {
            backend: absent,
            keys: None,
            materialize: materialize(&other.config.backend),
        });
        served.open_seated(self, opened, beside, absent).await
    }

    /// Makes the empty store in place of one that was set aside, where a process ended between the two.
    async fn renewed(
        &self,
        (beneath, key): &(Beneath, Key),
        head: &Head,
        other: &Opener<'_>,
    ) -> Option<Occupant> {
        let goes_on = head.record().role == Role::ActiveAlone && head.membership.is_some();
        let path = other.config.backend.path()?;
        if !goes_on || !is_missing(path) {
            return None;
        }
        set_aside_before(path, head.epoch)?;
        let read = match key {
            Key::OfStore(path) => read_hash_key(path).ok(),
            _ => None,
        };
        let known = match key {
            Key::Known(keys) => Some(keys),
            _ => read.as_ref(),
        };
        let maker = other.clone().create(true);
        let made = maker.open_target(beneath.hash_keys.as_ref().or(known)).await;
        made.inspect_err(|error| {
            tracing::warn!(%error, "no empty store can be made in place of one that was set aside");
        })
        .ok()
    }

    pub(super) async fn open_side(&self) -> Result<(Beneath, Key)> {
        self.config.check()?;
        let key = self.key_before()?;
        let beneath = self.open_beneath(Some(&key)).await?;
        Ok((beneath, key))
    }

    /// Opens the target of a migration that begins, and makes it where there is none.
    pub(crate) async fn open_target(&self, keys: Option<&HashKeys>) -> Result<Occupant> {
        let key = self.key_of_target(keys)?;
        let made = self.prepare(true)?;
        let beneath = self.open_beneath(Some(&key)).await?;
        made.keep();
        let manager = beneath.manager(false).await;
        let materialize = materialize(&self.config.backend);
        let backend = beneath.backend;
        let migrated = backend.migrate(Schema::current()).await;
        if migrated.is_err() {
            let _ = backend.close().await;
        }
        migrated.map(|()| Occupant { backend, keys: manager, materialize })
    }

    /// The key that the source's credentials are hashed with has to be the target's, or nobody who has one
    /// could log in after the move.
    pub(crate) fn require_key(&self, keys: Option<&HashKeys>) -> Result<()> {
        self.key_of_target(keys).map(drop)
    }

    fn key_of_target(&self, keys: Option<&HashKeys>) -> Result<Key> {
        let name = &self.config.store;
        let help = |error: Error| {
            error.with(
                "help",
                format_args!(
                    "name the key file of the source as stores.{name}.secret_key_file, too"
                ),
            )
        };
        let Some(keys) = keys else {
            return Err(Error::new(
                ErrorKind::Crypto,
                "the hash key of the store is not at hand, so the target cannot be given the same one",
            ));
        };
        let path = match self.is_key_in_keyring() {
            true => None,
            false => self.config.secret_key_path(),
        };
        let Some(path) = path else {
            return Err(help(Error::new(
                ErrorKind::Crypto,
                "the target would have a hash key of its own in its keyring, and every credential would fail",
            )));
        };
        if hash_key_is_absent(&path)? {
            return Err(help(
                Error::new(ErrorKind::Crypto, "the hash key of the target is not there")
                    .with("secret_key_file", path.display()),
            ));
        }
        let found = read_hash_key(&path)?;
        if found.current().id() != keys.current().id() {
            return Err(help(
                Error::new(
                    ErrorKind::Crypto,
                    "the target has another hash key than the source, and every credential would fail",
                )
                .with("secret_key_file", path.display()),
            ));
        }
        Ok(Key::Known(found))
    }
}

/// One of two stores that were in step or followed each other, opened to go on without the other one.
#[derive(Debug)]
pub struct Survivor {
    store: String,
    head: Head,
    backend: Arc<dyn Backend>,
    witness: Option<Arc<dyn Witness>>,
    lost_server: Option<String>,
}

impl Survivor {
    /// Its name in the configuration.
    #[must_use]
    pub fn store(&self) -> &str {
        &self.store
    }

    /// Where it stands.
    #[must_use]
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// Whether the other one may have commits that were answered and that this one lacks.
    #[must_use]
    pub fn may_lack(&self) -> bool {
        self.head.record().role == Role::PassiveAsync
    }

    /// Where the other one is, if that is a database which other processes may still write to.
    #[must_use]
    pub fn lost_server(&self) -> Option<&str> {
        self.lost_server.as_deref()
    }

    /// Has it be the network from now on. Whatever the other store has is superseded.
    ///
    /// # Errors
    /// `Restricted` if its record does not let it, or if the witness granted the other one; those of a write.
    pub async fn go_on(self) -> Result<()> {
        let done = go_on_alone(self.backend.clone(), self.witness.as_deref()).await;
        self.leave().await?;
        done
    }

    /// Closes it as it is.
    ///
    /// # Errors
    /// Those of closing a store.
    pub async fn leave(self) -> Result<()> {
        self.backend.close().await
    }
}

impl Opener<'_> {
    /// Opens the one of both stores whose other side is this database, which is down.
    ///
    /// # Errors
    /// `Restricted` without `migration.target`, or if the database is there; `NotFound` if neither store
    /// names it; `Busy` if somebody has the store open; those of opening it.
    pub async fn survivor(&self, lost: SideId) -> Result<Survivor> {
        let Some(target) = self.other_side()? else {
            return Err(Error::new(
                ErrorKind::Restricted,
                "the configuration names no other store, so nothing is lost that this one would go on without",
            )
            .with("key", "migration.target"));
        };
        let mut failed = None;
        for (config, other) in [(self.config, &target), (&target, self.config)] {
            let head = match self.head_of(config).await {
                Ok(head) => head,
                Err(error) => {
                    failed = Some(error);
                    continue;
                }
            };
            if head.membership.is_none_or(|it| it.peer != lost) {
                continue;
            }
            match self.head_of(other).await {
                Ok(head) if head.side == lost => {
                    return Err(Error::new(
                        ErrorKind::Restricted,
                        "the other store is there, and nothing has to go on without it: start the process with both",
                    )
                    .with("side", lost)
                    .with("store", &other.store));
                }
                // Somebody has it open, and may write to it.
                Err(error) if *error.kind() == ErrorKind::Busy => return Err(error),
                _ => {}
            }
            let (beneath, _) = self.with_config(config).create(false).open_side().await?;
            let backend = beneath.backend;
            let witness = self.witness();
            let lost_server = other.backend.server();
            return Ok(Survivor {
                store: config.store.clone(),
                head,
                backend,
                witness,
                lost_server,
            });
        }
        Err(failed.unwrap_or_else(|| {
            Error::new(
                ErrorKind::NotFound,
                "neither store is one end of a migration whose other end is this side; \
                 `gwstore migrate status` names both",
            )
            .with("side", lost)
        }))
    }
}

/// Whether a store may be served while the other one of `migration.target` cannot be looked at. A target that
/// is part of no migration may be anybody's.
fn serves_without(head: &Head, is_source: bool) -> bool {
    let role = head.record().role;
    let is_new = role == Role::None && head.membership.is_none();
    match is_source {
        true => role.serves_alone() || is_new,
        false => role.serves_alone() && (head.membership.is_some() || is_left_alone(head)),
    }
}

/// The other store cannot be opened, and this one may have to go on without it. One that somebody has open is there.
fn needs_other(head: &Head, error: Error) -> Error {
    if *error.kind() == ErrorKind::Busy {
        return error;
    }
    let may_go_on =
        matches!(head.record().role, Role::ActiveSync | Role::PassiveSync | Role::PassiveAsync);
    match head.membership.filter(|_| may_go_on) {
        None => error,
        Some(membership) => Error::new(
            ErrorKind::Unavailable,
            "one of the two stores of a migration cannot be opened, and the other one is not written without it",
        )
        .with("side", head.side)
        .with("role", head.record().role)
        .with("lost", membership.peer)
        .with(
            "help",
            format_args!(
                "bring it back; if it is lost for good: gwstore migrate go-on --the-other-side-is-down {}",
                membership.peer
            ),
        )
        .because(error),
    }
}

/// The one of two sides that is served while what is left to do at the other one fails.
async fn found_alone(backends: &[Arc<dyn Backend>; 2], error: &Error) -> Option<Found> {
    use ErrorKind::{Busy, Exhausted, OutcomeUnknown, ReadOnly, Unavailable};
    if !matches!(error.kind(), Busy | Exhausted | OutcomeUnknown | ReadOnly | Unavailable) {
        return None;
    }
    let [first, second] = backends;
    // After an error only what is read anew is known.
    let heads = (first.reopen().await.ok()?, second.reopen().await.ok()?);
    let serves = |head: &Head| head.record().role.serves_alone() && head.membership.is_some();
    let served = match (serves(&heads.0), serves(&heads.1)) {
        (true, false) if !heads.1.record().role.is_active() => Which::First,
        (false, true) if !heads.0.record().role.is_active() => Which::Second,
        _ => return None,
    };
    tracing::warn!(
        %error,
        "the other store of `migration.target` fails; the one that is served goes on alone"
    );
    Some(Found { served, is_followed: true })
}

fn source_is_gone(source: &Config) -> Error {
    Error::new(ErrorKind::NotFound, "there is no store at this path")
        .with("path", source.backend.location().unwrap_or_default())
}

fn is_gone(config: &Config) -> bool {
    config.backend.path().is_some_and(is_missing)
}

/// Whether a server is there, and has no store in the schema that was named.
pub(crate) fn is_empty_schema(error: &Error) -> bool {
    *error.kind() == ErrorKind::NotFound
        && error.context().iter().any(|(key, _)| *key == "empty_schema")
}

/// Whether this one is the network since the other side was left for good: a store that was only made, or is another
/// network's, says nothing of that.
pub(crate) fn is_left_alone(head: &Head) -> bool {
    head.membership.is_none() && head.role == Some(Role::ActiveAlone)
}

/// The configuration is that of before the end of the move.
fn tell_of_move(target: &Config) {
    tracing::warn!(
        name: "migration_over",
        store = target.store,
        "the network has moved to the target for good; name that one as `store`, and leave migration.target out"
    );
}

/// Which one would be made nobody can tell: a network that has moved is no longer where it was.
fn neither_is_there(source: &Config, target: &Config) -> Error {
    let path = |config: &Config| config.backend.location().unwrap_or_default();
    Error::new(
        ErrorKind::NotFound,
        "neither the store nor the one that it is to move to is there, and none is made in its place",
    )
    .with("path", path(source))
    .with("target", path(target))
    .with("key", "migration.target")
    .with("help", "restore the files; or, to make a new store, leave migration.target out until it is made")
}

async fn find(backends: &[Arc<dyn Backend>; 2], config: &Config) -> Result<Found> {
    let [first, second] = backends;
    let heads = (first.head().await?, second.head().await?);
    let names = |of: &Head, other: &Head| of.membership.is_some_and(|it| it.peer == other.side);
    // What has nothing to do with the store is left as it is.
    if names(&heads.0, &heads.1) || names(&heads.1, &heads.0) {
        // The follower is brought to the schema first: which of the two that is, is not known before. Both are
        // brought there, and what a crash leaves is completed by the next opening.
        for backend in [second, first] {
            backend.migrate(Schema::current()).await?;
        }
    }
    find_served(first.clone(), second.clone(), move_options(config)).await
}
