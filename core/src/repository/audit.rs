//! The audit trail.

use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;

use crate::backend::KeyRange;
use crate::block::{ChangeKind, RowChange};
use crate::domain::{
    AuditEntry, AuditQuery, Cursor, Id, Page, PageRequest, Timestamp, fingerprint, nil_id,
};
use crate::error::{Error, Result};
use crate::handle::StoreHandle;
use crate::schema::{Record, RowKey, Table};
use crate::series::AuditReader;
use crate::writer::SeriesRows;

/// A batch has at most this many entries.
const MAX_ENTRIES: usize = 10_000;

/// The audit trail: who did what. A record, and no proof: whoever can write the file can change it.
///
/// Administrative writes leave their lines in the same commit. A command that was refused or failed leaves
/// no trace, here neither: who wants a line of that appends it, as whatever else the control plane has to
/// say.
///
/// ```
/// # ghostwire_store_memory::example(async |store| {
/// use ghostwire_store::domain::{AuditQuery, Limit, NewUser, PageRequest};
///
/// let admin = store.acting_as("root@console".parse()?);
/// let alice = admin.users().create(NewUser::local("alice".parse()?)).await?;
///
/// let query = AuditQuery { newest_first: true, ..AuditQuery::default() };
/// let page = store.audit().query(&query, &PageRequest::first(Limit::MAX)).await?;
/// let line = &page.items[0];
/// assert_eq!((line.actor.as_str(), line.action.as_str()), ("root@console", "user.create"));
/// assert_eq!(line.subject.as_str(), alice.id.to_string());
///
/// use ghostwire_store::domain::{Actor, AuditEntry, AuditId, AuditResult, ResourceKind};
///
/// // A sign-in was refused.
/// let visitor = "eve@example.com".parse::<Actor>()?.at([192, 0, 2, 7].into());
/// let (at, kind) = (store.clock().now()?, "auth".parse::<ResourceKind>()?);
/// let id = AuditId::time_ordered(at, [7; 10]); // Draw it.
/// let line = AuditEntry::new((at, id), visitor, "auth.login".parse()?, kind, "console".parse()?);
/// let details = Some(r#"{"reason":"unknown user"}"#.parse()?);
/// let line = AuditEntry { result: AuditResult::Denied, details, ..line };
/// store.audit().append(vec![line.clone()]).await?;
/// let denied = AuditQuery { result: Some(AuditResult::Denied), ..AuditQuery::default() };
/// let page = store.audit().query(&denied, &PageRequest::first(Limit::MAX)).await?;
/// assert_eq!(*page.items[0], line);
/// # Ok(()) }).unwrap();
/// ```
#[async_trait]
pub trait AuditRepository: Send + Sync {
    /// Appends at most 10,000 entries: all, or none. One with the same time and id is replaced.
    ///
    /// # Errors
    /// `InvalidArgument` above 10,000, and for the nil id; those of any write.
    async fn append(&self, entries: Vec<AuditEntry>) -> Result<()>;

    /// A page of entries by time and id, oldest or newest first.
    ///
    /// # Behavior
    /// - A line that it shows is of a commit that the state shows, too.
    /// - Only times use an index: every other condition looks at each line between `from` and `to` until
    ///   the page is full.
    /// - A line is about its second subject as well: those about a user are found among those about nodes.
    ///
    /// # Errors
    /// `InvalidArgument` for a cursor of another query; `Unavailable`, `Corrupt`.
    async fn query(&self, query: &AuditQuery, page: &PageRequest) -> Result<Page<Arc<AuditEntry>>>;

    /// Removes all entries before a moment. `apply_retention` of the facade calls it as the
    /// configuration says.
    ///
    /// # Behavior
    /// - Blocks that hold such lines keep them until they are dropped themselves.
    ///
    /// # Errors
    /// Those of any write.
    async fn prune(&self, before: Timestamp) -> Result<()>;
}

fn moment(at: Timestamp) -> RowKey {
    RowKey::new().integer(at.as_micros())
}

#[async_trait]
impl AuditRepository for StoreHandle {
    async fn append(&self, entries: Vec<AuditEntry>) -> Result<()> {
        const OPERATION: &str = "audit.append";
        if entries.len() > MAX_ENTRIES {
            return Err(Error::invalid("a batch has at most 10000 entries")
                .about(crate::error::EntityKind::Audit)
                .with("entries", entries.len())
                .during(OPERATION));
        }
        if entries.iter().any(|entry| entry.id.is_nil()) {
            return Err(nil_id().about(crate::error::EntityKind::Audit).during(OPERATION));
        }
        let rows: Vec<_> =
            entries.iter().map(|entry| RowChange::put(ChangeKind::Created, entry)).collect();
        let view = self.open_view(OPERATION)?;
        if rows.is_empty() {
            return Ok(());
        }
        // An entry that is only in a block would replace this one when it is flushed.
        let appended: HashSet<_> = entries.iter().map(|entry| (entry.at, entry.id)).collect();
        let from = entries.iter().map(|entry| moment(entry.at)).min().unwrap_or_default();
        let range = KeyRange { from, ..KeyRange::all(Table::Audit) };
        let mut unflushed = view.unflushed_audit().within(&range, true);
        if unflushed.any(|(_, entry)| appended.contains(&(entry.at, entry.id))) {
            self.flush().await.map_err(|error| error.during(OPERATION))?;
        }
        self.append_series(OPERATION, SeriesRows { rows, position: None }).await
    }

    async fn query(&self, query: &AuditQuery, page: &PageRequest) -> Result<Page<Arc<AuditEntry>>> {
        const OPERATION: &str = "audit.query";
        let view = self.open_view(OPERATION)?;
        let named = serde_json::to_vec(query).unwrap_or_default();
        let fingerprint = fingerprint(&[b"audit", &named]);
        let read = async {
            let mut range = KeyRange {
                table: Table::Audit,
                from: query.from.map(moment).unwrap_or_default(),
                to: query.to.map(moment),
            };
            if let Some(cursor) = &page.cursor {
                let position = RowKey::from_bytes(cursor.position_for(fingerprint)?)?;
                // A cursor is not trusted: the query's bounds stay.
                if query.newest_first {
                    range.to = Some(range.to.map_or(position.clone(), |to| to.min(position)));
                } else {
                    range.from = range.from.max(position.successor());
                }
            }
            let unflushed = view.unflushed_audit();
            let limit = page.limit.get();
            let (backend, reverse) = (self.backend(), query.newest_first);
            let mut reader = AuditReader::new(backend, unflushed, range, reverse, limit + 1);
            let mut items = Vec::new();
            while items.len() <= limit {
                let Some(entry) = reader.next().await? else { break };
                if query.admits(&entry) {
                    items.push(entry);
                }
            }
            self.until_shown().await?;
            let more = items.len() > limit;
            items.truncate(limit);
            let next = match items.last().filter(|_| more) {
                Some(last) => Some(Cursor::new(fingerprint, last.key().as_bytes())?),
                None => None,
            };
            Ok(Page { items, next })
        };
        read.await.map_err(|error: Error| error.during(OPERATION))
    }

    async fn prune(&self, before: Timestamp) -> Result<()> {
        let range = KeyRange { table: Table::Audit, from: RowKey::new(), to: Some(moment(before)) };
        self.prune_series("audit.prune", vec![range]).await
    }
}
