//! Processors of fake machines.

use super::*;
use crate::guest::tests::guest_at;

fn processor(logical_id: i64, online: bool, can_offline: bool) -> LogicalProcessor {
    LogicalProcessor { logical_id, online, can_offline: Some(can_offline) }
}

/// A processor as in a host's request.
fn wanted(logical_id: i64, online: bool) -> LogicalProcessor {
    LogicalProcessor { logical_id, online, can_offline: None }
}

fn check(tree: &str, expected: &[(i64, bool, bool)]) {
    let (root, _directory) = Root::from_text(tree);
    let mut found = processors(&root).unwrap();
    found.sort();
    assert_eq!(found, expected.iter().map(|(id, online, can)| processor(*id, *online, *can)).collect::<Vec<_>>());
}

/// Sets processors, then checks their `online` files.
fn check_set(tree: &str, vcpus: &[(i64, bool)], expected: std::result::Result<i64, &str>, files: &[(i64, &str)]) {
    let (root, directory) = Root::from_text(tree);
    let vcpus = vcpus.iter().map(|(id, online)| wanted(*id, *online)).collect();
    let done = SetVcpus { vcpus }.run(&guest_at(directory.path()));
    assert_eq!(done, expected.map_err(Error::generic), "{tree}");
    for (id, contents) in files {
        assert_eq!(root.read(online_file(&super::directory(*id))).unwrap(), contents.as_bytes(), "cpu{id}");
    }
}

const FOUR: &str = "\
sys/devices/system/cpu/cpu0/
sys/devices/system/cpu/cpu1/online: 1
sys/devices/system/cpu/cpu2/online: 1
sys/devices/system/cpu/cpu3/online: 0
";

#[test]
fn a_cpu_without_an_online_file_cannot_be_taken_offline() {
    check("sys/devices/system/cpu/cpu0/\n", &[(0, true, false)]);
}

#[test]
fn a_hot_plugged_cpu_that_is_offline_can_be_brought_online() {
    check(FOUR, &[(0, true, false), (1, true, true), (2, true, true), (3, false, true)]);
}

/// A VM with three processors, the second of which is offline.
const CAPTURED: &str = include_str!("../../../tests/roots/plugged.root");

#[test]
fn the_processors_of_a_captured_machine_are_found() {
    check(CAPTURED, &[(0, true, false), (1, false, true), (2, true, true)]);
    check_set(CAPTURED, &[(0, true), (1, false), (2, true)], Ok(3), &[(1, "0\n"), (2, "1\n")]);
    check_set(CAPTURED, &[(1, true), (2, false), (0, false), (1, false)], Ok(2), &[(1, "1\n"), (2, "0\n")]);
}

#[test]
fn a_captured_machine_has_times_of_its_online_processors_only() {
    let (root, _directory) = Root::from_text(CAPTURED);
    let found = statistics(&root.read(STATISTICS).unwrap(), 100);
    let found: Vec<_> = found.iter().map(|one| (one.cpu, one.user, one.idle, one.softirq)).collect();
    assert_eq!(found, [(0, 730, 11410, Some(690)), (2, 520, 12690, Some(690))]);
}

#[test]
fn numbers_may_have_gaps_and_other_names_are_skipped() {
    check(
        "sys/devices/system/cpu/cpufreq/online: 1\nsys/devices/system/cpu/cpuidle/\n\
         sys/devices/system/cpu/online: 0-2\nsys/devices/system/cpu/cpu/\nsys/devices/system/cpu/cpu1x/\n\
         sys/devices/system/cpu/cpu-1/\n\
         sys/devices/system/cpu/cpu7/online: 1\nsys/devices/system/cpu/cpu300/online: 0\n",
        &[(7, true, true), (300, false, true)],
    );
}

#[test]
fn a_thousand_processors_are_each_opened_once_and_stay_in_order() {
    let tree: String =
        (0..1000).map(|number| format!("sys/devices/system/cpu/cpu{number}/online: {}\n", number % 2)).collect();
    let (root, _directory) = Root::from_text(&tree);
    let before = root.opened();
    let found = processors(&root).unwrap();
    assert_eq!(root.opened() - before, 1 + 1000);
    assert_eq!(found.len(), 1000);
    assert_eq!(processors(&root).unwrap(), found);
}

