//! Scripts as a person would write them: one line for each call.

use std::fmt::{Debug, Display, Write as _};

use ghostwire_store_core::ErrorKind;
use ghostwire_store_core::domain::*;

use super::call::{Answer, Call, Refusal, Rotation};
use super::scene::Known;

/// What was made is called by its number, in the order of making.
fn numbered<I: Id>(what: &str, known: &[I], id: I) -> String {
    match known.iter().position(|known| *known == id) {
        Some(place) => format!("{what} {}", place + 1),
        None => format!("a {what} that nobody made"),
    }
}

/// Keys of machines and nodes are one byte, again and again.
fn key(bytes: &[u8; 32]) -> u8 {
    bytes[0]
}

fn if_given<T: Display>(text: &mut String, what: &str, value: Option<T>) {
    if let Some(value) = value {
        let _ = write!(text, ", {what} {value}");
    }
}

fn if_changed<T: Debug>(text: &mut String, what: &str, change: &Change<T>) {
    if let Change::Set(value) = change {
        let _ = write!(text, ", {what} {value:?}");
    }
}

fn if_patched<T: Debug>(text: &mut String, what: &str, patch: &Patch<T>) {
    match patch {
        Patch::Keep => {}
        Patch::Clear => {
            let _ = write!(text, ", no {what}");
        }
        Patch::Set(value) => {
            let _ = write!(text, ", {what} {value:?}");
        }
    }
}

fn listed<T: Display>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<_> = items.into_iter().map(|item| item.to_string()).collect();
    if items.is_empty() { "nothing".to_owned() } else { items.join(" ") }
}

impl Known {
    fn user(&self, id: UserId) -> String {
        numbered("user", &self.users, id)
    }

    fn node(&self, id: NodeId) -> String {
        numbered("node", &self.nodes, id)
    }

    fn owner(&self, id: Option<UserId>) -> String {
        id.map_or_else(|| "nobody".to_owned(), |id| self.user(id))
    }

    fn preauth_key(&self, id: PreAuthKeyId) -> String {
        numbered("pre-auth key", &self.preauth_keys, id)
    }

