//! What is measured, and how much of it.

use std::path::PathBuf;

use ghostwire_store_bench_workload::data::POINTS_PER_MONTH;
use ghostwire_store_bench_workload::results::{Case, SQLX_ONE};
use ghostwire_store_bench_workload::subject::About;
use ghostwire_store_bench_workload::{Content, Operation};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effort {
    Quick,
    Default,
    Full,
}

impl Effort {
    pub fn name(self) -> &'static str {
        match self {
            Self::Quick => "quick",
            Self::Default => "default",
            Self::Full => "full",
        }
    }
}

/// What is asked of the suite. Empty lists are everything.
#[derive(Debug, Clone)]
pub struct Request {
    pub effort: Effort,
    pub subjects: Vec<String>,
    pub operations: Vec<Operation>,
    /// Only with so many callers at once, where there are many.
    pub callers: Vec<usize>,
    pub rounds: Option<usize>,
    pub seconds: Option<f64>,
    pub directory: PathBuf,
    /// The program that measures what cannot be linked into this one.
    pub others: Option<PathBuf>,
    /// A PostgreSQL server on this machine.
    pub postgres: Option<String>,
}

/// The subject that stands for this store where only one is measured.
pub(super) const FIRST: &str = "zqlite";

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Planned {
    pub(super) case: Case,
    pub(super) who: Who,
    /// Runs on the subject that other cases of the content use, though it changes it.
    pub(super) shares_subject: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    All,
    /// One of those that store the same bytes, since it takes minutes to store so many; the memory
    /// backend stores none.
    Distinct,
    /// [`FIRST`] alone.
    First,
}

impl Who {
    pub(super) fn includes(self, about: &About) -> bool {
        self.leaves_out(about).is_none() && (self != Self::First || about.name == FIRST)
    }

