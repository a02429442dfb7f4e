//! `qgactl routes`: where the guest sends what it sends.

use clap::Args;
use qga::{
    Command,
    commands::network::{GetRoute, Route},
};

use super::{AgentSubcommand, call, print};
use crate::{connect::Agent, table::table};

/// Show the guest's routes
#[derive(Args, Debug)]
pub(crate) struct Routes {}

impl AgentSubcommand for Routes {
    const HAS_JSON: bool = true;

    fn run_with(&self, agent: &mut Agent, json: bool) -> anyhow::Result<()> {
        if json {
            return call::print_received(agent, GetRoute::SPEC.name);
        }
        print(&routes(&agent.call(&GetRoute {})?))
    }
}

fn routes(routes: &[Route]) -> String {
    let rows: Vec<_> = routes
        .iter()
        .map(|route| {
            let length = match (&route.desprefixlen, &route.mask) {
                (Some(length), _) => format!("/{length}"),
                (None, Some(mask)) => format!("/{}", length_of(mask)),
                (None, None) => String::new(),
            };
            let router = route.gateway.as_ref().or(route.nexthop.as_ref());
            let router = router.filter(|router| !matches!(router.as_str(), "0.0.0.0" | "::"));
            vec![
                format!("{}{length}", route.destination),
                router.map_or("-", String::as_str).to_owned(),
                route.iface.clone(),
                route.metric.to_string(),
            ]
        })
        .collect();
    table(&["destination", "router", "interface", ">metric"], &rows)
}

/// The prefix length of a mask, or the mask itself.
fn length_of(mask: &str) -> String {
    mask.parse::<std::net::Ipv4Addr>().map_or_else(|_| mask.into(), |mask| mask.to_bits().count_ones().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_goes_through_a_router_or_straight() {
        let text = |text: &str| Some(text.to_owned());
        let default = Route {
            iface: "eth0".into(),
            destination: "0.0.0.0".into(),
            gateway: text("192.0.2.1"),
            mask: text("0.0.0.0"),
            metric: 100,
            version: 4,
            ..Route::default()
        };
        let local = Route {
            iface: "eth0".into(),
            destination: "2001:db8::".into(),
            nexthop: text("::"),
            desprefixlen: text("64"),
            metric: 256,
            version: 6,
            ..Route::default()
        };
        let expected = "\
destination    router     interface  metric
0.0.0.0/0      192.0.2.1  eth0          100
2001:db8::/64  -          eth0          256
";
        assert_eq!(routes(&[default, local]), expected);
    }
}
