//! Two agents in one guest, as on a port and on vsock: each reports its own freeze, and a thaw by either ends both.

use anyhow::Result;
use qga::commands::{
    freeze::{Freeze, FreezeState, FreezeStatus, Thaw},
    system::GetHostName,
};
use vmtest::vm::{Builder, Vm};

use super::{Content, answered, boot, frozen_among, soon};

const FROZEN: &str = r#"{"return": "frozen"}"#;
const THAWED: &str = r#"{"return": "thawed"}"#;

pub(crate) fn tell_of_their_own_freeze(builder: Builder<'_>) -> Result<()> {
    let program = builder.agent_program().to_owned();
    let (mut vm, _disks) = boot(builder, &[("a", Content::Ext4)])?;
    vm.sh("mkdir /run/second && printf '[general]\nvsock-allow=1\n' >/run/vsock.conf")?;
    start_second(&mut vm, &program, "/run/second")?;
    let mut first = answered(&vm)?;

    assert_eq!(first.call(&Freeze::default(), soon())?, 1);
    assert_eq!(ask_second(&mut vm, "guest-fsfreeze-status")?, THAWED);
    // What the other one froze is not counted, and stays frozen.
    assert_eq!(ask_second(&mut vm, "guest-fsfreeze-freeze")?, r#"{"return": 0}"#);
    assert_eq!(ask_second(&mut vm, "guest-fsfreeze-status")?, THAWED);
    assert_eq!(frozen_among(&mut vm, &["a"])?, ["a"]);
    // A thaw ends it all the same, and the host that asked for the freeze learns at its own thaw that it did not hold.
    assert_eq!(ask_second(&mut vm, "guest-fsfreeze-thaw")?, r#"{"return": 1}"#);
    assert_eq!(frozen_among(&mut vm, &["a"])?, [""; 0]);
    assert_eq!(first.call(&FreezeStatus {}, soon())?, FreezeState::Frozen);
    assert_eq!(first.call(&Thaw {}, soon())?, 0);

    assert_eq!(ask_second(&mut vm, "guest-fsfreeze-freeze")?, r#"{"return": 1}"#);
    assert_eq!(first.call(&FreezeStatus {}, soon())?, FreezeState::Thawed);
    assert_eq!(first.call(&Thaw {}, soon())?, 1);
    assert_eq!(ask_second(&mut vm, "guest-fsfreeze-status")?, FROZEN);
    assert_eq!(ask_second(&mut vm, "guest-fsfreeze-thaw")?, r#"{"return": 0}"#);

    // One that is started in the state directory of another one is frozen with it, and leaves it its guard.
    vm.sh("kill $(cat /run/second.pid)")?;
    vm.wait_until("! kill -0 $(cat /run/second.pid)")?;
    assert_eq!(first.call(&Freeze::default(), soon())?, 1);
    start_second(&mut vm, &program, "/run")?;
    assert_eq!(ask_second(&mut vm, "guest-fsfreeze-status")?, FROZEN);
    assert!(ask_second(&mut vm, "guest-get-host-name")?.contains("the agent is in frozen state"));
    assert_eq!(frozen_among(&mut vm, &["a"])?, ["a"]);
    assert_eq!(first.call(&Thaw {}, soon())?, 1);
    vm.wait_until(&format!("{} | grep thawed", request("guest-fsfreeze-status")))?;
    first.call(&GetHostName {}, soon())?;
    assert!(ask_second(&mut vm, "guest-get-host-name")?.contains("return"));
    Ok(())
}

fn start_second(vm: &mut Vm, program: &str, state_directory: &str) -> Result<()> {
    let start = format!("{program} -c /run/vsock.conf -m vsock-listen -p 1:1024 -t {state_directory}");
    vm.sh(&format!("{start} >/run/second.log 2>&1 & echo $! >/run/second.pid"))?;
    Ok(())
}

fn ask_second(vm: &mut Vm, command: &str) -> Result<String> {
    vm.wait_until(&format!("{} | grep .", request(command)))
}

fn request(command: &str) -> String {
    format!(r#"echo '{{"execute": "{command}"}}' | /init vsock 1 1024"#)
}
