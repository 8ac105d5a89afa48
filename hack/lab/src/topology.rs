//! The network: one segment, on which every machine has an interface.
//!
//! | machine | address | on |
//! |---|---|---|
//! | control plane | 192.0.2.1, 2001:db8::1 | the bridge `lab0` |
//! | client | 192.0.2.2, 2001:db8::2 | `eth0` of namespace `client` |
//! | node N | 192.0.2.(10+N), 2001:db8::(10+N) | `eth0` of a namespace with the node's name |
//!
//! 192.0.2.100 to .250 and 2001:db8::100 upwards are free for load balancers.
//! Each node has a range for pods, 198.18.N.0/24 and 2001:db8:1:N::/64; the
//! addresses are put on its loopback as pods come. Services are in
//! 198.18.128.0/17 and 2001:db8:2::/112.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Result;

use crate::netns::Netns;

/// The control plane's IPv4 address.
pub const CONTROL_PLANE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The client's network namespace.
pub const CLIENT: &str = "client";
/// How many nodes there can be.
pub const MAX_NODES: u8 = 64;

/// The Services' ranges, as the API server's flag wants them.
pub(crate) fn service_ranges(dual_stack: bool) -> &'static str {
    if dual_stack {
        "198.18.128.0/17,2001:db8:2::/112"
    } else {
        "198.18.128.0/17"
    }
}

/// A machine on the segment, by its number: 0 is the control plane, 1 to
/// [`MAX_NODES`] are nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Machine(pub u8);

/// A MAC address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl std::fmt::Display for Mac {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl std::fmt::Debug for Mac {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

impl Machine {
    fn host(self) -> u8 {
        if self.0 == 0 { 1 } else { 10 + self.0 }
    }

    /// Its addresses on the segment.
    #[must_use]
    pub fn addresses(self, dual_stack: bool) -> Vec<IpAddr> {
        let host = self.host();
        let mut all = vec![IpAddr::from(Ipv4Addr::new(192, 0, 2, host))];
        if dual_stack {
            all.push(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, host.into()).into());
        }
        all
    }

    /// The addresses of its `number`th pod, from 1 on.
    #[must_use]
    pub fn pod_addresses(self, number: u8, dual_stack: bool) -> Vec<IpAddr> {
        let mut all = vec![IpAddr::from(Ipv4Addr::new(198, 18, self.0, number))];
        if dual_stack {
            all.push(Ipv6Addr::new(0x2001, 0xdb8, 1, self.0.into(), 0, 0, 0, number.into()).into());
        }
        all
    }

    /// The ranges of its pods.
    #[must_use]
    pub fn pod_ranges(self, dual_stack: bool) -> Vec<String> {
        let mut all = vec![format!("198.18.{}.0/24", self.0)];
        if dual_stack {
            all.push(format!("2001:db8:1:{:x}::/64", self.0));
        }
        all
    }

    /// Its MAC address.
    #[must_use]
    pub fn mac(self) -> Mac {
        Mac([2, 0, 0, 0, 0, self.host()])
    }

    /// Its MAC address on the second segment.
    #[must_use]
    pub fn second_mac(self) -> Mac {
        Mac([2, 0, 0, 0, 1, self.host()])
    }
}

/// The client's MAC address.
pub(crate) const CLIENT_MAC: Mac = Mac([2, 0, 0, 0, 0, 2]);
/// The client's addresses.
pub(crate) const CLIENT_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
pub(crate) const CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);

/// The client's place on a segment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attachment {
    pub interface: &'static str,
    pub mac: Mac,
    pub v4: Ipv4Addr,
    pub v6: Ipv6Addr,
}

/// The client on the first segment.
pub(crate) const FIRST: Attachment = Attachment {
    interface: "eth0",
    mac: CLIENT_MAC,
    v4: CLIENT_V4,
    v6: CLIENT_V6,
};
/// The client on the second one, which has IPv4 alone.
pub(crate) const SECOND: Attachment = Attachment {
    interface: "eth1",
    mac: Mac([2, 0, 0, 0, 1, 2]),
    v4: Ipv4Addr::new(198, 51, 100, 2),
    v6: Ipv6Addr::UNSPECIFIED,
};

/// Kernel parameters of machines that forward and play pods' hosts.
const ROUTER: &[(&str, &str)] = &[
    ("net/ipv4/ip_forward", "1"),
    ("net/ipv4/conf/all/rp_filter", "0"),
    ("net/ipv4/conf/default/rp_filter", "0"),
    // Pods' addresses on the loopback are nobody's business on the segment.
    ("net/ipv4/conf/all/arp_ignore", "1"),
    ("net/ipv4/conf/all/arp_announce", "2"),
    // Packets leave by the interface they came in by; that is no news for the client.
    ("net/ipv4/conf/all/send_redirects", "0"),
    ("net/ipv4/conf/default/send_redirects", "0"),
    ("net/ipv6/conf/all/accept_dad", "0"),
    ("net/ipv6/conf/default/accept_dad", "0"),
    ("net/ipv6/conf/all/forwarding", "1"),
];
/// Kernel parameters of the client.
const HOST: &[(&str, &str)] = &[
    ("net/ipv4/conf/all/accept_redirects", "0"),
    ("net/ipv6/conf/all/accept_dad", "0"),
    ("net/ipv6/conf/default/accept_dad", "0"),
];
/// The same for an interface that exists since before.
const ETH0: &[(&str, &str)] = &[("net/ipv4/conf/eth0/send_redirects", "0")];

