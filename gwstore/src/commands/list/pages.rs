//! A page of any listing.

use std::sync::Arc;

use ghostwire_store::command::EntityRecord;
use ghostwire_store::domain::{Cursor, Page, PageRequest, Prefix, fingerprint};
use ghostwire_store::portable::Item;
use ghostwire_store::{Result, Store};

use crate::failure::Outcome;
use crate::nouns::{Scene, Source};

/// Reads a page.
pub(super) async fn read(
    store: &dyn Store,
    scene: &Scene<'_>,
    source: &Source<'_>,
    request: &PageRequest,
) -> Outcome<Page<Item>> {
    Ok(match source {
        Source::State(table, selection) => {
            let admits = selection.admits(scene)?;
            let mut items: Vec<_> = scene
                .state
                .images_of(*table)
                .filter(|record| admits(record))
                .map(|record| (position(&record), record))
                .collect();
            items.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
            let named = format!("{selection:?}");
            let fingerprint = fingerprint(&[table.name().as_bytes(), named.as_bytes()]);
            keyset(fingerprint, request, items)?
        }
        Source::Metrics(selection) => {
            store.metrics().range(&selection.query(scene)?, request).await?.map(Item::Metric)
        }
        Source::Audit(selection) => {
            let page = store.audit().query(&selection.query(scene)?, request).await?;
            page.map(|entry| Item::Audit(Arc::unwrap_or_clone(entry)))
        }
    })
}

/// Where an entity is in its listing: routes by prefix, policies with the newest first, all others in the
/// order of their ids.
fn position(record: &EntityRecord) -> Vec<u8> {
    match record {
        EntityRecord::Route(route) => by_prefix(route.prefix, route.id.as_bytes()),
        EntityRecord::Policy(policy) => (u64::MAX - policy.version.get()).to_be_bytes().to_vec(),
        other => other.key().as_bytes().to_vec(),
    }
}

fn by_prefix(prefix: Prefix, id: &[u8]) -> Vec<u8> {
    let mut position = match prefix.addr() {
        std::net::IpAddr::V4(address) => [&[4], address.octets().as_slice()].concat(),
        std::net::IpAddr::V6(address) => [&[6], address.octets().as_slice()].concat(),
    };
    position.push(prefix.prefix_len());
    position.extend(id);
    position
}

/// A page of items that are in the order of their positions.
fn keyset(
    fingerprint: [u8; 8],
    request: &PageRequest,
    items: Vec<(Vec<u8>, EntityRecord)>,
) -> Result<Page<Item>> {
    let after = match &request.cursor {
        Some(cursor) => Some(cursor.position_for(fingerprint)?),
        None => None,
    };
    let is_before =
        |(position, _): &(Vec<u8>, _)| after.is_some_and(|after| position.as_slice() <= after);
    let mut items = items.into_iter().skip_while(is_before);
    let mut page = Page::default();
    let mut last = None;
    for (position, record) in items.by_ref().take(request.limit.get()) {
        page.items.push(Item::Entity(record));
        last = Some(position);
    }
    if let (Some(last), Some(_)) = (last, items.next()) {
        page.next = Some(Cursor::new(fingerprint, &last)?);
    }
    Ok(page)
}
