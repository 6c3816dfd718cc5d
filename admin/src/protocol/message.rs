//! What is said in frames of JSON.

use ghostwire_store_core::Store;
use ghostwire_store_core::block::{ChangeKind, Serial};
use ghostwire_store_core::command::{EntityRecord, Transaction};
use ghostwire_store_core::domain::{
    ActorName, ConsumerName, NewApiKey, NewPreAuthKey, NewSession, Secret, Timestamp,
};
use ghostwire_store_core::error::{Error, ErrorKind, Result};
use ghostwire_store_core::keys::Rotation;
use ghostwire_store_core::position::Position;
use serde::de::value::MapDeserializer;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::select::Selection;

/// What a client speaks, and what it is called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Versions of the protocol, lowest and highest.
    pub versions: [u16; 2],
    /// Its name and version, for logs.
    pub program: String,
}

/// What is spoken from here on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The version of the protocol.
    pub version: u16,
    /// The serving program's name and version.
    pub program: String,
    /// Its process.
    pub pid: u32,
}

/// Something that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// What.
    pub method: Method,
    /// The trace that it belongs to, as W3C Trace Context has it.
    pub traceparent: Option<String>,
    /// Whom the audit trail names for what is changed, where the method has nobody.
    pub actor: Option<ActorName>,
}

/// What can be asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "method", content = "params", rename_all = "snake_case")]
pub enum Method {
    /// What the backend says of itself: [`WireInfo`](super::WireInfo).
    Info,
    /// Where the store stands: [`WireHead`](super::WireHead).
    Head,
    /// Rows as they are stored, as data, and [`Scanned`].
    Scan(ScanRequest),
    /// Blocks as they are stored, as data.
    Blocks {
        /// The last one that is not wanted.
        after: Serial,
        /// How many at most.
        limit: u32,
    },
    /// Entities that are meant by a selection, and those that are shown beside them, as data, and [`Selected`].
    Select(SelectRequest),
    /// What the store and its socket do.
    Status,
    /// How the program says that it fares.
    Health,
    /// What the program measures, as Prometheus' text.
    Metrics,
    /// The digests of everything stored.
    Digests,
    /// Reads everything stored and checks it.
    Verify,
    /// The digest of the state, signed.
    Attest,
    /// Brings every block into rows.
    Checkpoint,
    /// Proves that a write would be stored.
    Probe,
    /// Commits as they come, an item each, without end.
    Watch {
        /// The last one that is known; without it those from now on.
        after: Option<Serial>,
    },
    /// Several commands in one commit: an item for each reply.
    Transact {
        /// Whom the audit trail names.
        actor: ActorName,
        /// What is to be done.
        transaction: Transaction,
    },
    /// Makes something with a secret: [`Issued`].
    Issue {
        /// Whom the audit trail names.
        actor: ActorName,
        /// What.
        issue: Issue,
    },
    /// Keeps nothing for a consumer any longer.
    RemoveConsumer {
        /// Which.
        name: ConsumerName,
    },
    /// Looks at the keys of a sealed store, or changes them.
    Keys(KeysRequest),
    /// Takes the clock as right, or undoes what a wrong one did.
    Clock(ClockRequest),
    /// Reads the configuration again.
    Reload,
    /// Logs more or less.
    LogLevel {
        /// As the program's configuration has it, such as `debug`.
        level: String,
        /// For how long; without it until the next change.
        seconds: Option<u64>,
    },
    /// Reserved.
    Backup,
    /// Looks at the move of the network to another database, or takes it a step on.
    Migrate(MigrateRequest),
}

