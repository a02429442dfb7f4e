//! Keys in the home directory of the user who runs the tests. The VM lane tests the rights of other users.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
};

use nix::unistd::{getegid, geteuid};

use super::{keys_file::MAX_KEYS_BYTES, *};
use crate::guest::{Guest, tests::guest_at};

/// A machine with the user `ann`, and with this keys file in her home directory, if any.
fn machine(contents: Option<&str>) -> (Guest, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir_all(directory.path().join("home/ann")).unwrap();
    fs::create_dir_all(directory.path().join("etc")).unwrap();
    let (uid, gid) = (geteuid(), getegid());
    let passwd = format!("ann:x:{uid}:{gid}::/home/ann:/bin/sh\nbob:x:{uid}:{gid}::/home/bob:/bin/sh\n");
    fs::write(directory.path().join("etc/passwd"), passwd).unwrap();
    if let Some(contents) = contents {
        fs::create_dir(directory.path().join("home/ann/.ssh")).unwrap();
        fs::write(directory.path().join("home/ann/.ssh/authorized_keys"), contents).unwrap();
    }
    (guest_at(directory.path()), directory)
}

fn strings(keys: &[&str]) -> Vec<String> {
    keys.iter().map(ToString::to_string).collect()
}

fn add(guest: &Guest, username: &str, keys: &[&str], reset: Option<bool>) -> Result<Nothing> {
    AddAuthorizedKeys { username: username.into(), keys: strings(keys), reset }.run(guest)
}

fn remove(guest: &Guest, username: &str, keys: &[&str]) -> Result<Nothing> {
    RemoveAuthorizedKeys { username: username.into(), keys: strings(keys) }.run(guest)
}

fn get(guest: &Guest, username: &str) -> Result<AuthorizedKeys> {
    GetAuthorizedKeys { username: username.into() }.run(guest)
}

fn check_added(before: Option<&str>, keys: &[&str], reset: Option<bool>, after: &str) {
    let (guest, directory) = machine(before);
    add(&guest, "ann", keys, reset).unwrap();
    assert_eq!(fs::read_to_string(directory.path().join("home/ann/.ssh/authorized_keys")).unwrap(), after);
}

fn check_removed(before: &[u8], keys: &[&str], after: &[u8]) {
    assert_eq!(String::from_utf8_lossy(&without_keys(before, &strings(keys))), String::from_utf8_lossy(after));
}

fn check_refused<T: std::fmt::Debug>(result: Result<T>, desc: &str) {
    assert_eq!(result.unwrap_err(), Error::generic(desc));
}

#[test]
fn keys_are_reported_without_blanks_and_comments_in_reverse_order() {
    let (guest, _directory) = machine(Some("a 1\n\n  # comment\n\tb 2 \r\n#c\nd"));
    assert_eq!(get(&guest, "ann").unwrap().keys, ["d", "b 2", "a 1"]);
}

#[test]
fn keys_are_added_at_the_end_one_a_line() {
    check_added(None, &["a", "b"], None, "a\nb\n");
    check_added(Some("# mine\nx\n"), &["a"], None, "# mine\nx\na\n");
    check_added(Some("x"), &["a"], Some(false), "x\na\n");
    check_added(Some("x\n\n"), &["a"], None, "x\n\na\n");
}

#[test]
fn a_key_that_exists_is_not_added_again() {
    check_added(Some("a\nb"), &["b", "c", "c", "a"], None, "a\nb\nc\n");
    check_added(Some("b \n"), &["b"], None, "b \n");
    check_added(Some("a"), &["", "a"], None, "a");
}

#[test]
fn a_reset_leaves_the_new_keys_only() {
    check_added(Some("# mine\nx\n"), &["a", "a"], Some(true), "a\n");
    check_added(Some("x\n"), &[], Some(true), "");
}

#[test]
fn removing_keys_leaves_the_other_lines_byte_for_byte() {
    check_removed(b"# c\r\na\n\n b\xFF\nc", &["a", "nobody's"], b"# c\r\n\n b\xFF\nc");
    check_removed(b"a\nb\na\n", &["a"], b"b\n");
    check_removed(b"a\nb", &["b"], b"a\n");
    check_removed(b"a b\n a\t\n", &["a"], b"a b\n");
    check_removed(b"a\n\nb\n", &[""], b"a\n\nb\n");
}

#[test]
fn a_key_as_reported_can_be_removed() {
    let (guest, directory) = machine(Some(" a 1\r\nb 2\n"));
    let keys = get(&guest, "ann").unwrap().keys;
    RemoveAuthorizedKeys { username: "ann".into(), keys }.run(&guest).unwrap();
    assert_eq!(fs::read(directory.path().join("home/ann/.ssh/authorized_keys")).unwrap(), b"");
}

