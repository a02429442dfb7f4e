use std::os::unix::fs::symlink;

use super::*;

const PASSWD_LINES: &str = "etc/passwd:\n| root:x:0:0::/root:/bin/sh\n| ann:x:1000:1000::/home/ann:/bin/sh\n";

/// The contents of a file after the password of `ann` is set.
fn check(tree: &str, file: &str, expected: &str) {
    let (root, _directory) = Root::from_text(tree);
    set_password(&root, "ann", "$6$new").unwrap();
    let contents = String::from_utf8(root.read(file).unwrap()).unwrap();
    assert_eq!(contents, expected.replace("TODAY", &today().to_string()));
}

#[test]
fn the_password_and_the_day_of_its_change_are_replaced_and_nothing_else() {
    let shadow = "etc/shadow:\n| root:*:1:0:99999:7:::\n|  odd\n| ann:!old:2:3:4:5:6:7:8\n| anna:x:1::::::\n";
    let expected = "root:*:1:0:99999:7:::\n odd\nann:$6$new:TODAY:3:4:5:6:7:8\nanna:x:1::::::\n";
    check(&format!("{PASSWD_LINES}{shadow}"), "/etc/shadow", expected);
}

#[test]
fn a_user_without_a_line_gets_one() {
    let shadow = "etc/shadow: root:*:1:0:99999:7:::\n";
    let expected = "root:*:1:0:99999:7:::\nann:$6$new:TODAY:0:99999:7:::\n";
    check(&format!("{PASSWD_LINES}{shadow}"), "/etc/shadow", expected);
    check(PASSWD_LINES, "/etc/shadow", "ann:$6$new:TODAY:0:99999:7:::\n");
}

#[test]
fn a_guest_without_shadow_has_its_passwords_in_passwd() {
    let passwd = "etc/passwd:\n| ann::1000:1000::/home/ann:/bin/sh\n| bob:y:1::::\n";
    check(passwd, "/etc/passwd", "ann:$6$new:1000:1000::/home/ann:/bin/sh\nbob:y:1::::\n");
}

#[test]
fn an_unknown_user_is_refused_and_nothing_is_written() {
    let (root, _directory) = Root::from_text(&format!("{PASSWD_LINES}etc/shadow: eve:*:1:::::::\n"));
    assert_eq!(set_password(&root, "eve", "x").unwrap_err(), "user 'eve' is not in /etc/passwd");
    assert_eq!(root.read("/etc/shadow").unwrap(), b"eve:*:1:::::::\n");
}

#[test]
fn a_file_keeps_its_mode_and_a_new_one_is_for_root_only() {
    for (shadow, mode) in [("etc/shadow: ann:*:1::::::\n", 0o640), ("", 0o600)] {
        let (root, directory) = Root::from_text(&format!("{PASSWD_LINES}{shadow}"));
        let path = directory.path().join("etc/shadow");
        if !shadow.is_empty() {
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        }
        set_password(&root, "ann", "x").unwrap();
        assert_eq!(std::fs::metadata(path).unwrap().mode() & 0o7777, mode);
    }
}

#[test]
fn a_file_that_is_kept_elsewhere_stays_there() {
    let (root, directory) = Root::from_text(&format!("{PASSWD_LINES}var/shadow: ann:*:1::::::\n"));
    symlink("../var/shadow", directory.path().join("etc/shadow")).unwrap();
    set_password(&root, "ann", "x").unwrap();
    assert!(root.read_link("/etc/shadow").is_ok());
    assert!(root.read("/var/shadow").unwrap().starts_with(b"ann:x:"));
}

#[test]
fn two_changes_at_once_are_both_made() {
    let users = ["ann", "bob", "eve"];
    let passwd: String = users.map(|user| format!("| {user}:x:1:1::/:\n")).concat();
    let (root, _directory) = Root::from_text(&format!("etc/passwd:\n{passwd}"));
    thread::scope(|scope| {
        for user in users {
            scope.spawn(|| set_password(&root, user, "x").unwrap());
        }
    });
    assert_eq!(lines(&root.read("/etc/shadow").unwrap()).filter(|line| !line.is_empty()).count(), users.len());
}
