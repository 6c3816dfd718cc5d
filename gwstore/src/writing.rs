//! A store that is written: its files, or by whoever has them open.

use std::sync::Arc;

use ghostwire_store::admin::Client;
use ghostwire_store::admin::protocol::Issue;
use ghostwire_store::command::{EntityRecord, Transaction};
use ghostwire_store::config::Config;
use ghostwire_store::domain::{ConsumerName, Secret};
use ghostwire_store::{Result, Store, View};

use crate::actor::actor;
use crate::live::{self, Found};
use crate::output::Shell;
use crate::session::{Reading, open_to_write, refuse_to_forget};

/// What an edit needs of a store, wherever that is. The audit trail names whoever calls.
pub(crate) enum Writing {
    Files(Arc<dyn Store>),
    /// The state as it was when it was asked for.
    Live(Client, View),
}

impl Writing {
    /// Opens an existing store; if another process has it open, asks that one.
    pub(crate) async fn open(config: &Config, shell: &mut Shell<'_>) -> Result<Self> {
        refuse_to_forget(config)?;
        match live::find(config, shell).await? {
            Found::Served(client) => {
                let reading = Reading::of_client(client.clone()).await?;
                let view = reading.store.view();
                reading.close().await?;
                Ok(Self::Live(client, view))
            }
            Found::Denied(error) => live::denied(Self::of_files(config).await, error),
            Found::Nobody => live::explained(Self::of_files(config).await, config),
        }
    }

    async fn of_files(config: &Config) -> Result<Self> {
        open_to_write(config).await.map(Self::Files)
    }

    pub(crate) fn view(&self) -> View {
        match self {
            Self::Files(store) => store.view(),
            Self::Live(_, view) => view.clone(),
        }
    }

    pub(crate) async fn transact(&self, transaction: Transaction) -> Result<()> {
        match self {
            Self::Files(store) => {
                store.acting_as(actor().into()).transact(transaction).await.map(drop)
            }
            Self::Live(client, _) => client.transact(actor(), transaction).await.map(drop),
        }
    }

    /// Makes something with a secret.
    pub(crate) async fn issue(&self, issue: Issue) -> Result<(EntityRecord, Secret)> {
        match self {
            Self::Files(store) => issue.carry_out(store.acting_as(actor().into()).as_ref()).await,
            Self::Live(client, _) => client.issue(actor(), issue).await,
        }
    }

    /// Keeps nothing for a consumer any longer.
    pub(crate) async fn remove_consumer(&self, name: &ConsumerName) -> Result<()> {
        match self {
            Self::Files(store) => store.consumers().remove(name).await.map(drop),
            Self::Live(client, _) => {
                client.clone().acting_as(actor()).remove_consumer(name.clone()).await
            }
        }
    }

    pub(crate) async fn close(&self) -> Result<()> {
        match self {
            Self::Files(store) => store.close().await,
            Self::Live(..) => Ok(()),
        }
    }
}
