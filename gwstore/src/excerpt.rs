//! What one command needs of a store that another process has open, and no more.

use std::sync::Arc;

use ghostwire_store::ErrorKind;
use ghostwire_store::admin::select::{Selection as Selected, position, public_part};
use ghostwire_store::admin::{Client, Excerpt};
use ghostwire_store::config::Config;
use ghostwire_store::domain::{Limit, PageRequest, Timestamp};
use ghostwire_store_core::schema::Table;

use crate::failure::{Failure, Outcome};
use crate::live::{self, Found};
use crate::nouns::{Scene, Selection};
use crate::output::Shell;
use crate::session::Reading;

/// So many may be called alike; more are not told apart.
const CANDIDATES: u32 = 1000;

/// What is wanted of a store.
pub(crate) enum Wanted<'a> {
    /// All of one table.
    Table(Table),
    /// What is called so.
    Called(Table, &'a str),
    /// What is selected: a page of it, or all.
    Selected {
        table: Table,
        selection: &'a dyn Selection,
        page: &'a PageRequest,
        is_whole: bool,
        fingerprint: [u8; 8],
    },
    /// A series, in which these texts name entities; of the audit trail also what is only in blocks.
    Series { refers: Vec<(Table, &'a str)>, with_log: bool },
}

impl Reading {
    /// Opens a store to be read. From a process that has it open only comes what is wanted.
    pub(crate) async fn open_for(
        config: &Config,
        wanted: &Wanted<'_>,
        shell: &mut Shell<'_>,
    ) -> Outcome<Self> {
        let found = live::find(config, shell).await?;
        let Found::Served(client) = found else { return Ok(Self::of_found(found, config).await?) };
        match take(client.clone(), wanted).await {
            Ok(excerpt) => Ok(Self::of_excerpt(client, Arc::new(excerpt)).await?),
            // That process is of an earlier release.
            Err(Failure::Error(error)) if *error.kind() == ErrorKind::Unsupported => {
                Ok(Self::of_client(client).await?)
            }
            Err(failure) => Err(failure),
        }
    }
}

async fn take(client: Client, wanted: &Wanted<'_>) -> Outcome<Excerpt> {
    let with_log = matches!(wanted, Wanted::Series { with_log: true, .. });
    let mut excerpt = Excerpt::new(client.clone(), with_log).await?;
    match wanted {
        Wanted::Table(table) => {
            let all = Selected::Where(Vec::new(), Timestamp::EPOCH);
            take_all(&mut excerpt, *table, &all, (None, u32::MAX)).await?;
        }
        Wanted::Called(table, text) => {
            let found = take_called(&mut excerpt, *table, text).await?;
            if !found && *table == Table::Routes {
                // Who names a node is told so.
                take_called(&mut excerpt, Table::Nodes, text).await?;
            }
        }
        Wanted::Series { refers, .. } => {
            for (table, text) in refers {
                take_called(&mut excerpt, *table, text).await?;
            }
        }
        Wanted::Selected { table, selection, page, is_whole, fingerprint } => {
            for (table, text) in selection.refers() {
                take_called(&mut excerpt, table, text).await?;
            }
            excerpt.keep_aside();
            let named = Reading::of_excerpt(client, Arc::new(excerpt.clone())).await?;
            let view = named.store.view();
            let scene = Scene::of(&view);
            let meant = Selected::Where(selection.conditions(&scene)?, scene.now);
            let after = page.cursor.as_ref().map(|it| it.position_for(*fingerprint));
            let after = after.transpose()?.map(<[u8]>::to_vec);
            // One more tells whether there is another page.
            let limit = if *is_whole { u32::MAX } else { most(page.limit) };
            take_all(&mut excerpt, *table, &meant, (after, limit)).await?;
        }
    }
    Ok(excerpt)
}

fn most(limit: Limit) -> u32 {
    u32::try_from(limit.get()).unwrap_or(u32::MAX).saturating_add(1)
}

async fn take_called(excerpt: &mut Excerpt, table: Table, text: &str) -> Outcome<bool> {
    // A secret that was pasted with its key goes nowhere.
    let is_of_credentials = matches!(table, Table::ApiKeys | Table::PreAuthKeys | Table::Sessions);
    let text = if is_of_credentials { public_part(text) } else { text };
    let called = Selected::Called(text.to_owned());
    let (found, _) = excerpt.take(table, &called, (None, CANDIDATES)).await?;
    Ok(!found.is_empty())
}

/// Also if the server gives fewer at a time.
async fn take_all(
    excerpt: &mut Excerpt,
    table: Table,
    selected: &Selected,
    (mut after, mut limit): (Option<Vec<u8>>, u32),
) -> Outcome {
    loop {
        let (records, more) = excerpt.take(table, selected, (after, limit)).await?;
        limit = limit.saturating_sub(u32::try_from(records.len()).unwrap_or(u32::MAX));
        let Some(last) = records.last().filter(|_| more && limit > 0) else { return Ok(()) };
        after = Some(position(last));
    }
}
