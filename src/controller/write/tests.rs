use super::*;
use crate::plan::{Cause, Stage};
use crate::world::{Key, Kind};
use http::Response;
use tower_test::mock::{self, Handle};

type Server = Handle<Request<Body>, Response<Body>>;

fn writer() -> (Writer, Server) {
    let (service, server) = mock::pair::<Request<Body>, Response<Body>>();
    let client = Client::new(service, "l2lb");
    (
        Writer::new(client, Leadership::always(), Metrics::new()),
        server,
    )
}

fn body() -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web-0", "namespace": "shop"}})
}

fn change(action: Action) -> Change {
    Change {
        stage: Stage::Serve,
        object: ObjectRef {
            kind: Kind::Service,
            key: Key::new("shop", "web-0"),
        },
        action,
        cause: Cause::New,
        needs: Vec::new(),
        content: 1,
    }
}

fn failure(code: u16, message: &str) -> Value {
    json!({"kind": "Status", "status": "Failure", "code": code, "message": message, "reason": ""})
}

/// Answers the next request; returns its method, path with query, and body.
async fn answer(server: &mut Server, code: u16, body: Value) -> (String, String, Value) {
    let (request, send) = server.next_request().await.unwrap();
    let bytes = serde_json::to_vec(&body).unwrap();
    send.send_response(
        Response::builder()
            .status(code)
            .body(Body::from(bytes))
            .unwrap(),
    );
    let (parts, body) = request.into_parts();
    let bytes = body.collect_bytes().await.unwrap();
    let value = if bytes.is_empty() {
        Value::Null
    } else {
        serde_json::from_slice(&bytes).unwrap()
    };
    (parts.method.to_string(), parts.uri.to_string(), value)
}

/// Writes a change that is answered once.
async fn once(action: Action, code: u16, body: Value) -> (Answer, (String, String, Value)) {
    let (writer, mut server) = writer();
    let change = change(action);
    tokio::join!(writer.write(&change), answer(&mut server, code, body))
}

fn managed(manager: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web-0", "namespace": "shop",
        "uid": "u", "resourceVersion": "5", "managedFields": [
            {"manager": "l2lb", "operation": "Apply", "fieldsV1": {"f:spec": {}}},
            {"manager": manager, "operation": "Update", "fieldsV1": {"f:spec": {}}},
            {"manager": "controller", "operation": "Update", "subresource": "status",
                "fieldsV1": {"f:spec": {}}}]}})
}

#[tokio::test]
async fn a_creation_applies_without_force() {
    let (answer, (method, path, _)) = once(Action::Create(body().into()), 201, body()).await;
    assert!(matches!(answer, Answer::Stored(_)));
    assert_eq!(method, "PATCH");
    assert_eq!(
        path,
        "/api/v1/namespaces/shop/services/web-0?fieldManager=l2lb&force=false&timeout=4s"
    );
}

