use qga::{
    Class, Command,
    command::{Listed, WhileFrozen},
    commands::{SPECS, session::Nothing},
};
use serde::{Deserialize, Serialize};

use super::*;
use crate::{
    config::{
        settings::Settings,
        values::{Origin, WithOrigin},
    },
    guest::tests::{guest_at, guest_without_a_machine},
    policy::Policy,
    root::Root,
};

const PONG: &str = "{\"return\": {}}\n";

/// One command of each kind. Those that are prepared have no arguments.
static COMMANDS: [Handler; 7] = [
    Handler::of_test(Spec::new("test-blocking", Class::Query), |_, _, _| Ok(run(pong))),
    Handler::of_test(Spec::new("test-inline", Class::Query).inline(), |arguments, _, _| match arguments.is_empty() {
        true => Ok(run(pong)),
        false => Err(Error::generic("Parameter 'x' is unexpected")),
    }),
    Handler::of_test(Spec::new("test-at-once", Class::Query), |_, _, _| Ok(Prepared::of_test(Step::Done(pong())))),
    Handler::of_test(Spec::new("test-silent", Class::Query).inline(), |_, _, _| {
        Ok(run(|| Answer { line: None, outcome: Outcome::Ok }))
    }),
    Handler::of_test(Spec::new("test-panicking", Class::Query).inline(), |_, _, _| Ok(run(|| panic!("on purpose")))),
    Handler::of_test(Spec::new("test-changing", Class::Control), |_, _, _| Ok(run(pong))),
    Handler::of::<PanicsInline>(),
];

/// A command that panics where it would be carried out at once, and otherwise succeeds.
#[derive(Deserialize, Serialize)]
struct PanicsInline {}

impl Listed for PanicsInline {}

impl Command for PanicsInline {
    const SPEC: Spec = Spec::new("test-panicking-inline", Class::Query);
    type Reply = Nothing;
}

impl Run for PanicsInline {
    fn run(self, _: &Guest) -> Result<Nothing, Error> {
        Ok(Nothing {})
    }

    fn run_inline(&self, _: &Guest) -> Option<Result<Nothing, Error>> {
        panic!("on purpose")
    }
}

