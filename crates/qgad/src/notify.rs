//! What the service manager is told of the agent, where it wants to know (sd_notify(3)): once that the agent serves, and
//! in words whether it has its port or waits for it. Nothing depends on its being heard, and telling never waits.

use std::{
    ffi::OsStr,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
};

/// The way to the service manager, if there is one.
#[derive(Debug, Default)]
pub(crate) struct ServiceManager(Option<(UnixDatagram, SocketAddr)>);

impl ServiceManager {
    /// Takes the value of `NOTIFY_SOCKET`: a path, or a name in the abstract namespace after an `@`.
    pub(crate) fn at(socket: Option<&OsStr>) -> Self {
        Self(socket.and_then(|name| {
            let address = match name.as_bytes().strip_prefix(b"@") {
                Some(name) => SocketAddr::from_abstract_name(name),
                None => SocketAddr::from_pathname(name),
            };
            let socket = UnixDatagram::unbound().ok()?;
            socket.set_nonblocking(true).ok()?;
            Some((socket, address.ok()?))
        }))
    }

    /// The agent serves.
    pub(crate) fn ready(&self) {
        self.send("READY=1");
    }

    /// How the agent is doing, in a few words.
    pub(crate) fn status(&self, words: &str) {
        self.send(&format!("STATUS={words}"));
    }

    fn send(&self, message: &str) {
        if let Some((socket, address)) = &self.0 {
            let _ = socket.send_to_addr(message.as_bytes(), address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(heard: &UnixDatagram, socket: &OsStr) {
        let manager = ServiceManager::at(Some(socket));
        manager.ready();
        manager.status("serving /dev/x");
        for expected in ["READY=1", "STATUS=serving /dev/x"] {
            let mut message = [0; 64];
            let count = heard.recv(&mut message).unwrap();
            assert_eq!(&message[..count], expected.as_bytes());
        }
    }

    #[test]
    fn a_service_manager_is_told_at_its_path_or_abstract_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        check(&UnixDatagram::bind(&path).unwrap(), path.as_os_str());
        let name = format!("{}", path.display());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        check(&UnixDatagram::bind_addr(&address).unwrap(), OsStr::new(&format!("@{name}")));
    }

    #[test]
    fn a_service_manager_that_is_not_there_or_gone_is_no_trouble() {
        ServiceManager::default().ready();
        for name in ["", "@", "/no/such/socket"] {
            ServiceManager::at(Some(OsStr::new(name))).ready();
        }
    }
}
