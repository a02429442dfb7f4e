//! The state machine on a machine that fails on purpose.
//!
//! The file is long because the fake machine and the tests of its failures belong together.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use super::{parts::Stuck, target::Target, *};
use crate::{root::Root, storage::device::Number};

/// How long a test waits for what must come.
pub(super) const TIMEOUT: Duration = Duration::from_secs(60);

/// The command that tests freeze with.
pub(super) const FREEZE: &str = "guest-fsfreeze-freeze";

/// What is wrong with a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// Freezing it fails.
    Fails(Errno),
    /// Freezing it returns only when the test says so.
    Hangs,
    /// Thawing it returns only when the test says so.
    HangsInThaw,
}

/// A machine with file systems at `/a`, `/b`, `/c`, frozen in this order.
#[derive(Debug, Default)]
pub(super) struct Fake {
    troubles: HashMap<String, Trouble>,
    state: Mutex<FakeState>,
    changed: Condvar,
    has_no_targets: AtomicBool,
    pub(super) has_no_guard: AtomicBool,
    hook_fails: AtomicBool,
    pub(super) cannot_look: AtomicBool,
    pub(super) has_other_agent: AtomicBool,
    pub(super) takeover_hangs: AtomicBool,
    guards_are_stopped: AtomicBool,
}

#[derive(Default)]
pub(super) struct FakeState {
    pub(super) frozen: HashSet<String>,
    log: Vec<String>,
    goes_on: bool,
    guards: Vec<Arc<FakeGuard>>,
    pub(super) taken_over: Option<Lease>,
    /// The file systems of a guard that another agent left, because they are stuck.
    pub(super) left: Vec<&'static str>,
}

impl fmt::Debug for FakeState {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(&self.log).finish()
    }
}

/// A file system for operations that look at its mount point only.
pub(super) fn target(mount_point: &str) -> Target {
    let file_system = Number { major: 0, minor: 0 };
    Target { mount_point: mount_point.into(), descriptor: File::open("/dev/null").unwrap().into(), file_system }
}

impl Fake {
    pub(super) fn new(troubles: &[(&str, Trouble)]) -> Arc<Self> {
        let troubles = troubles.iter().map(|(mount_point, trouble)| (mount_point.to_string(), *trouble)).collect();
        Arc::new(Self { troubles, ..Self::default() })
    }

    pub(super) fn state(&self) -> MutexGuard<'_, FakeState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn note(&self, what: String) {
        self.state().log.push(what);
        self.changed.notify_all();
    }

    /// What was done so far.
    pub(super) fn log(&self) -> Vec<String> {
        self.state().log.clone()
    }

    /// What is frozen now.
    pub(super) fn frozen(&self) -> Vec<String> {
        let mut frozen: Vec<_> = self.state().frozen.iter().cloned().collect();
        frozen.sort();
        frozen
    }

    /// Lets go on what hangs.
    pub(super) fn go_on(&self) {
        self.state().goes_on = true;
        self.changed.notify_all();
    }

    pub(super) fn wait_for(&self, condition: impl Fn(&Self) -> bool) {
        let end = Instant::now() + TIMEOUT;
        while !condition(self) {
            assert!(Instant::now() < end, "{:?}", self.log());
            thread::yield_now();
        }
    }

    fn hang(&self) {
        let state = self.changed.wait_timeout_while(self.state(), TIMEOUT, |state| !state.goes_on);
        drop(state.unwrap_or_else(PoisonError::into_inner));
    }

    /// The first guard that was started thaws by itself.
    pub(super) fn guard_thaws(&self) {
        let guard = self.state().guards.first().cloned().unwrap();
        guard.workers.thaw();
        guard.tell(GuardEvent::Thawed);
    }

    /// The first guard that was started is killed.
    pub(super) fn guard_is_killed(&self) {
        let guard = self.state().guards.first().cloned().unwrap();
        guard.is_gone.store(true, Ordering::Relaxed);
        guard.tell(if guard.is_told.load(Ordering::Relaxed) { GuardEvent::Returned } else { GuardEvent::Ended });
    }
}

