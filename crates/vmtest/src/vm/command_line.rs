//! QEMU's command line for a VM.
//!
//! QEMU connects to the sockets for QMP and for the control channel, so that a test waits for it and not the other way
//! round. The agent's socket is QEMU's own: a host may connect, leave and come back.

use std::path::PathBuf;

use super::{
    builder::{Builder, Transport},
    hot_plug::{self, AGENT_BUS, AGENT_CHARDEV},
};
use crate::control::PORT_NAME;

/// The agent's port in the guest.
pub const AGENT_PORT: &str = "org.qemu.guest_agent.0";

/// The second disk of a guest that has one.
const RESUME_DEVICE: &str = "vdb";
/// No self-tests and no keyboard detection, which take long on an emulated processor. No check of the timer, which
/// fails on a busy machine. A panic ends the VM.
const KERNEL_ARGUMENTS: &str =
    "console=ttyS0 quiet panic=-1 mitigations=off cryptomgr.notests i8042.noaux i8042.nokbd no_timer_check";
/// A microvm has no timer that could measure the frequency of the processor's clock. This is about right.
const MICROVM_KERNEL_ARGUMENT: &str = "tsc_early_khz=2000000";

/// The files that QEMU uses.
#[derive(Debug)]
pub(super) struct Paths {
    pub(super) console: PathBuf,
    pub(super) qmp_socket: PathBuf,
    pub(super) control_socket: PathBuf,
    pub(super) agent_socket: PathBuf,
}

