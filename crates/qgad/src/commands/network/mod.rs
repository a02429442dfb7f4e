//! Network interfaces and routes.
//!
//! Each interface of the kernel is reported once, in the kernel's order. An IPv4 address whose label differs from its
//! interface's name gets an element with the label as its name, behind the interfaces, with the interface's hardware
//! address and without statistics. Only an interface with an address has statistics. An interface that comes or goes
//! during the call is not an error. Everything is read once and joined by tables, so that the time grows linearly.
//! Interfaces that `interfaces-exclude` names are left out, with their labels.
//!
//! Routes are those of both address families, or of the only one that the kernel has. Invalid lines are skipped.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use qga::{
    commands::network::{GetInterfaces, GetRoute, Interface, IpAddress, IpAddressType, Route},
    kernel,
    wire::message::Error,
};

use super::{Result, Run};
use crate::{
    guest::Guest,
    machine::netlink::{self, Address, Link},
    root::Root,
    util::{errno, glob::Globs},
};

pub(super) const STATISTICS: &str = "/proc/net/dev";
const IPV4_ROUTES: &str = "/proc/net/route";
const IPV6_ROUTES: &str = "/proc/net/ipv6_route";

/// How many bytes of a hardware address are reported. A missing one is reported as zeros.
const HARDWARE_ADDRESS_BYTES: usize = 6;

impl Run for GetInterfaces {
    fn run(self, guest: &Guest) -> Result<Vec<Interface>> {
        let failed = |what, error| Error::generic(format!("failed to list {what}: {}", errno::describe(error)));
        let links = netlink::links().map_err(|error| failed("network interfaces", error))?;
        let addresses = netlink::addresses().map_err(|error| failed("network addresses", error))?;
        // Without the file, interfaces have no statistics.
        let statistics = guest.root.read(STATISTICS).unwrap_or_default();
        Ok(interfaces(&links, &addresses, &statistics, &guest.interfaces_exclude))
    }
}

impl Run for GetRoute {
    fn run(self, guest: &Guest) -> Result<Vec<Route>> {
        routes(&guest.root)
    }
}

fn interfaces(links: &[Link], addresses: &[Address], statistics: &[u8], exclude: &Globs) -> Vec<Interface> {
    let links: Vec<_> = links.iter().filter(|link| !exclude.matches(&link.name)).collect();
    let by_index: HashMap<u32, &Link> = links.iter().map(|link| (link.index, *link)).collect();
    let mut positions: HashMap<&[u8], usize> = HashMap::new();
    let mut interfaces = Vec::new();
    for link in links {
        positions.entry(&link.name).or_insert_with(|| add_interface(&mut interfaces, &link.name, link));
    }
    for address in addresses {
        let Some(link) = by_index.get(&address.link) else { continue };
        let name = address.label.as_deref().unwrap_or(&link.name);
        if exclude.matches(name) {
            continue;
        }
        let position = *positions.entry(name).or_insert_with(|| add_interface(&mut interfaces, name, link));
        interfaces[position].ip_addresses.get_or_insert_default().push(ip_address(address));
    }
    for (name, statistics) in kernel::interfaces(statistics) {
        if let Some(interface) = positions.get(name).map(|position| &mut interfaces[*position]) {
            interface.statistics = interface.ip_addresses.is_some().then_some(statistics);
        }
    }
    interfaces
}

/// Adds an interface without addresses, and returns its position.
fn add_interface(interfaces: &mut Vec<Interface>, name: &[u8], link: &Link) -> usize {
    interfaces.push(Interface {
        name: String::from_utf8_lossy(name).into_owned(),
        hardware_address: Some(format_hardware_address(&link.hardware_address)),
        ..Interface::default()
    });
    interfaces.len() - 1
}

fn format_hardware_address(address: &[u8]) -> String {
    let zeros = std::iter::repeat(&0);
    let bytes = address.iter().chain(zeros).take(HARDWARE_ADDRESS_BYTES).map(|byte| format!("{byte:02x}"));
    bytes.collect::<Vec<_>>().join(":")
}

