use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::GRACE;
use crate::external_dns::Availability;
use crate::plan::Planner;
use crate::simulate::Cluster;
use crate::world::{HANDOVER, Key, Kind, ObjectRef, Stored};

struct Stage {
    cluster: Cluster,
    planner: Planner,
}

fn key(name: &str) -> Key {
    Key::new("shop", name)
}

impl Stage {
    /// Three nodes, and a pool that allows names below example.org.
    fn new() -> Self {
        let mut cluster = Cluster::new(Timestamp::from_second(1_800_000_000).unwrap());
        let pool = json!({"apiVersion": "l2lb.io/v1alpha1", "kind": "L2AddressPool",
            "metadata": {"name": "edge"}, "spec": {"dnsDomains": ["Example.org"],
                "addresses": ["203.0.113.10-203.0.113.40", "2001:db8::/120"]}});
        cluster.put(Kind::AddressPool, pool).unwrap();
        for node in ["node-1", "node-2", "node-3"] {
            cluster.add_node(node, &[]);
        }
        Self {
            cluster,
            planner: Planner::default(),
        }
    }

    fn order(&mut self, name: &str, hostname: &str) {
        let spec = json!({"dns": {"hostname": hostname, "ttl": 30},
            "service": {"ipFamilyPolicy": "RequireDualStack"}});
        self.cluster.add_load_balancer(&key(name), "edge", &spec);
    }

    /// Comes to rest and returns the number of writes to DNSEndpoints.
    fn settle(&mut self) -> u64 {
        let before = self.dns_writes();
        self.cluster.settle(&mut self.planner).unwrap();
        self.dns_writes() - before
    }

    fn dns_writes(&self) -> u64 {
        self.cluster
            .writes
            .get(&Kind::DnsEndpoint)
            .copied()
            .unwrap_or(0)
    }

    /// What a load balancer's record of a type holds.
    fn targets(&self, name: &str, record_type: &str) -> Vec<String> {
        let endpoint = self.cluster.world.dns_endpoints.get(&key(name));
        endpoint
            .and_then(Stored::valid)
            .into_iter()
            .flat_map(|e| e.spec.endpoints.clone())
            .filter(|e| e.record_type == record_type)
            .flat_map(|e| e.targets)
            .collect()
    }

    fn exists(&self, name: &str) -> bool {
        self.cluster.world.dns_endpoints.contains_key(&key(name))
    }

    /// Status, reason and message of DNSPublished.
    fn condition(&self, name: &str) -> Option<(String, String, String)> {
        let lb = self.cluster.world.load_balancers[&key(name)]
            .valid()
            .unwrap();
        let status = lb.status.as_ref().unwrap();
        let found = status
            .conditions
            .iter()
            .find(|c| c.type_ == "DNSPublished")?;
        Some((
            found.status.clone(),
            found.reason.clone(),
            found.message.clone(),
        ))
    }

    fn reason(&self, name: &str) -> String {
        self.condition(name).unwrap().1
    }

    fn wait(&mut self, seconds: i64) -> u64 {
        self.cluster.advance(SignedDuration::from_secs(seconds));
        self.settle()
    }

    /// The first IPv4 address of a home.
    fn address_of(&self, name: &str, home: &str) -> String {
        let slots = &self.cluster.world.children[&key(name)];
        let slot = slots.values().find(|c| c.home == home).unwrap();
        slot.addresses
            .iter()
            .find(|a| a.is_ipv4())
            .unwrap()
            .to_string()
    }
}

#[test]
fn a_record_of_each_type_holds_every_address_at_home() {
    let mut stage = Stage::new();
    stage.order("web", "web.example.org");
    stage.settle();
    assert_eq!(stage.targets("web", "A").len(), 3);
    assert_eq!(stage.targets("web", "AAAA").len(), 3);
    let endpoint = stage.cluster.world.dns_endpoints[&key("web")]
        .valid()
        .unwrap()
        .clone();
    assert!(
        endpoint
            .spec
            .endpoints
            .iter()
            .all(|e| { e.dns_name == "web.example.org" && e.record_ttl == Some(30) })
    );
    let owner = endpoint
        .metadata
        .owner_references
        .clone()
        .unwrap()
        .remove(0);
    assert_eq!(
        (owner.kind.as_str(), owner.name.as_str()),
        ("L2LoadBalancer", "web")
    );
    let (status, _, message) = stage.condition("web").unwrap();
    assert_eq!(status, "True", "{message}");
    assert!(
        message.starts_with("web.example.org has 6 of 6 addresses"),
        "{message}"
    );
    assert_eq!(stage.wait(3600), 0);
}

