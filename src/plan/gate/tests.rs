use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::address::Family;
use crate::plan::Planner;
use crate::simulate::Cluster;
use crate::world::{Key, Kind, Stored};

const IPV4: &str = "203.0.113.0/28";
const IPV6: &str = "2001:db8::/120";

struct Stage {
    cluster: Cluster,
    planner: Planner,
}

fn web() -> Key {
    Key::new("shop", "web")
}

impl Stage {
    /// Two nodes, in a cluster whose first family is IPv4.
    fn new() -> Self {
        let mut cluster = Cluster::new(Timestamp::from_second(1_800_000_000).unwrap());
        cluster.world.primary_family = Some(Family::IPv4);
        cluster.add_node("a", &[]);
        cluster.add_node("b", &[]);
        Self {
            cluster,
            planner: Planner::default(),
        }
    }

    fn pool(&mut self, addresses: &[&str]) {
        let pool = json!({"apiVersion": "l2lb.io/v1alpha1", "kind": "L2AddressPool",
            "metadata": {"name": "edge", "finalizers": ["l2lb.io/addresses-in-use"]},
            "spec": {"addresses": addresses}});
        self.cluster.put(Kind::AddressPool, pool).unwrap();
        self.settle();
    }

    fn order(&mut self, spec: &Value) {
        self.cluster.add_load_balancer(&web(), "edge", spec);
        self.settle();
    }

    fn settle(&mut self) {
        self.cluster.settle(&mut self.planner).unwrap();
    }

    /// The families of each Service, by slot.
    fn families(&self) -> Vec<Vec<String>> {
        let slots = self.cluster.world.children.get(&web());
        let children = slots.into_iter().flat_map(|c| c.values());
        children
            .map(|c| c.service.spec.clone().unwrap().ip_families.unwrap())
            .collect()
    }

    fn condition(&self, kind: &str) -> (String, String) {
        let stored = &self.cluster.world.load_balancers[&web()];
        let status = stored.valid().and_then(|lb| lb.status.as_ref()).unwrap();
        let found = status.conditions.iter().find(|c| c.type_ == kind).unwrap();
        (found.reason.clone(), found.message.clone())
    }
}

#[test]
fn a_family_that_the_pool_gains_changes_no_service() {
    let mut stage = Stage::new();
    stage.pool(&[IPV6]);
    stage.order(&json!({}));
    assert_eq!(stage.families(), [["IPv6"], ["IPv6"]]);
    let given = stage.cluster.given().clone();

    stage.pool(&[IPV6, IPV4]);
    assert_eq!(stage.families(), [["IPv6"], ["IPv6"]]);
    assert_eq!(*stage.cluster.given(), given);
    assert_eq!(stage.condition("Ready").0, "Ok");

    stage.cluster.add_node("c", &[]);
    stage.settle();
    assert_eq!(stage.families(), [["IPv6"], ["IPv6"], ["IPv6"]]);

    stage.order(&json!({"service": {"ipFamilyPolicy": "RequireDualStack"}}));
    assert_eq!(stage.families(), vec![vec!["IPv6", "IPv4"]; 3]);
}

#[test]
fn a_family_that_is_named_later_changes_no_service() {
    let mut stage = Stage::new();
    stage.pool(&[IPV6, IPV4]);
    stage.order(&json!({"service": {"ipFamilies": ["IPv4"]}}));
    stage.order(&json!({}));
    stage.order(&json!({"service": {"ipFamilies": ["IPv6"]}}));
    assert_eq!(stage.families(), [["IPv4"], ["IPv4"]]);
    let (reason, message) = stage.condition("Accepted");
    assert_eq!(reason, "Ok");
    assert!(
        message.contains("its Services keep IPv4 as their first family"),
        "{message}"
    );
    assert_eq!(stage.condition("Ready").0, "Ok");
}

#[test]
fn a_family_that_the_pool_loses_stays_where_it_is_in_use() {
    let mut stage = Stage::new();
    stage.pool(&[IPV6, IPV4]);
    stage.order(&json!({"service": {"ipFamilies": ["IPv6"]}}));
    stage.pool(&[IPV4]);
    assert_eq!(stage.condition("Accepted").0, "Ok");
    assert_eq!(stage.families(), [["IPv6"], ["IPv6"]]);
    stage.cluster.add_node("c", &[]);
    stage.settle();
    assert_eq!(
        stage.condition("AddressesAllocated").0,
        "AddressesExhausted"
    );
    assert_eq!(stage.families().len(), 2);
}

