//! Other processes: starting them, running helper programs to their end, and the programs and jobs that hosts start.

pub(crate) mod descriptor_passing;
pub(crate) mod helper;
pub(crate) mod helpers;
pub(crate) mod jobs;
pub(crate) mod local_socket;
pub(crate) mod programs;
pub(crate) mod spawn;
