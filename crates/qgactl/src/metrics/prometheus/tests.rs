use nix::errno::Errno;
use qga::commands::{
    metrics::{InterfaceMetrics, MemoryMetrics, Metrics, NetworkMetrics},
    network::InterfaceStatistics,
};

use super::*;
use crate::{failure::Failure, metrics::Figures};

fn machine(name: &str, metrics: Metrics) -> Machine {
    Machine { name: name.into(), figures: Ok(Figures { metrics, is_frozen: None }) }
}

fn memory(available: u64) -> Metrics {
    Metrics {
        memory: Some(MemoryMetrics { available: Some(available), ..MemoryMetrics::default() }),
        ..Metrics::default()
    }
}

fn interfaces(names: &[&str]) -> Metrics {
    let interface = |name: &&str| InterfaceMetrics { name: (*name).into(), statistics: InterfaceStatistics::default() };
    let other = Some(names.iter().map(interface).collect());
    Metrics { network: Some(NetworkMetrics { physical: None, other }), ..Metrics::default() }
}

fn silent(name: &str) -> Machine {
    let failure = Failure::NoConnection { target: name.into(), error: Errno::ECONNREFUSED.into() };
    Machine { name: name.into(), figures: Err(failure) }
}

#[test]
fn samples_of_a_family_stand_together_and_a_machine_without_an_answer_is_not_up() {
    let expected = "\
# HELP guest_up Whether the agent of the machine answers.
# TYPE guest_up gauge
guest_up{machine=\"web1\"} 1
guest_up{machine=\"db\"} 0
guest_up{machine=\"web2\"} 1
# HELP guest_memory_available_bytes Memory that programs can get without swapping.
# TYPE guest_memory_available_bytes gauge
guest_memory_available_bytes{machine=\"web1\"} 18446744073709551615
guest_memory_available_bytes{machine=\"web2\"} 7
";
    let machines = [machine("web1", memory(u64::MAX)), silent("db"), machine("web2", memory(7))];
    assert_eq!(exposition(&machines), expected);
}

#[test]
fn no_label_ends_early_and_none_makes_a_line() {
    assert_eq!(label("a\\b\"c\nd\u{1b}[2Jé"), "a\\\\b\\\"c\u{fffd}d\u{fffd}[2Jé");
    assert_eq!(label(&"é".repeat(300)), "é".repeat(256));
}

#[test]
fn a_guest_that_tells_something_twice_spoils_no_scrape() {
    let text = exposition(&[machine("a", interfaces(&["eth0", "eth0"])), machine("b", interfaces(&["eth0"]))]);
    let received: Vec<_> = text.lines().filter(|line| line.starts_with("guest_network_receive_bytes_total{")).collect();
    let expected = ["a", "b"]
        .map(|name| format!("guest_network_receive_bytes_total{{machine=\"{name}\",device=\"eth0\",physical=\"\"}} 0"));
    assert_eq!(received, expected);
}

#[test]
fn names_say_their_unit_and_whether_they_only_grow() {
    let mut names = HashSet::new();
    for family in FAMILIES {
        assert!(names.insert(family.name), "{} is defined twice", family.name);
        assert!(family.name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_')), "{}", family.name);
        assert_eq!(matches!(family.kind, Kind::Counter), family.name.ends_with("_total"), "{}", family.name);
        assert!(family.help.ends_with('.') && !family.help.contains(['\\', '\n']), "{}", family.name);
    }
}
