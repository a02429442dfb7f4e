//! Debian's agent in the same guest as ours: ours is on the port, the reference listens on vsock.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use qga::client::Client;
use serde_json::{Value, json};
use vmtest::{transcript::Recorded, vm::Vm};

use super::soon;

/// Where the reference listens in the guest.
const PORT: u16 = 1025;

/// Starts the reference, by its path in the guest.
pub(crate) fn start(vm: &mut Vm, program: &str) -> Result<()> {
    vm.sh(&format!("{program} -m vsock-listen -p 1:{PORT} -t /tmp >/dev/null 2>&1 &"))?;
    Ok(())
}

/// What the reference returns.
pub(crate) fn ask(vm: &mut Vm, command: &str, arguments: &Value) -> Result<Value> {
    let request = json!({"execute": command, "arguments": arguments});
    let reply = vm.wait_until(&format!("echo '{request}' | /init vsock 1 {PORT} | grep ."))?;
    let returned = serde_json::from_str::<Value>(&reply)?["return"].take();
    ensure!(!returned.is_null(), "the reference refuses {request}: {reply}");
    Ok(returned)
}

/// Both answer a command alike, but for what `settle` removes from both, theirs first.
pub(crate) fn compare(
    vm: &mut Vm,
    agent: &mut Client<Recorded>,
    command: &str,
    arguments: &Value,
    settle: impl Fn(&mut Value, &mut Value),
) -> Result<()> {
    let members = arguments.as_object().context("arguments are an object")?;
    let deadline = soon();
    let mut ours: Value = agent.call_as(command, members, soon())?;
    loop {
        let theirs = ask(vm, command, arguments)?;
        let settled = |ours: &Value| {
            let (mut theirs, mut ours) = (theirs.clone(), ours.clone());
            settle(&mut theirs, &mut ours);
            (theirs, ours)
        };
        let (their_answer, our_answer) = settled(&ours);
        if their_answer == our_answer {
            return Ok(());
        }
        // The guest may have changed between the two.
        let later = agent.call_as(command, members, soon())?;
        let has_changed = settled(&later).1 != our_answer;
        ensure!(
            has_changed && Instant::now() < deadline,
            "{command}: the reference says\n{their_answer}\nand ours\n{our_answer}"
        );
        ours = later;
    }
}

/// Removes a member of an object.
pub(crate) fn remove(object: &mut Value, member: &str) {
    object.as_object_mut().expect("an object").remove(member);
}
