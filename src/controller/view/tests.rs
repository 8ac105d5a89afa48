mod holding_back;

use super::patience::{LONGEST_BACKOFF, REPEATS, backoff};
use super::*;
use crate::api::names;
use crate::metallb::Capabilities;
use crate::plan::Cause;
use serde_json::{Value, json};

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

fn view() -> View {
    View::new(now(), Options::default())
}

fn body(address: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "web-0", "namespace": "shop",
            "labels": {names::MANAGED_BY: names::MANAGED_BY_VALUE,
                names::LOAD_BALANCER: "web", names::SLOT: "0"},
            "annotations": {names::METALLB_IPS: address}},
    })
}

fn service(uid: &str, version: u64, address: &str) -> Observed {
    let mut value = body(address);
    value["metadata"]["uid"] = json!(uid);
    value["metadata"]["resourceVersion"] = json!(version.to_string());
    Observed::read(Kind::Service, value).unwrap()
}

fn object() -> ObjectRef {
    ObjectRef {
        kind: Kind::Service,
        key: Key::new("shop", "web-0"),
    }
}

fn change(action: Action) -> Change {
    Change {
        stage: Stage::Serve,
        object: object(),
        action,
        cause: Cause::New,
        needs: Vec::new(),
        content: 7,
    }
}

fn create(address: &str) -> Change {
    change(Action::Create(body(address).into()))
}

fn stored(uid: &str, version: u64, address: &str) -> Answer {
    Answer::Stored(Box::new(service(uid, version, address)))
}

fn applied(uid: &str, version: u64, address: &str) -> News {
    News::Applied(Box::new(service(uid, version, address)))
}

fn deleted(uid: &str, version: u64) -> News {
    News::Deleted {
        object: object(),
        uid: Some(uid.to_owned()),
        version: ResourceVersion(version),
    }
}

fn relist(view: &mut View, listed: Vec<Observed>) {
    view.hear(News::ListStarted(Kind::Service));
    for observed in listed {
        view.hear(News::Listed(Box::new(observed)));
    }
    view.hear(News::ListDone(Kind::Service));
}

fn holds(view: &View, address: &str) -> bool {
    view.world().is_held(address.parse().unwrap())
}

#[test]
fn old_news_of_an_own_write_is_ignored() {
    let mut view = view();
    view.hear(applied("a", 5, "192.0.2.1"));
    view.answered(&create("192.0.2.2"), stored("a", 9, "192.0.2.2"), now());
    view.hear(applied("a", 7, "192.0.2.1"));
    assert!(holds(&view, "192.0.2.2") && !holds(&view, "192.0.2.1"));
    view.hear(applied("a", 10, "192.0.2.3"));
    assert!(holds(&view, "192.0.2.3"));
}

#[test]
fn the_dead_do_not_rise() {
    let mut view = view();
    view.hear(applied("a", 5, "192.0.2.1"));
    let delete = change(Action::Delete {
        uid: Some("a".to_owned()),
        resource_version: Some("5".to_owned()),
    });
    view.answered(&delete, Answer::Gone, now());
    assert!(!holds(&view, "192.0.2.1"));
    view.hear(applied("a", 6, "192.0.2.1"));
    relist(&mut view, vec![service("a", 6, "192.0.2.1")]);
    assert!(!holds(&view, "192.0.2.1"));
    // The late word of its death does not touch its successor.
    view.answered(&create("192.0.2.9"), stored("b", 9, "192.0.2.9"), now());
    view.hear(deleted("a", 8));
    assert!(holds(&view, "192.0.2.9"));
    view.hear(deleted("b", 10));
    assert!(!holds(&view, "192.0.2.9"));
}

