use std::path::Path;

use super::*;
use crate::check::{Finding, Snapshot, check};
use crate::cli::golden::Scene;
use crate::metallb::Capabilities;

const TABLE: &str = "\
IP address       HW type     Flags       HW address            Mask     Device
192.0.2.11       0x1         0x2         02:00:00:00:00:0B     *        eth0
192.0.2.12       0x1         0x2         02:00:00:00:00:0c     *        eth0
192.0.2.13       0x1         0x0         00:00:00:00:00:00     *        eth0
";

fn at(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

/// The healthy cluster, with nodes 1 and 2 on the segment, and these entries
/// of the table: address, interface, who answers.
fn probed(entries: &[(&str, &str, Option<&str>)]) -> Snapshot {
    let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/cli/healthy");
    let mut snapshot = Scene::of(&case).snapshot;
    let mut table = read_table(TABLE);
    for (address, device, mac) in entries {
        let neighbour = Neighbour {
            device: (*device).to_owned(),
            mac: mac.map(str::to_owned),
        };
        table.insert(at(address), neighbour);
    }
    let mut probe = Probe::default();
    probe.take(&addresses(&snapshot.world, 256), &table);
    snapshot.probe = Some(probe);
    snapshot
}

fn findings(entries: &[(&str, &str, Option<&str>)]) -> Vec<Finding> {
    check(&probed(entries))
}

#[test]
fn reads_the_kernels_table() {
    let table = read_table(TABLE);
    assert_eq!(table.len(), 3);
    let first = &table[&at("192.0.2.11")];
    assert_eq!(
        (first.device.as_str(), first.mac.as_deref()),
        ("eth0", Some("02:00:00:00:00:0b"))
    );
    assert_eq!(table[&at("192.0.2.13")].mac, None);
}

#[test]
fn asks_for_nodes_services_and_some_free_addresses() {
    let snapshot = probed(&[]);
    let all = addresses(&snapshot.world, 256);
    // Four nodes, five Services, 14 free of edge and 4 of spare.
    assert_eq!(all.len(), 4 + 5 + 14 + 4);
    assert!(!all.contains(&at("203.0.113.20")), "it is excluded");
    let some = addresses(&snapshot.world, 3);
    assert_eq!(some.len(), 4 + 5 + 3);
    assert!(some.contains(&at("203.0.113.15")) && some.contains(&at("198.51.100.0")));
}

#[test]
fn the_announcing_node_is_expected() {
    // web-0 is announced by node-1, web-1 by node-2.
    let well = [
        ("203.0.113.10", "eth0", Some("02:00:00:00:00:0b")),
        ("203.0.113.11", "eth0", Some("02:00:00:00:00:0c")),
        ("203.0.113.15", "eth0", None),
    ];
    assert_eq!(findings(&well), []);
    let found = findings(&[("203.0.113.10", "eth0", Some("02:00:00:00:00:99"))]);
    let [stranger] = found.as_slice() else {
        panic!("{found:#?}")
    };
    assert_eq!(
        (stranger.rule, stranger.severity, stranger.object.as_str()),
        (
            "address-of-another-host",
            Severity::Error,
            "Service shop/web-0"
        )
    );
    assert_eq!(
        stranger.message,
        "02:00:00:00:00:99 answers for 203.0.113.10 instead of node node-1, which has 02:00:00:00:00:0b"
    );
    let found = findings(&[("203.0.113.10", "eth0", Some("02:00:00:00:00:0c"))]);
    assert!(found[0].message.contains("node node-2 (02:00:00:00:00:0c)"));
    assert_eq!(
        (found.len(), found[0].rule, found[0].severity),
        (1, "address-of-another-node", Severity::Warning)
    );
    let found = findings(&[("203.0.113.10", "eth0", None)]);
    assert_eq!((found.len(), found[0].rule), (1, "address-silent"));
}

#[test]
fn where_nobody_reports_any_node_will_do() {
    let mut snapshot = probed(&[("203.0.113.10", "eth0", Some("02:00:00:00:00:0c"))]);
    let old = Capabilities::of_version("0.15.2").unwrap();
    snapshot.world.set_capabilities(old);
    let probe = snapshot.probe.unwrap();
    let judged = judge(&snapshot.world, &probe);
    assert_eq!(judged, [(at("203.0.113.10"), Verdict::Well)]);
}

#[test]
fn free_addresses_are_nobodys() {
    let found = findings(&[
        ("203.0.113.15", "eth0", Some("02:00:00:00:00:99")),
        ("198.51.100.1", "eth0", Some("02:00:00:00:00:0b")),
    ]);
    assert_eq!(found.len(), 2, "{found:#?}");
    assert_eq!(
        (found[0].severity, found[0].object.as_str()),
        (Severity::Error, "L2AddressPool edge")
    );
    assert_eq!(
        (found[1].severity, found[1].object.as_str()),
        (Severity::Warning, "L2AddressPool spare")
    );
    assert!(found[1].message.contains("node node-1"), "{found:#?}");
}

#[test]
fn what_cannot_be_judged_is_said() {
    // On another interface the nodes may have other hardware addresses, and
    // node-3 does not answer for its own address.
    let snapshot = probed(&[
        ("203.0.113.10", "eth1", Some("02:00:00:00:00:99")),
        ("203.0.113.12", "eth0", Some("02:00:00:00:00:99")),
    ]);
    assert_eq!(check(&snapshot), []);
    let open = snapshot.not_looked_at();
    assert!(
        open.iter()
            .any(|(what, _)| what.contains("right node answers for 2 addresses")),
        "{open:?}"
    );
    assert!(
        open.iter().any(|(what, _)| what.contains("IPv6")),
        "{open:?}"
    );
    let beyond = "who answers for 22 of 27 addresses";
    assert!(open.iter().any(|(what, _)| what == beyond), "{open:?}");
}

#[test]
fn a_second_look_corrects_the_first() {
    let snapshot = probed(&[
        ("203.0.113.15", "eth0", Some("02:00:00:00:00:99")),
        ("203.0.113.10", "eth0", Some("02:00:00:00:00:0c")),
    ]);
    let mut probe = snapshot.probe.unwrap();
    let again = doubtful(&snapshot.world, &probe);
    assert_eq!(again, [at("203.0.113.10"), at("203.0.113.15")]);
    // The one was forgotten, as nobody answered; the other is right now.
    let mut table = read_table(TABLE);
    table.insert(at("203.0.113.10"), table[&at("192.0.2.11")].clone());
    probe.take(&again, &table);
    assert!(doubtful(&snapshot.world, &probe).is_empty());
}
