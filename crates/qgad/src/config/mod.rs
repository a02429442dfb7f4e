//! The configuration: defaults, then the configuration file, then the command line.
//!
//! [`settings`] defines every setting once; [`values`] has the formats of their values; [`file`] and [`options`] are
//! the two sources. Raw text becomes validated settings here, once; code that uses a setting checks nothing again.

pub(crate) mod file;
pub(crate) mod options;
pub(crate) mod settings;
pub(crate) mod values;
