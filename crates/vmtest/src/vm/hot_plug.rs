//! Devices that are plugged in and pulled out while the guest runs.
//!
//! Plugging in ends with QEMU's reply. The guest notices the device later; a test waits for that in the guest. Pulling
//! out ends with QEMU's event, which follows the guest's consent.

use std::time::Instant;

use anyhow::Result;
use serde_json::{Value, json};

use super::command_line::AGENT_PORT;
use crate::qmp::Qmp;

/// QEMU's name of the stream to the host's socket.
pub(super) const AGENT_CHARDEV: &str = "agent";
/// QEMU's name of the virtio-serial device that the agent's port belongs to.
pub(super) const AGENT_BUS: &str = "agent-bus";
/// QEMU's name of the agent's port.
pub(super) const AGENT_DEVICE: &str = "agent-port";

/// The agent's port, as `-device` and `device_add` take it.
pub(super) fn agent_port() -> Value {
    json!({
        "driver": "virtserialport",
        "id": AGENT_DEVICE,
        "bus": format!("{AGENT_BUS}.0"),
        "chardev": AGENT_CHARDEV,
        "name": AGENT_PORT,
    })
}

/// Plugs a device in.
///
/// # Errors
/// When QEMU refuses.
pub(super) fn plug(qmp: &mut Qmp, device: &Value) -> Result<()> {
    qmp.execute("device_add", device)?;
    Ok(())
}

/// Pulls a device out, and waits until it is gone.
///
/// # Errors
/// When QEMU refuses, or the guest does not give the device up before the deadline.
pub(super) fn unplug(qmp: &mut Qmp, id: &str, deadline: Instant) -> Result<()> {
    qmp.execute("device_del", &json!({"id": id}))?;
    // Devices that are part of this one are deleted, too.
    while qmp.wait_event("DEVICE_DELETED", deadline)?["device"] != id {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{qmp::tests::Script, vm::TIMEOUT};

    #[test]
    fn a_plugged_device_is_described_to_qemu_and_a_refusal_is_passed_on() {
        let mut script = Script::begin(&[r#"{"return": {}}"#, r#"{"error": {"desc": "no such bus"}}"#]);
        plug(&mut script.qmp, &json!({"driver": "x", "id": "y"})).unwrap();
        let error = plug(&mut script.qmp, &agent_port()).unwrap_err();
        assert_eq!(error.to_string(), "QEMU refused device_add: \"no such bus\"");
        let expected = [json!({"driver": "x", "id": "y"}), agent_port()];
        let expected = expected.map(|device| json!({"execute": "device_add", "arguments": device}));
        assert_eq!(script.requests(), expected);
    }

    #[test]
    fn an_unplugged_device_is_gone_once_qemu_says_so_of_that_device() {
        let mut script = Script::begin(&[
            r#"{"event": "DEVICE_DELETED", "data": {"path": "/machine/peripheral/y/part"}}"#,
            r#"{"return": {}}"#,
            r#"{"event": "DEVICE_DELETED", "data": {"device": "other"}}"#,
            r#"{"event": "DEVICE_DELETED", "data": {"device": "y"}}"#,
            r#"{"event": "LATER"}"#,
        ]);
        let deadline = Instant::now() + TIMEOUT;
        unplug(&mut script.qmp, "y", deadline).unwrap();
        script.qmp.wait_event("LATER", deadline).unwrap();
        assert_eq!(script.requests(), [json!({"execute": "device_del", "arguments": {"id": "y"}})]);
    }

    #[test]
    fn a_guest_that_keeps_its_device_ends_the_wait() {
        let mut script = Script::begin(&[r#"{"return": {}}"#]);
        let error = unplug(&mut script.qmp, "y", Instant::now()).unwrap_err();
        assert_eq!(format!("{error:#}"), "no event DEVICE_DELETED of QEMU: the deadline passed");
    }
}
