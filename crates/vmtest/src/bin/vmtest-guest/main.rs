//! The guest's init, a client for vsock, and the guest described in text.
//!
//! As process 1 it only reaps processes. Another process of this program does the work, and its end powers the VM off.
//! If a test wants busybox's init, that becomes process 1. If there is a payload for a disk, it is installed, and the
//! disk's init becomes process 1.
//! `vmtest-guest control` serves the control channel of the guest on a disk. `load-modules LIST` loads the modules on a
//! list. `vsock CID PORT` connects its input and output to a vsock address. `write-from-fuse DIRECTORY FILE` has a user
//! keep a freeze waiting. `capture` prints what [`vmtest::capture`] finds.

mod disk;
mod fuse;
mod init;
mod links;
mod service;
mod vsock;

use std::{env, fs, os::unix::process::CommandExt, path::Path, process::Command};

use anyhow::{Result, bail, ensure};
use nix::{
    errno::Errno,
    sys::{
        reboot::{RebootMode, reboot},
        wait::wait,
    },
};
use vmtest::{image::PAYLOAD, vm::INIT_VARIABLE};

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if std::process::id() == 1 {
        if Path::new(PAYLOAD).exists() {
            disk::hand_over(arguments.first().map(String::as_str))?;
        }
        return match env::var(INIT_VARIABLE) {
            Ok(init) => give_way(&init, &arguments),
            Err(_) => reap(&arguments),
        };
    }
    match arguments.split_first() {
        Some((mode, agent)) if mode == "init" => init::run(agent),
        Some((mode, address)) if mode == "vsock" => vsock::connect(address),
        Some((mode, [directory, file])) if mode == "write-from-fuse" => {
            fuse::write_from(Path::new(directory), Path::new(file))
        }
        Some((mode, [])) if mode == "control" => init::serve(),
        Some((mode, [list])) if mode == "load-modules" => init::load_modules(Path::new(list)),
        Some((mode, [])) if mode == "capture" => {
            print!("{}", vmtest::capture::machine("/".as_ref())?);
            Ok(())
        }
        _ => bail!(
            "usage: vmtest-guest control | load-modules LIST | vsock CID PORT | write-from-fuse DIRECTORY FILE | \
             capture"
        ),
    }
}

/// Replaces process 1 by busybox's init, which starts the working process.
fn give_way(init: &str, agent: &[String]) -> Result<()> {
    ensure!(init == "busybox", "there is no init {init}");
    fs::write("/etc/inittab", format!("::once:/init init {}\n", agent.join(" ")))?;
    Err(Command::new("/bin/busybox").arg0("init").exec().into())
}

/// Starts the working process and reaps every process until that one ends.
fn reap(agent: &[String]) -> Result<()> {
    // There is no /proc yet to find this program by.
    let init = Command::new("/init").arg("init").args(agent).spawn()?;
    loop {
        match wait() {
            Ok(status) if status.pid().is_some_and(|pid| pid.as_raw().unsigned_abs() == init.id()) => break,
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    eprintln!("vmtest: init ended, powering off");
    reboot(RebootMode::RB_POWER_OFF)?;
    Ok(())
}