fn ip_address(address: &Address) -> IpAddress {
    IpAddress {
        ip_address: match address.address {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format_ipv6(address),
        },
        ip_address_type: match address.address {
            IpAddr::V4(_) => IpAddressType::Ipv4,
            IpAddr::V6(_) => IpAddressType::Ipv6,
        },
        prefix: address.prefix.into(),
    }
}

/// Formats as the C library does: an IPv4-compatible address ends in dotted decimals.
fn format_ipv6(address: Ipv6Addr) -> String {
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 1..=u16::MAX, _] => {
            let [.., a, b, c, d] = address.octets();
            format!("::{}", Ipv4Addr::new(a, b, c, d))
        }
        _ => address.to_string(),
    }
}

fn routes(root: &Root) -> Result<Vec<Route>> {
    let mut routes = Vec::new();
    for (path, read_route) in [(IPV4_ROUTES, ipv4_route as fn(&[u8]) -> Option<Route>), (IPV6_ROUTES, ipv6_route)] {
        match root.read(path) {
            Ok(contents) => routes.extend(contents.split(|byte| *byte == b'\n').filter_map(read_route)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(errno::could_not_open(path, error)),
        }
    }
    Ok(routes)
}

/// A line of `/proc/net/route`. The line with the column names is not a route.
fn ipv4_route(line: &[u8]) -> Option<Route> {
    let columns: Vec<_> = fields(line).collect();
    let [iface, destination, gateway, flags, refcnt, lookups, metric, mask, mtu, window, irtt] = columns[..] else {
        return None;
    };
    let address = |field| {
        let bits = u32::try_from(number(field, 16)?).ok()?;
        // The kernel prints the bytes as they lie in memory as one number.
        Some(Ipv4Addr::from(bits.to_ne_bytes()).to_string())
    };
    Some(Route {
        iface: String::from_utf8_lossy(iface).into_owned(),
        destination: address(destination)?,
        metric: unsigned(metric)?,
        gateway: Some(address(gateway)?),
        mask: Some(address(mask)?),
        irtt: Some(unsigned(irtt)?),
        flags: Some(i64::try_from(number(flags, 16)?).ok()?),
        refcnt: Some(unsigned(refcnt)?),
        lookups: Some(unsigned(lookups)?),
        window: Some(unsigned(window)?),
        mtu: Some(unsigned(mtu)?),
        version: 4,
        ..Route::default()
    })
}

/// A line of `/proc/net/ipv6_route`, in which all numbers are hexadecimal.
fn ipv6_route(line: &[u8]) -> Option<Route> {
    let columns: Vec<_> = fields(line).collect();
    let [destination, length, source, source_length, nexthop, metric, refcnt, lookups, flags, iface] = columns[..]
    else {
        return None;
    };
    let address = |field| {
        let bits = u128::from_str_radix(str::from_utf8(field).ok()?, 16).ok()?;
        Some(format_ipv6(Ipv6Addr::from_bits(bits)))
    };
    let hexadecimal = |field| u32::try_from(number(field, 16)?).ok().map(i64::from);
    Some(Route {
        iface: String::from_utf8_lossy(iface).into_owned(),
        destination: address(destination)?,
        metric: hexadecimal(metric)?,
        desprefixlen: Some(number(length, 16)?.to_string()),
        source: Some(address(source)?),
        srcprefixlen: Some(number(source_length, 16)?.to_string()),
        nexthop: Some(address(nexthop)?),
        flags: Some(hexadecimal(flags)?),
        refcnt: Some(hexadecimal(refcnt)?),
        lookups: Some(hexadecimal(lookups)?),
        version: 6,
        ..Route::default()
    })
}

fn fields(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(u8::is_ascii_whitespace).filter(|field| !field.is_empty())
}

fn number(field: &[u8], radix: u32) -> Option<u64> {
    u64::from_str_radix(str::from_utf8(field).ok()?, radix).ok()
}

/// An unsigned 32-bit number, which the kernel may have printed as a signed one.
fn unsigned(field: &[u8]) -> Option<i64> {
    let printed: i64 = str::from_utf8(field).ok()?.parse().ok()?;
    match i32::try_from(printed) {
        Ok(printed) => Some(printed.cast_unsigned().into()),
        Err(_) => u32::try_from(printed).ok().map(Into::into),
    }
}

#[cfg(test)]
mod tests;
