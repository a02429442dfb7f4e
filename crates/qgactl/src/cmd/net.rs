//! `qgactl net`: the guest's network interfaces.

use clap::Args;
use indicatif::BinaryBytes;
use qga::{
    Command,
    commands::network::{GetInterfaces, Interface},
};

use super::{AgentSubcommand, call, print};
use crate::{connect::Agent, table::table};

/// Show the guest's network interfaces and their addresses
#[derive(Args, Debug)]
pub(crate) struct Net {}

impl AgentSubcommand for Net {
    const HAS_JSON: bool = true;

    fn run_with(&self, agent: &mut Agent, json: bool) -> anyhow::Result<()> {
        if json {
            return call::print_received(agent, GetInterfaces::SPEC.name);
        }
        print(&interfaces(&agent.call(&GetInterfaces {})?))
    }
}

/// One row for each interface, and one for each further address.
fn interfaces(interfaces: &[Interface]) -> String {
    let mut rows = Vec::new();
    for interface in interfaces {
        let mut addresses =
            interface.ip_addresses.iter().flatten().map(|address| format!("{}/{}", address.ip_address, address.prefix));
        let unknown = || "-".to_owned();
        let mut row = vec![
            interface.name.clone(),
            interface.hardware_address.clone().unwrap_or_else(unknown),
            addresses.next().unwrap_or_else(unknown),
        ];
        if let Some(statistics) = &interface.statistics {
            row.push(BinaryBytes(statistics.rx_bytes).to_string());
            row.push(BinaryBytes(statistics.tx_bytes).to_string());
            row.push(sum(statistics.rx_errs, statistics.tx_errs));
            row.push(sum(statistics.rx_dropped, statistics.tx_dropped));
        }
        rows.push(row);
        rows.extend(addresses.map(|address| vec![String::new(), String::new(), address]));
    }
    table(&["interface", "hardware address", "address", ">received", ">sent", ">errors", ">dropped"], &rows)
}

fn sum(received: u64, sent: u64) -> String {
    (u128::from(received) + u128::from(sent)).to_string()
}

#[cfg(test)]
mod tests {
    use qga::commands::network::{InterfaceStatistics, IpAddress, IpAddressType};

    use super::*;

    #[test]
    fn each_interface_and_each_further_address_has_a_row() {
        let address = |ip_address: &str, ip_address_type, prefix| IpAddress {
            ip_address: ip_address.into(),
            ip_address_type,
            prefix,
        };
        let statistics = InterfaceStatistics { rx_bytes: 2048, tx_bytes: 1, rx_errs: 3, ..Default::default() };
        let eth0 = Interface {
            name: "eth0".into(),
            hardware_address: Some("52:54:00:00:00:01".into()),
            ip_addresses: Some(vec![
                address("10.0.2.15", IpAddressType::Ipv4, 24),
                address("fe80::1", IpAddressType::Ipv6, 64),
            ]),
            statistics: Some(statistics),
        };
        let eth1 = Interface { name: "eth1".into(), ..Interface::default() };
        let expected = "\
interface  hardware address   address       received  sent  errors  dropped
eth0       52:54:00:00:00:01  10.0.2.15/24  2.00 KiB   1 B       3        0
                              fe80::1/64
eth1       -                  -
";
        assert_eq!(interfaces(&[eth0, eth1]), expected);
    }

    #[test]
    fn counts_are_whatever_a_guest_says() {
        assert_eq!(sum(u64::MAX, u64::MAX), "36893488147419103230");
    }
}
