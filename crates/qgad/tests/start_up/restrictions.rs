//! Restrictions by the configuration, and the report of `--check-config`.

use std::os::unix::fs::PermissionsExt;

use super::*;

#[test]
fn an_allow_list_allows_its_members_only_and_a_refusal_precedes_errors_in_arguments() {
    let scene = Scene::new();
    let _agent = scene.listening(&["-a", "guest-ping"]);
    let stream = UnixStream::connect(scene.path("socket")).unwrap();
    let answer = ask(stream, br#"{"execute":"guest-sync","arguments":{"bad":1}}"#);
    assert!(answer.contains("\"CommandNotFound\""), "{answer}");
    assert!(answer.contains("Command guest-sync has been disabled: the command is not allowed"), "{answer}");
}

#[test]
fn a_profile_is_named_in_refusals_and_disables_commands_in_the_list() {
    let scene = Scene::new();
    fs::write(scene.path("config"), "[general]\nprofile=read-only\n").unwrap();
    let _agent = scene.listening(&[]);
    let asked = |request: &[u8]| ask(UnixStream::connect(scene.path("socket")).unwrap(), request);
    let refusal = format!(
        "Command guest-exec has been disabled: the command is not allowed (profile=read-only in {})",
        scene.path("config").display()
    );
    let answer = asked(br#"{"execute":"guest-exec"}"#);
    assert!(answer.contains("\"CommandNotFound\"") && answer.contains(&refusal), "{answer}");
    let list = asked(br#"{"execute":"guest-info"}"#);
    let list: serde_json::Value = serde_json::from_str(&list).unwrap();
    let commands = list["return"]["supported_commands"].as_array().unwrap();
    for (name, enabled) in [("guest-exec", false), ("guest-fsfreeze-freeze", false), ("guest-get-osinfo", true)] {
        assert!(commands.iter().any(|command| command["name"] == name && command["enabled"] == enabled), "{name}");
    }
}

#[test]
fn programs_and_files_outside_the_lists_are_refused() {
    let scene = Scene::new();
    let config = format!(
        "[general]\nexec-allow=/bin/true\nfile-read-allow={0}/in\nfile-write-allow=\n",
        scene.directory.path().display()
    );
    fs::write(scene.path("config"), config).unwrap();
    fs::create_dir(scene.path("in")).unwrap();
    fs::write(scene.path("in/file"), "x").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", scene.path("in/link")).unwrap();
    let _agent = scene.listening(&[]);
    let check = |command: &str, arguments: &str, expected: &str| {
        let request = format!(r#"{{"execute":"{command}","arguments":{arguments}}}"#);
        let answer = ask(UnixStream::connect(scene.path("socket")).unwrap(), request.as_bytes());
        assert!(answer.contains(expected), "{arguments}: {answer}");
    };
    let file = |name: &str, mode: &str| format!(r#"{{"path":"{}","mode":"{mode}"}}"#, scene.path(name).display());
    check("guest-exec", r#"{"path":"true"}"#, "\"pid\"");
    check("guest-exec", r#"{"path":"/bin/sh"}"#, "(it is not allowed, exec-allow in ");
    check("guest-exec", r#"{"path":"true","env":["A=b"]}"#, "an environment is not allowed (exec-allow in ");
    check("guest-file-open", &file("in/file", "r"), "\"return\": 1000");
    check("guest-file-open", &file("in/link", "r"), "it is not allowed (file-read-allow in ");
    check("guest-file-open", &file("in/../config", "r"), "it is not allowed (file-read-allow in ");
    check("guest-file-open", r#"{"path":"/proc/self/root/etc/passwd"}"#, "it is not allowed (file-read-allow in ");
    check("guest-file-open", &file("in/file", "r+"), "it is not allowed (file-write-allow in ");
    check("guest-file-open", &file("in/new", "w"), "it is not allowed (file-write-allow in ");
    assert!(!scene.path("in/new").exists());
}

#[test]
fn an_allowed_program_is_told_its_own_path_whatever_the_link_was_called() {
    let scene = Scene::new();
    let (tool, link) = (scene.path("tool"), scene.path("id"));
    fs::copy("/bin/sh", &tool).unwrap();
    std::os::unix::fs::symlink(&tool, &link).unwrap();
    fs::write(scene.path("config"), format!("[general]\nexec-allow={}\n", tool.display())).unwrap();
    let _agent = scene.listening(&[]);
    let asked = |command: &str, arguments: &str| {
        let request = format!(r#"{{"execute":"{command}","arguments":{arguments}}}"#);
        let answer = ask(UnixStream::connect(scene.path("socket")).unwrap(), request.as_bytes());
        serde_json::from_str::<serde_json::Value>(&answer).unwrap()["return"].clone()
    };
    let program = format!(r#"{{"path":"{}","arg":["-c","echo $0"],"capture-output":true}}"#, link.display());
    let pid = &asked("guest-exec", &program)["pid"];
    let ended = wait_for("the end of the program", || {
        let status = asked("guest-exec-status", &format!(r#"{{"pid":{pid}}}"#));
        status["exited"].as_bool().unwrap().then_some(status)
    });
    let output = qga::wire::base64::Base64::decode(ended["out-data"].as_str().unwrap().as_bytes());
    assert_eq!(output.into_bytes().unwrap(), format!("{}\n", tool.display()).into_bytes());
}

#[test]
fn the_report_has_every_command_and_every_mistake_with_its_line() {
    let scene = Scene::new();
    let config = "[general]\nprofile=backup\ngarbage\nverbose=maybe\nexec-alow=/x\nblock-rpcs=guest-bogus;guest-ping\n";
    fs::write(scene.path("config"), config).unwrap();
    let output = scene.run(&["--check-config", "-a", "guest-typo"]);
    let report = String::from_utf8(output.stdout).unwrap();
    let file = scene.path("config");
    let file = file.display();
    let expected = [
        format!("{file}:3: Key file contains line “garbage” which is not a key-value pair, group, or comment"),
        format!("{file}:4: Key file contains key “verbose” which has a value that cannot be interpreted."),
        format!("{file}:5: there is no key 'exec-alow'"),
        format!("{file}:6: the block and allow lists name a command that does not exist: 'guest-bogus'"),
        "the command line: the block and allow lists name a command that does not exist: 'guest-typo'".into(),
    ];
    let mut lines = report.lines();
    assert_eq!(lines.by_ref().take(expected.len()).collect::<Vec<_>>(), expected);
    let commands: Vec<_> = lines.filter_map(|line| line.split_once(' ')).collect();
    assert_eq!(commands.len(), qga::commands::SPECS.len());
    assert!(commands.iter().any(|(name, text)| *name == "guest-exec" && text.contains("refused: profile=backup in ")));
    assert_eq!(output.status.code(), Some(1));

    fs::write(scene.path("config"), "[general]\nexec-allow=/bin/true\nblock-rpcs=guest-ping\n").unwrap();
    let output = scene.run(&["--check-config"]);
    let report = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{report}");
    let decision = |name: &str| report.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    assert_eq!(decision("guest-ping "), format!("refused: block-rpcs in {file}"));
    assert_eq!(decision("guest-exec "), format!("allowed: /bin/true by exec-allow in {file}"));
    assert_eq!(decision("guest-info "), "allowed");
}

#[test]
fn the_report_has_lines_without_effect_and_the_reasons_why_the_agent_would_not_start() {
    let scene = Scene::new();
    let file = scene.path("config");
    let check = |config: &str, expected: &[&str]| {
        fs::write(&file, config).unwrap();
        let output = scene.run(&["--check-config"]);
        let report = String::from_utf8(output.stdout).unwrap();
        let mistakes = report.lines().take_while(|line| !line.starts_with("guest-"));
        assert_eq!(mistakes.collect::<Vec<_>>(), expected, "{config}");
        assert_eq!(output.status.code(), Some(1));
    };
    let at = |line: usize, reason: &str| format!("{}:{line}: {reason}", file.display());
    check("[General]\nblock-rpcs=guest-exec\n", &[&at(1, "nothing in the group [General] is read, only in [general]")]);
    check(
        "[general]\nblock-rpcs=guest-exec\nblock-rpcs=guest-ping\n",
        &[&at(3, "the key 'block-rpcs' is there already, and loses its value")],
    );
    check("[general]\nallow-rpcs=\n", &[&at(2, "the key 'allow-rpcs' names no command, and so allows all")]);
    let hook = scene.path("hook");
    fs::write(&hook, "#!/bin/sh\n").unwrap();
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o777)).unwrap();
    let reason = "it can be written by others than its owner; this mends it: chmod go-w";
    let reason = format!(
        "no freeze would succeed: failed to execute fsfreeze hook '{0}': {reason} '{0}'",
        fs::canonicalize(&hook).unwrap().display()
    );
    check(&format!("[general]\nfsfreeze-hook={}\n", hook.display()), &[&reason]);
    check("[general]\nmethod=unix-listen\n", &["must specify a path for this channel"]);
    check("[general]\nmethod=unix-listen\npath=/no/socket\n", &["there is no directory for the socket /no/socket"]);
    check("[general]\nmethod=vsock-listen\npath=x:1\n", &["Failed to parse cid 'x'"]);
    check("[general]\nmethod=magic\npath=x\n", &["unsupported channel method/type: magic"]);
    check(
        "[general]\nlogfile=/no/log\naudit-file=/no/audit/file\n",
        &["there is no directory /no", "there is no directory /no/audit"],
    );
}

#[test]
fn a_line_without_effect_is_a_warning_in_the_log() {
    let scene = Scene::new();
    fs::write(scene.path("config"), "[general]\nexec_allow=/bin/true\n[Else]\n").unwrap();
    let output = scene.run(&["--dump-conf"]);
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(log.contains("config:2: there is no key 'exec_allow'"), "{log}");
    assert!(log.contains("config:3: nothing in the group [Else] is read, only in [general]"), "{log}");
}
