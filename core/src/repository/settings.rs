//! Settings.

use std::sync::Arc;

use async_trait::async_trait;

use super::expect_reply;
use crate::command::SettingCommand;
use crate::domain::{Revision, Setting, SettingDocument, SettingKind};
use crate::error::Result;
use crate::handle::StoreHandle;

/// Settings: three documents for the whole network (addresses and lifetimes, relays, resolvers).
///
/// [`View`](crate::view::View) gives what is in force, which may be a default.
///
/// ```
/// # ghostwire_store_memory::example(async |store| {
/// use ghostwire_store::domain::{SettingDocument, SettingKind};
///
/// assert_eq!(store.settings().get(SettingKind::Network).await?, None);
/// let mut network = store.view().settings().network().clone();
/// network.ephemeral_cutoff_seconds = 600;
/// store.settings().put(SettingDocument::Network(network), None).await?;
///
/// assert_eq!(store.view().settings().network().ephemeral_cutoff_seconds, 600);
/// store.settings().reset(SettingKind::Network).await?;
/// # Ok(()) }).unwrap();
/// ```
#[async_trait]
pub trait SettingRepository: Send + Sync {
    /// A document that was set; `None` means that its default is in force.
    ///
    /// # Errors
    /// `Unavailable` after the store was closed.
    async fn get(&self, kind: SettingKind) -> Result<Option<Arc<Setting>>>;

    /// Replaces a document as a whole.
    ///
    /// # Behavior
    /// - With `expected`, only if that is still its revision.
    /// - Addresses that nodes have stay, also if the new settings do not contain them.
    ///
    /// # Errors
    /// `Conflict` for another revision; `InvalidArgument`, naming the field; those of any write.
    async fn put(
        &self,
        document: SettingDocument,
        expected: Option<Revision>,
    ) -> Result<Arc<Setting>>;

    /// Back to the default.
    ///
    /// # Errors
    /// `NotFound` if it is in force already; those of any write.
    async fn reset(&self, kind: SettingKind) -> Result<()>;
}

#[async_trait]
impl SettingRepository for StoreHandle {
    async fn get(&self, kind: SettingKind) -> Result<Option<Arc<Setting>>> {
        Ok(self.open_view("setting.get")?.settings().get(kind).cloned())
    }

    async fn put(
        &self,
        document: SettingDocument,
        expected: Option<Revision>,
    ) -> Result<Arc<Setting>> {
        let command = SettingCommand::Put { document, expected };
        expect_reply!(self.run(command).await?, Setting)
    }

    async fn reset(&self, kind: SettingKind) -> Result<()> {
        self.run(SettingCommand::Reset { kind }).await.map(|_| ())
    }
}
