//! The list of cases, and their common helpers.

mod accounts;
mod channels;
mod clock;
mod cpu;
mod daemon;
pub(crate) mod debian;
mod faults;
mod freeze;
mod hosts;
mod idle;
mod jobs;
mod machine;
mod memory;
mod metrics;
mod names;
mod network;
mod no_answer;
mod ports;
mod power;
mod reference;
mod service;
mod ssh_keys;
mod storage;
mod tool;
mod transfers;

use std::{path::Path, time::Instant};

use anyhow::{Result, ensure};
use qga::{client::Client, commands::session::Ping};
use vmtest::{
    transcript::Recorded,
    vm::{TIMEOUT, Vm},
};

use crate::Case;

/// Every case of the small guest by its name.
pub(crate) const ALL: &[(&str, Case)] = &[
    ("virtio_serial_answers_with_the_guests_facts", channels::virtio_serial),
    ("isa_serial_answers", channels::isa_serial),
    ("vsock_answers_several_clients", channels::vsock),
    ("a_vm_is_found_by_its_name_and_the_holder_of_its_socket_named", names::are_found),
    ("a_host_that_connects_before_the_guest_boots_is_answered", hosts::connected_before_the_boot),
    ("a_host_that_connects_late_or_again_is_answered", hosts::connects_late_and_again),
    ("half_a_message_of_a_host_that_left_is_forgotten", hosts::leaves_half_a_message),
    ("a_host_that_does_not_read_costs_no_time_and_loses_nothing", hosts::does_not_read),
    ("a_daemon_without_a_log_file_logs_to_the_system_log", daemon::logs_to_the_system_log),
    ("a_port_that_goes_ends_the_agent", ports::ends_the_agent),
    ("a_port_that_goes_and_comes_back_is_served_with_retry_path", ports::is_waited_for),
    ("a_port_that_comes_late_is_served_with_retry_path", ports::comes_late),
    ("an_agent_that_was_killed_or_ended_is_replaced", service::restarts),
    ("a_paused_machine_answers_when_it_goes_on", machine::is_paused),
    ("interfaces_are_those_that_qemu_was_told_to_make", network::interfaces),
    ("interfaces_are_left_out_on_request", network::excluded_interfaces),
    ("routes_of_both_families_are_complete", network::routes),
    ("a_guest_without_ipv6_tells_all_it_has", network::without_ipv6),
    ("a_processor_is_taken_offline_and_brought_back", cpu::is_taken_offline),
    ("a_processor_that_is_plugged_in_is_brought_online", cpu::is_plugged_in),
    ("memory_that_is_plugged_in_is_brought_online_and_taken_away", memory::is_plugged_in),
    ("each_memory_block_is_answered_for", memory::is_answered_for_by_block),
    ("figures_for_monitoring_are_those_of_the_kernel_also_while_frozen", metrics::are_the_kernels),
    ("disks_on_the_buses_of_a_pc_are_where_qemu_put_them", storage::of_a_pc),
    ("disks_behind_ports_and_bridges_of_a_q35_are_where_qemu_put_them", storage::of_a_q35),
    ("a_trim_gives_the_host_what_the_guest_has_deleted", storage::trim::gives_back),
    ("file_systems_of_every_type_are_frozen_and_thawed", freeze::every_type),
    ("a_copy_of_a_frozen_disk_is_consistent_and_its_writer_goes_on", freeze::consistent_copy),
    ("ten_file_systems_are_frozen_or_those_that_a_host_names", freeze::named),
    ("a_freeze_keeps_out_what_the_administrator_excludes_and_what_cannot_be_opened", freeze::left_out),
    ("what_another_mount_hides_is_frozen_all_the_same", freeze::targets::hidden),
    ("what_cannot_be_opened_ends_a_freeze_by_its_name_unless_it_is_excluded", freeze::targets::unopenable),
    ("a_file_system_whose_source_has_no_name_any_more_is_listed_and_frozen", freeze::targets::renamed_source),
    ("images_whose_path_leads_elsewhere_are_frozen_before_what_holds_them", freeze::targets::stacked_without_a_path),
    ("a_disk_that_is_gone_is_passed_over_and_one_that_fails_ends_a_freeze", freeze::targets::dead_disk),
    ("a_hidden_mount_has_no_sizes", freeze::targets::sizes),
    ("what_others_froze_unmounted_or_plugged_in_does_not_disturb_a_freeze", freeze::disturbed),
    ("images_in_images_and_mapped_devices_are_frozen_top_first", freeze::stacks::top_first),
    ("a_device_that_does_not_answer_ends_a_freeze_and_nothing_stays_frozen", freeze::stacks::no_answer),
    ("a_user_who_keeps_a_freeze_waiting_is_named_and_spoils_nothing_else", freeze::stuck::by_a_user),
    ("a_second_host_sees_and_may_end_a_freeze_that_is_under_way", freeze::stacks::second_host),
    ("two_agents_tell_each_of_its_own_freeze_and_either_ends_both", freeze::two_agents::tell_of_their_own_freeze),
    ("a_frozen_agent_that_is_killed_or_ended_is_replaced", freeze::guard::taken_over),
    ("a_freeze_without_an_agent_ends", freeze::guard::abandoned),
    ("a_freeze_ends_with_its_lease", freeze::guard::lease),
    ("a_guard_that_is_killed_is_replaced_and_one_that_is_ended_thaws", freeze::guard::killed),
    ("a_guard_or_an_agent_that_is_stopped_keeps_nothing_frozen", freeze::guard::stopped),
    ("a_frozen_machine_powers_off_in_time", freeze::guard::powers_off),
    ("the_audit_of_a_freeze_is_written_after_it", freeze::audit::is_written_after_the_thaw),
    ("freeze_hooks_run_in_order_and_may_fail_or_hang", freeze::hooks::run),
    ("a_hook_that_only_root_can_change_or_replace_is_run_and_no_other", freeze::hooks::are_trusted),
    ("disks_of_a_microvm_without_pci_are_where_qemu_put_them", storage::of_a_microvm),
    ("logical_volumes_and_encrypted_disks_stand_on_what_qemu_attached", storage::of_volumes),
    ("an_idle_agent_never_wakes_up", idle::never_wakes_up),
    ("keys_of_users_are_set_with_their_rights", accounts::have_their_keys_set),
    ("links_in_a_home_lead_nowhere_the_user_cannot_go", accounts::cannot_lead_astray),
    ("keys_are_set_whoever_owns_the_home_the_directory_and_the_file", ssh_keys::of_every_owner_and_mode),
    ("no_user_gains_by_what_is_put_where_keys_are_kept", ssh_keys::of_hostile_users),
    ("passwords_are_set_with_chpasswd_and_without", accounts::have_their_passwords_set),
    ("users_are_found_without_utmp", accounts::are_logged_in),
    ("the_clock_is_set_without_hwclock", clock::is_set_by_itself),
    ("the_clock_is_set_with_hwclock", clock::is_set_with_hwclock),
    ("a_clock_that_jumps_moves_no_deadline", clock::jumps),
    ("a_guest_is_switched_off_by_its_init", power::is_switched_off_by_init),
    ("a_guest_is_restarted_by_its_init", power::is_restarted_by_init),
    ("a_guest_is_stopped_by_its_init", power::is_stopped_by_init),
    ("a_guest_with_an_unknown_init_is_switched_off_by_the_kernel", power::is_switched_off_by_the_kernel),
    ("programs_of_the_guest_shut_it_down_or_say_why_not", power::has_programs_for_it),
    ("a_guest_sleeps_in_its_memory_and_wakes", power::sleeps_and_wakes),
    ("a_guest_that_cannot_sleep_says_so", power::cannot_sleep),
    ("a_file_of_200_mib_is_the_same_after_a_push_and_a_pull", transfers::large_file),
    ("a_host_that_leaves_in_the_middle_of_a_write_loses_that_write_only", transfers::host_leaves_halfway),
    ("a_handle_does_not_survive_the_agent_and_is_not_used_again", transfers::restart_between_open_and_read),
    ("programs_run_and_leave_nothing_behind", transfers::programs),
    ("jobs_have_the_rights_and_the_environment_of_their_user", jobs::of_users),
    ("jobs_go_on_and_are_read_while_file_systems_are_frozen", jobs::go_on_while_frozen),
    ("a_shell_of_the_guest_works_on_a_terminal_of_the_host", tool::shell),
    ("output_is_whole_although_its_agent_is_killed_in_the_middle", tool::output_of_killed_agents),
    ("disks_without_room_cost_lines_and_handles_and_nothing_else", faults::full_disks),
    ("a_file_system_that_never_answers_costs_one_thread", no_answer::costs_one_thread),
    ("a_fork_bomb_at_its_limit_does_not_keep_the_agent_from_answering", transfers::fork_bomb),
];

