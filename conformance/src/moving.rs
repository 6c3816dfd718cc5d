//! A network between two databases, as a migration keeps it.

use ghostwire_store_core::domain::MigrationId;
use ghostwire_store_core::migration::{
    Event, Found, MoveOptions, Mover, Next, Occupant, Pair, Role, Seat, Service, Side, Which,
    find_served,
};

use crate::prelude::*;
use ghostwire_store_core::backend::RecordChange;

/// Ids of the second side and of the migration; nothing else has to be told apart by them.
const SECOND: StoreId = StoreId::from_bytes([8; 16]);
const MIGRATION: MigrationId = MigrationId::from_bytes([9; 16]);

/// Why a case that is about blocks which are gone says nothing of it.
pub(crate) const KEEPS_BLOCKS: Verdict =
    Verdict::Skipped("blocks are kept for the side that follows");

/// After one of so many commits the side that follows is sent what it lacks, so that a crash finds it behind.
const BEHIND: u64 = 3;

/// Stores that are moved from one backend to another. Whoever opens one finds a migration under way, which began
/// while it was empty, and hands it over: every opening serves what the last one had follow. So whatever is read
/// after a reload is what the other side made of it.
#[derive(Debug)]
pub struct Migrating {
    name: String,
    in_step: bool,
    sides: [Arc<dyn Factory>; 2],
}

impl Migrating {
    /// Every commit goes to both.
    pub fn in_step(first: impl Factory, second: impl Factory) -> Self {
        Self::between("in-step", true, first, second)
    }

    /// Every commit goes to the one that is served, and is sent to the other one later.
    pub fn following(first: impl Factory, second: impl Factory) -> Self {
        Self::between("following", false, first, second)
    }

    fn between(manner: &str, in_step: bool, first: impl Factory, second: impl Factory) -> Self {
        let name = format!("{}-{}-{manner}", first.name(), second.name());
        Self { name, in_step, sides: [Arc::new(first), Arc::new(second)] }
    }

    fn place(&self, first: Box<dyn Place>, second: Box<dyn Place>) -> Box<dyn Place> {
        Box::new(Two { in_step: self.in_step, first, second })
    }
}

#[async_trait]
impl Factory for Migrating {
    fn name(&self) -> &str {
        &self.name
    }

    async fn create(&self) -> Result<Box<dyn Place>> {
        let [first, second] = &self.sides;
        Ok(self.place(first.create().await?, second.create().await?))
    }

    async fn at(&self, location: &str) -> Result<Box<dyn Place>> {
        let [first, second] = &self.sides;
        let (at_first, at_second) = location
            .split_once('\n')
            .ok_or_else(|| Error::invalid("this names no place of two databases"))?;
        Ok(self.place(first.at(at_first).await?, second.at(at_second).await?))
    }
}

#[derive(Debug)]
struct Two {
    in_step: bool,
    first: Box<dyn Place>,
    second: Box<dyn Place>,
}

#[async_trait]
impl Place for Two {
    async fn open(&self, opening: Opening) -> Result<Arc<dyn Backend>> {
        let first = self.first.open(opening).await?;
        if first.head().await?.schema != Schema::current().version() {
            // Both sides have the current schema: it is brought forward first.
            return Ok(first);
        }
        let second = match self.second.open(Opening { store: SECOND, ..opening }).await {
            Ok(second) => second,
            Err(error) => {
                first.close().await?;
                return Err(error);
            }
        };
        if opening.read_only {
            return served_to_read(first, second).await;
        }
        let opened = serve(self.in_step, first.clone(), second.clone()).await;
        if opened.is_err() {
            first.close().await?;
            second.close().await?;
        }
        opened
    }

    async fn after_crash(&self) -> Result<Box<dyn Place>> {
        let (first, second) = (self.first.after_crash().await?, self.second.after_crash().await?);
        Ok(Box::new(Self { in_step: self.in_step, first, second }))
    }

    fn location(&self) -> Option<String> {
        Some(format!("{}\n{}", self.first.location()?, self.second.location()?))
    }

    fn is_of_two(&self) -> bool {
        true
    }
}

