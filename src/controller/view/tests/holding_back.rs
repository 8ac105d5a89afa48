//! What one object that cannot be written holds back: what needs it, and
//! nothing else.

use super::*;

/// Two nodes, a pool, and two load balancers with different selectors, `web`
/// and `api`: they have nothing but the pool in common.
struct Cluster {
    view: View,
    planner: Planner,
    objects: BTreeMap<ObjectRef, Value>,
    version: u64,
    now: Timestamp,
}

impl Cluster {
    fn new() -> Self {
        let mut view = view();
        view.hear(News::Definitions {
            present: resource::KINDS
                .iter()
                .filter_map(|k| resource::definition(*k))
                .collect(),
            capabilities: Capabilities::CURRENT,
        });
        let mut cluster = Self {
            view,
            planner: Planner::default(),
            objects: BTreeMap::new(),
            version: 0,
            now: now(),
        };
        for name in ["a", "b"] {
            cluster.node(name, true);
        }
        let pool = json!({"metadata": {"name": "edge"}, "spec": {"addresses": ["192.0.2.0/28"]}});
        cluster.put(Kind::AddressPool, pool);
        cluster.load_balancer("web", json!({}));
        cluster.load_balancer("api", json!({"matchLabels": {"role": "edge"}}));
        cluster
    }

    fn node(&mut self, name: &str, ready: bool) {
        let condition = json!({"type": "Ready", "status": if ready { "True" } else { "False" },
            "lastTransitionTime": "2020-01-01T00:00:00Z"});
        let node = json!({
            "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, "role": "edge"}},
            "status": {"conditions": [condition]},
        });
        self.put(Kind::Node, node);
    }

    fn load_balancer(&mut self, name: &str, selector: Value) {
        let lb = json!({"metadata": {"name": name, "namespace": "shop"}, "spec": {
            "addressPool": "edge", "nodeSelector": selector,
            "service": {"selector": {"app": name}, "ports": [{"port": 80, "protocol": "TCP"}]}}});
        self.put(Kind::LoadBalancer, lb);
    }

    /// Stores an object as somebody else.
    fn put(&mut self, kind: Kind, manifest: Value) {
        let observed = self.store(kind, manifest);
        self.view.hear(News::Applied(Box::new(observed)));
    }

