//! Which peers are served on vsock: the host, unless the configuration names others.
//!
//! A guest's own users reach its vsock sockets over the loopback (CID 1), and other guests may do so if the host lets
//! them. The agent serves the host, CID 2. Refused peers are logged at most once in [`LOG_INTERVAL`].

use std::{
    ffi::OsString,
    time::{Duration, Instant},
};

/// The host.
const HOST_CID: u32 = 2;
/// How often refused peers are logged: a peer must not be able to fill a disk with log lines.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Who is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum VsockPeers {
    /// Everybody.
    Any,
    /// Peers with these CIDs.
    Only(Vec<u32>),
}

impl VsockPeers {
    /// `any`, or CIDs that are separated by commas or semicolons.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let text = str::from_utf8(text).ok()?.trim();
        if text == "any" {
            return Some(Self::Any);
        }
        let cids = text.split([',', ';']).map(str::trim).filter(|cid| !cid.is_empty());
        cids.map(|cid| cid.parse().ok()).collect::<Option<Vec<_>>>().filter(|cids| !cids.is_empty()).map(Self::Only)
    }

    /// As it is written, unless it is the default.
    pub(crate) fn shown(&self) -> Option<OsString> {
        match self {
            Self::Any => Some("any".into()),
            Self::Only(cids) if *cids == [HOST_CID] => None,
            Self::Only(cids) => Some(cids.iter().map(u32::to_string).collect::<Vec<_>>().join(";").into()),
        }
    }

    /// Whether a peer is served.
    pub(crate) fn allow(&self, cid: u32) -> bool {
        match self {
            Self::Any => true,
            Self::Only(cids) => cids.contains(&cid),
        }
    }
}

impl Default for VsockPeers {
    fn default() -> Self {
        Self::Only(vec![HOST_CID])
    }
}

/// The peers that were refused.
#[derive(Debug, Default)]
pub(crate) struct Refused {
    untold: u64,
    last_told: Option<Instant>,
}

impl Refused {
    /// One more, and what is to be logged of them now.
    pub(crate) fn note(&mut self, cid: u32, now: Instant) -> Option<String> {
        if self.last_told.is_some_and(|last| now.duration_since(last) < LOG_INTERVAL) {
            self.untold += 1;
            return None;
        }
        self.last_told = Some(now);
        let others = match std::mem::take(&mut self.untold) {
            0 => String::new(),
            untold => format!(", and {untold} more since the last time"),
        };
        Some(format!("refused a peer on vsock with CID {cid}, which vsock-allow does not name{others}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_host_is_served_unless_others_are_named() {
        let check = |peers: VsockPeers, served: [bool; 3]| assert_eq!([1, 2, 3].map(|cid| peers.allow(cid)), served);
        check(VsockPeers::default(), [false, true, false]);
        check(VsockPeers::parse(b" 1, 3;").unwrap(), [true, false, true]);
        check(VsockPeers::parse(b"any").unwrap(), [true; 3]);
    }

    #[test]
    fn what_names_no_peers_makes_no_sense() {
        for text in ["", ";", "host", "1;any", "-1", "4294967296"] {
            assert_eq!(VsockPeers::parse(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn refused_peers_are_told_of_now_and_then() {
        let (mut refused, start) = (Refused::default(), Instant::now());
        let first = refused.note(1, start).unwrap();
        assert!(first.ends_with("with CID 1, which vsock-allow does not name"), "{first}");
        assert_eq!([(); 3].map(|()| refused.note(1, start + LOG_INTERVAL / 2)), [None, None, None]);
        let next = refused.note(3, start + LOG_INTERVAL).unwrap();
        assert!(
            next.ends_with("with CID 3, which vsock-allow does not name, and 3 more since the last time"),
            "{next}"
        );
    }
}
