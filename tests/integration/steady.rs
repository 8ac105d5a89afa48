//! A steady world produces no write; drift is repaired, and what others own
//! is left.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use kube::ResourceExt;
use kube::api::ListParams;
use l2lb::api::names;
use l2lb_lab::{Connection, Lab, Netns};
use serde_json::json;

use crate::cluster::{Cluster, PATIENCE, ensure_same, label};
use crate::controllers::leads;

/// No write in ten seconds, nor by a controller that starts anew, nor for
/// news that changes nothing.
pub async fn no_write_in_a_steady_state(lab: Lab) -> Result<()> {
    let cluster = Cluster::new(lab).await?;
    cluster.nodes(["node-1", "node-2", "node-3"]).await?;
    cluster.pool("203.0.113.0/27").await?;
    for name in ["one", "two", "three"] {
        cluster.load_balancer(name).await?;
    }
    // One that cannot be served is steady, too.
    cluster
        .apply(&crate::cluster::load_balancer("shop", "lost", "nowhere"))
        .await?;
    let args = ["--lease-namespace=default"];
    let controller = cluster.controller_with("l2lb-controller", &args, None)?;
    for name in ["one", "two", "three"] {
        cluster.slots("shop", name, 3).await?;
        cluster.announce("shop", name).await?;
        cluster.condition("shop", name, "Pinned", "Ok").await?;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;

    let before = cluster.writes()?;
    ensure!(
        !before.is_empty(),
        "the controller's writes are not told from others'"
    );
    tokio::time::sleep(Duration::from_secs(10)).await;
    let after = cluster.writes()?;
    ensure!(
        after.len() == before.len(),
        "written: {:?}",
        &after[before.len()..]
    );
    let renewals = cluster.lab.writes()?;
    let renewals = renewals
        .iter()
        .filter(|w| w.user_agent.starts_with("l2lb-controller/") && w.resource == "leases");
    ensure!(renewals.count() >= 2, "the Lease was not renewed");

    // Heartbeats and labels that matter to nobody.
    for round in 0..3 {
        cluster.set_ready("node-1", true).await?;
        cluster
            .change(
                &cluster.services("shop"),
                "one-0",
                json!({"metadata": {"annotations": {"example.org/round": round.to_string()}}}),
            )
            .await?;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let after = cluster.writes()?;
    ensure!(
        after.len() == before.len(),
        "written: {:?}",
        &after[before.len()..]
    );

    controller.terminate()?;
    let mut controller = controller;
    let how = controller.ended().await;
    ensure!(how == "exit status: 0", "it ended with {how}");
    // The next one leads, is ready and has planned before its writes are counted.
    let listen = "--listen=127.0.0.1:8081";
    let anew = [args[0], listen];
    let _controller = cluster.controller_with("anew", &anew, None)?;
    leads(&cluster, "anew").await?;
    until_it_plans().await?;
    tokio::time::sleep(Duration::from_secs(4)).await;
    let after = cluster.writes()?;
    ensure!(
        after.len() == before.len(),
        "written after a restart: {:?}",
        &after[before.len()..]
    );
    // It would have written: what goes missing returns.
    let services = cluster.services("shop");
    let old = services.get("one-0").await?.uid();
    cluster.delete(&services, "one-0").await?;
    cluster
        .until(&services, "one-0", "it to come back", |found| {
            found.is_some_and(|f| f.uid() != old)
        })
        .await?;
    Ok(())
}

/// Waits until the controller that listens at 127.0.0.1:8081 is ready and has
/// made a plan.
async fn until_it_plans() -> Result<()> {
    let here = SocketAddr::from(([127, 0, 0, 1], 8081));
    let start = Instant::now();
    loop {
        let get = async |path| {
            Connection::open(&Netns::ControlPlane, here)
                .await?
                .get(path)
                .await
        };
        let (ready, metrics) = (get("/readyz").await, get("/metrics").await);
        let has_planned = metrics.as_ref().is_ok_and(|metrics| {
            let mut lines = metrics.body.lines();
            let count = lines.find_map(|l| l.strip_prefix("l2lb_plans_total "));
            count.is_some_and(|count| count != "0")
        });
        if has_planned && ready.as_ref().is_ok_and(|r| r.status == 200) {
            return Ok(());
        }
        ensure!(
            start.elapsed() < PATIENCE,
            "the controller does not come to plan: {ready:?}, {metrics:?}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What is ours is put right, what others added stays.
pub async fn drift_is_repaired(lab: Lab) -> Result<()> {
    let cluster = Cluster::new(lab).await?;
    // Enough slots that none is changed so often that the controller takes it
    // for a fight with another one.
    cluster
        .nodes(["node-1", "node-2", "node-3", "node-4", "node-5"])
        .await?;
    cluster.pool("203.0.113.0/27").await?;
    cluster.load_balancer("web").await?;
    let _controller = cluster.controller()?;
    let before = cluster.slots("shop", "web", 5).await?;
    cluster.announce("shop", "web").await?;
    cluster.condition("shop", "web", "Pinned", "Ok").await?;
    let services = cluster.services("shop");

    // Somebody else's part, which must survive everything below.
    let others = json!({"metadata": {
        "labels": {"example.org/team": "blue"},
        "annotations": {"example.org/note": "keep"},
        "finalizers": ["example.org/hold"],
    }});
    for name in before.keys() {
        cluster.change(&services, name, others.clone()).await?;
    }
    // Fields that nobody asked for are theirs to set.
    let free = json!({"spec": {"sessionAffinity": "ClientIP", "externalTrafficPolicy": "Local"}});
    cluster.change(&services, "web-0", free).await?;

    let drifts = [
        json!({"metadata": {"labels": {names::MANAGED_BY: "l2lb", names::PIN: "node-9"}}}),
        json!({"metadata": {"labels": {names::HOME: "node-5"}}}),
        json!({"metadata": {"labels": {names::CANDIDATES: null}}}),
        json!({"metadata": {"annotations": {names::METALLB_IPS: "203.0.113.29"}}}),
        json!({"metadata": {"annotations": {names::METALLB_IPS: null}}}),
        json!({"metadata": {"annotations": {names::METALLB_POOL: "somewhere"}}}),
        json!({"metadata": {"annotations": {names::TEMPLATE: null}}}),
        json!({"metadata": {"ownerReferences": null}}),
        json!({"spec": {"ports": [{"name": "http", "port": 8081, "targetPort": 8080}]}}),
        json!({"spec": {"ports": [
            {"name": "http", "port": 80, "targetPort": 9090},
            {"name": "more", "port": 22, "targetPort": 22},
        ]}}),
        json!({"spec": {"ports": [{"name": "web", "port": 80, "protocol": "UDP"}]}}),
        json!({"spec": {"selector": {"app": "other"}}}),
        json!({"spec": {"selector": {"tier": "more"}}}),
        json!({"spec": {"allocateLoadBalancerNodePorts": true}}),
    ];
    for (drift, (name, good)) in drifts.into_iter().zip(before.iter().cycle()) {
        cluster.change(&services, name, drift.clone()).await?;
        cluster
            .until(&services, name, &format!("repair of {drift}"), |found| {
                found.is_some_and(|found| is_repaired(good, found))
            })
            .await?;
    }
    let after = cluster.children("shop", "web").await?;
    ensure_same(&before, &after)?;
    for (name, service) in &after {
        ensure!(
            label(service, "example.org/team") == "blue",
            "{name} lost a label of others"
        );
        ensure!(
            service
                .annotations()
                .get("example.org/note")
                .is_some_and(|n| n == "keep"),
            "{name} lost an annotation of others"
        );
        ensure!(
            service.finalizers() == ["example.org/hold"],
            "{name} lost a finalizer of others"
        );
    }
    let service = services.get("web-0").await?;
    let spec = service.spec.clone().unwrap_or_default();
    ensure!(
        spec.session_affinity.as_deref() == Some("ClientIP")
            && spec.external_traffic_policy.as_deref() == Some("Local"),
        "a field that is not ours was changed: {spec:?}"
    );

    // Ports that were repaired can be changed in the spec.
    cluster
        .change(
            &cluster.load_balancers("shop"),
            "web",
            json!({"spec": {"service": {"ports": [{"name": "http", "port": 8088, "targetPort": 8080}]}}}),
        )
        .await?;
    for name in ["web-0", "web-1"] {
        cluster
            .until(&services, name, "the new port alone", |found| {
                let ports = found
                    .and_then(|s| s.spec.as_ref()?.ports.clone())
                    .unwrap_or_default();
                ports.iter().map(|p| p.port).collect::<Vec<_>>() == [8088]
            })
            .await?;
    }

    // MetalLB's objects.
    let name = cluster
        .advertisements()
        .list(&ListParams::default())
        .await?
        .items
        .remove(0)
        .name_any();
    let good = cluster.advertisements().get(&name).await?;
    for drift in [
        json!({"metadata": {"labels": {"example.org/team": "blue", names::POOL: "edge", names::PIN: "x"}}}),
        json!({"spec": {"preferredNodeSelectors": []}}),
        json!({"spec": {"serviceSelectors": null}}),
    ] {
        cluster
            .change(&cluster.advertisements(), &name, drift.clone())
            .await?;
        cluster
            .until(
                &cluster.advertisements(),
                &name,
                &format!("repair of {drift}"),
                |found| {
                    found.is_some_and(|f| {
                        f.spec == good.spec && label(f, names::PIN) == label(&good, names::PIN)
                    })
                },
            )
            .await?;
    }
    let advertisement = cluster.advertisements().get(&name).await?;
    ensure!(
        label(&advertisement, "example.org/team") == "blue",
        "a label of others is gone"
    );
    let good = cluster.metallb_pools().get("l2lb-edge").await?;
    let drift = json!({"spec": {"addresses": ["192.0.2.0/24"], "autoAssign": true}});
    cluster
        .change(&cluster.metallb_pools(), "l2lb-edge", drift)
        .await?;
    cluster
        .until(
            &cluster.metallb_pools(),
            "l2lb-edge",
            "repair of the pool",
            |found| found.is_some_and(|f| f.spec == good.spec),
        )
        .await?;
    Ok(())
}

/// Everything that is ours is as it was.
fn is_repaired(good: &Service, found: &Service) -> bool {
    let labels = good
        .labels()
        .iter()
        .all(|(k, v)| found.labels().get(k) == Some(v));
    let annotations = good
        .annotations()
        .iter()
        .all(|(k, v)| found.annotations().get(k) == Some(v));
    let (good_spec, found_spec) = (good.spec.as_ref(), found.spec.as_ref());
    // A node port is the server's.
    let ports = |spec: Option<&ServiceSpec>| -> Vec<ServicePort> {
        let ports = spec.and_then(|s| s.ports.clone()).unwrap_or_default();
        ports
            .into_iter()
            .map(|p| ServicePort {
                node_port: None,
                ..p
            })
            .collect()
    };
    labels
        && annotations
        && ports(good_spec) == ports(found_spec)
        && good.owner_references() == found.owner_references()
        && good_spec.map(|s| (&s.selector, s.allocate_load_balancer_node_ports))
            == found_spec.map(|s| (&s.selector, s.allocate_load_balancer_node_ports))
}

/// What somebody deleted comes back as it was.
pub async fn what_goes_missing_returns(lab: Lab) -> Result<()> {
    let cluster = Cluster::new(lab).await?;
    cluster.nodes(["node-1", "node-2", "node-3"]).await?;
    cluster.pool("203.0.113.0/27").await?;
    cluster.load_balancer("web").await?;
    let _controller = cluster.controller()?;
    let before = cluster.slots("shop", "web", 3).await?;
    cluster.announce("shop", "web").await?;
    cluster.condition("shop", "web", "Pinned", "Ok").await?;

    let services = cluster.services("shop");
    for name in before.keys() {
        let old = services.get(name).await?;
        cluster.delete(&services, name).await?;
        let new = cluster
            .until(&services, name, "it to come back", |found| {
                found.is_some_and(|f| f.uid() != old.uid())
            })
            .await?;
        let same = |key: &str| new.as_ref().map(|n| label(n, key)) == Some(label(&old, key));
        ensure!(
            same(names::HOME) && same(names::SLOT),
            "{new:?} is not {old:?}"
        );
        ensure!(
            new.as_ref().map(crate::cluster::addresses) == Some(crate::cluster::addresses(&old)),
            "{name} has another address: {new:?}"
        );
    }
    // All at once, so that addresses could be mixed up.
    for name in before.keys() {
        cluster.delete(&services, name).await?;
    }
    cluster
        .until(&services, "web-2", "it to come back", |found| {
            found.is_some()
        })
        .await?;
    cluster.announce("shop", "web").await?;
    cluster.condition("shop", "web", "Pinned", "Ok").await?;
    let after = cluster.children("shop", "web").await?;
    for (name, old) in &before {
        let new = after.get(name).map(crate::cluster::addresses);
        ensure!(
            new == Some(crate::cluster::addresses(old)),
            "{name} has {new:?}"
        );
    }

    let advertisements = cluster.advertisements();
    for advertisement in advertisements.list(&ListParams::default()).await? {
        let name = advertisement.name_any();
        cluster.delete(&advertisements, &name).await?;
        cluster
            .until(&advertisements, &name, "it to come back", |found| {
                found
                    .is_some_and(|f| f.uid() != advertisement.uid() && f.spec == advertisement.spec)
            })
            .await?;
    }
    let pool = cluster.metallb_pools().get("l2lb-edge").await?;
    cluster
        .delete(&cluster.metallb_pools(), "l2lb-edge")
        .await?;
    cluster
        .until(
            &cluster.metallb_pools(),
            "l2lb-edge",
            "it to come back",
            |found| found.is_some_and(|f| f.uid() != pool.uid() && f.spec == pool.spec),
        )
        .await?;
    cluster.condition("shop", "web", "Ready", "Ok").await?;
    Ok(())
}
