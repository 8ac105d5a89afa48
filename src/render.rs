//! The plan without a cluster: from manifests to the objects that would be
//! applied and the status that would be written.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::api::names;
use crate::external_dns::Availability;
use crate::manifest::Manifest;
use crate::metallb::Capabilities;
use crate::plan::{Plan, Planner};
use crate::world::{Options, World, observe_manifest};

/// A world out of manifests. Objects of other kinds are left out and counted.
#[derive(Debug)]
pub struct FileWorld {
    /// The world.
    pub world: World,
    /// Kinds that do not matter to the plan, as `kind name`.
    pub ignored: Vec<String>,
}

/// Builds a world out of manifests.
///
/// # Errors
/// A sentence that names the file and object that cannot be read.
pub fn world_of(
    manifests: Vec<Manifest>,
    now: Timestamp,
    options: Options,
    capabilities: Capabilities,
) -> Result<FileWorld, String> {
    let mut world = World::new(now, options, capabilities);
    world.set_external_dns(Availability::Served);
    let mut ignored = Vec::new();
    for Manifest {
        source_name,
        number,
        mut value,
    } in manifests
    {
        let kind = value["kind"].as_str().unwrap_or_default().to_owned();
        let name = value["metadata"]["name"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let namespaced = matches!(kind.as_str(), "L2LoadBalancer" | "Service" | "DNSEndpoint");
        if namespaced && value["metadata"]["namespace"].is_null() {
            // What kubectl would do.
            value["metadata"]["namespace"] = json!("default");
        }
        match observe_manifest(value) {
            Ok(Some(observed)) => world.observe(observed),
            Ok(None) => ignored.push(format!("{kind} {name}")),
            Err(error) => {
                return Err(format!(
                    "{source_name}, document {number}: {kind} {name}: {error}"
                ));
            }
        }
    }
    Ok(FileWorld { world, ignored })
}

/// Everything that a plan would apply, MetalLB's objects first, then the
/// Services, each load balancer's followed by its DNSEndpoint, then our own kinds with the status that they would get. The
/// order is stable.
pub fn objects(world: &World) -> Vec<Value> {
    let mut world = world.clone();
    let mut planner = Planner::default();
    planner.plan(&world);
    world.set_evenness(planner.evenness());
    let plan = planner.plan(&world);
    let mut all = Vec::new();
    for pool in plan.pools.values() {
        all.extend(pool.objects.iter().cloned());
    }
    for load_balancer in plan.load_balancers.values() {
        all.extend(load_balancer.services().map(|service| json!(service)));
        all.extend(load_balancer.dns_endpoint.clone());
    }
    all.extend(statuses(&plan));
    all
}

fn statuses(plan: &Plan) -> Vec<Value> {
    let api_version = format!("{}/{}", names::GROUP, names::VERSION);
    let pools = plan.pools.iter().map(|(name, pool)| {
        json!({"apiVersion": api_version, "kind": "L2AddressPool",
               "metadata": {"name": name}, "status": pool.status})
    });
    let load_balancers = plan.load_balancers.iter().map(|(key, lb)| {
        json!({"apiVersion": api_version, "kind": "L2LoadBalancer",
               "metadata": {"name": key.name, "namespace": key.namespace}, "status": lb.status})
    });
    pools.chain(load_balancers).collect()
}