/// The deadline of a wait that begins now.
pub(crate) fn soon() -> Instant {
    Instant::now() + TIMEOUT
}

/// Connects, and waits for the agent's first reply.
pub(crate) fn answered(vm: &Vm) -> Result<Client<Recorded>> {
    let mut client = vm.client()?;
    client.call(&Ping {}, soon())?;
    Ok(client)
}

/// The process id of the running agent.
pub(crate) fn agent_pid(vm: &mut Vm) -> Result<String> {
    // The file exists a moment before its content does.
    vm.wait_until("grep . /run/agent.pid")
}

/// The guest as text. `UPDATE_ROOTS=1` rewrites the fake machines that qgad's own tests use; review the diff.
pub(crate) fn captured(vm: &mut Vm, name: &str) -> Result<String> {
    let text = vm.sh("/init capture")?;
    if std::env::var_os("UPDATE_ROOTS").is_some() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../qgad/tests/roots/{name}.root"));
        std::fs::write(
            file,
            format!("# Captured from a VM of the VM lane, see crates/vmtest/tests/vm/cases.\n{text}\n"),
        )?;
    }
    Ok(text)
}

/// An answer, and what a script in the guest says of the same facts. The facts were the same before and after: kernels
/// change addresses, routes and file systems on their own for a while.
pub(crate) fn with_steady_truth<T>(
    vm: &mut Vm,
    truth: &str,
    mut ask: impl FnMut() -> Result<T>,
) -> Result<(T, String)> {
    let deadline = soon();
    let mut before = vm.sh(truth)?;
    loop {
        let told = ask()?;
        let after = vm.sh(truth)?;
        if before == after {
            return Ok((told, after));
        }
        ensure!(Instant::now() < deadline, "the guest does not settle: first\n{before}\nthen\n{after}");
        before = after;
    }
}
