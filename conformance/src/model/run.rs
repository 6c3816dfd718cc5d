//! Runs a script on a store and on the oracle, and compares their answers.

use std::collections::HashSet;

use super::call::{Answer, Call, Fresh, Refusal};
use super::coverage::Coverage;
use super::describe;
use super::digest;
use super::generator::{Generator, Known};
use super::listings;
use super::operation::{Choices, Operation, Step};
use super::oracle::Oracle;
use super::reference::Reference;
use super::values::{PURPOSES, STATES, parsed};
use crate::prelude::*;

/// A difference between the store and the oracle.
pub(super) type Mismatch = String;

/// How a script is run.
#[derive(Debug, Clone, Copy)]
pub(super) struct RunConfig {
    pub(super) mode: Mode,
    pub(super) seed: u64,
    /// A store in memory gets the same calls.
    pub(super) beside_memory: bool,
}

/// Calls between two comparisons of everything that can be read. Digests take longer to compute,
/// and are compared half as often.
const CALLS_BETWEEN: usize = 7;

/// Runs a script. `log` gets a line for each call.
pub(super) async fn run_script(
    factory: &dyn Factory,
    script: &[Step],
    config: RunConfig,
    coverage: &mut Coverage,
    log: &mut Vec<String>,
) -> Result<(), Mismatch> {
    let mut run = Run::begin(factory, config, log).await?;
    for (index, step) in script.iter().enumerate() {
        run.step(step, coverage).await?;
        if (index + 1) % CALLS_BETWEEN == 0 {
            run.compare(step).await?;
        }
        if (index + 1) % (2 * CALLS_BETWEEN) == 0 {
            run.compare_digest().await?;
        }
    }
    if let Some(last) = script.last() {
        run.compare(last).await?;
    }
    run.compare_digest().await?;
    run.end(config.seed % 8 < 2).await
}

struct Run<'l> {
    env: TestEnv,
    /// `None` only while it is reopened.
    store: Option<Arc<dyn Store>>,
    reference: Option<Reference>,
    oracle: Oracle,
    known: Known,
    /// Every identifier that was ever given.
    given: HashSet<[u8; 16]>,
    secrets: Vec<(Owner, Secret)>,
    drawn: u64,
    log: &'l mut Vec<String>,
}

/// What a secret is for.
#[derive(Clone, Copy, PartialEq)]
enum Owner {
    Session(SessionId),
    PreAuthKey(PreAuthKeyId),
}

impl<'l> Run<'l> {
    async fn begin(
        factory: &dyn Factory,
        config: RunConfig,
        log: &'l mut Vec<String>,
    ) -> Result<Self, Mismatch> {
        let env = TestEnv::create(factory, &Stack::bare(), config.mode, config.seed).await;
        let env = env.map_err(|error| format!("no place can be made: {error}"))?;
        let store = env.open().await;
        let reference = match config.beside_memory {
            true => Some(Reference::create(config.mode, config.seed).await),
            false => None,
        };
        let now = env.clock().now();
        Ok(Self {
            env,
            store: Some(store),
            reference,
            oracle: Oracle::new(now),
            known: Known::default(),
            given: HashSet::new(),
            secrets: Vec::new(),
            drawn: 0,
            log,
        })
    }

    fn store(&self) -> &Opened {
        self.store.as_ref().expect("it is open")
    }

    async fn step(&mut self, step: &Step, coverage: &mut Coverage) -> Result<(), Mismatch> {
        let mut choices = Choices::new(&step.numbers);
        match step.operation {
            Operation::Wait => {
                self.wait(&mut choices);
                return Ok(());
            }
            Operation::Crash => {
                self.log.push("the process dies, and another one opens the store".to_owned());
                self.crash().await;
                self.compare(step).await?;
                return self.compare_digest().await;
            }
            Operation::Reopen => {
                self.log.push("the store is closed and opened".to_owned());
                self.reopen().await?;
                self.compare(step).await?;
                return self.compare_digest().await;
            }
            _ => {}
        }
        let (now, mut drawn) = (self.oracle.now, self.drawn);
        let mut fresh = || {
            drawn += 1;
            let [b0, b1, b2, b3, b4, b5, b6, b7] = drawn.to_be_bytes();
            // The last byte of an identifier decides its place in the digest.
            *NodeId::time_ordered(now, [b0, b1, b2, b3, b4, b5, b6, 0xaa, 0xaa, b7]).as_bytes()
        };
        let call = Generator { oracle: &self.oracle, known: &self.known, fresh: &mut fresh }
            .call(step.operation, &mut choices);
        self.drawn = drawn;
        let line = self.known.describe(&call);
        self.log.push(line);
        let (outcome, wrote) = self.call(&call).await?;
        let said = describe::outcome(&outcome);
        if let Some(line) = self.log.last_mut() {
            line.push_str(" -> ");
            line.push_str(&said);
        }
        coverage.count(step.operation, &outcome, wrote);
        if self.oracle.has_late_primary() {
            coverage.saw_late_primary();
        }
        if self.oracle.presence.iter().any(|presence| presence.instance.is_some()) {
            coverage.saw_held_connection();
        }
        Ok(())
    }

