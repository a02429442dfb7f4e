//! Patterns for names: `*` matches any number of bytes, `?` matches one, any other byte matches itself.

/// Patterns, any of which may match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Globs(Vec<String>);

impl Globs {
    /// These patterns.
    pub(crate) fn new(patterns: Vec<String>) -> Self {
        Self(patterns)
    }

    /// Whether one of the patterns matches the whole of a name.
    pub(crate) fn matches(&self, name: &[u8]) -> bool {
        self.0.iter().any(|pattern| matches(pattern.as_bytes(), name))
    }
}

/// Backtracks to the latest star only. That is enough, and no pattern takes long.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at_pattern, mut at_name) = (0, 0);
    let mut latest_star = None;
    while at_name < name.len() {
        match pattern.get(at_pattern) {
            Some(b'*') => {
                latest_star = Some((at_pattern, at_name));
                at_pattern += 1;
                continue;
            }
            Some(byte) if *byte == b'?' || *byte == name[at_name] => {
                at_pattern += 1;
                at_name += 1;
                continue;
            }
            _ => {}
        }
        // The star takes one more byte, and what follows it is tried again.
        let Some((star, taken)) = latest_star else { return false };
        latest_star = Some((star, taken + 1));
        (at_pattern, at_name) = (star + 1, taken + 1);
    }
    pattern[at_pattern..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pattern: &str, matching: &[&str], other: &[&str]) {
        let globs = Globs::new(vec!["never".into(), pattern.into()]);
        for name in matching {
            assert!(globs.matches(name.as_bytes()), "{pattern} {name}");
        }
        for name in other {
            assert!(!globs.matches(name.as_bytes()), "{pattern} {name}");
        }
    }

    #[test]
    fn a_pattern_without_wildcards_is_the_whole_name() {
        check("docker0", &["docker0", "never"], &["docker", "docker01", "xdocker0", ""]);
        check("", &[""], &["x"]);
    }

    #[test]
    fn a_star_is_any_number_of_bytes() {
        check("veth*", &["veth", "veth1a2b"], &["vet", "xveth"]);
        check("*", &["", "eth0"], &[]);
        check("a*b*c", &["abc", "axxbxxc", "abcbc"], &["ab", "acb", "abcd"]);
        check("**x", &["x", "yx"], &["", "xy"]);
    }

    #[test]
    fn a_question_mark_is_one_byte() {
        check("eth?", &["eth0", "eth9"], &["eth", "eth10"]);
        check("*?", &["x", "xy"], &[""]);
    }

    #[test]
    fn an_empty_list_matches_nothing() {
        assert!(!Globs::default().matches(b""));
    }
}