    /// Why somebody does not take part who could.
    pub(super) fn leaves_out(self, about: &About) -> Option<&'static str> {
        let is_a_twin = about.name == "libsql-checkpoint"
            || about.name == SQLX_ONE
            || about.name.starts_with("zqlite-pinned")
            || about.name.ends_with("-batched");
        match self {
            Self::Distinct if about.backend == "memory" => {
                Some("it would hold all of it in memory")
            }
            Self::Distinct if is_a_twin => Some("it stores this as its twin does"),
            _ => None,
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Sizes {
    pub(super) rounds: usize,
    pub(super) seconds: f64,
    /// Reads are steadier, and need less time.
    read_seconds: f64,
    small_write_seconds: f64,
    callers: Vec<usize>,
    nodes: u64,
    many_nodes: u64,
    routes: u32,
    points: u64,
    import: u64,
    /// How many callers each of several processes has, and how many nodes there are.
    pub(super) in_processes: (usize, u64),
    pub(super) process_seconds: f64,
    /// Checkpoints that a run of many registering callers spans.
    checkpoints: u64,
    /// How many nodes a store has that is opened in a process of its own.
    pub(super) openings: Vec<u64>,
    /// Between which sizes costs are compared.
    pub(super) growth: [u64; 2],
}

impl Sizes {
    pub(super) fn of(request: &Request) -> Self {
        let mut sizes = match request.effort {
            Effort::Quick => Self {
                rounds: 1,
                seconds: 0.1,
                read_seconds: 0.05,
                small_write_seconds: 0.05,
                callers: vec![1, 16],
                nodes: 500,
                many_nodes: 1_000,
                routes: 2_000,
                points: 2 * POINTS_PER_MONTH,
                import: 2_000,
                in_processes: (16, 500),
                process_seconds: 0.5,
                checkpoints: 0,
                openings: vec![0, 1_000],
                growth: [100, 1_000],
            },
            Effort::Default | Effort::Full => Self {
                rounds: 3,
                seconds: 0.5,
                read_seconds: 0.25,
                small_write_seconds: 0.4,
                callers: vec![1, 256, 2_048],
                nodes: 10_000,
                many_nodes: 50_000,
                routes: 100_000,
                points: 1_000_000,
                import: 100_000,
                in_processes: (256, 10_000),
                process_seconds: 4.0,
                checkpoints: 3,
                openings: vec![0, 1_000, 100_000],
                growth: [1_000, 100_000],
            },
        };
        if request.effort == Effort::Full {
            sizes.seconds = 0.75;
            sizes.callers = vec![1, 16, 256, 2_048];
            sizes.points = 10_000_000;
            sizes.openings.push(1_000_000);
            sizes.growth = [1_000, 1_000_000];
        }
        if let Some(rounds) = request.rounds {
            sizes.rounds = rounds;
        }
        if let Some(seconds) = request.seconds {
            (sizes.seconds, sizes.read_seconds) = (seconds, seconds);
            sizes.small_write_seconds = seconds;
        }
        if !request.callers.is_empty() {
            sizes.callers.clone_from(&request.callers);
        }
        sizes
    }

    fn case(&self, operation: Operation, callers: usize, content: Content) -> Planned {
        use Operation::{Audit, Endpoints, Heartbeat};
        use ghostwire_store_bench_workload::Kind;
        let seconds = match operation.kind() {
            Kind::Read => self.read_seconds,
            // They are many, and steadier than what is counted from checkpoint to checkpoint.
            Kind::Write if matches!(operation, Heartbeat | Endpoints | Audit) => {
                self.seconds.min(self.small_write_seconds)
            }
            Kind::Write | Kind::Special => self.seconds,
        };
        // With few callers it would take minutes until enough rows wait to be flushed; what they
        // leave is flushed at the end of the run, and that counts.
        let counts = matches!(operation, Operation::Register | Operation::SignIn) && callers > 64;
        let checkpoints = if counts { self.checkpoints } else { 0 };
        let case = Case { operation, callers, content, seconds, checkpoints };
        Planned { case, who: Who::All, shares_subject: false }
    }
}

/// All cases, those of one content together.
pub(super) fn plan(request: &Request) -> Vec<Planned> {
    use Operation::*;
    let sizes = Sizes::of(request);
    let mut plan = Vec::new();
    let empty = Content::default();
    let network = Content {
        nodes: sizes.nodes,
        routes: 2_000,
        rules: 1_000,
        api_keys: 1_000,
        audit: sizes.nodes,
        ..empty
    };
    let most = sizes.callers.iter().copied().max().unwrap_or(1);
    for &callers in &sizes.callers {
        plan.push(sizes.case(Register, callers, empty));
    }
    plan.push(sizes.case(SignIn, most, empty));
    plan.push(sizes.case(Import, 1, Content { nodes: sizes.import, ..empty }));
    plan.push(sizes.case(ReadsWhileWriting, most, Content { nodes: sizes.nodes, ..empty }));
    plan.extend([1, 16].map(|callers| sizes.case(Metrics, callers, empty)));
    for operation in [Nothing, NodeById, NodeByKey, NodeByLabel] {
        plan.extend([1, 2].map(|threads| sizes.case(operation, threads, network)));
    }
    let whole = [ListOnline, NetMap, NetMapUnchanged, PolicyInput, ApiKey, AuditQuery];
    plan.extend(whole.map(|operation| sizes.case(operation, 1, network)));
    for operation in [Heartbeat, Endpoints, Audit] {
        plan.extend(sizes.callers.iter().map(|&callers| sizes.case(operation, callers, network)));
    }
    plan.push(sizes.case(
        NetMap,
        1,
        Content { nodes: sizes.many_nodes, routes: 2_000, rules: 1_000, ..empty },
    ));
    let routed = Content { nodes: sizes.nodes, routes: sizes.routes, ..empty };
    plan.push(sizes.case(RouteLookup, 1, routed));
    let measured = Content { points: sizes.points, ..empty };
    plan.push(Planned { who: Who::Distinct, ..sizes.case(MetricRange, 1, measured) });
    for nodes in sizes.growth {
        plan.extend(growing(&sizes, nodes));
    }
    plan.retain(|planned| {
        request.operations.is_empty() || request.operations.contains(&planned.case.operation)
    });
    plan
}

/// What shall cost as much in a large network as in a small one.
fn growing(sizes: &Sizes, nodes: u64) -> Vec<Planned> {
    use Operation::*;
    let callers = if sizes.checkpoints == 0 { 16 } else { 256 };
    let register = sizes.case(Register, callers, Content::default()).case;
    let content = Content {
        nodes,
        routes: 1_000,
        rules: 1_000,
        api_keys: 1_000,
        // What the registering callers use up.
        preauth_keys: keys_for(&register, true),
        audit: 1_000,
        ..Content::default()
    };
    let reads = [
        NodeById,
        NodeByKey,
        NodeByLabel,
        ListOnline,
        NetMap,
        PolicyInput,
        RouteLookup,
        ApiKey,
        AuditQuery,
    ];
    let reads = reads.map(|operation| sizes.case(operation, 1, content));
    let writes = [Heartbeat, Endpoints, Audit, Register]
        .map(|operation| sizes.case(operation, callers, content));
    reads
        .into_iter()
        .chain(writes)
        .map(|planned| Planned { who: Who::First, shares_subject: true, ..planned })
        .collect()
}

/// Pre-auth keys for more registrations than anybody manages in the time of a run.
pub(super) fn keys_for(case: &Case, shares_commits: bool) -> u64 {
    let a_second = match (shares_commits, case.callers) {
        (false, _) | (_, 1) => 15_000.0,
        (true, ..=16) => 60_000.0,
        (true, ..=256) => 120_000.0,
        (true, _) => 180_000.0,
    };
    // The warm-up, and until the last checkpoint is complete.
    let until_checkpoint = if case.checkpoints > 0 { 0.75 } else { 0.1 };
    (a_second * (case.seconds * 1.5 + until_checkpoint)).ceil() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(effort: Effort) -> Request {
        Request {
            effort,
            subjects: Vec::new(),
            operations: Vec::new(),
            callers: Vec::new(),
            rounds: None,
            seconds: None,
            directory: PathBuf::new(),
            others: None,
            postgres: None,
        }
    }

    #[test]
    fn every_effort_measures_every_operation() {
        for effort in [Effort::Quick, Effort::Default, Effort::Full] {
            let plan = plan(&request(effort));
            for operation in Operation::ALL {
                let is_planned = plan.iter().any(|planned| planned.case.operation == operation);
                // Opening happens in processes of its own.
                assert!(is_planned || operation == Operation::Open, "{operation} in {effort:?}");
            }
        }
    }

    #[test]
    fn choices_are_kept() {
        let chosen = Request {
            operations: vec![Operation::Heartbeat],
            callers: vec![3],
            seconds: Some(0.5),
            ..request(Effort::Quick)
        };
        let plan = plan(&chosen);
        assert!(plan.iter().all(|planned| planned.case.operation == Operation::Heartbeat));
        let everybody = plan.iter().filter(|planned| planned.who == Who::All);
        let callers: Vec<_> = everybody.map(|planned| planned.case.callers).collect();
        assert_eq!(callers, [3]);
        assert!(plan.iter().all(|planned| planned.case.seconds == 0.5));
    }
}
