//! The processes of the agent's own executable: the guard of a freeze, and the pipe holder.

#![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

use std::{
    io::Read,
    process::{Command, Stdio},
};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

#[test]
fn they_end_without_a_complaint_when_the_agent_is_gone_before_it_hands_anything_over() {
    for option in ["--freeze-guard", "--pipe-holder"] {
        let flags = SockFlag::SOCK_CLOEXEC;
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_qgad"));
        let mut child = command.arg(option).stdin(theirs).stderr(Stdio::piped()).spawn().unwrap();
        drop(command);
        drop(ours);
        let mut errors = String::new();
        child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
        assert_eq!((child.wait().unwrap().code(), errors.as_str()), (Some(0), ""), "{option}");
    }
}

#[test]
fn they_refuse_a_standard_input_that_is_no_socket() {
    for option in ["--freeze-guard", "--pipe-holder"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_qgad"));
        let output = command.arg(option).stdin(Stdio::null()).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{option}");
        assert!(String::from_utf8(output.stderr).unwrap().contains("Socket operation on non-socket"), "{option}");
    }
}
