//! Which cases run on which backends, and how.

use std::num::NonZero;
use std::panic::AssertUnwindSafe;
use std::process::ExitCode;
use std::time::Instant;

use crate::case::{Case, message_of};
use crate::cases;
use crate::contract;
use crate::exceptions::Exceptions;
use crate::prelude::*;
use crate::report::{Outcome, Report, Trial};

/// How much work the checks do. Read from the environment, so that a nightly run does more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Effort {
    /// Random sequences of commands that are compared with the model, for each backend
    /// (`GHOSTWIRE_CONFORMANCE_SEQUENCES`).
    pub sequences: u32,
    /// Processes that are killed, for each backend (`GHOSTWIRE_CONFORMANCE_KILLS`).
    pub kills: u32,
    /// Where random choices begin (`GHOSTWIRE_CONFORMANCE_SEED`).
    pub seed: u64,
}

impl Default for Effort {
    fn default() -> Self {
        Self { sequences: 2_000, kills: 25, seed: 1 }
    }
}

impl Display for Effort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}, {}, {}", self.sequences, self.kills, self.seed)
    }
}

impl Effort {
    /// What the environment says, and the default where it says nothing.
    ///
    /// # Errors
    /// `InvalidArgument`, with the variable, if that is no whole number, or 0 where something is
    /// counted: it would prove nothing.
    pub fn from_environment() -> Result<Self> {
        let number = |name: &'static str, default: u64, least: u64, most: u64| {
            let Some(text) = std::env::var_os(name) else { return Ok(default) };
            let number = text.to_str().and_then(|text| text.parse().ok());
            number.filter(|number| (least..=most).contains(number)).ok_or_else(|| {
                Error::invalid("a variable has to be a whole number")
                    .with("variable", name)
                    .with("value", text.display())
                    .with("allowed", format_args!("{least} to {most}"))
            })
        };
        let count = |name, default: u32| {
            let number = number(name, default.into(), 1, u32::MAX.into())?;
            Ok::<_, Error>(u32::try_from(number).unwrap_or(u32::MAX))
        };
        let Self { sequences, kills, seed } = Self::default();
        Ok(Self {
            sequences: count("GHOSTWIRE_CONFORMANCE_SEQUENCES", sequences)?,
            kills: count("GHOSTWIRE_CONFORMANCE_KILLS", kills)?,
            seed: number("GHOSTWIRE_CONFORMANCE_SEED", seed, 0, u64::MAX)?,
        })
    }
}

/// So long may a case take before it counts as one that does not end.
const TIME_LIMIT: Duration = Duration::from_secs(120);

/// Told of every trial that ends.
pub type Progress<'a> = &'a mut dyn FnMut(&Trial, usize, usize);

/// The cases, and the backends that they run on.
#[derive(Debug)]
pub struct Suite {
    backends: Vec<Participant>,
    stacks: Vec<Stack>,
    exceptions: Exceptions,
    effort: Option<Effort>,
}

impl Default for Suite {
    fn default() -> Self {
        Self::new()
    }
}

/// A backend, and what is checked on it.
#[derive(Debug)]
struct Participant {
    backend: Arc<dyn Factory>,
    rules: Rules,
    stacks: Vec<Stack>,
}

/// About which database it is, who else has it open, and what it keeps for those who follow: between two, the
/// other one is such a follower.
const OF_ONE_DATABASE: [&str; 11] = [
    "consumer-away",
    "deadline",
    "feed",
    "fuzzy-load",
    "identity",
    "migration",
    "one-process",
    "purged-follower",
    "series-outcome",
    "shared-write",
    "view-age",
];

#[derive(Debug, Clone, Copy)]
enum Rules {
    All,
    These(&'static [&'static str]),
    OfStores,
}

impl Participant {
    fn takes_part(&self, rule: &str) -> bool {
        match self.rules {
            Rules::All => true,
            Rules::These(rules) => rules.contains(&rule),
            Rules::OfStores => !rule.starts_with("backend-") && !OF_ONE_DATABASE.contains(&rule),
        }
    }
}

