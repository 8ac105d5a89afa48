//! Admission: may this object be stored? Pure rules over the world, with the
//! planner's own parsers and decisions, so that what is accepted can be served.
//!
//! A change is judged by what it makes worse: a rule that is broken already
//! and is not broken further denies nothing, so that an object which is over
//! a limit can still be changed for the better.

#[doc(hidden)]
pub mod fuzz;
mod load_balancer;
mod neighbours;
mod pool;
mod rule;
mod shape;
mod sizing;
pub mod wire;

pub use rule::Rule;

use std::fmt;

use crate::metallb::Capabilities;
use crate::world::{Kind, ObjectRef, Observed, Stored, World};

/// An object that somebody wants to store.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// As it would be stored.
    pub object: Observed,
    /// As it is stored; `None` when it is created.
    pub old: Option<Observed>,
    /// Whether `spec.service.selector` of a load balancer matches a pod;
    /// `None` when nobody looked.
    pub selects_pods: Option<bool>,
}

impl Candidate {
    /// An object that is created.
    pub fn created(object: Observed) -> Self {
        Self {
            object,
            old: None,
            selects_pods: None,
        }
    }

    /// An object that is changed.
    pub fn changed(object: Observed, old: Observed) -> Self {
        Self {
            object,
            old: Some(old),
            selects_pods: None,
        }
    }
}

/// Something to say about an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The rule that it comes from.
    pub rule: Rule,
    /// The object that was judged.
    pub object: ObjectRef,
    /// Path of the field, as in `spec.addresses[1]`.
    pub field: String,
    /// A sentence for the person who wrote the object.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

/// What admission says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Why the object may not be stored; empty when it may.
    pub denials: Vec<Finding>,
    /// What a person should know in any case.
    pub warnings: Vec<Finding>,
}

impl Verdict {
    /// Whether the object may be stored.
    pub fn is_allowed(&self) -> bool {
        self.denials.is_empty()
    }
}

/// A finding in the making.
#[derive(Clone, Debug)]
struct Draft {
    rule: Rule,
    denies: bool,
    field: String,
    message: String,
    /// What it is about: two findings of one rule about one subject are the same.
    subject: String,
    /// How bad it is, to compare the same finding before and after.
    severity: u128,
}

impl Draft {
    fn denial(rule: Rule, field: impl Into<String>, message: impl Into<String>) -> Self {
        let message = message.into();
        let subject = message.clone();
        Self {
            rule,
            denies: true,
            field: field.into(),
            message,
            subject,
            severity: 0,
        }
    }

    fn warning(rule: Rule, field: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            denies: false,
            ..Self::denial(rule, field, message)
        }
    }

    fn about(mut self, subject: impl Into<String>, severity: u128) -> Self {
        self.subject = subject.into();
        self.severity = severity;
        self
    }

    fn is_worse_than_any_of(&self, before: &[Self]) -> bool {
        before.iter().all(|b| {
            !(b.rule == self.rule && b.subject == self.subject && b.severity >= self.severity)
        })
    }
}

/// Judges an object against the world. Kinds without rules are allowed.
pub fn review(world: &World, candidate: &Candidate) -> Verdict {
    let object = candidate.object.object();
    if candidate.object.metadata().deletion_timestamp.is_some() {
        // Whatever holds it back would hold its deletion back.
        return Verdict::default();
    }
    if candidate
        .old
        .as_ref()
        .is_some_and(|old| same_spec(&candidate.object, old))
    {
        return Verdict::default();
    }
    let drafts = match object.kind {
        Kind::AddressPool => pool::judge(&Worlds::new(world, candidate), candidate),
        Kind::LoadBalancer => load_balancer::judge(&Worlds::new(world, candidate), candidate),
        Kind::IpAddressPool | Kind::L2Advertisement => neighbours::judge(world, candidate),
        _ => Vec::new(),
    };
    let mut verdict = Verdict::default();
    for draft in drafts {
        let list = if draft.denies {
            &mut verdict.denials
        } else {
            &mut verdict.warnings
        };
        let finding = Finding {
            rule: draft.rule,
            object: object.clone(),
            field: draft.field,
            message: draft.message,
        };
        if !list.contains(&finding) {
            list.push(finding);
        }
    }
    verdict
}

