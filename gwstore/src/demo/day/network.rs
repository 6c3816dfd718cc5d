//! What administrators change: policies, routes, DNS; and what routers do meanwhile.

use std::sync::Arc;

use ghostwire_store::command::Transaction;
use ghostwire_store::domain::{
    DnsRecordKind, DnsRecordPatch, DnsSettings, DocumentText, NewDnsRecord, Node, Patch,
    PolicyVersion, Prefix, SessionNumber, SettingDocument, Text, Update,
};
use ghostwire_store::{ErrorKind, Result};

use super::{Day, broken, check, refused};
use crate::demo::sample;

/// Pairs of machines that lead to one prefix, at scale 1.
const PAIRS: usize = 16;

/// A prefix of the sample with two routers.
const SAMPLE_PREFIX: &str = "10.20.0.0/16";

impl Day<'_> {
    pub(super) async fn policies(&mut self) -> Result<()> {
        let store = self.store;
        let first = store.policies().current().await?.map(|policy| policy.version);
        let mut current = first;
        for (number, policy) in sample::POLICIES.iter().cycle().take(24).enumerate() {
            let document = DocumentText::new(format!("// Edit {number}.\n{policy}"))?;
            let swap = store.policies().swap(current, document);
            current = Some(self.measure.call("swap policy", swap).await?.version);
            self.pass(60);
        }
        // Somebody who still looks at the first version must not undo the others.
        let stale = store.policies().swap(first, DocumentText::empty()).await;
        refused(&stale, &ErrorKind::Conflict, "a stale policy swap was not refused")?;
        let (Some(current), Some(first)) = (current, first) else {
            return Err(broken("there is no policy"));
        };
        let back = store.policies().rollback(current, first);
        let back = self.measure.call("roll policy back", back).await?;
        let next = PolicyVersion::new(current.get() + 1)?;
        let text = store.policies().get(first).await?.map(|policy| policy.document.clone());
        check(
            back.version == next && Some(&back.document) == text.as_ref(),
            "a policy was not rolled back",
        )
    }

    pub(super) async fn routes_and_failovers(&mut self) -> Result<()> {
        let store = self.store;
        let view = store.view();
        let routers = view.nodes().iter().filter(|node| {
            !node.ephemeral
                && node.hostname.as_str().starts_with("day-")
                && view.presence().is_online(node.id)
        });
        let routers: Vec<Arc<Node>> = routers.take(2 * PAIRS * self.scale).cloned().collect();
        let mut prefixes = Vec::new();
        for number in 0..PAIRS * self.scale {
            let (high, low) = (100 + number / 256, number % 256);
            prefixes.push(format!("10.{high}.{low}.0/24").parse::<Prefix>()?);
        }
        let pairs = || routers.chunks(2).zip(&prefixes);
        let led = || pairs().flat_map(|(pair, prefix)| pair.iter().map(|node| (node.id, *prefix)));
        let calls = led().map(|(node, prefix)| store.routes().advertise(node, vec![prefix], None));
        self.waves("advertise route", calls).await?;
        let calls = led().map(|(node, prefix)| store.routes().approve(node, vec![prefix], None));
        self.waves("approve route", calls).await?;

        let mut failing = vec![SAMPLE_PREFIX.parse()?];
        failing.extend(prefixes);
        for prefix in failing {
            self.fail_over(prefix).await?;
        }
        Ok(())
    }

    /// The router that carries a prefix goes down: another takes over in the same commit.
    async fn fail_over(&mut self, prefix: Prefix) -> Result<()> {
        let store = self.store;
        let carries = || store.view().routes().primary(prefix).map(|route| route.node);
        let down = carries().ok_or_else(|| broken("a prefix has no primary route"))?;
        let session = store.view().presence().get(down).map(|presence| presence.session);
        let session = session.ok_or_else(|| broken("a primary route's node is not online"))?;
        let going = store.presence().disconnect(down, session);
        self.measure.call("fail over", going).await?;
        let other = carries().ok_or_else(|| broken("nobody took a prefix over"))?;
        check(other != down, "a prefix stays with a router that is down")?;
        let found = store.routes().lookup(prefix.last()).await?.map(|route| route.node);
        check(found == Some(other), "an address is not routed to the router that took over")?;
        // It comes back, and does not disturb the other.
        let session = SessionNumber::new(session.get() + 1)?;
        store.presence().connect(down, session, Update::Keep).await?;
        self.pass(5);
        check(carries() == Some(other), "a prefix moved without need")
    }

    pub(super) async fn dns(&mut self) -> Result<()> {
        let store = self.store;
        let mut calls = Vec::new();
        for number in 0..64 {
            calls.push(store.dns().create(NewDnsRecord {
                name: format!("service-{number}.corp.example.com").parse()?,
                kind: DnsRecordKind::A,
                value: Text::new(format!("100.64.1.{number}"))?,
                ttl: None,
            }));
        }
        let records = self.waves("create DNS record", calls).await?;
        let mut calls = Vec::new();
        for (number, record) in records.iter().enumerate().take(32) {
            let value = Update::Set(Text::new(format!("100.64.2.{number}"))?);
            let patch = DnsRecordPatch { value, ttl: Patch::Set(120) };
            calls.push(store.dns().update(record.id, patch, Some(record.revision)));
        }
        self.waves("update DNS record", calls).await?;
        let calls = records.iter().skip(48).map(|record| store.dns().delete(record.id));
        self.waves("delete DNS record", calls).await?;
        let dns = DnsSettings {
            base_domain: Some("mesh.example.com".parse()?),
            magic_dns: true,
            nameservers: vec![Text::new("198.51.100.53")?],
            ..store.view().settings().dns().clone()
        };
        let put = store.settings().put(SettingDocument::Dns(dns), None);
        self.measure.call("put setting", put).await?;
        // Nothing of a transaction remains if one of its commands is refused.
        let before = store.digests().await?.state;
        let refused_one = store.transact(self.impossible(&records)?).await;
        refused(&refused_one, &ErrorKind::NotFound, "an impossible transaction was carried out")?;
        check(store.digests().await?.state == before, "a refused transaction left something behind")
    }

    /// A deletion that can be done, and the same one again.
    fn impossible(
        &self,
        records: &[Arc<ghostwire_store::domain::DnsRecord>],
    ) -> Result<Transaction> {
        use ghostwire_store::command::DnsCommand;
        let record = records.first().ok_or_else(|| broken("there are no DNS records"))?;
        let delete = || DnsCommand::Delete { id: record.id };
        Transaction::new().then(delete())?.then(delete())
    }
}
