//! The nodes, and what part each has in MetalLB's election.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Endpoints;
use crate::api::names;
use crate::metallb::election;
use crate::plan::electorate::{self, Barred, Elector};
use crate::plan::neighbours;
use crate::plan::outlook::NodeState;
use crate::world::{Child, Node, Stored, World};

/// A node's part.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::cli::why) struct Candidate {
    pub node: String,
    /// Its place in the election, from 1; none: it takes no part.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<usize>,
    /// The sum of its preferences.
    pub weight: i64,
    /// By which nodes of one weight are ordered: sha256(node#address).
    pub hash: String,
    pub home: bool,
    pub pin: bool,
    /// What the planner makes of it.
    pub state: Option<&'static str>,
    /// The L2Advertisements that list it.
    pub advertisements: Vec<String>,
    /// The weight that each of them gives it, of those that give one.
    pub weights: BTreeMap<String, i64>,
    /// Why it may announce or not.
    pub why: String,
}

/// Whose election it is.
pub(super) struct Election<'a> {
    pub world: &'a World,
    /// MetalLB's pool.
    pub pool: &'a str,
    /// The labels of the Service.
    pub labels: &'a BTreeMap<String, String>,
    /// The address that decides.
    pub deciding: &'a str,
    pub endpoints: &'a Endpoints,
    /// Only nodes with a pod take part.
    pub local: bool,
    /// The slot that the Service is, if it is one.
    pub child: Option<&'a Child>,
    /// What the planner makes of the nodes of a slot.
    pub states: Vec<(String, NodeState)>,
}

impl Election<'_> {
    /// The nodes, those first that take part, in order.
    pub fn candidates(&self) -> Vec<Candidate> {
        let electors = electorate::order(
            self.world,
            self.world.capabilities,
            self.pool,
            self.labels,
            self.deciding,
        );
        let mut place = 0;
        let mut all: Vec<Candidate> = electors
            .iter()
            .map(|elector| {
                let has_pod = self.has_pod(&elector.node.name);
                let part = elector.barred.is_none() && has_pod;
                place += usize::from(part);
                self.candidate(elector, part.then_some(place), has_pod)
            })
            .collect();
        // Those without a pod come after those that take part.
        all.sort_by_key(|c| c.place.unwrap_or(usize::MAX));
        all
    }

    fn has_pod(&self, node: &str) -> bool {
        match self.endpoints {
            Some(nodes) if self.local => nodes.contains(node),
            Some(nodes) => !nodes.is_empty(),
            None => true,
        }
    }

    fn candidate(&self, elector: &Elector<'_>, place: Option<usize>, has_pod: bool) -> Candidate {
        let node = elector.node;
        let state = self.states.iter().find(|(name, _)| *name == node.name);
        let state = state.map(|(_, state)| *state);
        let value = node.value();
        let weights = elector.advertisements.iter().map(|name| {
            let weight = weight(self.world, name, node);
            ((*name).to_owned(), weight)
        });
        let digest = election::rank(&node.name, self.deciding);
        Candidate {
            node: node.name.clone(),
            place,
            weight: elector.weight,
            hash: digest.iter().map(|byte| format!("{byte:02x}")).collect(),
            home: self.child.is_some_and(|c| c.home == value),
            pin: self.child.is_some_and(|c| c.pin == value),
            state: state.map(NodeState::as_str),
            weights: weights.filter(|(_, weight)| *weight != 0).collect(),
            advertisements: elector
                .advertisements
                .iter()
                .map(|name| (*name).to_owned())
                .collect(),
            why: match elector.barred {
                Some(barred) => sentence(self.world, barred),
                None if !has_pod && self.local => {
                    "no pod that serves runs on it (externalTrafficPolicy: Local)".to_owned()
                }
                None if !has_pod => "no pod of the Service serves".to_owned(),
                None if self.child.is_none() => "may announce".to_owned(),
                None => may(state),
            },
        }
    }
}

/// The weight that an advertisement gives a node.
fn weight(world: &World, advertisement: &str, node: &Node) -> i64 {
    let stored = world.l2_advertisements.get(advertisement);
    let Some(read) = stored.and_then(Stored::valid) else {
        return 0;
    };
    if world.capabilities.preferred_nodes {
        neighbours::weight(&read.spec, node)
    } else {
        0
    }
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
pub(super) fn because(candidates: &[Candidate], deciding: &str) -> Option<String> {
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
