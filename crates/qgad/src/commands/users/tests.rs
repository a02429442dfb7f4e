//! Logins from the files of fake machines, and passwords in them.

use super::*;

/// A record of utmp in a layout.
fn record(layout: &Layout, kind: i16, user: &str, seconds: i64, microseconds: i64) -> Vec<u8> {
    let mut record = vec![0; layout.bytes];
    record[..2].copy_from_slice(&kind.to_ne_bytes());
    record[Layout::USER][..user.len()].copy_from_slice(user.as_bytes());
    for (offset, number) in [(layout.time, seconds), (layout.time + layout.time_bytes, microseconds)] {
        let bytes = match layout.time_bytes {
            4 => i32::try_from(number).unwrap().to_ne_bytes().to_vec(),
            _ => number.to_ne_bytes().to_vec(),
        };
        record[offset..offset + layout.time_bytes].copy_from_slice(&bytes);
    }
    record
}

fn check(root: &str, utmp: &[Vec<u8>], expected: &[(&str, f64)]) {
    let (root, directory) = Root::from_text(&format!("{root}var/run/\n"));
    if !utmp.is_empty() {
        std::fs::write(directory.path().join("var/run/utmp"), utmp.concat()).unwrap();
    }
    let guest = Guest { root, ..crate::guest::tests::guest_without_a_machine() };
    let users = GetUsers {}.run(&guest).unwrap();
    let users: Vec<_> = users.iter().map(|user| (user.user.as_str(), user.login_time)).collect();
    assert_eq!(users, expected);
}

const SESSION: &str = "\
run/systemd/sessions/12:
| # This is private data. Do not parse.
| UID=1000
| USER=ann
| ACTIVE=1
| STATE=active
| REMOTE=1
| TYPE=tty
| CLASS=user
| REALTIME=1700000000250000
| MONOTONIC=1
";

#[test]
fn each_user_of_utmp_is_reported_once_with_the_earliest_login() {
    let here = |kind, user, seconds, microseconds| record(&Layout::OF_THIS_MACHINE, kind, user, seconds, microseconds);
    let records = [
        here(2, "reboot", 1_700_000_000, 0),
        here(7, "bob", 1_700_000_500, 250_000),
        here(7, "ann", 1_700_000_400, 0),
        here(8, "eve", 1_700_000_300, 0),
        here(7, "bob", 1_700_000_100, 500_000),
        here(7, "", 1_700_000_200, 0),
    ];
    check("", &records, &[("bob", 1_700_000_100.5), ("ann", 1_700_000_400.0)]);
    check(SESSION, &records, &[("bob", 1_700_000_100.5), ("ann", 1_700_000_400.0)]);
}

#[test]
fn a_user_whose_processes_are_gone_is_not_logged_in() {
    let of_process = |user, pid: i32| {
        let mut record = record(&Layout::OF_THIS_MACHINE, 7, user, 5, 0);
        record[Layout::PID..Layout::PID + 4].copy_from_slice(&pid.to_ne_bytes());
        record
    };
    let records = [of_process("gone", 77), of_process("ann", 78)];
    check("proc/1/\nproc/78/\n", &records, &[("ann", 5.0)]);
    check(&format!("proc/1/\n{SESSION}"), &records[..1], &[("ann", 1_700_000_000.25)]);
    // A guest without /proc does not tell.
    check("", &records, &[("gone", 5.0), ("ann", 5.0)]);
}

#[test]
fn an_incomplete_record_is_skipped() {
    let mut torn = record(&Layout::OF_THIS_MACHINE, 7, "ann", 5, 0);
    torn.pop();
    check("", &[record(&Layout::OF_THIS_MACHINE, 7, "bob", 4, 0), torn], &[("bob", 4.0)]);
}

#[test]
fn a_name_may_fill_its_field_and_need_not_be_utf8() {
    let mut contents = record(&Layout::NARROW, 7, &"x".repeat(32), 5, 0);
    contents[Layout::USER.start] = 0xFF;
    let logins = utmp_logins(&contents, &Layout::NARROW, |_| true);
    assert_eq!(logins, [Login { user: format!("\u{FFFD}{}", "x".repeat(31)), time: 5_000_000 }]);
}

#[test]
fn both_layouts_are_read() {
    for layout in [Layout::NARROW, Layout::WIDE] {
        let contents = record(&layout, 7, "ann", 1_700_000_000, 999_999).repeat(2);
        let logins = utmp_logins(&contents, &layout, |_| true);
        assert_eq!(logins.len(), 2);
        assert_eq!(logins[1], Login { user: "ann".into(), time: 1_700_000_000_999_999 });
    }
}

