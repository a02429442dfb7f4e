//! The inputs: the text files of `oracle/`.
//!
//! An input begins with `== its_name`. Lines before the first one, empty lines and those that begin with `#` are
//! comments. Bytes and arguments are written as they are, except in `«»`: `«FF 0A»` are bytes in hexadecimal and
//! `«1025 × [»` is text repeated. `$DIR` is a directory of the input's own, one for each agent. A list of words
//! may go on in a further line of the same kind.
//!
//! ```text
//! env NAME=VALUE     a variable for the agent; it has no others
//! file NAME          a file in $DIR, of the following lines that begin with `| `
//! args WORDS         further arguments of the agent
//! > BYTES            what a peer sends; nothing is added between or after such lines
//! next peer          the peer closes its sending half and reads to the end, then another one connects
//! peer leaves        the same, but the peer closes at once
//! run WORDS          no conversation: the agent is started with just these words, and ends or listens at $DIR/socket
//! mask NAMES         the numbers of these members change all the time; `return` is such a member, too
//! only exit code     what a run prints is not compared
//! ```

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

/// How much of an input is searched for requests. Requests come first in those that test limits.
const SEARCHED_BYTES: usize = 64 * 1024;

/// One input.
#[derive(Debug, Default)]
pub(crate) struct Input {
    pub(crate) name: String,
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) files: Vec<(String, String)>,
    pub(crate) arguments: Vec<String>,
    pub(crate) kind: Kind,
    pub(crate) masked: Vec<String>,
    pub(crate) only_exit_code: bool,
}

#[derive(Debug, Default)]
pub(crate) enum Kind {
    #[default]
    Run,
    Conversation(Vec<Peer>),
}

#[derive(Debug, Default)]
pub(crate) struct Peer {
    pub(crate) sends: Vec<u8>,
    pub(crate) leaves_at_once: bool,
}

/// The inputs of a file.
pub(crate) fn read(path: &Path) -> Result<Vec<Input>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("failed to read {}", path.display()))?;
    let mut inputs: Vec<Input> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if let Some(name) = line.strip_prefix("== ") {
            inputs.push(Input { name: name.into(), ..Input::default() });
        } else if let (Some(input), false) = (inputs.last_mut(), line.is_empty() || line.starts_with('#')) {
            input.add(line).with_context(|| format!("{}:{}", path.display(), number + 1))?;
        }
    }
    Ok(inputs)
}

impl Input {
    /// The commands that its peers request, whatever their arguments are.
    pub(crate) fn requested(&self) -> Vec<String> {
        let Kind::Conversation(peers) = &self.kind else { return Vec::new() };
        let names = |peer: &Peer| -> Vec<String> {
            // What follows in the large inputs is filler.
            let text = String::from_utf8_lossy(&peer.sends[..peer.sends.len().min(SEARCHED_BYTES)]);
            let behind_the_key =
                text.split("execute").skip(1).map(|rest| rest.trim_start_matches(['"', '\'', ':', ' ']));
            behind_the_key.filter_map(|rest| Some(rest.split(['"', '\'']).next()?.to_owned())).collect()
        };
        peers.iter().flat_map(names).collect()
    }

    fn add(&mut self, line: &str) -> Result<()> {
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        match verb {
            "env" => {
                let (name, value) = rest.split_once('=').context("a variable needs a value")?;
                self.environment.push((name.into(), value.into()));
            }
            "file" => self.files.push((rest.into(), String::new())),
            "|" => {
                let (_, contents) = self.files.last_mut().context("no file has begun")?;
                contents.push_str(rest);
                contents.push('\n');
            }
            "args" | "run" => self.arguments.extend(words(&String::from_utf8(bytes(rest)?)?)),
            ">" => self.peer().sends.extend(bytes(rest)?),
            "next" => self.next_peer(),
            "peer" => {
                self.peer().leaves_at_once = true;
                self.next_peer();
            }
            "mask" => self.masked.extend(words(rest)),
            "only" => self.only_exit_code = true,
            other => bail!("'{other}' means nothing"),
        }
        Ok(())
    }

    fn peer(&mut self) -> &mut Peer {
        if let Kind::Run = self.kind {
            self.kind = Kind::Conversation(vec![Peer::default()]);
        }
        match &mut self.kind {
            Kind::Conversation(peers) => peers.last_mut().expect("a conversation has a peer"),
            Kind::Run => unreachable!("it was made a conversation"),
        }
    }

    fn next_peer(&mut self) {
        self.peer();
        if let Kind::Conversation(peers) = &mut self.kind {
            peers.push(Peer::default());
        }
    }
}

/// Words between blanks; `''` is the empty one.
fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(|word| if word == "''" { String::new() } else { word.into() }).collect()
}

fn bytes(text: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some((plain, marked)) = rest.split_once('«') {
        bytes.extend(plain.as_bytes());
        let (inside, behind) = marked.split_once('»').context("« without »")?;
        match inside.split_once(" × ") {
            Some((count, text)) => bytes.extend(text.repeat(count.parse()?).as_bytes()),
            None => {
                for byte in inside.split(' ') {
                    ensure!(byte.len() == 2, "'{byte}' is no byte");
                    bytes.push(u8::from_str_radix(byte, 16)?);
                }
            }
        }
        rest = behind;
    }
    bytes.extend(rest.as_bytes());
    Ok(bytes)
}
