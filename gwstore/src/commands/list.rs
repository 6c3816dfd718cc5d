//! Listings, and single items of them.

mod columns;
mod pages;

use ghostwire_store::Error;
use ghostwire_store::config::Config;
use ghostwire_store::domain::{Limit, PageRequest};
use ghostwire_store::portable::Item;
use ghostwire_store_core::schema::Table;
use serde_json::json;

pub(super) use self::columns::object;
use crate::excerpt::Wanted;
use crate::failure::{Failure, Outcome};
use crate::nouns::{Listing, PageArgs, Scene, ShowArgs, Source};
use crate::output::{self, Shell};
use crate::session::Reading;

/// Prints a page of a listing, or all of it.
pub(super) async fn run(config: &Config, listing: &Listing<'_>, shell: &mut Shell<'_>) -> Outcome {
    let table = match listing.source {
        Source::State(table, _) => table,
        Source::Metrics(_) => Table::Metrics,
        Source::Audit(_) => Table::Audit,
    };
    let columns = Columns::chosen(table, listing.page, shell)?;
    let (is_whole, request) = extent(listing.page, shell);
    let reading = match wanted(listing, &request, is_whole) {
        Some(wanted) => Reading::open_for(config, &wanted, shell).await?,
        None => Reading::open(config, shell).await?,
    };
    let listed = list(&reading, listing, (is_whole, request), &columns, shell).await;
    reading.close().await?;
    listed
}

/// The columns of a table that are shown, by their number.
struct Columns {
    titles: Vec<&'static str>,
    chosen: Vec<usize>,
}

impl Columns {
    fn chosen(table: Table, page: &PageArgs, shell: &Shell<'_>) -> Outcome<Self> {
        let titles = columns::titles(table);
        if page.columns.is_empty() {
            let chosen = (0..titles.len()).collect();
            return Ok(Self { titles, chosen });
        }
        if shell.json {
            let error = Error::invalid("--columns is for tables; JSON has every column");
            return Err(Failure::usage(error));
        }
        let find = |wanted: &String| {
            let wanted = wanted.to_ascii_uppercase().replace(['-', '_'], " ");
            let spaced = |title: &str| title.replace('-', " ");
            titles.iter().position(|title| spaced(title) == wanted).ok_or_else(|| {
                let error = Error::invalid("the table has no such column").with("column", wanted);
                Failure::usage(error.with("columns", titles.join(", ")))
            })
        };
        let chosen = page.columns.iter().map(find).collect::<Outcome<Vec<_>>>()?;
        Ok(Self {
            titles: chosen.iter().filter_map(|&at| titles.get(at).copied()).collect(),
            chosen,
        })
    }

    fn of(&self, row: &[String]) -> Vec<String> {
        self.chosen.iter().filter_map(|&at| row.get(at).cloned()).collect()
    }
}

/// Whether a listing is to be complete, and how it begins. A program that reads the beginning would take it for
/// the whole.
fn extent(page: &PageArgs, shell: &Shell<'_>) -> (bool, PageRequest) {
    let is_whole =
        page.all || (page.limit.is_none() && page.cursor.is_none() && !shell.is_terminal);
    let limit = page.limit.unwrap_or(if is_whole { Limit::MAX } else { Limit::default() });
    (is_whole, PageRequest { limit, cursor: page.cursor.clone() })
}

/// What a listing needs of a store; `None` if that is about all.
fn wanted<'a>(listing: &Listing<'a>, page: &'a PageRequest, is_whole: bool) -> Option<Wanted<'a>> {
    match listing.source {
        Source::State(_, selection) if is_whole && !selection.is_given() => None,
        Source::State(table, selection) => {
            let fingerprint = pages::fingerprint_of(table, selection);
            Some(Wanted::Selected { table, selection, page, is_whole, fingerprint })
        }
        Source::Metrics(selection) => {
            Some(Wanted::Series { refers: selection.refers()?, with_log: false })
        }
        Source::Audit(selection) => {
            Some(Wanted::Series { refers: selection.refers(), with_log: true })
        }
    }
}

async fn list(
    reading: &Reading,
    listing: &Listing<'_>,
    (is_whole, mut request): (bool, PageRequest),
    columns: &Columns,
    shell: &mut Shell<'_>,
) -> Outcome {
    let view = reading.store.view();
    let scene = Scene::of(&view);
    let limit = request.limit;
    let mut table = output::Table::new(&columns.titles);
    let mut items = shell.items();
    let since = (!listing.page.absolute_times).then_some(scene.now);
    loop {
        let page = pages::read(reading, &scene, &listing.source, &request).await?;
        if page.items.is_empty() {
            shell.note("there is nothing to list");
        }
        if shell.json {
            for item in &page.items {
                items.item(shell, &object(item, &scene)?)?;
            }
        } else {
            let cells = |item: &Item| columns.of(&columns::cells(item, &scene, since));
            table.rows(shell, &page.items.iter().map(cells).collect::<Vec<_>>())?;
        }
        let Some(next) = page.next else { return items.end(shell) };
        if !is_whole {
            items.end(shell)?;
            // Also for the quiet: a part must not be taken for the whole.
            return if shell.json && !shell.is_array {
                shell.object(&json!({ "next": next }))
            } else {
                shell.caution(format_args!("there is more: --all, or --cursor {next}"));
                Ok(())
            };
        }
        request = PageRequest::after(limit, next);
    }
}

/// Prints all that is known of one entity.
pub(super) async fn show(
    config: &Config,
    table: Table,
    args: &ShowArgs,
    shell: &mut Shell<'_>,
) -> Outcome {
    let wanted = args.target.text().map(|text| Wanted::Called(table, text));
    let reading = match wanted {
        Some(wanted) => Reading::open_for(config, &wanted, shell).await?,
        None => Reading::open(config, shell).await?,
    };
    let found = {
        let view = reading.store.view();
        let scene = Scene::of(&view);
        args.target
            .find(table, &scene)
            .and_then(|record| Ok(object(&Item::Entity(record), &scene)?))
    };
    reading.close().await?;
    let object = found?;
    if shell.json {
        return shell.object(&object);
    }
    let pairs = object.iter().map(|(name, value)| (name.as_str(), output::plain(value)));
    let pairs: Vec<_> = pairs.collect();
    shell.pairs(&pairs)
}