#[test]
fn a_time_is_the_sum_of_seconds_and_their_fraction() {
    assert_eq!(format!("{:.17}", seconds(1_700_000_000_123_456)), format!("{:.17}", 1_700_000_000_f64 + 0.123_456));
    assert_eq!(seconds(-1), -1.0 + 0.999_999);
}

#[test]
fn sessions_of_logind_are_reported_if_utmp_has_no_login() {
    check(SESSION, &[], &[("ann", 1_700_000_000.25)]);
    check(SESSION, &[record(&Layout::OF_THIS_MACHINE, 2, "reboot", 1, 0)], &[("ann", 1_700_000_000.25)]);
}

#[test]
fn sessions_are_reported_in_the_order_of_their_logins() {
    let further = "run/systemd/sessions/c1:\n| USER=root\n| STATE=online\n| CLASS=user-early\n| REALTIME=1000000\n\
                   run/systemd/sessions/2:\n| USER=ann\n| STATE=online\n| CLASS=user\n| REALTIME=2000000\n";
    check(&format!("{SESSION}{further}"), &[], &[("root", 1.0), ("ann", 2.0)]);
}

#[test]
fn sessions_of_greeters_and_closing_ones_are_left_out() {
    let sessions = SESSION.replace("CLASS=user", "CLASS=greeter")
        + &SESSION.replace("sessions/12", "sessions/13").replace("STATE=active", "STATE=closing")
        + &SESSION.replace("sessions/12", "sessions/14").replace("REALTIME=", "X=")
        + &SESSION.replace("sessions/12", "sessions/15.ref");
    check(&sessions, &[], &[]);
}

#[test]
fn a_guest_without_utmp_and_sessions_has_no_logins() {
    check("", &[], &[]);
}

fn check_password_set(username: &str, password: &[u8], crypted: bool, expected: std::result::Result<&str, &str>) {
    let (root, _directory) = Root::from_text("etc/passwd: ann:x:1:1::/:\ndev/urandom: 0123456789abcdef\n");
    let guest = Guest { root, ..crate::guest::tests::guest_without_a_machine() };
    let password = SetUserPassword { username: username.into(), password: password.to_vec().into(), crypted };
    let done = password.run(&guest).map(|Nothing {}| {
        let shadow = guest.root.read("/etc/shadow").unwrap();
        String::from_utf8_lossy(&shadow).split(':').nth(1).unwrap_or_default().to_owned()
    });
    match expected {
        Ok(beginning) => assert!(done.as_ref().is_ok_and(|hash| hash.starts_with(beginning)), "{done:?}"),
        Err(desc) => assert_eq!(done, Err(Error::generic(desc))),
    }
}

#[test]
fn a_password_is_hashed_with_a_salt_and_a_hash_is_stored_unchanged() {
    check_password_set("ann", b"secret: \xFF", false, Ok("$6$klmnopqrstVWXYZa$"));
    check_password_set("ann", b"$y$anything", true, Ok("$y$anything"));
    check_password_set("ann", b"", false, Ok("$6$"));
}

#[test]
fn characters_that_would_add_fields_or_lines_are_refused() {
    for password in [b"a\nroot:x".as_slice(), b"a\n", b"a\0b"] {
        check_password_set("ann", password, false, Err("forbidden characters in raw password"));
        check_password_set("a:nn", password, true, Err("forbidden characters in raw password"));
    }
    for username in ["a:b", "a\nb", "a\0b", ":"] {
        check_password_set(username, b"a", false, Err("forbidden characters in username"));
    }
    check_password_set("ann", b"hash:0:0", true, Err("forbidden characters in crypted password"));
}

#[test]
fn an_unknown_user_is_refused_with_the_text_that_hosts_match() {
    let desc = "child process has failed to set user password: user 'eve' is not in /etc/passwd";
    check_password_set("eve", b"a", false, Err(desc));
    check_password_set("eve", b"a", true, Err(desc));
}

#[test]
fn a_guest_with_chpasswd_uses_it() {
    // The one earlier in PATH is not executable.
    let (root, directory) =
        Root::from_text("usr/local/sbin/chpasswd:\nusr/sbin/chpasswd:\netc/passwd: ann:x:1:1::/:\n");
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(directory.path().join("usr/sbin/chpasswd"), executable).unwrap();
    let guest = Guest { root, ..crate::guest::tests::guest_without_a_machine() };
    let password = SetUserPassword { username: "ann".into(), password: b"a".to_vec().into(), crypted: false };
    assert_eq!(password.run(&guest).unwrap_err().desc, "this machine cannot run /usr/sbin/chpasswd");
}
