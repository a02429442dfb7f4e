//! File systems in user space (FUSE) that have not answered a request.
//!
//! A write whose data lies in a mapped page of such a file system waits for its server, and a freeze waits for that
//! write. A connection to a server that never answers can be aborted in `/sys/fs/fuse/connections`, see the kernel's
//! Documentation/filesystems/fuse.rst.

use crate::root::Root;

const CONNECTIONS: &str = "/sys/fs/fuse/connections";
/// Most connections that an error names: it is read by people.
const MAX_CONNECTIONS: usize = 8;

/// The `abort` files of the connections that have unanswered requests. Writing `1` to one ends all these requests. None
/// where the kernel's list is not mounted.
pub(super) fn abort_files(root: &Root) -> Vec<String> {
    let names = root.names(CONNECTIONS).unwrap_or_default();
    let connections = names.iter().filter_map(|name| Some(format!("{CONNECTIONS}/{}", name.to_str()?)));
    let is_waiting = |connection: &String| {
        let waiting = root.read(format!("{connection}/waiting")).unwrap_or_default();
        !matches!(waiting.trim_ascii(), b"" | b"0")
    };
    connections.filter(is_waiting).take(MAX_CONNECTIONS).map(|connection| connection + "/abort").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_with_unanswered_requests_are_named() {
        let (root, _tree) = Root::from_text(
            "sys/fs/fuse/connections/41/waiting: 0\n\
             sys/fs/fuse/connections/42/waiting: 2\n\
             sys/fs/fuse/connections/43/abort:\n",
        );
        assert_eq!(abort_files(&root), ["/sys/fs/fuse/connections/42/abort"]);
    }

    #[test]
    fn without_the_kernels_list_none_is_known() {
        let (root, _tree) = Root::from_text("proc/uptime: 1.0 1.0\n");
        assert!(abort_files(&root).is_empty());
    }
}
