//! `gwstore pin`: the mark outside of a store that tells when an older copy of it was put back.

use ghostwire_store::config::{BackendChoice, Config};
use ghostwire_store::domain::Actor;
use ghostwire_store::{Opener, PinReport, PinnedPlace, Result};
use ghostwire_store_core::block::Serial;
use serde_json::{Value, json};

use crate::cli::PinCommand;
use crate::failure::{Ending, Failure, Outcome};
use crate::output::Shell;
use crate::session::advised;

pub(super) async fn run(config: &Config, command: &PinCommand, shell: &mut Shell<'_>) -> Outcome {
    match command {
        PinCommand::Init { accept_missing } => init(config, *accept_missing, shell).await,
        PinCommand::Show => show(config, &compare(config).await?, shell),
        PinCommand::Verify => verify(compare(config).await?, shell),
        PinCommand::Accept { serial } => accept(config, Serial::new(*serial), shell).await,
    }
}

async fn compare(config: &Config) -> Result<PinReport> {
    let opener = Opener::new(config).create(false);
    opener.compare_with_pin().await.map_err(|error| advised(config, error))
}

/// Opening makes the pin.
async fn init(config: &Config, accept_missing: bool, shell: &mut Shell<'_>) -> Outcome {
    let before = compare(config).await?;
    // One by other keys, which cannot be read, is replaced as if it were lost.
    let had_one = before.pin.is_some() && before.refusal.is_none();
    let opener = Opener::new(config).create(false);
    let opener = if accept_missing { opener.accept_missing_pin() } else { opener };
    let backend = opener.open_backend().await.map_err(|error| advised(config, error))?;
    backend.close().await?;
    let report = compare(config).await?;
    if shell.json {
        return shell.object(&json!({ "made": !had_one, "pin": report.pin.map(place_as_json) }));
    }
    if had_one {
        return shell.say("There is nothing to do: the store has its pin.");
    }
    shell.say(format_args!("Made the pin, at serial {}.", report.store.serial))
}

fn show(config: &Config, report: &PinReport, shell: &mut Shell<'_>) -> Outcome {
    let kept = match &config.backend {
        BackendChoice::Zqlite(options) => {
            options.pin_file.as_ref().or(options.pin_command.as_ref())
        }
        _ => None,
    };
    let kept = kept.map(|path| path.display().to_string()).unwrap_or_default();
    if shell.json {
        return shell.object(&json!({ "place": kept, "pin": report.pin.map(place_as_json) }));
    }
    let mut pairs = vec![("place", kept)];
    match &report.pin {
        Some(pin) => pairs.extend(place_as_pairs(["epoch", "commit", "serial"], pin)),
        None => pairs.push(("mark", "none".to_owned())),
    }
    shell.pairs(&pairs)
}

fn verify(report: PinReport, shell: &mut Shell<'_>) -> Outcome {
    if shell.json {
        shell.object(&json!({
            "verdict": report.verdict,
            "served": report.refusal.is_none(),
            "store": place_as_json(report.store),
            "pin": report.pin.map(place_as_json),
        }))?;
    } else {
        let mut pairs = vec![("verdict", report.verdict.to_owned())];
        let names = ["store's epoch", "store's commit", "store's serial"];
        pairs.extend(place_as_pairs(names, &report.store));
        if let Some(pin) = &report.pin {
            pairs.extend(place_as_pairs(["pin's epoch", "pin's commit", "pin's serial"], pin));
        }
        shell.pairs(&pairs)?;
    }
    report.refusal.map_or(Ok(()), |refusal| Err(Failure::As(Ending::Found, refusal)))
}

async fn accept(config: &Config, serial: Serial, shell: &mut Shell<'_>) -> Outcome {
    let opener = Opener::new(config).create(false);
    let accepted = opener.accept_rollback(serial, Actor::system()).await;
    let given_up = accepted.map_err(|error| advised(config, error))?.pin;
    let now = compare(config).await?.store;
    if shell.json {
        let given_up = given_up.map(place_as_json);
        return shell.object(&json!({ "store": place_as_json(now), "given_up": given_up }));
    }
    shell.say(format_args!(
        "Accepted. The store goes on from serial {serial} in epoch {}. What the pin knew after that is given up.",
        now.epoch
    ))
}

fn place_as_pairs(
    [epoch, commit, serial]: [&'static str; 3],
    place: &PinnedPlace,
) -> [(&'static str, String); 3] {
    [
        (epoch, place.epoch.to_string()),
        (commit, place.commit.to_string()),
        (serial, place.serial.to_string()),
    ]
}

fn place_as_json(place: PinnedPlace) -> Value {
    json!({ "epoch": place.epoch, "commit": place.commit, "serial": place.serial.get() })
}
