//! SMART: the health that NVMe controllers report.

use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use qga::commands::storage::NvmeSmart;

use super::Probes;
use crate::{
    root::Root,
    sys::nvme::{self, HEALTH_LOG_BYTES},
};

/// Asks the controllers of these disks; nothing for one that refuses or does not answer.
pub(crate) fn ask(probes: &Probes, root: &Root, nodes: Vec<PathBuf>) -> Vec<Option<NvmeSmart>> {
    let root = root.clone();
    probes.ask(nodes, move |node| ask_one(&root, node))
}

fn ask_one(root: &Root, node: &Path) -> Option<NvmeSmart> {
    let device = root.open(node, OFlag::O_RDONLY | OFlag::O_NONBLOCK).ok()?;
    Some(read(&nvme::health_log(std::os::fd::AsFd::as_fd(&device)).ok()?))
}

/// Reads the log, whose numbers are little-endian.
fn read(log: &[u8; HEALTH_LOG_BYTES]) -> NvmeSmart {
    let number = |offset: usize, bytes: usize| -> u64 {
        log[offset..offset + bytes].iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte))
    };
    let (low, high) = (|offset| number(offset, 8), |offset: usize| number(offset + 8, 8));
    NvmeSmart {
        critical_warning: number(0, 1),
        temperature: number(1, 2),
        available_spare: number(3, 1),
        available_spare_threshold: number(4, 1),
        percentage_used: number(5, 1),
        data_units_read_lo: low(32),
        data_units_read_hi: high(32),
        data_units_written_lo: low(48),
        data_units_written_hi: high(48),
        host_read_commands_lo: low(64),
        host_read_commands_hi: high(64),
        host_write_commands_lo: low(80),
        host_write_commands_hi: high(80),
        controller_busy_time_lo: low(96),
        controller_busy_time_hi: high(96),
        power_cycles_lo: low(112),
        power_cycles_hi: high(112),
        power_on_hours_lo: low(128),
        power_on_hours_hi: high(128),
        unsafe_shutdowns_lo: low(144),
        unsafe_shutdowns_hi: high(144),
        media_errors_lo: low(160),
        media_errors_hi: high(160),
        number_of_error_log_entries_lo: low(176),
        number_of_error_log_entries_hi: high(176),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::probes::tests::probes, *};

    #[test]
    fn every_number_has_its_place() {
        let mut log = [0; HEALTH_LOG_BYTES];
        log[..6].copy_from_slice(&[0x04, 0x43, 0x01, 100, 10, 3]);
        for counter in 0..10_u8 {
            log[32 + 16 * usize::from(counter)] = counter + 1;
            log[32 + 16 * usize::from(counter) + 15] = counter + 1;
        }
        let smart = read(&log);
        assert_eq!(smart.critical_warning, 4);
        assert_eq!(smart.temperature, 323);
        assert_eq!((smart.available_spare, smart.available_spare_threshold, smart.percentage_used), (100, 10, 3));
        let halves = [
            (smart.data_units_read_lo, smart.data_units_read_hi),
            (smart.data_units_written_lo, smart.data_units_written_hi),
            (smart.host_read_commands_lo, smart.host_read_commands_hi),
            (smart.host_write_commands_lo, smart.host_write_commands_hi),
            (smart.controller_busy_time_lo, smart.controller_busy_time_hi),
            (smart.power_cycles_lo, smart.power_cycles_hi),
            (smart.power_on_hours_lo, smart.power_on_hours_hi),
            (smart.unsafe_shutdowns_lo, smart.unsafe_shutdowns_hi),
            (smart.media_errors_lo, smart.media_errors_hi),
            (smart.number_of_error_log_entries_lo, smart.number_of_error_log_entries_hi),
        ];
        for (counter, (low, high)) in (1..).zip(halves) {
            assert_eq!((low, high), (counter, counter << 56));
        }
    }

    #[test]
    fn what_is_no_controller_says_nothing() {
        let (root, _directory) = Root::from_text("dev/nvme0n1: a file\n");
        let nodes = ["/dev/nvme0n1", "/dev/absent"].map(PathBuf::from).to_vec();
        assert_eq!(ask(&probes(), &root, nodes), [None, None]);
    }
}
