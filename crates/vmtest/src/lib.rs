//! Boots throwaway VMs with an agent inside.
//!
//! A VM is QEMU's software emulation, Debian's kernel (unpacked, not installed) and an initramfs made here: static
//! busybox, the agents with their shared libraries, and an init of our own. A second kind continues to Debian with
//! systemd on a disk, where the agent is installed as a package would install it. Nothing of the host is changed, and a
//! VM ends with the test that started it. Its console, the conversation with QEMU, and every byte to and from the agent
//! stay in a folder per test. VMs have no network on purpose.

pub mod capture;
pub mod control;
pub mod cpio;
pub mod image;
pub mod kernel;
pub mod needs;
pub mod qmp;
pub mod transcript;
pub mod vm;