async fn served_to_read(
    first: Arc<dyn Backend>,
    second: Arc<dyn Backend>,
) -> Result<Arc<dyn Backend>> {
    let (one, other) = (first.head().await?, second.head().await?);
    let is_second = other.record().role.is_active()
        && (!one.record().role.is_active() || one.epoch < other.epoch);
    let (served, left) = if is_second { (second, first) } else { (first, second) };
    left.close().await?;
    Ok(served)
}

/// Begins a migration, or goes on with it; hands over, and serves.
async fn serve(
    in_step: bool,
    first: Arc<dyn Backend>,
    second: Arc<dyn Backend>,
) -> Result<Arc<dyn Backend>> {
    let options = MoveOptions {
        synchronous: in_step,
        // Here nobody waits.
        max_stall: Duration::from_secs(60),
        ..MoveOptions::default()
    };
    be_a_network(first.as_ref()).await?;
    let Found { is_followed, .. } = find_served(first.clone(), second.clone(), options).await?;
    let mover = Mover::new(Side::closed(first.clone()), Side::closed(second.clone()), options);
    let begins = match is_followed {
        true => mover.resume().await?,
        false => mover.take(Event::Start(MIGRATION)).await?,
    };
    let before = mover.look().await?;
    match begins {
        Next::Fill => drop(mover.fill().await?),
        _ => {
            mover.hand_over().await?;
            let after = mover.look().await?;
            if is_first_served(&before) == is_first_served(&after) {
                return Err(Error::new(Unexpected, "the same database is served as before"));
            }
        }
    }
    let authority = match (in_step, mover.resume().await?) {
        (false, Next::Served(Service::Alone { authority })) => authority,
        (true, Next::Served(Service::Alone { .. })) => match mover.take(Event::Tighten).await? {
            Next::Served(Service::Both { authority }) => authority,
            next => return Err(stuck(next)),
        },
        (_, next) => return Err(stuck(next)),
    };
    let (served, other) = match authority {
        Which::First => (first, second),
        Which::Second => (second, first),
    };
    let seat = Seat::new(Occupant::new(served));
    seat.put_beside(Some(Occupant::new(other)));
    if in_step {
        seat.keep_in_step(options.mirror_timeout).await?;
    }
    let follower = (!in_step).then_some((mover, authority));
    Ok(Arc::new(Moving { seat, follower }))
}

/// A database that is new says so, and would not be moved: the target could be opened instead.
async fn be_a_network(first: &dyn Backend) -> Result<()> {
    let head = first.head().await?;
    let before = head.record();
    if before.role != Role::None || before.membership.is_some() {
        return Ok(());
    }
    let record = RecordChange { before, after: before.with(Role::ActiveAlone) };
    let head_change = HeadChange { record: Some(record), ..HeadChange::default() };
    first.commit(&Commit { head: head_change, ..Commit::on(&head) }).await
}

fn is_first_served(pair: &Pair) -> bool {
    pair.first.is_some_and(|seen| seen.record.role.is_active())
}

fn stuck(next: Next) -> Error {
    Error::new(Unexpected, "the migration does not go on").with("next", format_args!("{next:?}"))
}

/// What is served, and what the other side is sent.
#[derive(Debug)]
struct Moving {
    seat: Arc<Seat>,
    follower: Option<(Mover, Which)>,
}

#[async_trait]
impl Layer for Moving {
    fn inner(&self) -> &dyn Backend {
        self.seat.as_ref()
    }

    /// A store that is opened by itself does not serve what is in step with something: as far as it can tell,
    /// the other side only follows.
    async fn head(&self) -> Result<Head> {
        shown(self.inner().head().await?)
    }

    async fn reopen(&self) -> Result<Head> {
        shown(self.inner().reopen().await?)
    }

    async fn commit(&self, commit: &Commit) -> Result<()> {
        self.inner().commit(commit).await?;
        if let Some((mover, authority)) = &self.follower
            && commit.expected.get().is_multiple_of(BEHIND)
        {
            mover.ship(*authority).await?;
        }
        Ok(())
    }
}

fn shown(head: Head) -> Result<Head> {
    let role = head.role.map(|role| match role {
        Role::ActiveSync => Role::ActiveAsync,
        role => role,
    });
    Ok(Head { role, ..head })
}
