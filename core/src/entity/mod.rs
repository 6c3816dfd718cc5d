//! The one list of entities. Whatever differs between them by nothing but a type or a name follows
//! from it; the rules of each are in its file in [`state`](crate::state).

#[macro_use]
mod define;

use std::fmt::{Debug, Display};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use serde::de::MapAccess;
use serde::{Deserialize, Serialize};

use crate::block::{BlockBuilder, ChangeKind};
use crate::command::{self, ClockCommand, Restore, Restored, Transaction};
use crate::domain::{self, AuditEntry, EndpointList, MetricPoint, NodeId, Timestamp, nil_id};
use crate::error::{Error, Result};
use crate::log::feed::{Consumer, FeedRow};
use crate::schema::{KeyField, Record, RowKey, TableSchema, WriterPosition};
use crate::state::{self, Context, Decision, State};

// In an order in which what is referred to comes first.
entities! {
    Setting    "setting"     (SettingKind: document.kind()) Settings    = 10 "settings"     settings:     Settings    SettingCommand;
    User       "user"        (UserId: id)                   Users       = 1  "users"        users:        Users       UserCommand;
    PreAuthKey "preauth_key" (PreAuthKeyId: id)             PreAuthKeys = 6  "preauth_keys" preauth_keys: PreAuthKeys PreAuthKeyCommand;
    Node       "node"        (NodeId: id)                   Nodes       = 2  "nodes"        nodes:        Nodes       NodeCommand;
    Instance   "instance"    (InstanceId: id)               Instances   = 17 "instances"    instances:    Instances   InstanceCommand;
    Presence   "presence"    (NodeId: node)                 Presence    = 3  "presence"     presence:     Presences   PresenceCommand;
    Route      "route"       (RouteId: id)                  Routes      = 4  "routes"       routes:       Routes      RouteCommand;
    ApiKey     "api_key"     (ApiKeyId: id)                 ApiKeys     = 5  "api_keys"     api_keys:     ApiKeys     ApiKeyCommand;
    Policy     "policy"      (PolicyVersion: version)       Policies    = 7  "policies"     policies:     Policies    PolicyCommand;
    DnsRecord  "dns_record"  (DnsRecordId: id)              DnsRecords  = 8  "dns_records"  dns_records:  DnsRecords  DnsCommand;
    Session    "session"     (SessionId: id)                Sessions    = 9  "sessions"     sessions:     Sessions    SessionCommand;
    SignIn     "sign_in"     (SignInId: id)                 SignIns     = 16 "sign_ins"     sign_ins:     SignIns     SignInCommand;
}

/// An entity that is part of the state, which is held in memory.
pub trait StateEntity: Record + Clone + Debug + PartialEq + Send + Sync + 'static {
    /// What names one of them.
    type Id: KeyField + Copy + Ord + Debug + Display + Send + Sync + 'static;

    /// What kind of entity it is.
    const KIND: EntityKind;

    /// Its id, which is all of its row's key.
    fn id(&self) -> Self::Id;
}

/// What holds for an entity of the state, whichever command is about it.
pub(crate) trait Rules: StateEntity {
    /// Refuses what it may not be, whatever else there is.
    fn check(&self) -> Result<()> {
        Ok(())
    }

    /// Refuses it if it breaks a rule beside the entities that are there. No other has its id.
    fn check_beside(&self, state: &State) -> Result<()>;

    /// Brings up to date what else in the state follows from it. In its table, `new` has taken the
    /// place of `old` already.
    fn follow(_state: &mut State, _old: Option<&Self>, _new: Option<&Self>) {}

    /// The last time at which something happened to it.
    fn last_event(&self) -> Option<Timestamp>;

    /// Dates what happened to it, and what will end, anew.
    fn redate(
        &mut self,
        event: impl Fn(Timestamp) -> Timestamp,
        end: impl Fn(Timestamp) -> Timestamp,
    );
}

/// Implements [`Rules::last_event`] and [`Rules::redate`] from the names of the fields.
macro_rules! dates {
    (events: $($event:ident),+; ends: $($end:ident),*) => {
        fn last_event(&self) -> Option<$crate::domain::Timestamp> {
            let events = [$($crate::entity::Date::time(&self.$event)),+];
            events.into_iter().flatten().max()
        }

        fn redate(
            &mut self,
            event: impl Fn($crate::domain::Timestamp) -> $crate::domain::Timestamp,
            end: impl Fn($crate::domain::Timestamp) -> $crate::domain::Timestamp,
        ) {
            $($crate::entity::Date::set(&mut self.$event, &event);)+
            let _ = &end;
            $($crate::entity::Date::set(&mut self.$end, &end);)*
        }
    };
}
pub(crate) use dates;

/// A field with a time, or with one that may be missing.
pub(crate) trait Date {
    fn time(&self) -> Option<Timestamp>;
    fn set(&mut self, time: impl Fn(Timestamp) -> Timestamp);
}

impl Date for Timestamp {
    fn time(&self) -> Option<Timestamp> {
        Some(*self)
    }

    fn set(&mut self, time: impl Fn(Timestamp) -> Timestamp) {
        *self = time(*self);
    }
}

impl Date for Option<Timestamp> {
    fn time(&self) -> Option<Timestamp> {
        *self
    }

    fn set(&mut self, time: impl Fn(Timestamp) -> Timestamp) {
        *self = self.map(time);
    }
}

/// When the last one was seen.
impl Date for EndpointList {
    fn time(&self) -> Option<Timestamp> {
        self.iter().map(|endpoint| endpoint.seen_at).max()
    }

    fn set(&mut self, time: impl Fn(Timestamp) -> Timestamp) {
        if !self.as_slice().is_empty() {
            *self = self.redated(time);
        }
    }
}

/// Refuses what no entity may be. Callers choose ids, and nothing could be read again that is stored
/// under none.
fn check<E: Rules>(entity: &E) -> Result<()> {
    if entity.id().is_nil() {
        return Err(nil_id().about(E::KIND));
    }
    entity.check()
}

/// The entity with what happened after `now` dated to it; `None` if nothing did. An end that is
/// later still was counted from then, so it keeps its distance.
fn brought_back<E: Rules>(entity: &Arc<E>, now: Timestamp) -> Option<Arc<E>> {
    let latest = entity.last_event().filter(|latest| *latest > now)?;
    let mut entity = E::clone(entity);
    entity.redate(
        |at| at.min(now),
        |end| if end >= latest { now.saturating_add(end.since(latest)) } else { end },
    );
    Some(entity.into())
}

/// Sorts tables.
const fn by_number<const N: usize>(mut tables: [Table; N]) -> [Table; N] {
    let mut rounds = 0;
    while rounds < N {
        let mut rest = tables.as_mut_slice();
        while let [first, second, ..] = rest {
            if *first as u8 > *second as u8 {
                std::mem::swap(first, second);
            }
            rest = match rest.split_first_mut() {
                Some((_, rest)) => rest,
                None => &mut [],
            };
        }
        rounds += 1;
    }
    tables
}