#[test]
fn an_error_names_the_file_that_cannot_be_read() {
    let check = |tree, expected| {
        let (root, _directory) = Root::from_text(tree);
        assert_eq!(processors(&root), Err(Error::generic(expected)));
    };
    check("", "Could not open '/sys/devices/system/cpu': No such file or directory");
    let empty = "pread(\"/sys/devices/system/cpu/cpu1//online\"): unexpected EOF";
    check("sys/devices/system/cpu/cpu1/online:\n", empty);
}

#[test]
fn a_processor_is_written_to_only_if_its_state_differs() {
    let all = [(0, true), (1, false), (2, true), (3, true)];
    check_set(FOUR, &all, Ok(4), &[(1, "0\n"), (2, "1\n"), (3, "1\n")]);
    check_set(FOUR, &[], Ok(0), &[(1, "1\n"), (3, "0\n")]);
}

#[test]
fn a_failure_of_the_first_is_an_error_and_of_a_later_one_a_smaller_count() {
    let cannot = "logical processor #0 can't be offlined";
    check_set(FOUR, &[(0, false), (1, false)], Err(cannot), &[(1, "1\n")]);
    check_set(FOUR, &[(1, false), (0, false), (2, false)], Ok(1), &[(1, "0\n"), (2, "1\n")]);
    let absent = "Could not open '/sys/devices/system/cpu/cpu9/': No such file or directory";
    check_set(FOUR, &[(9, true)], Err(absent), &[]);
    check_set(
        FOUR,
        &[(-1, true)],
        Err("Could not open '/sys/devices/system/cpu/cpu-1/': No such file or directory"),
        &[],
    );
    let empty = "pread(\"/sys/devices/system/cpu/cpu1//online\"): unexpected EOF";
    check_set("sys/devices/system/cpu/cpu1/online:\n", &[(1, false)], Err(empty), &[]);
}

fn check_statistics(contents: &str, expected: &[(i64, [Option<u64>; 10])]) {
    let found: Vec<_> = statistics(contents.as_bytes(), 100)
        .iter()
        .map(|cpu| {
            let always = [cpu.user, cpu.nice, cpu.system, cpu.idle].map(Some);
            let further = [cpu.iowait, cpu.irq, cpu.softirq, cpu.steal, cpu.guest, cpu.guestnice];
            (cpu.cpu, [&always[..], &further].concat().try_into().unwrap())
        })
        .collect();
    assert_eq!(found, expected, "{contents}");
}

#[test]
fn times_are_in_milliseconds_for_each_processor() {
    check_statistics(
        "cpu  10 20 30 40 50 60 70 80 90 100\ncpu0 1 2 3 4 5 6 7 8 9 10\ncpu7 0 0 0 1 0 0 0 0 0 0\nintr 1 2\nctxt 3\n",
        &[(0, [10, 20, 30, 40, 50, 60, 70, 80, 90, 100].map(Some)), (7, [0, 0, 0, 10, 0, 0, 0, 0, 0, 0].map(Some))],
    );
}

#[test]
fn a_column_that_the_kernel_does_not_have_is_absent() {
    for columns in 4..10 {
        let line = format!("cpu3{}\n", " 1".repeat(columns));
        let expected = std::array::from_fn(|column| (column < columns).then_some(10));
        check_statistics(&line, &[(3, expected)]);
    }
    check_statistics("cpu0 1 2 3\ncpu1 1 2 3 4\n", &[]);
}

#[test]
fn a_time_that_overflows_is_the_largest_one() {
    let huge = format!("cpu0 {} 0 0 0\n", u64::MAX);
    let mut expected = [None; 10];
    expected[..4].copy_from_slice(&[Some(u64::MAX / 100), Some(0), Some(0), Some(0)]);
    check_statistics(&huge, &[(0, expected)]);
}

#[test]
fn the_load_is_three_numbers() {
    let (_, directory) = Root::from_text("proc/loadavg: 0.52 1.58 12.00 2/345 6789\n");
    let expected = Load { load1m: 0.52, load5m: 1.58, load15m: 12.0 };
    assert_eq!(GetLoad {}.run(&guest_at(directory.path())), Ok(expected));
}

#[test]
fn a_missing_file_is_an_error() {
    let (_, directory) = Root::from_text("");
    let guest = guest_at(directory.path());
    let missing = "Could not open '/proc/stat': No such file or directory";
    assert_eq!(GetCpustats {}.run(&guest), Err(Error::generic(missing)));
    let missing = "cannot query load average: No such file or directory";
    assert_eq!(GetLoad {}.run(&guest), Err(Error::generic(missing)));
}
