//! Edits: each is tried on a copy of the state, shown, and then made in one commit.

mod save;
mod trial;

use ghostwire_store::admin::protocol::Issue;
use ghostwire_store::command::{Command, EntityRecord, MAX_STEPS, Transaction};
use ghostwire_store::config::Config;
use ghostwire_store::domain::{ApiKeyId, KeyPrefix, PreAuthKeyId, Secret, SecretHash, SessionId};
use ghostwire_store::portable::Item;
use ghostwire_store::{Error, ErrorKind, Result, command};
use ghostwire_store_core::state::CredentialHashes;

use self::trial::Trial;
use super::list::object;
use crate::confirm::{self, Advice};
use crate::credentials::{KeyFit, StoreKey, configured_key};
use crate::failure::{Failure, Outcome};
use crate::nouns::{How, Issues, Manner, Plan, Plans, Scene, name_of};
use crate::output::{Shell, called, shown};
use crate::output_file::Target;
use crate::session::{Reading, refuse_to_forget};
use crate::writing::Writing;

/// A commit takes so many commands, each with its precondition.
const MOST_COMMANDS: usize = MAX_STEPS / 2;

/// Makes an edit, or with `--dry-run` says what it would come to.
pub(super) async fn run(
    config: &Config,
    plans: &dyn Plans,
    manner: Manner<'_>,
    shell: &mut Shell<'_>,
) -> Outcome {
    let Manner { how, deleting } = manner;
    if how.dry_run {
        return rehearse(config, how, shell, |scene| plans.plan(scene)).await;
    }
    let asked = match deleting {
        Some(deleting) if !deleting.yes => {
            let trial = rehearsed(config, how, shell, |scene| plans.plan(scene)).await?;
            if trial.is_empty() {
                return trial.tell(false, shell);
            }
            confirm::require_somebody(&trial.question(), Advice::Rehearse, shell)?;
            Some(trial)
        }
        _ => None,
    };
    let save = deleting.and_then(|deleting| deleting.save.as_deref());
    let save = save.map(|path| Target::check(path, false, Some(config))).transpose()?;
    refuse_to_forget(config)?;
    if let Some(trial) = &asked {
        trial.tell(true, shell)?;
        // Nobody has to wait for the answer: the store is not open.
        confirm::ask(&trial.question(), Advice::Rehearse, shell)?;
    }
    let store = Writing::open(config, shell).await?;
    let plan = asked.map(|trial| trial.plan);
    let made = make(&store, config, plans, how, plan, save, shell).await;
    let closed = store.close().await;
    made?;
    Ok(closed?)
}

