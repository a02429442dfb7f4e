//! Interfaces and routes of fake machines.

use super::*;

fn link(index: u32, name: &str, hardware_address: &[u8]) -> Link {
    Link { index, name: name.into(), hardware_address: hardware_address.into() }
}

fn address(link: u32, label: Option<&str>, address: &str, prefix: u8) -> Address {
    Address { link, label: label.map(Into::into), address: address.parse().unwrap(), prefix }
}

const MAC: [u8; 6] = [0x52, 0x54, 0, 0xAB, 0xCD, 0xEF];

const STATISTICS_TEXT: &str = "\
Inter-|   Receive                                              |  Transmit
 face |bytes  packets errs drop fifo frame compressed multicast|bytes  packets errs drop fifo colls carrier compressed
    lo:  3193      29    0    0    0     0          0         0   3193      29    0    0    0     0       0          0
  eth0:     1       2    3    4   91    92         93        94      5       6    7    8   95    96      97         98
  idle:     1       2    3    4    0     0          0         0      5       6    7    8    0     0       0          0
";

/// Interfaces as text: the name, whether there are statistics, the hardware address, the addresses.
fn check(links: &[Link], addresses: &[Address], exclude: &[&str], expected: &[&str]) {
    let exclude = Globs::new(exclude.iter().map(|pattern| (*pattern).into()).collect());
    let found: Vec<_> = interfaces(links, addresses, STATISTICS_TEXT.as_bytes(), &exclude)
        .iter()
        .map(|interface| {
            let mut text = format!("{} {}", interface.name, interface.hardware_address.as_deref().unwrap());
            for address in interface.ip_addresses.iter().flatten() {
                text += &format!(" {:?}:{}/{}", address.ip_address_type, address.ip_address, address.prefix);
            }
            text + if interface.statistics.is_some() { " counted" } else { "" }
        })
        .collect();
    assert_eq!(found, expected);
}

fn usual() -> (Vec<Link>, Vec<Address>) {
    let links = vec![link(1, "lo", &[0; 6]), link(3, "idle", &MAC), link(2, "eth0", &MAC)];
    let addresses = vec![
        address(1, Some("lo"), "127.0.0.1", 8),
        address(2, Some("eth0"), "10.0.2.15", 24),
        address(2, Some("eth0:1"), "10.0.2.16", 32),
        address(1, None, "::1", 128),
        address(2, None, "fe80::5054:ff:feab:cdef", 64),
    ];
    (links, addresses)
}

#[test]
fn interfaces_are_in_the_kernels_order_and_labels_follow_without_statistics() {
    let (links, addresses) = usual();
    check(
        &links,
        &addresses,
        &[],
        &[
            "lo 00:00:00:00:00:00 Ipv4:127.0.0.1/8 Ipv6:::1/128 counted",
            "idle 52:54:00:ab:cd:ef",
            "eth0 52:54:00:ab:cd:ef Ipv4:10.0.2.15/24 Ipv6:fe80::5054:ff:feab:cdef/64 counted",
            "eth0:1 52:54:00:ab:cd:ef Ipv4:10.0.2.16/32",
        ],
    );
}

#[test]
fn an_excluded_interface_is_left_out_with_its_labels() {
    let (links, addresses) = usual();
    let lo = "lo 00:00:00:00:00:00 Ipv4:127.0.0.1/8 Ipv6:::1/128 counted";
    check(&links, &addresses, &["eth?", "id*"], &[lo]);
    check(
        &links,
        &addresses,
        &["*:1", "eth9", "idle", "lo"],
        &["eth0 52:54:00:ab:cd:ef Ipv4:10.0.2.15/24 Ipv6:fe80::5054:ff:feab:cdef/64 counted"],
    );
}

#[test]
fn a_hardware_address_has_six_bytes() {
    let links = [link(1, "ib0", &[0xAB; 20]), link(2, "tun0", &[]), link(3, "sit0", &[10, 0, 0, 1])];
    check(&links, &[], &[], &["ib0 ab:ab:ab:ab:ab:ab", "tun0 00:00:00:00:00:00", "sit0 0a:00:00:01:00:00"]);
}

