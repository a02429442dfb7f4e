//! The agent on Debian, installed as a package would install it.
//!
//! A boot takes long there, so that each case looks at several things, one after another.

mod service;

use crate::Case;

/// Every case on Debian by its name.
pub(crate) const ALL: &[(&str, Case)] = &[("debian_runs_the_agent_as_its_unit_says", service::runs_as_its_unit_says)];
