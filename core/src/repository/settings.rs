//! Settings.

use std::sync::Arc;

use async_trait::async_trait;

use super::expect_reply;
use crate::command::SettingCommand;
use crate::domain::{Revision, Setting, SettingDocument, SettingKind};
use crate::error::Result;
use crate::store::StoreHandle;

/// The few documents that shape the whole network. What was never set is at its default; the view
/// gives what is in force, for example `view.settings().network()`.
#[async_trait]
pub trait SettingRepository: Send + Sync {
    /// A document that was set; `None` means that its default is in force.
    ///
    /// # Errors
    /// `Unavailable` after the store was closed.
    async fn get(&self, kind: SettingKind) -> Result<Option<Arc<Setting>>>;

    /// Replaces a document; with `expected`, only if that is still its revision.
    ///
    /// # Errors
    /// `Conflict`, `InvalidArgument`.
    async fn put(
        &self,
        document: SettingDocument,
        expected: Option<Revision>,
    ) -> Result<Arc<Setting>>;

    /// Back to the default.
    ///
    /// # Errors
    /// `NotFound` if it is there already.
    async fn reset(&self, kind: SettingKind) -> Result<()>;
}

#[async_trait]
impl SettingRepository for StoreHandle {
    async fn get(&self, kind: SettingKind) -> Result<Option<Arc<Setting>>> {
        Ok(self.open_view("settings.get")?.settings().get(kind).cloned())
    }

    async fn put(
        &self,
        document: SettingDocument,
        expected: Option<Revision>,
    ) -> Result<Arc<Setting>> {
        let command = SettingCommand::Put { document, expected };
        expect_reply!(self.run("settings.put", command).await?, Setting)
    }

    async fn reset(&self, kind: SettingKind) -> Result<()> {
        self.run("settings.reset", SettingCommand::Reset { kind }).await.map(|_| ())
    }
}
