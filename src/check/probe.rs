//! Who answers for addresses on the segment, as the kernel's neighbour table
//! tells after it had to find out. Sending is for the caller; here is what to
//! ask for, and what the answers mean.
//!
//! A host keeps one answer for each address: where two hosts answer, one is
//! seen. IPv4 alone: there the table is a file that everybody may read.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr};

use super::{Facts, Findings, Severity};
use crate::address::{Family, RangeSet};
use crate::plan::pool::parse_spec;
use crate::world::{Key, World};

pub(super) const RULES: &[(&str, &str)] = &[
    (
        "address-of-another-host",
        "with --probe: another host answers for an address that a Service of l2lb has",
    ),
    (
        "free-address-taken",
        "with --probe: a host answers for an address that a pool may give out",
    ),
    (
        "address-of-another-node",
        "with --probe: another node answers for an address than MetalLB reports",
    ),
    (
        "address-silent",
        "with --probe: nobody answers for an address that a Service of l2lb has",
    ),
];

/// What a probe found.
#[derive(Clone, Debug, Default)]
pub struct Probe {
    /// The addresses that were asked for.
    pub asked: BTreeSet<Ipv4Addr>,
    /// What the table has of them; nothing of one that lies behind a router,
    /// or is the machine's own.
    pub neighbours: BTreeMap<Ipv4Addr, Neighbour>,
}

/// An entry of the neighbour table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Neighbour {
    /// The interface behind which the address is looked for.
    pub device: String,
    /// Who answered, as `02:00:00:00:00:0b`; `None`: nobody.
    pub mac: Option<String>,
}

/// Reads the kernel's table of IPv4 neighbours (`/proc/net/arp`).
pub fn read_table(text: &str) -> BTreeMap<Ipv4Addr, Neighbour> {
    let entry = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [address, _, flags, mac, _, device] = fields.as_slice() else {
            return None;
        };
        let flags = u32::from_str_radix(flags.trim_start_matches("0x"), 16).ok()?;
        // ATF_COM: the entry has an answer.
        let answered = flags & 2 != 0;
        let neighbour = Neighbour {
            device: (*device).to_owned(),
            mac: answered.then(|| mac.to_ascii_lowercase()),
        };
        Some((address.parse().ok()?, neighbour))
    };
    text.lines().filter_map(entry).collect()
}

impl Probe {
    /// Takes in the table of the moment, of the addresses that were asked for.
    pub fn take(&mut self, asked: &[Ipv4Addr], table: &BTreeMap<Ipv4Addr, Neighbour>) {
        for address in asked {
            match (table.get(address), self.neighbours.get_mut(address)) {
                (Some(seen), _) => {
                    self.neighbours.insert(*address, seen.clone());
                }
                // The kernel forgets an address that nobody answers for.
                (None, Some(known)) => known.mac = None,
                (None, None) => {}
            }
        }
        self.asked.extend(asked);
    }
}

/// What to ask for: the nodes' own addresses, those that Services of l2lb
/// have, and up to `limit` that pools may give out.
pub fn addresses(world: &World, limit: usize) -> Vec<Ipv4Addr> {
    let nodes = world.nodes.values().flat_map(|n| v4(&n.addresses));
    let mut all: Vec<Ipv4Addr> = nodes.collect();
    all.extend(served(world).keys());
    all.extend(free(world).take(limit).map(|(address, _)| address));
    all.sort_unstable();
    all.dedup();
    all
}

/// The addresses of which a finding follows: worth a second look, as the
/// table may have been behind.
pub fn doubtful(world: &World, probe: &Probe) -> Vec<Ipv4Addr> {
    let judged = judge(world, probe).into_iter();
    judged
        .filter_map(|(a, v)| (v != Verdict::Well).then_some(a))
        .collect()
}

fn v4<'a>(addresses: impl IntoIterator<Item = &'a IpAddr>) -> impl Iterator<Item = Ipv4Addr> {
    addresses.into_iter().filter_map(|address| match address {
        IpAddr::V4(address) => Some(*address),
        IpAddr::V6(_) => None,
    })
}

/// The addresses that Services of l2lb have.
fn served(world: &World) -> BTreeMap<Ipv4Addr, &Key> {
    let children = world.children.values().flat_map(|slots| slots.values());
    children
        .filter(|child| !child.terminating)
        .flat_map(|child| v4(&child.allocated).map(|address| (address, &child.key)))
        .collect()
}

