use super::*;

fn terms(identity: &str) -> Terms {
    Terms {
        name: "l2lb-controller".to_owned(),
        identity: identity.to_owned(),
        duration: Duration::from_secs(15),
        renew: Duration::from_secs(5),
    }
}

fn lease(version: &str, holder: &str) -> Lease {
    Lease {
        metadata: ObjectMeta {
            name: Some("l2lb-controller".to_owned()),
            resource_version: Some(version.to_owned()),
            ..Default::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: Some(15),
            lease_transitions: Some(4),
            ..Default::default()
        }),
    }
}

fn wall() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

fn replaced(step: Move) -> LeaseSpec {
    match step {
        Move::Replace(lease) => {
            assert!(
                lease.metadata.resource_version.is_some(),
                "an update must not be blind"
            );
            lease.spec.unwrap()
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn creates_what_is_not_there() {
    let mut me = Candidate::new(terms("me"));
    let Move::Create(lease) = me.consider(None, Instant::now(), wall()) else {
        panic!()
    };
    let spec = lease.spec.unwrap();
    assert_eq!(spec.holder_identity.as_deref(), Some("me"));
    assert_eq!(spec.lease_transitions, Some(0));
    // By these `kubectl l2lb check` finds it.
    let labels = lease.metadata.labels.unwrap();
    let mut labels: Vec<String> = labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
    labels.reverse();
    assert_eq!(labels.join(","), crate::check::LEASE_LABELS);
}

#[test]
fn renews_its_own_and_takes_a_released_one() {
    let mut me = Candidate::new(terms("me"));
    let spec = replaced(me.consider(Some(&lease("1", "me")), Instant::now(), wall()));
    assert_eq!(spec.lease_transitions, Some(4));
    let spec = replaced(me.consider(Some(&lease("2", "")), Instant::now(), wall()));
    assert_eq!(
        (spec.lease_transitions, spec.acquire_time),
        (Some(5), Some(MicroTime(wall())))
    );
}

#[test]
fn waits_for_expiry_by_its_own_clock() {
    let mut me = Candidate::new(terms("me"));
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    // Whatever the Lease says of the time, it was seen only now.
    assert_eq!(
        me.consider(Some(&lease("1", "other")), at(0), wall()),
        Move::Wait
    );
    assert_eq!(
        me.consider(Some(&lease("1", "other")), at(14), wall()),
        Move::Wait
    );
    // A renewal begins the wait anew.
    assert_eq!(
        me.consider(Some(&lease("2", "other")), at(16), wall()),
        Move::Wait
    );
    assert_eq!(
        me.consider(Some(&lease("2", "other")), at(30), wall()),
        Move::Wait
    );
    let spec = replaced(me.consider(Some(&lease("2", "other")), at(31), wall()));
    assert_eq!(
        (spec.holder_identity.as_deref(), spec.lease_transitions),
        (Some("me"), Some(5))
    );
}

#[test]
fn a_released_lease_is_free_at_once() {
    let me = Candidate::new(terms("me"));
    let released = me.released(&lease("3", "me"), wall());
    let mut other = Candidate::new(terms("other"));
    assert!(matches!(
        other.consider(Some(&released), Instant::now(), wall()),
        Move::Replace(_)
    ));
}

#[tokio::test]
async fn leadership_is_not_used_to_its_last_second() {
    let until = Some(Instant::now() + Duration::from_secs(4));
    let (_sender, receiver) = watch::channel(Standing::Leader { until });
    let leadership = Leadership(receiver);
    assert!(leadership.holds_for(Duration::from_secs(3)));
    assert!(!leadership.holds_for(Duration::from_secs(5)));
    assert!(Leadership::always().holds_for(Duration::from_secs(1000)));
}

mod campaign {
    use super::*;
    use http::{Request, Response};
    use kube::Client;
    use kube::client::Body;
    use tower_test::mock::{self, Handle};

    type Server = Handle<Request<Body>, Response<Body>>;

    fn start_campaign() -> (Leadership, Server, CancellationToken) {
        let (service, server) = mock::pair::<Request<Body>, Response<Body>>();
        let api = Api::namespaced(Client::new(service, "l2lb"), "l2lb");
        let release = CancellationToken::new();
        let (leadership, _task) = start(api, terms("me"), release.clone());
        (leadership, server, release)
    }

    async fn answer(server: &mut Server, code: u16, body: impl serde::Serialize) -> String {
        let (request, send) = server.next_request().await.unwrap();
        let body = serde_json::to_vec(&body).unwrap();
        send.send_response(
            Response::builder()
                .status(code)
                .body(Body::from(body))
                .unwrap(),
        );
        request.method().to_string()
    }

    fn failure(code: u16, reason: &str) -> kube::core::Status {
        kube::core::Status::failure(reason, reason).with_code(code)
    }

    #[tokio::test(start_paused = true)]
    async fn a_conflict_is_read_again_and_a_taken_lease_is_lost() {
        let (mut leadership, mut server, _release) = start_campaign();
        assert_eq!(answer(&mut server, 200, lease("1", "")).await, "GET");
        assert_eq!(
            answer(&mut server, 409, failure(409, "Conflict")).await,
            "PUT"
        );
        assert_eq!(answer(&mut server, 200, lease("2", "")).await, "GET");
        assert_eq!(answer(&mut server, 200, lease("3", "me")).await, "PUT");
        leadership.changed().await;
        assert!(leadership.holds_for(Duration::from_secs(5)));
        // The renewal needs no read, and finds that another was quicker.
        assert_eq!(
            answer(&mut server, 409, failure(409, "Conflict")).await,
            "PUT"
        );
        assert_eq!(answer(&mut server, 200, lease("5", "other")).await, "GET");
        while !matches!(leadership.standing(), Standing::Lost { .. }) {
            leadership.changed().await;
        }
        assert!(!leadership.holds_for(Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn without_answers_it_is_lost_in_time() {
        let (mut leadership, mut server, _release) = start_campaign();
        answer(&mut server, 404, failure(404, "NotFound")).await;
        assert_eq!(answer(&mut server, 201, lease("1", "me")).await, "POST");
        leadership.changed().await;
        let taken = Instant::now();
        let mut unanswered = Vec::new();
        while !matches!(leadership.standing(), Standing::Lost { .. }) {
            tokio::select! {
                request = server.next_request() => unanswered.push(request),
                () = leadership.changed() => {}
            }
        }
        assert!(taken.elapsed() <= Duration::from_millis(15_100));
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_released_on_request() {
        let (mut leadership, mut server, release) = start_campaign();
        answer(&mut server, 200, lease("1", "")).await;
        answer(&mut server, 200, lease("2", "me")).await;
        leadership.changed().await;
        release.cancel();
        let (request, _send) = server.next_request().await.unwrap();
        assert_eq!(request.method(), "PUT");
        let body = request.into_body().collect_bytes().await.unwrap();
        let released: Lease = serde_json::from_slice(&body).unwrap();
        assert_eq!(holder(&released), "");
        assert_eq!(released.metadata.resource_version.as_deref(), Some("2"));
    }
}
