//! `qgactl trim`: returns to the host the storage that the guest's file systems do not use.

use clap::{Args, value_parser};
use indicatif::BinaryBytes;
use qga::commands::storage::{Fstrim, TrimReport};

use super::{AgentSubcommand, call, print};
use crate::{connect::Agent, table::table};

/// Discard the unused blocks of the guest's file systems, so that the host can reuse them
#[derive(Args, Debug)]
pub(crate) struct Trim {
    /// Skip free extents smaller than this
    #[arg(long, value_name = "BYTES", value_parser = value_parser!(i64).range(0..))]
    minimum: Option<i64>,
}

impl AgentSubcommand for Trim {
    const HAS_JSON: bool = true;

    fn run_with(&self, agent: &mut Agent, json: bool) -> anyhow::Result<()> {
        let command = Fstrim { minimum: self.minimum };
        if json {
            return call::print_received_of(agent, &command);
        }
        print(&describe(&agent.call(&command)?))
    }
}

/// One row for each file system in the order of mounting: what was trimmed, or the error.
fn describe(report: &TrimReport) -> String {
    // Agents list the last one first.
    let rows = report.paths.iter().rev().map(|one| {
        let size = |bytes: Option<u64>| bytes.map_or_else(|| "-".into(), |bytes| BinaryBytes(bytes).to_string());
        let error = one.error.clone().unwrap_or_default();
        vec![one.path.clone(), size(one.trimmed), size(one.minimum), error]
    });
    table(&["mounted on", ">trimmed", ">minimum", "error"], &rows.collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use qga::commands::storage::TrimmedPath;

    use super::*;

    #[test]
    fn each_file_system_has_what_was_trimmed_or_an_error() {
        let entry = |path: &str, sizes: Option<(u64, u64)>, error: Option<&str>| {
            let (trimmed, minimum) = sizes.unzip();
            TrimmedPath { path: path.into(), trimmed, minimum, error: error.map(Into::into) }
        };
        let paths = vec![entry("/boot", None, Some("trim not supported")), entry("/", Some((3 << 30, 4096)), None)];
        let expected = "\
mounted on   trimmed   minimum  error
/           3.00 GiB  4.00 KiB
/boot              -         -  trim not supported
";
        assert_eq!(describe(&TrimReport { paths }), expected);
    }
}
