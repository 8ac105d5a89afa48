//! Finds out who answers for addresses on the segment: a datagram to each
//! makes the kernel ask, and its neighbour table has the answer. That needs no
//! rights, unlike asking by ARP oneself.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::thread::sleep;
use std::time::Duration;

use crate::check::{Probe, probe_addresses, probe_again, read_neighbours};
use crate::world::World;

/// The kernel's table of IPv4 neighbours.
const TABLE: &str = "/proc/net/arp";
/// The port named discard: where it is open, what comes is thrown away.
const PORT: u16 = 9;
/// Between two datagrams: at most a hundred questions a second.
const PAUSE: Duration = Duration::from_millis(10);
/// How many addresses are asked for at once: the kernel's table has room for
/// 1,024 neighbours, others' among them.
const BATCH: usize = 256;
/// How long an answer may take.
const ANSWER: Duration = Duration::from_millis(1500);
/// After this an entry from before is confirmed or gone: the kernel believes
/// it for 5 s more, then asks its host three times, a second apart. Only then
/// a new question is for everybody again.
const CONFIRMATION: Duration = Duration::from_secs(9);

/// Asks for the addresses that matter, and once more for those of which
/// something is to be said.
///
/// # Errors
/// A sentence, when this machine cannot ask.
pub(super) fn run(world: &World, limit: usize) -> Result<Probe, String> {
    for node in world.nodes.values() {
        if node.addresses.iter().any(|address| is_own(*address)) {
            return Err(format!(
                "this machine is node {}, which does not ask for what it announces itself: run the \
                 probe on another host of the balancers' segment",
                node.name
            ));
        }
    }
    let failed = |error: std::io::Error| format!("cannot send datagrams: {error}");
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).map_err(failed)?;
    // It is for the neighbour alone, and never goes on from there.
    socket.set_ttl(1).map_err(failed)?;
    let mut probe = Probe::default();
    let all = probe_addresses(world, limit);
    eprintln!(
        "asking for {} addresses, about {} s",
        all.len(),
        seconds(all.len())
    );
    for batch in all.chunks(BATCH) {
        ask(&socket, batch);
        sleep(ANSWER);
        look(&mut probe, batch)?;
    }
    let mut doubtful = probe_again(world, &probe);
    if doubtful.is_empty() {
        return Ok(probe);
    }
    // What is said of them depends on the nodes' entries too.
    let nodes = world.nodes.values().flat_map(|n| n.addresses.iter());
    doubtful.extend(all.iter().filter(|a| nodes.clone().any(|n| n == *a)));
    doubtful.sort_unstable();
    doubtful.dedup();
    eprintln!(
        "asking for {} of them once more, about {} s",
        doubtful.len(),
        (CONFIRMATION + ANSWER).as_secs()
    );
    for batch in doubtful.chunks(BATCH) {
        ask(&socket, batch);
        sleep(CONFIRMATION);
        ask(&socket, batch);
        sleep(ANSWER);
        look(&mut probe, batch)?;
    }
    Ok(probe)
}

/// Whether an address is this machine's: what it sends there comes from there.
fn is_own(address: IpAddr) -> bool {
    let any: IpAddr = match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let from = UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect((address, PORT))?;
        socket.local_addr()
    });
    from.is_ok_and(|from| from.ip() == address)
}

fn seconds(addresses: usize) -> u64 {
    let addresses = u32::try_from(addresses).unwrap_or(u32::MAX);
    let batches = addresses.div_ceil(u32::try_from(BATCH).unwrap_or(1));
    (PAUSE * addresses + ANSWER * batches).as_secs() + 1
}

fn ask(socket: &UdpSocket, addresses: &[Ipv4Addr]) {
    for address in addresses {
        // What cannot be sent is not in the table afterwards either.
        let _ = socket.send_to(&[0], (*address, PORT));
        sleep(PAUSE);
    }
}

fn look(probe: &mut Probe, addresses: &[Ipv4Addr]) -> Result<(), String> {
    let text = std::fs::read_to_string(TABLE)
        .map_err(|error| format!("cannot read {TABLE}, which only Linux has: {error}"))?;
    probe.take(addresses, &read_neighbours(&text));
    Ok(())
}
