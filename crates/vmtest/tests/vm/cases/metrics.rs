//! Figures for monitoring, compared with the guest's own files, while file systems are frozen, and while one
//! does not answer.

use anyhow::{Context, Result};
use qga::commands::{
    freeze::{FreezeList, Thaw},
    metrics::{FileSystemLeftOut, GetMetrics, LeftOutReason, MetricsPart},
};
use vmtest::vm::Builder;

use super::{answered, captured, freeze::boot, soon, storage::disks::Content, with_steady_truth};

const DEVICE: &str = "virtio-net-pci,mac=52:54:00:aa:00:01,romfile=";
/// What does not change by itself.
const STEADY: &str = "cat /proc/sys/kernel/random/boot_id; awk '/^MemTotal|^SwapTotal/ {print $2}' /proc/meminfo; \
     stat -f -c '%b %f %a %S %c %d' /mnt/a /mnt/b";
const SWAP: &str = "dd if=/dev/zero of=/mnt/b/swap bs=1M count=4 && mkswap /mnt/b/swap && swapon /mnt/b/swap";
/// A file system on a block device whose server never reads a request.
const MOUNT_DEAD: &str = "\
     device=$(grep '^/dev/.* /mnt/c ' /proc/mounts | cut -d' ' -f1); umount /mnt/c; umount /mnt/c; \
     mkdir -p /mnt/dead; sh -c \"exec 3<>/dev/fuse; \
     mount -t fuseblk -o fd=3,rootmode=40000,user_id=0,group_id=0 $device /mnt/dead; \
     sleep 100000 >/dev/null 2>&1 </dev/null &\"; grep /mnt/dead /proc/mounts";

pub(crate) fn are_the_kernels(builder: Builder<'_>) -> Result<()> {
    let builder = builder.qemu_arguments(&["-device", DEVICE, "-smp", "2"]).kernel_arguments(&["psi=1"]);
    let (mut vm, _disks) = boot(builder, &[("a", Content::Ext4), ("b", Content::Ext4), ("c", Content::Xfs)])?;
    vm.wait_until("ls /sys/class/net/eth0")?;
    vm.sh(&format!("ip link set lo up; ping -c 2 127.0.0.1; {SWAP}; mount -t tmpfs none /mnt/c"))?;
    let mut agent = answered(&vm)?;
    let all = GetMetrics { parts: None };
    let (metrics, truth) = with_steady_truth(&mut vm, STEADY, || Ok(agent.call(&all, soon())?))?;
    let truth: Vec<_> = truth.lines().collect();
    assert_eq!(metrics.boot_id.as_deref(), Some(truth[0]));
    let memory = metrics.memory.context("no memory")?;
    let kibibytes = [memory.total, memory.swap_total].map(|bytes| (bytes.unwrap_or_default() / 1024).to_string());
    assert_eq!(kibibytes, truth[1..3]);
    assert!(memory.available > Some(0) && memory.available < memory.total && memory.free < memory.total, "{memory:?}");
    let file_systems = metrics.file_systems.context("no file systems")?;
    let told = file_systems.iter().map(|one| {
        let (inodes, used) = (one.inodes.unwrap_or_default(), one.inodes_used.unwrap_or_default());
        (one.mountpoint.as_str(), [one.size, one.size - one.used, one.available, inodes, inodes - used])
    });
    let counted = ["/mnt/a", "/mnt/b"].into_iter().zip(&truth[3..]).map(|(mount_point, line)| {
        let numbers: Vec<u64> = line.split(' ').filter_map(|number| number.parse().ok()).collect();
        let [blocks, free, available, size, inodes, inodes_free] = numbers[..] else { panic!("{line}") };
        (mount_point, [blocks * size, free * size, available * size, inodes, inodes_free])
    });
    assert_eq!(told.collect::<Vec<_>>(), counted.collect::<Vec<_>>());
    let left_out = |mountpoint: &str, reason| FileSystemLeftOut { mountpoint: mountpoint.into(), reason };
    assert_eq!(metrics.file_systems_left_out, Some(vec![left_out("/mnt/c", LeftOutReason::Hidden)]));
    let network = metrics.network.context("no network")?;
    let names = [network.physical, network.other].map(|list| list.unwrap_or_default().into_iter().map(|one| one.name));
    assert_eq!(names.map(Iterator::collect::<Vec<_>>), [["eth0"], ["lo"]]);
    assert_eq!(metrics.processors.map(|processors| processors.len()), Some(2));
    let pressure = metrics.pressure.context("no pressure")?;
    assert!(pressure.memory.and_then(|one| one.some?.total).is_some() && pressure.io.is_some());
    let agent_itself = metrics.agent.context("no agent")?;
    assert!(agent_itself.memory > Some(0) && agent_itself.frozen_for.is_none(), "{agent_itself:?}");
    assert_eq!(metrics.clock.and_then(|clock| clock.synchronized), Some(false));

    let frozen = FreezeList { mountpoints: Some(vec!["/mnt/a".into()]), lease: None };
    assert_eq!(agent.call(&frozen, soon())?, 1);
    let while_frozen = agent.call(&all, soon())?;
    assert_eq!(while_frozen.file_systems, Some(Vec::new()));
    let all_of_them = ["/mnt/a", "/mnt/b", "/mnt/c"].map(|one| left_out(one, LeftOutReason::Frozen));
    assert_eq!(while_frozen.file_systems_left_out, Some(all_of_them.into()));
    assert!(while_frozen.agent.and_then(|agent| agent.frozen_for).is_some() && while_frozen.memory.is_some());
    assert_eq!(agent.call(&Thaw {}, soon())?, 1);
    let again = agent.call(&GetMetrics { parts: Some(vec![MetricsPart::FileSystems]) }, soon())?;
    assert_eq!(again.file_systems.map(|file_systems| file_systems.len()), Some(2));
    assert!(again.memory.is_none() && again.uptime >= metrics.uptime);
    captured(&mut vm, "monitored")?;

    vm.sh(MOUNT_DEAD)?;
    for _ in 0..2 {
        let metrics = agent.call(&all, soon())?;
        assert_eq!(metrics.file_systems_left_out, Some(vec![left_out("/mnt/dead", LeftOutReason::NoAnswer)]));
        assert_eq!(metrics.file_systems.map(|file_systems| file_systems.len()), Some(2));
        assert!(metrics.memory.is_some());
    }
    Ok(())
}
