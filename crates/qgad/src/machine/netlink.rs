//! The kernel's interfaces and their addresses, by rtnetlink(7).
//!
//! One dump of all interfaces and one of all addresses. getifaddrs(3) searches all interfaces for each address, which
//! is slow when there are many. The order is the kernel's, as it is there. The kernel marks a dump as inconsistent when
//! something changed meanwhile. Such a dump is repeated a few times, and then used as it is.
//! Parsing a dump is pure and never fails: what is truncated or unknown is left out.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsRawFd, OwnedFd},
};

use nix::{
    errno::Errno,
    libc,
    sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket},
};

/// How often an inconsistent dump is repeated: on some machines, interfaces change all the time.
const MAX_RETRIES: usize = 3;
/// Largest piece of a dump. The kernel fills the buffer, up to 32 KiB.
const MAX_PIECE_BYTES: usize = 32 * 1024;
/// Largest dump, in bytes: an interface takes about 1 KiB, so this is some 60,000 of them.
const MAX_DUMP_BYTES: usize = 64 * 1024 * 1024;

const HEADER_BYTES: usize = 16;
const LINK_HEADER_BYTES: usize = 16;
const ADDRESS_HEADER_BYTES: usize = 8;
const ATTRIBUTE_HEADER_BYTES: usize = 4;
/// `RTEXT_FILTER_SKIP_STATS`: leaves out the statistics of each interface, which are long.
const SKIP_STATISTICS: u32 = 1 << 3;

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    /// The number by which the kernel knows it.
    pub(crate) index: u32,
    /// Its name.
    pub(crate) name: Vec<u8>,
    /// Its link-level address, of any length; empty when it has none.
    pub(crate) hardware_address: Vec<u8>,
}

/// An address of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    /// The interface's index.
    pub(crate) link: u32,
    /// The label of an IPv4 address, mostly the interface's name.
    pub(crate) label: Option<Vec<u8>>,
    /// The address itself.
    pub(crate) address: IpAddr,
    /// How many leading bits are the network's.
    pub(crate) prefix: u8,
}

/// All interfaces.
pub(crate) fn links() -> nix::Result<Vec<Link>> {
    let mut body = vec![0; LINK_HEADER_BYTES];
    body.extend(8_u16.to_ne_bytes());
    body.extend(libc::IFLA_EXT_MASK.to_ne_bytes());
    body.extend(SKIP_STATISTICS.to_ne_bytes());
    Ok(read_links(&dump(libc::RTM_GETLINK, &body)?))
}

/// All addresses of all interfaces: those of IPv4 first.
pub(crate) fn addresses() -> nix::Result<Vec<Address>> {
    Ok(read_addresses(&dump(libc::RTM_GETADDR, &[0; ADDRESS_HEADER_BYTES])?))
}

fn dump(kind: u16, body: &[u8]) -> nix::Result<Vec<u8>> {
    let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
    let mut retries = 0;
    loop {
        let dump = dump_once(&socket, kind, body)?;
        let is_consistent = messages(&dump).all(|message| message.flags & flag(libc::NLM_F_DUMP_INTR) == 0);
        if is_consistent || retries == MAX_RETRIES {
            return Ok(dump);
        }
        retries += 1;
    }
}

fn dump_once(socket: &OwnedFd, kind: u16, body: &[u8]) -> nix::Result<Vec<u8>> {
    send(socket.as_raw_fd(), &request(kind, body), MsgFlags::empty())?;
    let mut dump = Vec::new();
    let mut piece = vec![0; MAX_PIECE_BYTES];
    while dump.len() < MAX_DUMP_BYTES {
        let length = match recv(socket.as_raw_fd(), &mut piece, MsgFlags::empty()) {
            Err(Errno::EINTR) => continue,
            length => length?,
        };
        let piece = &piece[..length];
        dump.extend_from_slice(piece);
        match messages(piece).find_map(|message| end(&message)) {
            Some(end) => return end.map(|()| dump),
            None if length == 0 => return Ok(dump),
            None => {}
        }
    }
    Err(Errno::EMSGSIZE)
}

/// Whether a message ends a dump, and how. Both kinds of ends carry a negated error number.
fn end(message: &Message<'_>) -> Option<nix::Result<()>> {
    let ends = [libc::NLMSG_DONE, libc::NLMSG_ERROR].contains(&i32::from(message.kind));
    ends.then(|| match message.body.first_chunk().map_or(0, |bytes| i32::from_ne_bytes(*bytes)) {
        number @ ..0 => Err(Errno::from_raw(number.saturating_neg())),
        _ => Ok(()),
    })
}

