//! The goals, and how this run meets them.

use ghostwire_store_bench_workload::Operation;
use ghostwire_store_bench_workload::results::{
    Case, DIRECT, Measured, ON_POSTGRES, OfProcesses, OfSubject, Opening, Reach, Run, SQLX_ONE,
    SQLX_POOL, grouped,
};

use super::plan::FIRST;

/// A goal holds for this size or number of callers only; a smaller run does not say.
const MANY_CALLERS: usize = 2_048;
const SOME_CALLERS: usize = 256;
const NODES: u64 = 10_000;
const IMPORTED: u64 = 100_000;
const PREFIXES: u32 = 100_000;
const POINTS: u64 = 10_000_000;
const LARGE: u64 = 1_000_000;
/// From so many on, reading a month is about data blocks.
const SEVERAL_POINTS: u64 = 1_000_000;
const ON_A_SERVER: &str = "it takes a PostgreSQL server (--postgres), a build with the feature `postgres`, and the \
                           subjects in such a case";
const SEALED: &str = "zqlite-sealed";
const PINNED: &str = "zqlite-pinned-elsewhere";

pub(super) fn reach(
    (tables, openings, processes): (&[Measured], &[Opening], &[OfProcesses]),
    growth: [u64; 2],
) -> Vec<Reach> {
    let found = Found { tables, openings, processes };
    vec![
        found.registrations(),
        found.beside_a_plain_file(),
        found.one_caller(),
        found.import(),
        found.point_reads(),
        found.net_map(),
        found.net_map_unchanged(),
        found.route_lookup(),
        found.opening(),
        found.empty(),
        found.memory_per_node(),
        found.metrics(),
        found.month(),
        found.reads_while_writing(),
        found.growth(growth),
        found.sealed_registrations(),
        found.pinned_registrations(),
        found.pinned_caller(),
        found.sealed_point_reads(),
        found.sealed_month(),
        found.sealed_opening(),
        found.sealed_file(),
        found.beside_sqlx((Operation::Register, MANY_CALLERS), SQLX_POOL, 2.0),
        found.beside_sqlx((Operation::Register, MANY_CALLERS), SQLX_ONE, 6.0),
        found.beside_sqlx((Operation::Heartbeat, SOME_CALLERS), SQLX_POOL, 2.5),
        found.beside_sqlx((Operation::Heartbeat, SOME_CALLERS), SQLX_ONE, 10.0),
        found.point_reads_on_postgres(),
        found.several_processes(),
    ]
}

struct Found<'f> {
    tables: &'f [Measured],
    openings: &'f [Opening],
    processes: &'f [OfProcesses],
}

/// What is measured with other sizes than the goal's.
fn not_measured(target: &str, why: &str) -> Reach {
    Reach { target: target.to_owned(), measured: format!("not measured: {why}"), reached: None }
}

fn judged(target: &str, measured: String, reached: bool) -> Reach {
    Reach { target: target.to_owned(), measured, reached: Some(reached) }
}

fn range(of: &OfSubject, figure: impl Fn(&Run) -> f64 + Copy, show: fn(f64) -> String) -> String {
    let spread = of.spread(figure);
    format!("{} ({} to {})", show(spread.median), show(spread.least), show(spread.most))
}

fn whole(number: f64) -> String {
    grouped(number.round().max(0.0) as u64)
}

/// Microseconds with a unit that fits.
fn time(microseconds: f64) -> String {
    if microseconds < 1.0 {
        format!("{:.0} ns", microseconds * 1e3)
    } else if microseconds < 1e3 {
        format!("{microseconds:.2} us")
    } else if microseconds < 1e6 {
        format!("{:.2} ms", microseconds / 1e3)
    } else {
        format!("{:.2} s", microseconds / 1e6)
    }
}

fn p50(run: &Run) -> f64 {
    run.p50_us.unwrap_or(f64::INFINITY)
}

