//! Who answers for an address: ARP and NDP as the client sees them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use pnet_datalink::{Channel, DataLinkSender};
use tokio::sync::broadcast;

use crate::netns::Netns;
use crate::topology::{Attachment, CLIENT, Mac};

/// How often an unanswered question is asked again.
const REPEAT: Duration = Duration::from_millis(100);
/// How long a second, contradicting answer is waited for.
const LINGER: Duration = Duration::from_millis(25);

/// An answer to "who has this address?".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// The address asked for.
    pub address: IpAddr,
    /// Who has it.
    pub mac: Mac,
    /// When the answer came.
    pub at: Instant,
}

/// The client's ear and voice on the segment.
#[derive(Clone)]
pub(crate) struct Segment {
    sender: Arc<Mutex<Box<dyn DataLinkSender>>>,
    answers: broadcast::Sender<Answer>,
    client: Attachment,
}

impl Segment {
    /// Opens one of the client's interfaces.
    pub fn open(client: Attachment) -> Result<Self> {
        let config = pnet_datalink::Config {
            read_timeout: Some(Duration::from_millis(200)),
            ..pnet_datalink::Config::default()
        };
        let channel = Netns::Named(CLIENT.into()).run(move || {
            let interface = pnet_datalink::interfaces()
                .into_iter()
                .find(|interface| interface.name == client.interface);
            pnet_datalink::channel(
                &interface.context("the client has no such interface")?,
                config,
            )
            .context("opening the client's interface")
        })??;
        let Channel::Ethernet(sender, mut receiver) = channel else {
            bail!("the client's interface is no Ethernet")
        };
        let (answers, _) = broadcast::channel(4096);
        let published = answers.clone();
        std::thread::Builder::new()
            .name("segment".into())
            .spawn(move || {
                loop {
                    match receiver.next() {
                        Ok(frame) => {
                            if let Some((address, mac)) = parse(client.mac, frame) {
                                let _ = published.send(Answer {
                                    address,
                                    mac,
                                    at: Instant::now(),
                                });
                            }
                        }
                        Err(error) if error.kind() == std::io::ErrorKind::TimedOut => {}
                        Err(_) => std::thread::sleep(Duration::from_millis(10)),
                    }
                }
            })
            .context("starting the segment's reader")?;
        Ok(Self {
            sender: Arc::new(Mutex::new(sender)),
            answers,
            client,
        })
    }

    /// Asks who has an address, again and again until somebody answers or
    /// the time is up; collects the different answers to the last question.
    pub async fn ask(&self, address: IpAddr, timeout: Duration) -> Result<Vec<Answer>> {
        let mut answers = self.answers.subscribe();
        let deadline = tokio::time::Instant::now() + timeout;
        let mut found: Vec<Answer> = Vec::new();
        while found.is_empty() && tokio::time::Instant::now() < deadline {
            self.send(&question(&self.client, address))?;
            let mut until = deadline.min(tokio::time::Instant::now() + REPEAT);
            while let Ok(received) = tokio::time::timeout_at(until, answers.recv()).await {
                match received {
                    Ok(answer) if answer.address == address => {
                        if found.is_empty() {
                            until = tokio::time::Instant::now() + LINGER;
                        }
                        if !found.iter().any(|known| known.mac == answer.mac) {
                            found.push(answer);
                        }
                    }
                    Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => {
                        bail!("the segment's reader has ended")
                    }
                }
            }
        }
        Ok(found)
    }

    fn send(&self, frame: &[u8]) -> Result<()> {
        let mut sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner);
        sender
            .send_to(frame, None)
            .ok_or_else(|| anyhow!("the client's interface takes no frames"))?
            .context("sending a frame")
    }
}

fn question(client: &Attachment, address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => arp_request(client, v4),
        IpAddr::V6(v6) => neighbour_solicitation(client, v6),
    }
}

