//! What the agent is told: options and the configuration file, read into settings.
//!
//! Raw text becomes validated settings here, once; whoever uses them checks nothing again.

pub(crate) mod file;
pub(crate) mod options;
pub(crate) mod settings;
