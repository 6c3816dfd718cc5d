//! A network in use, with secrets in every place that has one, and what its metrics say.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, dead_code, unreachable_pub)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ghostwire_store_core::Store;
use ghostwire_store_core::command::{Part, Transaction, UserCommand};
use ghostwire_store_core::domain::*;
use ghostwire_store_core::error::ErrorKind;
use ghostwire_store_core::options::StoreOptions;
use ghostwire_store_core::secrets::{HashKey, HashKeys};

/// Options with a hash key of the test.
pub fn options() -> StoreOptions {
    let key = HashKeys::from(HashKey::new([7; 32]));
    StoreOptions { hash_key: Some(Arc::new(key)), ..StoreOptions::default() }
}

/// What must be nowhere but in the store.
#[derive(Debug, Default)]
pub struct Planted(pub Vec<String>);

impl Planted {
    fn plant(&mut self, text: impl ToString) {
        self.0.push(text.to_string());
    }

    /// None of it is in this text.
    pub fn check_absent(&self, from: &str) {
        assert!(self.0.len() > 20);
        for planted in &self.0 {
            assert!(!from.contains(planted.as_str()), "{planted} is in what was exported");
        }
    }
}

/// Uses every repository, with some calls that are refused.
pub async fn use_everything(store: &Arc<dyn Store>) -> Planted {
    let mut planted = Planted::default();
    let (wall, hour) = (store.clock().now().unwrap(), Duration::from_secs(3600));
    for person in ["plantedalice", "plantedbob", "plantedcarol"] {
        planted.plant(person);
        let user = store.users().create(NewUser::local(person.parse().unwrap())).await.unwrap();
        planted.plant(user.id);
    }
    let taken = NewUser::local("plantedalice".parse().unwrap());
    let refused = store.users().create(taken).await.unwrap_err();
    assert!(matches!(refused.kind(), ErrorKind::AlreadyExists { .. }));
    let alice = store.view().users().iter().next().unwrap().id;

    let new = NewApiKey {
        user: Some(alice),
        expires_at: Some(wall.saturating_add(hour)),
        ..NewApiKey::default()
    };
    let (key, secret) = store.api_keys().create(new).await.unwrap();
    planted.plant(secret.expose());
    planted.plant(secret.expose().rsplit('-').next().unwrap());
    planted.plant(key.id);
    store.api_keys().authenticate(secret.expose()).await.unwrap();
    store.api_keys().authenticate("gwapi-000000000000-plantedguess").await.unwrap_err();
    planted.plant("plantedguess");
    store.api_keys().revoke(key.id).await.unwrap();

    let new = NewPreAuthKey { user: Some(alice), reusable: true, ..NewPreAuthKey::default() };
    let (preauth, secret) = store.preauth_keys().create(new).await.unwrap();
    planted.plant(secret.expose().rsplit('-').next().unwrap());
    store.preauth_keys().authenticate(secret.expose()).await.unwrap();
    for number in 1..=8_u8 {
        let keys = (
            MachineKey::from_bytes([number; 32]).unwrap(),
            NodeKey::from_bytes([number + 100; 32]).unwrap(),
        );
        planted.plant(keys.0);
        planted.plant(keys.1);
        let name = format!("plantedhost{number}");
        let admission = Admission::PreAuthKey(preauth.id);
        let new = Registration::new(keys.0, keys.1, name.parse().unwrap(), admission);
        planted.plant(&name);
        let node = store.nodes().register(new).await.unwrap();
        planted.plant(node.id);
        planted.plant(node.ipv4.unwrap());
        store.nodes().get(node.id).await.unwrap().unwrap();
        store.presence().open(node.id, Update::Keep).await.unwrap();
        let prefixes = vec![format!("10.{number}.0.0/16").parse().unwrap()];
        store.routes().advertise(node.id, prefixes, None).await.unwrap();
    }
    let owner = SessionOwner::User(alice);
    let new = NewSession { owner, node: None, client: None, expires_at: wall.saturating_add(hour) };
    let (session, token) = store.sessions().begin(new).await.unwrap();
    planted.plant(token.expose().rsplit('-').next().unwrap());
    planted.plant(session.id);
    store.sessions().authenticate(token.expose()).await.unwrap();
    let document = DocumentText::new(r#"{"acls": ["plantedpolicy"]}"#).unwrap();
    planted.plant("plantedpolicy");
    store.policies().swap(None, document.clone()).await.unwrap();
    store.policies().swap(None, document).await.unwrap_err();

    let metric: MetricName = "rx_bytes".parse().unwrap();
    let node = store.view().nodes().iter().next().unwrap().id;
    let point = |at| MetricPoint {
        node: Some(node),
        metric: metric.clone(),
        at,
        value: Sample::new(1.5).unwrap(),
    };
    store.metrics().record_many(vec![point(wall)]).await.unwrap();
    let query = MetricQuery {
        node: Some(Some(node)),
        metric: Some(metric.clone()),
        from: Timestamp::EPOCH,
        to: Timestamp::MAX,
    };
    store.metrics().aggregate(&query).await.unwrap();
    store.metrics().prune(wall.saturating_add(hour)).await.unwrap();

    let id = UserId::time_ordered(wall, [9; 10]);
    let user = NewUser::local("planteddave".parse().unwrap());
    planted.plant("planteddave");
    let both = Transaction::new()
        .then(UserCommand::Create { id, user })
        .unwrap()
        .then(UserCommand::Delete { id, cascade: true, part: Part::WHOLE })
        .unwrap();
    store.transact(both).await.unwrap();
    store.checkpoint().await.unwrap();
    store.probe().await.unwrap();
    planted
}

/// The series of a text for Prometheus.
#[derive(Debug, Default)]
pub struct Scrape {
    /// Type and help by name.
    pub families: BTreeMap<String, (String, String)>,
    /// Name, labels and value of each.
    pub series: Vec<(String, BTreeMap<String, String>, f64)>,
}

impl Scrape {
    pub fn of(text: &str) -> Self {
        let mut scrape = Self::default();
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, help) = help.split_once(' ').unwrap_or((help, ""));
                scrape.families.entry(name.to_owned()).or_default().1 = help.to_owned();
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').unwrap();
                scrape.families.entry(name.to_owned()).or_default().0 = kind.to_owned();
            } else {
                scrape.series.push(series(line));
            }
        }
        scrape
    }

    /// The family that a series belongs to: histograms have several series.
    pub fn family(&self, name: &str) -> String {
        let parts = ["_bucket", "_sum", "_count"];
        let base = parts.iter().find_map(|part| name.strip_suffix(part));
        match base
            .filter(|base| self.families.get(*base).is_some_and(|(kind, _)| kind == "histogram"))
        {
            Some(base) => base.to_owned(),
            None => name.to_owned(),
        }
    }

    /// The sum of the series with this name and these labels.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let is_so = |of: &BTreeMap<String, String>| {
            labels.iter().all(|(key, value)| of.get(*key).is_some_and(|found| found == value))
        };
        let found = self.series.iter().filter(|(known, of, _)| known == name && is_so(of));
        let values: Vec<f64> = found.map(|(_, _, value)| *value).collect();
        (!values.is_empty()).then(|| values.iter().sum())
    }
}

fn series(line: &str) -> (String, BTreeMap<String, String>, f64) {
    let (left, value) = line.rsplit_once(' ').unwrap();
    let value = value.parse().unwrap();
    let Some((name, labels)) = left.split_once('{') else {
        return (left.to_owned(), BTreeMap::new(), value);
    };
    let mut of = BTreeMap::new();
    let mut rest = labels.strip_suffix('}').unwrap();
    while let Some((key, after)) = rest.split_once("=\"") {
        let end = after.find('"').unwrap();
        let (text, next) = after.split_at(end);
        of.insert(key.to_owned(), text.to_owned());
        rest = next.trim_start_matches('"').trim_start_matches(',');
    }
    (name.to_owned(), of, value)
}