#[test]
fn a_list_older_than_a_write_does_not_undo_it() {
    let mut view = view();
    view.hear(News::ListStarted(Kind::Service));
    view.answered(&create("192.0.2.2"), stored("a", 9, "192.0.2.2"), now());
    view.hear(News::ListDone(Kind::Service));
    assert!(
        holds(&view, "192.0.2.2"),
        "it may have been created after the list"
    );
    let questions = view.questions(now());
    assert_eq!(questions.len(), 1);
    view.settled(&questions[0], None);
    assert!(!holds(&view, "192.0.2.2"));
    assert!(view.questions(now()).is_empty());
}

#[test]
fn a_list_without_a_known_object_forgets_it() {
    let mut view = view();
    view.answered(&create("192.0.2.2"), stored("a", 9, "192.0.2.2"), now());
    view.hear(applied("a", 9, "192.0.2.2"));
    relist(&mut view, vec![]);
    assert!(!holds(&view, "192.0.2.2"));
}

#[test]
fn an_unreadable_object_in_a_list_stays_as_it_was() {
    let mut view = view();
    view.hear(applied("a", 9, "192.0.2.2"));
    view.hear(News::ListStarted(Kind::Service));
    view.hear(News::Unreadable(object()));
    view.hear(News::ListDone(Kind::Service));
    assert!(holds(&view, "192.0.2.2"));
}

#[test]
fn a_lost_creation_holds_its_address_until_it_cannot_happen_any_more() {
    let mut view = view();
    view.answered(&create("192.0.2.2"), Answer::Lost("cut".to_owned()), now());
    assert!(holds(&view, "192.0.2.2"));
    assert!(
        view.questions(now()).is_empty(),
        "asking now would tell nothing"
    );
    assert!(view.has_writes_in_flight(now()));
    let later = now() + LANDING;
    assert!(!view.has_writes_in_flight(later));
    let questions = view.questions(later);
    view.settled(&questions[0], None);
    assert!(!holds(&view, "192.0.2.2"));
    // Or the watch shows that it did happen.
    view.answered(&create("192.0.2.2"), Answer::Lost("cut".to_owned()), now());
    view.hear(applied("a", 12, "192.0.2.2"));
    assert!(view.questions(later).is_empty() && holds(&view, "192.0.2.2"));
}

#[test]
fn an_answer_beats_news_of_the_same_version() {
    let mut view = view();
    view.hear(applied("a", 5, "192.0.2.1"));
    let apply = change(Action::Apply(body("192.0.2.2").into()));
    view.answered(&apply, stored("a", 5, "192.0.2.2"), now());
    assert!(holds(&view, "192.0.2.2"));
    view.hear(applied("a", 5, "192.0.2.1"));
    assert!(holds(&view, "192.0.2.2"));
}

#[test]
fn news_beats_the_answer_to_a_question_asked_before() {
    let mut view = view();
    view.hear(applied("a", 5, "192.0.2.1"));
    let apply = change(Action::Apply(body("192.0.2.1").into()));
    view.answered(&apply, Answer::Outdated("conflict".to_owned()), now());
    let questions = view.questions(now());
    view.hear(deleted("a", 6));
    view.hear(applied("b", 7, "192.0.2.4"));
    view.settled(&questions[0], None);
    assert!(holds(&view, "192.0.2.4"));
}

#[test]
fn refusals_back_off_and_end_with_success() {
    let mut view = view();
    let refused = || Answer::Refused("exceeded quota".to_owned());
    view.answered(&create("192.0.2.2"), refused(), now());
    view.answered(&create("192.0.2.2"), refused(), now());
    let refusal = &view.world().refusals[&object()];
    assert_eq!(
        (refusal.attempts, refusal.retry_at),
        (2, now() + SignedDuration::from_secs(2))
    );
    assert_eq!(view.held_back(&create("192.0.2.2")), Some(refusal.retry_at));
    view.answered(&create("192.0.2.2"), stored("a", 3, "192.0.2.2"), now());
    assert!(view.world().refusals.is_empty());
    assert_eq!(backoff(40), LONGEST_BACKOFF);
}

