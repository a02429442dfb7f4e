//! Jobs with a terminal.

use qga::commands::job::{JobResize, JobStart, Terminal, Unattended};

use super::{
    list, read_to_end, read_until, shell, start,
    support::{Agent, deadline, refusal},
    write,
};

fn terminal(rows: i64, columns: i64) -> Terminal {
    Terminal { rows, columns, term: Some("xterm-256color".into()) }
}

#[test]
fn a_shell_on_a_terminal_has_its_size_its_type_and_job_control() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let job = JobStart { arg: Some(vec!["-i".into()]), terminal: Some(terminal(24, 80)), ..shell("") };
    let id = start(&mut client, &job).unwrap().id;
    let [listed] = &list(&mut client)[..] else { panic!("one job") };
    assert_eq!((listed.terminal, listed.unattended), (true, Unattended::HangUp));
    write(&mut client, id, b"stty size; echo =$TERM=\n", false).unwrap();
    let offset = read_until(&mut client, id, 0, "24 80\r\n=xterm-256color=");
    let resize = |rows, columns| JobResize { id, rows, columns };
    client.call(&resize(50, 132), deadline()).unwrap();
    write(&mut client, id, b"stty size\n", false).unwrap();
    let offset = read_until(&mut client, id, offset, "50 132");
    for (rows, columns) in [(0, 1), (1, 0), (65536, 1), (-1, 1)] {
        let refused = refusal(client.call(&resize(rows, columns), deadline())).map(drop);
        assert_eq!(refused, Err("a terminal has 1 to 65535 rows and columns".into()));
    }
    // The terminal makes an interrupt of the character, and the foreground program alone gets it.
    write(&mut client, id, b"echo begin; sleep 1000\n", false).unwrap();
    let offset = read_until(&mut client, id, offset, "begin\r\n");
    write(&mut client, id, b"\x03", false).unwrap();
    write(&mut client, id, b"echo after=$?\n", false).unwrap();
    let offset = read_until(&mut client, id, offset, "after=130");
    let refused = write(&mut client, id, b"", true);
    assert_eq!(refused, Err(format!("job {id} has a terminal, where a character ends the input")));
    write(&mut client, id, b"exit 7\n", false).unwrap();
    let (_, end) = read_to_end(&mut client, id, offset);
    assert_eq!(end.exit_code, Some(7));
}

#[test]
fn the_whole_session_is_hung_up_when_its_first_process_ends() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let job = JobStart { terminal: Some(terminal(24, 80)), ..shell("sleep 1000 & echo started; kill -9 $$") };
    let id = start(&mut client, &job).unwrap().id;
    let (output, end) = read_to_end(&mut client, id, 0);
    assert_eq!((&*output, end.signal), (&b"started\r\n"[..], Some(9)));
}

#[test]
fn a_terminal_that_makes_no_sense_is_refused() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let mut check = |terminal, reason: &str| {
        let refused = start(&mut client, &JobStart { terminal, ..shell("true") });
        assert_eq!(refused, Err(format!("failed to start /bin/sh: {reason}")));
    };
    check(Some(terminal(0, 80)), "a terminal has 1 to 65535 rows and columns");
    check(Some(terminal(24, 70000)), "a terminal has 1 to 65535 rows and columns");
    let of_type = |term: &str| Some(Terminal { rows: 24, columns: 80, term: Some(term.into()) });
    check(of_type("../../tmp/x"), "its terminal's type is no name");
    check(of_type(""), "its terminal's type is no name");
}

#[test]
fn a_job_without_a_terminal_has_no_size() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let id = start(&mut client, &shell("cat")).unwrap().id;
    let refused = refusal(client.call(&JobResize { id, rows: 24, columns: 80 }, deadline())).map(drop);
    assert_eq!(refused, Err(format!("job {id} has no terminal")));
}
