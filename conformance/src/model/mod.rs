//! Random scripts of calls, carried out on a store and on a model of it.
//!
//! The [oracle] is written from the contract and shares no rule with the store. For every call it
//! says the answer to the last field, or the kind of the refusal, and whether anything is written;
//! every few calls all listings, lookups and the digest are compared. A script that shows a
//! difference is made as short as it can be, and printed line by line.

mod call;
mod coverage;
mod describe;
mod digest;
mod generator;
mod listings;
mod operation;
mod oracle;
mod reference;
mod run;
mod values;

use std::panic::AssertUnwindSafe;

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::case::message_of;
use crate::prelude::*;
use coverage::Coverage;
use operation::Step;
use run::{Mismatch, RunConfig};

pub(crate) const CHECKS: &[Check] = &[
    check!("same-everywhere", random_calls_do_what_the_contract_says, against_the_model),
    check!("same-everywhere", random_calls_do_the_same_as_in_memory, beside_memory),
];

async fn against_the_model(factory: Arc<dyn Factory>, effort: Effort) -> Verdict {
    let waits = waits_for_disks(&*factory).await;
    let sequences = if waits { effort.sequences.div_ceil(4) } else { effort.sequences };
    compare(factory, effort.seed, sequences, false).await
}

/// Each sequence does all that one against the model alone does, and more, so there are fewer.
async fn beside_memory(factory: Arc<dyn Factory>, effort: Effort) -> Verdict {
    compare(factory, !effort.seed, effort.sequences.div_ceil(25), true).await
}

/// A commit that has to be durable takes several times as long as the rest of a call: fewer scripts
/// have to do then. What they reach depends on the scripts, and not on the backend.
async fn waits_for_disks(factory: &dyn Factory) -> bool {
    let env = TestEnv::create(factory, &Stack::bare(), Mode::Live, 0).await;
    let env = env.expect("a place can be made");
    let backend = env.open_backend().await;
    let waits = backend.info().durable;
    backend.close().await.expect("the backend closes");
    waits
}

/// How often a script that fails is carried out again to make it shorter.
const ATTEMPTS_TO_SHORTEN: usize = 1_500;

async fn compare(
    factory: Arc<dyn Factory>,
    seed: u64,
    sequences: u32,
    beside_memory: bool,
) -> Verdict {
    let scripts = operation::scripts();
    let mut coverage = Coverage::default();
    for number in 0..sequences {
        let seed = seed.wrapping_add(u64::from(number));
        let mode = if seed % 4 == 3 { Mode::AtOnce } else { Mode::Blocks };
        let config = RunConfig { mode, seed, beside_memory };
        let mut script = scripts.new_tree(&mut runner(seed)).expect("nothing is filtered");
        let mut log = Vec::new();
        let ended = attempt(&*factory, &script.current(), config, &mut coverage, &mut log).await;
        if let Err(wrong) = ended {
            let (log, wrong) = shorten(&*factory, &mut script, config, (log, wrong)).await;
            panic!("{}", report(&log, &wrong, config));
        }
    }
    let missing = coverage.missing(sequences);
    assert!(missing.is_empty(), "no script came to this: {missing:#?}\n{coverage:#?}");
    Verdict::Passed
}

fn runner(seed: u64) -> TestRunner {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let random = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    TestRunner::new_with_rng(Config::default(), random)
}

/// Runs a script; a panic is a mismatch, too.
async fn attempt(
    factory: &dyn Factory,
    script: &[Step],
    config: RunConfig,
    coverage: &mut Coverage,
    log: &mut Vec<String>,
) -> Result<(), Mismatch> {
    let ended = AssertUnwindSafe(run::run_script(factory, script, config, coverage, log));
    ended.catch_unwind().await.unwrap_or_else(|panic| Err(message_of(&*panic)))
}

/// The shortest script that is found to fail, as its log, and what is wrong in it.
async fn shorten(
    factory: &dyn Factory,
    script: &mut impl ValueTree<Value = Vec<Step>>,
    config: RunConfig,
    mut shortest: (Vec<String>, Mismatch),
) -> (Vec<String>, Mismatch) {
    let mut goes_on = script.simplify();
    for _ in 0..ATTEMPTS_TO_SHORTEN {
        if !goes_on {
            break;
        }
        let (mut log, mut coverage) = (Vec::new(), Coverage::default());
        match attempt(factory, &script.current(), config, &mut coverage, &mut log).await {
            Err(wrong) => {
                shortest = (log, wrong);
                goes_on = script.simplify();
            }
            Ok(()) => goes_on = script.complicate(),
        }
    }
    shortest
}

fn report(log: &[String], wrong: &str, config: RunConfig) -> String {
    let lines: Vec<_> = log.iter().map(|line| format!("    {line}")).collect();
    let seed = if config.beside_memory { !config.seed } else { config.seed };
    format!(
        "After\n{}\n{wrong}\n\nTo repeat it: GHOSTWIRE_CONFORMANCE_SEED={seed} \
         GHOSTWIRE_CONFORMANCE_SEQUENCES=1\n",
        lines.join("\n")
    )
}
