use super::{Oracle, Predicted, changed, expect, patched, plus_one, remove, taken};
use crate::model::call::{Answer, Fresh};
use crate::model::values::parsed;
use crate::prelude::*;

impl Oracle {
    pub(in super::super) fn policy_in_force(&self) -> Option<PolicyVersion> {
        self.policies.iter().map(|policy| policy.version).max()
    }

    pub(super) fn swap_policy(
        &mut self,
        expected: Option<PolicyVersion>,
        document: &DocumentText,
    ) -> Predicted {
        let current = self.policy_in_force();
        if current != expected {
            return Err(Conflict);
        }
        let next = current.map_or(1, |version| version.get() + 1);
        let policy = Policy {
            version: PolicyVersion::new(next).expect("a small number"),
            document: document.clone(),
            author: ActorName::system(),
            created_at: self.now,
        };
        self.policies.push(policy.clone());
        Ok(Answer::Policy(policy.into()))
    }

    pub(super) fn rollback_policy(
        &mut self,
        expected: PolicyVersion,
        to: PolicyVersion,
    ) -> Predicted {
        let old = self.policies.iter().find(|policy| policy.version == to);
        let document = old.ok_or(NotFound)?.document.clone();
        self.swap_policy(Some(expected), &document)
    }

    pub(super) fn prune_policies(&mut self, keep: u32) -> Answer {
        let keep = keep.max(1) as usize;
        let excess = self.policies.len().saturating_sub(keep);
        self.policies.drain(..excess);
        Answer::Count(excess as u64)
    }

    fn check_content(&self, record: &DnsRecord) -> Predicted<()> {
        let content = |record: &DnsRecord| (record.name.clone(), record.kind, record.value.clone());
        for other in &self.dns_records {
            if other.id != record.id && content(other) == content(record) {
                return Err(taken("content"));
            }
        }
        Ok(())
    }

    pub(super) fn create_dns_record(&mut self, new: &NewDnsRecord, fresh: &Fresh) -> Predicted {
        let record = DnsRecord {
            id: DnsRecordId::from_bytes(fresh.id),
            name: new.name.clone(),
            kind: new.kind,
            value: kept(new.kind, &new.value)?,
            ttl: new.ttl,
            created_at: self.now,
            updated_at: self.now,
            revision: Revision::FIRST,
        };
        self.check_content(&record)?;
        self.dns_records.push(record.clone());
        Ok(Answer::DnsRecord(record.into()))
    }

    pub(super) fn update_dns_record(
        &mut self,
        id: DnsRecordId,
        patch: &DnsRecordPatch,
        expected: Option<Revision>,
    ) -> Predicted {
        let place = self.dns_records.iter().position(|record| record.id == id);
        let place = place.ok_or(NotFound)?;
        let record = self.dns_records[place].clone();
        expect(expected, record.revision)?;
        let mut wanted = DnsRecord {
            value: kept(record.kind, &changed(&record.value, &patch.value))?,
            ttl: patched(&record.ttl, &patch.ttl),
            ..record.clone()
        };
        self.check_content(&wanted)?;
        if wanted != record {
            wanted.updated_at = self.now;
            wanted.revision = plus_one(record.revision);
            self.dns_records[place] = wanted.clone();
        }
        Ok(Answer::DnsRecord(wanted.into()))
    }

    pub(super) fn delete_dns_record(&mut self, id: DnsRecordId) -> Predicted {
        remove(&mut self.dns_records, |record| record.id == id)
    }

    /// What a name has of a kind, by value.
    fn dns_set(&self, name: &DnsName, kind: DnsRecordKind) -> Vec<DnsRecord> {
        let is_in = |record: &&DnsRecord| record.name == *name && record.kind == kind;
        let mut set: Vec<_> = self.dns_records.iter().filter(is_in).cloned().collect();
        set.sort_by(|a, b| a.value.cmp(&b.value));
        set
    }

    pub(in super::super) fn fingerprint(&self, name: &DnsName, kind: DnsRecordKind) -> Fingerprint {
        Fingerprint::of(self.dns_set(name, kind).iter().map(|record| (record.id, record.revision)))
    }

    pub(super) fn put_dns_records(
        &mut self,
        set: &NewDnsRecordSet,
        expected: Option<Fingerprint>,
        fresh: &Fresh,
    ) -> Predicted {
        let NewDnsRecordSet { name, kind, values, ttl } = set;
        let values: Vec<_> =
            values.iter().map(|value| kept(*kind, value)).collect::<Predicted<_>>()?;
        if expected.is_some_and(|expected| expected != self.fingerprint(name, *kind)) {
            return Err(Conflict);
        }
        let is_in = |record: &DnsRecord| record.name == *name && record.kind == *kind;
        self.dns_records.retain(|record| !is_in(record) || values.contains(&record.value));
        for record in self.dns_records.iter_mut().filter(|record| is_in(record)) {
            if record.ttl != *ttl {
                record.ttl = *ttl;
                record.updated_at = self.now;
                record.revision = plus_one(record.revision);
            }
        }
        for value in values {
            if !self.dns_records.iter().any(|record| is_in(record) && record.value == value) {
                self.dns_records.push(DnsRecord {
                    id: fresh.record(&value),
                    name: name.clone(),
                    kind: *kind,
                    value,
                    ttl: *ttl,
                    created_at: self.now,
                    updated_at: self.now,
                    revision: Revision::FIRST,
                });
            }
        }
        let records = self.dns_set(name, *kind).into_iter().map(Arc::new).collect();
        Ok(Answer::DnsRecords(records))
    }