    fn store(&mut self, kind: Kind, mut manifest: Value) -> Observed {
        self.version += 1;
        let resource = resource::api_resource(kind);
        manifest["apiVersion"] = json!(resource.api_version);
        manifest["kind"] = json!(resource.kind);
        manifest["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let read = |value: &Value| Observed::read(kind, value.clone()).unwrap();
        let known = self.objects.get(&read(&manifest).object());
        let uid = known.map(|known| known["metadata"]["uid"].clone());
        manifest["metadata"]["uid"] = uid.unwrap_or_else(|| json!(format!("u{}", self.version)));
        let observed = read(&manifest);
        self.objects.insert(observed.object(), manifest);
        observed
    }

    fn edit(&mut self, object: &ObjectRef, edit: impl FnOnce(&mut Value)) {
        let mut manifest = self.objects[object].clone();
        edit(&mut manifest);
        self.put(object.kind, manifest);
    }

    /// Deletes an object as somebody else.
    fn delete(&mut self, object: ObjectRef) {
        self.version += 1;
        let manifest = self.objects.remove(&object).unwrap();
        self.view.hear(News::Deleted {
            object,
            uid: manifest["metadata"]["uid"].as_str().map(str::to_owned),
            version: ResourceVersion(self.version),
        });
    }

    fn plan(&mut self) -> Vec<Change> {
        self.view.plan(&mut self.planner, self.now).changes
    }

    fn write(&mut self, change: &Change) {
        let kind = change.object.kind;
        let before = self.objects.get(&change.object).cloned();
        let manifest = match &change.action {
            Action::Create(body) => body.to_json(),
            Action::Apply(body) => {
                let mut manifest = body.to_json();
                let before = before.unwrap();
                for part in ["spec", "status"] {
                    if manifest[part].is_null() {
                        manifest[part] = before[part].clone();
                    }
                }
                manifest
            }
            Action::Patch(body) => {
                let mut manifest = before.unwrap();
                json_patch::merge(&mut manifest, &body.to_json());
                manifest
            }
            Action::ApplyStatus(body) => {
                let mut manifest = before.unwrap();
                for part in ["uid", "resourceVersion"] {
                    let known = &body.to_json()["metadata"][part];
                    assert_eq!(manifest["metadata"][part], *known, "{change:?}");
                }
                manifest["status"] = body.to_json()["status"].clone();
                manifest
            }
            Action::Delete { .. } => {
                self.objects.remove(&change.object);
                return self.view.answered(change, Answer::Gone, self.now);
            }
        };
        let observed = self.store(kind, manifest);
        let answer = Answer::Stored(Box::new(observed));
        self.view.answered(change, answer, self.now);
    }

    /// Writes what is planned until nothing is.
    fn settle(&mut self) {
        for _ in 0..20 {
            let changes = self.plan();
            if changes.is_empty() {
                return;
            }
            changes.iter().for_each(|change| self.write(change));
        }
        panic!("{:?}", self.plan());
    }

    /// What of a plan is done to the objects of a kind, answered all the same.
    fn answer(&mut self, kind: Kind, name: &str, answer: impl Fn() -> Answer) -> usize {
        let mut changes = self.plan();
        changes.retain(|c| c.object.kind == kind && c.object.key.name.contains(name));
        for change in &changes {
            self.view.answered(change, answer(), self.now);
        }
        changes.len()
    }

    /// The names of the Services that would be written, sorted.
    fn services(&mut self) -> Vec<String> {
        let mut changes = self.plan();
        changes.retain(|c| c.stage == Stage::Serve);
        changes.into_iter().map(|c| c.object.key.name).collect()
    }

    /// The Services at home on a node.
    fn at_home(&self, node: &str) -> Vec<String> {
        let services = self.objects.iter().filter(|(o, _)| o.kind == Kind::Service);
        services
            .filter(|(_, s)| s["metadata"]["labels"][names::HOME] == node)
            .map(|(o, _)| o.key.name.clone())
            .collect()
    }

    /// Begins the name of the advertisements of a load balancer.
    fn advertisements_of(&self, load_balancer: &str) -> String {
        let service = reference(Kind::Service, "shop", &format!("{load_balancer}-0"));
        let candidates = &self.objects[&service]["metadata"]["labels"][names::CANDIDATES];
        format!("l2lb-edge-{}-", candidates.as_str().unwrap())
    }
}

fn reference(kind: Kind, namespace: &str, name: &str) -> ObjectRef {
    ObjectRef {
        kind,
        key: Key::new(namespace, name),
    }
}

fn pool() -> ObjectRef {
    reference(Kind::AddressPool, "", "edge")
}

fn refused() -> Answer {
    Answer::Refused("no webhook".to_owned())
}

fn overdue() -> Answer {
    Answer::Overdue("request did not complete within the allotted timeout".to_owned())
}

/// Asks what became of everything, and finds it as it was.
fn ask(cluster: &mut Cluster) {
    for question in cluster.view.questions(cluster.now) {
        let known = cluster.objects.get(&question.object).cloned();
        let found = known.map(|value| Observed::read(question.object.kind, value).unwrap());
        cluster.view.settled(&question, found);
    }
}

/// Advertisements that were refused together do not wait for each other, and
/// Services that are bound to others do not wait for them.
#[test]
fn refused_advertisements_hold_back_their_new_services_alone() {
    let mut cluster = Cluster::new();
    let changes = cluster.plan();
    for change in changes.iter().filter(|c| c.stage == Stage::Pool) {
        cluster.write(change);
    }
    let services = |c: &Change| c.object.key.name.starts_with("web-");
    let of_web = changes
        .iter()
        .find(|c| c.stage == Stage::Serve && services(c));
    let advertisement = match &of_web.unwrap().needs[..] {
        [_, advertisement] => advertisement.key.name.clone(),
        other => panic!("{other:?}"),
    };
    let set = advertisement.rsplit_once('-').unwrap().0.to_owned();
    assert_eq!(cluster.answer(Kind::L2Advertisement, &set, refused), 2);
    assert_eq!(cluster.services(), ["api-0", "api-1"]);
    cluster.now += SignedDuration::from_secs(2);
    assert_eq!(cluster.answer(Kind::L2Advertisement, &set, refused), 2);
    cluster.now += SignedDuration::from_secs(3);
    cluster.settle();
    assert_eq!(cluster.at_home("a").len(), 2);
}

/// An administrator changes the pool, and MetalLB's webhook is gone with a
/// node: the addresses leave that node all the same.
#[test]
fn refused_edits_do_not_hold_back_moves() {
    let mut cluster = Cluster::new();
    cluster.settle();
    cluster.edit(&pool(), |pool| {
        pool["spec"]["addresses"] = json!(["192.0.2.0/27"]);
        pool["spec"]["interfaces"] = json!(["eth1"]);
    });
    assert_eq!(cluster.answer(Kind::IpAddressPool, "", refused), 1);
    assert_eq!(cluster.answer(Kind::L2Advertisement, "", refused), 4);
    ask(&mut cluster);
    cluster.node("a", false);
    let moves = cluster.at_home("a");
    assert_eq!(moves.len(), 2);
    assert_eq!(cluster.services(), moves);
    // Nor does a write whose fate is unknown.
    cluster.now += SignedDuration::from_secs(2);
    assert_eq!(cluster.answer(Kind::IpAddressPool, "", overdue), 1);
    assert_eq!(cluster.answer(Kind::L2Advertisement, "", overdue), 4);
    assert_eq!(cluster.services(), moves);
    // Other ports need nothing either, but a new Service does.
    let web = reference(Kind::LoadBalancer, "shop", "web");
    cluster.edit(&web, |lb| {
        lb["spec"]["service"]["ports"][0]["port"] = json!(81)
    });
    assert_eq!(cluster.services().len(), 3);
    cluster.load_balancer("late", json!({}));
    assert_eq!(cluster.services().len(), 3);
}

/// Where an address would move to nothing, it waits.
#[test]
fn a_move_waits_for_the_advertisement_that_is_missing() {
    let mut cluster = Cluster::new();
    cluster.settle();
    let of_b = format!("{}b", cluster.advertisements_of("web"));
    let advertisement = reference(Kind::L2Advertisement, "metallb-system", &of_b);
    cluster.delete(advertisement);
    cluster.node("a", false);
    assert_eq!(cluster.answer(Kind::L2Advertisement, &of_b, refused), 1);
    let moves = cluster.services();
    assert_eq!(moves.len(), 1);
    assert!(moves[0].starts_with("api-"), "{moves:?}");
    cluster.now += SignedDuration::from_secs(2);
    for change in cluster.plan() {
        if change.object.kind == Kind::L2Advertisement {
            cluster.write(&change);
        }
    }
    assert_eq!(cluster.services().len(), 2);
}

/// A write that hangs again and again gets rarer, and is said.
#[test]
fn what_hangs_is_put_off_and_said() {
    let mut cluster = Cluster::new();
    cluster.settle();
    cluster.edit(&pool(), |pool| {
        pool["spec"]["addresses"] = json!(["192.0.2.0/27"]);
    });
    let mut attempts = 0;
    for _ in 0..120 {
        attempts += cluster.answer(Kind::IpAddressPool, "", overdue);
        ask(&mut cluster);
        cluster.now += SignedDuration::from_secs(1);
    }
    assert!((5..=9).contains(&attempts), "{attempts} attempts in 120 s");
    let condition = |cluster: &Cluster| {
        let pool = &cluster.objects[&pool()];
        let conditions = pool["status"]["conditions"].as_array().unwrap();
        let configured = conditions.iter().find(|c| c["type"] == "Configured");
        configured.unwrap()["message"].as_str().unwrap().to_owned()
    };
    let statuses: Vec<_> = cluster.plan();
    statuses.iter().for_each(|change| cluster.write(change));
    let message = condition(&cluster);
    assert!(message.contains("there was no answer in time"), "{message}");
    cluster.now += LONGEST_BACKOFF;
    cluster.settle();
    let message = condition(&cluster);
    assert!(!message.contains("there was no answer"), "{message}");
}

/// The time of a retirement is another one with each plan, and the write is the
/// same all the same.
#[test]
fn a_refused_retirement_gets_rarer() {
    let mut cluster = Cluster::new();
    cluster.settle();
    cluster.delete(reference(Kind::Node, "", "a"));
    let (mut services, mut statuses) = (0, 0);
    for _ in 0..120 {
        for change in cluster.plan() {
            if change.object.kind == Kind::Service {
                services += 1;
                cluster.view.answered(&change, refused(), cluster.now);
            } else {
                statuses += usize::from(change.stage == Stage::Report);
                cluster.write(&change);
            }
        }
        ask(&mut cluster);
        cluster.now += SignedDuration::from_secs(1);
    }
    // Two load balancers, each with the whole write once and then its labels.
    assert!((10..=20).contains(&services), "{services} writes in 120 s");
    assert!((2..=6).contains(&statuses), "{statuses} statuses in 120 s");
    cluster.now += LONGEST_BACKOFF;
    cluster.settle();
    assert!(cluster.at_home("a").iter().all(|name| {
        let service = &cluster.objects[&reference(Kind::Service, "shop", name)];
        service["metadata"]["annotations"][names::RETIRE_AT].is_string()
    }));
}

/// A condition that has just changed has another time with each plan.
#[test]
fn a_refused_status_gets_rarer() {
    let mut cluster = Cluster::new();
    cluster.settle();
    cluster.edit(&pool(), |pool| {
        pool["spec"]["addresses"] = json!(["192.0.2.0/31"])
    });
    let of_kind = |c: &Change| c.object.kind == Kind::AddressPool;
    let mut attempts = 0;
    for _ in 0..120 {
        for change in cluster.plan() {
            if of_kind(&change) {
                attempts += 1;
                cluster.view.answered(&change, refused(), cluster.now);
            } else {
                cluster.write(&change);
            }
        }
        ask(&mut cluster);
        cluster.now += SignedDuration::from_secs(1);
    }
    assert!((5..=9).contains(&attempts), "{attempts} attempts in 120 s");
}
