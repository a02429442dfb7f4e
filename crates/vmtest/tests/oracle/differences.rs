//! The list of known differences, `oracle/differences.txt`.
//!
//! ```text
//! == the_input's_name
//! reason    why we differ
//! qemu-ga   a line of its answer
//! qgad      a line of ours
//! ```

use std::{fmt, path::Path};

use anyhow::{Context, Result};

use crate::answer::Answer;

/// What the list begins with.
const HEAD: &str = "\
Where qgad answers otherwise than Debian's qemu-ga 7.2, and why. R and a number is a ruling in ARCHITECTURE.md.
Answers are as the tests compare them: members sorted, runs of equal lines counted, long lines cut, and of what a start
prints only the lines that one has and the other has not.
Written anew, reasons kept, by `UPDATE_ORACLE=1 cargo test -p vmtest --test oracle`.
";

/// One input that is answered differently.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Difference {
    pub(crate) input: String,
    pub(crate) reason: String,
    pub(crate) theirs: Answer,
    pub(crate) ours: Answer,
}

#[derive(Debug)]
pub(crate) struct Differences(Vec<Difference>);

impl Differences {
    pub(crate) fn new(differences: Vec<Difference>) -> Self {
        Self(differences)
    }

    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("failed to read {}", path.display()))?;
        let mut differences: Vec<Difference> = Vec::new();
        for line in text.lines() {
            if let Some(input) = line.strip_prefix("== ") {
                differences.push(Difference { input: input.into(), ..Difference::default() });
            } else if let Some(difference) = differences.last_mut() {
                match line.split_at_checked(WIDTH) {
                    Some(("reason    ", reason)) => difference.reason = reason.into(),
                    Some(("qemu-ga   ", answer)) => difference.theirs.push(answer.into()),
                    Some(("qgad      ", answer)) => difference.ours.push(answer.into()),
                    _ => {}
                }
            }
        }
        Ok(Self(differences))
    }

    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let list: String = self.0.iter().map(|difference| format!("\n{difference}")).collect();
        std::fs::write(path, format!("{HEAD}{list}")).with_context(|| format!("failed to write {}", path.display()))
    }

    pub(crate) fn of(&self, input: &str) -> Option<&Difference> {
        self.0.iter().find(|difference| difference.input == input)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Difference> {
        self.0.iter()
    }
}

/// Where answers begin.
const WIDTH: usize = 10;

impl fmt::Display for Difference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "== {}", self.input)?;
        writeln!(formatter, "{:WIDTH$}{}", "reason", self.reason)?;
        for (agent, answer) in [("qemu-ga", &self.theirs), ("qgad", &self.ours)] {
            for line in answer {
                writeln!(formatter, "{agent:WIDTH$}{line}")?;
            }
        }
        Ok(())
    }
}
