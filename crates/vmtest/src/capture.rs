//! A machine's disks, mounts, processors, memory blocks and figures as text, as qgad reads them.
//!
//! The text is what tests lay out as a fake machine (`crates/qgad/src/root/fixture.rs` describes its form). It has the
//! kernel's links and files of block devices and of their PCI functions, the list of mounts, the serials and names of
//! udev's database, the switches and states of processors and memory, the figures that monitoring asks for, and the
//! names of network interfaces. Nothing else of the machine is in it. A report that contains the text reveals names of
//! volumes, mount points and serials.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

/// The kernel's files with the figures of memory, pressure, load and networks, and when it was booted.
const FIGURES: [&str; 8] = [
    "proc/loadavg",
    "proc/meminfo",
    "proc/net/dev",
    "proc/pressure/cpu",
    "proc/pressure/io",
    "proc/pressure/memory",
    "proc/sys/kernel/random/boot_id",
    "proc/uptime",
];

/// Describes the machine whose `/` is this directory.
///
/// # Errors
/// When it has no list of block devices.
pub fn machine(root: &Path) -> Result<String> {
    let mut capture = Capture { root, entries: BTreeMap::new() };
    for path in ["proc/self/mountinfo", "proc/diskstats"].iter().chain(&FIGURES) {
        capture.file(Path::new(path));
    }
    for directory in ["sys/block", "sys/dev/block"] {
        for name in capture.names(Path::new(directory)).with_context(|| format!("failed to list /{directory}"))? {
            let link = Path::new(directory).join(name);
            // An agent skips devices of size 0, and there are many.
            if fs::read(root.join(&link).join("size")).is_ok_and(|size| size.trim_ascii() == b"0") {
                continue;
            }
            capture.link(&link);
            if let Ok(device) = root.join(&link).canonicalize() {
                capture.device(device.strip_prefix(root)?);
            }
        }
    }
    let subsystems = Path::new("sys/devices/virtual/nvme-subsystem");
    for subsystem in capture.names(subsystems).unwrap_or_default() {
        let subsystem = subsystems.join(subsystem);
        let controllers =
            capture.names(&subsystem).unwrap_or_default().into_iter().filter(|name| name.starts_with("nvme"));
        controllers.for_each(|name| capture.link(&subsystem.join(name)));
    }
    for name in capture.names(Path::new("run/udev/data")).unwrap_or_default() {
        if name.starts_with('b') {
            capture.database(&Path::new("run/udev/data").join(name));
        }
    }
    capture.processors();
    capture.memory();
    capture.interfaces();
    Ok(capture.entries.into_iter().map(|(path, what)| format!("{}{what}\n", path.display())).collect())
}

/// The entries by their paths without the first slash: a link, a file or a directory, in the form of the text.
struct Capture<'a> {
    root: &'a Path,
    entries: BTreeMap<PathBuf, String>,
}

impl Capture<'_> {
    /// A block device, and the PCI functions above it.
    fn device(&mut self, path: &Path) {
        for name in ["uevent", "size", "serial"] {
            self.file(&path.join(name));
        }
        let slaves = path.join("slaves");
        if let Ok(names) = self.names(&slaves) {
            if names.is_empty() {
                self.entries.insert(slaves, "/".into());
            } else {
                names.iter().for_each(|name| self.link(&slaves.join(name)));
            }
        }
        for function in path.ancestors().filter(|path| is_pci_function(path)) {
            self.link(&function.join("driver"));
            let ports = self.names(function).unwrap_or_default().into_iter().filter(|name| is_port(name));
            for port in ports {
                self.entries.entry(function.join(port)).or_insert_with(|| "/".into());
            }
        }
    }

    /// Directories whose names begin with `cpu`, their switches, and the processor times.
    fn processors(&mut self) {
        let processors = Path::new("sys/devices/system/cpu");
        for name in self.names(processors).unwrap_or_default().into_iter().filter(|name| name.starts_with("cpu")) {
            let directory = processors.join(name);
            self.file(&directory.join("online"));
            if !self.entries.contains_key(&directory.join("online")) {
                self.entries.insert(directory, "/".into());
            }
        }
        if let Ok(content) = fs::read_to_string(self.root.join("proc/stat")) {
            let is_read = |line: &&str| ["cpu", "processes", "procs_"].iter().any(|name| line.starts_with(name));
            let read: String = content.lines().filter(is_read).map(|line| format!("{line}\n")).collect();
            self.entries.insert("proc/stat".into(), lines(&read));
        }
    }

    fn memory(&mut self) {
        let memory = Path::new("sys/devices/system/memory");
        self.file(&memory.join("block_size_bytes"));
        for name in self.names(memory).unwrap_or_default().into_iter().filter(|name| name.starts_with("memory")) {
            self.file(&memory.join(&name).join("state"));
            self.file(&memory.join(&name).join("removable"));
        }
    }

    /// Links to the devices of network interfaces; those that have none are directories without it.
    fn interfaces(&mut self) {
        let interfaces = Path::new("sys/class/net");
        for name in self.names(interfaces).unwrap_or_default() {
            let directory = interfaces.join(name);
            self.link(&directory.join("device"));
            if !self.entries.contains_key(&directory.join("device")) {
                self.entries.insert(directory, "/".into());
            }
        }
    }

    fn link(&mut self, path: &Path) {
        if let Ok(target) = fs::read_link(self.root.join(path)) {
            self.entries.insert(path.into(), format!(" -> {}", target.display()));
        }
    }

    fn file(&mut self, path: &Path) {
        if let Ok(content) = fs::read(self.root.join(path)) {
            self.entries.insert(path.into(), lines(&String::from_utf8_lossy(&content)));
        }
    }

    /// The properties of udev's database that an agent reports.
    fn database(&mut self, path: &Path) {
        let Ok(content) = fs::read(self.root.join(path)) else { return };
        let content = String::from_utf8_lossy(&content);
        let reported =
            content.lines().filter(|line| ["E:ID_SERIAL=", "E:DM_NAME="].iter().any(|key| line.starts_with(key)));
        let reported: String = reported.map(|line| format!("{line}\n")).collect();
        self.entries.insert(path.into(), lines(&reported));
    }

    fn names(&self, path: &Path) -> io::Result<Vec<String>> {
        let entries = fs::read_dir(self.root.join(path))?;
        let mut names: Vec<_> = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
        names.sort();
        Ok(names)
    }
}

