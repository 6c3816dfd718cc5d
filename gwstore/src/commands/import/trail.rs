//! What an import leaves in the audit trail of the store that it adds to.

use std::collections::BTreeMap;

use ghostwire_store::domain::{AuditEntry, AuditId, Clock, SystemClock, Text};
use ghostwire_store::entropy::{Entropy, SystemEntropy};
use ghostwire_store::{EntityKind, Result, Store};

use crate::actor::actor;

/// Says of what kinds the import brings something, and from which file: a line for each kind, so
/// that whoever asks where a key came from finds it among the lines about keys. It is written
/// before anything else is, and so says what was begun.
///
/// A store that is made by the import gets no line: it is a copy, and its digests prove it.
pub(super) async fn write(
    store: &dyn Store,
    action: &str,
    sha256: &[u8; 32],
    new: &BTreeMap<EntityKind, u64>,
) -> Result<()> {
    let at = SystemClock.now().max(store.view().time());
    let entries = new.iter().filter(|(_, count)| **count > 0).map(|(entity, count)| {
        let mut random = [0; 10];
        SystemEntropy.fill(&mut random)?;
        let subject =
            format!("{count} of the file with sha256 {}", data_encoding::HEXLOWER.encode(sha256));
        let id = AuditId::time_ordered(at, random);
        Ok(AuditEntry::new(
            (at, id),
            actor().into(),
            Text::new(action)?,
            *entity,
            Text::new(subject)?,
        ))
    });
    store.audit().append(entries.collect::<Result<_>>()?).await
}