/// RFC 826.
fn arp_request(client: &Attachment, target: Ipv4Addr) -> Vec<u8> {
    let mut frame = ethernet(client, [0xff; 6], 0x0806);
    frame.extend([0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(client.mac.0);
    frame.extend(client.v4.octets());
    frame.extend([0; 6]);
    frame.extend(target.octets());
    frame
}

/// RFC 4861, section 4.3, to the solicited-node multicast address.
fn neighbour_solicitation(client: &Attachment, target: Ipv6Addr) -> Vec<u8> {
    let [.., a, b, c] = target.octets();
    let group = Ipv6Addr::new(
        0xff02,
        0,
        0,
        0,
        0,
        1,
        0xff00 | u16::from(a),
        u16::from_be_bytes([b, c]),
    );
    let mut message = vec![135, 0, 0, 0, 0, 0, 0, 0];
    message.extend(target.octets());
    message.extend([1, 1]);
    message.extend(client.mac.0);
    let sum = icmpv6_checksum(client.v6, group, &message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());

    let mut frame = ethernet(client, [0x33, 0x33, 0xff, a, b, c], 0x86dd);
    // Version 6, 32 bytes of ICMPv6 (58), hop limit 255.
    frame.extend([0x60, 0, 0, 0, 0, 32, 58, 255]);
    frame.extend(client.v6.octets());
    frame.extend(group.octets());
    frame.extend(message);
    frame
}

fn ethernet(client: &Attachment, to: [u8; 6], kind: u16) -> Vec<u8> {
    let mut frame = Vec::with_capacity(86);
    frame.extend(to);
    frame.extend(client.mac.0);
    frame.extend(kind.to_be_bytes());
    frame
}

fn icmpv6_checksum(from: Ipv6Addr, to: Ipv6Addr, message: &[u8]) -> u16 {
    let length = u32::try_from(message.len()).unwrap_or_default();
    let mut bytes = Vec::new();
    bytes.extend(from.octets());
    bytes.extend(to.octets());
    bytes.extend(length.to_be_bytes());
    bytes.extend([0, 0, 0, 58]);
    bytes.extend(message);
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or_default()
}

/// Reads an answer that was sent to the client itself.
fn parse(client: Mac, frame: &[u8]) -> Option<(IpAddr, Mac)> {
    if frame.get(0..6)? != client.0 {
        return None;
    }
    match frame.get(12..14)? {
        // An ARP reply for IPv4.
        [0x08, 0x06] if frame.get(20..22)? == [0, 2] => {
            let mac: [u8; 6] = frame.get(22..28)?.try_into().ok()?;
            let address: [u8; 4] = frame.get(28..32)?.try_into().ok()?;
            Some((Ipv4Addr::from(address).into(), Mac(mac)))
        }
        // A neighbour advertisement; the target's link address is its first option.
        [0x86, 0xdd] if frame.get(20)? == &58 && frame.get(54)? == &136 => {
            let address: [u8; 16] = frame.get(62..78)?.try_into().ok()?;
            let mac = match frame.get(78..80) {
                Some([2, 1]) => frame.get(80..86)?,
                _ => frame.get(6..12)?,
            };
            Some((Ipv6Addr::from(address).into(), Mac(mac.try_into().ok()?)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::FIRST;

    #[test]
    fn a_solicitation_sums_to_zero() {
        let target: Ipv6Addr = "2001:db8::101".parse().unwrap();
        let frame = neighbour_solicitation(&FIRST, target);
        assert_eq!(frame.len(), 86);
        assert_eq!(&frame[0..6], [0x33, 0x33, 0xff, 0, 1, 1]);
        let group: [u8; 16] = frame[38..54].try_into().unwrap();
        assert_eq!(icmpv6_checksum(FIRST.v6, group.into(), &frame[54..]), 0);
    }

    #[test]
    fn answers_are_read() {
        let mut frame = arp_request(&FIRST, "192.0.2.100".parse().unwrap());
        assert_eq!(parse(FIRST.mac, &frame), None);
        frame[0..6].copy_from_slice(&FIRST.mac.0);
        frame[21] = 2;
        frame[22..28].copy_from_slice(&[2, 0, 0, 0, 0, 11]);
        frame[28..32].copy_from_slice(&[192, 0, 2, 100]);
        assert_eq!(
            parse(FIRST.mac, &frame),
            Some(("192.0.2.100".parse().unwrap(), Mac([2, 0, 0, 0, 0, 11])))
        );
        for length in 0..frame.len() {
            let _ = parse(FIRST.mac, &frame[..length]);
        }
    }
}
