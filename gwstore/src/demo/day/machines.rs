//! Users and machines: they arrive, show signs of life, change their keys and go.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use ghostwire_store::domain::{
    Admission, Clock, Endpoint, EndpointList, GroupSet, HostInfo, MachineKey, NewPreAuthKey,
    NewUser, Node, NodeKey, OidcProfile, PreAuthKeyId, RegisterMethod, Registration, SessionNumber,
    Text, Update, UserId, expired,
};
use ghostwire_store::{ErrorKind, Result};

use super::{Day, broken, check, refused};

/// Machines that arrive, at scale 1: with a key of their own, as ephemeral ones, in all.
const ONE_TIME: usize = 64;
const EPHEMERAL: usize = 64;
const MACHINES: usize = 2048;

/// Machines that try to use one key at once.
const RIVALS: usize = 32;

/// The sample's reusable key for ephemeral machines.
const EPHEMERAL_KEY: &str = "sampleci";

impl Day<'_> {
    pub(super) async fn admit_people_and_machines(&mut self) -> Result<()> {
        let users = self.people().await?;
        let owner = *users.first().ok_or_else(|| broken("there are no users"))?;
        let keys = self.one_time_keys(owner, ONE_TIME * self.scale + 1).await?;
        let (rivals_key, keys) = keys.split_last().ok_or_else(|| broken("there are no keys"))?;
        let mut arriving = Vec::new();
        for number in 0..MACHINES * self.scale {
            let admission = match keys.get(number) {
                Some(key) => Admission::PreAuthKey(*key),
                None if number < (ONE_TIME + EPHEMERAL) * self.scale => {
                    Admission::PreAuthKey(self.ephemeral_key()?)
                }
                None => {
                    let user = users.get(number % users.len().max(1)).copied().unwrap_or(owner);
                    Admission::User { user, method: RegisterMethod::Cli }
                }
            };
            arriving.push(self.registration(number, admission)?);
        }
        let store = self.store;
        let calls = arriving.iter().cloned().map(|machine| store.nodes().register(machine));
        let nodes = self.waves("register", calls).await?;

        // The answer to the first one was lost: it asks again, and hears the same.
        if let (Some(first), Some(node)) = (arriving.first(), nodes.first()) {
            let again = store.nodes().register(first.clone());
            let again = self.measure.call("register (repeated)", again).await?;
            check(again == *node, "a repeated registration got another answer")?;
        }
        self.rivals(*rivals_key).await?;

        // Some machines sign in again, with new keys; they keep what they are.
        let mut again = Vec::new();
        for machine in arriving.iter().skip((ONE_TIME + EPHEMERAL) * self.scale).step_by(8) {
            let node_key = NodeKey::from_bytes(self.draw()?)?;
            again.push(Registration { node_key, ..machine.clone() });
        }
        let calls = again.into_iter().map(|machine| store.nodes().register(machine));
        for node in self.waves("register (known)", calls).await? {
            let known = nodes.iter().find(|known| known.id == node.id);
            check(
                known.is_some_and(|known| known.ipv4 == node.ipv4 && known.label == node.label),
                "a known machine lost its address or its name",
            )?;
        }
        self.connect(&nodes).await
    }

    async fn people(&mut self) -> Result<Vec<UserId>> {
        let store = self.store;
        let mut calls: Vec<super::Call<'_, _>> = Vec::new();
        for number in 0..8 {
            let name = format!("person-{number}");
            calls.push(store.users().create(NewUser::local(name.parse()?)));
        }
        for number in 0..8 {
            calls.push(store.users().upsert_oidc(OidcProfile {
                provider: "https://id.example.com/realms/mesh".parse()?,
                subject: Text::new(format!("day-{number}"))?,
                name: format!("guest-{number}").parse()?,
                display_name: None,
                email: Some(format!("guest-{number}@example.com").parse()?),
                email_verified: true,
                picture_url: None,
                groups: GroupSet::empty(),
            }));
        }
        let users = self.waves("create user", calls).await?;
        Ok(users.iter().map(|user| user.id).collect())
    }

    /// Makes keys, and checks each against its secret, as a control plane does before it registers
    /// a machine.
    async fn one_time_keys(&mut self, owner: UserId, count: usize) -> Result<Vec<PreAuthKeyId>> {
        let store = self.store;
        let new = NewPreAuthKey { user: Some(owner), ..NewPreAuthKey::default() };
        let calls = (0..count).map(|_| store.preauth_keys().create(new.clone()));
        let made = self.waves("create pre-auth key", calls).await?;
        let calls =
            made.iter().map(|(_, secret)| store.preauth_keys().authenticate(secret.expose()));
        let keys = self.waves("check pre-auth key", calls).await?;
        Ok(keys.iter().map(|key| key.id).collect())
    }

    fn ephemeral_key(&self) -> Result<PreAuthKeyId> {
        let view = self.store.view();
        let key = view.preauth_keys().by_prefix(&EPHEMERAL_KEY.parse()?).map(|key| key.id);
        key.ok_or_else(|| broken("the sample's key for runners is missing"))
    }

    fn registration(&self, number: usize, admission: Admission) -> Result<Registration> {
        let info = format!(r#"{{"OS":"linux","IPNVersion":"1.6.0","Hostname":"day-{number}"}}"#);
        Ok(Registration {
            machine_key: MachineKey::from_bytes(self.draw()?)?,
            node_key: NodeKey::from_bytes(self.draw()?)?,
            disco_key: None,
            hostname: format!("day-{number}").parse()?,
            host_info: info.parse::<HostInfo>()?,
            admission,
            expires_at: None,
            families: None,
        })
    }

    /// Many machines with one key that admits one: exactly one gets in.
    async fn rivals(&mut self, key: PreAuthKeyId) -> Result<()> {
        let store = self.store;
        let mut machines = Vec::new();
        for number in 0..RIVALS {
            machines.push(self.registration(number, Admission::PreAuthKey(key))?);
        }
        let calls = machines.into_iter().map(|machine| store.nodes().register(machine));
        let results = self.measure.wave("register (rivals)", calls).await;
        let (admitted, others): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
        check(admitted.len() == 1, "a one-time key admitted other than one machine")?;
        others.iter().try_for_each(|other| {
            refused(other, &ErrorKind::PermissionDenied, "a used key was not refused")
        })
    }

    async fn connect(&mut self, nodes: &[Arc<Node>]) -> Result<()> {
        let store = self.store;
        let session = SessionNumber::new(1)?;
        let mut calls = Vec::new();
        for (number, node) in nodes.iter().enumerate() {
            let endpoints = Update::Set(self.endpoints(number)?);
            calls.push(store.presence().connect(node.id, session, endpoints));
        }
        self.waves("connect", calls).await.map(|_| ())
    }

    /// From the block for documentation, RFC 5737.
    fn endpoints(&self, number: usize) -> Result<EndpointList> {
        let [port, high] = self.draw::<2>()?;
        let port = 1024 + u16::from_be_bytes([high, port]) / 2;
        let host = u8::try_from(number % 254).unwrap_or(0) + 1;
        let addr = SocketAddr::new(Ipv4Addr::new(203, 0, 113, host).into(), port);
        EndpointList::new([Endpoint::new(addr, self.clock.now())])
    }

    /// A sign of life of every machine that is online; a third of them have moved.
    pub(super) async fn heartbeats(&mut self, rounds: usize) -> Result<()> {
        let store = self.store;
        for round in 0..rounds {
            self.pass(30);
            let view = store.view();
            let mut calls = Vec::new();
            for (number, presence) in view.presence().iter().filter(|is| is.online).enumerate() {
                let endpoints = if (number + round).is_multiple_of(3) {
                    Update::Set(self.endpoints(number)?)
                } else {
                    Update::Keep
                };
                let beat = store.presence().heartbeat(presence.node, presence.session, endpoints);
                calls.push(beat);
            }
            self.waves("heartbeat", calls).await?;
        }
        Ok(())
    }

    pub(super) async fn rotate_keys(&mut self) -> Result<()> {
        let store = self.store;
        let view = store.view();
        let now = view.time();
        let valid = view.nodes().iter().filter(|node| !expired(node.expires_at, now));
        let mut calls = Vec::new();
        let mut wanted = Vec::new();
        for node in valid.step_by(3) {
            let to = NodeKey::from_bytes(self.draw()?)?;
            wanted.push(to);
            calls.push(store.nodes().rotate_key(
                node.machine_key,
                node.node_key,
                to,
                node.disco_key,
                node.expires_at,
            ));
        }
        let rotated = self.waves("rotate key", calls).await?;
        check(
            rotated.iter().map(|node| node.node_key).eq(wanted),
            "a rotated key is not the one that was asked for",
        )
    }

    /// Ephemeral machines go away, and are removed after the cutoff.
    pub(super) async fn reap(&mut self) -> Result<()> {
        let store = self.store;
        let view = store.view();
        let leaving = view.presence().iter().filter(|presence| {
            presence.online && view.nodes().get(presence.node).is_some_and(|node| node.ephemeral)
        });
        let leaving: Vec<_> = leaving.map(|presence| (presence.node, presence.session)).collect();
        let calls =
            leaving.iter().map(|(node, session)| store.presence().disconnect(*node, *session));
        self.waves("disconnect", calls).await?;
        self.pass(31 * 60);
        let reaped = self.measure.call("reap ephemeral", store.nodes().reap_ephemeral()).await?;
        check(
            leaving.iter().all(|(node, _)| reaped.contains(node)),
            "an ephemeral machine that left was not removed",
        )?;
        // A late sign of life does not bring one back.
        if let Some((node, session)) = leaving.first() {
            let late = store.presence().heartbeat(*node, *session, Update::Keep).await;
            refused(&late, &ErrorKind::NotFound, "a removed machine came back")?;
        }
        Ok(())
    }
}
