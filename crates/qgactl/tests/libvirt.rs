//! Domains whose agent libvirt talks to: a fake virsh with the real one's limits and words, and on demand the real one.
//!
//! The real one is used where `QGACTL_TEST_DOMAIN` names a running domain whose guest has an agent and a shell, as
//! `-M` takes it. It is not part of a machine's usual tests, because it needs a libvirt with such a domain.

#![allow(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

mod support;

use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
};

use support::{Outcome, finish};
use tempfile::TempDir;

/// Runs domain web1 and knows a few commands. Beside it lie the log of its calls and the guest's file.
const VIRSH: &str = r#"#!/bin/sh
here=${0%/*}
fail() { echo "error: $1" >&2; echo >&2; exit 1; }
answer() { [ ${#1} -le 4194304 ] || fail 'Unable to encode message payload'; printf '%s\n\n' "$1"; }
[ "$LC_ALL" = C ] || fail 'another language'
case "$*" in *--domain=web1*) ;; *--domain=off*) echo 'shut off'; exit ;; *) fail "failed to get domain" ;; esac
for request in "$@"; do :; done
number() { printf %s "$request" | sed "s/.*\"$1\": *//; s/[,}].*//"; }
case "$*" in *domstate*) echo running; exit ;; esac
printf '%s\n' "$*" | head -c 200 >>"$here/log"; echo >>"$here/log"
case $request in
*'"guest-sync"'*) answer "{\"return\":$(number id)}" ;;
*guest-sync-delimited*) fail 'Guest agent is not responding: QEMU guest agent is not available due to an error' ;;
*guest-ping*) answer '{"return":{}}' ;;
*guest-shutdown*) fail 'Guest agent is not responding: Guest agent disappeared while executing command' ;;
*guest-get-time*) exec sleep 60 ;;
*guest-file-open*) echo 0 >"$here/position"; answer '{"return":1000}' ;;
*guest-file-seek*)
    if [ "$(number whence)" = 2 ]; then position=600000; else position=$(number offset); fi
    echo "$position" >"$here/position"
    answer "{\"return\":{\"position\":$position,\"eof\":false}}" ;;
*guest-file-read*)
    count=$(number count) position=$(cat "$here/position")
    if [ $((position + count)) -gt 600000 ]; then count=$((600000 - position)); fi
    echo $((position + count)) >"$here/position"
    answer "{\"return\":{\"count\":$count,\"buf-b64\":\"$(head -c $count /dev/zero | base64 -w0)\",\"eof\":false}}" ;;
*guest-file-write*)
    printf %s "$request" | sed 's/.*"buf-b64": "//; s/".*//' | base64 -d >"$here/piece"
    cat "$here/piece" >>"$here/written"
    answer "{\"return\":{\"count\":$(wc -c <"$here/piece"),\"eof\":false}}" ;;
*guest-file-close*) answer '{"return":{}}' ;;
*guest-x*) fail "internal error: unable to execute QEMU agent command 'guest-x': The command guest-x has not been found" ;;
*) fail "internal error: unable to execute QEMU agent command 'guest-y': no luck" ;;
esac
"#;

/// A directory with the fake virsh.
fn fake() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let virsh = directory.path().join("virsh");
    fs::write(&virsh, VIRSH).unwrap();
    fs::set_permissions(&virsh, fs::Permissions::from_mode(0o755)).unwrap();
    directory
}