impl Method {
    /// Every method, by the name that requests have.
    pub const NAMES: &'static [&'static str] = &[
        "info",
        "head",
        "scan",
        "blocks",
        "select",
        "status",
        "health",
        "metrics",
        "digests",
        "verify",
        "attest",
        "checkpoint",
        "probe",
        "watch",
        "transact",
        "issue",
        "remove_consumer",
        "keys",
        "clock",
        "reload",
        "log_level",
        "backup",
        "migrate",
    ];

    /// Its name, as requests have it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Head => "head",
            Self::Scan(_) => "scan",
            Self::Blocks { .. } => "blocks",
            Self::Select(_) => "select",
            Self::Status => "status",
            Self::Health => "health",
            Self::Metrics => "metrics",
            Self::Digests => "digests",
            Self::Verify => "verify",
            Self::Attest => "attest",
            Self::Checkpoint => "checkpoint",
            Self::Probe => "probe",
            Self::Watch { .. } => "watch",
            Self::Transact { .. } => "transact",
            Self::Issue { .. } => "issue",
            Self::RemoveConsumer { .. } => "remove_consumer",
            Self::Keys(_) => "keys",
            Self::Clock(_) => "clock",
            Self::Reload => "reload",
            Self::LogLevel { .. } => "log_level",
            Self::Backup => "backup",
            Self::Migrate(_) => "migrate",
        }
    }
}

/// Which rows are asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScanRequest {
    /// The table's number.
    pub table: u8,
    /// First key, inclusive.
    #[serde(with = "hex")]
    pub from: Vec<u8>,
    /// Last key, exclusive.
    #[serde(default, with = "optional_hex")]
    pub to: Option<Vec<u8>>,
    /// Largest key first.
    pub reverse: bool,
    /// How many at most.
    pub limit: u32,
}

/// When rows were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scanned {
    /// The head's position when the last of them were read.
    pub position: Position,
    /// The head's serial then.
    pub serial: Serial,
}

/// Which entities of a table are asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SelectRequest {
    /// The table's number.
    pub table: u8,
    /// What they have to be.
    pub selection: Selection,
    /// The [`position`](crate::select::position) of the last one that is not wanted.
    #[serde(default, with = "optional_hex")]
    pub after: Option<Vec<u8>>,
    /// How many at most; a server may give fewer.
    pub limit: u32,
}

/// What is known of entities that were selected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selected {
    /// Whether there are more behind them.
    pub more: bool,
}

/// What is made with a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Issue {
    /// What admits nodes.
    PreauthKey(NewPreAuthKey),
    /// What lets programs in.
    ApiKey(NewApiKey),
    /// A sign-in that lasts.
    Session(NewSession),
}

impl Issue {
    /// Makes it in a store that is at hand.
    ///
    /// # Errors
    /// Those of the repository.
    pub async fn carry_out(self, store: &dyn Store) -> Result<(EntityRecord, Secret)> {
        Ok(match self {
            Self::PreauthKey(key) => {
                let (key, secret) = store.preauth_keys().create(key).await?;
                (key.into(), secret)
            }
            Self::ApiKey(key) => {
                let (key, secret) = store.api_keys().create(key).await?;
                (key.into(), secret)
            }
            Self::Session(session) => {
                let (session, secret) = store.sessions().begin(session).await?;
                (session.into(), secret)
            }
        })
    }
}

/// What was made, and its secret, which is shown once.
#[derive(Clone, Serialize, Deserialize)]
pub struct Issued {
    /// What is stored.
    pub record: EntityRecord,
    /// The secret.
    pub secret: String,
}

/// Looks at keys, or changes them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeysRequest {
    /// What is known of the keyring.
    List,
    /// A new version of the data key.
    Rotate(Rotation),
    /// The same, if this version is the one that seals.
    RotateFrom {
        /// Which seals so far.
        from: u32,
        /// Of which kind.
        rotation: Rotation,
    },
    /// Somebody else may open the keyring.
    AddRecipient {
        /// His line `age1pq1…`.
        recipient: String,
        /// What he is for.
        label: String,
    },
    /// Somebody may no longer.
    RemoveRecipient {
        /// By which the list names him.
        fingerprint: String,
    },
    /// Destroys a version that no record is sealed under.
    Destroy {
        /// Which.
        version: u32,
    },
}

