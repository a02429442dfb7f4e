//! Users of the guest: their SSH keys and passwords.

use anyhow::{Result, ensure};
use qga::{
    client::{Client, Error},
    commands::{
        ssh::{AddAuthorizedKeys, GetAuthorizedKeys, RemoveAuthorizedKeys},
        users::{GetUsers, SetUserPassword},
    },
};
use vmtest::{
    transcript::Recorded,
    vm::{Builder, Vm},
};

use super::{answered, soon};

const SECRET: &str = "corre:ct horse";

pub(crate) fn have_their_keys_set(builder: Builder<'_>) -> Result<()> {
    let mut vm = builder.boot()?;
    add_users(&mut vm)?;
    let mut agent = answered(&vm)?;

    add(&mut agent, "ann", &["a 1", "b 2"])?;
    let described = vm.sh("cd /home/ann; stat -c '%n %a %u %g' .ssh .ssh/authorized_keys; ls -A .ssh; cat .ssh/*")?;
    assert_eq!(described, ".ssh 700 1000 100\n.ssh/authorized_keys 600 1000 100\nauthorized_keys\na 1\nb 2");
    assert_eq!(get(&mut agent, "ann")?, ["b 2", "a 1"]);
    remove(&mut agent, "ann", &["a 1"])?;
    assert_eq!(get(&mut agent, "ann")?, ["b 2"]);
    add(&mut agent, "root", &["r 1"])?;
    assert_eq!(vm.sh("stat -c '%a %u %g' /root/.ssh/authorized_keys; cat /root/.ssh/*")?, "600 0 0\nr 1");

    let created = "failed to create directory";
    check_refused(
        add(&mut agent, "homeless", &["x"]),
        &format!("{created} '/home/homeless/.ssh': No such file or directory"),
    )?;
    vm.sh("mkdir -p /home/fixed && mount -t tmpfs -o ro,uid=1002,mode=700 tmpfs /home/fixed")?;
    check_refused(add(&mut agent, "fixed", &["x"]), &format!("{created} '/home/fixed/.ssh': Read-only file system"))?;
    check_refused(add(&mut agent, "nobody-here", &["x"]), "failed to lookup user 'nobody-here': no such user")
}

pub(crate) fn cannot_lead_astray(builder: Builder<'_>) -> Result<()> {
    let mut vm = builder.boot()?;
    add_users(&mut vm)?;
    vm.sh("mkdir /etc/keys && echo 'r 1' >/etc/keys/authorized_keys && chmod 600 /etc/keys/authorized_keys")?;
    let mut agent = answered(&vm)?;
    let untouched = "cd /etc; stat -c '%n %i %a %u' keys keys/* passwd; ls -A keys; cat keys/* passwd";
    let before = vm.sh(untouched)?;

    // A directory of the system's in place of the user's own.
    vm.sh("ln -s /etc/keys /home/ann/.ssh")?;
    let path = "/home/ann/.ssh/authorized_keys";
    let unreadable = format!("failed to read '{path}': Failed to open file \u{201C}{path}\u{201D}: Permission denied");
    check_refused(get(&mut agent, "ann").map(drop), &unreadable)?;
    check_refused(add(&mut agent, "ann", &["x"]), &unreadable)?;
    check_refused(remove(&mut agent, "ann", &["r 1"]), &unreadable)?;
    let denied = format!("failed to write to '{path}': Permission denied");
    check_refused(reset(&mut agent, "ann", &["x"]), &denied)?;
    vm.sh("ln -sf /etc/new /home/ann/.ssh-new && rm /home/ann/.ssh && mv /home/ann/.ssh-new /home/ann/.ssh")?;
    ensure!(add(&mut agent, "ann", &["x"]).is_err(), "a directory was made");
    vm.sh("test ! -e /etc/new")?;

    // A file of the system's in place of the user's own: the link goes, and the file stays.
    vm.sh("rm /home/ann/.ssh; mkdir /home/ann/.ssh; ln -s /etc/keys/authorized_keys /home/ann/.ssh/")?;
    vm.sh("chown -R 1000 /home/ann")?;
    check_refused(get(&mut agent, "ann").map(drop), &unreadable)?;
    check_refused(add(&mut agent, "ann", &["x"]), &unreadable)?;
    reset(&mut agent, "ann", &["x"])?;
    assert_eq!(vm.sh(&format!("stat -c '%F %u' {path}; cat {path}"))?, "regular file 1000\nx");
    vm.sh(&format!("ln -sf /etc/passwd {path}"))?;
    add(&mut agent, "ann", &["x"])?;
    assert_eq!(vm.sh(&format!("stat -c '%F %u %a' {path}"))?, "regular file 1000 600");

    // What would be waited for in vain.
    vm.sh(&format!("rm {path}; mkfifo {path}; chown 1000 {path}"))?;
    ensure!(get(&mut agent, "ann").is_err_and(|error| error.to_string().ends_with("Not a regular file")));
    assert_eq!(vm.sh(untouched)?, before);
    // Nothing of the user's rights is left with the agent.
    assert_eq!(vm.sh("grep -h ^Uid /proc/$(cat /run/agent.pid)/task/*/status | sort -u")?, "Uid:\t0\t0\t0\t0");
    Ok(())
}