#[test]
fn addresses_are_formatted_as_by_the_c_library() {
    for text in ["::", "::1", "::1.2.3.4", "::0.1.0.0", "::ffff:1.2.3.4", "::ffff", "1::", "2001:db8::1:0:0:1"] {
        assert_eq!(format_ipv6(text.parse().unwrap()), text);
    }
}

#[test]
fn an_address_of_an_unknown_interface_is_left_out() {
    let links = [link(1, "new0", &MAC)];
    check(&links, &[address(9, Some("gone0"), "10.0.0.1", 8)], &[], &["new0 52:54:00:ab:cd:ef"]);
    check(&links, &[address(1, None, "::2", 8)], &[], &["new0 52:54:00:ab:cd:ef Ipv6:::2/8"]);
}

const IPV4: &str = "\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t000200C0\t00000000\t0001\t1\t2\t-16769024\t00FFFFFF\t1500\t3\t4
";

const IPV6: &str = "\
fd000000000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 \
    00000100 00000001 00000002 00000001     eth0
00000000000000000000000000000000 00 20010db8000000000000000000000000 20 fe800000000000000000000000000001 \
    ffffffff 00000002 00000000 80200001       lo
";

fn tree(ipv4: Option<&str>, ipv6: Option<&str>) -> String {
    let file = |path, contents: Option<&str>| {
        let lines = contents?.lines().map(|line| format!("| {line}\n")).collect::<String>();
        Some(format!("{path}:\n{lines}"))
    };
    file("proc/net/route", ipv4).into_iter().chain(file("proc/net/ipv6_route", ipv6)).collect()
}

fn found_routes(tree: &str) -> Vec<Route> {
    let (root, _directory) = Root::from_text(tree);
    routes(&root).unwrap()
}

#[test]
fn a_route_of_ipv4_has_dotted_addresses_and_no_negative_metric() {
    let text = |text: &str| Some(text.to_owned());
    let route = Route {
        iface: "eth0".into(),
        destination: "192.0.2.0".into(),
        metric: 4_278_198_272,
        gateway: text("0.0.0.0"),
        mask: text("255.255.255.0"),
        irtt: Some(4),
        flags: Some(1),
        refcnt: Some(1),
        lookups: Some(2),
        window: Some(3),
        mtu: Some(1500),
        version: 4,
        ..Route::default()
    };
    let found = found_routes(&tree(Some(IPV4), None));
    assert_eq!(found.len(), 2);
    assert_eq!(found[0].gateway, text("192.0.2.1"));
    assert_eq!(found[1], route);
}

#[test]
fn a_route_of_ipv6_has_lengths_that_are_strings_and_flags_of_32_bits() {
    let text = |text: &str| Some(text.to_owned());
    let route = Route {
        iface: "lo".into(),
        destination: "::".into(),
        metric: 0xFFFF_FFFF,
        desprefixlen: text("0"),
        source: text("2001:db8::"),
        srcprefixlen: text("32"),
        nexthop: text("fe80::1"),
        flags: Some(0x8020_0001),
        refcnt: Some(2),
        lookups: Some(0),
        version: 6,
        ..Route::default()
    };
    let found = found_routes(&tree(None, Some(IPV6)));
    assert_eq!(found.len(), 2);
    assert_eq!((found[0].destination.as_str(), &found[0].desprefixlen), ("fd00::", &text("64")));
    assert_eq!(found[1], route);
}

#[test]
fn routes_of_one_family_do_not_need_the_other() {
    let versions = |tree: &str| found_routes(tree).iter().map(|route| route.version).collect::<Vec<_>>();
    assert_eq!(versions(&tree(Some(IPV4), Some(IPV6))), [4, 4, 6, 6]);
    assert_eq!(versions(&tree(Some(IPV4), None)), [4, 4]);
    assert_eq!(versions(&tree(None, Some(IPV6))), [6, 6]);
    assert!(versions("").is_empty());
}

#[test]
fn an_invalid_line_is_skipped() {
    for line in ["", "eth0 0 0", "eth0 XXXXXXXX 0 1 0 0 0 0 0 0 0", "eth0 123456789 0 1 0 0 0 0 0 0 0"] {
        assert_eq!(ipv4_route(line.as_bytes()), None, "{line}");
        assert_eq!(ipv6_route(line.as_bytes()), None, "{line}");
    }
}