/// What is done about the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClockRequest {
    /// It is right, however long nothing was written.
    Accept,
    /// It is right, and times beyond it are brought back.
    Repair,
}

/// What is asked of the move of a network to another database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MigrateRequest {
    /// Whether it could begin, and what it would do.
    Plan,
    /// Begins to copy.
    Start,
    /// Where it stands.
    Status,
    /// Serves from the target.
    Advance,
    /// Serves from the source again.
    Back,
    /// Gives the target up.
    Abort,
    /// Leaves the source for good.
    Finish,
}

impl MigrateRequest {
    /// Its name, as requests have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Plan => "plan",
            Self::Start => "start",
            Self::Status => "status",
            Self::Advance => "advance",
            Self::Back => "back",
            Self::Abort => "abort",
            Self::Finish => "finish",
        }
    }

    /// Whether it changes something.
    #[must_use]
    pub fn changes(self) -> bool {
        !matches!(self, Self::Plan | Self::Status)
    }
}

/// How far an answer is that takes long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Working {
    /// How long it has been worked on.
    pub elapsed_ms: u64,
    /// Pages of rows that the backend has read meanwhile, for whomever.
    pub pages: u64,
}

/// What one commit changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watched {
    /// The commit.
    pub serial: Serial,
    /// Its block's hash.
    pub hash: String,
    /// The effective time of its commands.
    pub at: Timestamp,
    /// The entities that changed, in order.
    pub changes: Vec<WatchedChange>,
    /// Whether the next item has more changes of the same commit. A [`Client`](crate::Client) joins them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
}

/// What happened to one entity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchedChange {
    /// The kind of entity.
    pub entity: String,
    /// Its id.
    pub id: String,
    /// What happened to it.
    pub change: ChangeKind,
}

impl Request {
    /// Reads what a client asks for.
    ///
    /// # Errors
    /// `Unsupported` for a method or a selection that there is not; `InvalidArgument` for anything else that is no request.
    pub fn parse(payload: &[u8]) -> Result<Self> {
        let outline: Outline<'_> = serde_json::from_slice(payload).map_err(unreadable)?;
        let text = |raw: Option<&RawValue>| serde_json::from_str::<String>(raw?.get()).ok();
        let traceparent = text(outline.traceparent).filter(|text| text.len() <= 128);
        let actor = outline.actor.map(|actor| serde_json::from_str(actor.get())).transpose();
        let actor = actor.map_err(unreadable)?;
        let method = text(outline.method).filter(|text| text.len() <= 64).unwrap_or_default();
        let method = method.as_str();
        if !Method::NAMES.contains(&method) {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "the program that has the store open does not know this request",
            )
            .with("method", method)
            .with("program", PROGRAM)
            .with("help", "use a gwstore of the same release as that program"));
        }
        if method != "transact" && payload.len() > MAX_REQUEST {
            return Err(Error::invalid("a request is too long for its method")
                .with("method", method)
                .with("bytes", payload.len())
                .with("at_most", MAX_REQUEST));
        }
        let is_select = method == "select";
        let method = outline.into_method().map_err(|error| match is_select {
            // A later release may know other conditions; whoever asks for those can do without.
            true => Error::new(
                ErrorKind::Unsupported,
                "the program that has the store open does not know this selection",
            )
            .because(unreadable(error)),
            false => unreadable(error),
        })?;
        Ok(Self { method, traceparent, actor })
    }

    /// As it goes over the socket.
    ///
    /// # Errors
    /// `Unexpected` if it has no JSON form.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let encoded = || {
            let mut value = serde_json::to_value(&self.method)?;
            if let serde_json::Value::Object(fields) = &mut value {
                let traceparent = self.traceparent.as_deref().map(|it| ("traceparent", it));
                let actor = self.actor.as_ref().map(|it| ("actor", it.as_str()));
                let given = traceparent.into_iter().chain(actor);
                fields.extend(given.map(|(name, text)| (name.to_owned(), text.into())));
            }
            serde_json::to_vec(&value)
        };
        encoded().map_err(|error| {
            Error::new(ErrorKind::Unexpected, "a request has no JSON form").because(error)
        })
    }
}

