//! The agent on Debian, installed as a package would install it.
//!
//! A boot takes long there, so that each case looks at several things, one after another.

mod accounts;
mod package;
mod power;
mod service;
mod terminal;
mod tool;

use crate::Case;

/// Every case on Debian by its name.
pub(crate) const ALL: &[(&str, Case)] = &[
    ("debian_runs_the_agent_as_its_unit_says", service::runs_as_its_unit_says),
    ("debian_sleeps_and_wakes_and_restarts", power::sleeps_and_wakes),
    ("debian_accounts_and_the_clock_are_looked_after_until_it_halts", accounts::are_looked_after),
];

/// Every case on Debian in which the agent is there as a package only.
pub(crate) const WITH_A_PACKAGE: &[(&str, Case)] =
    &[("debian_packages_replace_each_other_and_keep_a_freeze", package::replaces_the_reference)];