#[test]
fn what_is_not_at_home_is_out_while_another_remains() {
    let mut stage = Stage::new();
    stage.order("web", "web.example.org");
    stage.settle();
    let moved = stage.address_of("web", "node-2");
    stage.cluster.set_node("node-2", true, true);
    assert_eq!(stage.settle(), 1);
    assert_eq!(stage.targets("web", "A").len(), 2);
    assert!(!stage.targets("web", "A").contains(&moved));
    assert!(stage.condition("web").unwrap().2.contains(&moved));
    stage.cluster.set_node("node-1", false, false);
    stage.settle();
    assert_eq!(
        stage.targets("web", "A"),
        [stage.address_of("web", "node-3")]
    );
    // Nobody is at home, somebody announces: all that is announced.
    stage.cluster.set_node("node-3", true, true);
    stage.settle();
    assert_eq!(stage.targets("web", "A").len(), 3);
    assert!(
        stage
            .condition("web")
            .unwrap()
            .2
            .contains("none is announced by its home")
    );
    // Nobody announces: what is there stays.
    for node in ["node-1", "node-2", "node-3"] {
        stage.cluster.set_node(node, false, false);
    }
    assert_eq!(stage.settle(), 0);
    for node in ["node-1", "node-2", "node-3"] {
        stage.cluster.set_node(node, true, false);
    }
    stage.settle();
    stage.wait(11);
    assert_eq!(stage.targets("web", "A").len(), 3);
    // A node that leaves for good.
    stage.cluster.remove_node("node-1");
    stage.settle();
    assert_eq!(stage.targets("web", "A").len(), 2);
}

#[test]
fn a_speaker_that_restarts_changes_nothing() {
    let mut stage = Stage::new();
    stage.order("web", "web.example.org");
    stage.settle();
    let silence = |stage: &mut Stage| {
        let statuses: Vec<Key> = stage
            .cluster
            .world
            .announcers
            .iter()
            .filter(|(_, by)| by.values().any(|node| node == "node-2"))
            .flat_map(|(_, by)| by.keys())
            .map(|name| Key::new("metallb-system", name.clone()))
            .collect();
        assert!(!statuses.is_empty());
        for key in statuses {
            stage.cluster.world.forget(&ObjectRef {
                kind: Kind::ServiceL2Status,
                key,
            });
        }
    };
    // The plans while the speaker is away, without MetalLB's part.
    let plan = |stage: &mut Stage| {
        let plan = stage.planner.plan(&stage.cluster.world);
        for change in &plan.changes {
            stage.cluster.apply(change);
        }
        plan
    };
    silence(&mut stage);
    plan(&mut stage);
    let calm = plan(&mut stage);
    assert_eq!(calm.changes, vec![]);
    assert_eq!(stage.targets("web", "A").len(), 3);
    // Until then it may be a handover.
    let now = stage.cluster.world.now;
    assert_eq!(calm.next_deadline, Some(now + HANDOVER));
    stage.cluster.advance(HANDOVER);
    plan(&mut stage);
    assert_eq!(stage.targets("web", "A").len(), 3);
    // For longer than the grace it is no restart.
    let away = plan(&mut stage);
    assert_eq!(away.next_deadline, Some(now + HANDOVER + GRACE));
    stage.cluster.advance(GRACE);
    plan(&mut stage);
    assert_eq!(stage.targets("web", "A").len(), 2);
    assert_eq!(stage.settle(), 1);
    assert_eq!(stage.targets("web", "A").len(), 3);
}

