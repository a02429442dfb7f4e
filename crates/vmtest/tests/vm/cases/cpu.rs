//! Processors are taken offline, brought back online, and plugged in.

use anyhow::{Context, Result};
use qga::{
    client::Client,
    commands::cpu::{GetCpustats, GetVcpus, LogicalProcessor, SetVcpus},
};
use serde_json::{Value, json};
use vmtest::{
    transcript::Recorded,
    vm::{Builder, Vm},
};

use super::{answered, reference, soon};

pub(crate) fn is_taken_offline(builder: Builder<'_>) -> Result<()> {
    let reference = builder.reference_program().map(ToOwned::to_owned);
    let mut vm = builder.qemu_arguments(&["-smp", "2,maxcpus=4"]).boot()?;
    let mut agent = answered(&vm)?;
    check(&mut agent, &mut vm, &[(0, true, false), (1, true, true)])?;
    assert_eq!(processors_of_qemu(&mut vm)?, 2);
    assert_eq!(counted(&mut agent)?, [0, 1]);

    assert_eq!(set(&mut agent, &[(1, false)])?, 1);
    check(&mut agent, &mut vm, &[(0, true, false), (1, false, true)])?;
    assert_eq!(vm.sh("grep -c ^processor /proc/cpuinfo")?, "1");
    assert_eq!(counted(&mut agent)?, [0]);
    if let Some(reference) = &reference {
        reference::start(&mut vm, reference)?;
        compare_with_reference(&mut vm, &mut agent)?;
    }

    // The first processor is there to stay: what is done before it is done is counted.
    assert_eq!(set(&mut agent, &[(1, true), (0, false), (1, false)])?, 1);
    check(&mut agent, &mut vm, &[(0, true, false), (1, true, true)])?;
    let refused = set(&mut agent, &[(0, false)]).expect_err("the first processor is there to stay");
    assert!(refused.to_string().contains("logical processor #0 can't be offlined"), "{refused:#}");
    let refused = set(&mut agent, &[(9, true)]).expect_err("there is no such processor");
    assert!(refused.to_string().contains("/sys/devices/system/cpu/cpu9/"), "{refused:#}");
    Ok(())
}

pub(crate) fn is_plugged_in(builder: Builder<'_>) -> Result<()> {
    let reference = builder.reference_program().map(ToOwned::to_owned);
    let mut vm = builder.qemu_arguments(&["-smp", "2,maxcpus=4"]).boot()?;
    let mut agent = answered(&vm)?;
    let slots = vm.qmp.execute("query-hotpluggable-cpus", &json!({}))?;
    let free = slots.as_array().and_then(|slots| slots.iter().rfind(|slot| slot.get("qom-path").is_none()));
    let free = free.context("QEMU has no slot for another processor")?;
    let mut device = json!({"driver": free["type"], "id": "plugged"});
    for (name, value) in free["props"].as_object().into_iter().flatten() {
        device[name] = value.clone();
    }
    vm.plug(&device)?;
    // A directory is there before its switch is; the first processor has none.
    vm.wait_until("ls /sys/devices/system/cpu/cpu[0-9]*/online | wc -l | grep -qx 2")?;

    // This guest has no udev rule that would bring it online.
    let processors = agent.call(&GetVcpus {}, soon())?;
    let new = processors.iter().find(|processor| processor.logical_id > 1).context("a third processor")?;
    assert_eq!((new.online, new.can_offline), (false, Some(true)));
    let id = new.logical_id;
    if let Some(reference) = &reference {
        reference::start(&mut vm, reference)?;
        compare_with_reference(&mut vm, &mut agent)?;
    }
    assert_eq!(set(&mut agent, &[(id, true)])?, 1);
    check(&mut agent, &mut vm, &[(0, true, false), (1, true, true), (id, true, true)])?;
    assert_eq!(processors_of_qemu(&mut vm)?, 3);
    assert_eq!(vm.sh("grep -c ^processor /proc/cpuinfo")?, "3");
    assert_eq!(counted(&mut agent)?, [0, 1, id]);
    Ok(())
}

fn compare_with_reference(vm: &mut Vm, agent: &mut Client<Recorded>) -> Result<()> {
    reference::compare(vm, agent, "guest-get-vcpus", &json!({}), |_, _| {})?;
    let unchanged = json!({"vcpus": [{"logical-id": 0, "online": true}, {"logical-id": 9, "online": true}]});
    reference::compare(vm, agent, "guest-set-vcpus", &unchanged, |_, _| {})?;
    reference::compare(vm, agent, "guest-get-cpustats", &json!({}), |theirs, ours| {
        // Time goes by between the two.
        for statistics in [theirs, ours].into_iter().filter_map(Value::as_array_mut).flatten() {
            let members = statistics.as_object_mut().expect("an object").iter_mut();
            members.filter(|(name, _)| *name != "cpu").for_each(|(_, value)| *value = Value::Null);
        }
    })
}

fn set(agent: &mut Client<Recorded>, processors: &[(i64, bool)]) -> Result<i64> {
    let processor = |(logical_id, online): &(i64, bool)| LogicalProcessor {
        logical_id: *logical_id,
        online: *online,
        can_offline: None,
    };
    Ok(agent.call(&SetVcpus { vcpus: processors.iter().map(processor).collect() }, soon())?)
}

/// What the agent tells, and what the guest's own switches say.
fn check(agent: &mut Client<Recorded>, vm: &mut Vm, expected: &[(i64, bool, bool)]) -> Result<()> {
    let mut processors = agent.call(&GetVcpus {}, soon())?;
    assert_eq!(agent.call(&GetVcpus {}, soon())?, processors, "the order is stable");
    processors.sort();
    let told: Vec<_> =
        processors.iter().map(|cpu| (cpu.logical_id, cpu.online, cpu.can_offline == Some(true))).collect();
    assert_eq!(told, expected);
    for (id, online, can_offline) in expected {
        let switch = format!("/sys/devices/system/cpu/cpu{id}/online");
        let truth = vm.sh(&format!("if test -e {switch}; then cat {switch}; else echo none; fi"))?;
        let expected = if *can_offline { u8::from(*online).to_string() } else { "none".into() };
        assert_eq!(truth, expected, "cpu{id}");
    }
    Ok(())
}

/// The processors that are online, as their statistics show.
fn counted(agent: &mut Client<Recorded>) -> Result<Vec<i64>> {
    Ok(agent.call(&GetCpustats {}, soon())?.iter().map(|statistics| statistics.cpu).collect())
}

fn processors_of_qemu(vm: &mut Vm) -> Result<usize> {
    Ok(vm.qmp.execute("query-cpus-fast", &json!({}))?.as_array().map_or(0, Vec::<Value>::len))
}
