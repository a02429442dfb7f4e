//! Trims, compared with the blocks that the host's file keeps.

use anyhow::{Result, ensure};
use qga::commands::storage::{BusType, Fstrim, TrimmedPath};
use serde_json::json;
use vmtest::vm::Builder;

use super::{
    answered,
    disks::{Content, Disks, Pci},
    reference, soon,
};

const MIB: u64 = 1024 * 1024;
/// What is written to a disk and deleted again.
const DATA_MIB: u64 = 8;

pub(crate) fn gives_back(builder: Builder<'_>) -> Result<()> {
    let mut disks = Disks::new("pc")?;
    disks.drive_options(",discard=unmap");
    disks.device("virtio-scsi-pci,id=scsi,addr=0x12");
    let device = "scsi-hd,bus=scsi.0,scsi-id=1,lun=1,serial=THIN-1";
    disks.add("thin", Content::Ext4, device, Pci::Of("scsi"), (BusType::Scsi, [0, 0, 1]))?;
    let device = "virtio-blk-pci,id=thick,addr=0x10,discard=off,serial=THICK-2";
    disks.add("thick", Content::Ext4, device, Pci::Of("thick"), (BusType::Virtio, [0; 3]))?;
    let arguments = disks.qemu_arguments();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let reference = builder.reference_program().map(ToOwned::to_owned);
    let mut vm = builder.machine(disks.machine()).qemu_arguments(&arguments).boot()?;
    vm.load_disk_modules()?;
    disks.mount_all(&mut vm)?;
    let mut agent = answered(&vm)?;
    let mut trim = |minimum| agent.call(&Fstrim { minimum }, soon()).map(|report| report.paths);

    let refused = |path: &str, error: &str| TrimmedPath {
        path: path.into(),
        trimmed: None,
        minimum: None,
        error: Some(error.into()),
    };
    let no_discards = refused("/mnt/thick", "trim not supported");
    let huge = [no_discards.clone(), refused("/mnt/thin", "failed to trim: Invalid argument")];
    assert_eq!(trim(Some(1 << 40))?, huge);
    assert_eq!(trim(Some(-1))?, huge);
    if let Some(reference) = reference {
        reference::start(&mut vm, &reference)?;
        for minimum in [1_i64 << 40, -1] {
            let report = reference::ask(&mut vm, "guest-fstrim", &json!({"minimum": minimum}))?;
            assert_eq!(report, json!({"paths": huge}));
        }
    }

    // More mounts of the same file system, which is trimmed once.
    vm.sh("mkdir /mnt/bound && mount -o bind /mnt/thin /mnt/bound")?;
    vm.sh(&format!("dd if=/dev/zero of=/mnt/thin/data bs=1M count={DATA_MIB} 2>&1 && sync"))?;
    let full = disks.allocated("thin")?;
    ensure!(full >= DATA_MIB * MIB, "the host keeps {full} bytes of a disk with {DATA_MIB} MiB of data");
    vm.sh("rm /mnt/thin/data && sync")?;
    let deleted = disks.allocated("thin")?;
    ensure!(deleted >= DATA_MIB * MIB, "the host keeps {deleted} bytes before the trim");
    let trimmed = trim(None)?;
    let left = disks.allocated("thin")?;
    ensure!(left + DATA_MIB * MIB <= deleted, "the host keeps {left} of {deleted} bytes after {trimmed:?}");
    let [thick, thin] = &trimmed[..] else { anyhow::bail!("{trimmed:?}") };
    assert_eq!((thick, thin.path.as_str()), (&no_discards, "/mnt/thin"));
    assert!(thin.trimmed.is_some_and(|bytes| bytes >= DATA_MIB * MIB), "{thin:?}");
    assert_eq!((thin.minimum.is_some(), &thin.error), (true, &None));
    Ok(())
}