    fn wait(&mut self, choices: &mut Choices) {
        let millis = [1_000, 1_000_000, 30_000, 60_000, 2_000_000, 120_000];
        // Sometimes too short a time for identifiers to tell.
        let time = match choices.happens(5) {
            true => Duration::from_micros(300),
            false => Duration::from_millis(*choices.one_of(&millis)),
        };
        self.log.push(format!("{time:?} pass"));
        self.env.clock().advance(time);
        if let Some(reference) = &self.reference {
            reference.advance(time);
        }
        self.oracle.now = self.env.clock().now();
    }

    async fn crash(&mut self) {
        let store = self.store.take().expect("it is open");
        self.store = Some(self.env.crash(store).await);
        if let Some(reference) = &mut self.reference {
            reference.crash().await;
        }
    }

    async fn reopen(&mut self) -> Result<(), Mismatch> {
        let store = self.store.take().expect("it is open");
        store.close().await.map_err(|error| format!("it does not close: {error}"))?;
        drop(store);
        self.store = Some(self.env.open().await);
        if let Some(reference) = &mut self.reference {
            reference.reopen().await;
        }
        Ok(())
    }

    /// Makes a call, and holds it against the oracle. Tells whether something was to be written.
    async fn call(&mut self, call: &Call) -> Result<(Result<Answer, Refusal>, bool), Mismatch> {
        let serial = self.store().view().serial();
        let answered = call.perform(self.store()).await;
        if let Some(reference) = &self.reference {
            reference.call(call, &answered).await?;
        }
        let (found, secret) = match answered {
            Ok((answer, secret)) => (Ok(answer), secret),
            Err(error) => (Err(error), None),
        };
        let fresh = found.as_ref().map(Fresh::of).unwrap_or_default();
        let before = self.oracle.clone();
        let predicted = self.oracle.carry_out(call, &fresh);
        let seen = found.clone().map_err(|error| Refusal::from(&error));
        if seen != predicted {
            let found = match &found {
                Ok(answer) => format!("{answer:#?}"),
                Err(error) => format!("{error}"),
            };
            let wanted = match &predicted {
                Ok(answer) => format!("{answer:#?}"),
                Err(refusal) => refusal.describe(),
            };
            return Err(format!("the answer{}", describe::difference(&found, &wanted)));
        }
        let wrote = self.oracle.writes != before.writes;
        let expected = if wrote { serial.next() } else { serial };
        let stands = self.store().view().serial();
        if stands != expected {
            return Err(format!("the store stands at {stands}, and ought to at {expected}"));
        }
        self.note_new(&before)?;
        match (&seen, secret) {
            (Ok(Answer::Session(session)), Some(secret)) => {
                self.secrets.push((Owner::Session(session.id), secret));
            }
            (Ok(Answer::PreAuthKey(key)), Some(secret)) => {
                self.secrets.push((Owner::PreAuthKey(key.id), secret));
            }
            _ => {}
        }
        Ok((seen, wrote))
    }

    /// Takes note of what is new. Its identifiers have to be.
    fn note_new(&mut self, before: &Oracle) -> Result<(), Mismatch> {
        let now = self.oracle.now;
        let given = &mut self.given;
        let mut ids = Ids { given, now };
        let Self { oracle, known, .. } = self;
        ids.take(&before.users, &oracle.users, |user| user.id, &mut known.users)?;
        ids.take(&before.nodes, &oracle.nodes, |node| node.id, &mut known.nodes)?;
        ids.take(&before.routes, &oracle.routes, |route| route.id, &mut known.routes)?;
        ids.take(&before.api_keys, &oracle.api_keys, |key| key.id, &mut known.api_keys)?;
        ids.take(
            &before.preauth_keys,
            &oracle.preauth_keys,
            |key| key.id,
            &mut known.preauth_keys,
        )?;
        ids.take(
            &before.dns_records,
            &oracle.dns_records,
            |record| record.id,
            &mut known.dns_records,
        )?;
        ids.take(&before.sessions, &oracle.sessions, |session| session.id, &mut known.sessions)?;
        ids.take(&before.sign_ins, &oracle.sign_ins, |sign_in| sign_in.id, &mut known.sign_ins)?;
        ids.take(&before.instances, &oracle.instances, |it| it.id, &mut known.instances)
    }