#[test]
fn a_name_needs_a_domain_of_the_pool() {
    let mut stage = Stage::new();
    stage.order("web", "web.badexample.org");
    stage.settle();
    assert!(!stage.exists("web"));
    let (status, reason, message) = stage.condition("web").unwrap();
    assert_eq!(
        (status.as_str(), reason.as_str()),
        ("False", "DomainNotAllowed")
    );
    assert!(message.contains("names below Example.org"), "{message}");
    // It is served all the same.
    assert_eq!(stage.cluster.world.children[&key("web")].len(), 3);
    stage.order("web", "web.example.org");
    stage.settle();
    assert!(stage.exists("web"));
    stage.order("web", "web.badexample.org");
    stage.settle();
    assert!(!stage.exists("web"));
}

#[test]
fn the_older_of_two_has_the_name() {
    let mut stage = Stage::new();
    stage.order("zoo", "web.example.org");
    stage.wait(5);
    stage.order("abc", "web.example.org");
    stage.order("bad", "other.example.net");
    stage.settle();
    assert!(stage.exists("zoo") && !stage.exists("abc"));
    assert_eq!(stage.reason("abc"), "HostnameTaken");
    assert!(stage.condition("abc").unwrap().2.contains("shop/zoo"));
    stage.cluster.delete_load_balancer(&key("zoo"));
    stage.settle();
    assert!(!stage.exists("zoo") && stage.exists("abc"));
}

#[test]
fn without_a_name_there_is_no_record_and_no_condition() {
    let mut stage = Stage::new();
    stage.order("web", "web.example.org");
    stage.settle();
    stage
        .cluster
        .add_load_balancer(&key("web"), "edge", &json!({}));
    stage.settle();
    assert!(!stage.exists("web"));
    assert_eq!(stage.condition("web"), None);
    assert_eq!(stage.wait(1), 0);
}

#[test]
fn without_the_definition_nothing_else_suffers() {
    let mut stage = Stage::new();
    stage.cluster.world.set_external_dns(Availability::Missing);
    stage.order("web", "web.example.org");
    stage.settle();
    assert_eq!(stage.cluster.world.children[&key("web")].len(), 3);
    assert_eq!(stage.reason("web"), "ExternalDNSMissing");
    stage.cluster.world.set_external_dns(Availability::Served);
    stage.settle();
    assert_eq!(stage.condition("web").unwrap().0, "True");
    // A controller that has just started says nothing else before it knows.
    stage.cluster.world.set_external_dns(Availability::Unknown);
    assert_eq!(
        Planner::default().plan(&stage.cluster.world).changes,
        vec![]
    );
}

#[test]
fn an_object_of_somebody_else_stays() {
    let mut stage = Stage::new();
    let theirs = json!({"apiVersion": "externaldns.k8s.io/v1alpha1", "kind": "DNSEndpoint",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"endpoints": [{"dnsName": "web.example.org", "recordType": "CNAME",
            "targets": ["elsewhere.example.org"]}]}});
    stage.cluster.put(Kind::DnsEndpoint, theirs).unwrap();
    stage.order("web", "web.example.org");
    assert_eq!(stage.settle(), 0);
    assert_eq!(stage.reason("web"), "NameTaken");
    stage
        .cluster
        .add_load_balancer(&key("web"), "edge", &json!({}));
    stage.cluster.delete_load_balancer(&key("web"));
    assert_eq!(stage.settle(), 0);
    assert_eq!(stage.targets("web", "CNAME").len(), 1);
}

#[test]
fn drift_is_repaired() {
    let mut stage = Stage::new();
    stage.order("web", "web.example.org");
    stage.settle();
    let endpoint = stage.cluster.world.dns_endpoints[&key("web")]
        .valid()
        .unwrap();
    let mut changed = json!(**endpoint);
    changed["spec"]["endpoints"] = json!([]);
    stage.cluster.put(Kind::DnsEndpoint, changed).unwrap();
    assert_eq!(stage.settle(), 1);
    assert_eq!(stage.targets("web", "A").len(), 3);
}