/// One thing to run.
#[derive(Debug, Clone)]
struct Planned {
    backend: Arc<dyn Factory>,
    stack: Stack,
    what: What,
}

#[derive(Debug, Clone, Copy)]
enum What {
    Case(Case, Mode),
    Check(Check),
}

impl Suite {
    /// Every case and check, on every layer, and no backend yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            backends: Vec::new(),
            stacks: Stack::all(),
            exceptions: Exceptions::default(),
            effort: None,
        }
    }

    /// Runs on this backend, too.
    #[must_use]
    pub fn backend(self, factory: impl Factory) -> Self {
        self.participant(Rules::All, factory)
    }

    /// Runs on this backend, too, but not what is about backends by themselves: nothing but a store can write to
    /// it. Nor what is about one database alone.
    #[must_use]
    pub fn backend_of_stores(self, factory: impl Factory) -> Self {
        self.participant(Rules::OfStores, factory)
    }

    /// Runs on this backend, too, but only what proves one of these rules.
    #[must_use]
    pub fn backend_for(self, rules: &'static [&'static str], factory: impl Factory) -> Self {
        self.participant(Rules::These(rules), factory)
    }

    fn participant(mut self, rules: Rules, factory: impl Factory) -> Self {
        let (backend, stacks) = (Arc::new(factory), self.stacks.clone());
        self.backends.push(Participant { backend, rules, stacks });
        self
    }

    /// The backends that `add` adds run on these layers only.
    #[must_use]
    pub fn on(mut self, stacks: Vec<Stack>, add: impl FnOnce(Self) -> Self) -> Self {
        let all = std::mem::replace(&mut self.stacks, stacks);
        Self { stacks: all, ..add(self) }
    }

    /// Does this much work in checks; [`Suite::main`] then does not ask the environment.
    #[must_use]
    pub fn effort(mut self, effort: Effort) -> Self {
        self.effort = Some(effort);
        self
    }

    /// What backends may skip, in TOML, besides what was said before:
    ///
    /// ```toml
    /// [[exception]]
    /// backends = ["memory"]
    /// cases = ["one-process/a_second_writer_is_busy_at_once"]
    /// reason = "what is in memory has no other opener"
    /// ```
    ///
    /// # Panics
    /// If it cannot be read: it is part of the program.
    #[must_use]
    pub fn exceptions(mut self, text: &str) -> Self {
        self.exceptions.add(Exceptions::parse(text).expect("the exceptions can be read"));
        self
    }

    /// Which cases and checks prove which line of the contract, in the contract's order.
    #[must_use]
    pub fn proofs() -> Vec<(&'static str, Vec<String>)> {
        contract::rules().map(|rule| (rule, proofs_of(rule))).collect()
    }

    /// What is wrong with the suite itself: lines that nothing proves, proofs of lines that do not
    /// exist, exceptions for cases that do not exist.
    #[must_use]
    pub fn defects(&self) -> Vec<String> {
        let rules = self.backends.iter().flat_map(|participant| match participant.rules {
            Rules::These(rules) => rules,
            Rules::OfStores => &OF_ONE_DATABASE[..],
            Rules::All => &[],
        });
        let strange_rules: Vec<_> =
            rules.filter(|rule| !contract::rules().any(|line| line == **rule)).collect();
        let unproved = Self::proofs().into_iter().filter(|(_, proofs)| proofs.is_empty());
        let mut defects: Vec<_> =
            unproved.map(|(rule, _)| format!("nothing proves `{rule}`")).collect();
        let all = all_proofs();
        let strangers = all.iter().filter(|(rule, _)| !contract::rules().any(|line| line == *rule));
        defects.extend(
            strangers.map(|(rule, name)| format!("{rule}/{name} proves no line of the contract")),
        );
        defects.extend(
            strange_rules
                .iter()
                .map(|rule| format!("a backend is checked for {rule}, no line of the contract")),
        );
        let names: Vec<_> = all.iter().map(|(rule, name)| format!("{rule}/{name}")).collect();
        let unknown = self.exceptions.unknown(&names);
        defects.extend(unknown.iter().map(|case| format!("an exception names {case}, no case")));
        defects
    }

    fn plan(&self) -> Vec<Planned> {
        let mut plan = Vec::new();
        for participant in &self.backends {
            let backend = &participant.backend;
            for stack in &participant.stacks {
                let planned =
                    |what| Planned { backend: backend.clone(), stack: stack.clone(), what };
                for case in cases::all().filter(|case| participant.takes_part(case.rule)) {
                    // A layer stores nothing, so the modes would show the backend below it once
                    // more. One that reads everything through the layer is enough.
                    let modes = match (case.stored, stack.is_bare()) {
                        (true, true) => &Mode::ALL[..],
                        (true, false) => &[Mode::Blocks][..],
                        (false, _) => &[Mode::Live][..],
                    };
                    plan.extend(modes.iter().map(|mode| planned(What::Case(*case, *mode))));
                }
            }
            let planned = |what| Planned { backend: backend.clone(), stack: Stack::bare(), what };
            let checks = cases::checks().filter(|check| participant.takes_part(check.rule));
            plan.extend(checks.map(|check| planned(What::Check(*check))));
        }
        plan
    }

    /// Runs everything whose name contains `filter`, one after the other.
    pub fn run(&self, filter: &str, progress: Progress<'_>) -> Report {
        let plan: Vec<_> =
            self.plan().into_iter().filter(|planned| planned.name().contains(filter)).collect();
        let mut report = Report::default();
        for (index, planned) in plan.iter().enumerate() {
            let trial = planned.run(&self.exceptions, self.effort.unwrap_or_default());
            progress(&trial, index + 1, plan.len());
            report.trials.push(trial);
        }
        report
    }

    /// Runs the cases of one rule, or of all of them, without layers and one after the other,
    /// until one fails. What is skipped counts as passed, and what does not end as failed.
    #[must_use]
    pub fn first_failure(&self, rule: Option<&str>) -> Option<Trial> {
        let mut plan = self.plan();
        plan.retain(|planned| match planned.what {
            What::Check(_) => false,
            What::Case(case, _) => {
                planned.stack.is_bare() && rule.is_none_or(|rule| rule == case.rule)
            }
        });
        plan.iter().find_map(|planned| {
            let began = Instant::now();
            let message =
                planned.evaluate_within(TIME_LIMIT, self.effort.unwrap_or_default()).err()?;
            Some(planned.trial(Outcome::Failed(message), began))
        })
    }

    /// If this process was started by a check, to be killed: does its job, and returns the exit
    /// code should it ever end. Checks start the program that they run in, so a program that runs
    /// them by [`Suite::run`] calls this before it does anything else, with the same backends;
    /// [`Suite::main`] does so itself.
    #[must_use]
    pub fn run_child(&self) -> Option<ExitCode> {
        let backends = self.backends.iter().map(|participant| participant.backend.clone());
        crate::crash::run_child(&backends.collect::<Vec<_>>())
    }

    /// The `main` of a test without the standard harness: takes its arguments, and behaves like
    /// it.
    #[must_use]
    pub fn main(self) -> ExitCode {
        if let Some(ended) = self.run_child() {
            return ended;
        }
        let mut arguments = libtest_mimic::Arguments::from_args();
        // Trials wait for disks and processes more than they compute.
        let at_once =
            std::thread::available_parallelism().map_or(1, NonZero::get).saturating_mul(2);
        arguments.test_threads.get_or_insert(at_once);
        let defects = self.defects();
        let whole = libtest_mimic::Trial::test("suite/every_line_is_proved", move || {
            if defects.is_empty() { Ok(()) } else { Err(defects.join("\n").into()) }
        });
        let exceptions = Arc::new(self.exceptions.clone());
        let effort = match self.effort.map_or_else(Effort::from_environment, Ok) {
            Ok(effort) => effort,
            Err(error) => {
                eprintln!("{error}");
                return ExitCode::from(2);
            }
        };
        let trials = self.plan().into_iter().map(|planned| {
            let exceptions = exceptions.clone();
            libtest_mimic::Trial::test(planned.name(), move || {
                match planned.run(&exceptions, effort).outcome {
                    Outcome::Failed(message) => Err(message.into()),
                    Outcome::Passed | Outcome::Excepted(_) => Ok(()),
                }
            })
        });
        libtest_mimic::run(&arguments, std::iter::once(whole).chain(trials).collect()).exit_code()
    }
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).thread_stack_size(2 * 1024 * 1024).enable_all().build()
}