#[tokio::test]
async fn a_creation_that_meets_a_foreign_object_is_undone() {
    let (writer, mut server) = writer();
    let change = change(Action::Create(body().into()));
    let (result, undo) = tokio::join!(writer.write(&change), async {
        answer(&mut server, 200, managed("kubectl-create")).await;
        answer(&mut server, 200, managed("kubectl-create")).await.2
    });
    let Answer::Taken(why) = result else {
        panic!("{result:?}")
    };
    assert!(
        why.starts_with("Service shop/web-0 exists and is not ours"),
        "{why}"
    );
    assert_eq!(
        undo,
        json!({"apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "web-0", "namespace": "shop", "uid": "u"}})
    );
}

#[tokio::test]
async fn a_creation_that_meets_its_own_earlier_one_is_fine() {
    let mut own = managed("x");
    own["metadata"]["managedFields"]
        .as_array_mut()
        .unwrap()
        .remove(1);
    let (answer, _) = once(Action::Create(body().into()), 200, own).await;
    assert!(matches!(answer, Answer::Stored(_)));
}

#[tokio::test]
async fn a_conflict_is_foreign_for_a_creation_and_outdated_otherwise() {
    let conflict = || failure(409, "conflict with \"kubectl\"");
    let (answer, _) = once(Action::Create(body().into()), 409, conflict()).await;
    assert!(matches!(answer, Answer::Taken(_)));
    let (answer, (_, path, _)) = once(Action::Apply(body().into()), 409, conflict()).await;
    assert!(matches!(answer, Answer::Outdated(_)));
    assert!(path.contains("force=true"), "{path}");
}

#[tokio::test]
async fn a_deletion_names_what_it_is_for() {
    let delete = || Action::Delete {
        uid: Some("u".into()),
        resource_version: Some("5".into()),
    };
    let (answer, (method, _, options)) = once(
        delete(),
        200,
        json!({"kind": "Status", "metadata": {}, "status": "Success"}),
    )
    .await;
    assert!(matches!(answer, Answer::Gone));
    assert_eq!(method, "DELETE");
    assert_eq!(
        options["preconditions"],
        json!({"uid": "u", "resourceVersion": "5"})
    );
    let mut held = body();
    held["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    assert!(matches!(
        once(delete(), 200, held).await.0,
        Answer::Stored(_)
    ));
    assert!(matches!(
        once(delete(), 404, failure(404, "gone")).await.0,
        Answer::Gone
    ));
    assert!(matches!(
        once(delete(), 409, failure(409, "changed")).await.0,
        Answer::Outdated(_)
    ));
}

#[tokio::test]
async fn taking_the_last_finalizer_of_a_deleted_object_ends_it() {
    let mut deleted = body();
    deleted["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    let (answer, _) = once(Action::Apply(body().into()), 200, deleted.clone()).await;
    assert!(matches!(answer, Answer::Gone));
    deleted["metadata"]["finalizers"] = json!(["example.org/another"]);
    let (answer, _) = once(Action::Apply(body().into()), 200, deleted).await;
    assert!(matches!(answer, Answer::Stored(_)));
}

#[tokio::test]
async fn refusals_carry_the_servers_sentence() {
    for (code, message) in [
        (403, "exceeded quota: services.loadbalancers"),
        (422, "spec.ports: Required value"),
        (404, "namespaces \"shop\" not found"),
        (500, "failed calling webhook \"x\": connection refused"),
        // A webhook and a policy choose the code themselves.
        (429, "admission webhook \"x\" denied the request: slowly"),
        (503, "admission webhook \"x\" denied the request: closed"),
        (409, "admission webhook \"x\" denied the request: twice"),
        (404, "admission webhook \"x\" denied the request: nowhere"),
        (
            401,
            "ValidatingAdmissionPolicy 'x' with binding 'y' denied request: who",
        ),
    ] {
        let (answer, _) = once(Action::Create(body().into()), code, failure(code, message)).await;
        assert!(matches!(answer, Answer::Refused(_)), "{code}: {answer:?}");
        assert_eq!(answer.message(), Some(message));
    }
}

#[tokio::test]
async fn what_is_unclear_is_not_taken_for_a_refusal() {
    let (answer, _) = once(Action::Create(body().into()), 504, failure(504, "timeout")).await;
    assert!(matches!(answer, Answer::Overdue(_)));
    let (answer, _) = once(
        Action::Create(body().into()),
        500,
        failure(500, "etcdserver: timed out"),
    )
    .await;
    assert!(matches!(answer, Answer::Overdue(_)));
    let (answer, _) = once(Action::Create(body().into()), 502, json!("bad gateway")).await;
    assert!(matches!(answer, Answer::Lost(_)));
    // It would come again, whatever the server calls it.
    let message = "failed to create typed live object (shop/web-0): .spec.ports: expected list";
    let (answer, _) = once(Action::Apply(body().into()), 500, failure(500, message)).await;
    assert!(matches!(answer, Answer::Refused(_)), "{answer:?}");
    // Of a Service with that name.
    let message = "Operation cannot be fulfilled on services \"webhook-0\": the object has been \
                   modified";
    let (answer, _) = once(Action::Apply(body().into()), 409, failure(409, message)).await;
    assert!(matches!(answer, Answer::Outdated(_)), "{answer:?}");
    let (answer, _) = once(Action::Create(body().into()), 429, failure(429, "too many")).await;
    assert!(matches!(answer, Answer::Unavailable(_)));
}

#[tokio::test(start_paused = true)]
async fn no_answer_is_lost() {
    let (writer, mut server) = writer();
    let change = change(Action::ApplyStatus(body().into()));
    let (result, path) = tokio::join!(writer.write(&change), async {
        let (request, held) = server.next_request().await.unwrap();
        tokio::time::sleep(TIMEOUT * 2).await;
        drop(held);
        request.uri().path().to_owned()
    });
    assert!(matches!(result, Answer::Lost(_)));
    assert_eq!(path, "/api/v1/namespaces/shop/services/web-0/status");
}
