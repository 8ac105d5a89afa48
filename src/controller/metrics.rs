//! What the controller counts, and what it says of the cluster.
//!
//! Counters are kept as things happen. What describes the cluster is a
//! [`Census`] of the last plan, of which the gauges are made when somebody
//! asks: what is gone from the cluster is gone from the metrics.

mod cluster;
pub mod text;

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use self::cluster::Cluster;
use crate::plan::{Action, Cause, Census, Change};

type Labels<const N: usize> = [(&'static str, String); N];
/// A number that is no integer, as a time.
type Real = Gauge<f64, AtomicU64>;

/// The controller's metrics. Clones count into the same numbers.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    plans: Counter,
    plan_duration: Histogram,
    last_plan: Real,
    last_beat: Real,
    writes: Family<Labels<4>, Counter>,
    write_duration: Family<Labels<1>, Histogram>,
    pin_moves: Family<Labels<1>, Counter>,
    watch_events: Family<Labels<2>, Counter>,
    watch_errors: Family<Labels<1>, Counter>,
    watches_waiting: Gauge,
    leader: Gauge,
    cluster: Cluster,
}

impl Metrics {
    /// Those of the controller, all at zero.
    pub fn new() -> Self {
        let new = Self::watching("controller");
        for cause in Cause::MOVES {
            drop(new.pin_moves.get_or_create(&moved(cause)));
        }
        new.register(|registry| new.register_loop(registry));
        new
    }

    /// Those of a process that watches the cluster and does not write.
    pub fn watching(component: &'static str) -> Self {
        let new = Self {
            registry: Arc::default(),
            plans: Counter::default(),
            // 0.5 ms to 8 s
            plan_duration: Histogram::new(exponential_buckets(0.0005, 2.0, 15)),
            last_plan: Real::default(),
            last_beat: Real::default(),
            writes: Family::default(),
            write_duration: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(0.001, 2.0, 13))
            }),
            pin_moves: Family::default(),
            watch_events: Family::default(),
            watch_errors: Family::default(),
            watches_waiting: Gauge::default(),
            leader: Gauge::default(),
            cluster: Cluster::default(),
        };
        let build = Info::new([
            ("component", component),
            ("version", env!("CARGO_PKG_VERSION")),
        ]);
        new.register(|registry| {
            registry.register("build", "The program and the version that runs", build);
            registry.register(
                "watch_events",
                "News from the watches by kind and type",
                new.watch_events.clone(),
            );
            registry.register(
                "watch_errors",
                "Watches that ended with an error, by kind",
                new.watch_errors.clone(),
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
        registry.register_with_unit(
            "last_plan_timestamp",
            "When a plan was computed last, in seconds since 1970; without news there is none to compute",
            Unit::Seconds,
            self.last_plan.clone(),
        );
        registry.register_with_unit(
            "last_heartbeat_timestamp",
            "When the leader's loop last went round, in seconds since 1970; it does every 10 s",
            Unit::Seconds,
            self.last_beat.clone(),
        );
        registry.register(
            "writes",
            "Writes to the API server by kind, verb, cause and outcome",
            self.writes.clone(),
        );
        registry.register_with_unit(
            "write_duration",
            "Time until a write is answered, by verb",
            Unit::Seconds,
            self.write_duration.clone(),
        );
        registry.register(
            "pin_moves",
            "Slots that were pinned to another node: to a standby because home was lost \
             (failover), is cordoned or drained (handover) or has left (departure), or home again (return)",
            self.pin_moves.clone(),
        );
        registry.register(
            "watches_waiting",
            "Watches that have not answered yet; nothing is planned before all have",
            self.watches_waiting.clone(),
        );
        registry.register(
            "leader",
            "1 while this process holds the Lease",
            self.leader.clone(),
        );
        registry.register_collector(Box::new(self.cluster.clone()));
    }

    /// Registers metrics of another part, below the prefix `l2lb_`.
    pub fn register(&self, add: impl FnOnce(&mut Registry)) {
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        add(registry.sub_registry_with_prefix("l2lb"));
    }

    /// A plan was computed.
    pub fn planned(&self, took: Duration, now: Timestamp) {
        self.plans.inc();
        self.plan_duration.observe(took.as_secs_f64());
        self.last_plan.set(seconds(now));
    }

    /// What there is by now.
    pub fn counted(&self, census: Census) {
        self.cluster.set(census);
    }

    /// The loop has gone round.
    pub fn beat(&self, now: Timestamp) {
        self.last_beat.set(seconds(now));
    }

    /// How many watches have not answered yet.
    pub fn waits_for(&self, watches: usize) {
        self.watches_waiting
            .set(i64::try_from(watches).unwrap_or(i64::MAX));
    }

    /// A write was answered.
    pub fn wrote(&self, change: &Change, outcome: &str, done: bool, took: Duration) {
        let verb = change.action.verb();
        let labels = [
            ("kind", change.object.kind.as_str().to_owned()),
            ("verb", verb.to_owned()),
            ("cause", change.cause.as_str().to_owned()),
            ("outcome", outcome.to_owned()),
        ];
        self.writes.get_or_create(&labels).inc();
        self.write_duration
            .get_or_create(&[("verb", verb.to_owned())])
            .observe(took.as_secs_f64());
        // A patch of ports only prepares the move.
        let moves = !matches!(change.action, Action::Patch(_)) || change.action.steers();
        if done && moves && Cause::MOVES.contains(&change.cause) {
            self.pin_moves.get_or_create(&moved(change.cause)).inc();
        }
    }

    /// A watch told something.
    pub fn heard(&self, kind: &str, what: &str) {
        let labels = [("kind", kind.to_owned()), ("type", what.to_owned())];
        self.watch_events.get_or_create(&labels).inc();
    }

    /// A kind is watched: its errors are counted from now on, and an alert
    /// can tell the first one from none.
    pub fn watches(&self, kind: &str) {
        drop(
            self.watch_errors
                .get_or_create(&[("kind", kind.to_owned())]),
        );
    }

    /// A watch ended with an error.
    pub fn failed_to_watch(&self, kind: &str) {
        self.watch_errors
            .get_or_create(&[("kind", kind.to_owned())])
            .inc();
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
        prometheus_client::encoding::text::encode(&mut buffer, &registry)?;
        Ok(buffer)
    }

    /// Those of a controller that has done a bit of everything, for the
    /// documentation.
    pub fn example() -> Self {
        let new = Self::new();
        new.counted(cluster::example());
        new.heard("Node", "listed");
        new.watches("Node");
        let labels = ["kind", "verb", "cause", "outcome"].map(|label| (label, String::new()));
        drop(new.writes.get_or_create(&labels));
        drop(new.write_duration.get_or_create(&[("verb", String::new())]));
        new
    }
}

fn moved(cause: Cause) -> Labels<1> {
    [("cause", cause.as_str().to_owned())]
}

fn seconds(at: Timestamp) -> f64 {
    at.as_duration().as_secs_f64()
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Stage;
    use crate::world::{Key, Kind, ObjectRef};

    fn change(cause: Cause) -> Change {
        Change {
            stage: Stage::Serve,
            object: ObjectRef {
                kind: Kind::Service,
                key: Key::new("shop", "web-0"),
            },
            action: Action::Apply(serde_json::json!({}).into()),
            cause,
            needs: Vec::new(),
            content: 0,
        }
    }

    #[test]
    fn what_happens_is_counted() {
        let metrics = Metrics::new();
        let took = Duration::from_millis(3);
        metrics.planned(took, Timestamp::from_second(1_800_000_000).unwrap());
        metrics.wrote(&change(Cause::Failover), "stored", true, took);
        metrics.wrote(&change(Cause::Failover), "refused", false, took);
        metrics.wrote(&change(Cause::Spec), "stored", true, took);
        let text = metrics.text().unwrap();
        for wanted in [
            "l2lb_build_info{component=\"controller\",version=",
            "l2lb_plans_total 1\n",
            "l2lb_plan_duration_seconds_bucket",
            "l2lb_last_plan_timestamp_seconds 1800000000.0\n",
            "l2lb_writes_total{kind=\"Service\",verb=\"apply\",cause=\"failover\",outcome=\"stored\"} 1\n",
            "l2lb_writes_total{kind=\"Service\",verb=\"apply\",cause=\"failover\",outcome=\"refused\"} 1\n",
            // Only what was done has moved.
            "l2lb_pin_moves_total{cause=\"failover\"} 1\n",
            "l2lb_pin_moves_total{cause=\"return\"} 0\n",
            "l2lb_leader 0\n",
        ] {
            assert!(text.contains(wanted), "{wanted} is not in\n{text}");
        }
    }

    #[test]
    fn what_is_gone_from_the_cluster_is_gone_from_the_metrics() {
        let metrics = Metrics::new();
        assert!(!metrics.text().unwrap().contains("l2lb_pool_addresses"));
        metrics.counted(cluster::example());
        assert!(
            metrics
                .text()
                .unwrap()
                .contains("l2lb_pool_addresses{pool=")
        );
        metrics.counted(Census::default());
        let text = metrics.text().unwrap();
        assert!(!text.contains("pool="), "{text}");
    }

    #[test]
    fn names_follow_the_convention() {
        let text = Metrics::example().text().unwrap();
        for described in text::describe(&text) {
            let name = &described.name;
            assert!(name.starts_with("l2lb_"), "{name}");
            assert_eq!(
                described.kind == "counter",
                name.ends_with("_total"),
                "{name}"
            );
            assert!(!described.help.is_empty(), "{name}");
            // An operator's scrape adds labels of these names.
            for label in [
                "namespace",
                "pod",
                "service",
                "container",
                "job",
                "instance",
            ] {
                assert!(
                    !described.labels.iter().any(|l| l == label),
                    "{name}: {label}"
                );
            }
        }
    }
}