#[test]
fn removing_keys_from_an_absent_file_does_not_create_it() {
    let (guest, directory) = machine(None);
    remove(&guest, "ann", &["a"]).unwrap();
    remove(&guest, "bob", &["a"]).unwrap();
    assert!(!directory.path().join("home/ann/.ssh").exists());
}

#[test]
fn a_new_file_and_directory_are_accessible_to_the_user_only() {
    let (guest, directory) = machine(None);
    add(&guest, "ann", &["a"], None).unwrap();
    for (path, mode) in [("home/ann/.ssh", 0o700), ("home/ann/.ssh/authorized_keys", 0o600)] {
        let metadata = fs::metadata(directory.path().join(path)).unwrap();
        assert_eq!((metadata.mode() & 0o7777, metadata.uid()), (mode, geteuid().as_raw()), "{path}");
    }
    let names: Vec<_> = fs::read_dir(directory.path().join("home/ann/.ssh")).unwrap().collect();
    assert_eq!(names.len(), 1, "{names:?}");
}

#[test]
fn a_changed_file_loses_the_access_of_others_and_an_unchanged_one_is_not_written() {
    let (guest, directory) = machine(Some("a\n"));
    let path = directory.path().join("home/ann/.ssh/authorized_keys");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    let before = fs::metadata(&path).unwrap();
    add(&guest, "ann", &["a"], None).unwrap();
    remove(&guest, "ann", &["b"]).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().ino(), before.ino());
    add(&guest, "ann", &["b"], None).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
}

#[test]
fn a_link_instead_of_the_file_is_replaced_and_its_target_is_unchanged() {
    let (guest, directory) = machine(None);
    fs::create_dir(directory.path().join("home/ann/.ssh")).unwrap();
    fs::write(directory.path().join("etc/other"), "x\n").unwrap();
    let path = directory.path().join("home/ann/.ssh/authorized_keys");
    symlink("/etc/other", &path).unwrap();
    add(&guest, "ann", &["a"], None).unwrap();
    assert_eq!(fs::read_to_string(directory.path().join("etc/other")).unwrap(), "x\n");
    assert!(fs::symlink_metadata(&path).unwrap().is_file());
    assert_eq!(fs::read_to_string(path).unwrap(), "x\na\n");
}

#[test]
fn each_failure_has_its_own_error() {
    let (guest, directory) = machine(None);
    check_refused(get(&guest, "eve"), "failed to lookup user 'eve': no such user");
    check_refused(add(&guest, "eve", &[], None), "failed to lookup user 'eve': no such user");
    check_refused(remove(&guest, "eve", &[]), "failed to lookup user 'eve': no such user");
    check_refused(
        get(&guest, "ann"),
        "failed to read '/home/ann/.ssh/authorized_keys': Failed to open file \
         \u{201C}/home/ann/.ssh/authorized_keys\u{201D}: No such file or directory",
    );
    check_refused(
        add(&guest, "bob", &["a"], None),
        "failed to create directory '/home/bob/.ssh': No such file or directory",
    );
    fs::create_dir_all(directory.path().join("home/bob/.ssh/authorized_keys")).unwrap();
    check_refused(
        add(&guest, "bob", &["a"], None),
        "failed to read '/home/bob/.ssh/authorized_keys': Failed to open file \
         \u{201C}/home/bob/.ssh/authorized_keys\u{201D}: Not a regular file",
    );
    check_refused(
        add(&guest, "bob", &["a"], Some(true)),
        "failed to write to '/home/bob/.ssh/authorized_keys': Is a directory",
    );
}

#[test]
fn an_invalid_key_is_refused_before_anything_else() {
    let (guest, _directory) = machine(None);
    for key in ["#a", "a\nb"] {
        let desc = format!("invalid OpenSSH public key: '{key}'");
        check_refused(add(&guest, "eve", &["fine", key], None), &desc);
        check_refused(remove(&guest, "eve", &["fine", key]), &desc);
    }
}

#[test]
fn a_file_that_is_too_large_is_neither_read_nor_written() {
    let (guest, directory) = machine(Some(&"a\n".repeat(MAX_KEYS_BYTES / 2 + 1)));
    let file = "/home/ann/.ssh/authorized_keys";
    let words = format!("failed to read '{file}': Failed to open file \u{201C}{file}\u{201D}: File too large");
    check_refused(get(&guest, "ann"), &words);
    check_refused(add(&guest, "ann", &["b"], None), &words);
    let key = "k".repeat(MAX_KEYS_BYTES);
    check_refused(
        add(&guest, "ann", &[&key], Some(true)),
        &format!("failed to write to '{file}': more than {MAX_KEYS_BYTES} bytes"),
    );
    let contents = fs::read(directory.path().join(&file[1..])).unwrap();
    assert_eq!(contents.len(), MAX_KEYS_BYTES + 2);
}
