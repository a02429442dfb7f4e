//! What the supervisor needs to start a job.
//!
//! The agent has resolved everything that needs the machine's files: the user, the groups, the program that the policy
//! allows.

use std::ffi::{CStr, CString};

use nix::{
    pty::Winsize,
    unistd::{Gid, Uid},
};

use super::message::{ABSENT, Kind, Message};
use crate::process::spawn::Program;

/// A job to be started.
#[derive(Debug)]
pub(crate) struct Start {
    /// Its id.
    pub(crate) id: i64,
    /// The program as the list of jobs shows it.
    pub(crate) label: CString,
    /// The user as the list of jobs shows it.
    pub(crate) user: Option<CString>,
    /// What runs.
    pub(crate) program: Program,
    /// Where it runs.
    pub(crate) directory: Option<Directory>,
    /// Whose rights it has, if not those of the supervisor.
    pub(crate) owner: Option<Owner>,
    /// Whether it can be given input.
    pub(crate) has_input: bool,
    /// The size of its terminal, if it has one.
    pub(crate) terminal: Option<Winsize>,
    /// Milliseconds until it is ended.
    pub(crate) timeout: Option<i64>,
    /// Whether it is hung up when no command names it for long.
    pub(crate) hangs_up: bool,
}

/// A working directory.
#[derive(Debug)]
pub(crate) struct Directory {
    /// Its path.
    pub(crate) path: CString,
    /// Whether to use `/` if it cannot be entered.
    pub(crate) is_optional: bool,
}

/// A user's rights.
#[derive(Clone, Debug)]
pub(crate) struct Owner {
    /// The user id.
    pub(crate) uid: Uid,
    /// The id of the primary group.
    pub(crate) gid: Gid,
    /// All groups.
    pub(crate) groups: Vec<Gid>,
}

/// The position of the first group in the numbers of a message. Those before it are for later versions, too.
const FIRST_GROUP: usize = 16;

impl Start {
    /// The request to the supervisor.
    pub(super) fn to_message(&self) -> Message {
        let (path, arguments, environment) = self.program.parts();
        let count = |strings: &[CString]| i64::try_from(strings.len()).unwrap_or(ABSENT);
        let size = self.terminal.map_or((ABSENT, ABSENT), |size| (size.ws_row.into(), size.ws_col.into()));
        let owner = self.owner.as_ref().map(|owner| (owner.uid.as_raw().into(), owner.gid.as_raw().into()));
        let (uid, gid) = owner.unwrap_or((ABSENT, ABSENT));
        let mut numbers = vec![
            self.id,
            self.has_input.into(),
            size.0,
            size.1,
            self.timeout.unwrap_or(ABSENT),
            self.hangs_up.into(),
            count(arguments),
            count(environment),
            self.directory.as_ref().map_or(ABSENT, |directory| directory.is_optional.into()),
            uid,
            gid,
            self.user.as_ref().map_or(ABSENT, |_| 1),
        ];
        numbers.resize(FIRST_GROUP, ABSENT);
        numbers.extend(self.owner.iter().flat_map(|owner| &owner.groups).map(|group| i64::from(group.as_raw())));
        let directory = self.directory.as_ref().map(|directory| directory.path.as_c_str());
        let strings = [path, self.label.as_c_str()]
            .into_iter()
            .chain(arguments.iter().chain(environment).map(CString::as_c_str))
            .chain(directory)
            .chain(self.user.as_deref());
        let bytes = strings.flat_map(CStr::to_bytes_with_nul).copied().collect();
        Message::new(Kind::Start, numbers, bytes)
    }

    /// Reads a request. `None` if it is invalid.
    pub(super) fn from_message(message: &Message) -> Option<Self> {
        let mut rest = message.bytes.as_slice();
        let mut next = || {
            let string = CStr::from_bytes_until_nul(rest).ok()?;
            rest = &rest[string.to_bytes_with_nul().len()..];
            Some(string.to_owned())
        };
        let (path, label) = (next()?, next()?);
        let mut strings = |position| (0..message.number(position)).map(|_| next()).collect::<Option<Vec<_>>>();
        let arguments = strings(6).filter(|arguments| !arguments.is_empty())?;
        let environment = strings(7)?;
        let is_optional = message.given(8).map(|is_optional| is_optional != 0);
        let directory = match is_optional {
            Some(is_optional) => Some(Directory { path: next()?, is_optional }),
            None => None,
        };
        let user = if message.given(11).is_some() { Some(next()?) } else { None };
        let id = |number: i64| u32::try_from(number).ok();
        let owner = match message.given(9) {
            Some(uid) => Some(Owner {
                uid: Uid::from_raw(id(uid)?),
                gid: Gid::from_raw(id(message.number(10))?),
                groups: message
                    .numbers
                    .iter()
                    .skip(FIRST_GROUP)
                    .filter_map(|&group| id(group))
                    .map(Gid::from_raw)
                    .collect(),
            }),
            None => None,
        };
        let terminal = match message.given(2) {
            Some(rows) => Some(size(rows, message.number(3))?),
            None => None,
        };
        Some(Self {
            id: message.number(0),
            label,
            user,
            program: Program::from_parts(path, arguments, environment),
            directory,
            owner,
            has_input: message.number(1) == 1,
            terminal,
            timeout: message.given(4),
            hangs_up: message.number(5) == 1,
        })
    }
}

/// The size of a terminal. `None` if a number is out of range.
pub(crate) fn size(rows: i64, columns: i64) -> Option<Winsize> {
    let length = |number: i64| u16::try_from(number).ok().filter(|&number| number > 0);
    Some(Winsize { ws_row: length(rows)?, ws_col: length(columns)?, ws_xpixel: 0, ws_ypixel: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(start: &Start) {
        let read = Start::from_message(&start.to_message()).unwrap();
        assert_eq!(format!("{read:?}"), format!("{start:?}"));
    }

    #[test]
    fn what_is_read_is_what_was_written() {
        let mut start = Start {
            id: 7,
            label: c"label".into(),
            user: None,
            program: Program::new("/bin/sh", ["-c", ""], ["A=1", ""]).unwrap(),
            directory: None,
            owner: None,
            has_input: true,
            terminal: None,
            timeout: None,
            hangs_up: false,
        };
        check(&start);
        start.user = Some(c"ann".into());
        start.directory = Some(Directory { path: c"/home".into(), is_optional: true });
        let groups = vec![Gid::from_raw(1), Gid::from_raw(u32::MAX - 1)];
        start.owner = Some(Owner { uid: Uid::from_raw(1000), gid: Gid::from_raw(100), groups });
        start.terminal = size(24, 80);
        start.timeout = Some(5000);
        check(&start);
    }

    #[test]
    fn a_message_that_makes_no_sense_starts_nothing() {
        let message = |numbers: &[i64], bytes: &[u8]| Message::new(Kind::Start, numbers, bytes.to_vec());
        assert!(Start::from_message(&message(&[], b"")).is_none());
        assert!(Start::from_message(&message(&[1, 0, ABSENT, ABSENT, ABSENT, 0, 2], b"a\0b\0c\0")).is_none());
        assert!(Start::from_message(&message(&[1, 0, 0, 0, ABSENT, 0, 1, 0], b"a\0b\0c\0")).is_none());
    }
}
