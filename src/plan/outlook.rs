//! The planner's view of a live world, for people: what it makes of each
//! node, who may announce an address, and who would take it over.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::ability::Trouble;
use super::announcement::{endpoints, has_pod};
use super::environment::{CandidateSet, Environment, Member, NodeIds, NodeView, Standing};
use super::evenness;
use super::gate::{self, Gate};
use super::load_balancer::Served;
use super::pool::PoolView;
use crate::api::{OnCordon, Reason};
use crate::metallb::election;
use crate::world::{Child, Key, World};

/// The planner's view of a world.
pub(crate) struct Outlook {
    environment: Environment,
    gates: BTreeMap<Key, Gate>,
}

/// What the planner makes of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NodeState {
    /// It announces.
    Serving,
    /// It is cordoned.
    Cordoned,
    /// It carries the annotation `l2lb.io/drain`.
    Drained,
    /// It is not Ready.
    NotReady,
    /// It has no network.
    NetworkUnavailable,
    /// No speaker runs on it.
    NoSpeaker,
    /// Its speaker runs without memberlist and announces nothing therefore.
    NoMemberlist,
    /// It has none of a pool's interfaces.
    NoInterface,
    /// It is labelled against load balancers, or being deleted.
    Excluded,
    /// It lacks `kubernetes.io/hostname`, or shares it with another node.
    NotIdentifiable,
}

impl NodeState {
    /// One word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Serving => "Serving",
            Self::Cordoned => "Cordoned",
            Self::Drained => "Drained",
            Self::NotReady => "NotReady",
            Self::NetworkUnavailable => "NetworkUnavailable",
            Self::NoSpeaker => "SpeakerMissing",
            Self::NoMemberlist => "MemberlistOff",
            Self::NoInterface => "InterfaceMissing",
            Self::Excluded => "Excluded",
            Self::NotIdentifiable => "NotIdentifiable",
        }
    }
}

impl From<Trouble> for NodeState {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::NotReady => Self::NotReady,
            Trouble::NetworkUnavailable => Self::NetworkUnavailable,
            Trouble::NoSpeaker => Self::NoSpeaker,
            Trouble::NoMemberlist => Self::NoMemberlist,
            Trouble::NoInterface => Self::NoInterface,
        }
    }
}

/// A node, as the planner sees it.
#[derive(Clone, Debug)]
pub(crate) struct NodeOutlook {
    /// Its name.
    pub name: String,
    /// What is most wrong with it.
    pub state: NodeState,
}

impl Outlook {
    /// Reads it from a world.
    pub fn of(world: &World) -> Self {
        let nothing = Environment::default();
        let mut environment = Environment::read(world, &nothing);
        let mut ids = NodeIds::default();
        let order = environment.order.clone();
        let gates = order
            .into_iter()
            .map(|key| {
                let gate = gate::judge(world, &mut environment, &nothing, &key, &mut ids, None);
                (key, gate)
            })
            .collect();
        Self { environment, gates }
    }

