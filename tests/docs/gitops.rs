//! What Flux and Argo CD make of our statuses: each state is made by the
//! planner, kept in testdata/gitops, and judged by the parts of both that do so
//! (hack/tools/readiness). docs/gitops.md says what must come of it, and holds
//! the expressions and health checks that they are given.
//! `UPDATE_GOLDEN=1 cargo test --test docs` writes the states anew.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};

use jiff::SignedDuration;
use l2lb::manifest;
use l2lb::plan::Planner;
use l2lb::simulate::Cluster;
use l2lb::world::{HANDOVER, Key, Kind, ObjectRef};
use serde_json::{Value, json};

use crate::pages;

/// A made-up cluster with a load balancer, and its planner.
struct Scene {
    cluster: Cluster,
    planner: Planner,
}

impl Scene {
    /// Three nodes; a pool with `addresses` unless there are none; the load
    /// balancer shop/web from pool edge. Nothing is planned yet.
    fn new(addresses: &[&str]) -> Self {
        let mut cluster = Cluster::new("2026-01-01T00:00:00Z".parse().unwrap());
        for node in ["node-1", "node-2", "node-3"] {
            cluster.add_node(node, &[]);
        }
        if !addresses.is_empty() {
            cluster.add_pool("edge", addresses);
        }
        cluster.add_load_balancer(&Key::new("shop", "web"), "edge", &json!({}));
        Self {
            cluster,
            planner: Planner::default(),
        }
    }

    fn settled(addresses: &[&str]) -> Self {
        let mut scene = Self::new(addresses);
        scene.settle();
        scene
    }

    fn settle(&mut self) {
        self.cluster.settle(&mut self.planner).unwrap();
    }

    /// Plans and writes to the end, while MetalLB does nothing.
    fn write(&mut self) {
        for _ in 0..10 {
            let plan = self.planner.plan(&self.cluster.world);
            for change in &plan.changes {
                self.cluster.apply(change);
            }
        }
    }

    fn load_balancer(&self) -> Value {
        let key = Key::new("shop", "web");
        json!(self.cluster.world.load_balancers[&key].valid().unwrap())
    }

    fn pool(&self, name: &str) -> Value {
        json!(self.cluster.world.pools[name].valid().unwrap())
    }
}

const ENOUGH: &[&str] = &["203.0.113.10-203.0.113.20"];

/// An object as the API server shows it before anybody wrote its status.
fn just_created(mut object: Value) -> Value {
    let definition = l2lb::api::crds()
        .into_iter()
        .find(|d| object["kind"] == d.spec.names.kind)
        .unwrap();
    let schema = definition.spec.versions[0].schema.clone().unwrap();
    let properties = schema.open_api_v3_schema.unwrap().properties.unwrap();
    object["status"] = json!(properties["status"].default);
    object
}

/// Every state, by its name in docs/gitops.md.
fn states() -> BTreeMap<&'static str, Value> {
    let new = Scene::new(ENOUGH);
    let mut states = BTreeMap::from([
        ("created", just_created(new.load_balancer())),
        ("pool-created", just_created(new.pool("edge"))),
    ]);

    let mut allocating = Scene::new(ENOUGH);
    allocating.write();
    states.insert("allocating", allocating.load_balancer());

    let mut scene = Scene::settled(ENOUGH);
    states.insert("ready", scene.load_balancer());
    states.insert("pool-ready", scene.pool("edge"));

    let mut changed = scene.load_balancer();
    changed["metadata"]["generation"] = json!(2);
    states.insert("spec-changed", changed);

    scene.cluster.set_node("node-2", false, false);
    scene.settle();
    states.insert("failed-over", scene.load_balancer());

    let mut scene = Scene::settled(ENOUGH);
    scene.cluster.set_node("node-2", true, true);
    scene.settle();
    states.insert("draining", scene.load_balancer());

    let mut scene = Scene::settled(ENOUGH);
    for slot in 0..3 {
        scene.cluster.world.forget(&ObjectRef {
            kind: Kind::ServiceL2Status,
            key: Key::new("metallb-system", format!("l2-shop-web-{slot}")),
        });
    }
    // It is not a handover.
    scene.cluster.advance(HANDOVER);
    scene.write();
    states.insert("no-ready-pod", scene.load_balancer());

    let exhausted = Scene::settled(&["203.0.113.10-203.0.113.11"]);
    states.insert("exhausted", exhausted.load_balancer());

    let refused = Scene::settled(&[]);
    states.insert("refused", refused.load_balancer());

    let mut scene = Scene::settled(ENOUGH);
    scene.cluster.advance(SignedDuration::from_secs(60));
    scene
        .cluster
        .add_pool("younger", &["203.0.113.20-203.0.113.30"]);
    scene.settle();
    states.insert("pool-refused", scene.pool("younger"));
    states
}