async fn rehearse(
    config: &Config,
    how: &How,
    shell: &mut Shell<'_>,
    plan: impl Fn(&Scene<'_>) -> Outcome<Plan>,
) -> Outcome {
    let trial = rehearsed(config, how, shell, plan).await?;
    shell.note("this is a dry run: nothing is written");
    trial.tell(true, shell)
}

/// What an edit comes to, on a store that is only read.
async fn rehearsed(
    config: &Config,
    how: &How,
    shell: &mut Shell<'_>,
    plan: impl Fn(&Scene<'_>) -> Outcome<Plan>,
) -> Outcome<Trial> {
    let reading = Reading::open(config, shell).await?;
    let tried = {
        let view = reading.store.view();
        let scene = Scene::of(&view);
        plan(&scene).and_then(|plan| Trial::of(plan, how, &scene))
    };
    reading.close().await?;
    tried
}

/// What an edit needs of a store, wherever that is: a view, and a transaction. `agreed` is what somebody
/// has said yes to.
async fn make(
    store: &Writing,
    config: &Config,
    plans: &dyn Plans,
    how: &How,
    agreed: Option<Plan>,
    save: Option<Target>,
    shell: &mut Shell<'_>,
) -> Outcome {
    let trial = {
        let view = store.view();
        let scene = Scene::of(&view);
        plans.plan(&scene).and_then(|plan| Trial::of(plan, how, &scene))?
    };
    // Whoever else uses the store did not wait for the answer.
    if agreed.is_some_and(|agreed| agreed != trial.plan) {
        let message = "what was shown has changed meanwhile; nothing was written";
        return Err(Error::new(ErrorKind::Conflict, message).into());
    }
    if trial.is_empty() {
        return trial.tell(false, shell);
    }
    if let Some(target) = save {
        let path = target.path().to_owned();
        let count = save::write(&trial, target, config, shell).await?;
        let path = shown(&path);
        shell.note(format_args!(
            "saved {count} entities in {path}; `gwstore import portable {path}` brings them back, once nobody has the \
             store open"
        ));
    }
    commit(store, &trial.plan).await?;
    trial.tell(false, shell)
}

/// All in one commit, as far as one takes it.
async fn commit(store: &Writing, plan: &Plan) -> Result<()> {
    let mut requires = plan.requires.chunks(MOST_COMMANDS);
    for commands in plan.commands.chunks(MOST_COMMANDS) {
        let mut transaction = Transaction::new();
        for precondition in requires.next().unwrap_or_default() {
            transaction = transaction.require(precondition.clone())?;
        }
        for command in commands {
            transaction = transaction.then(command.clone())?;
        }
        store.transact(transaction).await?;
    }
    Ok(())
}

/// Makes something with a secret, which then stands alone on standard output.
pub(super) async fn issue(
    config: &Config,
    issues: &dyn Issues,
    how: &How,
    shell: &mut Shell<'_>,
) -> Outcome {
    if how.expect_revision.is_some() {
        let message = "--expect-revision is for what is there already";
        return Err(Failure::usage(Error::invalid(message)));
    }
    if how.dry_run {
        return rehearse(config, how, shell, |scene| Ok(Plan::of(stand_in(issues.issue(scene)?)?)))
            .await;
    }
    refuse_to_forget(config)?;
    let store = Writing::open(config, shell).await?;
    let issued = make_secret(&store, issues).await;
    let view = store.view();
    let closed = store.close().await;
    let (record, secret) = issued?;
    closed?;
    if let Ok(Some(keys)) = configured_key(config).await
        && let Some(misfit) =
            KeyFit::of(CredentialHashes::of(&view), StoreKey::from(&keys)).misfit()
    {
        shell
            .note(format_args!("{misfit}, and they are refused; `gwstore doctor` says what to do"));
    }
    let scene = Scene::of(&view);
    if shell.json {
        let mut object = object(&Item::Entity(record), &scene)?;
        object.insert("secret".to_owned(), secret.expose().into());
        return shell.object(&object);
    }
    let name = name_of(&record, &view);
    shell.note(format_args!(
        "made {} {name}; this is its secret, shown once",
        called(record.entity())
    ));
    shell.line(secret.expose())
}

async fn make_secret(store: &Writing, issues: &dyn Issues) -> Outcome<(EntityRecord, Secret)> {
    let view = store.view();
    let issue = issues.issue(&Scene::of(&view))?;
    drop(view);
    Ok(store.issue(issue).await?)
}

/// What making a secret comes to, with a public part and a hash that are nobody's.
fn stand_in(issue: Issue) -> Result<Command> {
    let (prefix, hash): (KeyPrefix, _) = ("dry-run".parse()?, SecretHash::hmac([0; 4], [0; 32]));
    let id = [0xff; 16];
    Ok(match issue {
        Issue::PreauthKey(key) => {
            let id = PreAuthKeyId::from_bytes(id);
            command::PreAuthKeyCommand::Create { id, prefix, hash, key }.into()
        }
        Issue::ApiKey(key) => {
            let id = ApiKeyId::from_bytes(id);
            command::ApiKeyCommand::Create { id, prefix, hash, key }.into()
        }
        Issue::Session(session) => {
            command::SessionCommand::Begin { id: SessionId::from_bytes(id), hash, session }.into()
        }
    })
}
