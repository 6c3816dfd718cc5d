//! `operations::AclOperations`.

use ghostwire_store::Result;
use ghostwire_store::domain::{DocumentText, PolicyVersion};

use super::Store;

/// `update_policy`: all rules are one document, whose version is the store's. Whoever edited another
/// version is refused (`Conflict`).
pub(super) async fn update(
    store: &dyn Store,
    edited: Option<PolicyVersion>,
    document: &str,
) -> Result<PolicyVersion> {
    Ok(store.policies().swap(edited, DocumentText::new(document)?).await?.version)
}
