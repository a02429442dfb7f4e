//! The guest's init, a client for vsock, and the guest described in text.
//!
//! As process 1 it only collects ended processes: the work is done by another process of this program, whose end powers
//! the VM off. `vmtest-guest vsock CID PORT` connects its input and output to a vsock address;
//! `vmtest-guest capture` prints what [`vmtest::capture`] finds.

mod init;
mod links;
mod service;
mod vsock;

use std::{env, process::Command};

use anyhow::{Result, bail};
use nix::{
    errno::Errno,
    sys::{
        reboot::{RebootMode, reboot},
        wait::wait,
    },
};

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if std::process::id() == 1 {
        return reap(&arguments);
    }
    match arguments.split_first() {
        Some((mode, agent)) if mode == "init" => init::run(agent),
        Some((mode, address)) if mode == "vsock" => vsock::connect(address),
        Some((mode, [])) if mode == "capture" => {
            print!("{}", vmtest::capture::machine("/".as_ref())?);
            Ok(())
        }
        _ => bail!("usage: vmtest-guest vsock CID PORT | vmtest-guest capture"),
    }
}

/// Starts the real init and collects every process that ends, until the real init does.
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
