//! Values, lists and the printed configuration.

use super::*;

fn settings(assignments: &[(&str, &str)]) -> Result<Settings, String> {
    let mut settings = Settings::default();
    for (name, value) in assignments {
        let key = KEYS.iter().find(|key| key.names.contains(name)).unwrap();
        settings.set(key, OsStr::new(value), &Origin::CommandLine)?;
    }
    Ok(settings)
}

#[test]
fn a_list_grows_and_other_settings_have_their_last_value() {
    let settings = settings(&[("block-rpcs", "a,b"), ("path", "/x"), ("blacklist", " c ;; d,"), ("path", "/y")]);
    let settings = settings.unwrap();
    let blocked: Vec<_> = settings.block_rpcs.iter().map(|name| name.value.as_str()).collect();
    assert_eq!(blocked, ["a", "b", "c", "d"]);
    assert_eq!(settings.path, Some("/y".into()));
}

#[test]
fn a_flag_is_true_false_one_or_zero() {
    for (text, value) in [("true", true), ("1", true), ("true ", true), ("false", false), ("0", false)] {
        assert_eq!(settings(&[("verbose", text)]).unwrap().verbose, value, "{text:?}");
    }
    for text in ["yes", "TRUE", "", " "] {
        assert_eq!(settings(&[("verbose", text)]), Err(cannot_be_interpreted("verbose")), "{text:?}");
    }
}

#[test]
fn a_timeout_is_a_number_of_seconds_of_at_most_a_day() {
    let seconds = |name, text| {
        settings(&[(name, text)]).map(|settings| [settings.command_timeout, settings.fsfreeze_hook_timeout])
    };
    let (query, hook) = (QUERY_TIMEOUT, HOOK_TIMEOUT);
    assert_eq!(seconds("command-timeout", "2.5"), Ok([Duration::from_millis(2500), hook]));
    assert_eq!(seconds("fsfreeze-hook-timeout", "2.5"), Ok([query, Duration::from_millis(2500)]));
    for name in ["command-timeout", "fsfreeze-hook-timeout"] {
        for text in ["", "0", "-1", "nan", "inf", "86401", "5s"] {
            assert_eq!(seconds(name, text), Err(cannot_be_interpreted(name)), "{name}={text}");
        }
    }
}

#[test]
fn a_lease_of_zero_never_ends_and_the_timeout_of_a_freeze_is_an_hour_at_most() {
    let lease = |text| settings(&[("fsfreeze-lease", text)]).map(|settings| settings.fsfreeze_lease);
    assert_eq!(lease("0"), Ok(None));
    assert_eq!(lease("90"), Ok(Some(Duration::from_secs(90))));
    assert_eq!(lease("-1"), Err(cannot_be_interpreted("fsfreeze-lease")));
    assert!(settings(&[("fsfreeze-timeout", "3600")]).is_ok());
    assert_eq!(settings(&[("fsfreeze-timeout", "3601")]), Err(cannot_be_interpreted("fsfreeze-timeout")));
}

#[test]
fn profiles_have_names_and_allowed_paths_are_absolute() {
    assert_eq!(settings(&[("profile", "backup ")]).unwrap().profile.value, Profile::Backup);
    for text in ["", "readonly", "Full", "backup;full"] {
        assert_eq!(settings(&[("profile", text)]), Err(cannot_be_interpreted("profile")), "{text:?}");
    }
    for name in ["exec-allow", "file-read-allow", "file-write-allow"] {
        assert!(settings(&[(name, "/a; /b/c*")]).is_ok() && settings(&[(name, "")]).is_ok());
        for text in ["a", "/a;b", "/a/../b", "./a", "/a/."] {
            assert_eq!(settings(&[(name, text)]), Err(cannot_be_interpreted(name)), "{name}={text}");
        }
    }
    assert_eq!(settings(&[("exec-allow", "")]).unwrap().exec_allow.unwrap().value, [""; 0]);
}

#[test]
fn only_serial_ports_have_a_default_path() {
    let path = |method| settings(&[("method", method)]).unwrap().channel_path();
    assert_eq!(path("virtio-serial"), Ok(DEFAULT_VIRTIO_PORT.into()));
    assert_eq!(path("isa-serial"), Ok(DEFAULT_SERIAL_LINE.into()));
    for method in ["unix-listen", "vsock-listen", "bogus", ""] {
        assert_eq!(path(method), Err("must specify a path for this channel".into()));
    }
}

#[test]
fn a_printed_configuration_has_our_own_keys_only_where_they_differ_from_the_default() {
    let text = |settings: &Settings| String::from_utf8(settings.dump()).unwrap();
    assert_eq!(
        text(&Settings { path: Settings::default().channel_path().ok(), ..Settings::default() }),
        "[general]\ndaemon=false\nmethod=virtio-serial\npath=/dev/virtio-ports/org.qemu.guest_agent.0\n\
         pidfile=/var/run/qemu-ga.pid\nstatedir=/var/run\nverbose=false\nretry-path=false\nblock-rpcs=\n\
         allow-rpcs=\n"
    );
    for line in [
        "interfaces-exclude=veth*;docker0",
        "command-timeout=20",
        "fsfreeze-hook-timeout=5",
        "profile=manage",
        "audit=off",
        "audit-file=/a",
        "vsock-allow=2;3",
        "vsock-allow=any",
        "exec-allow=/bin/a;/bin/b",
        "file-read-allow=",
        "fsfreeze-lease=0",
        "fsfreeze-timeout=0.5",
        "fsfreeze-exclude=nfs*;/scratch",
    ] {
        let assignment = line.split_once('=').unwrap();
        assert!(text(&settings(&[assignment]).unwrap()).ends_with(&format!("\nallow-rpcs=\n{line}\n")));
    }
}
