//! Network interfaces and routes, as the guest's kernel has them.

use serde::{Deserialize, Serialize};

use crate::command::{Class, Command, Spec};

/// Lists the network interfaces, in the kernel's order, then the labels of IPv4 addresses that name no interface.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct GetInterfaces {}

impl Command for GetInterfaces {
    const SPEC: Spec = Spec::new("guest-network-get-interfaces", Class::Query);
    type Reply = Vec<Interface>;
}

/// A network interface, or a label such as `eth0:1` under which an interface has further IPv4 addresses.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub struct Interface {
    /// Its name: `eth0`.
    pub name: String,
    /// The first six bytes of its link-level address, in hexadecimal: `52:54:00:12:34:56`. Zeros when it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hardware_address: Option<String>,
    /// Its addresses; absent when it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_addresses: Option<Vec<IpAddress>>,
    /// What it has carried; absent when it has no address, and for a label.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub statistics: Option<InterfaceStatistics>,
}

/// An address of an interface.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub struct IpAddress {
    /// The address, without scope.
    pub ip_address: String,
    /// Its kind.
    pub ip_address_type: IpAddressType,
    /// How many leading bits are the network's.
    pub prefix: i64,
}

/// The kind of an address.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum IpAddressType {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

/// What an interface has carried since it exists.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub struct InterfaceStatistics {
    /// Bytes received.
    pub rx_bytes: u64,
    /// Packets received.
    pub rx_packets: u64,
    /// Errors in receiving.
    pub rx_errs: u64,
    /// Packets dropped in receiving.
    pub rx_dropped: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Errors in sending.
    pub tx_errs: u64,
    /// Packets dropped in sending.
    pub tx_dropped: u64,
}

/// Lists the routes: those of IPv4, then those of IPv6, each in the kernel's order.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct GetRoute {}

impl Command for GetRoute {
    const SPEC: Spec = Spec::new("guest-network-get-route", Class::Query);
    type Reply = Vec<Route>;
}

/// A route. Which members it has depends on `version`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub struct Route {
    /// The interface that packets leave through.
    pub iface: String,
    /// The network that is reached; all zeros for the default route.
    pub destination: String,
    /// Its cost: of two routes to one destination, the kernel takes the one with the smaller metric.
    pub metric: i64,
    /// IPv4: the router; all zeros when the network is attached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    /// IPv4: which bits of the destination count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mask: Option<String>,
    /// IPv4: a first estimate of the round trip, in milliseconds; 0 when none is set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub irtt: Option<i64>,
    /// The kernel's flags: 1 up, 2 through a router, 4 to one host; further ones in `linux/route.h`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flags: Option<i64>,
    /// Its reference count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refcnt: Option<i64>,
    /// How often it was looked up.
    #[serde(rename = "use", skip_serializing_if = "Option::is_none")]
    pub lookups: Option<i64>,
    /// IPv4: the window for TCP, in bytes; 0 when none is set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<i64>,
    /// IPv4: the largest packet, in bytes; 0 when none is set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<i64>,
    /// IPv6: how many leading bits of the destination count, as a decimal string.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub desprefixlen: Option<String>,
    /// IPv6: the network that packets must come from; all zeros for any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// IPv6: how many leading bits of the source count, as a decimal string.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub srcprefixlen: Option<String>,
    /// IPv6: the router; all zeros when the network is attached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nexthop: Option<String>,
    /// 4 or 6.
    pub version: i64,
}