impl Operations for Fake {
    fn freeze(&self, target: &Target) -> nix::Result<()> {
        let mount_point = target.mount_point.to_str().unwrap();
        self.note(format!("freeze {mount_point}"));
        match self.troubles.get(mount_point) {
            Some(Trouble::Fails(errno)) => return Err(*errno),
            Some(Trouble::Hangs) => self.hang(),
            _ => {}
        }
        self.state().frozen.insert(mount_point.into());
        Ok(())
    }

    fn thaw(&self, target: &Target) -> nix::Result<()> {
        let mount_point = target.mount_point.to_str().unwrap();
        if self.troubles.get(mount_point) == Some(&Trouble::HangsInThaw) {
            self.hang();
        }
        if self.state().frozen.remove(mount_point) {
            self.note(format!("thaw {mount_point}"));
            return Ok(());
        }
        Err(Errno::EINVAL)
    }
}

/// A guard whose workers are in this process.
struct FakeGuard {
    fake: Arc<Fake>,
    workers: Workers,
    takeover_socket: TakeoverSocket,
    on_event: Arc<Mutex<OnEvent>>,
    is_told: Arc<AtomicBool>,
    is_gone: AtomicBool,
}

impl FakeGuard {
    fn start(fake: &Arc<Fake>, targets: &[Arc<Target>], duty: Duty, on_event: OnEvent) -> Arc<Self> {
        let (on_event, is_told) = (Arc::new(Mutex::new(on_event)), Arc::new(AtomicBool::new(false)));
        let (event, told) = (Arc::clone(&on_event), Arc::clone(&is_told));
        let on_done: OnDone = Arc::new(move || {
            if told.load(Ordering::Relaxed) {
                event.lock().unwrap()(GuardEvent::Returned);
            }
        });
        let operations: Arc<dyn Operations> = Arc::clone(fake) as _;
        let guard = Arc::new(Self {
            fake: Arc::clone(fake),
            workers: Workers::start(targets.iter().cloned(), &operations, duty.holding, &on_done).unwrap(),
            takeover_socket: match duty.takeover {
                Takeover::Socket(takeover_socket) => takeover_socket,
                Takeover::New | Takeover::None => Arc::new(File::open("/dev/null").unwrap().into()),
            },
            on_event,
            is_told,
            is_gone: AtomicBool::new(false),
        });
        fake.state().guards.push(Arc::clone(&guard));
        guard
    }

    fn tell(&self, event: GuardEvent) {
        self.on_event.lock().unwrap()(event);
    }
}

impl fmt::Debug for FakeGuard {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.workers.fmt(formatter)
    }
}

impl Guard for FakeGuard {
    fn freeze(&self, index: usize) {
        self.workers.freeze(index);
    }

    fn frozen(&self, index: usize, deadline: Instant) -> Option<nix::Result<()>> {
        self.workers.frozen(index, deadline)
    }

    fn complete(&self) {
        self.fake.note("guard complete".into());
    }

    fn thaw(&self) -> Option<Thawed> {
        if self.is_gone() || self.fake.guards_are_stopped.load(Ordering::Relaxed) {
            return None;
        }
        let thawed = self.workers.thaw();
        self.is_told.store(true, Ordering::Relaxed);
        thawed
    }

    fn stuck(&self) -> Vec<Stuck> {
        self.workers.stuck()
    }

    fn is_gone(&self) -> bool {
        self.is_gone.load(Ordering::Relaxed)
    }

    fn takeover_socket(&self) -> Option<TakeoverSocket> {
        Some(Arc::clone(&self.takeover_socket))
    }
}

/// The machine as the state machine sees it.
#[derive(Debug)]
struct FakeMachine(Arc<Fake>);

