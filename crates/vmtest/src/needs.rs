//! What a VM needs from the host.
//!
//! All needs are looked up before anything boots. Everything that is missing is reported at once, with how to get it.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, anyhow, ensure};

use crate::kernel::Kernel;

/// Debian's agent. Tests compare ours with it if it is installed.
const REFERENCE: &str = "/usr/sbin/qemu-ga";

/// The files that a VM is made of.
#[derive(Clone, Debug)]
pub struct Needs {
    /// The emulator.
    pub qemu: PathBuf,
    /// The kernel to boot.
    pub kernel: Kernel,
    /// The guest's shell and tools, linked statically.
    pub busybox: PathBuf,
    /// The guest's init.
    pub init: PathBuf,
    /// The agent under test: the program named by `QGAD`, or else the one built beside this program.
    pub agent: PathBuf,
    /// Debian's agent, if it is installed.
    pub reference: Option<PathBuf>,
}

impl Needs {
    /// Finds all of them.
    ///
    /// # Errors
    /// What is missing, a sentence each.
    pub fn collect() -> Result<Self, Vec<String>> {
        let mut missing = Vec::new();
        let mut note = |found: Result<PathBuf>| match found {
            Ok(path) => path,
            Err(error) => {
                missing.push(error.to_string());
                PathBuf::new()
            }
        };
        let qemu = note(on_path("qemu-system-x86_64", "run tools/install-needs vm"));
        let busybox = note(on_path("busybox", "run tools/install-needs vm"));
        let init = note(beside_us("vmtest-guest"));
        let agent = note(agent());
        let kernel = Kernel::find(&target_directory().join("vmtest/kernel"));
        let reference = Some(PathBuf::from(REFERENCE)).filter(|path| path.exists());
        match kernel {
            Ok(kernel) if missing.is_empty() => Ok(Self { qemu, kernel, busybox, init, agent, reference }),
            Ok(_) => Err(missing),
            Err(error) => {
                missing.push(error.to_string());
                Err(missing)
            }
        }
    }
}

/// The disk with Debian that `tools/make-debian` made.
///
/// # Errors
/// If there is none: what to do, or why it could not be made.
pub fn debian_disk() -> Result<PathBuf, String> {
    let tool = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tools/make-debian");
    let found = Command::new(&tool).arg("--find").output();
    let found = found.map_err(|error| format!("failed to run {}: {error}", tool.display()))?;
    let said = |text: &[u8]| String::from_utf8_lossy(text).trim().to_owned();
    if found.status.success() { Ok(said(&found.stdout).into()) } else { Err(said(&found.stderr)) }
}

/// Packages of the agent under test.
#[derive(Clone, Debug)]
pub struct Packages {
    /// For Debian.
    pub deb: PathBuf,
    /// For the Red Hat family.
    pub rpm: PathBuf,
}

/// Packages of the agent under test, in this directory, as `tools/package` makes them.
///
/// # Errors
/// When one cannot be made: why.
pub fn packages(needs: &Needs, directory: &Path) -> Result<Packages> {
    let tool = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tools/package");
    let mut command = Command::new(&tool);
    command.args(["deb", "rpm"]).env("QGAD", &needs.agent).env("QGACTL", beside_us("qgactl")?);
    let made = command.env("QGAD_PACKAGES", directory).output();
    let made = made.with_context(|| format!("failed to run {}", tool.display()))?;
    ensure!(made.status.success(), "{} failed: {}", tool.display(), String::from_utf8_lossy(&made.stderr).trim());
    let find = |kind: &str| {
        let packages = directory.read_dir()?.filter_map(|entry| Some(entry.ok()?.path()));
        let mut packages = packages.filter(|path| path.extension().is_some_and(|extension| extension == kind));
        packages.next().with_context(|| format!("{} has made no .{kind}", tool.display()))
    };
    Ok(Packages { deb: find("deb")?, rpm: find("rpm")? })
}

/// The folder of the test or run of this name, below cargo's target directory.
pub fn run_folder(name: &str) -> PathBuf {
    target_directory().join("vmtest/runs").join(name)
}

/// The host's tool, built beside this program.
///
/// # Errors
/// When it is not there: what to do.
pub fn tool() -> Result<PathBuf> {
    beside_us("qgactl")
}

fn agent() -> Result<PathBuf> {
    let Some(named) = env::var_os("QGAD").map(PathBuf::from) else { return beside_us("qgad") };
    if named.exists() { Ok(named) } else { Err(anyhow!("no {} (named by QGAD)", named.display())) }
}

fn on_path(program: &str, how: &str) -> Result<PathBuf> {
    env::split_paths(&env::var_os("PATH").unwrap_or_default())
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
        .with_context(|| format!("no {program} on the path ({how})"))
}

/// A program in the directory of this one or, for a test, in its parent: where cargo puts them.
fn beside_us(program: &str) -> Result<PathBuf> {
    let us = env::current_exe()?;
    us.ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
        .with_context(|| format!("no {program} beside {} (run cargo build --workspace)", us.display()))
}

/// Cargo's target directory, found as `tools/fetch-kernel` finds it.
fn target_directory() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let named = env::var_os("CARGO_TARGET_DIR").filter(|named| !named.is_empty());
    workspace.join(named.unwrap_or_else(|| "target".into()))
}
