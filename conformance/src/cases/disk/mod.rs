//! What is below a backend: power that is lost, disks that fail, files that are damaged.

mod crowd;
mod damage;
mod faults;
mod log;
mod moved;
mod power;
mod workload;

use crate::case::{Check, check};

pub(super) const CHECKS: &[Check] = &[
    check!("backend-power", power::what_was_acknowledged_survives_whenever_power_is_lost),
    check!("backend-damage", damage::a_damaged_file_is_refused_or_reads_the_same),
    check!("backend-damage", damage::an_older_page_is_refused_or_entities_read_the_same),
    check!("backend-damage", damage::damage_after_a_crash_gives_an_earlier_state_or_none),
    check!("backend-faults", faults::what_is_acknowledged_after_a_fault_is_durable),
    check!("backend-faults", faults::reads_go_on_and_writes_do_once_the_disk_is_healed),
    check!("backend-probe", faults::a_probe_fails_on_a_disk_that_does),
    check!("backend-probe", moved::a_probe_finds_files_that_were_moved),
    check!("backend-power", power::what_a_new_process_finds_survives_the_loss_of_power),
    check!("backend-power", crowd::of_concurrent_registrations_each_is_whole_or_absent),
    check!("backend-log", log::a_log_that_lost_commits_is_told_of),
    check!("backend-log", log::a_disk_that_fails_once_loses_nothing),
    check!("backend-log", log::own_readers_do_not_keep_the_log_growing),
    check!("backend-power", power::a_store_that_was_being_made_can_be_made_again),
    check!("backend-in-place", moved::a_write_into_a_file_that_was_moved_is_not_acknowledged),
    check!("backend-in-place", moved::files_that_were_put_back_count_from_the_next_opening_on),
    check!("backend-in-place", moved::no_empty_store_is_made_where_one_was),
];