fn request(kind: u16, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADER_BYTES + body.len()).expect("a request is short");
    let (sequence, sender) = (0_u32, 0_u32);
    let mut request = length.to_ne_bytes().to_vec();
    request.extend(kind.to_ne_bytes());
    request.extend(flag(libc::NLM_F_REQUEST | libc::NLM_F_DUMP).to_ne_bytes());
    request.extend(sequence.to_ne_bytes());
    request.extend(sender.to_ne_bytes());
    request.extend(body);
    request
}

fn flag(flags: libc::c_int) -> u16 {
    u16::try_from(flags).expect("flags of netlink have 16 bits")
}

fn read_links(dump: &[u8]) -> Vec<Link> {
    let mut links = Vec::new();
    for message in messages(dump).filter(|message| message.kind == libc::RTM_NEWLINK) {
        let Some((header, rest)) = message.body.split_first_chunk::<LINK_HEADER_BYTES>() else { continue };
        let mut link = Link { index: u32_at(header, 4), name: Vec::new(), hardware_address: Vec::new() };
        for (kind, value) in attributes(rest) {
            match kind {
                libc::IFLA_IFNAME => link.name = text(value),
                libc::IFLA_ADDRESS => link.hardware_address = value.to_vec(),
                _ => {}
            }
        }
        if !link.name.is_empty() {
            links.push(link);
        }
    }
    links
}

fn read_addresses(dump: &[u8]) -> Vec<Address> {
    let mut addresses = Vec::new();
    for message in messages(dump).filter(|message| message.kind == libc::RTM_NEWADDR) {
        let Some((header, rest)) = message.body.split_first_chunk::<ADDRESS_HEADER_BYTES>() else { continue };
        // Of a point-to-point link, `IFA_ADDRESS` is the far end and `IFA_LOCAL` the near one.
        let (mut near, mut far, mut label) = (None, None, None);
        for (kind, value) in attributes(rest) {
            match kind {
                libc::IFA_LOCAL => near = ip_address(value),
                libc::IFA_ADDRESS => far = ip_address(value),
                libc::IFA_LABEL => label = Some(text(value)),
                _ => {}
            }
        }
        if let Some(address) = near.or(far) {
            addresses.push(Address { link: u32_at(header, 4), label, address, prefix: header[1] });
        }
    }
    addresses
}

struct Message<'a> {
    kind: u16,
    flags: u16,
    body: &'a [u8],
}

fn messages(mut dump: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let header = dump.first_chunk::<HEADER_BYTES>()?;
        let length = usize::try_from(u32_at(header, 0)).ok().filter(|length| *length >= HEADER_BYTES)?;
        let body = dump.get(HEADER_BYTES..length)?;
        let message = Message { kind: u16_at(header, 4), flags: u16_at(header, 6), body };
        dump = dump.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

fn attributes(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let header = rest.first_chunk::<ATTRIBUTE_HEADER_BYTES>()?;
        let value = rest.get(ATTRIBUTE_HEADER_BYTES..u16_at(header, 0).into())?;
        let attribute = (u16_at(header, 2), value);
        let length = ATTRIBUTE_HEADER_BYTES + value.len().next_multiple_of(4);
        rest = rest.get(length..).unwrap_or_default();
        Some(attribute)
    })
}

fn text(value: &[u8]) -> Vec<u8> {
    value.split(|byte| *byte == 0).next().unwrap_or_default().to_vec()
}

fn ip_address(value: &[u8]) -> Option<IpAddr> {
    match value.len() {
        4 => value.first_chunk::<4>().map(|bytes| Ipv4Addr::from(*bytes).into()),
        16 => value.first_chunk::<16>().map(|bytes| Ipv6Addr::from(*bytes).into()),
        _ => None,
    }
}

fn u16_at(header: &[u8], offset: usize) -> u16 {
    u16::from_ne_bytes([header[offset], header[offset + 1]])
}

