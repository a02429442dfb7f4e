//! Network interfaces and routes, compared with QEMU's command line and with the guest's own tools.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use qga::{
    client::Client,
    commands::network::{GetInterfaces, GetRoute, Interface, IpAddressType, Route},
};
use serde_json::json;
use vmtest::{
    transcript::Recorded,
    vm::{Builder, Vm},
};

use super::{agent_pid, answered, reference, soon, with_steady_truth};

const MACS: [&str; 2] = ["52:54:00:aa:00:01", "52:54:00:aa:00:02"];

/// `2: eth0    inet 192.0.2.10/24 scope global eth0`, the label at the end for IPv4 only.
const ADDRESSES: &str = "ip -o addr show";
const LO_STATISTICS: &str = "cd /sys/class/net/lo/statistics && cat rx_bytes rx_packets tx_bytes tx_packets";

/// `eth0` with addresses of all kinds and routes, and `eth1` with nothing.
const SET_UP: &str = "\
ip link set lo up
ip link set eth0 up
ip addr add 192.0.2.10/24 dev eth0
ip addr add 192.0.2.11/32 dev eth0 label eth0:7
ip route add default via 192.0.2.1
ip route add 198.51.100.0/24 via 192.0.2.2 metric 4278198272
ping -c 3 -W 1 127.0.0.1";
const SET_UP_IPV6: &str = "\
ip -6 addr add 2001:db8::10/64 dev eth0
ip -6 route add 2001:db8:1::/48 via 2001:db8::1 dev eth0 metric 77";

pub(crate) fn interfaces(builder: Builder<'_>) -> Result<()> {
    let reference = builder.reference_program().map(ToOwned::to_owned);
    let mut vm = boot(builder)?;
    vm.sh(SET_UP_IPV6)?;
    let mut agent = answered(&vm)?;
    // The kernel may find the second device first.
    let macs = vm.sh("cat /sys/class/net/eth0/address /sys/class/net/eth1/address")?;
    let macs: Vec<_> = macs.lines().collect();
    assert!(macs == MACS || macs.iter().rev().eq(&MACS), "{macs:?}");
    let truth = format!("{ADDRESSES}; echo; {LO_STATISTICS}");
    let (interfaces, truth) = with_steady_truth(&mut vm, &truth, || Ok(agent.call(&GetInterfaces {}, soon())?))?;
    let (addresses, statistics) = truth.split_once("\n\n").context("the guest tells no statistics")?;
    let summaries: Vec<_> = interfaces
        .iter()
        .map(|one| {
            (one.name.as_str(), one.hardware_address.as_deref(), one.ip_addresses.is_some(), one.statistics.is_some())
        })
        .collect();
    let expected = [
        ("lo", Some("00:00:00:00:00:00"), true, true),
        ("eth0", Some(macs[0]), true, true),
        ("eth1", Some(macs[1]), false, false),
        ("eth0:7", Some(macs[0]), true, false),
    ];
    assert_eq!(summaries, expected);
    assert_eq!(told_addresses(&interfaces), true_addresses(addresses));

    let lo = interfaces[0].statistics.context("lo has addresses, and so statistics")?;
    let told = [lo.rx_bytes, lo.rx_packets, lo.tx_bytes, lo.tx_packets].map(|count| count.to_string());
    assert_eq!(told.join("\n"), statistics);
    assert!(lo.rx_packets >= 3, "the pings of the set-up went there: {lo:?}");
    compare_with_reference(&mut vm, &mut agent, reference.as_deref())
}

pub(crate) fn excluded_interfaces(builder: Builder<'_>) -> Result<()> {
    let mut vm = boot(builder)?;
    let pid = agent_pid(&mut vm)?;
    vm.sh("mkdir -p /etc/qemu; printf '[general]\\ninterfaces-exclude=eth?;sit*\\n' > /etc/qemu/qemu-ga.conf")?;
    vm.sh(&format!("kill {pid}"))?;
    vm.wait_until(&format!("test \"$(cat /run/agent.pid)\" != {pid}"))?;
    let interfaces = answered(&vm)?.call(&GetInterfaces {}, soon())?;
    let names: Vec<_> = interfaces.iter().map(|interface| interface.name.as_str()).collect();
    assert_eq!(names, ["lo"]);
    Ok(())
}

pub(crate) fn routes(builder: Builder<'_>) -> Result<()> {
    let mut vm = boot(builder)?;
    vm.sh(SET_UP_IPV6)?;
    let mut agent = answered(&vm)?;
    let truth = "tail -n +2 /proc/net/route | wc -l; wc -l </proc/net/ipv6_route";
    let (routes, truth) = with_steady_truth(&mut vm, truth, || Ok(agent.call(&GetRoute {}, soon())?))?;
    let count = |version| routes.iter().filter(|route: &&Route| route.version == version).count();
    assert_eq!(format!("{}\n{}", count(4), count(6)), truth);
    check_ipv4_routes(&routes)?;
    let is = |text: &str| Some(text.to_owned());
    let far = find(&routes, "2001:db8:1::", 6)?;
    assert_eq!((far.iface.as_str(), &far.desprefixlen, far.metric), ("eth0", &is("48"), 77));
    assert_eq!((&far.nexthop, &far.source, &far.srcprefixlen), (&is("2001:db8::1"), &is("::"), &is("0")));
    assert!(routes.iter().all(|route| route.metric >= 0 && route.flags.is_some_and(|flags| flags >= 0)));
    Ok(())
}

