//! A page of any listing.

use std::sync::Arc;

use clap::ValueEnum;
use ghostwire_store::Result;
use ghostwire_store::command::EntityRecord;
use ghostwire_store::domain::{
    AuditQuery, Cursor, DnsRecordFilter, KeyFilter, MetricQuery, NodeFilter, Page, PageRequest,
    RouteFilter, SessionOwner, Tag, Timestamp, UserFilter, UserId, fingerprint,
};
use ghostwire_store::portable::Item;
use ghostwire_store::view::View;

use crate::cli::Listing;
use crate::session::Reading;

/// What the command line narrows a listing to.
#[derive(Debug, Clone, Default)]
pub(super) struct Filters {
    pub(super) user: Option<UserId>,
    pub(super) tag: Option<Tag>,
    pub(super) online: Option<bool>,
}

/// The listing as the command line calls it.
pub(super) fn name(listing: Listing) -> String {
    listing.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

/// Reads a page.
pub(super) async fn read(
    reading: &Reading,
    view: &View,
    listing: Listing,
    filters: &Filters,
    request: &PageRequest,
) -> Result<Page<Item>> {
    let keys = KeyFilter { user: filters.user, active_at: None };
    Ok(match listing {
        Listing::Users => items(view.users().list(&UserFilter::default(), request)?),
        Listing::Nodes => {
            let filter = NodeFilter {
                user: filters.user,
                tag: filters.tag.clone(),
                online: filters.online,
                ..NodeFilter::default()
            };
            items(view.list_nodes(&filter, request)?)
        }
        Listing::Instances => instances(view, request)?,
        Listing::Presence => presence(view, filters, request)?,
        Listing::Routes => items(view.routes().list(&RouteFilter::default(), request)?),
        Listing::ApiKeys => items(view.api_keys().list(&keys, request)?),
        Listing::PreauthKeys => items(view.preauth_keys().list(&keys, request)?),
        Listing::Policies => items(view.policies().history(request)?),
        Listing::DnsRecords => {
            items(view.dns_records().list(&DnsRecordFilter::default(), request)?)
        }
        Listing::Sessions => {
            items(view.sessions().list(filters.user.map(SessionOwner::User), request)?)
        }
        Listing::SignIns => items(view.sign_ins().list(request)?),
        Listing::Settings => settings(view, request)?,
        Listing::Metrics => {
            let everything = MetricQuery {
                node: None,
                metric: None,
                from: Timestamp::EPOCH,
                to: Timestamp::MAX,
            };
            reading.store.metrics().range(&everything, request).await?.map(Item::Metric)
        }
        Listing::Audit => {
            let page = reading.store.audit().query(&AuditQuery::default(), request).await?;
            page.map(|entry| Item::Audit(Arc::unwrap_or_clone(entry)))
        }
    })
}

fn items<E>(page: Page<Arc<E>>) -> Page<Item>
where
    EntityRecord: From<Arc<E>>,
{
    page.map(|entity| Item::Entity(entity.into()))
}

/// The store pages through presences only node by node.
fn presence(view: &View, filters: &Filters, request: &PageRequest) -> Result<Page<Item>> {
    let online = filters.online;
    let fingerprint = fingerprint(&[b"presence", &[online.map_or(2, u8::from)]]);
    let all = view
        .presence()
        .iter()
        .filter(|presence| online.is_none_or(|online| presence.online == online));
    keyset(
        fingerprint,
        request,
        all.map(|presence| (*presence.node.as_bytes(), EntityRecord::Presence(presence.clone()))),
    )
}

/// Few, and yet a limit is a limit.
fn instances(view: &View, request: &PageRequest) -> Result<Page<Item>> {
    let all = view.instances().iter();
    keyset(
        fingerprint(&[b"instances"]),
        request,
        all.map(|instance| (*instance.id.as_bytes(), EntityRecord::Instance(instance.clone()))),
    )
}

/// There are three at most, and yet a limit is a limit.
fn settings(view: &View, request: &PageRequest) -> Result<Page<Item>> {
    let all = view.settings().iter().enumerate();
    keyset(
        fingerprint(&[b"settings"]),
        request,
        all.map(|(position, setting)| {
            ((position as u64).to_be_bytes(), EntityRecord::Setting(setting.clone()))
        }),
    )
}

/// A page of items that are in the order of their keys.
fn keyset<const N: usize>(
    fingerprint: [u8; 8],
    request: &PageRequest,
    items: impl Iterator<Item = ([u8; N], EntityRecord)>,
) -> Result<Page<Item>> {
    let after = match &request.cursor {
        Some(cursor) => Some(cursor.position_for(fingerprint)?),
        None => None,
    };
    let mut items = items.skip_while(|(key, _)| after.is_some_and(|after| key.as_slice() <= after));
    let mut page = Page::default();
    let mut last = None;
    for (key, image) in items.by_ref().take(request.limit.get()) {
        page.items.push(Item::Entity(image));
        last = Some(key);
    }
    if let (Some(last), Some(_)) = (last, items.next()) {
        page.next = Some(Cursor::new(fingerprint, &last)?);
    }
    Ok(page)
}
