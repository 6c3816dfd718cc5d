//! The rows that both reports show.

use crate::results::{
    DIRECT, Machine, Measured, OfFollowing, OfProcesses, OfSubject, Opening, Results, Run, grouped,
};
use crate::{Kind, Spread};

/// A table: its title, the names of its columns, its rows.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Table {
    pub(super) title: String,
    pub(super) columns: &'static [&'static str],
    pub(super) rows: Vec<Vec<String>>,
}

/// A figure with as many digits as it deserves.
pub(super) fn shown(figure: f64) -> String {
    if figure >= 100.0 || figure.fract() == 0.0 {
        grouped(figure.round() as u64)
    } else if figure >= 10.0 {
        format!("{figure:.1}")
    } else if figure >= 1.0 {
        format!("{figure:.2}")
    } else {
        format!("{figure:.3}")
    }
}

/// Median, and from least to most.
pub(super) fn spread(spread: Spread) -> String {
    format!("{} ({} to {})", shown(spread.median), shown(spread.least), shown(spread.most))
}

/// Microseconds with a unit that fits.
pub(super) fn time(microseconds: f64) -> String {
    match microseconds {
        us if us < 1.0 => format!("{:.0} ns", us * 1e3),
        us if us < 1e3 => format!("{} us", shown(us)),
        us if us < 1e6 => format!("{} ms", shown(us / 1e3)),
        us => format!("{} s", shown(us / 1e6)),
    }
}

/// What everything was measured on.
pub(super) fn disk(machine: &Machine) -> String {
    let sync = machine.fdatasync_us;
    format!(
        "{} on {}; 4 KiB write and fdatasync: {} ({} to {})",
        machine.file_system,
        machine.device,
        time(sync.median),
        time(sync.least),
        time(sync.most)
    )
}

pub(super) fn processor(machine: &Machine) -> String {
    let Machine { processor, processors, kernel, allocator, .. } = machine;
    format!("{processor}, {processors} processors; Linux {kernel}; allocator: {allocator}")
}

const COLUMNS: &[&str] = &[
    "SUBJECT",
    "BACKEND",
    "MATERIALIZE",
    "DURABLE",
    "A SECOND",
    "TIMES libsql-crate",
    "MEDIAN",
    "P99",
    "NOTES",
];

/// The table of one case.
pub(super) fn measured(measured: &Measured, machine: &Machine) -> Table {
    let direct = measured.of(DIRECT);
    let rows = measured.subjects.iter().map(|of| row(of, direct, measured)).collect();
    Table {
        title: format!("{} [{}]", measured.case.title(), disk(machine)),
        columns: COLUMNS,
        rows,
    }
}

fn row(of: &OfSubject, direct: Option<&OfSubject>, table: &Measured) -> Vec<String> {
    let about = &of.about;
    let is_read = table.case.operation.kind() == Kind::Read;
    let durability = if is_read { "-" } else { &about.durability };
    let mut cells = vec![
        about.name.clone(),
        about.backend.clone(),
        about.materialize.clone(),
        durability.into(),
    ];
    if let Some(reason) = &of.left_out {
        cells.extend(["-".into(), "-".into(), "-".into(), "-".into(), reason.clone()]);
        return cells;
    }
    let latency = |figure: fn(&Run) -> Option<f64>| {
        of.some(figure).map_or_else(|| "-".to_owned(), |spread| time(spread.median))
    };
    cells.extend([
        spread(of.spread(Run::rate)),
        direct.and_then(|direct| of.ratio_to(direct)).map_or_else(|| "-".to_owned(), spread),
        latency(|run| run.p50_us),
        latency(|run| run.p99_us),
        notes(of),
    ]);
    cells
}

fn notes(of: &OfSubject) -> String {
    let median = |figure: fn(&Run) -> f64| of.spread(figure).median;
    let mut notes = Vec::new();
    if median(|run| run.groups() as f64) > 0.0 {
        let each = median(|run| run.count as f64 / run.groups().max(1) as f64);
        notes.push(format!("{} a group", shown(each)));
    }
    if median(|run| run.checkpoints() as f64) > 0.0 {
        notes.push(format!("{} checkpoints", shown(median(|run| run.checkpoints() as f64))));
    }
    let debts = of.runs.iter().filter_map(|run| run.progress);
    if let Some((first, last)) = debts.max_by_key(|(_, last)| last.debt)
        && (first.debt > 0 || last.debt > 0)
    {
        notes.push(format!("flush backlog {} to {}", grouped(first.debt), grouped(last.debt)));
    }
    if let Some(cpu) = of.some(|run| run.cpu_us.map(|(_, all)| all)) {
        notes.push(format!("{} us CPU", shown(cpu.median)));
    }
    if let Some(cpu) = of.some(|run| run.server_cpu_us) {
        notes.push(format!("{} us CPU of the server", shown(cpu.median)));
    }
    let items = median(|run| run.items);
    if items > 1.0 {
        notes.push(format!("{} rows", shown(items)));
    }
    if of.runs.iter().any(|run| run.ran_out) {
        notes.push("ended early: out of pre-auth keys".to_owned());
    }
    notes.join("; ")
}

