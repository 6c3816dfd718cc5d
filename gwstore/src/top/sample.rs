//! Two moments of a store, for tests of what is made of them.

use std::time::Duration;

use super::figures::Figures;
use super::text::Samples;

/// Seconds since the epoch at the second moment.
const NOW: f64 = 1_800_000_012.0;

/// One buckets line for each bound.
fn histogram(name: &str, labels: &str, counts: [(&str, u32); 4], sum: f64) -> String {
    let mut text = String::new();
    let comma = if labels.is_empty() { "" } else { "," };
    for (le, count) in counts {
        text += &format!("{name}_bucket{{{labels}{comma}le=\"{le}\"}} {count}\n");
    }
    let total = counts.last().map_or(0, |(_, count)| *count);
    text + &format!("{name}_sum{{{labels}}} {sum}\n{name}_count{{{labels}}} {total}\n")
}

/// `times` is how often everything happened.
fn text(times: u32) -> String {
    let command = "ghostwire_store_command_duration_seconds";
    let counts = |ended: [u32; 4]| {
        let bounds = ["0.001", "0.002", "0.004", "+Inf"];
        let mut counts = [("", 0); 4];
        for (count, (bound, ended)) in counts.iter_mut().zip(bounds.into_iter().zip(ended)) {
            *count = (bound, ended * times);
        }
        counts
    };
    let mut text = String::new();
    for (labels, ended) in [
        ("ghostwire_store_command=\"node.register\"", [10, 30, 40, 40]),
        ("ghostwire_store_command=\"presence.heartbeat\"", [100, 150, 160, 160]),
        ("ghostwire_store_command=\"node.register\",error_type=\"conflict\"", [10, 10, 10, 10]),
    ] {
        text += &histogram(command, labels, counts(ended), 1.0);
    }
    let commits = "ghostwire_store_commit_duration_seconds";
    text += &histogram(commits, "", counts([20, 40, 40, 40]), 1.0);
    text += &histogram(
        "ghostwire_store_commit_commands",
        "",
        counts([0, 0, 40, 40]),
        f64::from(200 * times),
    );
    text += "ghostwire_store_build_info{db_namespace=\"main\",service_version=\"0.1.0\",\
             ghostwire_store_backend=\"zqlite\"} 1\n";
    for (state, value) in [("loading", 0), ("ready", 1), ("poisoned", 0)] {
        text += &format!("ghostwire_store_state{{ghostwire_store_state=\"{state}\"}} {value}\n");
    }
    for (check, value) in [("writable", 1), ("disk_space", 0)] {
        text += &format!(
            "ghostwire_store_healthcheck_status{{ghostwire_store_check=\"{check}\"}} {value}\n"
        );
    }
    for (state, count) in [("online", 70), ("offline", 25), ("expired", 5)] {
        text +=
            &format!("ghostwire_store_node_count{{ghostwire_store_state=\"{state}\"}} {count}\n");
    }
    for (job, at) in [("reap", 1_800_000_000_u64), ("checkpoint", 1_799_999_900)] {
        text += &format!(
            "ghostwire_store_job_runs_total{{ghostwire_store_job=\"{job}\"}} 3\n\
             ghostwire_store_job_last_success_timestamp_seconds{{ghostwire_store_job=\"{job}\"}} {at}\n"
        );
    }
    text += "ghostwire_store_job_runs_total{ghostwire_store_job=\"sweep\",error_type=\"unavailable\"} 2\n";
    text += "ghostwire_store_serial 4711\nghostwire_store_queue_size 12\nghostwire_store_queue_limit 4096\n\
             ghostwire_store_flush_backlog 300\nghostwire_store_watch_active 2\n\
             ghostwire_store_watch_lag 7\nghostwire_store_view_age_seconds 0\n\
             ghostwire_store_filesystem_free_bytes 5368709120\nprocess_resident_memory_bytes 104857600\n\
             ghostwire_store_file_size_bytes{ghostwire_store_file=\"main\"} 1048576\n\
             ghostwire_store_file_size_bytes{ghostwire_store_file=\"wal\"} 1048576\n\
             ghostwire_store_checkpoint_last_success_timestamp_seconds 1800000000\n";
    text
}

/// What happened in two seconds.
pub(super) fn figures() -> Figures {
    let [before, after] = [1, 2].map(|times| Samples::parse(&text(times)));
    Figures::between(&before, &after, Duration::from_secs(2), NOW)
}