/// Makes the segment, the control plane's place on it, and the client.
pub(crate) fn create(dual_stack: bool) -> Result<()> {
    let root = Netns::ControlPlane;
    root.sysctl(ROUTER)?;
    let mut script = String::from(
        "link set lo up\n\
         link add lab0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0\n\
         link set lab0 address 02:00:00:00:00:01\n\
         link set lab0 up\n",
    );
    addresses(&mut script, "lab0", Machine(0), dual_stack);
    routes(&mut script, Machine(0), dual_stack);
    root.ip(&script)?;

    let client = attach(CLIENT, CLIENT, CLIENT_MAC, HOST)?;
    let mut script =
        format!("addr add {CLIENT_V4}/24 dev eth0\nroute add default via {CONTROL_PLANE}\n");
    if dual_stack {
        let _ = writeln!(script, "addr add {CLIENT_V6}/64 dev eth0 nodad");
    }
    client.ip(&script)
}

/// Makes the second segment, 198.51.100.0/24, with the client on it.
pub(crate) fn create_second() -> Result<()> {
    Netns::ControlPlane.ip(
        "link add lab1 type bridge stp_state 0 forward_delay 0 mcast_snooping 0\n\
         link set lab1 up\n",
    )?;
    plug(CLIENT, "client1", SECOND.mac, SECOND.v4)
}

/// Puts a node on the second segment, by its interface `eth1`.
pub(crate) fn plug_second(name: &str, machine: Machine) -> Result<()> {
    let v4 = Ipv4Addr::new(198, 51, 100, machine.host());
    plug(
        name,
        &format!("second{}", machine.0),
        machine.second_mac(),
        v4,
    )
}

fn plug(netns: &str, port: &str, mac: Mac, v4: Ipv4Addr) -> Result<()> {
    Netns::ControlPlane.ip(&format!(
        "link add {port} type veth peer name eth1 address {mac} netns {netns}\n\
         link set {port} master lab1\n\
         link set {port} up\n"
    ))?;
    Netns::Named(netns.to_owned()).ip(&format!("addr add {v4}/24 dev eth1\nlink set eth1 up\n"))
}

/// Makes a node's namespace and puts it on the segment.
pub(crate) fn add_node(name: &str, machine: Machine, dual_stack: bool) -> Result<Netns> {
    let netns = attach(name, &link(machine), machine.mac(), ROUTER)?;
    netns.sysctl(ETH0)?;
    let mut script = String::new();
    addresses(&mut script, "eth0", machine, dual_stack);
    let _ = writeln!(script, "route add default via {CONTROL_PLANE}");
    routes(&mut script, machine, dual_stack);
    netns.ip(&script)?;
    Ok(netns)
}

/// Plugs a node's cable in or out.
pub(crate) fn set_link(machine: Machine, up: bool) -> Result<()> {
    Netns::ControlPlane.ip(&format!(
        "link set {} {}\n",
        link(machine),
        if up { "up" } else { "down" }
    ))
}

/// The bridge's end of a node's cable.
fn link(machine: Machine) -> String {
    format!("port{}", machine.0)
}

fn attach(
    name: &str,
    port: &str,
    mac: Mac,
    parameters: &'static [(&'static str, &'static str)],
) -> Result<Netns> {
    let root = Netns::ControlPlane;
    root.ip(&format!("netns add {name}\n"))?;
    let netns = Netns::Named(name.to_owned());
    netns.sysctl(parameters)?;
    root.ip(&format!(
        "link add {port} type veth peer name eth0 address {mac} netns {name}\n\
         link set {port} master lab0\n\
         link set {port} up\n"
    ))?;
    netns.ip("link set lo up\nlink set eth0 up\n")?;
    Ok(netns)
}

fn addresses(script: &mut String, device: &str, machine: Machine, dual_stack: bool) {
    for address in machine.addresses(dual_stack) {
        let _ = match address {
            IpAddr::V4(v4) => writeln!(script, "addr add {v4}/24 dev {device}"),
            IpAddr::V6(v6) => writeln!(script, "addr add {v6}/64 dev {device} nodad"),
        };
    }
}

/// Routes to the pods of all machines that there can be.
fn routes(script: &mut String, machine: Machine, dual_stack: bool) {
    for other in (0..=MAX_NODES)
        .map(Machine)
        .filter(|other| *other != machine)
    {
        for (range, gateway) in other
            .pod_ranges(dual_stack)
            .iter()
            .zip(other.addresses(dual_stack))
        {
            let _ = writeln!(script, "route add {range} via {gateway}");
        }
    }
}