const OPENING: &[&str] = &[
    "SUBJECT",
    "BACKEND",
    "MATERIALIZE",
    "NODES",
    "OPEN",
    "RESIDENT",
    "MEMORY A NODE",
    "ON DISK",
    "DISK A NODE",
];

/// What opening takes.
pub(super) fn openings(results: &Results) -> Option<Table> {
    if results.openings.is_empty() {
        return None;
    }
    let row = |opening: &Opening| {
        let empty = results
            .openings
            .iter()
            .find(|other| other.about == opening.about && other.nodes == 0)
            .map_or(0.0, |empty| empty.resident_bytes.median);
        let each = |bytes: f64| match opening.nodes {
            0 => "-".to_owned(),
            nodes => format!("{} B", shown((bytes / nodes as f64).max(0.0))),
        };
        let about = &opening.about;
        let Spread { least, median, most } = opening.seconds.map(|seconds| seconds * 1e6);
        vec![
            about.name.clone(),
            about.backend.clone(),
            about.materialize.clone(),
            grouped(opening.nodes),
            format!("{} ({} to {})", time(median), time(least), time(most)),
            format!("{} MB", shown(opening.resident_bytes.median / 1e6)),
            each(opening.resident_bytes.median - empty),
            format!("{} MB", shown(opening.bytes_on_disk as f64 / 1e6)),
            each(opening.bytes_on_disk as f64),
        ]
    };
    Some(Table {
        title: format!(
            "Open, in a process of its own: time, and resident memory of the whole process [{}]",
            disk(&results.machine)
        ),
        columns: OPENING,
        rows: results.openings.iter().map(row).collect(),
    })
}

const PROCESSES: &[&str] = &[
    "PROCESSES",
    "CALLERS EACH",
    "A SECOND",
    "A GROUP",
    "LEAST SHARE",
    "CPU",
    "CPU OF THE SERVER",
];

/// What several processes on one database come to.
fn processes(results: &Results) -> Option<Table> {
    let each = |cpu: Spread| format!("{} us", shown(cpu.median));
    let row = |of: &OfProcesses| {
        vec![
            grouped(of.processes as u64),
            grouped(of.callers as u64),
            spread(of.rate),
            shown(of.group.median),
            format!("{:.0} %", of.least_share.median * 100.0),
            each(of.cpu_us),
            of.server_cpu_us.map_or_else(|| "-".to_owned(), each),
        ]
    };
    (!results.processes.is_empty()).then(|| Table {
        title: "Several processes on one PostgreSQL: heartbeats of all together".to_owned(),
        columns: PROCESSES,
        rows: results.processes.iter().map(row).collect(),
    })
}

/// How fast one store on a database follows another.
fn following(results: &Results) -> Option<Table> {
    let took =
        |us: Spread| format!("{} ({} to {})", time(us.median), time(us.least), time(us.most));
    let row = |of: &OfFollowing| {
        let what = "following: acknowledged here to visible there".to_owned();
        vec![what, grouped(of.commits), took(of.p50_us), took(of.p99_us)]
    };
    results.following.as_ref().map(|of| Table {
        title: "Two stores on one PostgreSQL: what one commits arrives at the other".to_owned(),
        columns: &["WHAT", "COMMITS", "MEDIAN", "P99"],
        rows: vec![row(of)],
    })
}

/// The goals.
pub(super) fn reach(results: &Results) -> Table {
    let row = |reach: &crate::results::Reach| {
        let reached = match reach.reached {
            Some(true) => "yes",
            Some(false) => "no",
            None => "-",
        };
        vec![reach.target.clone(), reach.measured.clone(), reached.to_owned()]
    };
    Table {
        title: format!("Reach [{}]", disk(&results.machine)),
        columns: &["TARGET", "MEASURED", "REACHED"],
        rows: results.reach.iter().map(row).collect(),
    }
}

/// Every table, in the order of the report.
pub(super) fn all(results: &Results) -> Vec<Table> {
    let tables = results.tables.iter().map(|table| measured(table, &results.machine));
    let on_one_database = processes(results).into_iter().chain(following(results));
    tables.chain(openings(results)).chain(on_one_database).collect()
}