#[test]
fn what_no_service_can_be_is_not_served() {
    for (spec, says) in [
        (
            json!({"retirementPeriod": "1h-1h"}),
            "spec.retirementPeriod: \"1h-1h\" is not a duration",
        ),
        (
            json!({"retirementPeriod": "99999999999999999h"}),
            "is not between 0s and 8760h (a year)",
        ),
        (
            json!({"service": {"ipFamilies": ["IPv4", "IPv4"]}}),
            "spec.service.ipFamilies: IPv4 is named twice",
        ),
        (
            json!({"service": {"ipFamilies": ["IPv4", "IPv6"]}}),
            "two families need ipFamilyPolicy: RequireDualStack",
        ),
    ] {
        let mut stage = Stage::new();
        stage.pool(&[IPV6, IPV4]);
        let other = Key::new("shop", "other");
        stage.cluster.add_load_balancer(&other, "edge", &json!({}));
        stage.order(&spec);
        let (reason, message) = stage.condition("Accepted");
        assert_eq!(reason, "InvalidSpec", "{spec}");
        assert!(message.contains(says), "{message}");
        assert_eq!(stage.families().len(), 0, "{spec}");
        assert_eq!(stage.cluster.world.children[&other].len(), 2);
    }
}

#[test]
fn a_broken_spec_leaves_what_is_there() {
    let mut stage = Stage::new();
    stage.pool(&[IPV4]);
    stage.order(&json!({}));
    stage.order(&json!({"retirementPeriod": "1h-1h"}));
    assert_eq!(stage.condition("Accepted").0, "InvalidSpec");
    assert_eq!(stage.condition("Ready").0, "Ok");
    assert_eq!(stage.families(), [["IPv4"], ["IPv4"]]);
}

/// What happens to the pool and the load balancer.
#[derive(Clone, Copy, Debug)]
enum Step {
    Pool(&'static [&'static str]),
    Families(&'static [&'static str]),
    Policy(bool),
    Join(u8),
    Leave(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        prop::sample::select(vec![&[IPV4][..], &[IPV6], &[IPV4, IPV6]]).prop_map(Step::Pool),
        prop::sample::select(vec![
            &[][..],
            &["IPv4"],
            &["IPv6"],
            &["IPv4", "IPv6"],
            &["IPv6", "IPv4"]
        ])
        .prop_map(Step::Families),
        any::<bool>().prop_map(Step::Policy),
        (0u8..4).prop_map(Step::Join),
        (0u8..4).prop_map(Step::Leave),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// The API server refuses a Service whose first family changes.
    #[test]
    fn no_service_ever_changes_its_first_family(steps in prop::collection::vec(step(), 1..12)) {
        let mut stage = Stage::new();
        stage.pool(&[IPV6]);
        let mut service = json!({});
        stage.order(&json!({}));
        for step in steps {
            let before: Vec<(u32, String, String)> = first_families(&stage);
            match step {
                Step::Pool(addresses) => stage.pool(addresses),
                Step::Families(families) => service["ipFamilies"] = json!(families),
                Step::Policy(true) => service["ipFamilyPolicy"] = json!("RequireDualStack"),
                Step::Policy(false) => service["ipFamilyPolicy"] = Value::Null,
                Step::Join(n) => stage.cluster.add_node(&format!("n{n}"), &[]),
                Step::Leave(n) => stage.cluster.remove_node(&format!("n{n}")),
            }
            stage.order(&json!({"service": service}));
            let after = first_families(&stage);
            for (slot, uid, family) in &before {
                let now = after.iter().find(|(n, u, _)| n == slot && u == uid);
                prop_assert!(now.is_none_or(|(_, _, f)| f == family), "{step:?}: slot {slot}");
            }
            let stored = &stage.cluster.world.load_balancers[&web()];
            prop_assert!(matches!(stored, Stored::Valid(_)));
        }
    }
}

/// Slot, UID and first family of each Service.
fn first_families(stage: &Stage) -> Vec<(u32, String, String)> {
    let slots = stage.cluster.world.children.get(&web());
    let children = slots.into_iter().flat_map(|c| c.values());
    children
        .map(|c| {
            let families = c.service.spec.clone().unwrap().ip_families.unwrap();
            let uid = c.service.metadata.uid.clone().unwrap();
            (c.slot, uid, families[0].clone())
        })
        .collect()
}