fn qgactl(virsh: &Path, arguments: &[&str]) -> Outcome {
    let path = format!("{}:{}", virsh.display(), env::var("PATH").unwrap());
    let mut command = Command::new(env!("CARGO_BIN_EXE_qgactl"));
    command.args(arguments).env("PATH", path).env_remove("QGACTL_MACHINE");
    finish(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
}

#[test]
fn a_domain_is_asked_through_virsh_and_never_gets_a_delimited_sync() {
    let virsh = fake();
    qgactl(virsh.path(), &["-M", "libvirt:test:///x#web1", "ping"]).success();
    let log = fs::read_to_string(virsh.path().join("log")).unwrap();
    let calls: Vec<_> = log.lines().filter(|line| !line.is_empty()).collect();
    let begin = "-c test:///x -q qemu-agent-command --domain=web1 --timeout ";
    assert!(calls.len() == 2 && calls.iter().all(|call| call.starts_with(begin)), "{log}");
    assert!(calls[0].contains("\"guest-sync\"") && calls[1].contains("\"guest-ping\""), "{log}");
}

#[test]
fn a_failure_has_the_status_and_the_words_that_it_has_on_a_socket() {
    let virsh = fake();
    let check = |domain: &str, arguments: &[&str], status, said| {
        let domain = format!("libvirt:{domain}");
        qgactl(virsh.path(), &[&["-M", &domain], arguments].concat()).check(status, said);
    };
    check("web1", &["call", "guest-x"], 5, "guest-x: The command guest-x has not been found\n");
    check("web1", &["call", "guest-y"], 1, "guest-y: no luck\n");
    check("nosuch", &["ping"], 3, "failed to connect to libvirt:nosuch: failed to get domain\n");
    check("off", &["ping"], 3, "failed to connect to libvirt:off: the domain is not running, but shut off\n");
}

#[test]
fn input_that_does_not_fit_into_an_argument_is_refused() {
    let virsh = fake();
    let input = virsh.path().join("input");
    fs::write(&input, vec![b'x'; 140_000]).unwrap();
    let arguments = ["-M", "libvirt:web1", "exec", "--stdin", input.to_str().unwrap(), "--", "cat"];
    qgactl(virsh.path(), &arguments).check(125, "virsh takes 131071");
}

#[test]
fn a_virsh_that_does_not_end_is_not_waited_for() {
    qgactl(fake().path(), &["-M", "libvirt:web1", "--timeout", "1", "call", "guest-get-time"]).check(4, "in time");
}

#[test]
fn a_shutdown_that_libvirt_notices_has_succeeded() {
    qgactl(fake().path(), &["-M", "libvirt:web1", "shutdown"]).success();
}

#[test]
fn files_move_in_pieces_that_virsh_carries() {
    let virsh = fake();
    let (local, back) = (virsh.path().join("local"), virsh.path().join("back"));
    let content: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
    fs::write(&local, &content).unwrap();
    let push = ["-M", "libvirt:web1", "push", "--no-check", local.to_str().unwrap(), "/file"];
    qgactl(virsh.path(), &push).success();
    assert!(fs::read(virsh.path().join("written")).unwrap() == content);
    let pull = ["-M", "libvirt:web1", "pull", "--no-check", "/file", back.to_str().unwrap()];
    qgactl(virsh.path(), &pull).success();
    assert!(fs::read(&back).unwrap() == vec![0; 600_000]);
}

#[test]
fn without_virsh_the_error_says_what_to_install() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_qgactl"));
    command.args(["-M", "libvirt:web1", "ping"]).env("PATH", "/nonexistent");
    let outcome = finish(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    outcome.check(3, "virsh is not installed");
}

#[test]
fn a_real_domain_does_all_that_a_socket_does() {
    let Ok(domain) = env::var("QGACTL_TEST_DOMAIN") else {
        eprintln!("skipped: QGACTL_TEST_DOMAIN names no domain of libvirt");
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let qgactl = |arguments: &[&str]| qgactl(directory.path(), &[&["-M", &domain], arguments].concat());
    qgactl(&["ping"]).success();
    qgactl(&["call", "guest-nonsense"]).check(5, "has not been found");
    assert_eq!(qgactl(&["exec", "--", "sh", "-c", "echo out; exit 3"]).status, 3);
    let (local, back) = (directory.path().join("local"), directory.path().join("back"));
    let content: Vec<u8> = (0..2_000_000_u32).flat_map(u32::to_le_bytes).collect();
    fs::write(&local, &content).unwrap();
    qgactl(&["push", local.to_str().unwrap(), "/tmp/qgactl-test"]).success();
    qgactl(&["pull", "/tmp/qgactl-test", back.to_str().unwrap()]).success();
    assert!(fs::read(&back).unwrap() == content);
    qgactl(&["ping"]).success();
}