impl Machine for FakeMachine {
    fn find(&self, named: Option<&[String]>, _: Instant) -> Result<Vec<Target>, Error> {
        let is_wanted = |mount_point: &&&str| named.is_none_or(|named| named.iter().any(|name| name == **mount_point));
        let none = self.0.has_no_targets.load(Ordering::Relaxed);
        let mount_points = ["/a", "/b", "/c"];
        Ok(mount_points.iter().filter(|_| !none).filter(is_wanted).map(|mount_point| target(mount_point)).collect())
    }

    fn find_all(&self, deadline: Instant) -> Result<Vec<Target>, Error> {
        match self.0.cannot_look.load(Ordering::Relaxed) {
            true => Err(Error::generic("there is no list of mounts")),
            false => self.find(None, deadline),
        }
    }

    fn operations(&self) -> Arc<dyn Operations> {
        Arc::clone(&self.0) as _
    }

    fn start_guard(&self, targets: &[Arc<Target>], duty: Duty, on_event: OnEvent) -> Result<Arc<dyn Guard>, Error> {
        if self.0.has_no_guard.load(Ordering::Relaxed) {
            return Err(Error::generic("no guard"));
        }
        let what = if duty.holding == Holding::Frozen { "guard of frozen" } else { "guard" };
        let at = if matches!(duty.takeover, Takeover::Socket(_)) { " at the old socket" } else { "" };
        let lease = duty.lease.map_or(String::new(), |lease| format!(" for {} s", lease.as_secs_f64().ceil()));
        self.0.note(format!("{what} {}{lease}{at}", targets.len()));
        Ok(FakeGuard::start(&self.0, targets, duty, on_event))
    }

    fn take_over_guards(&self, on_event: &dyn Fn() -> OnEvent) -> Vec<Result<TakenOver, Error>> {
        if self.0.has_other_agent.load(Ordering::Relaxed) {
            self.0.note("takeover refused".into());
            return vec![Err(Error::generic("another agent has it"))];
        }
        if self.0.takeover_hangs.load(Ordering::Relaxed) {
            self.0.hang();
        }
        let taken_over = |mount_points: &[&str], lease, holding| {
            let targets = || mount_points.iter().map(|mount_point| target(mount_point));
            let held: Vec<_> = targets().map(Arc::new).collect();
            let duty = Duty { holding, lease, takeover: Takeover::New };
            let guard = FakeGuard::start(&self.0, &held, duty, on_event());
            TakenOver { guard, targets: targets().collect(), lease, is_frozen: holding == Holding::Frozen }
        };
        let mut all_taken_over = Vec::new();
        let left = std::mem::take(&mut self.0.state().left);
        if !left.is_empty() {
            let taken_over = taken_over(&left, None, Holding::Nothing);
            (0..left.len()).for_each(|index| taken_over.guard.freeze(index));
            taken_over.guard.thaw();
            all_taken_over.push(Ok(taken_over));
        }
        let lease = self.0.state().taken_over.take();
        all_taken_over.extend(lease.map(|lease| Ok(taken_over(&["/a", "/b"], lease, Holding::Frozen))));
        all_taken_over
    }

    fn run_hook(&self, action: Action) -> Result<(), Error> {
        self.0.note(format!("hook {action:?}"));
        match self.0.hook_fails.load(Ordering::Relaxed) {
            true => Err(Error::generic("hook failed")),
            false => Ok(()),
        }
    }

    fn quiesce(&self) {
        self.0.note("quiesce".into());
    }

    fn abort_hint(&self) -> Option<String> {
        Some("there is a way out".into())
    }

    fn resume(&self, stuck: &[Arc<Target>]) {
        let except: Vec<_> = stuck.iter().map(|target| format!(" but {}", target.mount_point.display())).collect();
        self.0.note(format!("resume{}", except.concat()));
    }
}

