//! An agent's answer, in a form in which two agents can be compared.
//!
//! The order of an object's members is the reference's hash order and means nothing, so members are sorted. All else is
//! compared byte for byte, blanks included. What differs between two runs of one agent is masked.

use std::collections::HashSet;

/// A line that is longer is shortened where it is shown; its length stays part of the comparison.
const MAX_SHOWN_CHARS: usize = 160;

/// The last line of a newer agent's dump when nothing is allowed in particular.
const ALLOW_LIST: &str = "stdout: allow-rpcs=";

/// Everything that an agent sent or printed for an input, line by line.
pub(crate) type Answer = Vec<String>;

/// The lines of a conversation with one peer.
pub(crate) fn of_peer(bytes: &[u8], masked: &[String]) -> Answer {
    let mut lines = Vec::new();
    for line in bytes.split_inclusive(|&byte| byte == b'\n') {
        let Some(line) = line.strip_suffix(b"\n") else {
            lines.push(format!("(no line) {}", String::from_utf8_lossy(line)));
            continue;
        };
        let (mark, text) = line.strip_prefix(b"\xFF").map_or(("", line), |text| ("«FF»", text));
        let text = String::from_utf8_lossy(text);
        let sorted = match Reader(&text).whole() {
            Some(sorted) => sorted,
            None => format!("(no JSON) {text}"),
        };
        lines.push(format!("{mark}{}", masked.iter().fold(sorted, |line, name| mask(&line, name))));
    }
    lines
}

/// Hides the numbers that are a member's value.
fn mask(line: &str, member: &str) -> String {
    let name = format!("\"{member}\": ");
    let mut parts = line.split(&name);
    let mut masked = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let behind = part.trim_start_matches(|byte: char| byte.is_ascii_digit() || "+-.e".contains(byte));
        let value = if behind.len() < part.len() { "(number)" } else { "" };
        masked += &format!("{name}{value}{behind}");
    }
    masked
}

/// Leaves out what differs in nearly every answer because ours is the newer agent, so that the rest stands out: of
/// `guest-info` the versions and the commands that only one has, of a dump the allow list when it is empty.
pub(crate) fn align(theirs: &mut Answer, ours: &mut Answer) {
    let common: HashSet<String> = &names(theirs) & &names(ours);
    if !theirs.iter().any(|line| line.starts_with(ALLOW_LIST)) {
        ours.retain(|line| line != ALLOW_LIST);
    }
    settle_file_systems(theirs, ours);
    for answer in [theirs, ours] {
        for line in answer.iter_mut().filter(|line| line.contains("\"supported_commands\"")) {
            let known: Vec<_> = entries(line).filter(|entry| common.contains(name(entry))).collect();
            *line = format!("(guest-info) {}", known.join(", "));
        }
    }
}

/// Of file systems and disks, leaves out what only the newer agent has: bytes kept for the administrator, serials
/// without udev; and what only the older one has: further mounts of a device, which it lists before the first.
fn settle_file_systems(theirs: &mut Answer, ours: &mut Answer) {
    for (line, is_older) in theirs.iter_mut().map(|line| (line, true)).chain(ours.iter_mut().map(|line| (line, false)))
    {
        let Some(entries) = line.strip_prefix("{\"return\": [").and_then(|rest| rest.strip_suffix("]}")) else {
            continue;
        };
        if !line.contains("\"pci-controller\"") && !line.contains("\"mountpoint\"") {
            continue;
        }
        let mut entries: Vec<_> =
            objects(entries).map(|entry| without(&without(entry, "total-bytes-privileged"), "serial")).collect();
        if is_older {
            let device = |entry: &String| entry.split_once("\"mountpoint\"").map(|_| name(entry).to_owned());
            let devices: Vec<_> = entries.iter().map(device).collect();
            let mut index = 0;
            entries.retain(|_| {
                index += 1;
                devices[index - 1].is_none() || !devices[index..].contains(&devices[index - 1])
            });
        }
        *line = format!("{{\"return\": [{}]}}", entries.join(", "));
    }
}

/// The objects of a list.
fn objects(list: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0;
    let is_between = move |character: char| {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        depth == 0 && character != '}'
    };
    list.split(is_between).filter(|part| !part.is_empty())
}

