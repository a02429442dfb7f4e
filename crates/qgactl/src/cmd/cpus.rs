//! `qgactl cpus`: the guest's logical processors, and taking them on and off line.
//!
//! The agent stops at the first processor that it cannot set, and says how many it did. The rest is asked for again, so
//! that the failure comes with its reason.

use anyhow::bail;
use clap::Args;
use qga::{
    Command,
    commands::cpu::{GetVcpus, LogicalProcessor, SetVcpus},
};

use super::{AgentSubcommand, call, print};
use crate::{connect::Agent, table::table};

/// Show the guest's processors, after taking some of them on or off line if asked to
#[derive(Args, Debug)]
pub(crate) struct Cpus {
    /// Take processors on or off line, in the given order
    #[arg(long, value_name = "ID=on|off", num_args = 1.., value_parser = parse_setting)]
    set: Vec<LogicalProcessor>,
}

impl AgentSubcommand for Cpus {
    const HAS_JSON: bool = true;

    fn run_with(&self, agent: &mut Agent, json: bool) -> anyhow::Result<()> {
        set_all(&self.set, |vcpus| Ok(agent.call(&SetVcpus { vcpus: vcpus.to_vec() })?))?;
        if json {
            return call::print_received(agent, GetVcpus::SPEC.name);
        }
        let mut processors = agent.call(&GetVcpus {})?;
        processors.sort();
        print(&describe(&processors))
    }
}

fn set_all(
    mut wanted: &[LogicalProcessor],
    mut set: impl FnMut(&[LogicalProcessor]) -> anyhow::Result<i64>,
) -> anyhow::Result<()> {
    while !wanted.is_empty() {
        let done = usize::try_from(set(wanted)?).unwrap_or(0);
        match wanted.get(done..) {
            Some(rest) if done > 0 => wanted = rest,
            _ => bail!("the agent's answer makes no sense: it set {done} of {} processors", wanted.len()),
        }
    }
    Ok(())
}

fn describe(processors: &[LogicalProcessor]) -> String {
    let rows: Vec<_> = processors
        .iter()
        .map(|processor| {
            let state = if processor.online { "on" } else { "off" };
            let can_offline = match processor.can_offline {
                Some(true) => "yes",
                Some(false) => "no",
                None => "-",
            };
            vec![processor.logical_id.to_string(), state.into(), can_offline.into()]
        })
        .collect();
    table(&[">processor", "line", "can go off line"], &rows)
}

fn parse_setting(text: &str) -> Result<LogicalProcessor, String> {
    let parts = text.split_once('=').and_then(|(id, line)| {
        let online = match line {
            "on" => true,
            "off" => false,
            _ => return None,
        };
        Some(LogicalProcessor { logical_id: id.parse().ok()?, online, can_offline: None })
    });
    parts.ok_or_else(|| "not of the form ID=on or ID=off".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn processor(logical_id: i64, online: bool, can_offline: Option<bool>) -> LogicalProcessor {
        LogicalProcessor { logical_id, online, can_offline }
    }

    #[test]
    fn a_setting_is_a_number_and_a_word() {
        assert_eq!(parse_setting("3=off"), Ok(processor(3, false, None)));
        assert_eq!(parse_setting("0=on"), Ok(processor(0, true, None)));
        for wrong in ["", "3", "=on", "3=", "3=ON", "x=on"] {
            assert!(parse_setting(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_rest_is_asked_for_again_until_all_are_set() {
        let wanted: Vec<_> = (0..5).map(|id| processor(id, true, None)).collect();
        let mut asked = Vec::new();
        let result = set_all(&wanted, |rest| {
            asked.push(rest.len());
            Ok(if rest.len() > 1 { 2 } else { 1 })
        });
        assert!(result.is_ok());
        assert_eq!(asked, [5, 3, 1]);
        set_all(&[], |_| panic!("nothing is to be asked")).unwrap();
    }

    #[test]
    fn a_count_that_cannot_be_is_refused() {
        for count in [0, -1, 3] {
            assert!(set_all(&[processor(1, true, None); 2], |_| Ok(count)).is_err(), "{count}");
        }
    }

    #[test]
    fn each_processor_has_a_row() {
        let expected = "\
processor  line  can go off line
        0  on    no
       12  off   yes
";
        assert_eq!(describe(&[processor(0, true, Some(false)), processor(12, false, Some(true))]), expected);
    }
}
