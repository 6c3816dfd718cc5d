//! Entities by their ids, and what else they are found by.

use std::fmt::Debug;
use std::sync::Arc;

use serde::Serialize;

use super::listing::{Listing, after, owned};
use super::{Map, Set};
use crate::domain::{Id, Page, PageRequest};
use crate::entity::StateEntity;
use crate::error::{Error, Result};

/// All entities of a kind, by id, and an index that finds them by other values. Cloning takes
/// constant time.
#[derive(Clone, Debug)]
pub struct Collection<E: StateEntity, I> {
    by_id: Map<E::Id, Arc<E>>,
    pub(super) index: I,
}

/// What finds entities by something else than their ids.
pub trait Index<E: StateEntity>: Default {
    /// Brings it up to date: `new`, if there is one, takes the place of `old`.
    fn update(&mut self, id: E::Id, old: Option<&E>, new: Option<&Arc<E>>);
}

/// For what is found by its id alone.
impl<E: StateEntity> Index<E> for () {
    fn update(&mut self, _: E::Id, _: Option<&E>, _: Option<&Arc<E>>) {}
}

/// Brings a map up to date in which each entity is under one key or none.
pub(super) fn update_map<K: Clone + Ord, V: Clone>(
    map: &mut Map<K, V>,
    old: Option<K>,
    new: Option<K>,
    value: V,
) {
    if old != new {
        old.map(|key| map.remove(&key));
        new.map(|key| map.insert(key, value));
    }
}

/// Brings a set up to date in which each entity has one key or none.
pub(super) fn update_set<K: Clone + Ord>(set: &mut Set<K>, old: Option<K>, new: Option<K>) {
    if old != new {
        old.map(|key| set.remove(&key));
        new.map(|key| set.insert(key));
    }
}

impl<E: StateEntity, I: Default> Default for Collection<E, I> {
    fn default() -> Self {
        Self { by_id: Map::new(), index: I::default() }
    }
}

impl<E: StateEntity, I> Collection<E, I> {
    /// The one with this id.
    #[must_use]
    pub fn get(&self, id: E::Id) -> Option<&Arc<E>> {
        self.by_id.get(&id)
    }

    /// All of them, by id; for identifiers, that is the order of creation.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Arc<E>> {
        self.by_id.values()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// The one with this id, or `NotFound`.
    pub(super) fn require(&self, id: E::Id) -> Result<&Arc<E>> {
        self.get(id).ok_or_else(|| Error::not_found(E::KIND, id))
    }

    /// Refuses an id that is taken, which a caller's own source of ids never draws.
    pub(super) fn check_fresh(&self, id: E::Id) -> Result<()> {
        match self.get(id) {
            Some(_) => Err(Error::already_exists(E::KIND, "id").with("id", id)),
            None => Ok(()),
        }
    }

    /// The last of them, by id.
    pub(super) fn last(&self) -> Option<&Arc<E>> {
        self.by_id.get_max().map(|(_, last)| last)
    }

    /// Those after an id; all of them after none.
    pub(crate) fn after(&self, id: Option<E::Id>) -> impl Iterator<Item = &Arc<E>> {
        self.by_id.range(after(id.as_ref())).map(|(_, entity)| entity)
    }

    /// Those before an id, the last one first; all of them before none.
    pub(super) fn before(&self, id: Option<E::Id>) -> impl Iterator<Item = &Arc<E>> {
        let end = id.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        self.by_id.range((std::ops::Bound::Unbounded, end)).rev().map(|(_, entity)| entity)
    }

    /// A page of those that match, by id.
    pub(super) fn page(
        &self,
        filter: &impl Serialize,
        request: &PageRequest,
        matches: impl Fn(&E) -> bool,
    ) -> Result<Page<Arc<E>>> {
        let listing = Listing::new(E::KIND, filter);
        let found = self.after(listing.start(request)?).filter(|entity| matches(entity));
        Ok(listing.take(request, found.cloned(), |entity| entity.id()))
    }

    /// A page of an owner's that match, by id.
    pub(super) fn page_of<O: Copy + Ord>(
        &self,
        (owner, index): (O, &Set<(O, E::Id)>),
        filter: &impl Serialize,
        request: &PageRequest,
        matches: impl Fn(&E) -> bool,
    ) -> Result<Page<Arc<E>>>
    where
        E::Id: Id,
    {
        let listing = Listing::new(E::KIND, filter);
        let ids = index.range(owned(owner, listing.start(request)?)).map(|(_, id)| *id);
        let found = ids.filter_map(|id| self.get(id)).filter(|entity| matches(entity));
        Ok(listing.take(request, found.cloned(), |entity| entity.id()))
    }
}

impl<E: StateEntity, I: Index<E>> Collection<E, I> {
    /// Puts one in. Gives the one that it replaces.
    pub(crate) fn put(&mut self, new: Arc<E>) -> Option<Arc<E>> {
        let id = new.id();
        let old = self.by_id.insert(id, new.clone());
        self.index.update(id, old.as_deref(), Some(&new));
        old
    }

    /// Takes one out.
    pub(crate) fn remove(&mut self, id: E::Id) -> Option<Arc<E>> {
        let old = self.by_id.remove(&id)?;
        self.index.update(id, Some(&old), None);
        Some(old)
    }
}
