//! Jobs: the rights of their user, their terminal, and a freeze.

use std::time::Instant;

use anyhow::{Result, bail, ensure};
use qga::{
    client::Client,
    commands::{
        freeze::{Freeze, Thaw},
        job::{JobOutput, JobRead, JobSignal, JobStart, JobState, JobWrite, Terminal},
    },
};
use vmtest::{
    transcript::Recorded,
    vm::{Builder, Vm},
};

use super::{
    accounts::add_users,
    answered,
    freeze::{boot, check_frozen, refusal},
    soon,
    storage::disks::Content,
};

type Agent = Client<Recorded>;

pub(crate) fn of_users(builder: Builder<'_>) -> Result<()> {
    let mut vm = builder.boot()?;
    add_users(&mut vm)?;
    vm.sh("echo 'disk:x:6:ann' >>/etc/group; mkdir -p /root; chmod 700 /root; chmod 755 /")?;
    let mut agent = answered(&vm)?;
    let of_ann = |line: &str| JobStart { user: Some("ann".into()), ..shell(line) };
    let identity = "id -u; id -g; id -G; pwd; echo $HOME $SHELL $USER $LOGNAME $PATH; ls /root 2>&1";
    let expected = "1000\n100\n100 6\n/home/ann\n/home/ann /bin/sh ann ann /usr/local/bin:/usr/bin:/bin\n\
                    ls: can't open '/root': Permission denied\n";
    assert_eq!(run(&mut agent, &of_ann(identity))?, expected);
    let homeless = JobStart { user: Some("homeless".into()), ..shell("pwd") };
    assert_eq!(run(&mut agent, &homeless)?, "/\n");
    let in_root = JobStart { cwd: Some("/root".into()), ..of_ann("pwd") };
    let refused = refusal(agent.call(&in_root, soon()))?;
    assert_eq!(refused, "failed to start /bin/sh as ann: failed to enter /root: Permission denied");
    let login = JobStart { path: None, arg: Some(vec!["-c".into(), "echo $0".into()]), ..of_ann("") };
    assert_eq!(run(&mut agent, &login)?, "-sh\n");

    let on_a_terminal = JobStart {
        terminal: Some(Terminal { rows: 24, columns: 80, term: None }),
        ..of_ann("echo $TERM; stty size; stat -c %u $(tty); kill -INT 0; echo not reached")
    };
    vm.sh("umount /dev/pts 2>/dev/null; rm -f /dev/ptmx")?;
    let refused = refusal(agent.call(&on_a_terminal, soon()))?;
    let reason = "failed to start /bin/sh as ann: no terminal can be opened, is devpts mounted? ";
    ensure!(refused.starts_with(reason), "{refused}");
    vm.sh("mkdir -p /dev/pts && mount -t devpts -o gid=5,mode=620,ptmxmode=666 none /dev/pts && \
           ln -s pts/ptmx /dev/ptmx")?;
    assert_eq!(run(&mut agent, &on_a_terminal)?, "vt220\r\n24 80\r\n1000\r\n");
    Ok(())
}

pub(crate) fn go_on_while_frozen(builder: Builder<'_>) -> Result<()> {
    let (mut vm, _disks) = boot(builder, &[("a", Content::Ext4)])?;
    let mut agent = answered(&vm)?;
    let echo = start(&mut agent, &shell("cat"))?;
    let writer = start(&mut agent, &shell("read line; echo $line >/mnt/a/file; echo written; sleep 1000"))?;
    assert_eq!(agent.call(&Freeze::default(), soon())?, 1);
    write(&mut agent, echo, "frozen")?;
    let (output, _) = read_until(&mut agent, echo, |text, _| text == "frozen")?;
    assert_eq!(output, "frozen");
    check_frozen("qgad-job-start", &refusal(agent.call(&shell("true"), soon()))?)?;
    write(&mut agent, writer, "x\n")?;
    vm.wait_until("grep -l '^State:.D' /proc/[0-9]*/status")?;
    let read = JobRead { id: writer, out_offset: 0, wait: Some(100), ..JobRead::default() };
    assert_eq!(agent.call(&read, soon())?.out_offset, 0);
    assert_eq!(agent.call(&Thaw {}, soon())?, 1);
    read_until(&mut agent, writer, |text, _| text == "written\n")?;
    assert_eq!(vm.sh("cat /mnt/a/file")?, "x");
    agent.call(&JobSignal { id: writer, signal: "TERM".into() }, soon())?;
    let (_, end) = read_until(&mut agent, writer, |_, output| output.state == JobState::Exited)?;
    assert_eq!(end.signal, Some(15));
    Ok(())
}

