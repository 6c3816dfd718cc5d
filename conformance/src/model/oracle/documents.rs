use super::{Oracle, Predicted, changed, expect, patched, plus_one, remove, taken};
use crate::model::call::{Answer, Fresh};
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
        let value = record.value.as_str();
        let fits = match record.kind {
            DnsRecordKind::A => value.parse::<Ipv4Addr>().is_ok(),
            DnsRecordKind::Aaaa => value.parse::<Ipv6Addr>().is_ok(),
            DnsRecordKind::Cname => value.parse::<DnsName>().is_ok(),
            DnsRecordKind::Txt => true,
        };
        if !fits {
            return Err(InvalidArgument);
        }
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
            value: new.value.clone(),
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
            value: changed(&record.value, &patch.value),
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

    pub(super) fn reset_setting(&mut self, kind: SettingKind) -> Predicted {
        remove(&mut self.settings, |setting| setting.document.kind() == kind)
    }
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