/// The addresses that pools may give out, with their pool, by turns.
fn free(world: &World) -> impl Iterator<Item = (Ipv4Addr, String)> {
    let nodes: BTreeSet<IpAddr> = world
        .nodes
        .values()
        .flat_map(|n| n.addresses.iter().copied())
        .collect();
    // Each with the address from which on it is to be looked.
    let mut pools: VecDeque<(String, RangeSet, Ipv4Addr)> = world
        .pools
        .iter()
        .filter_map(|(name, stored)| {
            let spec = parse_spec(name, &stored.valid()?.spec).ok()?;
            Some((name.clone(), spec.usable, Ipv4Addr::UNSPECIFIED))
        })
        .collect();
    std::iter::from_fn(move || {
        while let Some((name, usable, from)) = pools.pop_front() {
            let found = usable
                .iter(Family::IPv4, Some(from.into()))
                .find(|a| !world.is_held(*a) && !nodes.contains(a));
            let Some(IpAddr::V4(address)) = found else {
                continue;
            };
            if let Some(next) = address.to_bits().checked_add(1) {
                pools.push_back((name.clone(), usable, next.into()));
            }
            return Some((address, name));
        }
        None
    })
}

/// What an answer means.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    Well,
    /// Another host has an address of this Service.
    Stranger {
        service: Key,
        mac: String,
        instead: Vec<String>,
    },
    /// Another node than reported has an address of this Service.
    Node {
        service: Key,
        node: String,
        mac: String,
        instead: Vec<String>,
    },
    /// Nobody answers for an address of this Service.
    Silent {
        service: Key,
    },
    /// A host, or this node, has a free address of this pool.
    Taken {
        pool: String,
        mac: String,
        node: Option<String>,
    },
}

/// Judges every address of which the table has an entry.
fn judge(world: &World, probe: &Probe) -> Vec<(Ipv4Addr, Verdict)> {
    // Nodes by interface and hardware address: one may have many of each.
    let mut nodes: BTreeMap<(&str, &str), &str> = BTreeMap::new();
    for node in world.nodes.values() {
        for neighbour in v4(&node.addresses).filter_map(|a| probe.neighbours.get(&a)) {
            if let Some(mac) = &neighbour.mac {
                nodes.insert((&neighbour.device, mac), &node.name);
            }
        }
    }
    let mut judged = Vec::new();
    for (address, service) in served(world) {
        let seen = probe.neighbours.get(&address);
        judged.extend(seen.and_then(|s| Some((address, answer(world, &nodes, service, s)?))));
    }
    let seen = |address: &Ipv4Addr| {
        probe
            .neighbours
            .get(address)
            .filter(|_| probe.asked.contains(address))
    };
    for (address, pool) in free(world).take(probe.asked.len()) {
        let Some((neighbour, mac)) = seen(&address).and_then(|n| Some((n, n.mac.clone()?))) else {
            continue;
        };
        let node = nodes.get(&(neighbour.device.as_str(), mac.as_str()));
        let node = node.map(|n| (*n).to_owned());
        judged.push((address, Verdict::Taken { pool, mac, node }));
    }
    judged
}

/// Judges the answer for an address of a Service. `None` when the node that
/// should answer is not seen on that interface: it may have another there.
fn answer(
    world: &World,
    nodes: &BTreeMap<(&str, &str), &str>,
    service: &Key,
    seen: &Neighbour,
) -> Option<Verdict> {
    let service = service.clone();
    let Some(mac) = &seen.mac else {
        return Some(Verdict::Silent { service });
    };
    // Before 0.16 MetalLB's reports cannot be believed: any node will do.
    let reported: BTreeSet<&str> = if world.reports_announcers() {
        world.announcers(&service).collect()
    } else {
        BTreeSet::new()
    };
    let here = nodes.get(&(seen.device.as_str(), mac.as_str()));
    let expected: Vec<String> = nodes
        .iter()
        .filter(|((device, _), node)| {
            *device == seen.device && (reported.is_empty() || reported.contains(**node))
        })
        .map(|((_, mac), node)| format!("node {node}, which has {mac}"))
        .collect();
    match here {
        Some(node) if reported.is_empty() || reported.contains(node) => Some(Verdict::Well),
        _ if expected.is_empty() => None,
        Some(node) => Some(Verdict::Node {
            service,
            node: (*node).to_owned(),
            mac: mac.clone(),
            instead: expected,
        }),
        None => Some(Verdict::Stranger {
            service,
            mac: mac.clone(),
            instead: expected,
        }),
    }
}