fn all_proofs() -> Vec<(&'static str, &'static str)> {
    let cases = cases::all().map(|case| (case.rule, case.name));
    cases.chain(cases::checks().map(|check| (check.rule, check.name))).collect()
}

fn proofs_of(rule: &str) -> Vec<String> {
    let of_rule = all_proofs().into_iter().filter(|(proved, _)| *proved == rule);
    of_rule.map(|(rule, name)| format!("{rule}/{name}")).collect()
}

impl Planned {
    fn name(&self) -> String {
        let (backend, stack) = (self.backend.name(), self.stack.name());
        match &self.what {
            What::Case(case, mode) => {
                format!("{backend}/{stack}/{}/{}/{}", mode.name(), case.rule, case.name)
            }
            What::Check(check) => format!("{backend}/{}/{}", check.rule, check.name),
        }
    }

    fn run(&self, exceptions: &Exceptions, effort: Effort) -> Trial {
        let began = Instant::now();
        let limit = match self.what {
            What::Case(..) => TIME_LIMIT,
            // How long a check takes depends on the effort.
            What::Check(_) => Duration::MAX,
        };
        let evaluated = self.evaluate_within(limit, effort);
        let case = self.trial(Outcome::Passed, began).case();
        let reason = exceptions.reason(self.backend.name(), &case);
        let outcome = match (evaluated, reason) {
            (Ok(Verdict::Passed), None) => Outcome::Passed,
            (Ok(Verdict::Passed), Some(_)) => {
                Outcome::Failed("is excepted, but passes; remove the exception".to_owned())
            }
            (Ok(Verdict::Skipped(_)), Some(reason)) => Outcome::Excepted(reason.to_owned()),
            (Ok(Verdict::Skipped(why)), None) => {
                Outcome::Failed(format!("was skipped, and no exception allows that: {why}"))
            }
            (Err(message), _) => Outcome::Failed(message),
        };
        self.trial(outcome, began)
    }

