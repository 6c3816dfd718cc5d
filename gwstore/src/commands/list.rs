//! `gwstore list`.

mod columns;
mod pages;

use ghostwire_store::config::Config;
use ghostwire_store::domain::{Clock, PageRequest, SystemClock, UserId, UserName};
use ghostwire_store::{EntityKind, Error, ErrorKind, Result};
use ghostwire_store_core::state::State;
use serde_json::json;

use crate::cli::{ListArgs, Listing};
use crate::failure::{Failure, Outcome};
use crate::output::{Shell, Table};
use crate::session::Reading;
use pages::Filters;

/// Prints a page of a listing, or all of it.
pub(super) async fn run(config: &Config, args: &ListArgs, shell: &mut Shell<'_>) -> Outcome {
    check_filters(args)?;
    let reading = Reading::open(config).await?;
    let listed = list(&reading, args, shell).await;
    reading.close().await?;
    listed
}

/// A filter that would be ignored is a mistake.
fn check_filters(args: &ListArgs) -> Outcome {
    use Listing::{ApiKeys, Nodes, PreauthKeys, Presence, Sessions};
    let filters: [(&str, bool, &[Listing]); 3] = [
        ("--user", args.user.is_some(), &[Nodes, ApiKeys, PreauthKeys, Sessions]),
        ("--tag", args.tag.is_some(), &[Nodes]),
        ("--online", args.online.is_some(), &[Nodes, Presence]),
    ];
    for (filter, is_given, listings) in filters {
        if is_given && !listings.contains(&args.entity) {
            let known: Vec<_> = listings.iter().map(|listing| pages::name(*listing)).collect();
            let error = Error::invalid("this listing does not have this filter")
                .with("filter", filter)
                .with("listing", pages::name(args.entity))
                .with("for", known.join(", "));
            return Err(Failure::usage(error.during("list")));
        }
    }
    Ok(())
}

async fn list(reading: &Reading, args: &ListArgs, shell: &mut Shell<'_>) -> Outcome {
    let view = reading.store.view();
    let filters = Filters {
        user: args.user.as_deref().map(|user| find_user(&view, user)).transpose()?,
        tag: args.tag.as_deref().map(str::parse).transpose()?,
        online: args.online,
    };
    let mut request = PageRequest { limit: args.limit, cursor: args.cursor.clone() };
    let mut table = Table::new(columns::titles(args.entity));
    // As the store does: its time may be ahead of the clock.
    let now = SystemClock.now().max(view.time());
    loop {
        let page = pages::read(reading, &view, args.entity, &filters, &request)
            .await
            .map_err(|error| error.during("list"))?;
        if page.items.is_empty() {
            shell.note("there is nothing to list");
        }
        if shell.json {
            for item in &page.items {
                shell.object(&columns::object(item)?)?;
            }
        } else {
            let rows: Vec<_> =
                page.items.iter().map(|item| columns::cells(item, &view, now)).collect();
            table.rows(shell, &rows)?;
        }
        let Some(next) = page.next else { return Ok(()) };
        if !args.all {
            // Also for the quiet: a part must not be taken for the whole.
            return if shell.json {
                shell.object(&json!({ "next": next }))
            } else {
                shell.caution(format_args!("there is more: --all, or --cursor {next}"));
                Ok(())
            };
        }
        request = PageRequest::after(args.limit, next);
    }
}

/// A user by id, or by a name that only one has; a name may look like an id.
fn find_user(state: &State, text: &str) -> Result<UserId> {
    if let Some(user) = text.parse().ok().and_then(|id| state.users().get(id)) {
        return Ok(user.id);
    }
    let name: UserName = text.parse()?;
    let mut named = state.users().iter().filter(|user| user.name == name);
    match (named.next(), named.next()) {
        (Some(user), None) => Ok(user.id),
        (None, _) => Err(Error::new(ErrorKind::NotFound, "does not exist")
            .about(EntityKind::User)
            .with("name", name)
            .during("list")),
        _ => Err(Error::invalid("several users have this name; give an id")
            .with("name", name)
            .with("help", "`gwstore list users --all` shows the ids")
            .during("list")),
    }
}
