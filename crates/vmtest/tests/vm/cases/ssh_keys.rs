//! Keys files in homes that belong to the user, to root, or partly to each, and what a hostile user puts there.
//!
//! What sshd accepts in the end is decided as sshd(8) describes it for `StrictModes`: it reads the file with the user's
//! rights, and file, directory and home must belong to the user or root and be writable by nobody else.

use anyhow::{Context, Result, bail, ensure};
use qga::{
    client::{Client, Error},
    commands::ssh::{AddAuthorizedKeys, GetAuthorizedKeys, RemoveAuthorizedKeys},
};
use vmtest::{
    transcript::Recorded,
    vm::{Builder, Vm},
};

use super::{answered, soon};

/// Owner and mode. [`LINK`] is one of the user's to what only root can read, [`ABSENT`] is nothing.
const HOMES: [&str; 5] = ["ann 755", "ann 700", "root 755", "root 711", UNREACHABLE];
const DIRECTORIES: [&str; 6] = [ABSENT, "ann 700", "ann 755", "root 755", "root 700", LINK];
const FILES: [&str; 5] = [ABSENT, "ann 600", "root 644", "root 600", LINK];
const ABSENT: &str = "absent";
const LINK: &str = "link";
/// A home that the user cannot enter, so that sshd cannot read what is in it.
const UNREACHABLE: &str = "root 700";

const OLD: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl old";
const NEW: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBvqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl new";
/// In a file of the system's.
const SYSTEMS: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl system";
const SECRET: &str = "root:$6$salt$hash:19000:0:99999:7:::";
const DENIED: &str = "Permission denied";

/// Enough to meet each moment of an exchange of directories.
const EXCHANGED_REQUESTS: usize = 200;

/// What no request may change.
const SYSTEM: &str = "cd /etc; stat -c '%n %i %a %u %g' keys keys/*; ls -A keys; cat keys/*; ls -A /etc";

pub(crate) fn of_every_owner_and_mode(builder: Builder<'_>) -> Result<()> {
    let mut vm = builder.boot()?;
    prepare(&mut vm)?;
    let mut agent = answered(&vm)?;
    let before = vm.sh(SYSTEM)?;
    for home in HOMES {
        for directory in DIRECTORIES {
            for file in FILES {
                if file == ABSENT || ![ABSENT, LINK].contains(&directory) {
                    check(&mut vm, &mut agent, [home, directory, file])
                        .with_context(|| format!("home {home}, directory {directory}, file {file}"))?;
                }
            }
        }
    }
    ensure!(vm.sh(SYSTEM)? == before, "the system's files changed");
    Ok(())
}

/// Adds a key to a file, and removes what was there before and what was added.
fn check(vm: &mut Vm, agent: &mut Client<Recorded>, [home, directory, file]: [&str; 3]) -> Result<()> {
    set_up(vm, [home, directory, file])?;
    let leads_astray = directory == LINK || file == LINK;
    let exists = file != ABSENT && !leads_astray;
    let keys = get(agent).ok();
    ensure!(keys.as_deref() == exists.then(|| vec![OLD.to_owned()]).as_deref(), "{keys:?} before");

    let added = add(agent, NEW, false);
    if leads_astray || home == UNREACHABLE {
        ensure!(added.is_err(), "the key was added");
    } else {
        added?;
        let looks = vm.sh("sh /run/looks")?;
        let directory = match directory {
            ABSENT => "ann 700",
            "root 700" => "root 711",
            kept => kept,
        };
        let file = if directory.starts_with("root") && file.starts_with("root") { "root 644" } else { "ann 600" };
        let old = if exists { format!("{OLD}\n") } else { String::new() };
        let expected = format!("{home}\n{directory}\n{file}\n{old}{NEW}\naccepted");
        ensure!(looks == expected, "{looks}\ninstead of\n{expected}");
    }

    let removed =
        agent.call(&RemoveAuthorizedKeys { username: "ann".into(), keys: vec![OLD.into(), NEW.into()] }, soon());
    ensure!(removed.is_ok() != leads_astray, "{removed:?} after a removal");
    if exists {
        let keys = get(agent)?;
        ensure!(keys.is_empty(), "{keys:?} after a removal");
    }
    Ok(())
}

pub(crate) fn of_hostile_users(builder: Builder<'_>) -> Result<()> {
    let mut vm = builder.boot()?;
    prepare(&mut vm)?;
    let mut agent = answered(&vm)?;
    let before = vm.sh(SYSTEM)?;

    // A secret that has lost its other name, and keys that have another name.
    for planted in [format!("echo '{SECRET}' >authorized_keys"), "ln /etc/keys/authorized_keys .".to_owned()] {
        set_up(&mut vm, ["ann 755", "ann 700", ABSENT])?;
        vm.sh(&format!("cd /home/ann/.ssh; {planted}; chmod 600 authorized_keys"))?;
        check_refused(get(&mut agent), DENIED)?;
        check_refused(add(&mut agent, NEW, false), DENIED)?;
        add(&mut agent, NEW, true)?;
        ensure!(get(&mut agent)? == [NEW]);
    }

    // Lines of another form are no secret if the user can read them.
    set_up(&mut vm, ["ann 755", "root 755", "root 644"])?;
    vm.sh("echo odd line >>/home/ann/.ssh/authorized_keys")?;
    add(&mut agent, NEW, false)?;
    ensure!(get(&mut agent)? == [NEW, "odd line", OLD]);

    // A directory of root's that the user has renamed: what it keeps from users stays kept.
    set_up(&mut vm, ["ann 755", "root 700", ABSENT])?;
    vm.sh("cd /home/ann/.ssh; echo secret >note; chmod 644 note")?;
    let cause = "user 'ann' has no access to '/home/ann/.ssh', and so sshd has none";
    check_refused(add(&mut agent, NEW, false), cause)?;
    assert_eq!(vm.sh("cd /home/ann; stat -c %a .ssh; ls -A .ssh")?, "700\nnote");

    // Directories that others can change, of others, or on a way that others can change.
    for changed in ["chmod 777 /home", "chmod 1777 /home", "chown 1001 /home", "chmod 775 /home/ann", "chown 1001 .ssh"]
    {
        set_up(&mut vm, ["root 755", "root 755", "root 600"])?;
        vm.sh(&format!("cd /home/ann; {changed}"))?;
        check_refused(get(&mut agent), DENIED)?;
        vm.sh("chown 0 /home; chmod 755 /home")?;
    }

    // Links on the way that only root can change lead to a home.
    set_up(&mut vm, ["root 755", "root 755", "root 600"])?;
    vm.sh("mkdir -p /var/people; mv /home/ann /var/people/; ln -s ../var/people/ann /home/ann")?;
    add(&mut agent, NEW, false)?;
    ensure!(get(&mut agent)? == [NEW, OLD]);
    vm.sh("rm -r /home/ann /var/people")?;

    exchange_directories(&mut vm, &mut agent)?;
    ensure!(vm.sh(SYSTEM)? == before, "the system's files changed");
    Ok(())
}