fn u32_at(header: &[u8], offset: usize) -> u32 {
    u32::from_ne_bytes([header[offset], header[offset + 1], header[offset + 2], header[offset + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, header: &[u8], attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut body = header.to_vec();
        for (kind, value) in attributes {
            body.extend(u16::try_from(ATTRIBUTE_HEADER_BYTES + value.len()).unwrap().to_ne_bytes());
            body.extend(kind.to_ne_bytes());
            body.extend(*value);
            body.resize(body.len().next_multiple_of(4), 0);
        }
        request(kind, &body)
    }

    fn link(index: u32, attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let header = [&[0; 4][..], &index.to_ne_bytes(), &[0; 8]].concat();
        message(libc::RTM_NEWLINK, &header, attributes)
    }

    fn address(link: u32, prefix: u8, attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let header = [&[2, prefix, 0, 0][..], &link.to_ne_bytes()].concat();
        message(libc::RTM_NEWADDR, &header, attributes)
    }

    fn check_addresses(dump: &[u8], expected: &[(u32, Option<&str>, &str, u8)]) {
        let expected: Vec<_> = expected
            .iter()
            .map(|(link, label, address, prefix)| Address {
                link: *link,
                label: label.map(Into::into),
                address: address.parse().unwrap(),
                prefix: *prefix,
            })
            .collect();
        assert_eq!(read_addresses(dump), expected);
    }

    #[test]
    fn interfaces_have_a_name_and_an_address_of_any_length() {
        let dump = [
            link(1, &[(libc::IFLA_IFNAME, b"lo\0"), (libc::IFLA_MTU, b"1234"), (libc::IFLA_ADDRESS, &[0; 6])]),
            link(7, &[(libc::IFLA_ADDRESS, &[9; 20]), (libc::IFLA_IFNAME, b"ib0\0")]),
            link(9, &[(libc::IFLA_IFNAME, b"tun0\0")]),
        ];
        let expected = [(1, "lo", vec![0; 6]), (7, "ib0", vec![9; 20]), (9, "tun0", vec![])]
            .map(|(index, name, hardware_address)| Link { index, name: name.into(), hardware_address });
        assert_eq!(read_links(&dump.concat()), expected);
    }

    #[test]
    fn the_near_end_of_a_point_to_point_link_is_its_address() {
        let (near, far) = ([10, 0, 0, 1], [10, 0, 0, 2]);
        let dump = address(3, 32, &[(libc::IFA_ADDRESS, &far), (libc::IFA_LOCAL, &near), (libc::IFA_LABEL, b"ppp0\0")]);
        check_addresses(&dump, &[(3, Some("ppp0"), "10.0.0.1", 32)]);
    }

    #[test]
    fn an_ipv6_address_has_no_label() {
        let bytes = Ipv6Addr::from_bits(0xFE80 << 112 | 1).octets();
        check_addresses(&address(3, 64, &[(libc::IFA_ADDRESS, &bytes)]), &[(3, None, "fe80::1", 64)]);
    }

    #[test]
    fn what_is_cut_short_or_unknown_is_left_out() {
        let whole = address(3, 8, &[(libc::IFA_LOCAL, &[127, 0, 0, 1]), (libc::IFA_LABEL, b"lo\0")]);
        let expected = [(3, Some("lo"), "127.0.0.1", 8)];
        for length in 0..whole.len() {
            check_addresses(&[&whole[..], &whole[..length]].concat(), &expected);
        }
        let unknown = [address(3, 8, &[]), address(3, 8, &[(libc::IFA_LOCAL, &[1; 5])]), link(1, &[])].concat();
        check_addresses(&[unknown, whole].concat(), &expected);
        assert_eq!(read_links(&[&[0; 64][..], &[255; 64]].concat()), []);
    }

    #[test]
    fn a_dump_ends_with_a_message_that_says_whether_it_is_complete() {
        let check = |kind: i32, number: i32, expected| {
            let bytes = message(u16::try_from(kind).unwrap(), &number.to_ne_bytes(), &[]);
            assert_eq!(messages(&bytes).find_map(|message| end(&message)), expected, "{kind} {number}");
        };
        check(libc::NLMSG_DONE, 0, Some(Ok(())));
        check(libc::NLMSG_DONE, -libc::EMSGSIZE, Some(Err(Errno::EMSGSIZE)));
        check(libc::NLMSG_ERROR, -libc::EPERM, Some(Err(Errno::EPERM)));
        check(libc::RTM_NEWLINK.into(), -1, None);
    }

    #[test]
    fn the_machine_has_a_loopback_interface() {
        assert!(links().unwrap().iter().any(|link| link.name == b"lo"));
        addresses().unwrap();
    }
}
