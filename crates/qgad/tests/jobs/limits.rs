//! What hosts can start and hold is bounded.

use qga::commands::job::{Job, JobForget, JobStart, STREAM_BYTES};

use super::{
    list, read, read_to_end, read_until, shell, signal, start, start_shell,
    support::{Agent, deadline, resident, wait_for},
};

/// Most running and most ended jobs, as in README.md.
const MAX_RUNNING: usize = 128;
const MAX_ENDED: usize = 1024;
/// Most output that all jobs keep, and what each stream may keep whatever the others do.
const MAX_KEPT_BYTES: usize = 64 * 1024 * 1024;
const RESERVED_BYTES: usize = 64 * 1024;

#[test]
fn a_program_whose_output_nobody_reads_waits_and_takes_no_memory() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let id = start_shell(&mut client, "cat /dev/zero");
    let full = i64::try_from(STREAM_BYTES).unwrap();
    // Behind an offset, so that bytes of an earlier fill do not count.
    let fill_behind = |client: &mut _, offset| {
        wait_for("the buffer is full", || {
            let job = &list(client)[0];
            (job.out_begin == offset && job.out_end == offset + full).then_some(())
        });
    };
    fill_behind(&mut client, 0);
    let mut offset = 0;
    for _ in 0..20 {
        let output = read(&mut client, id, offset, super::LONG).unwrap();
        assert!(output.out_offset > offset);
        offset = output.out_offset;
    }
    read(&mut client, id, offset, super::LONG).unwrap();
    fill_behind(&mut client, offset);
    assert!(resident(agent.supervisor().unwrap()) < 16 * 1024);
    signal(&mut client, id, "KILL").unwrap();
}

#[test]
fn all_jobs_together_keep_so_much_output_and_each_a_little() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let ids: Vec<_> =
        (0..MAX_KEPT_BYTES / STREAM_BYTES + 4).map(|_| start_shell(&mut client, "cat /dev/zero")).collect();
    let kept = |job: &Job| usize::try_from(job.out_end - job.out_begin).unwrap();
    wait_for("there is no more room", || {
        let jobs = list(&mut client);
        let is_full = jobs.iter().map(kept).sum::<usize>() >= MAX_KEPT_BYTES;
        (is_full && jobs.iter().all(|job| kept(job) >= RESERVED_BYTES)).then_some(())
    });
    assert!(resident(agent.supervisor().unwrap()) < 100 * 1024);
    let late = start_shell(&mut client, "echo late; read line");
    assert_eq!(read_until(&mut client, late, 0, "late\n"), 5);
    for id in ids {
        signal(&mut client, id, "KILL").unwrap();
    }
}

#[test]
fn only_so_many_jobs_run_at_once() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let ids: Vec<_> = (0..MAX_RUNNING).map(|_| start_shell(&mut client, "read line")).collect();
    let refused = start(&mut client, &shell("true"));
    assert_eq!(refused, Err(format!("failed to start /bin/sh: {MAX_RUNNING} jobs are running already")));
    signal(&mut client, ids[0], "KILL").unwrap();
    read_to_end(&mut client, ids[0], 0);
    start_shell(&mut client, "true");
}

#[test]
fn jobs_that_nobody_asks_about_are_forgotten_when_there_are_too_many() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let job = JobStart { path: Some("/bin/true".into()), ..JobStart::default() };
    let ids: Vec<_> = (0..MAX_ENDED + 200).map(|_| start(&mut client, &job).unwrap().id).collect();
    wait_for("the oldest are forgotten", || (list(&mut client).len() <= MAX_ENDED).then_some(()));
    assert!(list(&mut client).iter().any(|job| job.id == ids[ids.len() - 1]));
    assert!(list(&mut client).iter().all(|job| job.id != ids[0]));
    let is_over = client.call(&JobForget { id: ids[0] }, deadline()).is_err();
    assert!(is_over);
}