/// Requests while the user puts a directory of root's, an own one and links in each other's place.
fn exchange_directories(vm: &mut Vm, agent: &mut Client<Recorded>) -> Result<()> {
    set_up(vm, ["ann 755", "root 755", "root 600"])?;
    let exchange = "cd /home/ann; touch began; while :; do mv -T .ssh kept; ln -s /etc/keys .ssh; rm -rf .ssh; \
                    mkdir .ssh; ln -s /etc/keys/authorized_keys .ssh/; rm -rf .ssh; mv -T kept .ssh; done";
    vm.sh(&format!("su ann -c '{exchange}' </dev/null >/dev/null 2>&1 & echo $! >/run/exchange"))?;
    vm.wait_until("test -e /home/ann/began")?;
    for request in 0..EXCHANGED_REQUESTS {
        // Whether one succeeds depends on the moment.
        let _ = add(agent, NEW, request % 2 == 0);
        let keys = get(agent).unwrap_or_default();
        ensure!(!keys.contains(&SYSTEMS.to_owned()), "{keys:?}");
    }
    vm.sh("kill $(cat /run/exchange)")?;
    vm.wait_until("! kill -0 $(cat /run/exchange) 2>/dev/null")?;
    let readable = vm.sh("su ann -c 'cd /home/ann; cat */authorized_keys .ssh/authorized_keys' 2>/dev/null; true")?;
    ensure!(!readable.contains(SYSTEMS), "{readable}");
    Ok(())
}

/// Users, files of the system's, and a script that tells how a keys file looks and whether sshd accepts it.
fn prepare(vm: &mut Vm) -> Result<()> {
    // The kernel makes the root of an initramfs writable for all, unlike that of a disk.
    vm.sh("chmod 755 /")?;
    vm.sh("printf 'ann:x:1000:100::/home/ann:/bin/sh\nbob:x:1001:100::/home/bob:/bin/sh\n' >>/etc/passwd")?;
    vm.sh(&format!("mkdir -p /home /etc/keys; echo '{SYSTEMS}' >/etc/keys/authorized_keys; chmod 600 /etc/keys/*"))?;
    let looks = "cd /home; for one in ann ann/.ssh ann/.ssh/authorized_keys; do stat -c '%U %a' $one\n\
         test $((0$(stat -c %a $one) & 022)) = 0 || exit\n\
         case $(stat -c %u $one) in 0|1000) ;; *) exit ;; esac; done\n\
         su ann -c 'cat /home/ann/.ssh/authorized_keys' && echo accepted";
    vm.sh(&format!("cat >/run/looks <<'END'\n{looks}\nEND")).map(drop)
}

fn set_up(vm: &mut Vm, [home, directory, file]: [&str; 3]) -> Result<()> {
    let directory = match directory {
        ABSENT => String::new(),
        LINK => "ln -s /etc/keys .ssh".into(),
        _ => format!("mkdir .ssh; {}", own(".ssh", directory)),
    };
    let file = match file {
        ABSENT => String::new(),
        LINK => "ln -s /etc/keys/authorized_keys .ssh/".into(),
        _ => format!("echo '{OLD}' >.ssh/authorized_keys; {}", own(".ssh/authorized_keys", file)),
    };
    let home = own(".", home);
    vm.sh(&format!("rm -rf /home/ann; mkdir /home/ann; cd /home/ann; {directory}\n{file}\n{home}")).map(drop)
}

fn own(path: &str, owner_and_mode: &str) -> String {
    let (owner, mode) = owner_and_mode.split_once(' ').unwrap_or_default();
    format!("chown {owner} {path}; chmod {mode} {path}")
}

type Answer<T> = std::result::Result<T, Error>;

fn get(agent: &mut Client<Recorded>) -> Answer<Vec<String>> {
    agent.call(&GetAuthorizedKeys { username: "ann".into() }, soon()).map(|reply| reply.keys)
}

fn add(agent: &mut Client<Recorded>, key: &str, reset: bool) -> Answer<()> {
    let command = AddAuthorizedKeys { username: "ann".into(), keys: vec![key.into()], reset: Some(reset) };
    agent.call(&command, soon()).map(drop)
}

fn check_refused<T: std::fmt::Debug>(answer: Answer<T>, cause: &str) -> Result<()> {
    match answer {
        Err(Error::Refused { desc, .. }) if desc.ends_with(cause) => Ok(()),
        other => bail!("{other:?} instead of a refusal: {cause}"),
    }
}