/// A freezer for guests in tests of other things.
pub(crate) fn freezer_of_nothing(directory: &Path) -> Freezer {
    let fake = Fake::new(&[]);
    fake.has_no_targets.store(true, Ordering::Relaxed);
    freezer(&fake, directory)
}

pub(super) fn freezer(fake: &Arc<Fake>, directory: &Path) -> Freezer {
    let limits = Limits { timeout: Duration::from_millis(300), lease: Some(Duration::from_secs(600)) };
    let marker = Marker::new(&Root::machine(), directory);
    Freezer::new(Box::new(FakeMachine(Arc::clone(fake))), marker, limits)
}

/// A machine in trouble, its freezer, and its state directory.
pub(super) fn set_up(troubles: &[(&str, Trouble)]) -> (Arc<Fake>, Freezer, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let fake = Fake::new(troubles);
    let freezer = freezer(&fake, directory.path());
    (fake, freezer, directory)
}

pub(super) fn names(directory: &tempfile::TempDir) -> Vec<String> {
    let entries = std::fs::read_dir(directory.path()).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn check_failure(troubles: &[(&str, Trouble)], message: &str, log: &[&str]) {
    let (fake, freezer, directory) = set_up(troubles);
    assert_eq!(freezer.freeze(FREEZE, None, None).unwrap_err().desc, message);
    assert_eq!(fake.log(), log);
    assert_eq!((fake.frozen(), names(&directory)), (Vec::new(), Vec::new()));
    assert!(!freezer.is_frozen() && !freezer.refuses_commands());
}

#[test]
fn a_freeze_and_its_thaw_are_in_order() {
    let (fake, freezer, directory) = set_up(&[]);
    assert_eq!(freezer.freeze(FREEZE, None, None), Ok(3));
    assert!(freezer.is_frozen() && freezer.refuses_commands());
    assert_eq!(names(&directory), ["qga.state.hooks", "qga.state.isfrozen"]);
    assert_eq!(freezer.thaw(), Ok(3));
    assert!(!freezer.is_frozen() && !freezer.refuses_commands());
    assert_eq!(names(&directory), [""; 0]);
    assert_eq!(
        fake.log(),
        [
            "hook Freeze",
            "quiesce",
            "guard 3 for 600 s",
            "freeze /a",
            "freeze /b",
            "freeze /c",
            "guard complete",
            "thaw /c",
            "thaw /b",
            "thaw /a",
            "guard of frozen 3",
            "resume",
            "hook Thaw",
        ]
    );
}

#[test]
fn what_is_not_supported_or_frozen_already_is_not_counted() {
    let (fake, freezer, _directory) =
        set_up(&[("/a", Trouble::Fails(Errno::EOPNOTSUPP)), ("/b", Trouble::Fails(Errno::EBUSY))]);
    fake.state().frozen.insert("/b".into());
    assert_eq!(freezer.freeze(FREEZE, None, None), Ok(1));
    // By others or not, a thaw ends it.
    assert_eq!(freezer.thaw(), Ok(2));
}

#[test]
fn a_failure_undoes_what_was_done_and_names_its_mount_point() {
    check_failure(
        &[("/b", Trouble::Fails(Errno::EIO))],
        "failed to freeze /b: Input/output error",
        &["hook Freeze", "quiesce", "guard 3 for 600 s", "freeze /a", "freeze /b", "thaw /a", "resume", "hook Thaw"],
    );
}

#[test]
fn of_what_others_froze_nothing_is_thawed_by_a_failure() {
    let (fake, freezer, _directory) =
        set_up(&[("/a", Trouble::Fails(Errno::EBUSY)), ("/b", Trouble::Fails(Errno::EIO))]);
    fake.state().frozen.insert("/a".into());
    freezer.freeze(FREEZE, None, None).unwrap_err();
    assert_eq!(fake.frozen(), ["/a"]);
}

#[test]
fn nothing_to_freeze_is_no_freeze() {
    let (fake, freezer, directory) = set_up(&[]);
    assert_eq!(freezer.freeze(FREEZE, Some(&["/nowhere".into()]), None), Ok(0));
    assert_eq!(freezer.freeze(FREEZE, Some(&[]), None), Ok(0));
    assert!(!freezer.refuses_commands());
    assert_eq!(names(&directory), [""; 0]);
    assert_eq!(fake.log()[..3], ["hook Freeze", "resume", "hook Thaw"]);
}

#[test]
fn nothing_that_could_be_frozen_is_no_freeze() {
    let unsupported = Trouble::Fails(Errno::EOPNOTSUPP);
    let (fake, freezer, _directory) = set_up(&[("/a", unsupported), ("/b", unsupported), ("/c", unsupported)]);
    assert_eq!(freezer.freeze(FREEZE, None, None), Ok(0));
    assert!(!freezer.refuses_commands());
    assert_eq!(fake.log()[6..], ["resume", "hook Thaw"]);
}

#[test]
fn named_file_systems_are_frozen_and_no_others() {
    let (fake, freezer, _directory) = set_up(&[]);
    assert_eq!(freezer.freeze(FREEZE, Some(&["/c".into(), "/c".into(), "/x".into()]), None), Ok(1));
    assert_eq!(fake.frozen(), ["/c"]);
}

#[test]
fn a_host_may_choose_the_lease() {
    let (fake, freezer, _directory) = set_up(&[]);
    freezer.freeze(FREEZE, None, Some(Duration::from_secs(7))).unwrap();
    assert!(fake.log().contains(&"guard 3 for 7 s".into()));
}

#[test]
fn one_that_does_not_answer_is_given_up_and_said_to_be_stuck_until_it_is_thawed() {
    let (fake, freezer, _directory) = set_up(&[("/b", Trouble::Hangs)]);
    let error = freezer.freeze(FREEZE, None, None).unwrap_err();
    assert_eq!(error.desc, "failed to freeze /b: timed out after 0.3 s");
    assert_eq!(fake.frozen(), [""; 0]);
    assert!(!freezer.refuses_commands());
    let reason = "/b: the kernel has not returned from freezing it for 0 s; there is a way out";
    assert_eq!(freezer.state().unwrap_err().desc, reason);
    assert_eq!(freezer.thaw().unwrap_err().desc, format!("failed to thaw {reason}"));
    // It would be thawed in the middle of the next freeze. Neither hooks nor a timeout are waited for.
    let before = fake.log();
    let error = freezer.freeze(FREEZE, None, None).unwrap_err();
    assert_eq!(error.desc, format!("failed to freeze {reason}"));
    assert!(!fake.log()[before.len()..].contains(&"hook Freeze".into()));
    // Others can be frozen.
    assert_eq!(freezer.freeze(FREEZE, Some(&["/a".into(), "/c".into()]), None), Ok(2));
    assert_eq!(freezer.state(), Ok(FreezeState::Frozen));
    freezer.thaw().unwrap_err();
    assert_eq!(fake.frozen(), [""; 0]);

    fake.go_on();
    fake.wait_for(|_| freezer.state().is_ok());
    assert_eq!(freezer.state(), Ok(FreezeState::Thawed));
    assert_eq!(fake.frozen(), [""; 0]);
    assert_eq!(freezer.thaw(), Ok(0));
    assert_eq!(freezer.freeze(FREEZE, None, None), Ok(3));
}

#[test]
fn a_guard_that_is_killed_while_it_waits_is_replaced() {
    let (fake, freezer, _directory) = set_up(&[("/b", Trouble::Hangs)]);
    freezer.freeze(FREEZE, None, None).unwrap_err();
    fake.guard_is_killed();
    assert!(fake.log().contains(&"guard of frozen 1".into()));
    // The kernel returns to a process that is gone, and to one that thaws.
    fake.go_on();
    fake.wait_for(|_| freezer.state().is_ok());
    fake.wait_for(|fake| fake.frozen().is_empty());
}

#[test]
fn a_new_agent_learns_what_is_stuck() {
    let directory = tempfile::tempdir().unwrap();
    let fake = Fake::new(&[("/b", Trouble::Hangs)]);
    fake.state().left = vec!["/b"];
    let freezer = freezer(&fake, directory.path());
    freezer.recover();
    assert!(!freezer.refuses_commands());
    let error = freezer.freeze(FREEZE, None, None).unwrap_err();
    assert!(error.desc.starts_with("failed to freeze /b: the kernel has not returned"), "{}", error.desc);
    fake.go_on();
    fake.wait_for(|_| freezer.state().is_ok());
}

#[test]
fn a_guard_that_does_not_answer_is_passed_over() {
    let (fake, freezer, _directory) = set_up(&[]);
    freezer.freeze(FREEZE, None, None).unwrap();
    fake.guards_are_stopped.store(true, Ordering::Relaxed);
    assert_eq!(freezer.thaw(), Ok(3));
    assert_eq!(fake.frozen(), [""; 0]);
}

#[test]
fn the_log_is_written_unless_that_is_stuck() {
    let (fake, freezer, directory) = set_up(&[("/b", Trouble::HangsInThaw)]);
    freezer.freeze(FREEZE, None, None).unwrap();
    let noting = Arc::clone(&fake);
    freezer.when_thawed(move || noting.note("deferred".into()));
    let error = freezer.thaw().unwrap_err();
    assert!(error.desc.contains("/b: the kernel has not returned from thawing it for "), "{}", error.desc);
    let noting = Arc::clone(&fake);
    freezer.when_thawed(move || noting.note("deferred again".into()));
    // An agent that takes its place would find nothing that it could end.
    assert_eq!(names(&directory), [""; 0]);
    assert_eq!(fake.log()[fake.log().len() - 2..], ["resume but /b", "hook Thaw"]);
    fake.go_on();
    fake.wait_for(|fake| fake.log().contains(&"resume".into()));
    let log = fake.log();
    let end = log.iter().position(|line| line == "hook Thaw").unwrap() + 1;
    assert_eq!(log[end..], ["thaw /b", "deferred", "deferred again", "resume"]);
    let noting = Arc::clone(&fake);
    freezer.when_thawed(move || noting.note("at once".into()));
    assert_eq!(fake.log().last().unwrap(), "at once");
}

#[test]
fn a_thaw_ends_a_freeze_that_is_under_way() {
    let (fake, freezer, _directory) = set_up(&[("/b", Trouble::Hangs)]);
    let shared = freezer.clone();
    let freezing = thread::spawn(move || shared.freeze(FREEZE, None, None));
    fake.wait_for(|fake| fake.log().contains(&"freeze /b".into()));
    assert!(freezer.refuses_commands() && !freezer.is_frozen());
    let error = freezer.thaw().unwrap_err();
    assert!(error.desc.starts_with("failed to thaw /b: the kernel has not returned"), "{}", error.desc);
    let error = freezing.join().unwrap().unwrap_err();
    assert!(error.desc.starts_with("failed to freeze /b: "), "{}", error.desc);
    fake.go_on();
}

#[test]
fn a_second_freeze_is_refused_by_its_own_name() {
    let (_fake, freezer, _directory) = set_up(&[]);
    freezer.freeze(FREEZE, None, None).unwrap();
    for command in [FREEZE, "guest-fsfreeze-freeze-list"] {
        let refusal = freezer.freeze(command, None, None).unwrap_err();
        assert!(
            refusal.desc.starts_with(&format!("Command {command} has been disabled: the agent is in frozen state"))
        );
    }
    assert_eq!(freezer.thaw(), Ok(3));
}

#[test]
fn without_a_guard_nothing_is_frozen() {
    let (fake, freezer, directory) = set_up(&[]);
    fake.has_no_guard.store(true, Ordering::Relaxed);
    assert_eq!(freezer.freeze(FREEZE, None, None).unwrap_err().desc, "no guard");
    assert_eq!(fake.log(), ["hook Freeze", "quiesce", "resume", "hook Thaw"]);
    assert_eq!(names(&directory), [""; 0]);
}

#[test]
fn a_hook_that_fails_keeps_everything_thawed_and_undoes_itself() {
    let (fake, freezer, _directory) = set_up(&[]);
    fake.hook_fails.store(true, Ordering::Relaxed);
    assert_eq!(freezer.freeze(FREEZE, None, None).unwrap_err().desc, "hook failed");
    assert_eq!(fake.log(), ["hook Freeze", "resume"]);
    assert!(!freezer.refuses_commands());
}

#[test]
fn a_hook_that_fails_to_thaw_is_an_error_although_all_is_thawed() {
    let (fake, freezer, _directory) = set_up(&[]);
    freezer.freeze(FREEZE, None, None).unwrap();
    fake.hook_fails.store(true, Ordering::Relaxed);
    assert_eq!(freezer.thaw().unwrap_err().desc, "hook failed");
    assert_eq!(fake.frozen(), [""; 0]);
    assert!(!freezer.refuses_commands());
}

#[test]
fn a_thaw_of_a_thawed_guest_thaws_what_others_froze_and_runs_the_hook() {
    let (fake, freezer, _directory) = set_up(&[]);
    assert_eq!(freezer.thaw(), Ok(0));
    fake.state().frozen.insert("/c".into());
    assert_eq!(freezer.thaw(), Ok(1));
    assert_eq!(fake.log(), ["guard of frozen 3", "hook Thaw", "guard of frozen 3", "thaw /c", "hook Thaw"]);
}

#[test]
fn one_that_does_not_thaw_is_named_and_delays_no_other() {
    let (fake, freezer, _directory) = set_up(&[("/b", Trouble::HangsInThaw)]);
    freezer.freeze(FREEZE, None, None).unwrap();
    let error = freezer.thaw().unwrap_err();
    assert!(error.desc.starts_with("failed to thaw /b: the kernel has not returned from thawing it for "));
    assert_eq!(fake.frozen(), ["/b"]);
    assert!(!freezer.refuses_commands());
    fake.go_on();
    fake.wait_for(|fake| fake.frozen().is_empty());
}

#[test]
fn what_ended_before_does_not_concern_the_next_freeze() {
    let (_fake, freezer, directory) = set_up(&[]);
    Marker::new(&Root::machine(), directory.path()).note("late").unwrap();
    freezer.freeze(FREEZE, None, None).unwrap();
    assert_eq!(freezer.thaw(), Ok(3));
}

#[test]
fn no_hook_is_run_that_might_be_left_undone() {
    let fake = Fake::new(&[]);
    let error = freezer(&fake, Path::new("/nonexistent")).freeze(FREEZE, None, None).unwrap_err();
    assert_eq!(error.desc, "failed to write /nonexistent/qga.state.hooks: No such file or directory");
    assert_eq!(fake.log(), ["resume"]);
}

#[test]
fn what_writes_to_a_disk_is_put_off_until_the_thaw() {
    let (fake, freezer, _directory) = set_up(&[]);
    let note = |what: &'static str| {
        let fake = Arc::clone(&fake);
        move || fake.note(what.into())
    };
    freezer.when_thawed(note("at once"));
    freezer.freeze(FREEZE, None, None).unwrap();
    freezer.when_thawed(note("later"));
    freezer.thaw().unwrap();
    let log = fake.log();
    let position = |what: &str| log.iter().position(|line| line == what).unwrap();
    assert!(position("at once") < position("hook Freeze"));
    assert!(position("thaw /a") < position("later") && position("later") < position("resume"));
}
