//! An agent on the port it is made for, in a VM: a closed port is always readable, which is what keeps agents awake.

use vmtest::{
    image::Image,
    needs::Needs,
    vm::{Builder, Vm},
};

use super::agent::Binary;

/// How long wake-ups are watched, in seconds of the guest.
const WATCH_SECONDS: u32 = 10;
/// How long the agent has to come to rest, in seconds of the guest.
const SETTLE_SECONDS: u32 = 3;

/// How often a second an agent wakes up while the host's side of its port is closed; nothing where no VM can be booted.
pub(crate) fn wake_ups(binary: &Binary) -> anyhow::Result<Option<f64>> {
    let needs = match Needs::collect() {
        Ok(needs) => Needs { agent: binary.path.clone(), ..needs },
        Err(missing) => {
            eprintln!("{}", missing.join("\n"));
            return Ok(None);
        }
    };
    let image = Image::build(&needs)?;
    let mut vm = Builder::new(&image, "bench").boot()?;
    vm.client()?.sync_undelimited(std::time::Instant::now() + vmtest::vm::BOOT_TIMEOUT)?;
    vm.sh(&format!("sleep {SETTLE_SECONDS}"))?;
    let before = sleeps(&mut vm)?;
    vm.sh(&format!("sleep {WATCH_SECONDS}"))?;
    Ok(Some((sleeps(&mut vm)? - before) / f64::from(WATCH_SECONDS)))
}

/// How often the agent's threads went to sleep by themselves so far: one more than it woke up.
fn sleeps(vm: &mut Vm) -> anyhow::Result<f64> {
    let sum =
        "awk '/^voluntary_ctxt_switches/ { sum += $2 } END { print sum }' /proc/$(cat /run/agent.pid)/task/*/status";
    Ok(vm.sh(sum)?.parse()?)
}
