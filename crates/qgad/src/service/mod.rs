//! The agent as a service of the guest: leaving the foreground, telling the service manager, and what outlives the
//! agent.

pub(crate) mod daemon;
pub(crate) mod notify;
pub(crate) mod state;
