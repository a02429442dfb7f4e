//! `qgactl metrics`: the figures that monitoring needs, of one machine or of several.

use std::process::ExitCode;

use clap::Args;
use indicatif::{BinaryBytes, HumanDuration};
use qga::commands::metrics::{MemoryMetrics, Metrics, Pressure};
use serde_json::{Value, json};

use super::{Options, Subcommand, print};
use crate::{
    connect::Target,
    failure::{self, Failure},
    metrics::{self, Figures, Machine, prometheus},
    table::table,
};

/// Show memory, load, pressure, the fullest file system and the state of each machine
///
/// With --json, one array with an object for each machine: its name, whether it is up, and all that is known of it,
/// with the members of qgad-get-metrics. Each machine has 10 seconds to answer, unless --timeout says otherwise. If the
/// agent is qemu-ga, the figures come from its own commands and from files in /proc.
#[derive(Args, Debug)]
pub(crate) struct MetricsCommand {
    /// Print everything in the text format of Prometheus. A machine that does not answer is `guest_up 0`, no failure
    #[arg(long)]
    prometheus: bool,
}

impl Subcommand for MetricsCommand {
    fn has_json(&self) -> bool {
        !self.prometheus
    }

    fn run(&self, options: &Options<'_>) -> anyhow::Result<ExitCode> {
        let machines = ask(options)?;
        print(&match (self.prometheus, options.json) {
            (true, _) => prometheus::exposition(&machines),
            (_, true) => format!("{}\n", Value::Array(machines.iter().map(to_json).collect())),
            _ => overview(&machines),
        })?;
        let mut status = ExitCode::SUCCESS;
        for failure in machines.into_iter().filter_map(|machine| machine.figures.err()) {
            let failure = failure.into();
            failure::print(&failure);
            if !self.prometheus {
                status = failure::status(&failure).into();
            }
        }
        Ok(status)
    }
}

/// Asks the machines that the command line names, all at once.
fn ask(options: &Options<'_>) -> Result<Vec<Machine>, Failure> {
    let timeout = options.timeout.unwrap_or(metrics::TIMEOUT);
    let Some(several) = options.target.several()? else {
        return Ok(metrics::ask_all(&[(options.target.label(), options.target)], timeout));
    };
    let selected: Vec<_> = several.into_iter().map(Target::of_selected).collect();
    let reachable = selected.iter().filter_map(|(name, target)| Some((name.clone(), target.as_ref().ok()?)));
    let mut machines = metrics::ask_all(&reachable.collect::<Vec<_>>(), timeout);
    let unreachable = selected.into_iter().filter_map(|(name, target)| Some((name, target.err()?)));
    machines.extend(unreachable.map(|(name, failure)| Machine { name, figures: Err(failure) }));
    machines.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(machines)
}

fn to_json(machine: &Machine) -> Value {
    match &machine.figures {
        Ok(Figures { metrics, is_frozen }) => {
            let mut known = json!({"machine": machine.name, "up": true, "metrics": metrics});
            if let Some(is_frozen) = is_frozen {
                known["frozen"] = (*is_frozen).into();
            }
            known
        }
        Err(failure) => json!({"machine": machine.name, "up": false, "error": failure.to_string()}),
    }
}

/// One row for each machine.
fn overview(machines: &[Machine]) -> String {
    let rows: Vec<Vec<String>> = machines
        .iter()
        .map(|machine| match &machine.figures {
            Ok(figures) => row(&machine.name, figures),
            Err(_) => vec![machine.name.clone(), "no answer".into()],
        })
        .collect();
    table(&["machine", "state", "up for", ">load", "memory in use", "swap", "pressure", "fullest file system"], &rows)
}

fn row(name: &str, figures: &Figures) -> Vec<String> {
    let unknown = || String::from("-");
    let Metrics { uptime, load, memory, pressure, .. } = &figures.metrics;
    let MemoryMetrics { total, available, swap_total, swap_free, .. } = memory.clone().unwrap_or_default();
    let waiting = |pressure: &Option<Pressure>| {
        let percent = pressure.as_ref().and_then(|one| one.some.as_ref()?.avg10);
        percent.map_or_else(unknown, |percent| format!("{percent:.1}"))
    };
    vec![
        name.into(),
        match (figures.is_frozen, figures.metrics.agent.as_ref().and_then(|agent| agent.frozen_for)) {
            (Some(true), Some(seconds)) => format!("frozen for {seconds:.0} s"),
            (Some(true), None) => "frozen".into(),
            (Some(false) | None, _) => "up".into(),
        },
        uptime.and_then(duration).unwrap_or_else(unknown),
        load.map_or_else(unknown, |load| format!("{:.2}", load.load1m)),
        total.zip(available).map_or_else(unknown, |(total, available)| in_use(total, available)),
        swap_total
            .zip(swap_free)
            .map_or_else(unknown, |(total, free)| if total == 0 { unknown() } else { in_use(total, free) }),
        pressure.as_ref().map_or_else(unknown, |one| {
            format!("cpu {} memory {} io {}", waiting(&one.cpu), waiting(&one.memory), waiting(&one.io))
        }),
        fullest(&figures.metrics).unwrap_or_else(unknown),
    ]
}

fn duration(seconds: f64) -> Option<String> {
    Some(HumanDuration(std::time::Duration::try_from_secs_f64(seconds).ok()?).to_string())
}

fn in_use(total: u64, free: u64) -> String {
    format!("{} of {}", share(total.saturating_sub(free), total), BinaryBytes(total))
}

/// The one with the smallest share that is free for all users.
fn fullest(metrics: &Metrics) -> Option<String> {
    let used =
        |one: &&qga::commands::metrics::FileSystemMetrics| permille(one.used, one.used.saturating_add(one.available));
    let fullest = metrics.file_systems.iter().flatten().max_by_key(used)?;
    Some(format!("{} {}", fullest.mountpoint, share(fullest.used, fullest.used.saturating_add(fullest.available))))
}

fn permille(used: u64, total: u64) -> u128 {
    u128::from(used) * 1000 / u128::from(total.max(1))
}

/// In percent, rounded up as df(1) does.
fn share(used: u64, total: u64) -> String {
    let percent = (u128::from(used) * 100).div_ceil(u128::from(total.max(1)));
    format!("{percent} %")
}
