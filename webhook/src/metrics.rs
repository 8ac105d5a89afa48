//! What the webhook counts.

use std::time::Duration;

use l2lb::admission::{Rule, Verdict};
use l2lb::controller::metrics::Metrics;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Unit;

type Labels<const N: usize> = [(&'static str, String); N];

/// The kinds that are reviewed.
const KINDS: [&str; 4] = [
    "L2AddressPool",
    "L2LoadBalancer",
    "IPAddressPool",
    "L2Advertisement",
];
/// The operations that are reviewed.
const OPERATIONS: [&str; 2] = ["CREATE", "UPDATE"];
/// What a finding is to the review.
const DENIAL: &str = "denial";
const WARNING: &str = "warning";

/// Counts reviews. Clones count into the same numbers.
#[derive(Clone)]
pub struct Reviews {
    reviews: Family<Labels<3>, Counter>,
    findings: Family<Labels<2>, Counter>,
    duration: Histogram,
    ready: Gauge,
    expiry: Gauge,
    certificate_errors: Counter,
}

impl Reviews {
    /// All at zero, registered with the others.
    pub fn new(metrics: &Metrics) -> Self {
        let new = Self {
            reviews: Family::default(),
            findings: Family::default(),
            // 0.1 ms to 1.6 s
            duration: Histogram::new(exponential_buckets(0.0001, 2.0, 15)),
            ready: Gauge::default(),
            expiry: Gauge::default(),
            certificate_errors: Counter::default(),
        };
        // The first of anything is told from none only where a zero was before.
        for kind in KINDS {
            for operation in OPERATIONS {
                for outcome in ["allowed", "denied", "failed"] {
                    drop(new.reviews.get_or_create(&labels(kind, operation, outcome)));
                }
            }
        }
        for rule in Rule::ALL {
            for verdict in [DENIAL, WARNING] {
                drop(
                    new.findings
                        .get_or_create(&finding_labels(rule.as_str(), verdict)),
                );
            }
        }
        metrics.register(|registry| {
            registry.register(
                "webhook_reviews",
                "Reviews by kind, operation and outcome: allowed, denied, malformed or failed",
                new.reviews.clone(),
            );
            registry.register(
                "webhook_findings",
                "What reviews found, by rule and verdict: denial or warning",
                new.findings.clone(),
            );
            registry.register_with_unit(
                "webhook_review_duration",
                "Time to answer a review",
                Unit::Seconds,
                new.duration.clone(),
            );
            registry.register(
                "webhook_ready",
                "1 while reviews are answered",
                new.ready.clone(),
            );
            registry.register_with_unit(
                "webhook_certificate_expiry_timestamp",
                "When the certificate in use expires, in seconds since 1970",
                Unit::Seconds,
                new.expiry.clone(),
            );
            registry.register(
                "webhook_certificate_errors",
                "Attempts to renew or to publish the certificate that failed",
                new.certificate_errors.clone(),
            );
        });
        new
    }

    /// A review was answered. `kind` and `operation` are as they came and
    /// counted only where they are known, so that nobody can make up series.
    pub fn answered(&self, kind: &str, operation: &str, outcome: &'static str, took: Duration) {
        let known = |text: &str, all: &[&'static str]| all.iter().find(|k| **k == text).copied();
        let kind = known(kind, &KINDS).unwrap_or("other");
        let operation = known(operation, &OPERATIONS).unwrap_or("other");
        self.reviews
            .get_or_create(&labels(kind, operation, outcome))
            .inc();
        self.duration.observe(took.as_secs_f64());
    }

    /// Whether reviews are answered.
    pub fn ready(&self, ready: bool) {
        self.ready.set(i64::from(ready));
    }

    /// When the certificate in use expires.
    pub fn expires(&self, at: jiff::Timestamp) {
        self.expiry.set(at.as_second());
    }

    /// Where failed attempts to keep the certificate are counted.
    pub fn certificate_errors(&self) -> Counter {
        self.certificate_errors.clone()
    }

    /// What a review found.
    pub fn found(&self, verdict: &Verdict) {
        for (word, findings) in [(DENIAL, &verdict.denials), (WARNING, &verdict.warnings)] {
            for finding in findings {
                self.findings
                    .get_or_create(&finding_labels(finding.rule.as_str(), word))
                    .inc();
            }
        }
    }
}

fn labels(kind: &str, operation: &str, outcome: &str) -> Labels<3> {
    [
        ("kind", kind.to_owned()),
        ("operation", operation.to_owned()),
        ("outcome", outcome.to_owned()),
    ]
}

fn finding_labels(rule: &str, verdict: &str) -> Labels<2> {
    [("rule", rule.to_owned()), ("verdict", verdict.to_owned())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_makes_no_series_of_its_own() {
        let metrics = Metrics::watching("webhook");
        let reviews = Reviews::new(&metrics);
        for number in 0..100 {
            let made_up = format!("kind-{number}");
            reviews.answered(&made_up, &made_up, "denied", Duration::ZERO);
        }
        let text = metrics.text().unwrap();
        let series = text
            .lines()
            .filter(|l| l.contains("outcome=\"denied\"") && !l.ends_with(" 0"));
        assert_eq!(
            series.collect::<Vec<_>>(),
            [
                "l2lb_webhook_reviews_total{kind=\"other\",operation=\"other\",outcome=\"denied\"} 100"
            ]
        );
    }
}
