use super::{Oracle, Predicted, is_over, plus_one, taken};
use crate::model::call::{Answer, Fresh};
use crate::prelude::*;

/// What an admission gives to a node.
struct Admitted {
    user: Option<UserId>,
    tags: TagSet,
    ephemeral: Option<bool>,
    method: RegisterMethod,
    key: Option<PreAuthKeyId>,
}

impl Oracle {
    pub(super) fn register(&mut self, registration: &Registration, fresh: &Fresh) -> Predicted {
        let known = self.nodes.iter().position(|node| node.machine_key == registration.machine_key);
        if let Some(place) = self.repeated(registration, known) {
            return Ok(Answer::Node(self.bring_up_to_date(place, registration).into()));
        }
        let admitted = self.admit(&registration.admission)?;
        if let Some(place) = known
            && self.nodes[place].user != admitted.user
        {
            return Err(taken("machine_key"));
        }
        let mut others = self.nodes.iter().enumerate().filter(|(place, _)| Some(*place) != known);
        let is_taken = others.any(|(_, node)| node.node_key == registration.node_key);
        // Which of two refusals comes first the contract leaves open; this one is the later here.
        if known.is_none() {
            self.free_ipv4()?;
            self.free_ipv6()?;
        }
        if is_taken {
            return Err(taken("node_key"));
        }
        let node = match known {
            Some(place) => self.rekey(place, registration, &admitted),
            None => self.new_node(registration, &admitted, fresh)?,
        };
        if let Some(id) = admitted.key {
            for key in &mut self.preauth_keys {
                if key.id == id && key.used_at.is_none() {
                    key.used_at = Some(self.now);
                    key.revision = plus_one(key.revision);
                }
            }
        }
        Ok(Answer::Node(node.into()))
    }

    /// What a client says of itself counts whenever it says it.
    fn bring_up_to_date(&mut self, place: usize, registration: &Registration) -> Node {
        let old = self.nodes[place].clone();
        let mut node = old.clone();
        node.hostname = registration.hostname.clone();
        if registration.host_info.as_str() != "{}" {
            node.host_info = registration.host_info.clone();
        }
        if registration.disco_key.is_some() {
            node.disco_key = registration.disco_key;
        }
        if node != old {
            node.updated_at = self.now;
            node.revision = plus_one(old.revision);
        }
        self.nodes[place] = node.clone();
        node
    }

    /// The node of a machine that repeats its registration with the key that admitted it.
    fn repeated(&self, registration: &Registration, known: Option<usize>) -> Option<usize> {
        let Admission::PreAuthKey(id) = registration.admission else { return None };
        let node = &self.nodes[known?];
        let repeats = node.preauth_key == Some(id)
            && node.node_key == registration.node_key
            && !is_over(node.expires_at, self.now);
        known.filter(|_| repeats)
    }

    fn admit(&self, admission: &Admission) -> Predicted<Admitted> {
        match admission {
            Admission::User { user, method } => {
                if !self.has_user(*user) {
                    return Err(NotFound);
                }
                Ok(Admitted {
                    user: Some(*user),
                    tags: TagSet::empty(),
                    ephemeral: None,
                    method: *method,
                    key: None,
                })
            }
            Admission::PreAuthKey(id) => {
                let key = self.preauth_keys.iter().find(|key| key.id == *id);
                let key = key.ok_or(NotFound)?;
                let is_used_up = !key.reusable && key.used_at.is_some();
                if is_used_up || key.revoked_at.is_some() || is_over(key.expires_at, self.now) {
                    return Err(PermissionDenied);
                }
                Ok(Admitted {
                    user: key.user,
                    tags: key.tags.clone(),
                    ephemeral: Some(key.ephemeral),
                    method: RegisterMethod::AuthKey,
                    key: Some(*id),
                })
            }
        }
    }

    fn rekey(&mut self, place: usize, registration: &Registration, admitted: &Admitted) -> Node {
        let node = self.nodes[place].clone();
        // A registration counts as a change, even if it brings nothing new.
        let rekeyed = Node {
            tags: if admitted.tags.is_empty() { node.tags.clone() } else { admitted.tags.clone() },
            hostname: registration.hostname.clone(),
            node_key: registration.node_key,
            disco_key: registration.disco_key,
            host_info: registration.host_info.clone(),
            register_method: admitted.method,
            preauth_key: admitted.key.or(node.preauth_key),
            ephemeral: admitted.ephemeral.unwrap_or(node.ephemeral),
            expires_at: registration.expires_at,
            updated_at: self.now,
            revision: plus_one(node.revision),
            ..node.clone()
        };
        self.nodes[place] = rekeyed.clone();
        rekeyed
    }

    fn new_node(
        &mut self,
        registration: &Registration,
        admitted: &Admitted,
        fresh: &Fresh,
    ) -> Predicted<Node> {
        let id = NodeId::from_bytes(fresh.id);
        let node = Node {
            id,
            user: admitted.user,
            tags: admitted.tags.clone(),
            hostname: registration.hostname.clone(),
            label: self.free_label(registration.hostname.as_str(), id),
            machine_key: registration.machine_key,
            node_key: registration.node_key,
            disco_key: registration.disco_key,
            ipv4: self.free_ipv4()?,
            ipv6: self.free_ipv6()?,
            host_info: registration.host_info.clone(),
            register_method: admitted.method,
            preauth_key: admitted.key,
            ephemeral: admitted.ephemeral == Some(true),
            expires_at: registration.expires_at,
            created_at: self.now,
            updated_at: self.now,
            revision: Revision::FIRST,
            families: AddressFamilies::Both,
            settings: None,
        };
        self.nodes.push(node.clone());
        Ok(node)
    }

    fn free_label(&self, hostname: &str, id: NodeId) -> DnsLabel {
        let label = label_of(hostname);
        let is_taken = |label: &str| self.nodes.iter().any(|node| node.label.as_str() == label);
        let digits = id.to_string().replace('-', "");
        let mut wanted = label.clone();
        for length in [4, 8, 16, 32] {
            if !is_taken(&wanted) {
                break;
            }
            let suffix = &digits[32 - length..];
            let room = 63 - 1 - length;
            let base: String = label.chars().take(room).collect();
            wanted = format!("{}-{suffix}", base.trim_end_matches('-'));
        }
        wanted.parse().expect("a label")
    }
}

/// The part before the first dot in lower case, with one hyphen for what a label cannot have.
fn label_of(hostname: &str) -> String {
    let first = hostname.split('.').next().unwrap_or_default();
    let words = first.split(|character: char| !character.is_ascii_alphanumeric());
    let words: Vec<_> = words.filter(|word| !word.is_empty()).collect();
    let mut label = words.join("-").to_ascii_lowercase();
    label.truncate(63);
    let label = label.trim_end_matches('-');
    if label.is_empty() { "node".to_owned() } else { label.to_owned() }
}