/// The longest request in bytes, but for one that transacts.
pub const MAX_REQUEST: usize = 64 * 1024;

/// A request whose parts are not read yet: what they hold costs nothing before it is known what it is for.
#[derive(Deserialize)]
struct Outline<'p> {
    #[serde(borrow, default)]
    method: Option<&'p RawValue>,
    #[serde(borrow, default)]
    params: Option<&'p RawValue>,
    #[serde(borrow, default)]
    traceparent: Option<&'p RawValue>,
    #[serde(borrow, default)]
    actor: Option<&'p RawValue>,
}

impl<'p> Outline<'p> {
    /// The method comes first, wherever it stood: then parameters are read as what they are.
    fn into_method(self) -> serde_json::Result<Method> {
        let fields = [("method", self.method), ("params", self.params)];
        let fields = fields.into_iter().filter_map(|(name, raw)| Some((name, raw?)));
        Method::deserialize(MapDeserializer::<'p, _, serde_json::Error>::new(fields))
    }
}

/// This program, as it is called in messages.
pub const PROGRAM: &str = concat!("ghostwire-store ", env!("CARGO_PKG_VERSION"));

/// What a program said cannot be read.
pub(crate) fn unreadable(error: serde_json::Error) -> Error {
    // It may repeat a value of what was read, and that may be a secret: only where it is.
    let place = format!("line {}, column {}", error.line(), error.column());
    let error = Error::invalid("a message on the admin socket cannot be read").with("at", place);
    error.with("help", "use a gwstore of the same release as the program that has the store open")
}

/// The version that both ends speak.
///
/// # Errors
/// `Unsupported` if there is none.
pub fn common_version(ours: [u16; 2], theirs: [u16; 2]) -> Result<u16> {
    let ([our_lowest, our_highest], [their_lowest, their_highest]) = (ours, theirs);
    let highest = our_highest.min(their_highest);
    if highest >= our_lowest.max(their_lowest) {
        return Ok(highest);
    }
    let range = |[lowest, highest]: [u16; 2]| format!("{lowest} to {highest}");
    Err(Error::new(
        ErrorKind::Unsupported,
        "the two ends of the admin socket have no version of its protocol in common",
    )
    .with("spoken", range(ours))
    .with("asked_for", range(theirs))
    .with("help", "use a gwstore of the same release as the program that has the store open"))
}

mod hex {
    use data_encoding::HEXLOWER;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&HEXLOWER.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(from)?;
        HEXLOWER.decode(text.as_bytes()).map_err(serde::de::Error::custom)
    }
}

