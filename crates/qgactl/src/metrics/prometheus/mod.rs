//! Figures in the text format of Prometheus, with names and units as OpenMetrics has them.
//!
//! The samples of a family stand together, whichever machine they are of, and no series is there twice: a scrape with
//! two samples of one series is refused whole, and a guest may send anything. In a label, control characters are
//! replaced and a long text is cut. What is not known has no sample; of a machine that does not answer there is
//! `guest_up 0` and nothing else. The names are stable: dashboards and alerts refer to them.

mod families;

use std::{
    collections::HashSet,
    fmt::{Display, Write},
};

use self::families::FAMILIES;
use super::Machine;

/// Longest label: no name of a device or mount point that a person gave is longer.
const MAX_LABEL_CHARACTERS: usize = 256;

/// A metric: what is reported under one name.
struct Family {
    name: &'static str,
    kind: Kind,
    help: &'static str,
    /// Adds the samples of a machine.
    add: fn(&Machine, &mut Samples<'_>),
}

/// Whether a value only grows, until the guest is booted again.
#[derive(Clone, Copy)]
enum Kind {
    Counter,
    Gauge,
}

/// The samples of a family.
struct Samples<'a> {
    family: &'static str,
    machine: &'a str,
    series: HashSet<String>,
    text: String,
}

/// All that is known of these machines.
pub(crate) fn exposition(machines: &[Machine]) -> String {
    let mut text = String::new();
    for family in FAMILIES {
        let mut samples = Samples { family: family.name, machine: "", series: HashSet::new(), text: String::new() };
        for machine in machines {
            samples.machine = &machine.name;
            (family.add)(machine, &mut samples);
        }
        if !samples.text.is_empty() {
            let kind = match family.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
            };
            let Family { name, help, .. } = family;
            let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{}", samples.text);
        }
    }
    text
}

impl Samples<'_> {
    /// Adds a value, if it is known. The machine is a label of its own.
    fn add(&mut self, labels: &[(&str, &str)], value: Option<impl Display>) {
        let Some(value) = value else { return };
        let mut series = format!("{}{{machine=\"{}\"", self.family, label(self.machine));
        for (name, value) in labels {
            let _ = write!(series, ",{name}=\"{}\"", label(value));
        }
        series.push('}');
        if !self.series.contains(&series) {
            let _ = writeln!(self.text, "{series} {value}");
            self.series.insert(series);
        }
    }
}

/// The text of a label between its quotes.
fn label(text: &str) -> String {
    let mut escaped = String::new();
    for character in text.chars().take(MAX_LABEL_CHARACTERS) {
        match character {
            '\\' => escaped += "\\\\",
            '"' => escaped += "\\\"",
            control if control.is_control() => escaped.push(char::REPLACEMENT_CHARACTER),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests;
