//! The agent on Debian, installed as a package would install it.
//!
//! A boot takes long there, so that each case looks at several things, one after another.

mod accounts;
mod power;
mod service;
mod terminal;

use crate::Case;

/// Every case on Debian by its name.
pub(crate) const ALL: &[(&str, Case)] = &[
    ("debian_runs_the_agent_as_its_unit_says", service::runs_as_its_unit_says),
    ("debian_sleeps_and_wakes_and_restarts", power::sleeps_and_wakes),
    ("debian_accounts_and_the_clock_are_looked_after_until_it_halts", accounts::are_looked_after),
];