    /// A call in words.
    #[allow(clippy::too_many_lines)]
    pub(super) fn describe(&self, call: &Call) -> String {
        match call {
            Call::CreateUser(user) => {
                let NewUser { name, identity, email, .. } = user;
                let mut text = match identity {
                    Identity::Local {} => format!("create local user {name}"),
                    Identity::Oidc { provider, subject } => {
                        format!("create user {name}, subject {subject} of {provider}")
                    }
                    Identity::PreAuth {} => format!("create user {name}, known by pre-auth keys"),
                };
                if_given(&mut text, "display name", user.display_name.as_ref());
                if_given(&mut text, "e-mail", email.as_ref());
                if_given(&mut text, "picture", user.picture_url.as_ref());
                text
            }
            Call::UpsertOidc(profile) => {
                let OidcProfile { provider, subject, name, .. } = profile;
                let mut text = format!("subject {subject} of {provider} signs in as {name}");
                if_given(&mut text, "display name", profile.display_name.as_ref());
                if_given(&mut text, "e-mail", profile.email.as_ref());
                if_given(&mut text, "picture", profile.picture_url.as_ref());
                text
            }
            Call::UpdateUser(id, patch, expected) => {
                let mut text = format!("update {}", self.user(*id));
                if_changed(&mut text, "name", &patch.name);
                if_patched(&mut text, "display name", &patch.display_name);
                if_patched(&mut text, "e-mail", &patch.email);
                if_patched(&mut text, "picture", &patch.picture_url);
                if_given(&mut text, "if at revision", *expected);
                text
            }
            Call::DeleteUser(id, cascade) => {
                let with = if *cascade { " with all that is theirs" } else { "" };
                format!("delete {}{with}", self.user(*id))
            }
            Call::CreatePreAuthKey(key) => {
                let uses = if key.reusable { "reusable" } else { "one-time" };
                let kind = if key.ephemeral { " for ephemeral nodes" } else { "" };
                let owner = self.owner(key.user);
                let mut text = format!("create {uses} pre-auth key{kind} of {owner}");
                let _ = write!(text, ", tags {:?}", key.tags);
                if_given(&mut text, "expires", key.expires_at);
                text
            }
            Call::RevokePreAuthKey(id) => format!("revoke {}", self.preauth_key(*id)),
            Call::DeletePreAuthKey(id) => format!("delete {}", self.preauth_key(*id)),
            Call::Register(registration) => {
                let Registration { machine_key, node_key, hostname, .. } = registration;
                let admission = match &registration.admission {
                    Admission::PreAuthKey(id) => self.preauth_key(*id),
                    Admission::User { user, method } => {
                        format!("{} ({method:?})", self.user(*user))
                    }
                };
                let mut text = format!(
                    "register machine {} with node key {} by {admission}, host name {hostname}",
                    key(machine_key.as_bytes()),
                    key(node_key.as_bytes())
                );
                if_given(&mut text, "disco key", registration.disco_key.map(|k| key(k.as_bytes())));
                if registration.host_info != HostInfo::default() {
                    if_given(&mut text, "host info", Some(registration.host_info.as_str()));
                }
                if_given(&mut text, "expires", registration.expires_at);
                text
            }
            Call::UpdateNode(id, patch, expected) => {
                let mut text = format!("update {}", self.node(*id));
                if_changed(&mut text, "label", &patch.label);
                if_changed(&mut text, "host name", &patch.hostname);
                if_changed(&mut text, "tags", &patch.tags);
                match patch.user {
                    Patch::Set(user) => if_given(&mut text, "owner", Some(self.user(user))),
                    _ => if_patched(&mut text, "owner", &patch.user),
                }
                if_changed(&mut text, "host info", &patch.host_info);
                if_patched(&mut text, "disco key", &patch.disco_key);
                if_patched(&mut text, "expiry", &patch.expires_at);
                if_given(&mut text, "if at revision", *expected);
                text
            }
            Call::RotateKey(Rotation { machine_key, from, to, disco_key, expires_at }) => {
                let [machine, from, to] =
                    [machine_key.as_bytes(), from.as_bytes(), to.as_bytes()].map(key);
                let mut text = format!("machine {machine} rotates node key {from} to {to}");
                if_given(&mut text, "disco key", disco_key.map(|k| key(k.as_bytes())));
                if_given(&mut text, "expires", *expires_at);
                text
            }
            Call::ExpireNodes(nodes, at) => {
                let nodes = listed(nodes.iter().map(|id| self.node(*id)));
                format!("expire {nodes} at {at}")
            }
            Call::DeleteNode(id) => format!("delete {}", self.node(*id)),
            Call::BackfillAddresses => "backfill addresses".to_owned(),
            Call::ReapEphemeral => "reap ephemeral nodes".to_owned(),
            Call::Connect(id, session, endpoints) => {
                let mut text = format!("{} connects, session {session}", self.node(*id));
                if_changed(&mut text, "endpoints", endpoints);
                text
            }
            Call::Heartbeat(id, session, endpoints) => {
                let mut text = format!("{} is alive, session {session}", self.node(*id));
                if_changed(&mut text, "endpoints", endpoints);
                text
            }
            Call::Disconnect(id, session) => {
                format!("{} disconnects, session {session}", self.node(*id))
            }
            Call::DisconnectAll => "all disconnect".to_owned(),
            Call::Advertise(id, prefixes) => {
                format!("{} advertises {}", self.node(*id), listed(prefixes))
            }
            Call::Approve(id, prefixes) => {
                format!("approve of {}: {}", self.node(*id), listed(prefixes))
            }
            Call::DeleteRoute(id) => format!("delete {}", numbered("route", &self.routes, *id)),
            Call::SwapPolicy(expected, document) => {
                let mut text = format!("swap the policy to {:?}", document.as_str());
                if_given(&mut text, "if in force is", *expected);
                text
            }
            Call::RollbackPolicy(expected, to) => {
                format!("roll the policy back to {to}, if in force is {expected}")
            }
            Call::PrunePolicies(keep) => format!("prune policies, keep {keep}"),
            Call::CreateDnsRecord(NewDnsRecord { name, kind, value, ttl }) => {
                let mut text = format!("create DNS record {name} {kind:?} {:?}", value.as_str());
                if_given(&mut text, "ttl", *ttl);
                text
            }
            Call::UpdateDnsRecord(id, patch, expected) => {
                let mut text = format!("update {}", numbered("DNS record", &self.dns_records, *id));
                if_changed(&mut text, "value", &patch.value);
                if_patched(&mut text, "ttl", &patch.ttl);
                if_given(&mut text, "if at revision", *expected);
                text
            }
            Call::DeleteDnsRecord(id) => {
                format!("delete {}", numbered("DNS record", &self.dns_records, *id))
            }
            Call::PutSetting(document, expected) => {
                let mut text = format!("put settings {document:?}");
                if_given(&mut text, "if at revision", *expected);
                text
            }
            Call::ResetSetting(kind) => format!("reset settings {}", kind.name()),
            Call::BeginSession(session) => {
                let owner = match session.owner {
                    SessionOwner::User(id) => self.user(id),
                    SessionOwner::Node(id) => self.node(id),
                };
                let mut text = format!("begin a session of {owner}");
                if_given(&mut text, "client", session.client.as_ref());
                if_given(&mut text, "ends", Some(session.expires_at));
                text
            }
            Call::TouchSession(id, ends) => {
                let mut text = format!("touch {}", numbered("session", &self.sessions, *id));
                if_given(&mut text, "ends", *ends);
                text
            }
            Call::EndSession(id) => format!("end {}", numbered("session", &self.sessions, *id)),
            Call::SweepSessions => "sweep sessions".to_owned(),
            Call::CreateApiKey(key) => {
                let mut text = format!("create API key of {}", self.owner(key.user));
                if_given(&mut text, "description", key.description.as_ref());
                if_given(&mut text, "expires", key.expires_at);
                text
            }
            Call::RevokeApiKey(id) => {
                format!("revoke {}", numbered("API key", &self.api_keys, *id))
            }
            Call::DeleteApiKey(id) => {
                format!("delete {}", numbered("API key", &self.api_keys, *id))
            }
            Call::RecordMetrics(points) => {
                let point = |point: &MetricPoint| {
                    let node = point.node.map_or("the network".to_owned(), |id| self.node(id));
                    let MetricPoint { metric, at, value, .. } = point;
                    format!("\n        {metric} of {node} at {at} = {}", value.get())
                };
                format!("record {}", listed(points.iter().map(point)))
            }
            Call::Transact(preconditions, steps) => {
                let mut text = "transaction".to_owned();
                for precondition in preconditions {
                    let _ = write!(text, "\n        only if {precondition:?}");
                }
                for (call, _) in steps {
                    let _ = write!(text, "\n        {}", self.describe(call));
                }
                text
            }
        }
    }
}