    /// As [`Planned::evaluate`], but gives up after a while.
    fn evaluate_within(
        &self,
        limit: Duration,
        effort: Effort,
    ) -> std::result::Result<Verdict, String> {
        let runtime = runtime().map_err(|error| error.to_string())?;
        let evaluated =
            runtime.block_on(async { tokio::time::timeout(limit, self.evaluate(effort)).await });
        // What still runs is not waited for.
        runtime.shutdown_background();
        evaluated.unwrap_or_else(|_| Err("it does not end".to_owned()))
    }

    fn trial(&self, outcome: Outcome, began: Instant) -> Trial {
        let (rule, name, mode) = match self.what {
            What::Case(case, mode) => (case.rule, case.name, Some(mode)),
            What::Check(check) => (check.rule, check.name, None),
        };
        Trial {
            backend: self.backend.name().to_owned(),
            stack: self.stack.name().to_owned(),
            mode,
            rule: rule.to_owned(),
            name: name.to_owned(),
            outcome,
            elapsed: began.elapsed(),
        }
    }

    async fn evaluate(&self, effort: Effort) -> std::result::Result<Verdict, String> {
        let evaluated = async {
            match self.what {
                What::Check(check) => (check.run)(self.backend.clone(), effort).await,
                What::Case(case, mode) => {
                    let seed = effort.seed;
                    let made =
                        TestEnv::create(self.backend.as_ref(), &self.stack, mode, seed).await;
                    let mut env = made.expect("a place can be made");
                    let verdict = (case.run)(&mut env).await;
                    assert!(
                        env.reloads() > 0 || !case.stored || verdict != Verdict::Passed,
                        "the case is about what is stored, and never lets it be read again"
                    );
                    verdict
                }
            }
        };
        AssertUnwindSafe(evaluated).catch_unwind().await.map_err(|panic| message_of(&*panic))
    }
}