/// A job of the shell with input.
pub(super) fn shell(line: &str) -> JobStart {
    JobStart {
        path: Some("/bin/sh".into()),
        arg: Some(vec!["-c".into(), line.into()]),
        stdin: Some(true),
        ..JobStart::default()
    }
}

pub(super) fn start(agent: &mut Agent, job: &JobStart) -> Result<i64> {
    Ok(agent.call(job, soon())?.id)
}

pub(super) fn write(agent: &mut Agent, id: i64, text: &str) -> Result<()> {
    let buf_b64 = Some(text.as_bytes().to_vec().into());
    agent.call(&JobWrite { id, buf_b64, ..JobWrite::default() }, soon())?;
    Ok(())
}

/// All that a job wrote, once that or its state is as wanted.
pub(super) fn read_until(
    agent: &mut Agent,
    id: i64,
    is_wanted: impl Fn(&str, &JobOutput) -> bool,
) -> Result<(String, JobOutput)> {
    let (mut all, mut out_offset, deadline) = (String::new(), 0, soon());
    loop {
        let output = agent.call(&JobRead { id, out_offset, wait: Some(1000), ..JobRead::default() }, soon())?;
        out_offset = output.out_offset;
        all += &String::from_utf8(output.out_b64.clone().into_bytes()?)?;
        if is_wanted(&all, &output) {
            return Ok((all, output));
        }
        if Instant::now() > deadline {
            bail!("job {id} wrote {all:?} and is {output:?}");
        }
    }
}

/// The output of a job that ends.
fn run(agent: &mut Agent, job: &JobStart) -> Result<String> {
    let id = start(agent, job)?;
    let is_over = |_: &str, output: &JobOutput| output.state == JobState::Exited && output.out_eof;
    Ok(read_until(agent, id, is_over)?.0)
}

/// A job of a user with a terminal, one with more output than fits into a small message, and one that is killed.
pub(super) fn of_each_kind(agent: &mut Agent, user: &str) -> Result<()> {
    let terminal = Some(Terminal { rows: 24, columns: 80, term: None });
    let on_a_terminal = JobStart { terminal, user: Some(user.into()), ..shell("id -un; test -t 0") };
    assert_eq!(run(agent, &on_a_terminal)?, format!("{user}\r\n"));
    assert_eq!(run(agent, &shell("head -c 200000 /dev/zero"))?.len(), 200_000);
    let id = start(agent, &shell("cat"))?;
    write(agent, id, &"x".repeat(200_000))?;
    agent.call(&JobSignal { id, signal: "KILL".into() }, soon())?;
    let (_, end) = read_until(agent, id, |_, output| output.state == JobState::Exited && output.out_eof)?;
    assert_eq!(end.signal, Some(9));
    Ok(())
}

/// How the jobs of a unit outlive restarts of it, and die with all their processes.
pub(super) fn outlive_their_unit(vm: &mut Vm) -> Result<()> {
    let mut agent = answered(vm)?;
    let id = start(&mut agent, &shell("setsid sleep infinity & echo ready; cat"))?;
    read_until(&mut agent, id, |text, _| text == "ready\n")?;
    let group = format!("/sys/fs/cgroup/system.slice/qgad.service/job-{id}");
    vm.sh(&format!("grep . {group}/cgroup.procs"))?;
    for script in ["systemctl restart qgad", "kill -KILL $(systemctl show --value -p MainPID qgad)"] {
        let before = vm.sh("systemctl show --value -p MainPID qgad")?;
        vm.sh(script)?;
        vm.wait_until(&format!(
            "pid=$(systemctl show --value -p MainPID qgad); [ $pid != 0 ] && [ $pid != {before} ]"
        ))?;
        agent.sync(soon())?;
        write(&mut agent, id, &format!("{script}\n"))?;
        // What was read was not acknowledged.
        read_until(&mut agent, id, |text, _| text.ends_with(&format!("{script}\n")))?;
    }
    // The program that left the session still holds its output.
    agent.call(&JobSignal { id, signal: "KILL".into() }, soon())?;
    let (_, end) = read_until(&mut agent, id, |_, output| output.state == JobState::Exited && output.out_eof)?;
    assert_eq!(end.signal, Some(9));
    agent.call(&qga::commands::job::JobForget { id }, soon())?;
    vm.wait_until(&format!("! test -e {group}"))?;
    assert_eq!(vm.sh("systemctl show --value -p Result qgad")?, "success");
    Ok(())
}
