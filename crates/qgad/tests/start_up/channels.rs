//! Sockets that are inherited, and terminals.

use std::{
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::UnixListener,
    },
    path::Path,
};

use nix::{
    fcntl::{FcntlArg, FdFlag, fcntl},
    pty::{OpenptyResult, openpty},
    sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr},
    unistd::ttyname,
};

use super::*;

#[test]
fn an_inherited_socket_replaces_the_channel() {
    let scene = Scene::new();
    let listener = UnixListener::bind(scene.path("socket")).unwrap();
    let mut agent = Running(activated(&scene, &[listener.into()], &["-v"]).spawn().unwrap());
    scene.ping();
    agent.signal(Signal::SIGTERM);
    assert_eq!(agent.end().0, Some(0));
}

#[test]
fn an_inherited_socket_shows_in_the_printed_configuration() {
    let scene = Scene::new();
    let listener = UnixListener::bind(scene.path("socket")).unwrap();
    let output = activated(&scene, &[listener.into()], &["-D", "-m", "isa-serial"]).output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(printed.contains("method=unix-listen\npidfile="), "{printed}");
}

#[test]
fn exactly_one_socket_of_a_known_family_can_be_inherited() {
    let scene = Scene::new();
    let listener = |name| OwnedFd::from(UnixListener::bind(scene.path(name)).unwrap());
    let check = |sockets: &[OwnedFd], reason: &str| {
        let output = activated(&scene, sockets, &[]).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{errors}");
        assert!(errors.contains(reason), "{errors}");
    };
    check(&[listener("a"), listener("b")], "qemu-ga only supports listening on one socket");
    let internet = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    check(&[internet.into()], "unsupported listen fd type");
    check(&[fs::File::open("/dev/null").unwrap().into()], "the inherited listening socket cannot be used");
}

/// The agent with these descriptors from number 3 on, as a service manager starts it. The shell keeps its process
/// number when it becomes the agent.
fn activated(scene: &Scene, sockets: &[OwnedFd], arguments: &[&str]) -> Command {
    let agent = scene.agent(arguments);
    let mut redirections = String::new();
    for (index, socket) in sockets.iter().enumerate() {
        fcntl(socket, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
        redirections.push_str(&format!(" {}<&{}", index + 3, socket.as_raw_fd()));
    }
    let script = format!("export LISTEN_PID=$$ LISTEN_FDS={}; exec \"$0\" \"$@\"{redirections}", sockets.len());
    let mut shell = Command::new("/bin/sh");
    shell.env_clear().current_dir(scene.directory.path()).arg("-c").arg(script);
    shell.arg(agent.get_program()).args(agent.get_args()).stderr(Stdio::piped());
    shell
}

#[test]
fn a_serial_line_is_served_and_its_hang_up_ends_the_agent() {
    let scene = Scene::new();
    let pty = open_terminal();
    let line = terminal_path(&pty.slave);
    let mut agent = Running(scene.agent(&["-m", "isa-serial", "-p", line.to_str().unwrap()]).spawn().unwrap());
    let host = fs::File::from(pty.master);
    // Until the agent has made the line raw it would echo.
    wait_for("the agent has opened the line", || holds(&agent, &line).then_some(()));
    wait_for("the line is raw", || {
        let settings = tcgetattr(&pty.slave).unwrap();
        settings.local_flags.is_empty().then_some(())
    });
    assert_eq!(ask(&host, PING), PONG);
    drop((host, pty.slave));
    assert_eq!(agent.end().0, Some(0));
}

#[test]
fn an_agent_that_waits_for_its_port_opens_it_when_it_comes_and_leaves_when_told() {
    let scene = Scene::new();
    let mut agent = Running(scene.agent(&["-p", "port", "-r"]).stderr(Stdio::piped()).spawn().unwrap());
    let mut errors = BufReader::new(agent.0.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("waiting for channel path...") {
        line.clear();
        assert!(errors.read_line(&mut line).unwrap() > 0, "the agent does not wait");
    }
    let pty = open_terminal();
    make_raw(&pty.slave);
    std::os::unix::fs::symlink(terminal_path(&pty.slave), scene.path("port")).unwrap();
    let host = fs::File::from(pty.master);
    assert_eq!(ask(&host, PING), PONG);
    agent.signal(Signal::SIGTERM);
    assert_eq!(agent.end().0, Some(0));

    let mut waiting = Running(scene.agent(&["-p", "nothing", "-r"]).stderr(Stdio::piped()).spawn().unwrap());
    let mut first = [0];
    waiting.0.stderr.as_mut().unwrap().read_exact(&mut first).unwrap();
    waiting.signal(Signal::SIGTERM);
    assert_eq!(waiting.end().0, Some(0));
}

/// A terminal that no other test's agent inherits.
fn open_terminal() -> OpenptyResult {
    let terminal = openpty(None, None).unwrap();
    for end in [&terminal.master, &terminal.slave] {
        fcntl(end, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).unwrap();
    }
    terminal
}

fn terminal_path(terminal: &OwnedFd) -> PathBuf {
    ttyname(terminal).unwrap()
}

fn make_raw(terminal: &OwnedFd) {
    let mut settings = tcgetattr(terminal).unwrap();
    cfmakeraw(&mut settings);
    tcsetattr(terminal, SetArg::TCSANOW, &settings).unwrap();
}

fn holds(agent: &Running, path: &Path) -> bool {
    let descriptors = fs::read_dir(format!("/proc/{}/fd", agent.0.id()));
    descriptors.is_ok_and(|mut found| {
        found.any(|entry| entry.is_ok_and(|fd| fs::read_link(fd.path()).is_ok_and(|target| target == path)))
    })
}
