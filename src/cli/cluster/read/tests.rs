//! Against an API server that is made up.

use http::{Request, Response};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;
use kube::client::Body;
use tower_test::mock;

use super::*;
use crate::world::Options;

/// A cluster of which the answers to paths with their queries are made up.
pub(in crate::cli::cluster) fn cluster(
    answer: impl Fn(&str) -> (u16, Value) + Send + 'static,
) -> Cluster {
    let (service, mut handle) = mock::pair::<Request<Body>, Response<Body>>();
    tokio::spawn(async move {
        while let Some((request, send)) = handle.next_request().await {
            let (code, body) = answer(&request.uri().to_string());
            let body = Body::from(serde_json::to_vec(&body).unwrap());
            send.send_response(Response::builder().status(code).body(body).unwrap());
        }
    });
    Cluster {
        client: Client::new(service, "default"),
        namespace: "default".to_owned(),
        options: Options::default(),
    }
}

pub(in crate::cli::cluster) fn failure(code: u16, message: &str) -> (u16, Value) {
    let reason = if code == 404 { "NotFound" } else { "" };
    let status = json!({"kind": "Status", "status": "Failure", "code": code, "message": message,
        "reason": reason});
    (code, status)
}

/// A list of objects with these names; an empty token ends it.
pub(in crate::cli::cluster) fn list(names: &[&str], token: &str) -> (u16, Value) {
    let items: Vec<Value> = names
        .iter()
        .map(|name| json!({"metadata": {"name": name, "namespace": "shop"}, "spec": {}}))
        .collect();
    let list = json!({"apiVersion": "v1", "kind": "List", "metadata": {"continue": token},
        "items": items});
    (200, list)
}

async fn names(cluster: &Cluster) -> Vec<String> {
    let maps: Api<ConfigMap> = Api::all(cluster.client.clone());
    let all = list_all(&maps, ListParams::default()).await.unwrap();
    all.into_iter().filter_map(|m| m.metadata.name).collect()
}

#[tokio::test]
async fn lists_are_read_page_by_page() {
    let pages = cluster(|path| {
        assert!(path.contains("limit=500"), "{path}");
        if path.contains("continue=more") {
            list(&["b"], "")
        } else {
            list(&["a"], "more")
        }
    });
    assert_eq!(names(&pages).await, ["a", "b"]);
    let forgetful = cluster(|path| {
        if path.contains("continue=more") {
            failure(410, "too old")
        } else if path.contains("limit=") {
            list(&["a"], "more")
        } else {
            list(&["a", "b"], "")
        }
    });
    assert_eq!(names(&forgetful).await, ["a", "b"]);
}

#[tokio::test]
async fn all_that_is_forbidden_is_named() {
    let cluster = cluster(|path| {
        if path.contains("/nodes") || path.contains("/customresourcedefinitions/") {
            failure(403, "you may not")
        } else if path.contains("/pods") {
            failure(403, "nor this, which matters less")
        } else {
            list(&[], "")
        }
    });
    let why = cluster.world().await.unwrap_err();
    let Unreadable::Forbidden(unread) = &why else {
        panic!("{why}");
    };
    assert_eq!(kinds(unread), "CustomResourceDefinition, Node");
    let sentence = why.to_string();
    assert!(sentence.contains("(you may not)"), "{sentence}");
}

#[tokio::test]
async fn what_went_wrong_comes_before_what_is_forbidden() {
    let cluster = cluster(|path| {
        if path.contains("/nodes") {
            failure(403, "you may not")
        } else if path.contains("/namespaces") {
            failure(500, "it is broken")
        } else if path.contains("/customresourcedefinitions/") {
            failure(404, "there is none")
        } else {
            list(&[], "")
        }
    });
    let why = cluster.world().await.unwrap_err();
    assert!(matches!(&why, Unreadable::Failed(_)), "{why}");
    let sentence = why.to_string();
    assert!(sentence.contains("Namespace") && sentence.contains("it is broken"));
}

#[tokio::test]
async fn reports_need_load_balancers_alone() {
    let cluster = cluster(|path| {
        if path.contains("/namespaces/shop/l2loadbalancers") {
            list(&["web"], "")
        } else {
            failure(403, "you may not")
        }
    });
    let world = cluster.reports(Some("shop")).await.unwrap();
    assert_eq!(world.load_balancers.len(), 1);
    assert!(matches!(
        cluster.reports(None).await,
        Err(Unreadable::Forbidden(_))
    ));
}
