//! The contents of the log and the audit, and an agent that cannot write them.

use std::os::unix::fs::PermissionsExt;

use nix::unistd::pipe;

use super::*;

#[test]
fn a_log_on_a_full_disk_is_reported_once() {
    let scene = Scene::new();
    let mut agent = scene.listening(&["-v", "-l", "/dev/full"]);
    for _ in 0..3 {
        scene.ping();
    }
    agent.signal(Signal::SIGTERM);
    let (code, errors) = agent.end();
    assert_eq!(code, Some(0));
    assert!(errors.ends_with(": critical: failed to write to the log's file: No space left on device\n"), "{errors}");
    assert_eq!(errors.lines().count(), 1, "{errors}");
}

#[test]
fn the_audit_records_commands_that_change_the_guest_and_no_log_has_a_secret() {
    let scene = Scene::new();
    fs::write(scene.path("config"), "[general]\naudit-file=audit\nblock-rpcs=guest-shutdown\n").unwrap();
    let mut agent = scene.listening(&["-v", "-l", "log"]);
    // The secret is in every argument that may have one, as text and as base64. The user does not exist.
    let (secret, encoded) = ("SECRETsecret", "U0VDUkVUc2VjcmV0");
    let check = |command: &str, arguments: &str| {
        let request = format!(r#"{{"execute":"{command}","arguments":{arguments}}}"#);
        ask(UnixStream::connect(scene.path("socket")).unwrap(), request.as_bytes())
    };
    let exec = format!(r#"{{"path":"/bin/true","arg":["{secret}"],"env":["A={secret}"],"input-data":"{encoded}"}}"#);
    assert!(check("guest-exec", &exec).contains("pid"));
    check("guest-exec", &format!(r#"{{"path":"/no/such","arg":["{secret}"],"unknown":"{secret}"}}"#));
    let file = format!(r#"{{"path":"{}","mode":"w"}}"#, scene.path("file").display());
    assert!(check("guest-file-open", &file).contains("1000"));
    assert!(check("guest-file-write", &format!(r#"{{"handle":1000,"buf-b64":"{encoded}"}}"#)).contains("12"));
    let nobody = "no-such-user";
    check("guest-set-user-password", &format!(r#"{{"username":"{nobody}","password":"{encoded}","crypted":false}}"#));
    for command in ["guest-ssh-add-authorized-keys", "guest-ssh-remove-authorized-keys"] {
        check(command, &format!(r##"{{"username":"{nobody}","keys":["#{secret}"]}}"##));
        check(command, &format!(r#"{{"username":"{nobody}","keys":["{secret}"]}}"#));
    }
    check("guest-shutdown", r#"{"mode":"halt"}"#);
    agent.signal(Signal::SIGTERM);
    agent.end();
    let [log, audit] = ["log", "audit"].map(|name| fs::read_to_string(scene.path(name)).unwrap());
    for text in [&log, &audit] {
        assert!(!text.is_empty() && !text.contains(secret) && !text.contains(encoded), "{text}");
    }
    let lines: Vec<serde_json::Value> = audit.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let recorded: Vec<_> = lines.iter().map(|line| (line["command"].as_str().unwrap(), &line["outcome"])).collect();
    let key_errors =
        ["guest-ssh-add-authorized-keys", "guest-ssh-remove-authorized-keys"].map(|name| [(name, "error"); 2]);
    let mut expected = vec![
        ("guest-exec", "ok"),
        ("guest-exec", "error"),
        ("guest-file-open", "ok"),
        ("guest-set-user-password", "error"),
    ];
    expected.extend(key_errors.into_iter().flatten());
    expected.push(("guest-shutdown", "refused"));
    assert_eq!(recorded.iter().map(|(name, outcome)| (*name, outcome.as_str().unwrap())).collect::<Vec<_>>(), expected);
    assert_eq!(lines[0]["touched"], "/bin/true");
    assert_eq!(lines[0]["class"], "exec");
    let refused = lines.last().unwrap();
    assert_eq!(refused["reason"], "the command is not allowed");
    assert!(refused["rule"].as_str().unwrap().starts_with("block-rpcs in "));
    assert_eq!(refused["touched"], "halt");
}

#[test]
fn the_audit_names_the_rule_that_refused_a_command_a_file_a_program_or_an_environment() {
    let scene = Scene::new();
    let allowed = scene.path("in");
    fs::create_dir(&allowed).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", allowed.join("link")).unwrap();
    let lists = format!("exec-allow=/bin/true\nfile-read-allow={}\nallow-rpcs=guest-exec\n", allowed.display());
    fs::write(scene.path("config"), format!("[general]\naudit-file=audit\n{lists}")).unwrap();
    let mut agent = scene.listening(&["-a", "guest-file-open,guest-ping"]);
    let link = format!(r#"{{"path":"{}"}}"#, allowed.join("link").display());
    let (file, place) = (format!("file-read-allow={}", allowed.display()), scene.path("config"));
    let expected = [
        ("guest-file-open", &*link, "the file is not allowed", &*file),
        ("guest-file-open", r#"{"path":"/etc/passwd"}"#, "the file is not allowed", "file-read-allow"),
        ("guest-exec", r#"{"path":"/bin/sh"}"#, "the program is not allowed", "exec-allow"),
        ("guest-exec", r#"{"path":"/bin/true","env":["A=b"]}"#, "an environment is not allowed", "exec-allow"),
        ("guest-shutdown", r#"{"mode":"halt"}"#, "the command is not allowed", "allow-rpcs"),
    ];
    for (command, arguments, _, _) in expected {
        let request = format!(r#"{{"execute":"{command}","arguments":{arguments}}}"#);
        let answer = ask(UnixStream::connect(scene.path("socket")).unwrap(), request.as_bytes());
        assert!(answer.contains("not allowed"), "{answer}");
    }
    agent.signal(Signal::SIGTERM);
    agent.end();
    let audit = fs::read_to_string(scene.path("audit")).unwrap();
    let lines: Vec<serde_json::Value> = audit.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), expected.len(), "{audit}");
    for (line, (command, _, reason, rule)) in lines.iter().zip(expected) {
        let told = ["command", "outcome", "reason", "rule"].map(|member| line[member].as_str().unwrap_or_default());
        assert_eq!(told, [command, "refused", reason, &format!("{rule} in {}", place.display())]);
    }
}

#[test]
fn the_modes_of_the_socket_and_the_log_do_not_depend_on_the_umask() {
    let scene = Scene::new();
    let mut command = Command::new("/bin/sh");
    command.args([
        "-c",
        r#"umask 0; exec "$@""#,
        "sh",
        env!("CARGO_BIN_EXE_qgad"),
        "-m",
        "unix-listen",
        "-p",
        "socket",
    ]);
    command.args(["-l", "log", "-t", "."]).current_dir(scene.directory.path());
    let _agent = Running(command.spawn().unwrap());
    scene.ping();
    let mode = |name: &str| fs::metadata(scene.path(name)).unwrap().permissions().mode() & 0o7777;
    assert_eq!([mode("socket"), mode("log")], [0o600, 0o640]);
}

#[test]
fn the_log_has_the_names_of_commands_and_not_their_arguments() {
    let scene = Scene::new();
    let mut agent = scene.listening(&["-v", "-l", "log"]);
    let stream = UnixStream::connect(scene.path("socket")).unwrap();
    ask(stream, br#"{"execute":"guest-sync","arguments":{"id":424242}}"#);
    agent.signal(Signal::SIGTERM);
    assert_eq!(agent.end(), (Some(0), String::new()));
    let log = fs::read_to_string(scene.path("log")).unwrap();
    assert!(log.lines().any(|line| line.contains("read data") && line.contains("guest-sync")), "{log}");
    assert!(!log.contains("424242"), "{log}");
}

#[test]
fn a_log_that_blocks_does_not_block_replies() {
    let scene = Scene::new();
    // Nobody reads the pipe, and the agent logs more than it holds.
    let (_unread, full) = pipe().unwrap();
    let arguments = ["-v", "-m", "unix-listen", "-p", "socket"];
    let mut agent = Running(scene.agent(&arguments).stderr(full).spawn().unwrap());
    for _ in 0..2000 {
        scene.ping();
    }
    agent.signal(Signal::SIGTERM);
    assert_eq!(agent.end().0, Some(0));
}
