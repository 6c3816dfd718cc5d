//! A page of any listing.

use std::sync::Arc;

use ghostwire_store::Result;
use ghostwire_store::admin::select::position;
use ghostwire_store::command::EntityRecord;
use ghostwire_store::domain::{Cursor, Page, PageRequest, fingerprint};
use ghostwire_store::portable::Item;
use ghostwire_store_core::schema::Table;

use crate::failure::Outcome;
use crate::nouns::{Scene, Selection, Source};
use crate::session::Reading;

/// What a cursor of a listing belongs to.
pub(super) fn fingerprint_of(table: Table, selection: &dyn Selection) -> [u8; 8] {
    let named = format!("{selection:?}");
    fingerprint(&[table.name().as_bytes(), named.as_bytes()])
}

/// Reads a page.
pub(super) async fn read(
    reading: &Reading,
    scene: &Scene<'_>,
    source: &Source<'_>,
    request: &PageRequest,
) -> Outcome<Page<Item>> {
    let store = reading.store.as_ref();
    Ok(match source {
        Source::State(table, selection) => {
            let admits = selection.admits(scene)?;
            let mut items: Vec<_> = scene
                .state
                .images_of(*table)
                .filter(|record| admits(record) && reading.means(record))
                .map(|record| (position(&record), record))
                .collect();
            items.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
            keyset(fingerprint_of(*table, *selection), request, items)?
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
