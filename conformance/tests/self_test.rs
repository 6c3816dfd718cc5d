//! The suite finds every fault of the backends that are broken on purpose, and none in the one
//! that is not.
#![allow(missing_docs, clippy::print_stdout)]

use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use ghostwire_store_conformance::broken::{BrokenMemory, Fault};
use ghostwire_store_conformance::{Outcome, Suite};
use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    // Cases are meant to panic here; what they say is in the table.
    std::panic::set_hook(Box::new(|_| {}));
    let table = Arc::new(Mutex::new(Vec::new()));
    let trials = Fault::ALL.iter().map(|&fault| {
        let table = table.clone();
        Trial::test(format!("{fault:?}"), move || {
            let found = Suite::new().backend(BrokenMemory::new(fault)).first_failure();
            let line = match (fault, found) {
                (Fault::Nothing, None) => "nothing found, as it has to be".to_owned(),
                (Fault::Nothing, Some(trial)) => {
                    return Err(format!("{}: {:?}", trial.case(), trial.outcome).into());
                }
                (_, Some(trial)) => {
                    let mode = trial.mode.map_or("", |mode| mode.name());
                    let Outcome::Failed(message) = &trial.outcome else {
                        return Err("what did not fail was taken for a failure".into());
                    };
                    let first = message.lines().next().unwrap_or_default();
                    let short: String = first.chars().take(80).collect();
                    format!("{} ({mode}): {short}", trial.case())
                }
                (_, None) => {
                    return Err(format!("no case finds a backend that {}", fault.text()).into());
                }
            };
            let mut table = table.lock().unwrap_or_else(PoisonError::into_inner);
            table.push((fault, line));
            Ok(())
        })
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    let mut table = table.lock().unwrap_or_else(PoisonError::into_inner);
    table.sort_by_key(|(fault, _)| Fault::ALL.iter().position(|one| one == fault));
    for (fault, line) in table.iter() {
        println!("it {}\n    {line}", fault.text());
    }
    conclusion.exit_code()
}
