//! Policies.

use std::sync::Arc;

use async_trait::async_trait;

use super::expect_reply;
use crate::command::PolicyCommand;
use crate::domain::{DocumentText, Page, PageRequest, Policy, PolicyVersion};
use crate::error::Result;
use crate::handle::StoreHandle;

/// Policies: versions of the document that says who may reach whom. The store does not read it.
///
/// ```
/// # ghostwire_store_memory::example(async |store| {
/// use ghostwire_store::ErrorKind;
/// use ghostwire_store::domain::DocumentText;
///
/// let first = store.policies().swap(None, DocumentText::new("{}")?).await?;
/// let second = DocumentText::new(r#"{"acls": []}"#)?;
/// let second = store.policies().swap(Some(first.version), second).await?;
///
/// // Somebody still has the first version on the screen.
/// let late = store.policies().swap(Some(first.version), DocumentText::new("")?).await;
/// assert_eq!(*late.unwrap_err().kind(), ErrorKind::Conflict);
///
/// let third = store.policies().rollback(second.version, first.version).await?;
/// assert_eq!(third.document, first.document);
/// # Ok(()) }).unwrap();
/// ```
#[async_trait]
pub trait PolicyRepository: Send + Sync {
    /// The policy in force; `None` if there never was one. An empty document is a policy, to be read
    /// as 'deny everything'.
    ///
    /// # Errors
    /// `Unavailable` after the store was closed.
    async fn current(&self) -> Result<Option<Arc<Policy>>>;

    /// One version; `None` if it is not kept.
    ///
    /// # Errors
    /// `Unavailable` after the store was closed.
    async fn get(&self, version: PolicyVersion) -> Result<Option<Arc<Policy>>>;

    /// A page of versions, newest first.
    ///
    /// # Errors
    /// `InvalidArgument` for a cursor of another listing; `Unavailable` after the store was closed.
    async fn history(&self, page: &PageRequest) -> Result<Page<Arc<Policy>>>;

    /// Puts `document` in force as the next version, if `expected` still is; `None` means that
    /// there is no policy yet.
    ///
    /// # Errors
    /// `Conflict` if another version is in force; those of any write.
    async fn swap(
        &self,
        expected: Option<PolicyVersion>,
        document: DocumentText,
    ) -> Result<Arc<Policy>>;

    /// Puts the document of version `to` in force again, as the next version.
    ///
    /// # Errors
    /// `Conflict` if another version than `expected` is in force; `NotFound` if `to` is not kept;
    /// those of any write.
    async fn rollback(&self, expected: PolicyVersion, to: PolicyVersion) -> Result<Arc<Policy>>;

    /// Forgets all but the newest `keep` versions; the one in force always stays. Gives how many went.
    ///
    /// # Behavior
    /// - Beyond what one commit holds it goes on in the next one.
    ///
    /// # Errors
    /// Those of any write.
    async fn prune(&self, keep: u32) -> Result<u64>;
}

#[async_trait]
impl PolicyRepository for StoreHandle {
    async fn current(&self) -> Result<Option<Arc<Policy>>> {
        Ok(self.open_view("policy.current")?.policies().current().cloned())
    }

    async fn get(&self, version: PolicyVersion) -> Result<Option<Arc<Policy>>> {
        Ok(self.open_view("policy.get")?.policies().get(version).cloned())
    }

    async fn history(&self, page: &PageRequest) -> Result<Page<Arc<Policy>>> {
        let view = self.open_view("policy.history")?;
        view.policies().history(page).map_err(|error| error.during("policy.history"))
    }

    async fn swap(
        &self,
        expected: Option<PolicyVersion>,
        document: DocumentText,
    ) -> Result<Arc<Policy>> {
        let command = PolicyCommand::Swap { expected, document };
        expect_reply!(self.run(command).await?, Policy)
    }

    async fn rollback(&self, expected: PolicyVersion, to: PolicyVersion) -> Result<Arc<Policy>> {
        let command = PolicyCommand::Rollback { expected, to };
        expect_reply!(self.run(command).await?, Policy)
    }

    async fn prune(&self, keep: u32) -> Result<u64> {
        let make = |part| PolicyCommand::Prune { keep, part }.into();
        self.count_in_parts(make).await
    }
}
