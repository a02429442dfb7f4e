//! Helpers that are shell scripts.

use std::path::Path;

use nix::{fcntl::OFlag, sys::stat::Mode, unistd::mkfifo};

use super::*;

/// How long a test waits for what must come.
const TIMEOUT: Duration = Duration::from_secs(60);

fn run(program: &str, arguments: &[&str], input: &[u8], timeout: Duration) -> Result<String, String> {
    let program = Program::new(program, arguments.iter().copied(), [b"PATH=/bin:/usr/bin".to_vec()]).unwrap();
    Helper { program, action: "do it", input, timeout }.run().map_err(|error| error.desc)
}

fn check(script: &str, input: &[u8], expected: Result<&str, &str>) {
    let expected = expected.map(Into::into).map_err(Into::into);
    assert_eq!(run("sh", &["-c", script], input, TIMEOUT), expected, "{script}");
}

fn wait_until(is_so: impl Fn() -> bool) {
    let end = Instant::now() + TIMEOUT;
    while !is_so() {
        assert!(Instant::now() < end, "it did not happen in time");
        std::thread::yield_now();
    }
}

#[test]
fn a_success_gives_both_outputs_in_their_order() {
    check("echo 1; echo 2 >&2; echo 3", b"", Ok("1\n2\n3\n"));
    check("true", b"", Ok(""));
}

#[test]
fn the_error_has_the_output_or_else_the_exit_status() {
    check("echo no such user >&2; exit 3", b"", Err("child process has failed to do it: no such user\n"));
    check("exit 3", b"", Err("child process has failed to do it: exit status 3"));
}

#[test]
fn an_end_by_a_signal_is_abnormal() {
    check("kill -9 $$", b"", Err("child process has terminated abnormally"));
    check("echo out; kill -9 $$", b"", Err("child process has terminated abnormally: out\n"));
}

#[test]
fn a_program_that_cannot_be_run_is_named() {
    let error = |program| run(program, &[], b"", TIMEOUT).unwrap_err();
    let expected = "child process has failed to do it: failed to exec '/nonexistent': No such file or directory\n";
    assert_eq!(error("/nonexistent"), expected);
    let expected = "child process has failed to do it: failed to exec 'qgad-absent': No such file or directory\n";
    assert_eq!(error("qgad-absent"), expected);
    assert_eq!(error("/dev"), "child process has failed to do it: failed to exec '/dev': Permission denied\n");
}

#[test]
fn the_end_of_a_long_output_is_kept() {
    let output = run("sh", &["-c", "yes | head -c 1000000; echo the end"], b"", TIMEOUT).unwrap();
    assert_eq!(output.len(), MAX_OUTPUT_BYTES);
    assert!(output.ends_with("y\nthe end\n"));
}

#[test]
fn input_of_any_size_is_read_or_not() {
    check("wc -c", &[b'x'; 1_000_000], Ok("1000000\n"));
    check("cat", b"user:password\n", Ok("user:password\n"));
    check("echo not needed", &[b'x'; 1_000_000], Ok("not needed\n"));
    check("cat; echo none", b"", Ok("none\n"));
}

#[test]
fn after_its_timeout_a_program_is_killed_with_all_of_its_session() {
    let directory = tempfile::tempdir().unwrap();
    let fifo = directory.path().join("held");
    mkfifo(&fifo, Mode::S_IRWXU).unwrap();
    let held = nix::fcntl::open(&fifo, OFlag::O_RDONLY | OFlag::O_NONBLOCK, Mode::empty()).unwrap();
    let script = format!("exec 3>{}; echo >&3; trap '' TERM; sleep 1000 & sleep 1000", fifo.display());
    let mut ready = [PollFd::new(held.as_fd(), PollFlags::POLLIN)];
    // The first run may time out before the script is ready.
    let error = loop {
        let error = run("sh", &["-c", &script], b"", Duration::from_millis(200)).unwrap_err();
        poll(&mut ready, PollTimeout::ZERO).unwrap();
        if ready[0].any().unwrap() {
            break error;
        }
    };
    assert_eq!(error, "child process has failed to do it: timed out after 0.2 s");
    let mut held = File::from(held);
    wait_until(|| matches!((&held).read(&mut [0; 64]), Ok(0)));
    assert_eq!(held.read(&mut [0; 64]).unwrap(), 0);
}

#[test]
fn the_error_has_the_output_up_to_the_timeout() {
    let endless = run("sh", &["-c", "while :; do echo waiting; done"], b"", Duration::from_secs(1)).unwrap_err();
    assert!(endless.starts_with("child process has failed to do it: timed out after 1 s: "), "{endless}");
    assert!(endless.contains("\nwaiting\n"), "{endless}");
}

#[test]
fn a_daemon_that_holds_the_pipe_neither_blocks_the_result_nor_is_killed_by_its_output() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name| directory.path().join(name);
    let (gate, done) = (path("gate"), path("done"));
    mkfifo(&gate, Mode::S_IRWXU).unwrap();
    let show = |path: &Path| path.display().to_string();
    let script = format!(
        "{{ read line < {0}; seq 100000; echo alive > {1}.new; mv {1}.new {1}; }} & echo started",
        show(&gate),
        show(&done)
    );
    assert_eq!(run("sh", &["-c", &script], b"", TIMEOUT).as_deref(), Ok("started\n"));
    std::fs::write(&gate, "go on\n").unwrap();
    wait_until(|| done.exists());
}
