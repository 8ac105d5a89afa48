//! Against an API server that is made up.

use std::sync::{Arc, Mutex};

use clap::Parser;
use http::{Request, Response};
use kube::Client;
use kube::client::Body;
use tower_test::mock;

use serde_json::{Value, json};

use super::*;
use crate::api::names;
use crate::cli::cluster::ANEW;
use crate::world::{Key, Options};

#[derive(clap::Parser)]
struct Flags {
    #[command(flatten)]
    target: Target,
}

/// A target that leads nowhere.
fn target() -> Target {
    Flags::parse_from(["test", "--kubeconfig=/nowhere"]).target
}

/// What an API server does.
#[derive(Clone, Copy, PartialEq)]
enum Mood {
    Answers,
    /// It does not say where pods are.
    HidesPods,
    Fails,
    Hangs,
}

/// An API server with two nodes, a Service of ours and one of others.
#[derive(Clone)]
struct Server {
    mood: Arc<Mutex<Mood>>,
    /// Where the Service is pinned to.
    pin: Arc<Mutex<&'static str>>,
    /// Paths that were asked for.
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn start() -> (Self, Cluster) {
        let (service, mut handle) = mock::pair::<Request<Body>, Response<Body>>();
        let server = Self {
            mood: Arc::new(Mutex::new(Mood::Answers)),
            pin: Arc::new(Mutex::new("node-1")),
            asked: Arc::default(),
        };
        let cluster = Cluster {
            client: Client::new(service, "default"),
            namespace: "default".to_owned(),
            options: Options::default(),
        };
        let itself = server.clone();
        tokio::spawn(async move {
            let mut unanswered = Vec::new();
            while let Some((request, send)) = handle.next_request().await {
                let path = request.uri().to_string();
                let mood = *itself.mood.lock().unwrap();
                if mood == Mood::Hangs {
                    unanswered.push(send);
                    continue;
                }
                let hidden = mood == Mood::HidesPods && path.contains("endpointslices");
                let (code, body) = if mood == Mood::Fails {
                    (500, failure(500))
                } else if hidden {
                    (403, failure(403))
                } else {
                    itself.answer(&path)
                };
                itself.asked.lock().unwrap().push(path);
                let body = Body::from(serde_json::to_vec(&body).unwrap());
                send.send_response(Response::builder().status(code).body(body).unwrap());
            }
        });
        (server, cluster)
    }

    fn answer(&self, path: &str) -> (u16, Value) {
        let node = |name: &str| {
            json!({"apiVersion": "v1", "kind": "Node",
                "metadata": {"name": name, "labels": {names::HOSTNAME: name}}})
        };
        let ours = json!({
            "metadata": {"name": "web-0", "namespace": "shop", "labels": {
                names::MANAGED_BY: names::MANAGED_BY_VALUE, names::LOAD_BALANCER: "web",
                names::SLOT: "0", names::HOME: "node-1", names::PIN: *self.pin.lock().unwrap()}},
            "spec": {}});
        let foreign = json!({"metadata": {"name": "db", "namespace": "shop"},
            "spec": {"clusterIP": "10.0.0.9"}});
        let list = |items: Value| {
            (
                200,
                json!({"apiVersion": "v1", "kind": "List", "metadata": {}, "items": items}),
            )
        };
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        match path {
            "/api/v1/nodes" => list(json!([node("node-1"), node("node-2")])),
            "/api/v1/nodes/node-1" => (200, node("node-1")),
            "/api/v1/services" if query.contains("labelSelector") => list(json!([ours])),
            "/api/v1/services" => list(json!([ours, foreign])),
            other if other.contains("customresourcedefinitions") => (404, failure(404)),
            _ => list(json!([])),
        }
    }

    fn pin(&self, node: &'static str) {
        *self.pin.lock().unwrap() = node;
    }

    fn is(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

fn failure(code: u16) -> Value {
    let reason = if code == 404 { "NotFound" } else { "" };
    json!({"kind": "Status", "status": "Failure", "code": code, "message": "it is away",
        "reason": reason})
}

fn pin(world: &World) -> &str {
    &world.child(&Key::new("shop", "web-0")).unwrap().pin
}

#[tokio::test(start_paused = true)]
async fn only_what_moves_is_read_again() {
    let (server, cluster) = Server::start();
    let target = target();
    let patience = Duration::from_secs(60);
    let begun = Looks::at(cluster, &target, "node-1", patience).await;
    let (mut looks, world) = begun.unwrap();
    assert_eq!((pin(&world), world.nodes.len()), ("node-1", 2));
    assert!(server.asked().len() > 10);

    server.pin("node-2");
    let world = looks.again().await.unwrap();
    assert_eq!((pin(&world), world.nodes.len()), ("node-2", 2));
    assert_eq!(world.foreign_services.len(), 1);
    let mut asked = server.asked();
    asked.sort();
    assert_eq!(asked.len(), 5, "{asked:?}");
    assert!(asked[0].starts_with("/api/v1/nodes/node-1"), "{asked:?}");
    assert!(asked[1].contains("labelSelector="), "{asked:?}");
    assert!(asked[2].contains("/endpointslices?"), "{asked:?}");

    // Other nodes may have changed after a while.
    tokio::time::sleep(ANEW).await;
    looks.again().await.unwrap();
    assert!(server.asked().len() > 10);
}

#[tokio::test(start_paused = true)]
async fn where_pods_are_need_not_be_known() {
    let (server, cluster) = Server::start();
    server.is(Mood::HidesPods);
    let target = target();
    let patience = Duration::from_secs(60);
    let begun = Looks::at(cluster, &target, "node-1", patience).await;
    let (mut looks, _) = begun.unwrap();
    server.pin("node-2");
    assert_eq!(pin(&looks.again().await.unwrap()), "node-2");
}

#[tokio::test(start_paused = true)]
async fn a_look_that_fails_is_not_the_end() {
    let (server, cluster) = Server::start();
    let target = target();
    let patience = Duration::from_secs(60);
    let begun = Looks::at(cluster, &target, "node-1", patience).await;
    let (mut looks, _) = begun.unwrap();
    server.is(Mood::Fails);
    assert!(looks.again().await.is_none() && looks.again().await.is_none());
    assert!(
        looks.trouble().contains("it is away"),
        "{}",
        looks.trouble()
    );
    server.is(Mood::Hangs);
    let before = Instant::now();
    assert!(looks.again().await.is_none());
    assert!(looks.trouble().contains("no answer within"));
    assert!(before.elapsed() < Duration::from_secs(20));
    server.is(Mood::Answers);
    assert!(looks.again().await.is_some() && looks.trouble().is_empty());

    // Until patience ends.
    server.is(Mood::Fails);
    let mut count = 0;
    while !looks.are_over() {
        assert!(looks.again().await.is_none());
        count += 1;
    }
    assert!((5..40).contains(&count), "{count} looks");
}

#[tokio::test(start_paused = true)]
async fn the_first_failure_is_an_error() {
    let (server, cluster) = Server::start();
    server.is(Mood::Fails);
    let target = target();
    let begun = Looks::at(cluster, &target, "node-1", Duration::from_secs(60)).await;
    assert!(begun.is_err_and(|why| why.contains("it is away")));
}