pub(crate) fn have_their_passwords_set(builder: Builder<'_>) -> Result<()> {
    let mut vm = builder.agent_arguments(&["--verbose"]).boot()?;
    add_users(&mut vm)?;
    vm.sh("test -z \"$(command -v chpasswd)\" && test ! -e /etc/shadow && chmod u+s /bin/busybox")?;
    let mut agent = answered(&vm)?;

    set_password(&mut agent, "ann", SECRET, false)?;
    assert_eq!(vm.sh("stat -c '%a %u' /etc/shadow")?, "600 0");
    check_login(&mut vm, SECRET, true)?;
    check_login(&mut vm, "corre", false)?;
    let crypted = vm.sh("mkpasswd -m sha256 -S somesalt other")?;
    set_password(&mut agent, "ann", &crypted, true)?;
    check_login(&mut vm, "other", true)?;
    check_login(&mut vm, SECRET, false)?;

    let refusal = set_password(&mut agent, "nobody-here", SECRET, false);
    check_refused(refusal, "child process has failed to set user password: user 'nobody-here' is not in /etc/passwd")?;
    check_refused(set_password(&mut agent, "ann", "a\nroot:b", false), "forbidden characters in raw password")?;

    // A program that is there is asked instead.
    vm.sh("mkdir -p /usr/bin; printf '#!/bin/sh\n{ echo \"$#\" \"$@\"; cat; } >/run/chpasswd\n' >/usr/bin/chpasswd")?;
    vm.sh("chmod +x /usr/bin/chpasswd")?;
    set_password(&mut agent, "ann", SECRET, false)?;
    assert_eq!(vm.sh("cat /run/chpasswd")?, format!("0\nann:{SECRET}"));
    set_password(&mut agent, "ann", "$6$x", true)?;
    assert_eq!(vm.sh("cat /run/chpasswd")?, "1 -e\nann:$6$x");
    vm.sh("printf '#!/bin/sh\necho \"it is too short\" >&2; exit 1\n' >/usr/bin/chpasswd")?;
    let refusal = set_password(&mut agent, "ann", SECRET, false);
    check_refused(refusal, "child process has failed to set user password: it is too short\n")?;

    let console = vm.console().text()?;
    ensure!(console.contains("guest-set-user-password"), "the verbose log says what was called");
    for secret in [SECRET, "Y29ycmU6Y3QgaG9yc2U=", &crypted] {
        ensure!(!console.contains(secret), "the log has the password");
    }
    Ok(())
}

pub(crate) fn are_logged_in(builder: Builder<'_>) -> Result<()> {
    let mut vm = builder.boot()?;
    let mut agent = answered(&vm)?;
    assert_eq!(agent.call(&GetUsers {}, soon())?, []);
    vm.sh("mkdir -p /run/systemd/sessions")?;
    let session = "USER=ann\nSTATE=active\nCLASS=user\nREALTIME=1700000000250000\n";
    vm.sh(&format!("printf '{session}' >/run/systemd/sessions/4"))?;
    let users = agent.call(&GetUsers {}, soon())?;
    assert_eq!(
        users.iter().map(|user| (user.user.as_str(), user.login_time)).collect::<Vec<_>>(),
        [("ann", 1_700_000_000.25)]
    );
    Ok(())
}

pub(super) fn add_users(vm: &mut Vm) -> Result<()> {
    vm.sh("printf 'ann:x:1000:100::/home/ann:/bin/sh\nhomeless:x:1001:100::/home/homeless:/bin/sh\n\
         fixed:x:1002:100::/home/fixed:/bin/sh\n' >>/etc/passwd; mkdir -p /home/ann; chown 1000:100 /home/ann")
        .map(drop)
}

/// Whether another user becomes `ann` with this password.
fn check_login(vm: &mut Vm, password: &str, is_let_in: bool) -> Result<()> {
    let script = format!("su homeless -c \"cd /; echo '{password}' | /bin/su ann -c id\" 2>&1 || true");
    let said = vm.sh(&script)?;
    ensure!(said.contains("uid=1000(ann)") == is_let_in, "{password}: {said}");
    Ok(())
}

type Answer<T> = std::result::Result<T, Error>;

fn get(agent: &mut Client<Recorded>, username: &str) -> Answer<Vec<String>> {
    agent.call(&GetAuthorizedKeys { username: username.into() }, soon()).map(|reply| reply.keys)
}

fn add(agent: &mut Client<Recorded>, username: &str, keys: &[&str]) -> Answer<()> {
    let keys = keys.iter().map(ToString::to_string).collect();
    agent.call(&AddAuthorizedKeys { username: username.into(), keys, reset: None }, soon()).map(drop)
}

fn reset(agent: &mut Client<Recorded>, username: &str, keys: &[&str]) -> Answer<()> {
    let keys = keys.iter().map(ToString::to_string).collect();
    agent.call(&AddAuthorizedKeys { username: username.into(), keys, reset: Some(true) }, soon()).map(drop)
}

fn remove(agent: &mut Client<Recorded>, username: &str, keys: &[&str]) -> Answer<()> {
    let keys = keys.iter().map(ToString::to_string).collect();
    agent.call(&RemoveAuthorizedKeys { username: username.into(), keys }, soon()).map(drop)
}

fn set_password(agent: &mut Client<Recorded>, username: &str, password: &str, crypted: bool) -> Answer<()> {
    let password = password.as_bytes().to_vec().into();
    agent.call(&SetUserPassword { username: username.into(), password, crypted }, soon()).map(drop)
}

fn check_refused(answer: Answer<()>, desc: &str) -> Result<()> {
    match answer {
        Err(Error::Refused { desc: found, .. }) => ensure!(found == desc, "{found:?} instead of {desc:?}"),
        other => anyhow::bail!("{other:?} instead of {desc:?}"),
    }
    Ok(())
}