/// What a call came to, in words.
pub(super) fn outcome(outcome: &Result<Answer, Refusal>) -> String {
    match outcome {
        Ok(Answer::Count(count)) => format!("{count}"),
        Ok(Answer::Nodes(nodes)) => format!("{} nodes", nodes.len()),
        Ok(_) => "done".to_owned(),
        Err(refusal) => refusal.describe(),
    }
}

impl Refusal {
    pub(super) fn describe(&self) -> String {
        let mut text = self.kind.name().to_owned();
        if let ErrorKind::AlreadyExists { constraint } = self.kind {
            let _ = write!(text, " ({constraint})");
        }
        if let Some(step) = &self.step {
            let _ = write!(text, " in step {step}");
        }
        text
    }
}

/// What is found and what ought to be: the lines that differ, or all if their number does.
pub(super) fn difference(found: &str, wanted: &str) -> String {
    if found.lines().count() != wanted.lines().count() {
        return format!("\n  is          {found}\n  ought to be {wanted}");
    }
    let mut text = String::new();
    for (found, wanted) in
        found.lines().zip(wanted.lines()).filter(|(found, wanted)| found != wanted)
    {
        let _ = write!(text, "\n  is          {}\n  ought to be {}", found.trim(), wanted.trim());
    }
    text
}