pub(super) fn check(facts: &Facts<'_>, found: &mut Findings) {
    let Some(probe) = &facts.snapshot.probe else {
        return;
    };
    for (address, verdict) in judge(facts.world, probe) {
        say(found, address, verdict);
    }
}

fn say(found: &mut Findings, address: Ipv4Addr, verdict: Verdict) {
    match verdict {
        Verdict::Well => {}
        Verdict::Stranger { service, mac, instead } => found.add(
            Severity::Error,
            "address-of-another-host",
            format!("Service {service}"),
            format!(
                "{mac} answers for {address} instead of {}",
                instead.join(", or of ")
            ),
            format!(
                "find the host by its MAC address {mac} (the switches know its port) and take the \
                 address from it, or list {address} in spec.excludedAddresses of the pool; a node \
                 with two interfaces in one segment looks the same"
            ),
        ),
        Verdict::Node { service, node, mac, instead } => found.add(
            Severity::Warning,
            "address-of-another-node",
            format!("Service {service}"),
            format!(
                "node {node} ({mac}) answers for {address} instead of {}",
                instead.join(", or of ")
            ),
            "look again when nothing is being handed over; kube-proxy in IPVS mode without strictARP \
             and speakers that do not see each other do this for long",
        ),
        Verdict::Silent { service } => found.add(
            Severity::Error,
            "address-silent",
            format!("Service {service}"),
            format!("nobody answers for {address} on this machine's segment"),
            format!(
                "kubectl l2lb why {address}; see that this is the balancers' segment, and that no \
                 switch or hypervisor filters ARP for addresses that it does not know"
            ),
        ),
        Verdict::Taken { pool, mac, node: None } => found.add(
            Severity::Error,
            "free-address-taken",
            format!("L2AddressPool {pool}"),
            format!("{mac} answers for {address}, which no Service has: another host has it"),
            format!("list {address} in spec.excludedAddresses, or take it from the host with {mac}"),
        ),
        Verdict::Taken { pool, mac, node: Some(node) } => found.add(
            Severity::Warning,
            "free-address-taken",
            format!("L2AddressPool {pool}"),
            format!("node {node} ({mac}) answers for {address}, which no Service has"),
            format!(
                "look on the node (ip address show to {address}): something other than MetalLB may \
                 have put it there; or list it in spec.excludedAddresses"
            ),
        ),
    }
}

/// What a probe leaves open.
pub(super) fn unseen(world: &World, probe: &Probe) -> Vec<(String, String)> {
    let mut open = Vec::new();
    let away = |address: &&Ipv4Addr| !probe.neighbours.contains_key(address);
    let away: Vec<&Ipv4Addr> = probe.asked.iter().filter(away).collect();
    if let Some(first) = away.first() {
        open.push((
            format!("who answers for {} of {} addresses", away.len(), probe.asked.len()),
            format!(
                "{first} and the like are not on a segment of this machine, or are its own; run the \
                 probe on another host of the balancers' segment"
            ),
        ));
    }
    let unknown = served(world)
        .into_iter()
        .filter(|(address, _)| probe.neighbours.contains_key(address))
        .count()
        .saturating_sub(
            judge(world, probe)
                .iter()
                .filter(|(_, v)| !matches!(v, Verdict::Taken { .. }))
                .count(),
        );
    if unknown > 0 {
        open.push((
            format!("whether the right node answers for {unknown} addresses"),
            "no address of the node that announces them is on the same segment, so that its MAC \
             address there is not known"
                .to_owned(),
        ));
    }
    let pools = world
        .pools
        .iter()
        .filter_map(|(name, p)| parse_spec(name, &p.valid()?.spec).ok());
    if pools.into_iter().any(|spec| spec.usable.has(Family::IPv6)) {
        open.push((
            "who answers for IPv6 addresses".to_owned(),
            "the probe reads the table of IPv4 neighbours; ndisc6 asks for one address".to_owned(),
        ));
    }
    open
}

#[cfg(test)]
mod tests;
