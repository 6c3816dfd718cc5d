//! What the system says about this process. Linux tells it in `/proc`; elsewhere most of it is missing.

use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use opentelemetry::KeyValue;
use opentelemetry::metrics::Meter;

use crate::catalogue::{self as m, attribute as key};
use crate::gauges::observe;

/// What is known about the process.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Process {
    /// Processor time in seconds, of user and system.
    pub(crate) cpu: Option<(f64, f64)>,
    /// Bytes of resident memory.
    pub(crate) resident: Option<u64>,
    /// Bytes of address space.
    pub(crate) virtual_memory: Option<u64>,
    pub(crate) threads: Option<u64>,
    pub(crate) descriptors: Option<u64>,
    pub(crate) max_descriptors: Option<u64>,
    /// When it began, in seconds since the epoch.
    pub(crate) started: Option<f64>,
}

/// When telemetry began, in seconds since the epoch: the best guess of when the process did, where the system
/// does not say.
static BEGAN: OnceLock<f64> = OnceLock::new();

fn wall_clock() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

impl Process {
    pub(crate) fn now() -> Self {
        let read =
            |name: &str| std::fs::read_to_string(format!("/proc/{name}")).unwrap_or_default();
        let descriptors = std::fs::read_dir("/proc/self/fd").ok();
        Self {
            // Less the one by which they are counted.
            descriptors: descriptors.map(|found| (found.count() as u64).saturating_sub(1)),
            max_descriptors: limit(&read("self/limits")),
            ..Self::of_stat(&read("self/stat"), &read("stat")).or_began()
        }
    }

    /// From `/proc/self/stat` and `/proc/stat`.
    fn of_stat(own: &str, system: &str) -> Self {
        // The name of the program may hold anything; what follows its bracket does not.
        let Some((_, rest)) = own.rsplit_once(") ") else { return Self::default() };
        // The third field of the file is the first one here.
        let field = |number: usize| -> Option<u64> {
            rest.split_ascii_whitespace().nth(number.checked_sub(3)?)?.parse().ok()
        };
        let ticks = ticks_per_second();
        let seconds = |number| field(number).map(|count| count as f64 / ticks);
        let booted = system.lines().find_map(|line| line.strip_prefix("btime "));
        let booted: Option<f64> = booted.and_then(|seconds| seconds.trim().parse().ok());
        Self {
            cpu: seconds(14).zip(seconds(15)),
            threads: field(20),
            started: seconds(22).zip(booted).map(|(since, booted)| booted + since),
            virtual_memory: field(23),
            resident: field(24).map(|pages| pages * page_size()),
            ..Self::default()
        }
    }

    /// `/proc/stat`, which says when the system booted, is hidden by `ProcSubset=pid`.
    fn or_began(mut self) -> Self {
        self.started = self.started.or_else(|| BEGAN.get().copied());
        self
    }
}

/// How many descriptors the process may have.
fn limit(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(unix)]
fn ticks_per_second() -> f64 {
    rustix::param::clock_ticks_per_second() as f64
}

#[cfg(unix)]
fn page_size() -> u64 {
    rustix::param::page_size() as u64
}

#[cfg(not(unix))]
fn ticks_per_second() -> f64 {
    100.0
}

#[cfg(not(unix))]
fn page_size() -> u64 {
    4096
}

pub(crate) fn register(meter: &Meter) {
    observe(meter, &m::CPU, |to| {
        if let Some((user, system)) = Process::now().cpu {
            to.observe(user, &[KeyValue::new(key::CPU_MODE, "user")]);
            to.observe(system, &[KeyValue::new(key::CPU_MODE, "system")]);
        }
    });
    observe(meter, &m::MEMORY, |to| {
        if let Some(bytes) = Process::now().resident {
            to.observe(bytes as f64, &[]);
        }
    });
    observe(meter, &m::DESCRIPTORS, |to| {
        if let Some(count) = Process::now().descriptors {
            to.observe(count as f64, &[]);
        }
    });
    observe(meter, &m::THREADS, |to| {
        if let Some(count) = Process::now().threads {
            to.observe(count as f64, &[]);
        }
    });
    BEGAN.get_or_init(wall_clock);
    observe(meter, &m::UPTIME, |to| {
        if let Some(started) = Process::now().started {
            to.observe((wall_clock() - started).max(0.0), &[]);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_program_confuses_nobody() {
        let own = "7 (a) (b) c) S 1 7 7 0 -1 4 1 0 0 0 250 50 0 0 20 0 9 0 3000 8192 5 18446744073709551615";
        let process = Process::of_stat(own, "cpu 1\nbtime 1000\n");
        assert_eq!((process.threads, process.virtual_memory), (Some(9), Some(8192)));
        assert!(process.cpu.is_some_and(|(user, system)| user > system && system > 0.0));
        assert!(process.started.is_some_and(|started| started > 1000.0));
        assert_eq!(Process::of_stat("", ""), Process::default());
    }

    #[test]
    fn the_limit_of_descriptors_is_the_soft_one() {
        let limits = "Limit  Soft Limit  Hard Limit  Units\nMax open files            1024        4096      files\n";
        assert_eq!(limit(limits), Some(1024));
        assert_eq!(limit("Max open files unlimited unlimited files"), None);
    }

    #[test]
    fn where_the_system_hides_when_it_booted_telemetry_says_when_it_began() {
        let own = "7 (a) S 1 7 7 0 -1 4 1 0 0 0 250 50 0 0 20 0 9 0 3000 8192 5 0";
        assert_eq!(Process::of_stat(own, "").started, None);
        let told = BEGAN.get_or_init(wall_clock);
        assert_eq!(Process::of_stat(own, "").or_began().started, Some(*told));
        assert!(Process::of_stat(own, "btime 1000\n").or_began().started < Some(*told));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_is_seen() {
        let process = Process::now();
        assert!(process.resident.is_some_and(|bytes| bytes > 100_000));
        assert!(process.descriptors.is_some_and(|count| count >= 3));
        assert!(process.threads.is_some_and(|count| count >= 1));
    }
}
