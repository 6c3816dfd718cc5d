//! `gwstore consumers`: who follows the store's log, and what is kept for them.

use ghostwire_store::config::Config;
use ghostwire_store::domain::ConsumerName;
use ghostwire_store::log::Consumer;
use serde_json::json;

use crate::cli::ConsumersCommand;
use crate::failure::Outcome;
use crate::output::{Shell, Table, bytes};
use crate::session::Reading;
use crate::writing::Writing;

pub(super) async fn run(
    config: &Config,
    command: &ConsumersCommand,
    shell: &mut Shell<'_>,
) -> Outcome {
    match command {
        ConsumersCommand::Show => show(config, shell).await,
        ConsumersCommand::Remove { name } => remove(config, name, shell).await,
    }
}

async fn show(config: &Config, shell: &mut Shell<'_>) -> Outcome {
    let reading = Reading::open(config, shell).await?;
    let (consumers, position) =
        (reading.store.consumers().list().await, reading.store.view().position());
    reading.close().await?;
    let consumers = consumers?;
    let behind = |consumer: &Consumer| position.get().saturating_sub(consumer.position.get());
    if shell.json {
        let mut items = shell.items();
        for consumer in &consumers {
            let object = json!({
                "name": consumer.name,
                "position": consumer.position,
                "commits_behind": behind(consumer),
                "max_bytes": consumer.max_bytes,
                "resync": consumer.resync,
                "registered_at": consumer.registered_at,
            });
            items.item(shell, &object)?;
        }
        return items.end(shell);
    }
    if consumers.is_empty() {
        return shell.tell("Nobody follows the store's log.");
    }
    let rows: Vec<_> = consumers
        .iter()
        .map(|consumer| {
            let kept = match consumer.resync {
                true => "nothing: it has to copy the store anew".to_owned(),
                false => format!("up to {}", bytes(consumer.max_bytes)),
            };
            let numbers = [consumer.position.get(), behind(consumer)].map(|it| it.to_string());
            let [position, behind] = numbers;
            let registered = consumer.registered_at.to_string();
            vec![consumer.name.to_string(), position, behind, kept, registered]
        })
        .collect();
    Table::new(&["NAME", "POSITION", "COMMITS BEHIND", "KEPT", "REGISTERED"]).rows(shell, &rows)
}

async fn remove(config: &Config, name: &ConsumerName, shell: &mut Shell<'_>) -> Outcome {
    let store = Writing::open(config, shell).await?;
    let removed = store.remove_consumer(name).await;
    let closed = store.close().await;
    removed?;
    closed?;
    if shell.json {
        return shell.object(&json!({ "removed": name }));
    }
    shell.say(format_args!("Nothing is kept for {name} any longer."))
}
