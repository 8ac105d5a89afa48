//! What a Service needs of MetalLB's objects before it is written.
//!
//! As little as can be: what is refused or hangs for one object must not hold
//! back anything else, and least of all an address on its way off a dead node.

use super::load_balancer::SlotPlan;
use super::template::{self, ServiceTemplate};
use crate::api::names;
use crate::world::{Child, Key, Kind, ObjectRef, World};

/// A new Service needs the pool that its addresses lie in, and what advertises
/// them. One that exists needs the pool when it gets other addresses, and the
/// advertisement when it is bound to another one.
pub(super) fn of_service(
    world: &World,
    template: &ServiceTemplate,
    slot: &SlotPlan,
    child: Option<&Child>,
) -> Vec<ObjectRef> {
    let mut needs = Vec::new();
    if child.is_none_or(|child| !template::has_addresses(slot, child)) {
        let pool = metallb_object(world, Kind::IpAddressPool, &slot.address_pool);
        needs.push(pool);
    }
    let advertisement = advertisement(world, template, slot);
    let waits = match child {
        None => true,
        // Its list of nodes is what moves the address; the label follows.
        Some(child) if slot.has_own_pool() => slot.pin != child.pin,
        // One that is there announces, also if it could be mended.
        Some(child) => {
            let moves = slot.pin != child.pin || template.candidates() != child.candidates;
            moves && !exists(world, &advertisement)
        }
    };
    if waits {
        needs.push(advertisement);
    }
    needs
}

/// The advertisement that a Service is bound to by its labels, or the one that
/// it has for itself.
fn advertisement(world: &World, template: &ServiceTemplate, slot: &SlotPlan) -> ObjectRef {
    let name = if slot.has_own_pool() {
        slot.address_pool.clone()
    } else {
        names::advertisement_name(template.pool(), template.candidates(), &slot.pin)
    };
    metallb_object(world, Kind::L2Advertisement, &name)
}

/// Whether an advertisement is there to stay.
fn exists(world: &World, advertisement: &ObjectRef) -> bool {
    let live = world.l2_advertisements.get(&advertisement.key.name);
    live.is_some_and(|live| !live.is_terminating())
}

/// An object of MetalLB.
pub(super) fn metallb_object(world: &World, kind: Kind, name: &str) -> ObjectRef {
    ObjectRef {
        kind,
        key: Key::new(world.options.metallb_namespace.clone(), name),
    }
}
