//! `operations::DnsOperations`.

use ghostwire_store::domain::{DnsName, DnsRecordKind, NewDnsRecordSet};

use super::{Result, Store};

/// `upsert_record`: whatever the name had of the kind is replaced.
pub(super) async fn upsert(
    store: &dyn Store,
    name: &str,
    kind: DnsRecordKind,
    value: &str,
    ttl: u32,
) -> Result<()> {
    let (name, values) = (name.parse()?, vec![value.parse()?]);
    store.dns().put(NewDnsRecordSet { name, kind, values, ttl: Some(ttl) }, None).await?;
    Ok(())
}

/// `query_records`.
pub(super) fn query(store: &dyn Store, name: &DnsName) -> Vec<String> {
    let view = store.view();
    view.dns_records().of_name(name).map(|it| format!("{} {}", it.kind, it.value)).collect()
}

/// `delete_record`.
pub(super) async fn delete(store: &dyn Store, name: &DnsName, kind: DnsRecordKind) -> Result<u64> {
    store.dns().delete_set(name, kind, None).await
}
