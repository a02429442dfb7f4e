//! `qgactl stats`: how busy the guest is.

use clap::Args;
use qga::{
    Command,
    client::Error,
    commands::cpu::{CpuStats, GetCpustats, GetLoad, Load},
};

use super::{AgentSubcommand, call, print};
use crate::{connect::Agent, failure::Failure, table::table};

/// Show the guest's load average, and how its processors have spent their time
#[derive(Args, Debug)]
pub(crate) struct Stats {}

impl AgentSubcommand for Stats {
    const HAS_JSON: bool = true;

    fn run_with(&self, agent: &mut Agent, json: bool) -> anyhow::Result<()> {
        if json {
            return call::print_received(agent, GetCpustats::SPEC.name);
        }
        // Agents before qemu-ga 10.0 do not know it.
        let load = match agent.call(&GetLoad {}) {
            Err(Failure::Command { error: Error::Refused { .. }, .. }) => None,
            load => Some(load?),
        };
        print(&describe(load, &agent.call(&GetCpustats {})?))
    }
}

fn describe(load: Option<Load>, processors: &[CpuStats]) -> String {
    let mut text = String::new();
    if let Some(Load { load1m, load5m, load15m }) = load {
        text += &format!("load {load1m:.2} {load5m:.2} {load15m:.2}, over 1, 5 and 15 minutes\n\n");
    }
    let rows: Vec<_> = processors
        .iter()
        .map(|processor| {
            // Guests' time is counted in that of programs, too.
            let times = [
                Some(processor.user),
                Some(processor.nice),
                Some(processor.system),
                Some(processor.idle),
                processor.iowait,
                processor.irq,
                processor.softirq,
                processor.steal,
            ];
            let total: u128 = times.iter().flatten().map(|time| u128::from(*time)).sum();
            let share = |time: u64| match (u128::from(time) * 1000).checked_div(total) {
                Some(permille) => format!("{}.{}%", permille / 10, permille % 10),
                None => "-".into(),
            };
            let shares = times.iter().map(|time| time.map_or_else(|| "-".into(), share));
            [processor.cpu.to_string()].into_iter().chain(shares).collect()
        })
        .collect();
    let heads = [">processor", ">user", ">nice", ">system", ">idle", ">iowait", ">irq", ">softirq", ">steal"];
    text + &table(&heads, &rows)
}

#[cfg(test)]
mod tests {
    use qga::commands::cpu::CpuStatsType;

    use super::*;

    #[test]
    fn shares_are_of_the_time_since_the_boot() {
        let processor = CpuStats {
            kind: CpuStatsType::Linux,
            cpu: 3,
            user: 125,
            nice: 0,
            system: 375,
            idle: 500,
            iowait: Some(0),
            irq: None,
            softirq: None,
            steal: None,
            guest: Some(125),
            guestnice: None,
        };
        let expected = "\
load 0.50 1.00 12.25, over 1, 5 and 15 minutes

processor   user  nice  system   idle  iowait  irq  softirq  steal
        3  12.5%  0.0%   37.5%  50.0%    0.0%    -        -      -
";
        assert_eq!(describe(Some(Load { load1m: 0.5, load5m: 1.0, load15m: 12.25 }), &[processor]), expected);
        assert_eq!(describe(None, &[]), "processor  user  nice  system  idle  iowait  irq  softirq  steal\n");
    }
}
