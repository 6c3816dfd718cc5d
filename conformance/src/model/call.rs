//! Calls with every argument chosen, and their answers.

use std::net::SocketAddr;

use crate::prelude::*;

/// One call of a repository.
#[derive(Debug, Clone)]
pub(super) enum Call {
    CreateUser(NewUser),
    UpsertOidc(OidcProfile),
    SignIn(UserId),
    SetMetadata(UserId, Option<JsonObject>, Option<Revision>),
    UpdateUser(UserId, UserPatch, Option<Revision>),
    DeleteUser(UserId, bool),
    CreatePreAuthKey(NewPreAuthKey),
    RevokePreAuthKey(PreAuthKeyId),
    DeletePreAuthKey(PreAuthKeyId),
    Register(Registration),
    UpdateNode(NodeId, NodePatch, Option<Revision>),
    RotateKey(Rotation),
    ExpireNodes(Vec<NodeId>, Timestamp),
    DeleteNode(NodeId),
    BackfillAddresses,
    ReapEphemeral,
    Connect(NodeId, SessionNumber, Update<EndpointList>, Option<InstanceId>),
    Open(NodeId, Update<EndpointList>, Option<InstanceId>),
    Heartbeat(NodeId, SessionNumber, Update<EndpointList>, Option<InstanceId>),
    PutEndpoint(NodeId, SessionNumber, Endpoint, Option<InstanceId>),
    RemoveEndpoint(NodeId, SessionNumber, SocketAddr, Option<InstanceId>),
    Touch(NodeId, Timestamp),
    Disconnect(NodeId, SessionNumber),
    DisconnectAll,
    DisconnectAllOf(InstanceId),
    DisconnectLost(Duration),
    BeginInstance(InstanceName),
    BeatInstance(InstanceId),
    EndInstance(InstanceId),
    Advertise(NodeId, Vec<Prefix>),
    Approve(NodeId, Vec<Prefix>),
    DeleteRoute(RouteId),
    SetApproved(RouteId, bool),
    UpdateRoute(RouteId, RoutePatch, Option<Revision>),
    SweepRoutes,
    SwapPolicy(Option<PolicyVersion>, DocumentText),
    RollbackPolicy(PolicyVersion, PolicyVersion),
    PrunePolicies(u32),
    CreateDnsRecord(NewDnsRecord),
    UpdateDnsRecord(DnsRecordId, DnsRecordPatch, Option<Revision>),
    DeleteDnsRecord(DnsRecordId),
    PutDnsRecords(NewDnsRecordSet, Option<Fingerprint>),
    DeleteDnsRecords(DnsName, DnsRecordKind, Option<Fingerprint>),
    PutSetting(SettingDocument, Option<Revision>),
    ResetSetting(SettingKind),
    BeginSignIn(&'static str, NewSignIn),
    TakeSignIn(Text<64>, &'static str),
    ReplaceSignIn(Text<64>, &'static str, SignInPayload, SignInPayload),
    SweepSignIns,
    BeginSession(NewSession),
    TouchSession(SessionId, Option<Timestamp>),
    EndSession(SessionId),
    EndAllSessions(SessionOwner),
    SweepSessions,
    CreateApiKey(NewApiKey),
    RevokeApiKey(ApiKeyId),
    DeleteApiKey(ApiKeyId),
    SweepApiKeys(Timestamp),
    SweepPreAuthKeys(Timestamp),
    RecordMetrics(Vec<MetricPoint>),
    Transact(Vec<Precondition>, Vec<(Call, Fresh)>),
}

/// What a node says to change its key.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rotation {
    pub(super) machine_key: MachineKey,
    pub(super) from: NodeKey,
    pub(super) to: NodeKey,
    pub(super) disco_key: Option<DiscoKey>,
    pub(super) expires_at: Option<Timestamp>,
}

/// What the store is free to choose when it executes a call.
#[derive(Debug, Clone, Default)]
pub(super) struct Fresh {
    /// Of the entity that is made, if one is.
    pub(super) id: [u8; 16],
    /// Of routes that are made.
    pub(super) routes: Vec<(Prefix, RouteId)>,
    /// Of DNS records that a set gains, by their values.
    pub(super) records: Vec<(Text<1024>, DnsRecordId)>,
    pub(super) prefix: Option<KeyPrefix>,
    pub(super) hash: Option<SecretHash>,
}

impl Fresh {
    /// What was chosen, as the answer shows it.
    pub(super) fn of(answer: &Answer) -> Self {
        let id = |id: &[u8; 16]| Self { id: *id, ..Self::default() };
        match answer {
            Answer::User(user) => id(user.id.as_bytes()),
            Answer::Node(node) => id(node.id.as_bytes()),
            Answer::Instance(instance) => id(instance.id.as_bytes()),
            Answer::DnsRecord(record) => id(record.id.as_bytes()),
            Answer::Routes(routes) => {
                let routes = routes.iter().map(|route| (route.prefix, route.id)).collect();
                Self { routes, ..Self::default() }
            }
            Answer::DnsRecords(records) => {
                let records = records.iter().map(|record| (record.value.clone(), record.id));
                Self { records: records.collect(), ..Self::default() }
            }
            Answer::ApiKey(key) => Self {
                prefix: Some(key.prefix.clone()),
                hash: Some(key.hash.clone()),
                ..id(key.id.as_bytes())
            },
            Answer::PreAuthKey(key) => Self {
                prefix: key.prefix.clone(),
                hash: Some(key.hash.clone()),
                ..id(key.id.as_bytes())
            },
            Answer::SignIn(sign_in) => {
                Self { hash: Some(sign_in.hash.clone()), ..id(sign_in.id.as_bytes()) }
            }
            Answer::Session(session) => {
                Self { hash: Some(session.hash.clone()), ..id(session.id.as_bytes()) }
            }
            _ => Self::default(),
        }
    }

    pub(super) fn route(&self, prefix: Prefix) -> RouteId {
        let found = self.routes.iter().find(|(chosen, _)| *chosen == prefix);
        found.map_or(RouteId::from_bytes([0; 16]), |(_, id)| *id)
    }

    /// For a value in the form in which it is kept.
    pub(super) fn record(&self, value: &Text<1024>) -> DnsRecordId {
        let found = self.records.iter().find(|(chosen, _)| chosen == value);
        found.map_or(DnsRecordId::from_bytes([0; 16]), |(_, id)| *id)
    }
}

/// What a call gives.
pub(super) use ghostwire_store_core::state::Reply as Answer;

/// Why a call is refused, as far as callers may rely on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) kind: ErrorKind,
    /// Of a transaction.
    pub(super) step: Option<String>,
}

impl From<ErrorKind> for Refusal {
    fn from(kind: ErrorKind) -> Self {
        Self { kind, step: None }
    }
}

impl From<&Error> for Refusal {
    fn from(error: &Error) -> Self {
        let step = error.context().iter().find(|(name, _)| *name == "step");
        Self { kind: error.kind().clone(), step: step.map(|(_, step)| step.clone()) }
    }
}

/// An answer, and the secret that came with it.
pub(super) type Answered = Result<(Answer, Option<Secret>)>;

impl Call {
    /// Calls the store.
    pub(super) async fn perform(&self, store: &Opened) -> Answered {
        let answer = match self.clone() {
            Self::CreatePreAuthKey(key) => {
                let (key, secret) = store.preauth_keys().create(key).await?;
                return Ok((key.into(), Some(secret)));
            }
            Self::BeginSession(session) => {
                let (session, secret) = store.sessions().begin(session).await?;
                return Ok((session.into(), Some(secret)));
            }
            Self::CreateApiKey(key) => {
                let (key, secret) = store.api_keys().create(key).await?;
                return Ok((key.into(), Some(secret)));
            }
            Self::BeginSignIn(state, sign_in) => {
                store.sign_ins().begin(state, sign_in).await?.into()
            }
            Self::TakeSignIn(purpose, state) => {
                store.sign_ins().take(&purpose, state).await?.into()
            }
            Self::ReplaceSignIn(purpose, state, from, to) => {
                store.sign_ins().replace(&purpose, state, &from, to).await?.into()
            }
            Self::SweepRoutes => Answer::Count(store.routes().sweep().await?),
            Self::RecordMetrics(points) => {
                store.metrics().record_many(points).await?;
                Answer::Done
            }
            Self::Transact(preconditions, steps) => {
                let mut transaction = Transaction::new();
                for precondition in preconditions {
                    transaction = transaction.require(precondition)?;
                }
                for (call, fresh) in &steps {
                    let command = call.command(fresh).expect("a step is a command");
                    transaction = transaction.then(command)?;
                }
                let committed = store.transact(transaction).await?;
                Answer::All(committed.value)
            }
            of_command => {
                let command = of_command.command(&Fresh::default());
                call(store, command.expect("the others are commands")).await?
            }
        };
        Ok((answer, None))
    }

