//! The suite finds every fault of the backends that are broken on purpose, and none in the one
//! that is not.
#![allow(missing_docs, clippy::print_stdout)]

use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use ghostwire_store_conformance::broken::{BrokenMemory, Fault};
use ghostwire_store_conformance::{InMemory, Migrating, Outcome, Suite};
use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    // Cases are meant to panic here; what they say is in the table.
    std::panic::set_hook(Box::new(|_| {}));
    let table = Arc::new(Mutex::new(Vec::new()));
    let faults: Vec<_> = std::iter::once(&Fault::Nothing).chain(Fault::ALL).copied().collect();
    let trials = faults.iter().map(|&fault| {
        let table = table.clone();
        Trial::test(format!("{}/{fault:?}", fault.rule().unwrap_or("none")), move || {
            let line = try_out(fault)?;
            table.lock().unwrap_or_else(PoisonError::into_inner).push((fault, line));
            Ok(())
        })
    });
    let followers = OF_FOLLOWERS.iter().flat_map(|&(fault, rule)| {
        [true, false].map(|in_step| {
            let manner = if in_step { "in_step" } else { "following" };
            Trial::test(format!("{manner}/{fault:?}"), move || Ok(follow(fault, rule, in_step)?))
        })
    });
    let trials: Vec<_> = trials.chain(followers).collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    let mut table = table.lock().unwrap_or_else(PoisonError::into_inner);
    table.sort_by_key(|(fault, _)| faults.iter().position(|one| one == fault));
    for (fault, line) in table.iter() {
        println!("it {}\n    {line}", fault.text());
    }
    conclusion.exit_code()
}

/// What a database does wrong that follows another one, and the rule whose cases find it once it is served.
const OF_FOLLOWERS: [(Fault, &str); 4] = [
    (Fault::LosesSeries, "metrics-replace"),
    (Fault::IgnoresDeletes, "delete-user"),
    (Fault::BringsBackDeletedRows, "delete-user"),
    (Fault::StoresTheBlockWithoutRows, "durable-reply"),
];

fn follow(fault: Fault, rule: &str, in_step: bool) -> Result<(), String> {
    let (first, second) = (InMemory::new(), BrokenMemory::new(fault));
    let both = match in_step {
        true => Migrating::in_step(first, second),
        false => Migrating::following(first, second),
    };
    match Suite::new().backend_of_stores(both).first_failure(Some(rule)) {
        Some(_) => Ok(()),
        None => Err(format!("no case of `{rule}` finds a follower that {}", fault.text())),
    }
}

/// Which case finds the fault first. The cases of its own rule have to.
fn try_out(fault: Fault) -> Result<String, String> {
    let suite = Suite::new().backend(BrokenMemory::new(fault));
    match (fault.rule(), suite.first_failure(fault.rule())) {
        (None, None) => Ok("nothing is found, as it has to be".to_owned()),
        (None, Some(trial)) => Err(format!("{}: {:?}", trial.case(), trial.outcome)),
        (Some(rule), None) => {
            Err(format!("no case of `{rule}` finds a backend that {}", fault.text()))
        }
        (Some(_), Some(trial)) => {
            let mode = trial.mode.map_or("", |mode| mode.name());
            let Outcome::Failed(message) = &trial.outcome else {
                return Err("what did not fail was taken for a failure".to_owned());
            };
            let first = message.lines().next().unwrap_or_default();
            let short: String = first.chars().take(80).collect();
            Ok(format!("{} ({mode}): {short}", trial.case()))
        }
    }
}