/// Such as `0000:00:1f.2`.
fn is_pci_function(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.matches(':').count() == 2 && name.contains('.')
}

fn is_port(name: &str) -> bool {
    let number = name.strip_prefix("ata").or_else(|| name.strip_prefix("host"));
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// A file's content, in the form that follows its path.
fn lines(content: &str) -> String {
    let mut lines = content.lines();
    match (lines.next(), lines.next()) {
        (None, _) => ":".into(),
        (Some(only), None) if !only.is_empty() => format!(": {only}"),
        _ => content.lines().fold(":".into(), |text, line| format!("{text}\n| {line}")),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_is_read_is_captured_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        let write = |path: &str, content: &str| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        };
        let function = "sys/devices/pci0000:00/0000:00:01.1";
        let disk = format!("{function}/ata1/host0/target0:0:0/0:0:0:0/block/sda");
        write("proc/self/mountinfo", "1 2 8:0 / / rw - ext4 /dev/sda rw\n2 1 0:5 / /dev rw - devtmpfs x rw\n");
        write(&format!("{disk}/uevent"), "MAJOR=8\nMINOR=0\n");
        write(&format!("{disk}/size"), "2048\n");
        write(&format!("{disk}/stat"), "1 2 3\n");
        write("proc/stat", "cpu  5 6\ncpu0 5 6\nintr 7\nprocesses 8\nprocs_running 9\n");
        write("proc/meminfo", "MemTotal: 1 kB\nMemFree: 2 kB\n");
        write("proc/uptime", "1.50 2.00\n");
        write("sys/class/net/lo/mtu", "65536\n");
        write("sys/class/net/eth0/mtu", "1500\n");
        write("sys/devices/system/cpu/cpu1/online", "1\n");
        write("sys/devices/system/cpu/cpu1/crash_notes", "1\n");
        write("sys/devices/system/cpu/cpu0/crash_notes", "1\n");
        write("sys/devices/system/memory/memory3/state", "going-offline\n");
        write("sys/devices/system/memory/memory3/removable", "1\n");
        write("sys/devices/system/memory/memory3/valid_zones", "none\n");
        write("sys/devices/system/memory/block_size_bytes", "8000000\n");
        write("run/udev/data/b8:0", "S:disk/by-id/x\nE:ID_SERIAL=one\n");
        write("run/udev/data/c1:3", "E:ID_SERIAL=two\n");
        fs::create_dir(root.join(&disk).join("slaves")).unwrap();
        fs::create_dir_all(root.join("sys/block")).unwrap();
        fs::create_dir_all(root.join("sys/dev/block")).unwrap();
        symlink("../../../bus/pci/drivers/ata_piix", root.join(function).join("driver")).unwrap();
        symlink(format!("../{}", &disk[4..]), root.join("sys/block/sda")).unwrap();
        symlink("../../../virtio0", root.join("sys/class/net/eth0/device")).unwrap();
        let expected = format!(
            "proc/meminfo:\n| MemTotal: 1 kB\n| MemFree: 2 kB\n\
             proc/self/mountinfo:\n| 1 2 8:0 / / rw - ext4 /dev/sda rw\n| 2 1 0:5 / /dev rw - devtmpfs x rw\n\
             proc/stat:\n| cpu  5 6\n| cpu0 5 6\n| processes 8\n| procs_running 9\n\
             proc/uptime: 1.50 2.00\n\
             run/udev/data/b8:0: E:ID_SERIAL=one\n\
             sys/block/sda -> ../{}\n\
             sys/class/net/eth0/device -> ../../../virtio0\n\
             sys/class/net/lo/\n\
             {function}/ata1/\n\
             {disk}/size: 2048\n\
             {disk}/slaves/\n\
             {disk}/uevent:\n| MAJOR=8\n| MINOR=0\n\
             {function}/driver -> ../../../bus/pci/drivers/ata_piix\n\
             sys/devices/system/cpu/cpu0/\n\
             sys/devices/system/cpu/cpu1/online: 1\n\
             sys/devices/system/memory/block_size_bytes: 8000000\n\
             sys/devices/system/memory/memory3/removable: 1\n\
             sys/devices/system/memory/memory3/state: going-offline\n",
            &disk[4..]
        );
        assert_eq!(machine(root).unwrap(), expected);
    }

    #[test]
    fn a_machine_without_block_devices_is_refused() {
        let error = machine(tempfile::tempdir().unwrap().path()).unwrap_err();
        assert_eq!(error.to_string(), "failed to list /sys/block");
    }
}
