use super::*;

fn deckhouse(service: Value) -> Value {
    json!({"apiVersion": "network.deckhouse.io/v1alpha1", "kind": "L2LoadBalancer",
        "metadata": {"name": "web", "namespace": "shop", "uid": "1"},
        "spec": {"addressPool": "edge", "nodeSelector": {"matchLabels": {"role": "edge"}},
            "service": service},
        "status": {"publicAddresses": ["203.0.113.10"]}})
}

#[test]
fn every_field_of_the_table_is_translated() {
    let old = deckhouse(json!({
        "labelSelector": {"app": "web", "canary": ""}, "externalTrafficPolicy": "Cluster",
        "sourceRanges": ["198.51.100.0/24"],
        "ports": [{"name": "https", "port": 443, "targetPort": 8443, "protocol": "TCP"}]}));
    let (new, notes) = convert(&old).unwrap().unwrap();
    assert!(notes.is_empty(), "{notes:?}");
    assert!(new.get("status").is_none() && new["metadata"].get("uid").is_none());
    let read: L2LoadBalancer = serde_json::from_value(new.clone()).unwrap();
    assert_eq!(read.spec.address_pool, "edge");
    assert_eq!(read.spec.service.selector["app"], "web");
    assert_eq!(
        read.spec.service.load_balancer_source_ranges,
        ["198.51.100.0/24"]
    );
    assert_eq!(read.spec.service.selector["canary"], "");
    assert_eq!(
        read.spec.service.external_traffic_policy.unwrap(),
        "Cluster"
    );
    assert_eq!(
        new["spec"]["nodeSelector"],
        json!({"matchLabels": {"role": "edge"}})
    );
}

/// Converts a load balancer whose service is otherwise as it should be.
fn with(path: &str, value: Value) -> Result<(Value, Vec<String>), String> {
    let mut old = deckhouse(json!({"selector": {"app": "web"}, "ports": [{"port": 80}],
        "externalTrafficPolicy": "Cluster"}));
    let (parent, field) = path.rsplit_once('/').unwrap();
    old.pointer_mut(parent).unwrap()[field] = value;
    convert(&old).unwrap()
}

#[test]
fn what_has_no_counterpart_is_said() {
    let notes = |path: &str, value: Value| with(path, value).unwrap().1;
    assert_eq!(
        notes("/spec/service/color", json!("red")),
        ["spec.service.color has no counterpart"]
    );
    assert_eq!(
        notes("/spec/color", json!("red")),
        ["web: spec.color has no counterpart"]
    );
    let annotations = json!({"team": "net", LAST_APPLIED: "{}"});
    let said = notes("/metadata/annotations", annotations);
    assert!(said.len() == 1 && said[0].contains("(team)"), "{said:?}");
    assert!(notes("/metadata/annotations", json!({LAST_APPLIED: "{}"})).is_empty());
    assert_eq!(
        notes("/metadata/finalizers", json!(["x"])),
        ["metadata.finalizers is left out"]
    );
    let ports = json!([{"port": 80, "nodePort": 30080, "name": null}]);
    let (new, notes) = with("/spec/service/ports", ports).unwrap();
    assert_eq!(notes, ["spec.service.ports[0].nodePort has no counterpart"]);
    assert_eq!(new["spec"]["service"]["ports"], json!([{"port": 80}]));
    assert!(
        convert(&json!({"apiVersion": "l2lb.io/v1alpha1", "kind": "L2LoadBalancer"})).is_none()
    );
}

/// Deckhouse's default is not ours.
#[test]
fn a_traffic_policy_that_is_not_said_is_written() {
    for unsaid in [Value::Null, json!("Local")] {
        let (new, notes) = with("/spec/service/externalTrafficPolicy", unsaid.clone()).unwrap();
        assert_eq!(new["spec"]["service"]["externalTrafficPolicy"], "Local");
        assert_eq!(notes.len(), usize::from(unsaid.is_null()), "{notes:?}");
    }
}

#[test]
fn what_would_be_refused_is_an_error() {
    let expressions = json!({"matchExpressions": [{"key": "a", "operator": "Exists"}]});
    for (path, value, said) in [
        ("/spec/service/selector", expressions, "by labels alone"),
        (
            "/spec/service/selector",
            json!({"matchLabels": {"a": "b"}, "c": "d"}),
            "selector.c",
        ),
        (
            "/spec/service/labelSelector",
            json!({"app": "web"}),
            "keep the one",
        ),
        ("/spec/service/selector", Value::Null, "no labels"),
        ("/spec/service/ports", Value::Null, "ports"),
        ("/spec/service/ports", json!([]), "at least one port"),
        (
            "/spec/service/ports",
            json!([{"port": "https"}]),
            "expected i32",
        ),
        (
            "/spec/service/sourceRanges",
            json!(["everybody"]),
            "everybody",
        ),
        (
            "/spec/service/externalTrafficPolicy",
            json!("Nearby"),
            "Nearby",
        ),
        (
            "/spec/addressPool",
            json!(["192.168.2.100-192.168.2.150"]),
            "192.168.2.100",
        ),
        ("/spec/addressPool", Value::Null, "no spec.addressPool"),
        (
            "/spec/nodeSelector",
            json!({"matchLabels": {}, "matchLabel": {}}),
            "no such field",
        ),
        ("/metadata/name", json!("2nd"), "2nd"),
    ] {
        let error = with(path, value.clone()).unwrap_err();
        assert!(error.contains(said), "{path} {value}: {error}");
    }
}
