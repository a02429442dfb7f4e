use std::fmt::Write;

use qga::{
    commands::{cpu::Load, metrics::FileSystemMetrics},
    wire::json,
};

use super::*;
use crate::guest::tests::guest_at;

/// A guest with three disks, one of them hidden, and with swap.
const CAPTURED: &str = include_str!("../../../tests/roots/monitored.root");
/// A directory stands for the file system that is mounted there.
const MOUNTED: &str = "mnt/a/\nmnt/b/\nproc/1/\nproc/209/\nproc/self/statm: 1000 375 200 1 0 90 0\n";
/// Largest reply of an ordinary guest in bytes. Hosts read a reply of this size in one piece.
const ORDINARY_REPLY_BYTES: usize = 16 * 1024;

fn guest(text: &str) -> (Guest, tempfile::TempDir) {
    let (root, directory) = Root::from_text(text);
    (Guest { root, ..guest_at(directory.path()) }, directory)
}

fn all(guest: &Guest) -> Metrics {
    GetMetrics { parts: None }.run(guest).unwrap()
}

fn mount_points(file_systems: Option<Vec<FileSystemMetrics>>) -> Vec<String> {
    file_systems.unwrap().into_iter().map(|one| one.mountpoint).collect()
}

fn left_out(metrics: &Metrics) -> Vec<(&str, LeftOutReason)> {
    metrics.file_systems_left_out.iter().flatten().map(|one| (one.mountpoint.as_str(), one.reason)).collect()
}

#[test]
fn a_captured_guest_is_told_with_all_its_figures() {
    let (guest, _directory) = guest(&format!("{CAPTURED}{MOUNTED}"));
    let metrics = all(&guest);
    assert_eq!(metrics.uptime, Some(14.67));
    assert_eq!(metrics.boot_id.as_deref(), Some("b17ce771-05cb-404e-94c2-cbac1ef28926"));
    let memory = metrics.memory.clone().unwrap();
    assert_eq!((memory.total, memory.available), (Some(210_468 * 1024), Some(116_120 * 1024)));
    assert_eq!((memory.swap_total, memory.slab), (Some(4088 * 1024), Some(34_828 * 1024)));
    let some = metrics.pressure.clone().unwrap().cpu.unwrap().some.unwrap();
    assert_eq!((some.avg10, some.total), (Some(4.43), Some(1.290_978)));
    assert_eq!(metrics.load, Some(Load { load1m: 0.15, load5m: 0.03, load15m: 0.01 }));
    let processors = metrics.processors.as_ref().unwrap();
    assert_eq!(processors.iter().map(|one| (one.cpu, one.user)).collect::<Vec<_>>(), [(0, 630), (1, 710)]);
    let disks: Vec<_> = metrics.disks.iter().flatten().map(|disk| disk.name.as_str()).collect();
    assert_eq!(disks, ["vda", "vdb", "vdc"]);
    let network = metrics.network.clone().unwrap();
    let names = |list: Option<Vec<InterfaceMetrics>>| list.unwrap().into_iter().map(|one| one.name).collect::<Vec<_>>();
    assert_eq!((names(network.physical), names(network.other)), (vec!["eth0".into()], vec!["lo".into()]));
    let expected = ProcessMetrics {
        processes: Some(2),
        threads: Some(85),
        running: Some(2),
        blocked: Some(0),
        started: Some(210),
    };
    assert_eq!(metrics.processes, Some(expected));
    let page_bytes = u64::try_from(sysconf(SysconfVar::PAGE_SIZE).unwrap().unwrap()).unwrap();
    assert_eq!(metrics.agent.as_ref().unwrap().memory, Some(375 * page_bytes));
    assert_eq!(left_out(&metrics), [("/mnt/c", LeftOutReason::Hidden)]);
    let devices: Vec<_> = metrics.file_systems.iter().flatten().map(|one| (&*one.name, &*one.kind)).collect();
    assert_eq!(devices, [("vda", "ext4"), ("vdb", "ext4")]);
    assert_eq!(mount_points(metrics.file_systems), ["/mnt/a", "/mnt/b"]);
}

