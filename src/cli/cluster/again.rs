//! A world that is read again and again: what moves each time, the rest now and
//! then.

use std::time::Duration;

use futures::future::{try_join, try_join_all};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use super::read::{Freshness, Unreadable, observe};
use super::{Cluster, Target, is_forbidden};
use crate::api::names;
use crate::controller::resource;
use crate::world::{Kind, World};

/// After which time everything is read anew: the other objects change seldom.
pub(in crate::cli) const ANEW: Duration = Duration::from_secs(15);

/// Which nodes are looked at each time.
#[derive(Clone, Copy, Debug)]
pub(in crate::cli) enum Nodes<'a> {
    /// One, for whose sake it is done: it must be seen as it is.
    One(&'a str),
    /// All of them, and pools: to be shown, for which what the API server
    /// remembers is fresh enough.
    All,
}

/// Objects of the API, with their kinds.
type Objects = Vec<(Kind, Value)>;

/// What is kept from one look to the next.
#[derive(Debug)]
pub(in crate::cli) struct Kept<'a> {
    nodes: Nodes<'a>,
    /// The world without the objects that move.
    rest: World,
    /// When that was read.
    read_at: Instant,
}

impl<'a> Kept<'a> {
    /// Reads everything for the first time.
    ///
    /// # Errors
    /// As [`Cluster::world`].
    pub async fn first(cluster: &Cluster, nodes: Nodes<'a>) -> Result<(Self, World), Unreadable> {
        let (rest, moving) = everything(cluster, nodes).await?;
        let world = joined(&rest, moving).map_err(Unreadable::Failed)?;
        let kept = Self {
            nodes,
            rest,
            read_at: Instant::now(),
        };
        Ok((kept, world))
    }

    /// Whether the next look is at everything.
    pub fn is_old(&self) -> bool {
        self.read_at.elapsed() > ANEW
    }

    /// Looks again.
    ///
    /// # Errors
    /// A sentence that names what could not be read.
    pub async fn again(&mut self, cluster: &Cluster) -> Result<World, String> {
        if self.is_old() {
            let (kept, world) = Self::first(cluster, self.nodes).await?;
            *self = kept;
            return Ok(world);
        }
        joined(&self.rest, what_moves(cluster, self.nodes).await?)
    }
}

/// Looks at a cluster, and if nobody answers in time, connects anew: the
/// connection may lead to a machine that is gone.
///
/// # Errors
/// That of the look, or that there was no answer.
pub(in crate::cli) async fn within<T>(
    limit: Duration,
    cluster: &mut Cluster,
    target: &Target,
    look: impl AsyncFnOnce(&Cluster) -> Result<T, String>,
) -> Result<T, String> {
    if let Ok(answer) = timeout(limit, look(cluster)).await {
        return answer;
    }
    if let Ok(anew) = target.connect().await {
        *cluster = anew;
    }
    Err(format!("no answer within {} s", limit.as_secs()))
}

/// Whether an object changes while addresses move: nodes, load balancers, their
/// Services, what speakers report, and where pods are, which are often moved
/// together with addresses.
fn moves(kind: Kind, object: &Value, nodes: Nodes<'_>) -> bool {
    match kind {
        Kind::LoadBalancer | Kind::ServiceL2Status | Kind::EndpointSlice => true,
        Kind::Service => {
            let labels = &object["metadata"]["labels"];
            labels[names::MANAGED_BY] == names::MANAGED_BY_VALUE
                && labels[names::LOAD_BALANCER].is_string()
        }
        Kind::Node => match nodes {
            Nodes::One(node) => object["metadata"]["name"] == node,
            Nodes::All => true,
        },
        Kind::AddressPool => matches!(nodes, Nodes::All),
        _ => false,
    }
}

/// Everything: the world of what does not move, and what does.
async fn everything(cluster: &Cluster, nodes: Nodes<'_>) -> Result<(World, Objects), Unreadable> {
    let lists = cluster.lists().await?;
    let mut rest = lists.empty;
    let mut moving = Vec::new();
    for (kind, list) in lists.of_kinds {
        for object in list {
            if moves(kind, &object, nodes) {
                moving.push((kind, object));
            } else {
                observe(&mut rest, kind, object).map_err(Unreadable::Failed)?;
            }
        }
    }
    Ok((rest, moving))
}

/// The objects that [`moves`] speaks of.
async fn what_moves(cluster: &Cluster, nodes: Nodes<'_>) -> Result<Objects, String> {
    let ours = format!(
        "{}={},{}",
        names::MANAGED_BY,
        names::MANAGED_BY_VALUE,
        names::LOAD_BALANCER
    );
    let mut kinds = vec![
        (Kind::Service, Some(ours.as_str())),
        (Kind::LoadBalancer, None),
        (Kind::ServiceL2Status, None),
        (Kind::EndpointSlice, None),
    ];
    let (freshness, one) = match nodes {
        Nodes::One(node) => (Freshness::Newest, Some(node)),
        Nodes::All => {
            kinds.extend([(Kind::Node, None), (Kind::AddressPool, None)]);
            (Freshness::Remembered, None)
        }
    };
    let lists = try_join_all(kinds.into_iter().map(|(kind, labels)| async move {
        let list = match cluster.list(kind, labels, freshness).await {
            Err(error) if resource::is_optional(kind) && is_forbidden(&error) => None,
            other => other.map_err(|e| format!("{} cannot be read: {e}", kind.as_str()))?,
        };
        let objects = list.into_iter().flatten().map(|object| (kind, object));
        Ok::<Objects, String>(objects.collect())
    }));
    let itself = async {
        let Some(name) = one else { return Ok(None) };
        let nodes: Api<Node> = Api::all(cluster.client.clone());
        let found = nodes.get_opt(name).await;
        found.map_err(|e| format!("node {name} cannot be read: {e}"))
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
mod tests {
    use std::sync::{Arc, Mutex};

    use super::super::read::tests::{cluster, failure, list};
    use super::*;

    /// What is shown again and again costs the API server's memory, and nothing more.
    #[tokio::test(start_paused = true)]
    async fn what_moves_is_read_from_memory() {
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let log = asked.clone();
        let cluster = cluster(move |path| {
            log.lock().unwrap().push(path.to_owned());
            if path.contains("/customresourcedefinitions/") {
                return failure(404, "there is none");
            }
            let ours = path.contains("labelSelector") && path.contains("/services?");
            let is_service = path.contains("/services");
            if is_service && !ours {
                list(&["db"], "")
            } else if path.contains("/nodes") {
                list(&["node-1", "node-2"], "")
            } else {
                list(&[], "")
            }
        });
        let take = || std::mem::take(&mut *asked.lock().unwrap());
        let (mut kept, world) = Kept::first(&cluster, Nodes::All).await.unwrap();
        assert_eq!((world.nodes.len(), world.foreign_services.len()), (2, 1));
        assert!(take().iter().all(|path| !path.contains("resourceVersion")));

        let world = kept.again(&cluster).await.unwrap();
        assert_eq!((world.nodes.len(), world.foreign_services.len()), (2, 1));
        let again = take();
        assert_eq!(again.len(), 6, "{again:?}");
        assert!(again.iter().all(|path| path.contains("resourceVersion=0")));
        assert!(
            again.iter().all(|path| !path.contains("limit=")),
            "{again:?}"
        );
        let services = again.iter().find(|path| path.contains("/services?"));
        assert!(services.unwrap().contains("labelSelector"), "{again:?}");

        tokio::time::sleep(ANEW + Duration::from_secs(1)).await;
        kept.again(&cluster).await.unwrap();
        assert!(take().len() > 10);
    }
}