pub(crate) fn without_ipv6(builder: Builder<'_>) -> Result<()> {
    let reference = builder.reference_program().map(ToOwned::to_owned);
    let mut vm = boot(builder.kernel_arguments(&["ipv6.disable=1"]))?;
    vm.sh("! test -e /proc/net/ipv6_route")?;
    let mut agent = answered(&vm)?;
    let truth = "tail -n +2 /proc/net/route | wc -l";
    let (routes, truth) = with_steady_truth(&mut vm, truth, || Ok(agent.call(&GetRoute {}, soon())?))?;
    assert_eq!(routes.len().to_string(), truth);
    check_ipv4_routes(&routes)?;

    let (interfaces, addresses) = with_steady_truth(&mut vm, ADDRESSES, || Ok(agent.call(&GetInterfaces {}, soon())?))?;
    let names: Vec<_> = interfaces.iter().map(|interface| interface.name.as_str()).collect();
    assert_eq!(names, ["lo", "eth0", "eth1", "eth0:7"]);
    let expected = ["lo 127.0.0.1/8", "eth0 192.0.2.10/24", "eth0:7 192.0.2.11/32"];
    let expected: Addresses = expected
        .iter()
        .filter_map(|one| one.split_once(' '))
        .map(|(name, address)| (name.to_owned(), address.to_owned()))
        .collect();
    assert_eq!(told_addresses(&interfaces), expected);
    assert_eq!(true_addresses(&addresses), expected);
    compare_with_reference(&mut vm, &mut agent, reference.as_deref())
}

fn check_ipv4_routes(routes: &[Route]) -> Result<()> {
    let is = |text: &str| Some(text.to_owned());
    let default = find(routes, "0.0.0.0", 4)?;
    assert_eq!((&default.gateway, &default.mask), (&is("192.0.2.1"), &is("0.0.0.0")));
    assert_eq!((default.iface.as_str(), default.flags), ("eth0", Some(3)));
    let far = find(routes, "198.51.100.0", 4)?;
    assert_eq!((&far.gateway, &far.mask, far.metric), (&is("192.0.2.2"), &is("255.255.255.0"), 4_278_198_272));
    Ok(())
}

fn find<'a>(routes: &'a [Route], destination: &str, version: i64) -> Result<&'a Route> {
    let mut found = routes.iter().filter(|route| route.destination == destination && route.version == version);
    found.next().with_context(|| format!("no route to {destination} in {routes:?}"))
}

/// Routes are newer than the reference.
fn compare_with_reference(vm: &mut Vm, agent: &mut Client<Recorded>, program: Option<&str>) -> Result<()> {
    let Some(program) = program else { return Ok(()) };
    reference::start(vm, program)?;
    reference::compare(vm, agent, "guest-network-get-interfaces", &json!({}), |_, _| {})
}

fn boot(builder: Builder<'_>) -> Result<Vm> {
    // Without a peer on the host's side: nothing is to come in.
    let devices = MACS.map(|mac| format!("virtio-net-pci,mac={mac},romfile="));
    let mut vm = builder.qemu_arguments(&["-device", &devices[0], "-device", &devices[1]]).boot()?;
    vm.wait_until("ls /sys/class/net/eth1")?;
    vm.sh(SET_UP)?;
    Ok(vm)
}

/// Names, or labels, with their addresses.
type Addresses = BTreeSet<(String, String)>;

fn told_addresses(interfaces: &[Interface]) -> Addresses {
    let mut addresses = Addresses::new();
    for interface in interfaces {
        for address in interface.ip_addresses.iter().flatten() {
            assert_eq!(address.ip_address_type == IpAddressType::Ipv6, address.ip_address.contains(':'));
            addresses.insert((interface.name.clone(), format!("{}/{}", address.ip_address, address.prefix)));
        }
    }
    addresses
}

/// What [`ADDRESSES`] prints.
fn true_addresses(text: &str) -> Addresses {
    let mut addresses = Addresses::new();
    for line in text.lines() {
        let words: Vec<_> = line.split([' ', '\\']).filter(|word| !word.is_empty()).collect();
        let [_, device, family @ ("inet" | "inet6"), address, ..] = words[..] else { continue };
        let label = words.iter().position(|word| *word == "scope").and_then(|scope| words.get(scope + 2));
        let name = if family == "inet" { label.copied().unwrap_or(device) } else { device };
        addresses.insert((name.into(), address.into()));
    }
    assert!(addresses.len() >= 3, "{text}");
    addresses
}