#[test]
fn the_reply_of_an_ordinary_guest_is_short() {
    // Eight processors, twelve disks and partitions, eight file systems, eight interfaces, up for years.
    let mut text = String::from("proc/stat:\n");
    (0..8).for_each(|cpu| writeln!(text, "| cpu{cpu}{}", " 1234567890".repeat(10)).unwrap());
    text += "proc/diskstats:\n";
    (0..12).for_each(|disk| writeln!(text, "| 254 {disk} vda{disk}{}", " 1234567890".repeat(17)).unwrap());
    text += "proc/self/mountinfo:\n";
    (0..8).for_each(|id| writeln!(text, "| {id} 99 254:{id} / /srv/data/{id} rw - ext4 /dev/vda{id} rw").unwrap());
    (0..8).for_each(|id| writeln!(text, "srv/data/{id}/").unwrap());
    text += "proc/net/dev:\n";
    (0..8).for_each(|id| writeln!(text, "| veth0123456{id}:{}", " 123456789012".repeat(16)).unwrap());
    for path in ["proc/meminfo:\n", "proc/pressure/cpu:\n", "proc/pressure/io:\n", "proc/pressure/memory:\n"] {
        let captured = CAPTURED.split(path).nth(1).unwrap().lines().take_while(|line| line.starts_with('|'));
        text += &format!("{path}{}\n", captured.collect::<Vec<_>>().join("\n"));
    }
    let (guest, _directory) = guest(&text);
    let metrics = all(&guest);
    assert_eq!((metrics.disks.as_ref().unwrap().len(), metrics.file_systems.as_ref().unwrap().len()), (12, 8));
    let bytes = json::to_vec(&metrics).len();
    assert!(bytes < ORDINARY_REPLY_BYTES, "{bytes}");
}

#[test]
fn what_a_kernel_does_not_tell_is_absent() {
    let (guest, _directory) = guest("proc/meminfo: MemTotal: 7 kB\n");
    let Metrics { memory, processes, agent, clock: None, .. } = all(&guest) else { panic!("a clock") };
    let agent = agent.unwrap();
    assert_eq!((agent.memory, agent.frozen_for), (None, None));
    let expected = Metrics {
        memory: Some(qga::commands::metrics::MemoryMetrics { total: Some(7 * 1024), ..Default::default() }),
        processes: Some(ProcessMetrics { processes: Some(0), ..ProcessMetrics::default() }),
        agent: Some(agent),
        ..Metrics::default()
    };
    assert_eq!(Metrics { agent: expected.agent.clone(), memory, processes, ..all(&guest) }, expected);
}

#[test]
fn only_the_parts_that_are_asked_for_are_read() {
    let (guest, _directory) = guest(&format!("{CAPTURED}{MOUNTED}"));
    let before = guest.root.opened();
    let metrics = GetMetrics { parts: Some(vec![MetricsPart::Load]) }.run(&guest).unwrap();
    assert_eq!(guest.root.opened() - before, 3);
    assert!(metrics.load.is_some() && metrics.uptime.is_some() && metrics.boot_id.is_some());
    let rest = Metrics { load: None, uptime: None, boot_id: None, ..metrics };
    assert_eq!(rest, Metrics::default());
}

#[test]
fn a_file_system_that_does_not_answer_is_left_out_and_named() {
    let (guest, _directory) = guest(&format!("{CAPTURED}mnt/b/\n"));
    let metrics = all(&guest);
    assert_eq!(left_out(&metrics), [("/mnt/a", LeftOutReason::NoAnswer), ("/mnt/c", LeftOutReason::Hidden)]);
    assert_eq!(mount_points(metrics.file_systems), ["/mnt/b"]);
}

#[test]
fn while_frozen_no_file_system_is_asked_and_each_is_named() {
    let btrfs =
        "proc/self/mountinfo:\n| 1 0 254:1 / / rw - ext4 /dev/vda1 rw\n| 2 1 0:40 / /b rw - btrfs /srv/b.img rw\n";
    // A look at either would fail, and leave it out for another reason.
    let (root, directory) = Root::from_text(&format!("{btrfs}qga.state.isfrozen:\n"));
    let guest = Guest { root, ..guest_at(directory.path()) };
    let before = guest.root.opened();
    let metrics = GetMetrics { parts: Some(vec![MetricsPart::FileSystems]) }.run(&guest).unwrap();
    // The uptime, the boot id, and the list of mounts.
    assert_eq!(guest.root.opened() - before, 3);
    assert_eq!(left_out(&metrics), [("/", LeftOutReason::Frozen), ("/b", LeftOutReason::Frozen)]);
    assert_eq!(mount_points(metrics.file_systems), [""; 0]);
    assert!(agent(&guest).frozen_for.is_some());
}

#[test]
fn interfaces_that_the_configuration_excludes_are_left_out() {
    let (guest, _directory) = guest(CAPTURED);
    let guest = Guest { interfaces_exclude: crate::util::glob::Globs::new(vec!["e*".into()]), ..guest };
    let network = all(&guest).network.unwrap();
    assert_eq!((network.physical.unwrap().len(), network.other.unwrap().len()), (0, 1));
}

#[test]
fn the_errors_of_a_clock_are_known_while_it_is_kept_right() {
    let state =
        ClockState { is_synchronized: true, offset: Some(-1_500_000), maximum_error: 2500, estimated_error: 500 };
    let expected = ClockMetrics {
        synchronized: Some(true),
        offset: Some(-0.0015),
        maximum_error: Some(0.0025),
        estimated_error: Some(0.0005),
    };
    assert_eq!(clock_metrics(state), expected);
    let unknown = ClockMetrics { synchronized: Some(false), ..ClockMetrics::default() };
    assert_eq!(clock_metrics(ClockState { is_synchronized: false, ..state }), unknown);
}
