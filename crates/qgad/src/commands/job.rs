//! Jobs: programs that a host talks to while they run.

use qga::{
    commands::{
        job::{
            AcceptedInput, Job, JobForget, JobList, JobOutput, JobRead, JobResize, JobSignal, JobStart, JobWrite,
            StartedJob,
        },
        session::Nothing,
    },
    wire::message::Error,
};

use super::{Result, Run};
use crate::guest::Guest;

impl Run for JobStart {
    fn run(self, _: &Guest) -> Result<StartedJob> {
        Err(Error::generic("jobs cannot be started yet"))
    }
}

impl Run for JobRead {
    fn run(self, _: &Guest) -> Result<JobOutput> {
        Err(no_job(self.id))
    }
}

impl Run for JobWrite {
    fn run(self, _: &Guest) -> Result<AcceptedInput> {
        Err(no_job(self.id))
    }
}

impl Run for JobSignal {
    fn run(self, _: &Guest) -> Result<Nothing> {
        Err(no_job(self.id))
    }
}

impl Run for JobResize {
    fn run(self, _: &Guest) -> Result<Nothing> {
        Err(no_job(self.id))
    }
}

impl Run for JobList {
    fn run(self, _: &Guest) -> Result<Vec<Job>> {
        Ok(Vec::new())
    }
}

impl Run for JobForget {
    fn run(self, _: &Guest) -> Result<Nothing> {
        Err(no_job(self.id))
    }
}

fn no_job(id: i64) -> Error {
    Error::generic(format!("job {id} does not exist"))
}