impl Builder<'_> {
    /// QEMU's arguments.
    pub(super) fn command_line(&self, paths: &Paths) -> Vec<String> {
        let mut line: Vec<String> =
            ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"].map(Into::into).into();
        let mut option = |name: &str, value: String| line.extend([name.to_owned(), value]);
        option("-accel", self.accelerator.clone());
        option("-machine", self.machine.clone());
        option("-cpu", "max".into());
        option("-m", self.memory_mib.to_string());
        let kernel = if self.is_kernel_compressed { &self.image.compressed_kernel } else { &self.image.kernel };
        option("-kernel", kernel.display().to_string());
        option("-initrd", self.image.initramfs().display().to_string());
        option("-append", self.kernel_command_line());
        option("-serial", format!("file:{}", paths.console.display()));
        option("-chardev", format!("socket,id=qmp,path={}", paths.qmp_socket.display()));
        option("-mon", "chardev=qmp,mode=control".into());
        option(
            "-chardev",
            format!("socket,id={AGENT_CHARDEV},path={},server=on,wait=off", paths.agent_socket.display()),
        );
        option("-chardev", format!("socket,id=control,path={}", paths.control_socket.display()));
        for (index, disk) in self.disks().into_iter().enumerate() {
            option("-drive", format!("if=none,id=disk{index},cache=unsafe,{disk}"));
            option("-device", format!("{},drive=disk{index}", self.virtio("blk")));
        }
        option("-device", format!("{},id=control-bus", self.virtio("serial")));
        option("-device", format!("virtserialport,bus=control-bus.0,chardev=control,name={PORT_NAME}"));
        option("-device", format!("{},id={AGENT_BUS}", self.virtio("serial")));
        match self.transport {
            Transport::VirtioSerial if !self.has_port => {}
            Transport::VirtioSerial => option("-device", hot_plug::agent_port().to_string()),
            Transport::IsaSerial => option("-device", format!("isa-serial,chardev={AGENT_CHARDEV},index=1")),
        }
        line.extend(self.qemu_arguments.iter().cloned());
        line
    }

    /// The guest's own disk, then the one for swap: the guest finds them by their order.
    fn disks(&self) -> Vec<String> {
        let own = self.image.disk.iter().map(|disk| match &self.overlay {
            Some(overlay) => format!("format=qcow2,file={}", overlay.display()),
            None => format!("format=raw,snapshot=on,file={}", disk.display()),
        });
        own.chain(self.swap.iter().map(|swap| format!("format=raw,file={}", swap.display()))).collect()
    }

    /// QEMU's name of a virtio device: a `microvm` has no PCI bus.
    fn virtio(&self, kind: &str) -> String {
        format!("virtio-{kind}-{}", if self.is_microvm() { "device" } else { "pci" })
    }

    fn is_microvm(&self) -> bool {
        self.machine == "microvm"
    }

    /// Init gets everything after `--`: the device to resume from, or the agent's command line.
    fn kernel_command_line(&self) -> String {
        let mut arguments = [&[KERNEL_ARGUMENTS.into()], &self.kernel_arguments[..]].concat().join(" ");
        if self.is_microvm() {
            arguments = format!("{arguments} {MICROVM_KERNEL_ARGUMENT}");
        }
        if self.image.disk.is_some() {
            let resume = if self.swap.is_some() { RESUME_DEVICE } else { "" };
            return format!("{arguments} -- {resume}");
        }
        let Some(agent) = &self.agent else { return arguments };
        let channel = match self.transport {
            Transport::VirtioSerial => format!("--method virtio-serial --path /dev/virtio-ports/{AGENT_PORT}"),
            Transport::IsaSerial => "--method isa-serial --path /dev/ttyS1".into(),
        };
        let further = self.agent_arguments.join(" ");
        format!("{arguments} -- {agent} {channel} --statedir /run {further}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Image;

    /// QEMU's arguments, an option and its value in one string.
    fn options(builder: &Builder<'_>) -> Vec<String> {
        let paths = Paths {
            console: "/run/console.log".into(),
            qmp_socket: "/s/qmp".into(),
            control_socket: "/s/control".into(),
            agent_socket: "/s/agent".into(),
        };
        let builder = Builder { accelerator: "tcg".into(), ..builder.clone() };
        let line = builder.command_line(&paths);
        // These have no value.
        let flags =
            line.iter().filter(|word| ["-nodefaults", "-no-user-config", "-no-reboot"].contains(&word.as_str()));
        let flags: Vec<_> = flags.cloned().collect();
        let valued: Vec<_> = line.into_iter().filter(|word| !flags.contains(word)).collect();
        flags.into_iter().chain(valued.chunks(2).map(|option| option.join(" "))).collect()
    }

    fn check(builder: &Builder<'_>, expected: &[&str], absent: &[&str]) {
        let options = options(builder);
        for option in expected {
            assert!(options.iter().any(|found| found == option), "no {option} in {options:#?}");
        }
        for text in absent {
            assert!(!options.iter().any(|found| found.contains(text)), "{text} in {options:#?}");
        }
    }

    #[test]
    fn the_default_is_a_small_pc_with_the_agent_on_a_virtio_serial_port() {
        let image = Image::fake(None);
        let append = format!(
            "-append {KERNEL_ARGUMENTS} -- /usr/sbin/qgad --method virtio-serial \
             --path /dev/virtio-ports/org.qemu.guest_agent.0 --statedir /run "
        );
        let initramfs = format!("-initrd {}", image.initramfs().display());
        let expected = [
            "-nodefaults",
            "-no-user-config",
            "-no-reboot",
            "-display none",
            "-accel tcg",
            "-machine pc",
            "-cpu max",
            "-m 256",
            "-kernel /kernel",
            &initramfs,
            &append,
            "-serial file:/run/console.log",
            "-chardev socket,id=qmp,path=/s/qmp",
            "-mon chardev=qmp,mode=control",
            "-chardev socket,id=agent,path=/s/agent,server=on,wait=off",
            "-chardev socket,id=control,path=/s/control",
            "-device virtio-serial-pci,id=control-bus",
            "-device virtserialport,bus=control-bus.0,chardev=control,name=vmtest.control",
            "-device virtio-serial-pci,id=agent-bus",
            &format!("-device {}", hot_plug::agent_port()),
        ];
        assert_eq!(options(&Builder::new(&image, "x")), expected);
    }

    #[test]
    fn a_port_may_be_absent_or_a_serial_line() {
        let image = Image::fake(None);
        check(&Builder::new(&image, "x").without_port(), &["-device virtio-serial-pci,id=agent-bus"], &["agent-port"]);
        let append =
            format!("-append {KERNEL_ARGUMENTS} -- qemu-ga --method isa-serial --path /dev/ttyS1 --statedir /run -v");
        let serial =
            Builder::new(&image, "x").transport(Transport::IsaSerial).agent("qemu-ga").agent_arguments(&["-v"]);
        check(&serial, &["-device isa-serial,chardev=agent,index=1", &append], &["agent-port"]);
    }

    #[test]
    fn a_vm_without_an_agent_has_no_arguments_for_init() {
        let image = Image::fake(None);
        let append = format!("-append {KERNEL_ARGUMENTS} vmtest_init=busybox quick");
        check(&Builder::new(&image, "x").without_agent().busybox_init().kernel_arguments(&["quick"]), &[&append], &[]);
    }

    #[test]
    fn a_microvm_has_devices_without_pci_and_is_told_its_clock() {
        let image = Image::fake(None);
        let append = format!("-append {KERNEL_ARGUMENTS} {MICROVM_KERNEL_ARGUMENT}");
        let expected = ["-machine microvm", "-device virtio-serial-device,id=agent-bus", &append];
        check(&Builder::new(&image, "x").machine("microvm").without_agent(), &expected, &["-pci"]);
    }

    #[test]
    fn a_disk_is_a_snapshot_unless_there_is_an_overlay_and_swap_comes_after_it() {
        let image = Image::fake(Some("/root.ext4"));
        let plain = Builder::new(&image, "x");
        let expected = [
            "-m 512",
            "-drive if=none,id=disk0,cache=unsafe,format=raw,snapshot=on,file=/root.ext4",
            "-device virtio-blk-pci,drive=disk0",
            &format!("-append {KERNEL_ARGUMENTS} -- "),
        ];
        check(&plain, &expected, &["disk1"]);
        let kept = plain.overlay("/overlay".as_ref()).swap("/swap".as_ref()).compressed_kernel().memory_mib(1024);
        let expected = [
            "-m 1024",
            "-kernel /compressed-kernel",
            "-drive if=none,id=disk0,cache=unsafe,format=qcow2,file=/overlay",
            "-drive if=none,id=disk1,cache=unsafe,format=raw,file=/swap",
            &format!("-append {KERNEL_ARGUMENTS} -- vdb"),
        ];
        check(&kept, &expected, &["snapshot"]);
    }

    #[test]
    fn further_arguments_come_last_so_that_they_prevail() {
        let image = Image::fake(None);
        let options = options(&Builder::new(&image, "x").qemu_arguments(&["-m", "size=1G"]));
        assert_eq!(options.last().map(String::as_str), Some("-m size=1G"));
    }
}
