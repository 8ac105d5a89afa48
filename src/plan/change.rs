//! What must be written to make the world what the plan says.

use std::sync::Arc;

use serde_json::{Value, json};

use super::load_balancer::SlotPlan;
use super::template::ServiceTemplate;
use crate::world::ObjectRef;

/// The order of writing. Everything of one stage is written, in any order,
/// before anything of the next: what MetalLB needs is there before the
/// Services that need it, and goes after them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// Finalizers of pools.
    Protect,
    /// MetalLB's pools.
    Pool,
    /// MetalLB's advertisements.
    Advertise,
    /// Services, new and changed.
    Serve,
    /// Services that go.
    Withdraw,
    /// Records for ExternalDNS, new, changed and gone.
    Publish,
    /// Advertisements that go.
    Unadvertise,
    /// MetalLB's pools that go.
    Unpool,
    /// Status of our own kinds.
    Report,
    /// Finalizers that are released.
    Release,
}

/// The body of a write. A Service's is put together only when it is wanted:
/// a plan may have tens of thousands of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Body(Form);

#[derive(Clone, Debug, PartialEq)]
enum Form {
    Ready(Value),
    Service {
        template: Arc<ServiceTemplate>,
        slot: Box<SlotPlan>,
        version: Option<String>,
        /// Only the labels that say where it belongs.
        steering: bool,
    },
}

impl Body {
    /// The Service of a slot, over the one with this resource version if there is one.
    pub(super) fn service(
        template: &Arc<ServiceTemplate>,
        slot: &SlotPlan,
        version: Option<String>,
    ) -> Self {
        Self::of_slot(template, slot, version, false)
    }

    /// The part of a slot's Service that says where it belongs, for the one
    /// with this resource version.
    pub(super) fn steering(
        template: &Arc<ServiceTemplate>,
        slot: &SlotPlan,
        version: Option<String>,
    ) -> Self {
        Self::of_slot(template, slot, version, true)
    }

    fn of_slot(
        template: &Arc<ServiceTemplate>,
        slot: &SlotPlan,
        version: Option<String>,
        steering: bool,
    ) -> Self {
        Self(Form::Service {
            template: Arc::clone(template),
            slot: Box::new(slot.clone()),
            version,
            steering,
        })
    }

    /// The slot whose Service it is, if it is one.
    pub fn slot(&self) -> Option<&SlotPlan> {
        match &self.0 {
            Form::Ready(_) => None,
            Form::Service { slot, .. } => Some(slot),
        }
    }

    /// The object as it is sent.
    pub fn to_json(&self) -> Value {
        match &self.0 {
            Form::Ready(value) => value.clone(),
            Form::Service {
                template,
                slot,
                version,
                steering,
            } => {
                let mut value = if *steering {
                    template.steering(slot)
                } else {
                    json!(template.service(slot))
                };
                if let Some(version) = version {
                    value["metadata"]["resourceVersion"] = json!(version);
                }
                value
            }
        }
    }
}

impl From<Value> for Body {
    fn from(value: Value) -> Self {
        Self(Form::Ready(value))
    }
}

/// What is done to an object.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Server-side apply of an object that does not exist yet. If it does by
    /// now, and is somebody else's, it must stay untouched.
    Create(Body),
    /// Server-side apply over our object. The body carries the resource
    /// version that the plan was made for.
    Apply(Body),
    /// JSON merge patch of our object, also at that resource version: for a
    /// list in which server-side apply would leave what somebody else added,
    /// and for a Service whose spec cannot be written.
    Patch(Body),
    /// Server-side apply of the status subresource. The body carries the UID
    /// and the resource version that the plan was made for.
    ApplyStatus(Body),
    /// Deletion, if it is still the object that the plan knows.
    Delete {
        /// UID of that object.
        uid: Option<String>,
        /// Resource version of that object.
        resource_version: Option<String>,
    },
}

impl Action {
    /// The slot that it makes or changes, if it is one.
    pub fn slot(&self) -> Option<&SlotPlan> {
        match self {
            Self::Create(body) | Self::Apply(body) | Self::Patch(body) => body.slot(),
            Self::ApplyStatus(_) | Self::Delete { .. } => None,
        }
    }

    /// Whether it says where a Service belongs and leaves its spec as it is.
    pub fn steers(&self) -> bool {
        matches!(self, Self::Patch(_)) && self.slot().is_some()
    }

    /// One word for logs and metrics.
    pub fn verb(&self) -> &'static str {
        match self {
            Self::Create(_) => "create",
            Self::Apply(_) => "apply",
            Self::Patch(_) => "patch",
            Self::ApplyStatus(_) => "status",
            Self::Delete { .. } => "delete",
        }
    }
}

/// Why something is written, for logs and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// It is wanted and does not exist.
    New,
    /// What is wanted has changed.
    Spec,
    /// Somebody else changed what is ours.
    Drift,
    /// The slot is pinned to a standby, because its home cannot announce.
    Failover,
    /// The slot is pinned to a standby, because its home is cordoned or drained.
    Handover,
    /// The slot is pinned to a standby, because its home has left.
    Departure,
    /// The slot is pinned to its home again.
    Return,
    /// A slot's own advertisement follows its pin.
    Pin,
    /// The slot has another home.
    Home,
    /// The slot's retirement was set or taken back.
    Retirement,
    /// It is wanted no more.
    Unwanted,
    /// Other addresses or another name are to be published.
    Dns,
    /// The status has changed.
    Status,
    /// A finalizer.
    Finalizer,
}

impl Cause {
    /// The causes for which a slot's pin moves while its home stays.
    pub const MOVES: [Self; 4] = [
        Self::Failover,
        Self::Handover,
        Self::Departure,
        Self::Return,
    ];

    /// Whether an address moves to another node by it.
    pub fn is_move(self) -> bool {
        self == Self::Pin || Self::MOVES.contains(&self)
    }

    /// One word for logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Spec => "spec",
            Self::Drift => "drift",
            Self::Failover => "failover",
            Self::Handover => "handover",
            Self::Departure => "departure",
            Self::Return => "return",
            Self::Pin => "pin",
            Self::Home => "home",
            Self::Retirement => "retirement",
            Self::Unwanted => "unwanted",
            Self::Dns => "dns",
            Self::Status => "status",
            Self::Finalizer => "finalizer",
        }
    }
}

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// When it is written, relative to the others.
    pub stage: Stage,
    /// What it is done to.
    pub object: ObjectRef,
    /// What is done.
    pub action: Action,
    /// Why.
    pub cause: Cause,
    /// What must be as planned before this is written: MetalLB's objects. While
    /// one of them could not be written, or its state is not known, this waits.
    pub needs: Vec<ObjectRef>,
    /// Digest of the wanted content, to tell whether a refused write is the
    /// same again. Zero for deletions.
    pub content: u64,
}

/// Something that a person should know, as a Kubernetes Event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedEvent {
    /// What it is about: an L2LoadBalancer or an L2AddressPool.
    pub object: ObjectRef,
    /// UID of that object.
    pub uid: Option<String>,
    /// Warning rather than Normal.
    pub warning: bool,
    /// In CamelCase, from the documented list.
    pub reason: &'static str,
    /// A sentence.
    pub note: String,
}