    /// The nodes by name.
    pub fn nodes(&self) -> impl Iterator<Item = NodeOutlook> + '_ {
        self.environment.nodes.iter().map(|node| NodeOutlook {
            name: node.name.clone(),
            state: state(node),
        })
    }

    /// A node's name from its label value.
    pub fn node_name(&self, value: &str) -> String {
        super::load_balancer::display_name(&self.environment, value)
    }

    /// Why a load balancer is not served.
    pub fn refusal(&self, key: &Key) -> Option<(Reason, &str)> {
        match self.gates.get(key)? {
            Gate::Shut { verdict, .. } => Some((verdict.reason, &verdict.message)),
            _ => None,
        }
    }

    /// The candidates of a load balancer, by name, with what the planner
    /// makes of each. Nothing while it is not served.
    pub fn candidates(&self, key: &Key) -> Vec<(String, NodeState)> {
        let Some((served, set)) = self.set(key) else {
            return Vec::new();
        };
        let members = set.members.iter().map(|m| {
            let view = self.environment.node(&m.value);
            let state = match (m.trouble, m.standing) {
                (Some(trouble), _) => trouble.into(),
                (None, Standing::Serving) => NodeState::Serving,
                (None, _) if view.is_some_and(|v| v.drained) => NodeState::Drained,
                (None, _) => NodeState::Cordoned,
            };
            (m.name.clone(), state)
        });
        let strangers = set.unidentifiable.iter();
        let strangers = strangers.map(|(name, _)| (name.clone(), NodeState::NotIdentifiable));
        let excluded = self.environment.nodes.iter().filter(|n| {
            let selector = served.pool.node_selector.and(&set.selector);
            n.excluded && selector.matches(&n.labels)
        });
        let excluded = excluded.map(|n| (n.name.clone(), NodeState::Excluded));
        members.chain(strangers).chain(excluded).collect()
    }

    /// Whether a load balancer or its pool names the nodes that are meant, rather
    /// than all of them being selected.
    pub fn names_nodes(&self, key: &Key) -> bool {
        self.set(key)
            .is_some_and(|(_, set)| !set.selector.is_everything())
    }

    /// Who takes over a child's addresses when the node that has them, `holder`,
    /// fails and nobody steers.
    pub fn heir(&self, world: &World, child: &Child, holder: &str) -> Option<&str> {
        let (_, set) = self.set(&child.load_balancer())?;
        let pin = set.member(&child.pin)?;
        let deciding = election::deciding_address(&child.addresses)?;
        let pods = self.pods(world, child);
        let has_pod = |m: &Member| has_pod(pods.as_ref(), &m.name);
        let own = child.has_own_pool();
        let heir = evenness::heir(set, pin, own, &deciding, holder, has_pod)?;
        Some(&heir.name)
    }

    /// The nodes with a ready pod of a child, perhaps none, where only such nodes
    /// announce it and they are known.
    pub fn pods<'w>(&self, world: &'w World, child: &Child) -> Option<BTreeSet<&'w str>> {
        let (served, _) = self.set(&child.load_balancer())?;
        endpoints(world, served, &child.key)
    }

    /// Whether cordoning means nothing to a pool.
    pub fn ignores_cordon(&self, pool: &str) -> bool {
        self.pool(pool)
            .is_some_and(|p| p.on_cordon == OnCordon::Ignore)
    }

    /// Who reserves an address in `spec.addresses`: the oldest that names it.
    pub fn reserved_by(&self, address: IpAddr) -> Option<&Key> {
        self.environment.reserved.get(&address)
    }

    /// The node that an address belongs to.
    pub fn node_with(&self, address: IpAddr) -> Option<&str> {
        self.environment
            .node_addresses
            .get(&address)
            .map(String::as_str)
    }

    /// Why a pool is not used, if it is not.
    pub fn pool_refusal(&self, pool: &str) -> Option<(Reason, String)> {
        self.pool(pool)?.usable().err()
    }

    /// Nodes that lack a pool's interfaces, and those interfaces.
    pub fn lacking(&self, pool: &str) -> Option<(Vec<String>, Vec<String>)> {
        let pool = self.pool(pool)?;
        let nodes: Vec<String> = pool.lacking.nodes.iter().cloned().collect();
        (!nodes.is_empty()).then(|| (nodes, pool.interfaces.clone()))
    }

    fn pool(&self, name: &str) -> Option<&PoolView> {
        self.environment.pools.get(name).map(|p| &**p)
    }

    fn set(&self, key: &Key) -> Option<(&Served, &CandidateSet)> {
        match self.gates.get(key)? {
            Gate::Open(served) => Some((served, &served.set)),
            _ => None,
        }
    }
}

fn state(node: &NodeView) -> NodeState {
    if node.excluded {
        NodeState::Excluded
    } else if let Some(trouble) = node.trouble {
        trouble.into()
    } else if !node.identifiable {
        NodeState::NotIdentifiable
    } else if node.drained {
        NodeState::Drained
    } else if node.cordoned {
        NodeState::Cordoned
    } else {
        NodeState::Serving
    }
}
