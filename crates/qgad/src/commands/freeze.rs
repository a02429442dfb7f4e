//! Freezing file systems.
//!
//! These commands only check their arguments; `crate::freeze` does the work.

use std::time::Duration;

use qga::{
    Command,
    commands::freeze::{Freeze, FreezeList, FreezeState, FreezeStatus, MAX_LEASE_SECONDS, Thaw},
    wire::message::Error,
};

use super::{Result, Run};
use crate::{guest::Guest, logging::audit};

impl Run for FreezeStatus {
    fn run(self, guest: &Guest) -> Result<FreezeState> {
        guest.freezer.state()
    }
}

impl Run for Freeze {
    fn run(self, guest: &Guest) -> Result<i64> {
        guest.freezer.freeze(Self::SPEC.name, None, lease(self.lease)?)
    }
}

impl Run for FreezeList {
    fn run(self, guest: &Guest) -> Result<i64> {
        guest.freezer.freeze(Self::SPEC.name, self.mountpoints.as_deref(), lease(self.lease)?)
    }

    fn audit_subject(&self) -> Option<String> {
        self.mountpoints
            .as_ref()
            .map(|mountpoints| audit::list(mountpoints.iter().map(|mountpoint| audit::path(mountpoint))))
    }
}

impl Run for Thaw {
    fn run(self, guest: &Guest) -> Result<i64> {
        guest.freezer.thaw()
    }
}

fn lease(seconds: Option<i64>) -> Result<Option<Duration>> {
    let Some(seconds) = seconds else { return Ok(None) };
    match u64::try_from(seconds) {
        Ok(wanted) if (1..=MAX_LEASE_SECONDS).contains(&seconds) => Ok(Some(Duration::from_secs(wanted))),
        _ => Err(Error::generic(format!("Parameter 'lease' must be a number from 1 to {MAX_LEASE_SECONDS}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_limited_to_a_day() {
        assert_eq!(lease(None), Ok(None));
        assert_eq!(lease(Some(1)), Ok(Some(Duration::from_secs(1))));
        for seconds in [0, -1, 86_401, i64::MAX, i64::MIN] {
            let error = lease(Some(seconds)).unwrap_err();
            assert_eq!(error.desc, "Parameter 'lease' must be a number from 1 to 86400");
        }
    }
}
