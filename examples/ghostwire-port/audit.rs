//! `audit::record_event`, of what the store does not see itself.

use ghostwire_store::domain::{Actor, AuditEntry, AuditId, AuditResult, ResourceKind};

use super::{Result, Store};

/// A sign-in that was refused.
pub(super) async fn denied(store: &dyn Store, who: Actor, random: [u8; 10]) -> Result<()> {
    let at = store.clock().now()?;
    let (id, kind) = (AuditId::time_ordered(at, random), "auth".parse::<ResourceKind>()?);
    let line = AuditEntry::new((at, id), who, "auth.login".parse()?, kind, "console".parse()?);
    let details = Some(r#"{"reason":"unknown user"}"#.parse()?);
    let line = AuditEntry { result: AuditResult::Denied, details, ..line };
    store.audit().append(vec![line]).await
}
