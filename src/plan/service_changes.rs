//! The child Services of a load balancer, compared with those that exist.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::load_balancer::earlier;
use super::template::ServiceTemplate;
use super::{Action, Body, Cause, Change, LoadBalancerPlan, Plan, Stage, needs, writing};
use crate::api::{Reason, names};
use crate::world::{Child, Key, Kind, ObjectRef, Stored, World};

/// Children whose load balancer is no more: they go. One without an owner was
/// left on purpose (`--cascade=orphan`) and stays.
pub(super) fn abandoned(world: &World, plan: &mut Plan) {
    for (key, children) in &world.children {
        let gone = match world.load_balancers.get(key).map(Stored::metadata) {
            None => true,
            // While the garbage collector takes their owner from them, they have one.
            Some(meta) => {
                let orphans = meta.finalizers.iter().flatten().any(|f| f == "orphan");
                meta.deletion_timestamp.is_some() && !orphans
            }
        };
        if gone {
            for child in children
                .values()
                .filter(|c| !c.terminating && c.owner.is_some())
            {
                plan.changes.push(deletion(child, Cause::Unwanted));
            }
        }
    }
}

fn deletion(child: &Child, cause: Cause) -> Change {
    Change {
        stage: Stage::Withdraw,
        object: ObjectRef {
            kind: Kind::Service,
            key: child.key.clone(),
        },
        action: Action::Delete {
            uid: child.service.metadata.uid.clone(),
            resource_version: child.service.metadata.resource_version.clone(),
        },
        cause,
        needs: Vec::new(),
        content: 0,
    }
}

/// Whether the API server refused to write a Service. One field that it finds
/// wrong must not keep the address of that Service from moving.
fn cannot_be_written(world: &World, child: &Child) -> bool {
    if world.refusals.is_empty() {
        return false;
    }
    let object = ObjectRef {
        kind: Kind::Service,
        key: child.key.clone(),
    };
    let refusal = world.refusals.get(&object);
    refusal.is_some_and(|refusal| !refusal.reverted)
}

/// `waiting` are the numbers of slots whose pools come first.
pub(super) fn write_services(
    world: &World,
    key: &Key,
    dropped: &[Arc<Child>],
    waiting: &BTreeSet<u32>,
    plan: &mut LoadBalancerPlan,
) {
    for child in dropped {
        plan.changes.push(deletion(child, Cause::Retirement));
    }
    let Some(template) = &plan.template else {
        return;
    };
    let terminating = world
        .namespaces
        .get(&key.namespace)
        .is_some_and(|n| n.terminating);
    let none = BTreeMap::new();
    let children = world.children.get(key).unwrap_or(&none);
    let mut changes = Vec::new();
    // What was compared for one child need not be for those that are alike.
    let mut as_wanted = None;
    for slot in plan.slots.iter().filter(|s| !waiting.contains(&s.number)) {
        let child = children.get(&slot.number).map(|c| &**c);
        let narrow = child.filter(|_| slot.keeps_families).map(|child| {
            Arc::new(ServiceTemplate::clone(template).with_families(&child.families()))
        });
        let template = narrow.as_ref().unwrap_or(template);
        let steers = child
            .filter(|child| cannot_be_written(world, child))
            .and_then(|child| template.steers(slot, child));
        let mut needs = Vec::new();
        let (cause, action, content) = match (child, steers) {
            // It is going; its name is free when it is gone.
            (Some(child), _) if child.terminating => continue,
            (Some(child), Some(cause)) => {
                let version = child.service.metadata.resource_version.clone();
                let body = Body::steering(template, slot, version);
                needs = needs::of_service(world, template, slot, Some(child));
                (cause, Action::Patch(body), template.course(slot))
            }
            (Some(child), None) => {
                let alike = as_wanted == Some(child.common) && narrow.is_none();
                let difference = template.difference(slot, child, alike);
                if alike && difference.is_none() {
                    continue;
                }
                // Ports first: until those that are not ours have gone, the
                // API server may refuse ours beside them.
                if let Some(patch) = template.ports_patch(child) {
                    let content = writing::content_of(&patch["spec"]);
                    (
                        difference.unwrap_or(Cause::Drift),
                        Action::Patch(patch.into()),
                        content,
                    )
                } else if let Some(cause) = difference {
                    let version = child.service.metadata.resource_version.clone();
                    let body = Body::service(template, slot, version);
                    needs = needs::of_service(world, template, slot, Some(child));
                    (cause, Action::Apply(body), template.content(slot))
                } else {
                    if narrow.is_none() {
                        as_wanted = Some(child.common);
                    }
                    continue;
                }
            }
            (None, _) if terminating => continue,
            (None, _) if matches!(slot.blocked, Some((Reason::NameTaken, _))) => continue,
            (None, _) => {
                let body = Body::service(template, slot, None);
                needs = needs::of_service(world, template, slot, None);
                (Cause::New, Action::Create(body), template.content(slot))
            }
        };
        let name = names::service_name(&key.name, slot.number);
        let change = Change {
            stage: Stage::Serve,
            object: ObjectRef {
                kind: Kind::Service,
                key: Key::new(key.namespace.clone(), name),
            },
            action,
            cause,
            needs,
            content,
        };
        let (change, until) = writing::hold_back(world, change);
        plan.deadline = earlier(plan.deadline, until);
        changes.extend(change);
    }
    plan.changes.extend(changes);
}
