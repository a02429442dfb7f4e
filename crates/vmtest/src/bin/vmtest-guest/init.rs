//! Brings the guest up: file systems, modules, links to ports, the agent, the control channel.

use std::{
    ffi::CString,
    fs::{self, File},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    thread,
};

use anyhow::{Context, Result};
use nix::{
    kmod::{ModuleInitFlags, finit_module},
    mount::{MsFlags, mount},
    unistd::sethostname,
};
use vmtest::{
    control::{self, PORT_NAME},
    image::MODULE_LIST,
};

use crate::{links, service};

const FILE_SYSTEMS: &[(&str, &str)] =
    &[("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev"), ("tmpfs", "/run"), ("tmpfs", "/tmp")];

/// Runs until the host is gone. The agent is started if its command line is given.
pub(crate) fn run(agent: &[String]) -> Result<()> {
    mount_file_systems()?;
    symlink("/proc/self/fd", "/dev/fd")?;
    sethostname(fs::read_to_string("/etc/hostname")?.trim())?;
    // Before the modules: their devices are announced to whoever listens.
    let watch = links::Watch::new()?;
    load_modules()?;
    let port = control_port();
    watch.wait_for(&port)?;
    thread::spawn(move || watch.run());
    if !agent.is_empty() {
        service::start(agent.to_vec())?;
    }
    serve()
}

/// Serves the control channel, until the host is gone.
pub(crate) fn serve() -> Result<()> {
    let port = control_port();
    let opened = File::options().read(true).write(true).open(&port);
    let port = opened.with_context(|| format!("failed to open {}", port.display()))?;
    control::serve(port.try_clone()?, port)
}

fn control_port() -> PathBuf {
    Path::new(links::DIRECTORY).join(PORT_NAME)
}

/// Mounts what the kernel keeps for every init.
pub(crate) fn mount_file_systems() -> Result<()> {
    for (kind, place) in FILE_SYSTEMS {
        mount(Some(*kind), *place, Some(*kind), MsFlags::empty(), None::<&str>)
            .with_context(|| format!("failed to mount {place}"))?;
    }
    Ok(())
}

/// Loads the modules on the list.
pub(crate) fn load_modules() -> Result<()> {
    for path in fs::read_to_string(MODULE_LIST)?.lines() {
        load(path).with_context(|| format!("failed to load {path}"))?;
    }
    Ok(())
}

fn load(path: &str) -> Result<()> {
    Ok(finit_module(File::open(path)?, &CString::default(), ModuleInitFlags::empty())?)
}
