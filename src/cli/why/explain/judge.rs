//! What is not as it should be, and what to do.

use std::collections::BTreeSet;

use super::{Endpoints, Explanation};
use crate::plan::Plan;
use crate::world::{Key, World};

impl Explanation {
    /// Judges an address of a slot.
    pub(super) fn judge_slot(
        &mut self,
        world: &World,
        plan: &Plan,
        owner: &Key,
        endpoints: &Endpoints,
        local: bool,
    ) {
        let Some(slot) = self.slot.clone() else {
            return;
        };
        let namespace = &slot.namespace;
        if !slot.allocated {
            let message = slot.message.clone().unwrap_or_default();
            self.remedies.push(format!(
                "MetalLB has not given Service {} its address: {message}. Its event says why: \
                 kubectl describe service -n {namespace} {}",
                slot.service, slot.service
            ));
        } else {
            let service = Key::new(namespace.clone(), slot.service.clone());
            if !self.judge_pods(&service, endpoints) {
                self.judge_nobody();
            }
        }
        if !self.remedies.is_empty() {
            return;
        }
        let should = self.should_announce.clone().unwrap_or_default();
        if should != slot.pin && !local {
            let verdict = plan
                .load_balancers
                .get(owner)
                .and_then(|lb| lb.status.conditions.iter().find(|c| c.type_ == "Pinned"))
                .filter(|c| c.status == "False");
            self.remedies.push(format!(
                "it is pinned to {}, and by the advertisements that MetalLB has {should} wins: {}",
                slot.pin,
                verdict.map_or(
                    "does the controller run? kubectl l2lb check looks for the cause",
                    |c| &c.message
                )
            ));
            // What is wrong with the election has been said.
            if matches!(self.announced_by.as_slice(), [one] if *one == slot.pin) {
                return;
            }
        }
        self.judge_announcers(world, &should, &slot.message.unwrap_or_default());
    }

    /// Judges an address of a Service of somebody else.
    pub(super) fn judge_foreign(&mut self, world: &World, service: &Key, endpoints: &Endpoints) {
        if self.judge_pods(service, endpoints) {
            return;
        }
        if world.bgp_advertisements.is_empty() {
            self.judge_nobody();
        } else if self.should_announce.is_none() {
            self.notes.push(
                "no node answers for it by ARP or NDP; whether BGP announces it is not looked at"
                    .to_owned(),
            );
        }
        if let Some(should) = self.should_announce.clone()
            && self.remedies.is_empty()
            && world.reports_announcers()
        {
            self.judge_announcers(world, &should, "");
        }
    }

    /// Says that no pod serves, if that is so.
    fn judge_pods(&mut self, service: &Key, endpoints: &Endpoints) -> bool {
        let none = endpoints.as_ref().is_some_and(BTreeSet::is_empty);
        if none {
            self.remedies.push(format!(
                "no pod of the Service serves, and MetalLB announces a Service only while one \
                 does: kubectl get endpointslices -n {} -l kubernetes.io/service-name={}",
                service.namespace, service.name
            ));
        }
        none
    }

    /// Says that no node takes part, if that is so.
    fn judge_nobody(&mut self) {
        if self.should_announce.is_none() {
            self.remedies
                .push("no node can announce it: the list above says why for each".to_owned());
        }
    }

    fn judge_announcers(&mut self, world: &World, should: &str, message: &str) {
        match self.announced_by.as_slice() {
            [] => self.remedies.push(format!(
                "nobody says that it announces it (ServiceL2Status), and {should} should: look at \
                 the log of its speaker in namespace {}, and for a stale configuration: kubectl \
                 l2lb check",
                world.options.metallb_namespace
            )),
            [one] if one == should => {}
            [one] => {
                self.remedies.push(format!(
                    "{one} announces it and {should} should{}{message}. In the first seconds after \
                     a change that is usual; afterwards the speaker of {should} has not read the \
                     present configuration, is older than the definitions, or cannot reach the \
                     others (7946/tcp and udp between nodes): kubectl l2lb check",
                    if message.is_empty() { "" } else { ": " }
                ));
            }
            many => self.remedies.push(format!(
                "{} nodes say that they announce it ({}): for a moment that is usual; else one of \
                 them is dead and left its ServiceL2Status, or the speakers do not see each other \
                 (7946/tcp and udp between nodes; or an upgrade across 0.14.5 or 0.16.2)",
                many.len(),
                many.join(", ")
            )),
        }
    }
}
