//! What an operator changes, on a closed store.

mod credential;
mod document;
mod node;
mod safety;
mod target;
mod terminal;
mod user;

use serde_json::Value;

use crate::support::{Place, Ran};

/// A machine's keys as options.
pub(super) fn keys(number: u8) -> String {
    let hex = |of: u8| format!("{of:02x}").repeat(32);
    format!("--machine-key mkey:{} --node-key nodekey:{}", hex(number), hex(number + 100))
}

/// Two users and three machines.
pub(super) fn network(place: &Place, backend: &str) {
    for command in [
        "user create alice --email alice@example.com --display-name Alice",
        "user create bob --role network-admin",
        &format!("node create laptop --user alice {}", keys(1)),
        &format!("node create desk --user alice --expiration 24h {}", keys(2)),
        &format!("node register server --user bob {}", keys(3)),
    ] {
        place.on(backend, command).ok();
    }
}

pub(super) fn ids(ran: &Ran) -> Vec<String> {
    ran.items().iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect()
}

/// What an edit says of the only entity that it changed.
#[track_caller]
pub(super) fn change(ran: Ran) -> Value {
    let items = ran.ok().items();
    assert_eq!(items.len(), 1, "{items:#?}");
    items.into_iter().next().unwrap()
}
