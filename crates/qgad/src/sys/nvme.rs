//! Admin commands to NVMe controllers.

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::{errno::Errno, libc, request_code_readwrite};

/// Bytes of the SMART and health log.
pub(crate) const HEALTH_LOG_BYTES: usize = 512;

/// `struct nvme_admin_cmd` of linux/nvme_ioctl.h.
#[repr(C)]
#[derive(Default)]
struct AdminCommand {
    opcode: u8,
    flags: u8,
    reserved: u16,
    namespace: u32,
    command_2_3: [u32; 2],
    metadata: u64,
    address: u64,
    metadata_bytes: u32,
    data_bytes: u32,
    command_10_15: [u32; 6],
    timeout_ms: u32,
    result: u32,
}

/// The admin command that returns a log page.
const GET_LOG_PAGE: u8 = 0x02;
/// The page of the controller's health.
const HEALTH_LOG: u32 = 0x02;
/// Reading must not acknowledge an event that another program waits for.
const RETAIN_EVENTS: u32 = 1 << 15;
/// The controller as a whole, not one of its namespaces.
const ALL_NAMESPACES: u32 = 0xFFFF_FFFF;
/// The command holds the length in words of four bytes, minus one.
#[expect(clippy::cast_possible_truncation, reason = "a small number")]
const HEALTH_LOG_WORDS: u32 = HEALTH_LOG_BYTES as u32 / 4 - 1;

/// Reads the controller's SMART and health log; the descriptor is that of one of its namespaces.
pub(crate) fn health_log(device: BorrowedFd<'_>) -> nix::Result<[u8; HEALTH_LOG_BYTES]> {
    let mut log = [0; HEALTH_LOG_BYTES];
    let mut command = AdminCommand {
        opcode: GET_LOG_PAGE,
        namespace: ALL_NAMESPACES,
        address: log.as_mut_ptr().expose_provenance() as u64,
        data_bytes: (HEALTH_LOG_WORDS + 1) * 4,
        command_10_15: [HEALTH_LOG_WORDS << 16 | RETAIN_EVENTS | HEALTH_LOG, 0, 0, 0, 0, 0],
        ..AdminCommand::default()
    };
    let request = request_code_readwrite!(b'N', 0x41, size_of::<AdminCommand>());
    // SAFETY: the kernel reads and writes the structure, and writes `data_bytes` to `address`; both outlive the call.
    // Files that are no NVMe devices refuse the request.
    let status = unsafe { libc::ioctl(device.as_raw_fd(), request, &raw mut command) };
    match Errno::result(status)? {
        0 => Ok(log),
        // The controller refused, with a positive status.
        _ => Err(Errno::EREMOTEIO),
    }
}