mod optional_hex {
    use data_encoding::HEXLOWER;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        bytes: &Option<Vec<u8>>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        match bytes {
            Some(bytes) => super::hex::serialize(bytes, to),
            None => to.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Vec<u8>>, D::Error> {
        let Some(text) = Option::<String>::deserialize(from)? else { return Ok(None) };
        HEXLOWER.decode(text.as_bytes()).map(Some).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::select::Condition;

    fn request(method: Method) -> Request {
        let actor = Some("cli:anna".parse().unwrap());
        Request { method, traceparent: Some("00-abc-def-01".to_owned()), actor }
    }

    #[test]
    fn requests_come_as_they_went() {
        let scan = ScanRequest {
            table: 2,
            from: vec![1, 255],
            to: Some(Vec::new()),
            reverse: true,
            limit: 10,
        };
        let conditions = vec![Condition::Online(false), Condition::Tag("tag:ci".parse().unwrap())];
        let selection = Selection::Where(conditions, Timestamp::EPOCH);
        let select = SelectRequest { table: 2, selection, after: Some(vec![7]), limit: 10 };
        let issue = Issue::PreauthKey(NewPreAuthKey::default());
        for method in [
            Method::Info,
            Method::Scan(scan),
            Method::Blocks { after: Serial::new(7), limit: 64 },
            Method::Select(select),
            Method::Watch { after: None },
            Method::Transact { actor: ActorName::system(), transaction: Transaction::new() },
            Method::Issue { actor: ActorName::system(), issue },
            Method::Keys(KeysRequest::Rotate(Rotation::Leaked)),
            Method::Clock(ClockRequest::Repair),
            Method::Migrate(MigrateRequest::Advance),
            Method::LogLevel { level: "debug".to_owned(), seconds: Some(60) },
            Method::Backup,
        ] {
            assert!(Method::NAMES.contains(&method.name()));
            let request = request(method);
            let encoded = request.encode().unwrap();
            let value: serde_json::Value = serde_json::from_slice(&encoded).unwrap();
            assert_eq!(value.get("method").unwrap(), request.method.name());
            assert_eq!(Request::parse(&encoded).unwrap(), request);
        }
    }

    #[test]
    fn an_unknown_method_is_told_from_a_damaged_request() {
        let kind = |text: &str| Request::parse(text.as_bytes()).unwrap_err().kind().clone();
        assert_eq!(kind(r#"{"method":"teleport","params":{}}"#), ErrorKind::Unsupported);
        assert_eq!(kind(r#"{"method":3}"#), ErrorKind::Unsupported);
        let later = r#"{"method":"select","params":{"table":2,"selection":{"where":[[{"mood":1}],0]},"limit":1}}"#;
        assert_eq!(kind(later), ErrorKind::Unsupported);
        for damaged in ["", "{", "[1]x", r#"{"method":"watch","params":{"after":"soon"}}"#] {
            assert_eq!(kind(damaged), ErrorKind::InvalidArgument, "{damaged}");
        }
    }

    #[test]
    fn fields_come_in_any_order_and_only_a_transaction_may_be_long() {
        let request = Request::parse(br#"{"params":{"after":3},"later":[1],"method":"watch"}"#);
        assert_eq!(request.unwrap().method, Method::Watch { after: Some(Serial::new(3)) });
        assert_eq!(
            Request::parse(br#"{"method":"info","params":null}"#).unwrap().method,
            Method::Info
        );
        let padded = |method: &str| {
            let padding = " ".repeat(MAX_REQUEST);
            format!(r#"{{"method":"{method}","params":{{"after":0}}{padding}}}"#)
        };
        let error = Request::parse(padded("watch").as_bytes()).unwrap_err();
        assert!(error.to_string().contains("too long"), "{error}");
        let transaction = request_of_length(MAX_REQUEST);
        assert!(Request::parse(&transaction).is_ok());
    }

    fn request_of_length(least: usize) -> Vec<u8> {
        let (actor, transaction) = (ActorName::system(), Transaction::new());
        let mut encoded = request(Method::Transact { actor, transaction }).encode().unwrap();
        encoded.resize(encoded.len().max(least + 1), b' ');
        encoded
    }

    #[test]
    fn what_cannot_be_read_is_not_repeated() {
        let error =
            Request::parse(br#"{"method":"log_level","params":{"level":"x","seconds":"s3cret"}}"#);
        assert!(!error.unwrap_err().to_string().contains("s3cret"));
    }

    #[test]
    fn the_highest_common_version_is_spoken() {
        assert_eq!(common_version([1, 3], [2, 9]).unwrap(), 3);
        assert_eq!(common_version([1, 1], [1, 1]).unwrap(), 1);
        let error = common_version([1, 1], [2, 3]).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("2 to 3"), "{error}");
        assert!(common_version([1, 5], [3, 2]).is_err());
    }
}