#[test]
fn a_fight_with_another_controller_is_slowed_down_and_said() {
    let mut view = view();
    for version in 1..=u64::from(REPEATS) {
        assert!(view.world().refusals.is_empty());
        let apply = change(Action::Apply(body("192.0.2.2").into()));
        view.answered(&apply, stored("a", version, "192.0.2.2"), now());
    }
    assert!(
        view.world().refusals[&object()]
            .message
            .contains("changes it back")
    );
}

#[test]
fn kinds_of_metallb_come_and_go_and_ours_are_waited_for() {
    let mut view = view();
    assert_eq!(view.missing(), ["CustomResourceDefinition"]);
    let definitions = |names: &[&str]| News::Definitions {
        present: names.iter().map(|n| (*n).to_owned()).collect(),
        capabilities: Capabilities::default(),
    };
    view.hear(definitions(&[
        "l2addresspools.l2lb.io",
        "ipaddresspools.metallb.io",
    ]));
    view.hear(News::NotServed(Kind::LoadBalancer));
    view.hear(News::NotServed(Kind::IpAddressPool));
    view.hear(News::NotServed(Kind::ServiceCidr));
    // May not be read.
    view.hear(News::NotServed(Kind::Pod));
    view.hear(News::NotServed(Kind::Event));
    view.hear(News::NotServed(Kind::EndpointSlice));
    // There is no cluster without it: something else has answered.
    view.hear(News::NotServed(Kind::Service));
    assert!(view.missing().contains(&"Service"));
    for kind in [
        Kind::Node,
        Kind::Namespace,
        Kind::Service,
        Kind::AddressPool,
    ] {
        view.hear(News::ListStarted(kind));
        view.hear(News::ListDone(kind));
    }
    // IPAddressPool is defined and will be served in a moment.
    assert_eq!(view.missing(), ["L2LoadBalancer", "IPAddressPool"]);
    let pool = json!({"metadata": {"name": "p", "namespace": "metallb-system", "uid": "p",
        "resourceVersion": "3"}, "spec": {"addresses": ["192.0.2.0/28"]},
        "apiVersion": "metallb.io/v1beta1", "kind": "IPAddressPool"});
    view.hear(News::Applied(Box::new(
        Observed::read(Kind::IpAddressPool, pool).unwrap(),
    )));
    assert_eq!(view.world().ip_address_pools.len(), 1);
    view.hear(definitions(&["l2addresspools.l2lb.io"]));
    assert!(view.world().ip_address_pools.is_empty());
    assert_eq!(view.missing(), ["L2LoadBalancer"]);
}

#[test]
fn a_write_without_an_answer_is_put_off_and_then_said() {
    let mut view = view();
    view.hear(applied("a", 5, "192.0.2.1"));
    let apply = change(Action::Apply(body("192.0.2.1").into()));
    let mut at = now();
    for attempt in 1..=3 {
        view.answered(&apply, Answer::Overdue("timeout".to_owned()), at);
        let wait = backoff(attempt);
        assert_eq!(view.held_back(&apply), Some(at + wait), "attempt {attempt}");
        // What became of it is asked at once all the same.
        let questions = view.questions(at);
        view.settled(&questions[0], Some(service("a", 5, "192.0.2.1")));
        let refusal = view.world().refusals.get(&object());
        assert_eq!(refusal.is_some(), attempt > 1, "once is chance");
        at += wait;
        view.set_time(at);
        assert_eq!(view.held_back(&apply), None);
    }
    let refusal = &view.world().refusals[&object()];
    assert_eq!(refusal.message, "there was no answer in time (timeout)");
    // Something else is wanted: no patience is needed for that.
    let other = Change {
        content: 8,
        ..apply.clone()
    };
    assert_eq!(view.held_back(&other), None);
    view.answered(&apply, stored("a", 6, "192.0.2.1"), at);
    assert!(view.world().refusals.is_empty());
    view.answered(&apply, Answer::Lost("cut".to_owned()), at);
    assert_eq!(view.held_back(&apply), Some(at + backoff(1)));
}
