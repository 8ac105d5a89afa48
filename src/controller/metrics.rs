//! What the controller counts.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

type Labels<const N: usize> = [(&'static str, String); N];

/// The controller's metrics. Clones count into the same numbers.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    plans: Counter,
    plan_duration: Histogram,
    writes: Family<Labels<4>, Counter>,
    write_duration: Family<Labels<1>, Histogram>,
    watch_events: Family<Labels<2>, Counter>,
    leader: Gauge,
    refusals: Gauge,
}

impl Metrics {
    /// Those of the controller, all at zero.
    pub fn new() -> Self {
        let new = Self::watching();
        new.register(|registry| new.register_loop(registry));
        new
    }

    /// Those of a process that watches the cluster and does not write.
    pub fn watching() -> Self {
        let new = Self {
            registry: Arc::default(),
            plans: Counter::default(),
            // 0.5 ms to 8 s
            plan_duration: Histogram::new(exponential_buckets(0.0005, 2.0, 15)),
            writes: Family::default(),
            write_duration: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(0.001, 2.0, 13))
            }),
            watch_events: Family::default(),
            leader: Gauge::default(),
            refusals: Gauge::default(),
        };
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        new.register(|registry| {
            registry.register("build", "The version that runs", build);
            registry.register(
                "watch_events",
                "News from the watches by kind and type",
                new.watch_events.clone(),
            );
        });
        new
    }

    fn register_loop(&self, registry: &mut Registry) {
        registry.register("plans", "Plans computed", self.plans.clone());
        registry.register_with_unit(
            "plan_duration",
            "Time to compute a plan",
            Unit::Seconds,
            self.plan_duration.clone(),
        );
        registry.register(
            "writes",
            "Writes to the API server by kind, verb, cause and outcome",
            self.writes.clone(),
        );
        registry.register_with_unit(
            "write_duration",
            "Time until a write is answered",
            Unit::Seconds,
            self.write_duration.clone(),
        );
        registry.register(
            "leader",
            "1 while this process holds the Lease",
            self.leader.clone(),
        );
        registry.register(
            "refusals",
            "Objects whose last write was refused",
            self.refusals.clone(),
        );
    }

    /// Registers metrics of another part, below the prefix `l2lb_`.
    pub fn register(&self, add: impl FnOnce(&mut Registry)) {
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        add(registry.sub_registry_with_prefix("l2lb"));
    }

    /// A plan was computed.
    pub fn planned(&self, took: Duration, refusals: usize) {
        self.plans.inc();
        self.plan_duration.observe(took.as_secs_f64());
        self.refusals
            .set(i64::try_from(refusals).unwrap_or(i64::MAX));
    }

    /// A write was answered.
    pub fn wrote(&self, kind: &str, verb: &str, cause: &str, outcome: &str, took: Duration) {
        let labels = [
            ("kind", kind.to_owned()),
            ("verb", verb.to_owned()),
            ("cause", cause.to_owned()),
            ("outcome", outcome.to_owned()),
        ];
        self.writes.get_or_create(&labels).inc();
        self.write_duration
            .get_or_create(&[("verb", verb.to_owned())])
            .observe(took.as_secs_f64());
    }

    /// A watch told something.
    pub fn heard(&self, kind: &str, what: &str) {
        let labels = [("kind", kind.to_owned()), ("type", what.to_owned())];
        self.watch_events.get_or_create(&labels).inc();
    }

    /// Whether this process leads.
    pub fn leads(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    /// All metrics as OpenMetrics text.
    ///
    /// # Errors
    /// Those of formatting.
    pub fn text(&self) -> Result<String, std::fmt::Error> {
        let mut buffer = String::new();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        text::encode(&mut buffer, &registry)?;
        Ok(buffer)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_convention() {
        let metrics = Metrics::new();
        metrics.planned(Duration::from_millis(3), 0);
        metrics.wrote(
            "Service",
            "create",
            "new",
            "stored",
            Duration::from_millis(2),
        );
        let text = metrics.text().unwrap();
        for wanted in [
            "l2lb_build_info{version=",
            "l2lb_plans_total 1",
            "l2lb_plan_duration_seconds_bucket",
            "l2lb_writes_total{kind=\"Service\",verb=\"create\",cause=\"new\",outcome=\"stored\"} 1",
            "l2lb_leader 0",
        ] {
            assert!(text.contains(wanted), "{wanted} is not in\n{text}");
        }
    }
}
