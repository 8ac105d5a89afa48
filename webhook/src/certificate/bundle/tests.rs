use super::*;

fn terms() -> Terms {
    Terms {
        leaf: Duration::from_secs(90 * 86_400),
        ca: Duration::from_secs(730 * 86_400),
        settle: Duration::from_secs(60),
        names: vec![
            "l2lb-webhook.l2lb-system.svc".to_owned(),
            "l2lb-webhook".to_owned(),
        ],
    }
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

const DAY: i64 = 86_400;

#[test]
fn what_is_written_is_read() {
    let bundle = Bundle::new(at(0), &terms()).unwrap();
    assert_eq!(Bundle::read(&bundle.data()).unwrap(), bundle);
    assert_eq!(bundle.leaf.names, terms().names);
    let mut broken = bundle.data();
    broken.insert("tls.key".to_owned(), b"junk".to_vec());
    assert!(Bundle::read(&broken).is_err());
    broken.remove("ca.crt");
    assert!(Bundle::read(&broken).is_err());
}

#[test]
fn a_leaf_is_renewed_at_two_thirds_by_the_same_ca() {
    let bundle = Bundle::new(at(0), &terms()).unwrap();
    assert!(matches!(
        bundle.next(at(59 * DAY), true, &terms()).unwrap(),
        Step::Keep(_)
    ));
    let Step::Write(renewed, _) = bundle.next(at(60 * DAY + 1), true, &terms()).unwrap() else {
        panic!("nothing was renewed");
    };
    assert_eq!(renewed.authorities, bundle.authorities);
    assert!(renewed.leaf.until > bundle.leaf.until);
}

/// Through ten years of looking once a day: whatever leaf is in use is
/// signed by a CA that was in the caBundle for at least the settling time.
#[test]
fn every_leaf_is_of_a_ca_that_was_published_before() {
    let terms = terms();
    let mut bundle = Bundle::new(at(0), &terms).unwrap();
    let mut published = bundle.ca_bundle("", at(0));
    let mut known: BTreeMap<String, Timestamp> = BTreeMap::new();
    let (mut leaves, mut authorities) = (0, 0);
    let mut now = at(0);
    while now < at(3650 * DAY) {
        match bundle
            .next(now, bundle.is_published_in(&published), &terms)
            .unwrap()
        {
            Step::Keep(until) => {
                assert!(until > now, "it would be due at once");
                now = until;
                continue;
            }
            Step::Write(next, _) => {
                leaves += usize::from(next.leaf != bundle.leaf);
                authorities += usize::from(next.authorities.first() != bundle.authorities.first());
                bundle = *next;
            }
        }
        let issuer = &bundle.leaf.issuer;
        if let Some(since) = known.get(issuer) {
            assert!(now.duration_since(*since) >= jiff::SignedDuration::from_secs(60));
        } else {
            assert!(known.is_empty() || bundle.authorities[0].subject != *issuer);
        }
        assert!(bundle.leaf.is_good(now));
        published = bundle.ca_bundle(&published, now);
        for authority in all(&published).unwrap() {
            assert!(authority.is_good(now));
            known.entry(authority.subject).or_insert(now);
        }
    }
    assert!(
        leaves > 50 && authorities >= 6,
        "{leaves} leaves, {authorities} CAs"
    );
}

#[test]
fn an_unpublished_ca_signs_nothing() {
    let bundle = Bundle::new(at(0), &terms()).unwrap();
    let late = at(500 * DAY);
    // The leaf expired long ago, but its CA is the known one.
    let Step::Write(bundle, _) = bundle.next(late, true, &terms()).unwrap() else {
        panic!()
    };
    let Step::Write(bundle, _) = bundle.next(late, true, &terms()).unwrap() else {
        panic!()
    };
    assert_eq!(bundle.authorities.len(), 2);
    assert!(!bundle.is_published_in(&bundle.authorities[1].pem));
    assert!(matches!(
        bundle.next(at(500 * DAY + 61), false, &terms()).unwrap(),
        Step::Keep(_)
    ));
    let Step::Write(bundle, _) = bundle.next(at(500 * DAY + 61), true, &terms()).unwrap() else {
        panic!("the leaf stays with the old CA");
    };
    assert_eq!(bundle.leaf.issuer, bundle.authorities[0].subject);
}

#[test]
fn a_ca_bundle_keeps_ours_and_drops_others() {
    let old = Bundle::new(at(0), &terms()).unwrap();
    let new = Bundle::new(at(10), &terms()).unwrap();
    let both = new.ca_bundle(&old.ca_bundle("", at(0)), at(10));
    assert_eq!(all(&both).unwrap().len(), 2);
    assert!(new.is_published_in(&both) && old.is_published_in(&both));
    assert_eq!(new.ca_bundle("junk", at(10)), new.authorities[0].pem);
    assert_eq!(all(&new.ca_bundle(&both, at(731 * DAY))).unwrap().len(), 0);
}

#[test]
fn another_service_name_is_another_leaf() {
    let bundle = Bundle::new(at(0), &terms()).unwrap();
    let other = Terms {
        names: vec!["x.y.svc".to_owned()],
        ..terms()
    };
    assert!(matches!(
        bundle.next(at(1), true, &other).unwrap(),
        Step::Write(..)
    ));
}
