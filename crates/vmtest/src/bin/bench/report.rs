//! The table, and the machine it holds for.

use std::{fmt::Write, fs};

use anyhow::Context;

use super::{
    agent::Binary,
    cases::{Row, Target},
};

/// The report as Markdown.
pub(crate) fn format_report(rows: &[Row], ours: &Binary, theirs: &Binary) -> anyhow::Result<String> {
    let mut text = String::from("# Benchmarks\n\n");
    writeln!(text, "{}\n", machine()?)?;
    writeln!(
        text,
        "\"ours\" is {}, \"theirs\" {}. One client on a unix socket, lower quartiles of samples taken in turns; \
         `make bench` writes this page. A ratio is our figure to theirs, or to the floor's where the target is about \
         that: a server that does nothing but answer.\n",
        ours.version()?,
        theirs.version()?,
    )?;
    text.push_str("| What | Unit | Ours | Theirs | Floor | Ratio | Target | Met |\n");
    text.push_str("|---|---|--:|--:|--:|--:|---|---|\n");
    for row in rows {
        let floor = row.floor.map_or_else(String::new, format_figure);
        let (ratio, target, is_met) = judge(row);
        writeln!(
            text,
            "| {} | {} | {} | {} | {floor} | {ratio} | {target} | {is_met} |",
            row.what,
            row.unit,
            format_figure(row.ours),
            format_figure(row.theirs),
        )?;
    }
    text.push_str(include_str!("bounds.md"));
    Ok(text)
}

fn judge(row: &Row) -> (String, String, &'static str) {
    let verdict = |is_met: bool| if is_met { "yes" } else { "no" };
    let ratio = row.ours / row.theirs;
    let formatted = if ratio.is_finite() { format!("{ratio:.2}") } else { String::new() };
    match row.target {
        Target::AtLeast(factor) => (formatted, format!("≥ {factor} × theirs"), verdict(ratio >= factor)),
        Target::AtMost(factor) => (formatted, format!("≤ {factor} × theirs"), verdict(ratio <= factor)),
        Target::FloorTimes(factor) => {
            let ratio = row.ours / row.floor.unwrap_or(f64::NAN);
            (format!("{ratio:.2}"), format!("≤ {factor} × floor"), verdict(ratio <= factor))
        }
        Target::Absolute(most) => (formatted, format!("≤ {most}"), verdict(row.ours <= most)),
        Target::None => (formatted, String::new(), ""),
    }
}

fn format_figure(figure: f64) -> String {
    if figure.is_nan() {
        return String::new();
    }
    if figure == 0.0 || figure >= 100.0 { format!("{figure:.0}") } else { format!("{figure:.1}") }
}

fn machine() -> anyhow::Result<String> {
    let processors = fs::read_to_string("/proc/cpuinfo").context("the kernel tells nothing of its processors")?;
    let model = processors.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let count = processors.lines().filter(|line| line.starts_with("processor")).count();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    Ok(format!(
        "Measured on {count} × {}, Linux {}.",
        model.map_or("processors of an unknown model", |(_, model)| model.trim()),
        kernel.trim(),
    ))
}