impl Handler {
    const fn of_test(spec: Spec, prepare: fn(&Object<'_>, &Guest, Option<&Id>) -> Result<Prepared, Error>) -> Self {
        Self { spec, audit_subject: |_| None, prepare }
    }
}

impl Prepared {
    fn of_test(step: Step) -> Self {
        Self { audit_subject: None, step }
    }
}

fn pong() -> Answer {
    Answer { line: Some(PONG.into()), outcome: Outcome::Ok }
}

fn run(command: fn() -> Answer) -> Prepared {
    Prepared::of_test(Step::Run(Box::new(move |_, _| command())))
}

/// A dispatcher of the test commands, of which the configuration blocks these.
fn dispatcher(blocked: &[&str]) -> Dispatcher {
    let blocked = blocked.iter().map(|name| WithOrigin { value: (*name).into(), origin: Origin::CommandLine });
    let policy = Policy::new(&Settings { block_rpcs: blocked.collect(), ..Settings::default() });
    Dispatcher::with_handlers(&COMMANDS, Arc::new(Guest { policy, ..guest_without_a_machine() }))
}

/// The reply to a request that is done at once.
fn reply(dispatcher: &Dispatcher, request: &str) -> String {
    match dispatcher.dispatch(request.as_bytes()) {
        Dispatched::Done(line) => line.map(|line| String::from_utf8(line).unwrap()).unwrap_or_default(),
        Dispatched::Blocking(task) => panic!("{task:?} is to be run elsewhere"),
    }
}

#[track_caller]
fn check(blocked: &[&str], request: &str, expected: &str) {
    let reply = reply(&dispatcher(blocked), request);
    assert!(reply.contains(expected), "{request}: {reply}");
}

#[test]
fn the_envelope_is_checked_before_the_command_is_looked_up() {
    check(&[], r#"{"execute":"test-none","other":1}"#, "QMP input member 'other' is unexpected");
}

#[test]
fn an_unknown_command_is_not_found_whatever_its_arguments_are() {
    check(&[], r#"{"execute":"test-none","arguments":{"x":1}}"#, "The command test-none has not been found");
}

#[test]
fn a_refused_command_is_refused_before_its_arguments_are_read() {
    let request = r#"{"execute":"test-inline","arguments":{"x":1}}"#;
    let refusal = "Command test-inline has been disabled: the command is not allowed (block-rpcs on the command line)";
    check(&["test-inline"], request, refusal);
    check(&[], request, "Parameter 'x' is unexpected");
}

#[test]
fn requests_and_refusals_are_counted() {
    let dispatcher = dispatcher(&["test-inline"]);
    for request in [r#"{"execute":"test-inline"}"#, r#"{"execute":"unknown"}"#, "7"] {
        reply(&dispatcher, request);
    }
    let counts = dispatcher.guest().activity.counts();
    assert_eq!((counts.requests, counts.refused), (3, 1));
}

#[test]
fn a_command_that_cannot_block_is_done_at_once() {
    for command in ["test-inline", "test-at-once"] {
        check(&[], &format!(r#"{{"execute":"{command}"}}"#), PONG);
    }
}

#[test]
fn a_command_that_may_block_becomes_a_task_with_its_timeout_and_the_id_of_the_request() {
    let dispatcher = dispatcher(&[]);
    let Dispatched::Blocking(task) = dispatcher.dispatch(br#"{"execute":"test-blocking","id":7}"#) else {
        panic!("it was run on the I/O thread")
    };
    assert_eq!((task.name, task.timeout), ("test-blocking", Duration::from_secs(15)));
    assert!(task.id.is_some());
    assert_eq!(task.run(dispatcher.guest()), Some(PONG.into()));
}

#[test]
fn a_silent_success_has_no_reply() {
    assert_eq!(reply(&dispatcher(&[]), r#"{"execute":"test-silent","id":1}"#), "");
}

#[test]
fn a_command_that_panics_is_answered_with_an_error_and_the_next_one_is_served() {
    let dispatcher = dispatcher(&[]);
    let answer = reply(&dispatcher, r#"{"execute":"test-panicking","id":1}"#);
    assert!(answer.contains("test-panicking failed because of a bug in the agent"), "{answer}");
    assert!(answer.starts_with(r#"{"id": 1, "error": {"class": "GenericError""#), "{answer}");
    assert_eq!(reply(&dispatcher, r#"{"execute":"test-inline"}"#), PONG);
}

#[test]
fn a_command_that_panics_on_the_io_thread_is_run_elsewhere() {
    let dispatcher = dispatcher(&[]);
    let Dispatched::Blocking(task) = dispatcher.dispatch(br#"{"execute":"test-panicking-inline"}"#) else {
        panic!("it was answered at once")
    };
    assert_eq!(task.run(dispatcher.guest()), Some(PONG.into()));
}

#[test]
fn a_command_that_changes_the_guest_is_audited_and_a_query_is_not() {
    let dispatcher = dispatcher(&[]);
    for (command, is_audited) in [("test-blocking", false), ("test-changing", true)] {
        let request = format!(r#"{{"execute":"{command}"}}"#);
        let Dispatched::Blocking(task) = dispatcher.dispatch(request.as_bytes()) else {
            panic!("it was run on the I/O thread")
        };
        assert_eq!(task.audit.is_some(), is_audited, "{command}");
    }
}

/// A machine of which the file system at /dead does not answer, nor what the name services know of bob. The home of
/// ann is on it, and a link leads there.
const HALF_DEAD: &str = "\
proc/self/mountinfo:
| 1 0 254:1 / / rw - ext4 /dev/vda1 rw
| 2 1 0:50 / /dead rw - nfs4 x rw
etc/passwd:
| ann:x:1000:100::/dead/ann:
| bob:x:1001:100::/home/bob:
dead/file: x
dead/ann/
alive -> dead
";

/// What each command answers that names something, and by what it is refused on this machine. A handle of 1 is that of
/// a file at /dead.
const STUCK: [(&str, &str, &str); 16] = [
    ("guest-file-open", r#"{"path":"/dead/file"}"#, DEAD_DISK),
    ("guest-file-open", r#"{"path":"/alive/file","mode":"w"}"#, DEAD_DISK),
    ("guest-file-read", r#"{"handle":1,"count":2000000}"#, DEAD_DISK),
    ("guest-file-write", r#"{"handle":1,"buf-b64":"eA=="}"#, DEAD_DISK),
    ("guest-file-seek", r#"{"handle":1,"offset":0,"whence":"set"}"#, DEAD_DISK),
    ("guest-file-close", r#"{"handle":1}"#, DEAD_DISK),
    ("guest-exec", r#"{"path":"/dead/file"}"#, DEAD_DISK),
    ("guest-exec", r#"{"path":"file","env":["PATH=/none:/alive"]}"#, DEAD_DISK),
    ("qgad-job-start", r#"{"path":"/dead/file"}"#, DEAD_DISK),
    ("qgad-job-start", r#"{"path":"/bin/true","cwd":"/alive"}"#, DEAD_DISK),
    ("qgad-job-start", r#"{"path":"/bin/true","user":"bob"}"#, "an earlier command for user 'bob' has not ended"),
    ("guest-ssh-get-authorized-keys", r#"{"username":"ann"}"#, DEAD_DISK),
    ("guest-ssh-add-authorized-keys", r#"{"username":"ann","keys":["x"]}"#, DEAD_DISK),
    ("guest-ssh-remove-authorized-keys", r#"{"username":"ann","keys":["x"]}"#, DEAD_DISK),
    ("guest-ssh-get-authorized-keys", r#"{"username":"bob"}"#, "an earlier command for user 'bob' has not ended"),
    ("guest-set-user-password", r#"{"username":"bob","password":"eA==","crypted":false}"#, "command for user 'bob'"),
];
const DEAD_DISK: &str = "an earlier command on the file system at '/dead' has not ended after 0 s";

#[test]
fn what_keeps_a_command_from_ending_refuses_each_one_that_names_it() {
    let (root, directory) = Root::from_text(HALF_DEAD);
    let dispatcher = Dispatcher::new(Arc::new(Guest { root, ..guest_at(directory.path()) }));
    let answer = |name: &str, arguments: &str| {
        let request = format!(r#"{{"execute":"{name}","arguments":{arguments}}}"#);
        let reply = match dispatcher.dispatch(request.as_bytes()) {
            Dispatched::Done(line) => line,
            Dispatched::Blocking(task) => task.run(dispatcher.guest()),
        };
        String::from_utf8(reply.unwrap_or_default()).unwrap()
    };
    let open = r#"{"path":"/dead/file","mode":"r+"}"#;
    let handle: String = answer("guest-file-open", open).chars().filter(char::is_ascii_digit).collect();
    let in_use = &dispatcher.guest().in_use;
    let stuck = [(); 2].map(|()| in_use.begin(Duration::ZERO));
    stuck[0].turn_to(Resource::FileSystem("/dead".into())).unwrap();
    stuck[1].turn_to(Resource::User("bob".into())).unwrap();
    for (name, arguments, reason) in STUCK {
        let arguments = arguments.replace(r#""handle":1"#, &format!(r#""handle":{handle}"#));
        let answer = answer(name, &arguments);
        assert!(answer.contains(reason), "{name} {arguments}: {answer}");
    }
    drop(stuck);
    assert_eq!(answer("guest-file-close", &format!(r#"{{"handle":{handle}}}"#)), PONG);
}

#[test]
fn each_command_that_names_something_is_one_of_those_that_are_tried_with_what_does_not_answer() {
    // What is served while file systems are frozen uses none.
    for spec in SPECS.iter().filter(|spec| !spec.inline && spec.while_frozen == WhileFrozen::Refused) {
        let is_tried = STUCK.iter().any(|(name, ..)| *name == spec.name);
        assert_eq!(is_tried, names_what_it_uses(spec.class), "{}", spec.name);
    }
}
