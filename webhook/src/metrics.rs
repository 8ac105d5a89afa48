//! What the webhook counts.

use std::time::Duration;

use l2lb::admission::Verdict;
use l2lb::controller::metrics::Metrics;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Unit;

type Labels<const N: usize> = [(&'static str, String); N];

/// Counts reviews. Clones count into the same numbers.
#[derive(Clone)]
pub struct Reviews {
    reviews: Family<Labels<3>, Counter>,
    findings: Family<Labels<2>, Counter>,
    duration: Histogram,
    expiry: Gauge,
}

impl Reviews {
    /// All at zero, registered with the others.
    pub fn new(metrics: &Metrics) -> Self {
        let new = Self {
            reviews: Family::default(),
            findings: Family::default(),
            // 0.1 ms to 1.6 s
            duration: Histogram::new(exponential_buckets(0.0001, 2.0, 15)),
            expiry: Gauge::default(),
        };
        metrics.register(|registry| {
            registry.register(
                "reviews",
                "Reviews by kind, operation and outcome",
                new.reviews.clone(),
            );
            registry.register(
                "review_findings",
                "What was found, by rule and outcome",
                new.findings.clone(),
            );
            registry.register_with_unit(
                "review_duration",
                "Time to answer a review",
                Unit::Seconds,
                new.duration.clone(),
            );
            registry.register(
                "webhook_certificate_expiry_timestamp_seconds",
                "When the certificate in use expires, in seconds since 1970",
                new.expiry.clone(),
            );
        });
        new
    }

    /// A review was answered. `kind` and `operation` are as they came and
    /// counted only where they are known, so that nobody can make up series.
    pub fn answered(&self, kind: &str, operation: &str, outcome: &'static str, took: Duration) {
        const KINDS: [&str; 4] = [
            "L2AddressPool",
            "L2LoadBalancer",
            "IPAddressPool",
            "L2Advertisement",
        ];
        let known = |text: &str, all: &[&str]| {
            all.iter()
                .find(|k| **k == text)
                .map_or("other", |k| k)
                .to_owned()
        };
        let labels = [
            ("kind", known(kind, &KINDS)),
            ("operation", known(operation, &["CREATE", "UPDATE"])),
            ("outcome", outcome.to_owned()),
        ];
        self.reviews.get_or_create(&labels).inc();
        self.duration.observe(took.as_secs_f64());
    }

    /// When the certificate in use expires.
    pub fn expires(&self, at: jiff::Timestamp) {
        self.expiry.set(at.as_second());
    }

    /// What a review found.
    pub fn found(&self, verdict: &Verdict) {
        for (outcome, findings) in [("denial", &verdict.denials), ("warning", &verdict.warnings)] {
            for finding in findings {
                let labels = [
                    ("rule", finding.rule.as_str().to_owned()),
                    ("outcome", outcome.to_owned()),
                ];
                self.findings.get_or_create(&labels).inc();
            }
        }
    }
}
