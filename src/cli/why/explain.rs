//! What can be said of an address, out of a world. Every judgement is the
//! planner's or MetalLB's own; this only puts them together.

mod candidates;
mod foreign;
mod judge;
mod whose;

use std::collections::BTreeSet;
use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;
use serde::Serialize;

use crate::api::{SlotPhase, names};
use crate::metallb::election;
use crate::plan;
use crate::plan::outlook::Outlook;
use crate::world::{Child, Key, World};
pub(super) use candidates::Candidate;
use candidates::Election;
use foreign::ForeignService;
pub(super) use foreign::{holder, key};
pub(super) use whose::child_at;

/// The nodes that have a serving pod of a Service; `None`: not known.
pub(super) type Endpoints = Option<BTreeSet<String>>;

/// What the world does not have of the Services with an address.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    /// Where pods are of the one that is explained.
    pub endpoints: Endpoints,
    /// Those that are not of l2lb, as they are stored.
    pub foreign: Vec<Service>,
}

/// What can be said of an address.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Explanation {
    pub address: IpAddr,
    /// Whose it is, each a sentence.
    pub whose: Vec<String>,
    /// Where it is a slot's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slot: Option<Slot>,
    /// Where a Service has it from MetalLB that is not one of l2lb.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<ForeignService>,
    /// The nodes, those first that take part in MetalLB's election, in order.
    pub candidates: Vec<Candidate>,
    /// Who should announce it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub should_announce: Option<String>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub because: Option<String>,
    /// Who says that it announces it.
    pub announced_by: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub announced_since: Option<Timestamp>,
    /// What limits all of this, each a sentence.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// All is as it should be.
    pub agrees: bool,
    /// What is not, and the remedy.
    pub remedies: Vec<String>,
}

/// The slot that an address belongs to.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Slot {
    pub namespace: String,
    pub load_balancer: String,
    pub service: String,
    pub number: u32,
    pub pool: String,
    /// MetalLB's pool.
    pub ip_address_pool: String,
    pub home: String,
    pub pin: String,
    pub phase: SlotPhase,
    /// MetalLB has given the Service the address.
    pub allocated: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

impl Explanation {
    /// Explains an address.
    pub fn of(world: &World, address: IpAddr, known: &Known) -> Self {
        let outlook = Outlook::of(world);
        let mut result = Self {
            address,
            whose: whose::whose(world, &outlook, address),
            slot: None,
            service: None,
            candidates: Vec::new(),
            should_announce: None,
            because: None,
            announced_by: Vec::new(),
            announced_since: None,
            notes: Vec::new(),
            agrees: true,
            remedies: Vec::new(),
        };
        let holders: Vec<&Key> = world.holders(address).collect();
        result.judge_holders(&holders, known);
        if let Some(child) = child_at(world, address) {
            result.explain_child(world, &outlook, child, &known.endpoints);
        } else if let Some(service) = holder(&known.foreign, address) {
            result.explain_foreign(world, service, &known.endpoints);
        } else {
            result.explain_claims(world, &holders, known);
        }
        result.agrees = result.remedies.is_empty();
        result
    }

    fn explain_child(
        &mut self,
        world: &World,
        outlook: &Outlook,
        child: &Child,
        endpoints: &Endpoints,
    ) {
        let owner = child.load_balancer();
        let plan = plan::plan(world);
        let planned = plan
            .load_balancers
            .get(&owner)
            .and_then(|lb| lb.slots.iter().find(|s| s.number == child.slot));
        let ip_address_pool = child
            .address_pool
            .clone()
            .unwrap_or_else(|| names::ip_address_pool_name(&child.pool));
        let allocated = child.allocated.contains(&self.address);
        self.slot = Some(Slot {
            namespace: owner.namespace.clone(),
            load_balancer: owner.name.clone(),
            service: child.key.name.clone(),
            number: child.slot,
            pool: child.pool.clone(),
            ip_address_pool: ip_address_pool.clone(),
            home: outlook.node_name(&child.home),
            pin: outlook.node_name(&child.pin),
            phase: planned.map_or(SlotPhase::Pending, |s| s.phase),
            allocated,
            message: planned.and_then(|s| s.message.clone()),
        });
        if world.reports_announcers() {
            self.take_reports(world, &child.key);
        } else {
            let inferred = planned.and_then(|s| s.announced_by.clone());
            self.announced_by = inferred.into_iter().collect();
        }
        let addresses = if child.allocated.is_empty() {
            &child.addresses
        } else {
            &child.allocated
        };
        let Some(deciding) = election::deciding_address(addresses) else {
            return;
        };
        let local = child.is_local();
        self.hold(&Election {
            world,
            pool: &ip_address_pool,
            labels: &child.service.metadata.labels.clone().unwrap_or_default(),
            deciding: &deciding,
            endpoints,
            local,
            child: Some(child),
            states: outlook.candidates(&owner),
        });
        if !allocated {
            self.should_announce = None;
        }
        self.judge_slot(world, &plan, &owner, endpoints, local);
    }

    /// Who says that it announces a Service.
    fn take_reports(&mut self, world: &World, service: &Key) {
        let all: BTreeSet<&str> = world.announcers(service).collect();
        self.announced_by = all.into_iter().map(str::to_owned).collect();
        self.announced_since = world.announced_since.get(service).copied();
    }

    /// Holds an election.
    fn hold(&mut self, election: &Election<'_>) {
        self.candidates = election.candidates();
        let first = self.candidates.iter().find(|c| c.place == Some(1));
        self.should_announce = first.map(|c| c.node.clone());
        self.because = candidates::because(&self.candidates, election.deciding);
        if election.local && election.endpoints.is_none() {
            self.notes.push(
                "externalTrafficPolicy is Local, and where the pods are is not known, as you may \
                 not read EndpointSlices: every node is taken to have one"
                    .to_owned(),
            );
        }
    }
}
