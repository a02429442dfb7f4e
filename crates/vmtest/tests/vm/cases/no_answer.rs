//! Commands whose paths lead through a file system that never answers.

use anyhow::{Result, ensure};
use qga::commands::{
    exec::{CaptureOutput, Exec},
    file::{FileOpen, FileRead},
    freeze::{Freeze, Thaw},
    ssh::GetAuthorizedKeys,
    storage::GetFsinfo,
    system::GetOsinfo,
    users::GetUsers,
};
use vmtest::vm::{Builder, TIMEOUT};

use super::{
    agent_pid, answered,
    freeze::{boot, configure, refusal},
    soon,
    storage::disks::Content,
};

/// A FUSE file system whose server never reads its first request, and so none. It ends with the process that holds its
/// descriptor.
const MOUNT_DEAD: &str = "mkdir -p /mnt/dead; sh -c 'exec 3<>/dev/fuse; \
     mount -t fuse -o fd=3,rootmode=40000,user_id=0,group_id=0 none /mnt/dead; \
     sleep 100000 >/dev/null 2>&1 </dev/null & echo $! >/run/server'; grep /mnt/dead /proc/mounts";
/// The home of ann is there by a link.
const ADD_USERS: &str = "mkdir -p /home; ln -s /mnt/dead /home/ann; echo ann:x:1000:100::/home/ann: >>/etc/passwd; \
     mkdir -p /home/bob/.ssh; echo 'b 1' >/home/bob/.ssh/authorized_keys; chown -R 1001 /home/bob; \
     echo bob:x:1001:100::/home/bob: >>/etc/passwd";
/// More than there are threads for one class of commands.
const REQUESTS: usize = 48;

pub(crate) fn costs_one_thread(builder: Builder<'_>) -> Result<()> {
    let (mut vm, _disks) = boot(builder, &[("a", Content::Ext4)])?;
    configure(&mut vm, "command-timeout=1\\nverbose=true\\n")?;
    vm.sh(ADD_USERS)?;
    vm.sh(MOUNT_DEAD)?;
    let mut agent = answered(&vm)?;
    let keys = |username: &str| GetAuthorizedKeys { username: username.into() };
    let open = |path: &str| FileOpen { path: path.into(), mode: None };
    let run = |path: &str| Exec {
        path: path.into(),
        arg: None,
        env: None,
        input_data: None,
        capture_output: Some(CaptureOutput::None),
    };
    let first = refusal(agent.call(&keys("ann"), soon()))?;
    assert_eq!(first, "guest-ssh-get-authorized-keys timed out after 1 s");
    let pid = agent_pid(&mut vm)?;
    let threads = |vm: &mut vmtest::vm::Vm| vm.sh(&format!("ls /proc/{pid}/task | wc -l"));
    let reason = "an earlier command on the file system at '/mnt/dead' has not ended after";
    // The thread of this one is there for all that follow.
    let second = refusal(agent.call(&keys("ann"), soon()))?;
    ensure!(second.contains(reason), "{second}");
    let before = threads(&mut vm)?;
    for index in 0..REQUESTS {
        let refused = [
            refusal(agent.call(&keys("ann"), soon()))?,
            refusal(agent.call(&open(&format!("/home/ann/{index}/file")), soon()))?,
            refusal(agent.call(&run(&format!("/mnt/dead/{index}")), soon()))?,
        ];
        for answer in refused {
            ensure!(answer.contains(reason), "{answer}");
        }
    }
    ensure!(threads(&mut vm)? == before, "there are {} threads instead of {before}", threads(&mut vm)?);

    assert_eq!(agent.call(&keys("bob"), soon())?.keys, ["b 1"]);
    agent.run(&run("/bin/true"), TIMEOUT, Some(soon()))?;
    let handle = agent.call(&open("/etc/passwd"), soon())?;
    ensure!(agent.call(&FileRead { handle, count: None }, soon())?.count > 0, "the file is empty");
    agent.call(&GetFsinfo {}, soon())?;
    agent.call(&GetOsinfo {}, soon())?;
    agent.call(&GetUsers {}, soon())?;
    assert_eq!(agent.call(&Freeze::default(), soon())?, 1);
    assert_eq!(agent.call(&Thaw {}, soon())?, 1);

    // Once the file system gives an answer, be it an error, nothing is stuck any more.
    vm.sh("kill $(cat /run/server)")?;
    vm.wait_console("a command that was given up has ended, 0 are still stuck")?;
    let answer = refusal(agent.call(&keys("ann"), soon()))?;
    ensure!(answer.ends_with("Transport endpoint is not connected"), "{answer}");
    Ok(())
}