/// The table of docs/gitops.md: by state, what Flux says by kstatus, what it
/// says by expressions, and what Argo CD says.
fn documented() -> BTreeMap<String, [String; 3]> {
    let page = pages::read("docs/gitops.md".into());
    let rows = page.text.lines().filter_map(|line| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let state = cells.first()?.strip_prefix('`')?.strip_suffix('`')?;
        let [_, _, verdicts @ ..] = &cells[..] else {
            return None;
        };
        let verdicts = verdicts.iter().map(ToString::to_string);
        let verdicts = <[String; 3]>::try_from(verdicts.collect::<Vec<_>>()).ok()?;
        Some((state.to_owned(), verdicts))
    });
    rows.collect()
}

/// What hack/tools/readiness is to judge: the objects, by the expressions and
/// the health checks in docs/gitops.md.
fn request(objects: &[&Value]) -> Value {
    let page = pages::read("docs/gitops.md".into());
    let (mut expressions, mut health) = (Vec::new(), BTreeMap::new());
    for block in page.blocks.iter().filter(|b| b.what.language == "yaml") {
        for manifest in manifest::parse("docs/gitops.md", &block.what.text).unwrap() {
            let object = manifest.value;
            let checks = object["spec"]["healthCheckExprs"].as_array();
            expressions.extend(checks.into_iter().flatten().cloned());
            for (key, script) in object["data"].as_object().into_iter().flatten() {
                if let Some(kind) = key.strip_prefix("resource.customizations.health.") {
                    health.insert(kind.replacen('_', "/", 1), script.clone());
                }
            }
        }
    }
    assert_eq!(expressions.len(), 2, "expressions for each kind");
    assert_eq!(health.len(), 2, "a health check for each kind");
    json!({"objects": objects, "healthCheckExprs": expressions, "health": health})
}

/// What Flux and Argo CD say of each object.
fn judge(objects: &[&Value]) -> Vec<Value> {
    let tools = l2lb_lab::build_tools(&["readiness"]).unwrap();
    let mut judge = Command::new(tools["readiness"].join("bin/readiness"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = judge.stdin.take().unwrap();
    let request = request(objects).to_string();
    input.write_all(request.as_bytes()).unwrap();
    drop(input);
    let output = judge.wait_with_output().unwrap();
    assert!(output.status.success(), "readiness failed");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn states_are_as_they_were() {
    for (name, object) in states() {
        let path = pages::root().join(format!("testdata/gitops/{name}.yaml"));
        let text = manifest::to_yaml([&object]).unwrap();
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, &text).unwrap();
        }
        let kept = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            text == kept,
            "{} is not what the planner says now:\n{text}\nIf that is right: UPDATE_GOLDEN=1 \
             cargo test --test docs",
            path.display()
        );
    }
}

#[test]
fn flux_and_argo_cd_judge_as_documented() {
    let (states, documented) = (states(), documented());
    assert_eq!(
        states.keys().copied().collect::<Vec<_>>(),
        documented.keys().map(String::as_str).collect::<Vec<_>>(),
        "states that are made, and states that docs/gitops.md names"
    );
    let objects: Vec<&Value> = states.values().collect();
    for (state, verdict) in states.keys().zip(judge(&objects)) {
        let judges = ["kstatus", "expressions", "argo"];
        for (judge, wanted) in judges.iter().zip(&documented[*state]) {
            assert_eq!(
                &verdict[judge]["status"], wanted,
                "{state}, {judge}: {verdict}"
            );
        }
        assert_ne!(
            verdict["argo"]["message"], "",
            "{state}: Argo CD says nothing"
        );
    }
}
