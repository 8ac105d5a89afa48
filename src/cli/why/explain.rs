//! What can be said of an address, out of a world. Every judgement is the
//! planner's or MetalLB's own; this only puts them together.

use std::collections::BTreeSet;
use std::net::IpAddr;

use jiff::Timestamp;
use serde::Serialize;

use crate::address::is_buggy;
use crate::api::{SlotPhase, names};
use crate::metallb::election;
use crate::plan::electorate::{self, Barred, Elector};
use crate::plan::neighbours::metallb_ranges;
use crate::plan::outlook::{NodeState, Outlook};
use crate::plan::{self, Plan};
use crate::world::{Child, Key, Stored, World};

/// The nodes that have a serving pod of a Service; `None`: not known.
pub(super) type Endpoints = Option<BTreeSet<String>>;

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

/// A node's part.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Candidate {
    pub node: String,
    /// Its place in the election, from 1; none: it takes no part.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<usize>,
    /// The sum of its preferences.
    pub weight: i64,
    pub home: bool,
    pub pin: bool,
    /// What the planner makes of it.
    pub state: Option<&'static str>,
    /// The L2Advertisements that list it.
    pub advertisements: Vec<String>,
    /// Why it may announce or not.
    pub why: String,
}

impl Explanation {
    /// Explains an address.
    pub fn of(world: &World, address: IpAddr, endpoints: &Endpoints) -> Self {
        let outlook = Outlook::of(world);
        let mut result = Self {
            address,
            whose: whose(world, &outlook, address),
            slot: None,
            candidates: Vec::new(),
            should_announce: None,
            because: None,
            announced_by: Vec::new(),
            announced_since: None,
            agrees: true,
            remedies: Vec::new(),
        };
        let holders: Vec<&Key> = world.holders(address).collect();
        if holders.len() > 1 {
            let all: Vec<String> = holders.iter().map(ToString::to_string).collect();
            result.remedies.push(format!(
                "{} Services name or have this address ({}), and MetalLB gives it to one of them: \
                 take it out of the others",
                holders.len(),
                all.join(", ")
            ));
        }
        match child_at(world, address) {
            Some(child) => result.explain_child(world, &outlook, child, endpoints),
            None => {
                for holder in holders {
                    let mut nodes: Vec<String> =
                        world.announcers(holder).map(str::to_owned).collect();
                    result.announced_by.append(&mut nodes);
                    result.announced_since = world.announced_since.get(holder).copied();
                }
            }
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
        self.announced_by = if world.reports_announcers() {
            let all: BTreeSet<&str> = world.announcers(&child.key).collect();
            self.announced_since = world.announced_since.get(&child.key).copied();
            all.into_iter().map(str::to_owned).collect()
        } else {
            planned
                .and_then(|s| s.announced_by.clone())
                .into_iter()
                .collect()
        };
        let addresses = if child.allocated.is_empty() {
            &child.addresses
        } else {
            &child.allocated
        };
        let Some(deciding) = election::deciding_address(addresses) else {
            return;
        };
        let labels = child.service.metadata.labels.clone().unwrap_or_default();
        let electors = electorate::order(
            world,
            world.capabilities,
            &ip_address_pool,
            &labels,
            &deciding,
        );
        let local = child.is_local();
        let states = outlook.candidates(&owner);
        self.candidates = candidates(world, &electors, child, &states, endpoints, local);
        self.should_announce = self
            .candidates
            .iter()
            .find(|c| c.place == Some(1))
            .filter(|_| allocated)
            .map(|c| c.node.clone());
        self.because = because(&self.candidates, &deciding);
        self.judge(world, &plan, &owner, endpoints, local);
    }

    /// What is not as it should be, and what to do.
    fn judge(
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
        let no_pod = endpoints.as_ref().is_some_and(BTreeSet::is_empty);
        if !slot.allocated {
            let message = slot.message.clone().unwrap_or_default();
            self.remedies.push(format!(
                "MetalLB has not given Service {} its address: {message}. Its event says why: \
                 kubectl describe service -n {namespace} {}",
                slot.service, slot.service
            ));
        } else if no_pod {
            self.remedies.push(format!(
                "no pod of the Service serves, and MetalLB announces a Service only while one \
                 does: kubectl get endpointslices -n {namespace} -l \
                 kubernetes.io/service-name={}",
                slot.service
            ));
        } else if self.should_announce.is_none() {
            self.remedies
                .push("no node can announce it: the list above says why for each".to_owned());
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
        }
        match self.announced_by.as_slice() {
            // What is wrong with the election has been said.
            [one] if *one == slot.pin && !self.remedies.is_empty() => {}
            [] => self.remedies.push(format!(
                "nobody says that it announces it (ServiceL2Status), and {should} should: look at \
                 the log of its speaker in namespace {}, and for a stale configuration: kubectl \
                 l2lb check",
                world.options.metallb_namespace
            )),
            [one] if *one == should => {}
            [one] => {
                let why = slot.message.unwrap_or_default();
                self.remedies.push(format!(
                    "{one} announces it and {should} should{}{why}. In the first seconds after a \
                     change that is usual; afterwards the speaker of {should} has not read the \
                     present configuration, is older than the definitions, or cannot reach the \
                     others (7946/tcp and udp between nodes): kubectl l2lb check",
                    if why.is_empty() { "" } else { ": " }
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

/// The child that has or names an address.
pub(super) fn child_at(world: &World, address: IpAddr) -> Option<&Child> {
    let children = world.holders(address).filter_map(|key| world.child(key));
    let all: Vec<&Child> = children.map(|c| &**c).collect();
    let has = all.iter().find(|c| c.allocated.contains(&address));
    has.or(all.first()).copied()
}

/// Whose an address is: everything that lays a hand on it.
fn whose(world: &World, outlook: &Outlook, address: IpAddr) -> Vec<String> {
    let mut found = Vec::new();
    let held = world.is_held(address);
    let by_others = held && child_at(world, address).is_none();
    for holder in world.holders(address) {
        found.push(match world.child(holder) {
            Some(child) => {
                let lb = holder.name.rsplit_once('-').map_or("", |(name, _)| name);
                format!(
                    "slot {} of L2LoadBalancer {}/{lb}, from L2AddressPool {} (Service {holder})",
                    child.slot, holder.namespace, child.pool
                )
            }
            None => format!("Service {holder}, which is not one of l2lb"),
        });
    }
    if let Some(node) = outlook.node_with(address) {
        found.push(format!("an address of node {node}, and never given out"));
    }
    for (name, stored) in &world.pools {
        let Some(pool) = stored.valid() else { continue };
        let Ok(spec) = plan::pool::parse_spec(name, &pool.spec) else {
            continue;
        };
        if !spec.all.contains(address) {
            continue;
        }
        if !spec.usable.contains(address) {
            found.push(format!(
                "in L2AddressPool {name}, and excluded there by spec.excludedAddresses"
            ));
        } else if pool.spec.avoid_buggy_ips && is_buggy(address) {
            found.push(format!(
                "in L2AddressPool {name}, and left out by its spec.avoidBuggyIPs"
            ));
        } else if let Some((_, message)) = outlook.pool_refusal(name) {
            found.push(format!(
                "in L2AddressPool {name}, which is not used: {message}"
            ));
        } else if by_others {
            found.push(format!(
                "in L2AddressPool {name}, which does not give it out because others hold it"
            ));
        } else if !held {
            found.push(match outlook.reserved_by(address) {
                Some(key) => format!(
                    "free in L2AddressPool {name}, and reserved by spec.addresses of \
                     L2LoadBalancer {key}"
                ),
                None => format!("free in L2AddressPool {name}"),
            });
        }
    }
    for (name, stored) in &world.ip_address_pools {
        let Stored::Valid(pool) = stored else {
            continue;
        };
        let ours = plan::pool::owned_pool(&pool.metadata).is_some();
        if !ours && metallb_ranges(&pool.spec).contains(address) {
            found.push(format!(
                "in MetalLB's IPAddressPool {name}, which is not one of l2lb"
            ));
        }
    }
    for (name, ranges) in &world.service_cidrs {
        if ranges.iter().any(|r| r.contains(address)) {
            found.push(format!("in ServiceCIDR {name}: a cluster address"));
        }
    }
    if found.is_empty() {
        let pools: Vec<&str> = world.pools.keys().map(String::as_str).collect();
        found.push(if pools.is_empty() {
            "in no pool: there is no L2AddressPool".to_owned()
        } else {
            format!(
                "in none of the L2AddressPools ({}), and no Service has it",
                pools.join(", ")
            )
        });
    }
    found
}

fn candidates(
    world: &World,
    electors: &[Elector<'_>],
    child: &Child,
    states: &[(String, NodeState)],
    endpoints: &Endpoints,
    local: bool,
) -> Vec<Candidate> {
    let mut place = 0;
    let mut all: Vec<Candidate> = electors
        .iter()
        .map(|elector| {
            let node = elector.node;
            let state = states
                .iter()
                .find(|(n, _)| *n == node.name)
                .map(|(_, s)| *s);
            let has_pod = match endpoints {
                Some(nodes) if local => nodes.contains(&node.name),
                Some(nodes) => !nodes.is_empty(),
                None => true,
            };
            let part = elector.barred.is_none() && has_pod;
            place += usize::from(part);
            let why = match elector.barred {
                Some(barred) => sentence(world, barred),
                None if !has_pod && local => {
                    "no pod that serves runs on it (externalTrafficPolicy: Local)".to_owned()
                }
                None if !has_pod => "no pod of the Service serves".to_owned(),
                None => may(state),
            };
            let value = node.value();
            Candidate {
                node: node.name.clone(),
                place: part.then_some(place),
                weight: elector.weight,
                home: child.home == value,
                pin: child.pin == value,
                state: state.map(NodeState::as_str),
                advertisements: elector
                    .advertisements
                    .iter()
                    .map(|a| (*a).to_owned())
                    .collect(),
                why,
            }
        })
        .collect();
    // Those without a pod come after those that take part.
    all.sort_by_key(|c| c.place.unwrap_or(usize::MAX));
    all
}

/// What the planner makes of a node that MetalLB may elect.
fn may(state: Option<NodeState>) -> String {
    match state {
        Some(NodeState::Serving) => "may announce".to_owned(),
        Some(NodeState::Drained) => {
            "may announce; it is drained, so that others are pinned".to_owned()
        }
        Some(NodeState::Cordoned) => {
            "may announce; it is cordoned, so that others are pinned".to_owned()
        }
        Some(NodeState::NoInterface) => {
            "may be elected, and announces nothing: it has none of the pool's interfaces".to_owned()
        }
        Some(NodeState::NotIdentifiable) => format!(
            "may announce; it cannot be preferred without a label {} of its own",
            names::HOSTNAME
        ),
        Some(other) => format!("may announce, although it is {}", other.as_str()),
        None => "may announce, although it is no balancer node: an L2Advertisement of somebody \
                 else lists it"
            .to_owned(),
    }
}

fn sentence(world: &World, barred: Barred) -> String {
    match barred {
        Barred::NotListed => "no L2Advertisement for this pool and Service lists it".to_owned(),
        Barred::NotReady => "it is not ready, so that its speaker counts as dead".to_owned(),
        Barred::NetworkUnavailable => "its condition NetworkUnavailable is True".to_owned(),
        Barred::Excluded => format!("it is labelled {}", names::EXCLUDE_NODE),
        Barred::Cordoned => {
            "it is cordoned, and MetalLB 0.14.9 announces nothing from such a node".to_owned()
        }
        Barred::NoSpeaker => format!(
            "no MetalLB speaker runs on it (kubectl get pods -n {} -o wide)",
            world.options.metallb_namespace
        ),
        Barred::NoMemberlist => {
            "its speaker runs without memberlist, and MetalLB before 0.15 announces nothing then"
                .to_owned()
        }
    }
}

/// Why the first is the first.
fn because(candidates: &[Candidate], deciding: &str) -> Option<String> {
    let mut part = candidates.iter().filter(|c| c.place.is_some());
    let first = part.next()?;
    Some(match part.next() {
        None => "no other node takes part".to_owned(),
        Some(second) if second.weight < first.weight => {
            format!("its weight {} is the highest", first.weight)
        }
        Some(_) => format!(
            "among those of weight {} its sha256(node#{deciding}) is the lowest",
            first.weight
        ),
    })
}
