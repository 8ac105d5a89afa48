//! Looks at a cluster again and again while a node is emptied, which may take
//! an API server down with it.

use std::time::Duration;

use futures::future::{try_join, try_join_all};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until, timeout};

use crate::api::names;
use crate::cli::cluster::{Cluster, Target, is_forbidden, observe};
use crate::controller::resource;
use crate::world::{Kind, World};

/// How long is waited between two looks, at first and at last: most nodes are
/// empty within a second, and those that are not take long.
const WAIT: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(3));
/// After which time everything is read anew: other nodes and speakers change
/// seldom, and matter where something cannot leave.
const ANEW: Duration = Duration::from_secs(15);
/// How long a look may take, and one at everything.
const ANSWER: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(30));

/// Objects of the API, with their kinds.
type Objects = Vec<(Kind, Value)>;

/// Looks at one cluster for the sake of one node.
pub(super) struct Looks<'a> {
    target: &'a Target,
    cluster: Cluster,
    node: &'a str,
    /// The world without the objects that move.
    rest: World,
    /// When that was read.
    read_at: Instant,
    /// When patience ends, if ever.
    end: Option<Instant>,
    wait: Duration,
    /// Why the last look failed, if it did.
    trouble: Option<String>,
}

impl<'a> Looks<'a> {
    /// Connects, and looks for the first time.
    ///
    /// # Errors
    /// What went wrong: a wrong kubeconfig does not mend while one waits.
    pub async fn begin(
        target: &'a Target,
        node: &'a str,
        patience: Duration,
    ) -> Result<(Self, World), String> {
        Self::at(target.connect().await?, target, node, patience).await
    }

    async fn at(
        cluster: Cluster,
        target: &'a Target,
        node: &'a str,
        patience: Duration,
    ) -> Result<(Self, World), String> {
        let (rest, moving) = everything(&cluster, node).await?;
        let world = joined(&rest, moving)?;
        let now = Instant::now();
        let looks = Self {
            target,
            cluster,
            node,
            rest,
            read_at: now,
            end: now.checked_add(patience),
            wait: WAIT.0,
            trouble: None,
        };
        Ok((looks, world))
    }

    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Whether patience has ended.
    pub fn are_over(&self) -> bool {
        self.end.is_some_and(|end| Instant::now() >= end)
    }

    /// What an end should say of a last look that failed.
    pub fn trouble(&self) -> String {
        self.trouble
            .as_ref()
            .map_or_else(String::new, |why| format!(" (the last look failed: {why})"))
    }

    /// Waits, and looks again. Nothing when that failed, which is said when it
    /// begins.
    pub async fn again(&mut self) -> Option<World> {
        let next = Instant::now() + self.wait;
        sleep_until(self.end.map_or(next, |end| end.min(next))).await;
        self.wait = (self.wait * 3 / 2).min(WAIT.1);
        match self.look().await {
            Ok(world) => {
                if self.trouble.take().is_some() {
                    eprintln!("the cluster can be read again");
                }
                Some(world)
            }
            Err(why) => {
                if self.trouble.is_none() {
                    eprintln!("the cluster cannot be read now, which is tried again: {why}");
                }
                self.trouble = Some(why);
                None
            }
        }
    }

    async fn look(&mut self) -> Result<World, String> {
        let anew = self.read_at.elapsed() > ANEW;
        let limit = if anew { ANSWER.1 } else { ANSWER.0 };
        let answer = timeout(limit, read(&self.cluster, self.node, anew)).await;
        let Ok(answer) = answer else {
            // Its connections may lead to a machine that is gone.
            if let Ok(cluster) = self.target.connect().await {
                self.cluster = cluster;
            }
            return Err(format!("no answer within {} s", limit.as_secs()));
        };
        let (rest, moving) = answer?;
        if let Some(rest) = rest {
            self.rest = rest;
            self.read_at = Instant::now();
        }
        joined(&self.rest, moving)
    }
}

/// What moves, and all the rest if it is to be read anew.
async fn read(
    cluster: &Cluster,
    node: &str,
    anew: bool,
) -> Result<(Option<World>, Objects), String> {
    if anew {
        let (rest, moving) = everything(cluster, node).await?;
        Ok((Some(rest), moving))
    } else {
        Ok((None, what_moves(cluster, node).await?))
    }
}

/// Whether an object changes when a node is emptied or filled: the node, load
/// balancers, their Services, what speakers report, and where pods are, which
/// are often moved together with addresses.
fn moves(kind: Kind, object: &Value, node: &str) -> bool {
    match kind {
        Kind::LoadBalancer | Kind::ServiceL2Status | Kind::EndpointSlice => true,
        Kind::Service => {
            let labels = &object["metadata"]["labels"];
            labels[names::MANAGED_BY] == names::MANAGED_BY_VALUE
                && labels[names::LOAD_BALANCER].is_string()
        }
        Kind::Node => object["metadata"]["name"] == node,
        _ => false,
    }
}

/// Everything: the world of what does not move, and what does.
async fn everything(cluster: &Cluster, node: &str) -> Result<(World, Objects), String> {
    let lists = cluster.lists().await?;
    let mut rest = lists.empty;
    let mut moving = Vec::new();
    for (kind, list) in lists.of_kinds {
        for object in list {
            if moves(kind, &object, node) {
                moving.push((kind, object));
            } else {
                observe(&mut rest, kind, object)?;
            }
        }
    }
    Ok((rest, moving))
}

/// The objects that [`moves`] speaks of.
async fn what_moves(cluster: &Cluster, node: &str) -> Result<Objects, String> {
    let ours = format!(
        "{}={},{}",
        names::MANAGED_BY,
        names::MANAGED_BY_VALUE,
        names::LOAD_BALANCER
    );
    let lists = [
        (Kind::Service, Some(ours.as_str())),
        (Kind::LoadBalancer, None),
        (Kind::ServiceL2Status, None),
        (Kind::EndpointSlice, None),
    ];
    let lists = try_join_all(lists.map(|(kind, labels)| async move {
        let list = match cluster.list(kind, labels).await {
            Err(error) if resource::is_optional(kind) && is_forbidden(&error) => None,
            other => other.map_err(|e| format!("{} cannot be read: {e}", kind.as_str()))?,
        };
        let objects = list.into_iter().flatten().map(|object| (kind, object));
        Ok::<Objects, String>(objects.collect())
    }));
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    let itself = async {
        let found = nodes.get_opt(node).await;
        found.map_err(|e| format!("node {node} cannot be read: {e}"))
    };
    let (lists, itself) = try_join(lists, itself).await?;
    let itself = itself.map(|found| (Kind::Node, json!(found)));
    Ok(lists.into_iter().flatten().chain(itself).collect())
}

/// A world with objects that move.
fn joined(rest: &World, moving: Objects) -> Result<World, String> {
    let mut world = rest.clone();
    world.set_now(Timestamp::now());
    for (kind, object) in moving {
        observe(&mut world, kind, object)?;
    }
    Ok(world)
}

#[cfg(test)]
mod tests;
