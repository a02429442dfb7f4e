//! Freezes that other agents left, that their guards ended, or that lost their guards.

use std::sync::atomic::Ordering;

use super::{
    super::{
        tests::{FREEZE, Fake, freezer, names, set_up},
        *,
    },
    *,
};
use crate::root::Root;

#[test]
fn a_freeze_that_its_guard_ended_is_over_and_told_of_once() {
    let (fake, freezer, directory) = set_up(&[]);
    freezer.freeze(FREEZE, None, None).unwrap();
    let marker = Marker::new(&Root::machine(), directory.path());
    marker.note("the freeze ended by itself because its lease of 600 s ended").unwrap();
    fake.guard_thaws();
    assert!(!freezer.is_frozen() && !freezer.refuses_commands());
    assert!(!marker.is_set());
    assert_eq!(fake.log()[7..], ["thaw /c", "thaw /b", "thaw /a", "resume", "hook Thaw"]);
    assert_eq!(
        freezer.thaw().unwrap_err().desc,
        "the freeze ended by itself because its lease of 600 s ended: what was copied since then may be inconsistent"
    );
    assert_eq!(freezer.thaw(), Ok(0));
}

#[test]
fn a_freeze_that_its_guard_ended_is_told_of_also_where_the_state_directory_is_gone() {
    let (fake, freezer, directory) = set_up(&[]);
    freezer.freeze(FREEZE, None, None).unwrap();
    fake.state().frozen.clear();
    // The guard could not write its note.
    drop(directory);
    fake.guard_thaws();
    assert_eq!(
        freezer.thaw().unwrap_err().desc,
        "the freeze ended by itself: what was copied since then may be inconsistent"
    );
    assert_eq!(freezer.thaw(), Ok(0));
    let error = freezer.freeze(FREEZE, None, None).unwrap_err();
    assert!(error.desc.contains("qga.state.hooks: No such file or directory"), "{}", error.desc);
    assert!(!freezer.is_frozen() && !freezer.refuses_commands());
}

#[test]
fn a_guard_that_was_killed_is_replaced_for_the_rest_of_the_lease() {
    let (fake, freezer, _directory) = set_up(&[]);
    freezer.freeze(FREEZE, None, None).unwrap();
    fake.guard_is_killed();
    assert!(freezer.is_frozen());
    assert_eq!(fake.log()[7..], ["guard of frozen 3 for 600 s at the old socket", "guard complete"]);
    assert_eq!(freezer.thaw(), Ok(3));
}

#[test]
fn a_freeze_that_nobody_can_guard_ends() {
    let (fake, freezer, _directory) = set_up(&[]);
    freezer.freeze(FREEZE, None, None).unwrap();
    fake.has_no_guard.store(true, Ordering::Relaxed);
    fake.guard_is_killed();
    assert!(!freezer.is_frozen());
    assert_eq!(fake.frozen(), [""; 0]);
    let error = freezer.thaw().unwrap_err();
    assert!(error.desc.contains("its guard was killed and could not be replaced"), "{}", error.desc);
}

#[test]
fn the_end_of_an_old_guard_is_not_taken_for_that_of_a_new_one() {
    let (fake, freezer, _directory) = set_up(&[]);
    freezer.freeze(FREEZE, None, None).unwrap();
    freezer.thaw().unwrap();
    freezer.freeze(FREEZE, None, None).unwrap();
    fake.guard_thaws();
    assert!(freezer.is_frozen());
}

#[test]
fn the_guard_of_an_agent_that_is_gone_is_taken_over() {
    let directory = tempfile::tempdir().unwrap();
    Marker::new(&Root::machine(), directory.path()).set().unwrap();
    let fake = Fake::new(&[]);
    fake.state().frozen.extend(["/a".into(), "/b".into()]);
    fake.state().taken_over = Some(Some(Duration::from_secs(9)));
    let freezer = freezer(&fake, directory.path());
    assert!(freezer.refuses_commands());
    freezer.recover();
    assert!(freezer.is_frozen());
    assert_eq!(freezer.thaw(), Ok(2));
    assert_eq!(
        fake.log(),
        ["quiesce", "quiesce", "guard complete", "thaw /b", "thaw /a", "guard of frozen 3", "resume", "hook Thaw"]
    );
}