/// The text of an object without a member whose value is a number or a string. Members are sorted.
fn without(object: &str, member: &str) -> String {
    let beginning = format!(", \"{member}\": ");
    let mut parts = object.split(&beginning);
    let mut left = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        left += &part[part.find([',', '}']).unwrap_or(part.len())..];
    }
    left
}

/// Leaves only the lines that differ, unless it is their order that does.
pub(crate) fn leave_out_common_lines(theirs: &mut Answer, ours: &mut Answer) {
    let without =
        |one: &Answer, other: &Answer| -> Answer { one.iter().filter(|line| !other.contains(line)).cloned().collect() };
    let (only_theirs, only_ours) = (without(theirs, ours), without(ours, theirs));
    if !(only_theirs.is_empty() && only_ours.is_empty()) {
        (*theirs, *ours) = (only_theirs, only_ours);
    }
}

/// The answer as it is listed: without what is a machine's own, runs of equal lines once, and long lines by their
/// beginning and length.
pub(crate) fn shorten(answer: &Answer) -> Answer {
    let answer: Answer = answer.iter().map(|line| without_machine(line)).collect();
    let shorten_line = |line: &String| match line.char_indices().nth(MAX_SHOWN_CHARS) {
        Some((end, _)) => format!("{}… ({} bytes)", &line[..end], line.len()),
        None => line.clone(),
    };
    let runs = answer.chunk_by(|one, other| one == other);
    runs.map(|run| match run.len() {
        1 => shorten_line(&run[0]),
        count => format!("({count} times) {}", shorten_line(&run[0])),
    })
    .collect()
}

fn without_machine(line: &str) -> String {
    let mut line = line.to_owned();
    for member in ["\"kernel-release\": \"", "\"kernel-version\": \"", "\"machine\": \""] {
        if let Some((before, after)) = line.split_once(member)
            && let Some((_, behind)) = after.split_once('"')
        {
            line = format!("{before}{member}…\"{behind}");
        }
    }
    line
}

/// `guest-info`'s objects, whose members are sorted.
fn entries(line: &str) -> impl Iterator<Item = &str> {
    line.split_inclusive('}').filter_map(|part| part.find("{\"enabled\"").map(|start| &part[start..]))
}

fn name(entry: &str) -> &str {
    entry.split("\"name\": \"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_default()
}

fn names(answer: &Answer) -> HashSet<String> {
    answer.iter().flat_map(|line| entries(line)).map(|entry| name(entry).to_owned()).collect()
}

/// Reads JSON as agents spell it, and nothing else.
struct Reader<'a>(&'a str);

impl Reader<'_> {
    /// The whole text with members sorted; nothing when it is not spelled as it should be.
    fn whole(mut self) -> Option<String> {
        let value = self.value()?;
        self.0.is_empty().then_some(value)
    }

    fn value(&mut self) -> Option<String> {
        match self.0.as_bytes().first()? {
            b'{' => self.sequence("{", "}", |reader| {
                let name = reader.string()?;
                reader.accept(": ")?;
                Some(format!("{name}: {}", reader.value()?))
            }),
            b'[' => self.sequence("[", "]", Self::value),
            b'"' => self.string(),
            _ => {
                let end = self.0.find([',', '}', ']']).unwrap_or(self.0.len());
                serde_json::from_str::<serde_json::Value>(&self.0[..end]).ok()?;
                self.take(end)
            }
        }
    }

    fn sequence(&mut self, open: &str, close: &str, element: fn(&mut Self) -> Option<String>) -> Option<String> {
        self.accept(open)?;
        let mut elements = Vec::new();
        while self.accept(close).is_none() {
            if !elements.is_empty() {
                self.accept(", ")?;
            }
            elements.push(element(self)?);
        }
        if open == "{" {
            elements.sort();
        }
        Some(format!("{open}{}{close}", elements.join(", ")))
    }

    fn string(&mut self) -> Option<String> {
        let bytes = self.0.as_bytes();
        let mut end = 1;
        while *bytes.get(end)? != b'"' {
            end += if bytes[end] == b'\\' { 2 } else { 1 };
        }
        serde_json::from_str::<String>(self.0.get(..=end)?).ok()?;
        self.take(end + 1)
    }

    fn accept(&mut self, text: &str) -> Option<()> {
        self.0 = self.0.strip_prefix(text)?;
        Some(())
    }

    fn take(&mut self, count: usize) -> Option<String> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken.into())
    }
}