    /// The same as a command of a transaction; `None` if it cannot be one here.
    pub(super) fn command(&self, fresh: &Fresh) -> Option<Command> {
        // All of it, as a transaction is one commit.
        let part = Part::WHOLE;
        Some(match self.clone() {
            Self::CreateUser(user) => {
                UserCommand::Create { id: UserId::from_bytes(fresh.id), user }.into()
            }
            Self::UpsertOidc(profile) => {
                let (id, link) = (UserId::from_bytes(fresh.id), LinkBy::Nothing);
                UserCommand::UpsertOidc { id, profile, link }.into()
            }
            Self::SignIn(id) => UserCommand::SignIn { id }.into(),
            Self::SetMetadata(id, metadata, expected) => {
                UserCommand::SetMetadata { id, metadata, expected }.into()
            }
            Self::UpdateUser(id, patch, expected) => {
                UserCommand::Update { id, patch, expected }.into()
            }
            Self::DeleteUser(id, cascade) => UserCommand::Delete { id, cascade, part }.into(),
            Self::RevokePreAuthKey(id) => PreAuthKeyCommand::Revoke { id }.into(),
            Self::DeletePreAuthKey(id) => PreAuthKeyCommand::Delete { id }.into(),
            Self::Register(registration) => NodeCommand::Register {
                id: NodeId::from_bytes(fresh.id),
                registration: Box::new(registration),
            }
            .into(),
            Self::UpdateNode(id, patch, expected) => {
                NodeCommand::Update { id, patch: Box::new(patch), expected }.into()
            }
            Self::RotateKey(Rotation { machine_key, from, to, disco_key, expires_at }) => {
                NodeCommand::RotateKey { machine_key, from, to, disco_key, expires_at }.into()
            }
            Self::ExpireNodes(nodes, at) => NodeCommand::Expire { nodes, at, part }.into(),
            Self::DeleteNode(id) => NodeCommand::Delete { id }.into(),
            Self::BackfillAddresses => {
                NodeCommand::BackfillAddresses { release: false, part }.into()
            }
            Self::ReapEphemeral => NodeCommand::ReapEphemeral { part }.into(),
            Self::Connect(node, session, endpoints, instance) => {
                PresenceCommand::Connect { node, session: Some(session), endpoints, instance }
                    .into()
            }
            Self::Open(node, endpoints, instance) => {
                PresenceCommand::Connect { node, session: None, endpoints, instance }.into()
            }
            Self::Heartbeat(node, session, endpoints, instance) => {
                PresenceCommand::Heartbeat { node, session, endpoints, instance }.into()
            }
            Self::PutEndpoint(node, session, endpoint, instance) => {
                PresenceCommand::PutEndpoint { node, session, endpoint, instance }.into()
            }
            Self::RemoveEndpoint(node, session, addr, instance) => {
                PresenceCommand::RemoveEndpoint { node, session, addr, instance }.into()
            }
            Self::Touch(node, unless_since) => PresenceCommand::Touch { node, unless_since }.into(),
            Self::Disconnect(node, session) => PresenceCommand::Disconnect { node, session }.into(),
            Self::DisconnectAll => PresenceCommand::DisconnectAll { of: None, part }.into(),
            Self::DisconnectAllOf(instance) => {
                PresenceCommand::DisconnectAll { of: Some(instance), part }.into()
            }
            Self::DisconnectLost(unseen_for) => {
                PresenceCommand::DisconnectLost { unseen_for, own: None, part }.into()
            }
            Self::BeginInstance(name) => {
                InstanceCommand::Begin { id: InstanceId::from_bytes(fresh.id), name, part }.into()
            }
            Self::BeatInstance(id) => InstanceCommand::Beat { id }.into(),
            Self::EndInstance(id) => InstanceCommand::End { id, part }.into(),
            Self::Advertise(node, prefixes) => {
                RouteCommand::Advertise { node, prefixes: fresh.with_ids(prefixes), expected: None }
                    .into()
            }
            Self::Approve(node, prefixes) => {
                RouteCommand::Approve { node, prefixes: fresh.with_ids(prefixes), expected: None }
                    .into()
            }
            Self::DeleteRoute(id) => RouteCommand::Delete { id }.into(),
            Self::SetApproved(id, approved) => RouteCommand::SetApproved { id, approved }.into(),
            Self::UpdateRoute(id, patch, expected) => {
                RouteCommand::Update { id, patch, expected }.into()
            }
            Self::SwapPolicy(expected, document) => {
                PolicyCommand::Swap { expected, document }.into()
            }
            Self::RollbackPolicy(expected, to) => PolicyCommand::Rollback { expected, to }.into(),
            Self::PrunePolicies(keep) => PolicyCommand::Prune { keep, part }.into(),
            Self::CreateDnsRecord(record) => {
                DnsCommand::Create { id: DnsRecordId::from_bytes(fresh.id), record }.into()
            }
            Self::UpdateDnsRecord(id, patch, expected) => {
                DnsCommand::Update { id, patch, expected }.into()
            }
            Self::DeleteDnsRecord(id) => DnsCommand::Delete { id }.into(),
            Self::PutDnsRecords(NewDnsRecordSet { name, kind, values, ttl }, expected) => {
                let id = |value: &Text<1024>| {
                    fresh.record(&kind.canonical(value).unwrap_or_else(|_| value.clone()))
                };
                let values = values.into_iter().map(|value| (id(&value), value)).collect();
                DnsCommand::Put { name, kind, values, ttl, expected }.into()
            }
            Self::DeleteDnsRecords(name, kind, expected) => {
                DnsCommand::DeleteSet { name, kind, expected }.into()
            }
            Self::PutSetting(document, expected) => {
                SettingCommand::Put { document, expected }.into()
            }
            Self::ResetSetting(kind) => SettingCommand::Reset { kind }.into(),
            Self::SweepSignIns => SignInCommand::Sweep { part }.into(),
            Self::TouchSession(id, expires_at) => SessionCommand::Touch { id, expires_at }.into(),
            Self::EndSession(id) => SessionCommand::End { id }.into(),
            Self::EndAllSessions(owner) => SessionCommand::EndAll { owner, part }.into(),
            Self::SweepSessions => SessionCommand::Sweep { part }.into(),
            Self::RevokeApiKey(id) => ApiKeyCommand::Revoke { id }.into(),
            Self::DeleteApiKey(id) => ApiKeyCommand::Delete { id }.into(),
            Self::SweepApiKeys(before) => ApiKeyCommand::SweepExpired { before, part }.into(),
            Self::SweepPreAuthKeys(before) => {
                PreAuthKeyCommand::SweepExpired { before, part }.into()
            }
            // Secrets are made by the repositories, which also look for what a sweep elects, and series
            // are in no transaction.
            Self::CreatePreAuthKey(_)
            | Self::CreateApiKey(_)
            | Self::BeginSession(_)
            | Self::BeginSignIn(..)
            | Self::TakeSignIn(..)
            | Self::ReplaceSignIn(..)
            | Self::SweepRoutes
            | Self::RecordMetrics(_)
            | Self::Transact(..) => return None,
        })
    }
}

impl Fresh {
    fn with_ids(&self, prefixes: Vec<Prefix>) -> Vec<(RouteId, Prefix)> {
        prefixes.into_iter().map(|prefix| (self.route(prefix), prefix)).collect()
    }
}