    pub(super) fn delete_dns_records(
        &mut self,
        name: &DnsName,
        kind: DnsRecordKind,
        expected: Option<Fingerprint>,
    ) -> Predicted {
        if expected.is_some_and(|expected| expected != self.fingerprint(name, kind)) {
            return Err(Conflict);
        }
        let before = self.dns_records.len();
        self.dns_records.retain(|record| record.name != *name || record.kind != kind);
        Ok(Answer::Count((before - self.dns_records.len()) as u64))
    }

    pub(in super::super) fn setting(&self, kind: SettingKind) -> Option<&Setting> {
        self.settings.iter().find(|setting| setting.document.kind() == kind)
    }

    pub(super) fn put_setting(
        &mut self,
        document: &SettingDocument,
        expected: Option<Revision>,
    ) -> Predicted {
        if !is_sound(document) {
            return Err(InvalidArgument);
        }
        let known = self.setting(document.kind()).cloned();
        match (&known, expected) {
            (Some(setting), expected) => expect(expected, setting.revision)?,
            (None, Some(_)) => return Err(Conflict),
            (None, None) => {}
        }
        let revision = match known {
            Some(setting) if setting.document == *document => {
                return Ok(Answer::Setting(setting.into()));
            }
            Some(setting) => plus_one(setting.revision),
            None => Revision::FIRST,
        };
        let setting = Setting { document: document.clone(), revision, updated_at: self.now };
        self.settings.retain(|known| known.document.kind() != document.kind());
        self.settings.push(setting.clone());
        Ok(Answer::Setting(setting.into()))
    }

    /// The default is the next revision.
    pub(super) fn reset_setting(&mut self, kind: SettingKind) -> Predicted {
        let document = match kind {
            SettingKind::Network => SettingDocument::Network(NetworkSettings::default()),
            SettingKind::DerpMap => SettingDocument::DerpMap(DerpMap::default()),
            SettingKind::Dns => SettingDocument::Dns(DnsSettings::default()),
        };
        let is_it = |setting: &&mut Setting| setting.document.kind() == kind;
        let setting = self.settings.iter_mut().find(is_it).ok_or(NotFound)?;
        if setting.document == document {
            return Err(NotFound);
        }
        let revision = plus_one(setting.revision);
        *setting = Setting { document, revision, updated_at: self.now };
        Ok(Answer::Done)
    }
}

/// A value as a record of a kind keeps it.
fn kept(kind: DnsRecordKind, value: &Text<1024>) -> Predicted<Text<1024>> {
    let text = value.as_str();
    let as_it_is = |fits: bool| fits.then(|| text.to_owned());
    let name = |text: &str| text.parse::<DnsName>().ok().filter(|name| !name.is_wildcard());
    let kept = match kind {
        DnsRecordKind::A => as_it_is(text.parse::<Ipv4Addr>().is_ok()),
        DnsRecordKind::Aaaa => text.parse::<Ipv6Addr>().ok().map(|address| address.to_string()),
        DnsRecordKind::Cname => text.parse::<DnsName>().ok().map(|name| name.to_string()),
        DnsRecordKind::Txt => as_it_is(true),
        DnsRecordKind::Ptr => name(text).map(|name| name.to_string()),
        // Of the pool, only these have a number in front.
        DnsRecordKind::Mx => text.split_once(' ').and_then(|(preference, exchange)| {
            let (preference, exchange) = (preference.parse::<u16>().ok()?, name(exchange.trim())?);
            Some(format!("{preference} {exchange}"))
        }),
        DnsRecordKind::Srv => panic!("no script makes any"),
    };
    kept.map(|text| parsed(&text)).ok_or(InvalidArgument)
}

fn is_sound(document: &SettingDocument) -> bool {
    match document {
        SettingDocument::Network(network) => {
            let is_v4 = network.ipv4.map(|prefix| prefix.is_ipv4());
            let is_v6 = network.ipv6.map(|prefix| !prefix.is_ipv4());
            (is_v4, is_v6) != (None, None) && is_v4 != Some(false) && is_v6 != Some(false)
        }
        SettingDocument::DerpMap(map) => {
            let mut codes: Vec<_> = map.regions.values().map(|region| &region.code).collect();
            codes.sort();
            codes.dedup();
            codes.len() == map.regions.len()
        }
        SettingDocument::Dns(dns) => dns.nameservers.len() <= 16,
    }
}