/// The world without and with the change.
struct Worlds {
    before: World,
    after: World,
    /// What the installed MetalLB can do. Where there is none, the two worlds
    /// have one that can do everything, so that sizes are judged before.
    capabilities: Capabilities,
}

impl Worlds {
    fn new(world: &World, candidate: &Candidate) -> Self {
        let object = candidate.object.object();
        let mut before = world.clone();
        if !before.capabilities.installed {
            before.set_capabilities(Capabilities::CURRENT);
        }
        // Whatever the watch has shown, this is what is being changed.
        match &candidate.old {
            Some(old) => before.observe(old.clone()),
            None => before.forget(&object),
        }
        let mut after = before.clone();
        let mut new = candidate.object.clone();
        if candidate.old.is_none() {
            make_youngest(&mut new);
        }
        after.observe(new);
        Self {
            before,
            after,
            capabilities: world.capabilities,
        }
    }
}

/// A new object comes after all others, whatever clock dated it.
fn make_youngest(object: &mut Observed) {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    let last = Some(Time(jiff::Timestamp::MAX));
    match object {
        Observed::AddressPool(Stored::Valid(pool)) => {
            std::sync::Arc::make_mut(pool).metadata.creation_timestamp = last;
        }
        Observed::LoadBalancer(Stored::Valid(lb)) => {
            std::sync::Arc::make_mut(lb).metadata.creation_timestamp = last;
        }
        _ => {}
    }
}

fn same_spec(a: &Observed, b: &Observed) -> bool {
    fn same<T, S: PartialEq>(a: &Stored<T>, b: &Stored<T>, spec: impl Fn(&T) -> &S) -> bool {
        matches!((a, b), (Stored::Valid(a), Stored::Valid(b)) if spec(a) == spec(b))
    }
    match (a, b) {
        (Observed::AddressPool(a), Observed::AddressPool(b)) => same(a, b, |o| &o.spec),
        (Observed::LoadBalancer(a), Observed::LoadBalancer(b)) => same(a, b, |o| &o.spec),
        (Observed::IpAddressPool(a), Observed::IpAddressPool(b)) => same(a, b, |o| &o.spec),
        (Observed::L2Advertisement(a), Observed::L2Advertisement(b)) => same(a, b, |o| &o.spec),
        _ => false,
    }
}

/// An object that cannot be read as its kind.
fn unreadable(error: &str) -> Vec<Draft> {
    vec![Draft::denial(
        Rule::Unreadable,
        "spec",
        format!("the object cannot be read: {error}"),
    )]
}

/// At most ten names, and how many more there are.
fn list<T: fmt::Display>(names: &[T]) -> String {
    const SHOWN: usize = 10;
    let mut text = names
        .iter()
        .take(SHOWN)
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ");
    if names.len() > SHOWN {
        text.push_str(&format!(" and {} more", names.len() - SHOWN));
    }
    text
}

/// `no node`, `1 node`, `2 nodes`.
fn count(number: u128, what: &str) -> String {
    let plural = match what.strip_suffix("ss") {
        Some(_) => "es",
        None => "s",
    };
    match number {
        0 => format!("no {what}"),
        1 => format!("1 {what}"),
        _ => format!("{number} {what}{plural}"),
    }
}

/// What stands between the installed MetalLB and any pool.
fn about_metallb(capabilities: Capabilities, field: &str) -> Option<Draft> {
    (!capabilities.installed).then(|| {
        let message = "MetalLB is not installed (no ipaddresspools.metallb.io and \
                       l2advertisements.metallb.io): nothing is served until it is; 0.16.2 or \
                       later serves best";
        Draft::warning(Rule::MetalLB, field, message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_counts_read_well() {
        assert_eq!(list(&["a", "b"]), "a, b");
        let many: Vec<u32> = (0..13).collect();
        assert_eq!(list(&many), "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 3 more");
        assert_eq!(count(1, "IPv4 address"), "1 IPv4 address");
        assert_eq!(count(0, "IPv4 address"), "no IPv4 address");
        assert_eq!(count(2, "node"), "2 nodes");
    }
}