impl<'f> Found<'f> {
    fn table(&self, wanted: impl Fn(&Measured) -> bool) -> Option<&'f Measured> {
        self.tables.iter().find(|table| wanted(table) && table.of(FIRST).is_some())
    }

    fn first(&self, wanted: impl Fn(&Measured) -> bool) -> Option<&'f OfSubject> {
        self.table(wanted)?.of(FIRST)
    }

    fn with(&self, operation: Operation, callers: usize, nodes: u64) -> Option<&'f OfSubject> {
        self.first(|table| {
            let case = &table.case;
            case.operation == operation && case.callers == callers && case.content.nodes == nodes
        })
    }

    fn registering(&self) -> Option<&'f OfSubject> {
        self.with(Operation::Register, MANY_CALLERS, 0)
    }

    fn registrations(&self) -> Reach {
        let target = "durable registrations, 2,048 callers: at least 100,000/s over three \
                      checkpoints, and no more waits to be flushed at the end";
        let Some(of) = self.registering() else {
            return not_measured(target, "it takes --callers 2048 on zqlite");
        };
        let checkpoints = of.runs.iter().map(Run::checkpoints).min().unwrap_or(0);
        let is_flushed = of.runs.iter().all(|run| {
            run.progress.is_some_and(|(first, last)| last.debt <= first.debt) && !run.ran_out
        });
        let measured = format!(
            "{}/s, at least {checkpoints} checkpoints, flush backlog {}",
            range(of, Run::rate, whole),
            if is_flushed { "no larger" } else { "larger" },
        );
        let is_fast = of.spread(Run::rate).median >= 100_000.0;
        judged(target, measured, is_fast && checkpoints >= 3 && is_flushed)
    }

    fn beside_a_plain_file(&self) -> Reach {
        let target = "the same: 80 % of what the same bytes a group, appended to a plain file \
                      with one fsync a group, reach";
        let Some(of) = self.registering() else {
            return not_measured(target, "it takes --callers 2048 on zqlite");
        };
        let bound = |run: &Run| {
            let each = run.count as f64 / run.groups().max(1) as f64;
            run.bare_sync_us.filter(|sync| *sync > 0.0).map(|sync| each * 1e6 / sync)
        };
        let (Some(bounds), Some(share), Some(bytes)) = (
            of.some(bound),
            of.some(|run| Some(run.rate() / bound(run)?)),
            of.some(|run| run.block_bytes),
        ) else {
            return not_measured(target, "the blocks could not be read");
        };
        let measured = format!(
            "{:.0} % ({:.0} to {:.0}) of {}/s; {} bytes and {} registrations a group",
            share.median * 100.0,
            share.least * 100.0,
            share.most * 100.0,
            whole(bounds.median),
            whole(bytes.median),
            whole(of.spread(|run| run.count as f64 / run.groups().max(1) as f64).median),
        );
        judged(target, measured, share.median >= 0.8)
    }

    fn one_caller(&self) -> Reach {
        let target = "durable registrations, 1 caller: within 1.3 of appending the same bytes \
                      and one fsync";
        let Some(of) = self.with(Operation::Register, 1, 0) else {
            return not_measured(target, "it takes --callers 1 on zqlite");
        };
        let ratio = of.some(|run| Some(run.p50_us? / run.bare_sync_us.filter(|us| *us > 0.0)?));
        let (Some(ratio), Some(bare)) = (ratio, of.some(|run| run.bare_sync_us)) else {
            return not_measured(target, "the blocks could not be read");
        };
        let measured = format!(
            "{:.2} ({:.2} to {:.2}): {} against {}",
            ratio.median,
            ratio.least,
            ratio.most,
            time(of.spread(p50).median),
            time(bare.median),
        );
        judged(target, measured, ratio.median <= 1.3)
    }

    fn import(&self) -> Reach {
        let target = "import of 100,000 nodes: at least 150,000 nodes/s, durable";
        match self.with(Operation::Import, 1, IMPORTED) {
            Some(of) => {
                let measured = format!("{}/s", range(of, Run::rate, whole));
                judged(target, measured, of.spread(Run::rate).median >= 150_000.0)
            }
            None => not_measured(target, "--quick imports fewer"),
        }
    }

    fn point_reads(&self) -> Reach {
        let target = "point reads through `dyn Store`, 2 threads: at least 2,000,000/s, and 30 \
                      times the libsql crate";
        let table = self.table(|table| {
            let case = &table.case;
            (case.operation, case.callers, case.content.nodes) == (Operation::NodeById, 2, NODES)
        });
        let Some((of, direct)) = table.and_then(|t| t.of(FIRST).zip(t.of(DIRECT))) else {
            return not_measured(target, "it takes zqlite and libsql-crate with 10,000 nodes");
        };
        let ratio = of.ratio_to(direct).unwrap_or_default();
        let measured = format!(
            "{}/s; {:.0} times ({:.0} to {:.0})",
            range(of, Run::rate, whole),
            ratio.median,
            ratio.least,
            ratio.most
        );
        let reached = of.spread(Run::rate).median >= 2_000_000.0 && ratio.median >= 30.0;
        judged(target, measured, reached)
    }

    /// A goal for half of the calls.
    fn within(&self, target: &str, of: Option<&OfSubject>, most_us: f64, why: &str) -> Reach {
        match of {
            Some(of) => judged(target, range(of, p50, time), of.spread(p50).median < most_us),
            None => not_measured(target, why),
        }
    }

    fn net_map(&self) -> Reach {
        let target = "network map of one among 10,000 nodes, 1,000 rules: less than 2 ms";
        let of = self.with(Operation::NetMap, 1, NODES);
        self.within(target, of, 2_000.0, "--quick has fewer nodes")
    }

    fn net_map_unchanged(&self) -> Reach {
        let target = "network map while the network is unchanged: the last result, at no cost \
                      (less than 2 us)";
        let of = self.with(Operation::NetMapUnchanged, 1, NODES);
        self.within(target, of, 2.0, "--quick has fewer nodes")
    }

    fn route_lookup(&self) -> Reach {
        let of = self.first(|table| {
            table.case.operation == Operation::RouteLookup && table.case.content.routes == PREFIXES
        });
        let target = "route lookup among 100,000 prefixes: less than 500 ns";
        self.within(target, of, 0.5, "--quick has fewer prefixes")
    }

    fn opening_of(&self, nodes: u64) -> Option<&'f Opening> {
        self.openings.iter().find(|one| one.about.name == FIRST && one.nodes == nodes)
    }

    fn opening(&self) -> Reach {
        let target = "opening 1,000,000 nodes: less than 10 s";
        let Some(opening) = self.opening_of(LARGE) else {
            return not_measured(target, "only --full opens so many");
        };
        let seconds = opening.seconds;
        let measured =
            format!("{:.2} s ({:.2} to {:.2})", seconds.median, seconds.least, seconds.most);
        judged(target, measured, seconds.median < 10.0)
    }

    fn empty(&self) -> Reach {
        let target = "resident memory that opening an empty zqlite store adds: less than 10 MB";
        let Some(opening) = self.opening_of(0) else {
            return not_measured(target, "nothing was opened");
        };
        let [whole, before] =
            [opening.resident_bytes, opening.resident_before_bytes].map(|bytes| bytes.median / 1e6);
        let measured = format!(
            "{:.1} MB; {before:.1} MB of the program's {whole:.1} were there before",
            whole - before
        );
        judged(target, measured, whole - before < 10.0)
    }

    fn memory_per_node(&self) -> Reach {
        let target = "resident memory of a node, at 1,000,000: at most 1,200 bytes";
        let Some((large, empty)) = self.opening_of(LARGE).zip(self.opening_of(0)) else {
            return not_measured(target, "only --full opens so many");
        };
        let more = large.resident_bytes.median - empty.resident_bytes.median;
        let each = more / LARGE as f64;
        judged(target, format!("{} bytes", whole(each)), each <= 1_200.0)
    }

    fn metrics(&self) -> Reach {
        let target = "metric points in batches of 1,000: at least 500,000/s";
        let of_callers = |callers| self.with(Operation::Metrics, callers, 0);
        let (Some(one), Some(many)) = (of_callers(1), of_callers(16)) else {
            return not_measured(target, "zqlite did not take part");
        };
        let measured = format!(
            "{}/s with 1 caller, {}/s with 16",
            range(one, Run::rate, whole),
            range(many, Run::rate, whole)
        );
        let best = one.spread(Run::rate).median.max(many.spread(Run::rate).median);
        judged(target, measured, best >= 500_000.0)
    }

    fn month(&self) -> Reach {
        let target = "a month of one node, 8,640 points of 10,000,000: less than 5 ms";
        let of = self.first(|table| {
            table.case.operation == Operation::MetricRange && table.case.content.points == POINTS
        });
        self.within(target, of, 5_000.0, "only --full records so many")
    }

    fn reads_while_writing(&self) -> Reach {
        let target = "reads while 2,048 callers write: 99 of 100 within 10 us";
        let Some(of) = self.with(Operation::ReadsWhileWriting, MANY_CALLERS, NODES) else {
            return not_measured(target, "it takes --callers 2048 with 10,000 nodes");
        };
        let p99 = |run: &Run| run.p99_us.unwrap_or(f64::INFINITY);
        judged(target, range(of, p99, time), of.spread(p99).median < 10.0)
    }

    /// How much of the plain store's rate a sealed one reaches, each round compared with itself.
    fn beside_plain(
        &self,
        target: &str,
        name: &str,
        least: f64,
        wanted: impl Fn(&Case) -> bool,
    ) -> Reach {
        let of = |table: &'f Measured| Some((table.of(name)?, table.of(FIRST)?));
        let found = self.tables.iter().filter(|table| wanted(&table.case)).find_map(of);
        let Some((of, plain)) = found else {
            return not_measured(target, &format!("it takes {FIRST} and {name} in such a case"));
        };
        let ratio = of.ratio_to(plain).unwrap_or_default();
        let measured = format!(
            "{:.2} ({:.2} to {:.2}): {}/s beside {}/s",
            ratio.median,
            ratio.least,
            ratio.most,
            whole(of.spread(Run::rate).median),
            whole(plain.spread(Run::rate).median),
        );
        judged(target, measured, ratio.median >= least)
    }

    fn sealed_registrations(&self) -> Reach {
        let target = "sealed, registrations of 2,048 callers: at least 0.9 of plain";
        self.beside_plain(target, SEALED, 0.9, |case| {
            case.operation == Operation::Register && case.callers == MANY_CALLERS
        })
    }

    fn pinned_registrations(&self) -> Reach {
        let target = "sealed, pin on another device, registrations of 2,048 callers: at least 0.8 \
                      of plain";
        self.beside_plain(target, PINNED, 0.8, |case| {
            case.operation == Operation::Register && case.callers == MANY_CALLERS
        })
    }

    fn pinned_caller(&self) -> Reach {
        let target = "sealed, pin on another device, registrations of 1 caller: at least 0.625 of \
                      plain, which is 1.6 times as long";
        self.beside_plain(target, PINNED, 0.625, |case| {
            case.operation == Operation::Register && case.callers == 1
        })
    }

    fn sealed_point_reads(&self) -> Reach {
        let target = "sealed, point reads by 2 threads: as plain (at least 0.95)";
        self.beside_plain(target, SEALED, 0.95, |case| {
            (case.operation, case.callers) == (Operation::NodeById, 2)
        })
    }

    fn sealed_month(&self) -> Reach {
        let target = "sealed, a month of one node: at least 0.77 of plain, which is 1.3 times as \
                      long";
        self.beside_plain(target, SEALED, 0.77, |case| {
            case.operation == Operation::MetricRange && case.content.points >= SEVERAL_POINTS
        })
    }

    /// The plain store and the sealed one, with most nodes of those that were opened.
    fn opened_both(&self) -> Option<(&'f Opening, &'f Opening)> {
        let of = |name: &str| {
            let named = self.openings.iter().filter(move |one| one.about.name == name);
            named.max_by_key(|one| one.nodes)
        };
        of(FIRST).zip(of(SEALED)).filter(|(plain, _)| plain.nodes == LARGE)
    }

    fn sealed_opening(&self) -> Reach {
        let target = "sealed, opening 1,000,000 nodes: at most 1.5 times as long as plain";
        let Some((plain, sealed)) = self.opened_both() else {
            return not_measured(target, "only --full opens so many");
        };
        let [plain, sealed] = [plain, sealed].map(|one| one.seconds.median);
        let measured = format!("{:.2}: {sealed:.2} s beside {plain:.2} s", sealed / plain);
        judged(target, measured, sealed / plain <= 1.5)
    }

    fn sealed_file(&self) -> Reach {
        let target = "sealed, files of 1,000,000 nodes: at most 1.25 times plain";
        let Some((plain, sealed)) = self.opened_both() else {
            return not_measured(target, "only --full opens so many");
        };
        let [plain, sealed] = [plain, sealed].map(|one| one.bytes_on_disk as f64 / 1e6);
        let measured = format!("{:.2}: {sealed:.0} MB beside {plain:.0} MB", sealed / plain);
        judged(target, measured, sealed / plain <= 1.25)
    }

    /// Two subjects in one table.
    fn pair(
        &self,
        (first, second): (&str, &str),
        (operation, callers): (Operation, usize),
    ) -> Option<(&'f OfSubject, &'f OfSubject)> {
        let mut tables = self.tables.iter();
        tables.find_map(|table| {
            let is_it = (table.case.operation, table.case.callers) == (operation, callers);
            table.of(first).zip(table.of(second)).filter(|_| is_it)
        })
    }

    fn beside_sqlx(
        &self,
        (operation, callers): (Operation, usize),
        direct: &str,
        least: f64,
    ) -> Reach {
        let target = format!(
            "postgres, {operation} of {} callers: at least {least} times {direct} on the same server",
            grouped(callers as u64)
        );
        let Some((of, direct)) = self.pair((ON_POSTGRES, direct), (operation, callers)) else {
            return not_measured(&target, ON_A_SERVER);
        };
        let ratio = of.ratio_to(direct).unwrap_or_default();
        let cpu = |of: &OfSubject| {
            let median = |figure: fn(&Run) -> Option<f64>| {
                of.some(figure).map_or_else(|| "-".to_owned(), |cpu| format!("{:.1}", cpu.median))
            };
            let (own, servers) =
                (median(|run| run.cpu_us.map(|(_, all)| all)), median(|run| run.server_cpu_us));
            format!("{own} + {servers}")
        };
        let measured = format!(
            "{:.2} ({:.2} to {:.2}): {}/s beside {}/s; us of CPU each, here and in the server: {} beside {}",
            ratio.median,
            ratio.least,
            ratio.most,
            whole(of.spread(Run::rate).median),
            whole(direct.spread(Run::rate).median),
            cpu(of),
            cpu(direct),
        );
        judged(&target, measured, ratio.median >= least)
    }

    fn point_reads_on_postgres(&self) -> Reach {
        let target = "postgres, point reads by 2 threads: as zqlite's (at least 0.95)";
        let Some((of, first)) = self.pair((ON_POSTGRES, FIRST), (Operation::NodeById, 2)) else {
            return not_measured(target, ON_A_SERVER);
        };
        let ratio = of.ratio_to(first).unwrap_or_default();
        let measured = format!(
            "{:.2} ({:.2} to {:.2}): {}/s",
            ratio.median,
            ratio.least,
            ratio.most,
            whole(of.spread(Run::rate).median),
        );
        judged(target, measured, ratio.median >= 0.95)
    }

    fn several_processes(&self) -> Reach {
        let target = "postgres, heartbeats of 4 processes together: at least 60 % of one process with \
                      groups of the same size";
        let of = |processes: usize| self.processes.iter().find(|of| of.processes == processes);
        let Some((one, several)) = of(1).zip(of(4)) else {
            return not_measured(target, ON_A_SERVER);
        };
        let share = several.rate.median / one.rate.median.max(f64::MIN_POSITIVE);
        let cpu = |of: &OfProcesses| {
            let servers =
                of.server_cpu_us.map_or_else(|| "-".to_owned(), |cpu| format!("{:.1}", cpu.median));
            format!("{:.1} + {servers}", of.cpu_us.median)
        };
        let measured = format!(
            "{:.0} %: {}/s in groups of {} beside {}/s in groups of {}; us of CPU each, in all processes and in \
             the server: {} beside {}",
            share * 100.0,
            whole(several.rate.median),
            whole(several.group.median),
            whole(one.rate.median),
            whole(one.group.median),
            cpu(several),
            cpu(one),
        );
        judged(target, measured, share >= 0.6)
    }

    /// Of an operation that answers with all nodes, the cost of one of them counts.
    fn growth(&self, [small, large]: [u64; 2]) -> Reach {
        let target = "any operation at 1,000,000 nodes: at most 3 times its cost at 1,000";
        let cost = |of: &OfSubject, operation: Operation| {
            let spread = of.spread(|run| match operation.kind() {
                ghostwire_store_bench_workload::Kind::Read if operation.answers_with_all() => {
                    p50(run) / run.items.max(1.0)
                }
                ghostwire_store_bench_workload::Kind::Read => p50(run),
                _ => 1e6 / run.rate(),
            });
            spread.median
        };
        // The cases of the comparison are those that only one subject ran.
        let at = |nodes: u64, operation: Operation| {
            let of = self.first(|table| {
                let case = &table.case;
                case.operation == operation
                    && case.content.nodes == nodes
                    && case.content.preauth_keys > 0
            });
            of.map(|of| cost(of, operation))
        };
        let mut grown: Vec<(Operation, f64, f64)> = Operation::ALL
            .into_iter()
            .filter_map(|operation| Some((operation, at(small, operation)?, at(large, operation)?)))
            .collect();
        grown.sort_by(|(_, a, b), (_, c, d)| (d / c).total_cmp(&(b / a)));
        let Some((_, before, after)) = grown.first().copied() else {
            return not_measured(target, "zqlite did not take part");
        };
        let shown: Vec<String> = grown
            .iter()
            .take(3)
            .map(|(operation, before, after)| {
                format!("{operation} {:.1} ({} to {})", after / before, time(*before), time(*after))
            })
            .collect();
        let measured = format!(
            "from {} to {} nodes, the worst: {}",
            grouped(small),
            grouped(large),
            shown.join(", ")
        );
        if large == LARGE {
            judged(target, measured, after / before <= 3.0)
        } else {
            Reach { target: target.to_owned(), measured, reached: None }
        }
    }
}

#[cfg(test)]
#[path = "reach_tests.rs"]
mod tests;