#[test]
fn an_agent_answers_while_it_takes_a_freeze_over() {
    let directory = tempfile::tempdir().unwrap();
    Marker::new(&Root::machine(), directory.path()).set().unwrap();
    let fake = Fake::new(&[]);
    fake.takeover_hangs.store(true, Ordering::Relaxed);
    fake.state().taken_over = Some(None);
    let freezer = freezer(&fake, directory.path());
    freezer.recover();
    assert!(freezer.is_frozen() && freezer.refuses_commands());
    let refusal = freezer.freeze(FREEZE, None, None).unwrap_err();
    assert!(refusal.desc.starts_with("Command guest-fsfreeze-freeze has been disabled: the agent is in frozen state"));
    fake.go_on();
    assert_eq!(freezer.thaw(), Ok(0));
}

#[test]
fn without_its_guard_a_freeze_gets_a_new_one() {
    let directory = tempfile::tempdir().unwrap();
    Marker::new(&Root::machine(), directory.path()).set().unwrap();
    let fake = Fake::new(&[]);
    fake.state().frozen.insert("/b".into());
    let freezer = freezer(&fake, directory.path());
    freezer.recover();
    assert!(freezer.is_frozen());
    assert_eq!(freezer.thaw(), Ok(1));
    assert_eq!(fake.log()[..4], ["quiesce", "quiesce", "guard of frozen 3 for 600 s", "guard complete"]);
}

#[test]
fn a_freeze_that_cannot_be_taken_over_yet_is_taken_over_later() {
    let (fake, freezer, _directory) = found_by_a_new_agent();
    assert!(freezer.is_frozen());
    fake.state().taken_over = Some(Some(Duration::from_secs(9)));
    fake.has_other_agent.store(false, Ordering::Relaxed);
    fake.wait_for(|fake| fake.log().contains(&"guard complete".into()));
    assert_eq!(freezer.thaw(), Ok(2));
}

#[test]
fn a_freeze_that_cannot_be_taken_over_is_over_when_its_guard_has_ended_it() {
    let (fake, freezer, directory) = found_by_a_new_agent();
    fake.state().frozen.clear();
    Marker::new(&Root::machine(), directory.path()).clear();
    fake.has_other_agent.store(false, Ordering::Relaxed);
    fake.wait_for(|fake| fake.log().contains(&"hook Thaw".into()));
    assert!(!freezer.is_frozen() && !freezer.refuses_commands());
    assert_eq!(fake.frozen(), [""; 0]);
}

#[test]
fn a_host_may_thaw_what_cannot_be_taken_over() {
    let (_fake, freezer, directory) = found_by_a_new_agent();
    assert_eq!(freezer.thaw(), Ok(2));
    assert_eq!(names(&directory), [""; 0]);
}

#[test]
fn what_cannot_be_looked_for_is_not_said_to_be_thawed() {
    let (fake, freezer, _directory) = found_by_a_new_agent();
    fake.cannot_look.store(true, Ordering::Relaxed);
    assert_eq!(freezer.thaw().unwrap_err().desc, "there is no list of mounts");
    assert!(freezer.is_frozen());
    fake.cannot_look.store(false, Ordering::Relaxed);
    assert_eq!(freezer.thaw(), Ok(2));
}

/// A freeze of `/a` and `/b` that another agent has not quite left.
fn found_by_a_new_agent() -> (Arc<Fake>, Freezer, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    Marker::new(&Root::machine(), directory.path()).set().unwrap();
    let fake = Fake::new(&[]);
    fake.state().frozen.extend(["/a".into(), "/b".into()]);
    fake.has_other_agent.store(true, Ordering::Relaxed);
    let freezer = freezer(&fake, directory.path());
    freezer.recover();
    fake.wait_for(|fake| fake.log().contains(&"takeover refused".into()));
    (fake, freezer, directory)
}

#[test]
fn hooks_that_an_earlier_agent_left_undone_are_run() {
    let directory = tempfile::tempdir().unwrap();
    let marker = Marker::new(&Root::machine(), directory.path());
    marker.set_thaw_hook_pending().unwrap();
    let fake = Fake::new(&[]);
    let freezer = freezer(&fake, directory.path());
    assert!(!freezer.refuses_commands());
    freezer.recover();
    assert!(!freezer.refuses_commands() && !freezer.is_frozen());
    fake.wait_for(|fake| fake.log() == ["hook Thaw"]);
    // It waits for the hook.
    assert_eq!(freezer.freeze(FREEZE, None, None), Ok(3));
    assert!(marker.is_thaw_hook_pending());
    freezer.thaw().unwrap();
    assert!(!marker.is_thaw_hook_pending());
}