    async fn compare(&self, step: &Step) -> Result<(), Mismatch> {
        let mut choices = Choices::new(&step.numbers);
        listings::compare(self.store(), &self.oracle, &self.known, &mut choices).await?;
        self.peek().await?;
        for (owner, secret) in &self.secrets {
            self.present(*owner, secret.expose()).await?;
        }
        if let Some(reference) = &self.reference {
            reference.compare(self.store()).await?;
        }
        Ok(())
    }

    async fn compare_digest(&self) -> Result<(), Mismatch> {
        let digests = self.store().digests().await.map_err(|error| error.to_string())?;
        if *digests.state.as_bytes() == digest::of(&self.oracle) {
            return Ok(());
        }
        Err("the digest is another one than the oracle's".to_owned())
    }

    /// Whoever has a state sees its sign-in, and nobody else.
    async fn peek(&self) -> Result<(), Mismatch> {
        for (purpose, state) in PURPOSES.iter().flat_map(|it| STATES.map(|state| (*it, state))) {
            let purpose = parsed(purpose);
            let found = self.store().sign_ins().peek(&purpose, state).await;
            let found = found.map_err(|error| error.kind().clone());
            let wanted = self.oracle.peek_sign_in(&purpose, state);
            if found != wanted.map(Arc::new).ok_or(PermissionDenied) {
                return Err(format!("what is seen of {state:?} is {found:?}"));
            }
        }
        Ok(())
    }

    /// A secret works exactly as long as what it is for.
    async fn present(&self, owner: Owner, secret: &str) -> Result<(), Mismatch> {
        let denied = "permission_denied".to_owned();
        let (found, wanted) = match owner {
            Owner::Session(id) => {
                let found = self.store().sessions().authenticate(secret).await;
                let session = self.oracle.sessions.iter().find(|session| session.id == id);
                let valid = session.filter(|session| session.expires_at > self.oracle.now);
                (found.map(Answer::from), valid.cloned().map(Arc::new).map(Answer::from))
            }
            Owner::PreAuthKey(id) => {
                let found = self.store().preauth_keys().authenticate(secret).await;
                let key = self.oracle.preauth_keys.iter().find(|key| key.id == id);
                (found.map(Answer::from), key.cloned().map(Arc::new).map(Answer::from))
            }
        };
        let found = found.map_err(|error| error.kind().name().to_owned());
        let wanted = wanted.ok_or(denied);
        if found == wanted {
            return Ok(());
        }
        let [found, wanted] = [found, wanted].map(|answer| format!("{answer:#?}"));
        Err(format!("what a secret gives{}", describe::difference(&found, &wanted)))
    }

    /// What is stored has to be sound.
    async fn end(self, verifies: bool) -> Result<(), Mismatch> {
        if verifies {
            self.store().verify().await.map_err(|error| format!("it is not sound: {error}"))?;
        }
        self.store().close().await.map_err(|error| format!("it does not close: {error}"))
    }
}

struct Ids<'g> {
    given: &'g mut HashSet<[u8; 16]>,
    now: Timestamp,
}

impl Ids<'_> {
    fn take<T, I: Id>(
        &mut self,
        before: &[T],
        after: &[T],
        id: impl Fn(&T) -> I,
        known: &mut Vec<I>,
    ) -> Result<(), Mismatch> {
        let old: HashSet<_> = before.iter().map(&id).collect();
        let mut new: Vec<_> = after.iter().map(id).filter(|id| !old.contains(id)).collect();
        new.sort();
        for id in new {
            let bytes = id.as_bytes();
            let millis = self.now.as_millis().to_be_bytes();
            if bytes[..6] != millis[2..] || bytes[6] >> 4 != 7 || bytes[8] >> 6 != 0b10 {
                return Err(format!("{id} is no UUIDv7 of {}", self.now));
            }
            if !self.given.insert(*bytes) {
                return Err(format!("{id} was given before"));
            }
            known.push(id);
        }
        Ok(())
    }
}
