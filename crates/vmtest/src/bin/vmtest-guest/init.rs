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
    errno::Errno,
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

/// Brings the guest up, and serves the control channel until the host closes it. Starts the agent if there is a command
/// line for it.
pub(crate) fn run(agent: &[String]) -> Result<()> {
    mount_file_systems()?;
    symlink("/proc/self/fd", "/dev/fd")?;
    sethostname(fs::read_to_string("/etc/hostname")?.trim())?;
    // Before the modules are loaded: the kernel announces a device once.
    let watch = links::Watch::new()?;
    load_modules(Path::new(MODULE_LIST))?;
    let port = control_port();
    watch.wait_for(&port)?;
    thread::spawn(move || watch.run());
    if !agent.is_empty() {
        service::start(agent.to_vec())?;
    }
    serve()
}

/// Serves the control channel until the host closes it.
pub(crate) fn serve() -> Result<()> {
    let port = control_port();
    let opened = File::options().read(true).write(true).open(&port);
    let port = opened.with_context(|| format!("failed to open {}", port.display()))?;
    control::serve(port.try_clone()?, port)
}

fn control_port() -> PathBuf {
    Path::new(links::DIRECTORY).join(PORT_NAME)
}

/// Mounts the file systems of the kernel and in memory.
pub(crate) fn mount_file_systems() -> Result<()> {
    for (kind, mount_point) in FILE_SYSTEMS {
        mount(Some(*kind), *mount_point, Some(*kind), MsFlags::empty(), None::<&str>)
            .with_context(|| format!("failed to mount {mount_point}"))?;
    }
    Ok(())
}

/// Loads the modules of a list in its order. A module that is loaded already is no failure.
pub(crate) fn load_modules(list: &Path) -> Result<()> {
    let paths = fs::read_to_string(list).with_context(|| format!("failed to read {}", list.display()))?;
    paths.lines().try_for_each(|path| load(path).with_context(|| format!("failed to load {path}")))
}

fn load(path: &str) -> Result<()> {
    match finit_module(File::open(path)?, &CString::default(), ModuleInitFlags::empty()) {
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
