//! What is refused, by whomever, is said in a condition or on a slot, and
//! disturbs nobody else.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Namespace, ResourceQuota};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams};
use l2lb::api::names;
use l2lb::metallb::IpAddressPool;
use l2lb_lab::Lab;
use serde_json::json;

use crate::cluster::{
    Cluster, PATIENCE, addresses, ensure_same, identities, label, load_balancer, pool, slots_of,
};

/// A Service of somebody else has the name of a slot: it stays untouched, the
/// slot says so, and is served when the name is free.
pub async fn foreign_service(lab: Lab) -> Result<()> {
    let cluster = Cluster::new(lab).await?;
    cluster.nodes(["node-1", "node-2", "node-3"]).await?;
    // It even holds an address of the pool.
    let foreign = "
apiVersion: v1
kind: Service
metadata: {namespace: shop, name: web-1, labels: {app: theirs}}
spec: {selector: {app: theirs}, ports: [{port: 80}], externalIPs: [203.0.113.0, 203.0.113.3]}
";
    cluster.apply(foreign).await?;
    let services = cluster.services("shop");
    let before = services.get("web-1").await?;
    let _controller = cluster.controller()?;
    cluster.pool("203.0.113.0/28").await?;
    cluster.load_balancer("web").await?;
    cluster.load_balancer("other").await?;

    let sentence = "Service shop/web-1 exists and is not ours: rename or delete it";
    let condition = cluster
        .condition("shop", "web", "AddressesAllocated", "NameTaken")
        .await?;
    ensure!(
        condition.status == "False" && condition.message == sentence,
        "{condition:?}"
    );
    let lb = cluster
        .until(
            &cluster.load_balancers("shop"),
            "web",
            "the sentence on the slot",
            |lb| {
                slots_of(lb)
                    .iter()
                    .any(|s| s.service == "web-1" && s.message.as_deref() == Some(sentence))
            },
        )
        .await?;
    ensure!(slots_of(lb.as_ref()).len() == 3, "{lb:?}");
    cluster.slots("shop", "other", 3).await?;
    for name in ["web", "other"] {
        let children = cluster.children("shop", name).await?;
        cluster.announce("shop", name).await?;
        for child in children.values() {
            let addresses = crate::cluster::addresses(child);
            ensure!(
                !addresses
                    .iter()
                    .any(|a| a == "203.0.113.0" || a == "203.0.113.3"),
                "{} has an address of the foreign Service: {addresses:?}",
                child.name_any()
            );
        }
    }
    cluster.condition("shop", "other", "Ready", "Ok").await?;
    // Long enough for attempts to be repeated.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let after = services.get("web-1").await?;
    ensure!(
        before == after,
        "the foreign Service was changed: {after:?}"
    );

    let others = identities(&cluster.children("shop", "web").await?);
    cluster.delete(&services, "web-1").await?;
    let children = cluster.slots("shop", "web", 3).await?;
    ensure!(
        others
            .iter()
            .all(|(name, identity)| identities(&children).get(name) == Some(identity)),
        "{others:?} became {children:?}"
    );
    cluster.announce("shop", "web").await?;
    cluster
        .condition("shop", "web", "AddressesAllocated", "Ok")
        .await?;
    Ok(())
}

/// The API server refuses what the load balancer's spec would make of its Services.
/// They stay as they are, and their addresses go where they belong all the same.
pub async fn refused_services(lab: Lab) -> Result<()> {
    let cluster = Cluster::new(lab).await?;
    cluster.nodes(["node-1", "node-2", "node-3"]).await?;
    let _controller = cluster.controller()?;
    cluster.pool("203.0.113.0/28").await?;
    cluster.load_balancer("web").await?;
    let before = cluster.slots("shop", "web", 3).await?;
    cluster.announce("shop", "web").await?;
    cluster.condition("shop", "web", "Ready", "Ok").await?;
    let select = |app: &str| json!({"spec": {"service": {"selector": {"app": app}}}});
    let load_balancers = cluster.load_balancers("shop");
    cluster
        .change(&load_balancers, "web", select("a b"))
        .await?;
    let condition = cluster
        .condition("shop", "web", "AddressesAllocated", "Refused")
        .await?;
    ensure!(condition.message.contains("spec.selector"), "{condition:?}");

    let (name, service) = before.iter().next().context("there is no Service")?;
    let home = label(service, names::HOME);
    cluster.set_ready(&home, false).await?;
    let services = cluster.services("shop");
    let moved = cluster
        .until(&services, name, "another pin", |service| {
            service.is_some_and(|s| label(s, names::PIN) != home)
        })
        .await?
        .context("the Service is gone")?;
    ensure!(
        moved.spec.as_ref().and_then(|s| s.selector.as_ref())
            == service.spec.as_ref().and_then(|s| s.selector.as_ref())
            && addresses(&moved) == addresses(service),
        "{service:?} became {moved:?}"
    );
    // Server-side apply takes up what a patch has written.
    cluster.set_ready(&home, true).await?;
    cluster
        .change(&load_balancers, "web", select("new"))
        .await?;
    cluster
        .until(&services, name, "the new selector, at home", |service| {
            service.is_some_and(|s| {
                let selector = s.spec.as_ref().and_then(|spec| spec.selector.as_ref());
                selector.is_some_and(|all| all["app"] == "new") && label(s, names::PIN) == home
            })
        })
        .await?;
    cluster
        .condition("shop", "web", "AddressesAllocated", "Ok")
        .await?;
    Ok(())
}

/// A name that somebody else has, of MetalLB's pool.
pub async fn foreign_metallb_pool(lab: Lab) -> Result<()> {
    let cluster = Cluster::new(lab).await?;
    cluster.nodes(["node-1", "node-2"]).await?;
    let foreign = "
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {namespace: metallb-system, name: l2lb-edge}
spec: {addresses: [192.0.2.0/28]}
";
    cluster.apply(foreign).await?;
    let before = cluster.metallb_pools().get("l2lb-edge").await?;
    let _controller = cluster.controller()?;
    cluster.pool("203.0.113.0/28").await?;
    cluster.apply(&pool("other", "198.51.100.0/28")).await?;
    cluster.load_balancer("web").await?;
    cluster
        .apply(&load_balancer("shop", "other", "other"))
        .await?;
    cluster.slots("shop", "other", 2).await?;

    let sentence =
        "IPAddressPool metallb-system/l2lb-edge exists and is not ours: rename or delete it";
    let condition = cluster
        .pool_condition("edge", "Configured", "NameTaken")
        .await?;
    ensure!(condition.message == sentence, "{condition:?}");
    let condition = cluster
        .condition("shop", "web", "Accepted", "NameTaken")
        .await?;
    ensure!(condition.message.ends_with(sentence), "{condition:?}");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let after = cluster.metallb_pools().get("l2lb-edge").await?;
    ensure!(before == after, "the foreign pool was changed: {after:?}");
    ensure!(
        cluster.children("shop", "web").await?.is_empty(),
        "Services were made"
    );

    cluster
        .delete(&cluster.metallb_pools(), "l2lb-edge")
        .await?;
    cluster.slots("shop", "web", 2).await?;
    Ok(())
}

/// Only the namespaces that the pool selects are served.
pub async fn allowed_namespaces(lab: Lab) -> Result<()> {
    let cluster = Cluster::new(lab).await?;
    cluster.nodes(["node-1", "node-2"]).await?;
    cluster.namespace("allowed", json!({"edge": "ok"})).await?;
    let _controller = cluster.controller()?;
    let selective = pool("edge", "203.0.113.0/28")
        .trim_end()
        .trim_end_matches('}')
        .to_owned()
        + ", namespaceSelector: {matchLabels: {edge: ok}}}\n";
    cluster.apply(&selective).await?;
    cluster.load_balancer("web").await?;
    cluster
        .apply(&load_balancer("allowed", "web", "edge"))
        .await?;

    cluster.slots("allowed", "web", 2).await?;
    let condition = cluster
        .condition("shop", "web", "Accepted", "NamespaceNotAllowed")
        .await?;
    ensure!(
        condition.message
            == "namespace shop is not selected by spec.namespaceSelector of L2AddressPool edge: \
                label the namespace or use another pool",
        "{condition:?}"
    );
    ensure!(
        cluster.children("shop", "web").await?.is_empty(),
        "Services were made"
    );
    // MetalLB is told the same.
    let metallb = cluster.metallb_pools().get("l2lb-edge").await?;
    let allocation = metallb
        .spec
        .service_allocation
        .context("it is for everybody")?;
    ensure!(allocation.namespace_selectors.len() == 1, "{allocation:?}");

    // The label decides, both ways; what was given is not taken away.
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    cluster
        .change(
            &namespaces,
            "shop",
            json!({"metadata": {"labels": {"edge": "ok"}}}),
        )
        .await?;
    let before = cluster.slots("shop", "web", 2).await?;
    cluster
        .change(
            &namespaces,
            "shop",
            json!({"metadata": {"labels": {"edge": null}}}),
        )
        .await?;
    cluster
        .condition("shop", "web", "Accepted", "NamespaceNotAllowed")
        .await?;
    let after = cluster.children("shop", "web").await?;
    ensure_same(&before, &after)?;
    Ok(())
}

/// A quota's refusal is a message on the slot that it is for; others are
/// served, and so is it when the quota allows.
pub async fn quota(lab: Lab) -> Result<()> {
    let cluster = Cluster::new(lab).await?;
    cluster.nodes(["node-1", "node-2", "node-3"]).await?;
    cluster.namespace("small", json!({})).await?;
    cluster
        .apply(
            "
apiVersion: v1
kind: ResourceQuota
metadata: {namespace: small, name: few}
spec: {hard: {services.loadbalancers: '2'}}
",
        )
        .await?;
    let quotas: Api<ResourceQuota> = Api::namespaced(cluster.client.clone(), "small");
    cluster
        .until(&quotas, "few", "the quota to be in force", |quota| {
            quota
                .and_then(|q| q.status.as_ref()?.used.as_ref())
                .is_some()
        })
        .await?;
    let _controller = cluster.controller()?;
    cluster.pool("203.0.113.0/28").await?;
    cluster
        .apply(&load_balancer("small", "web", "edge"))
        .await?;
    cluster.load_balancer("web").await?;

    let condition = cluster
        .condition("small", "web", "AddressesAllocated", "Refused")
        .await?;
    ensure!(
        condition.message.contains("exceeded quota: few"),
        "{condition:?}"
    );
    let lb = cluster
        .until(
            &cluster.load_balancers("small"),
            "web",
            "one slot to be refused",
            |lb| {
                let refused = |m: &Option<String>| {
                    m.as_ref()
                        .is_some_and(|m| m.contains("was refused") && m.contains("exceeded quota"))
                };
                slots_of(lb).len() == 3
                    && slots_of(lb).iter().filter(|s| refused(&s.message)).count() == 1
            },
        )
        .await?;
    ensure!(cluster.children("small", "web").await?.len() == 2, "{lb:?}");
    cluster.slots("shop", "web", 3).await?;
    for namespace in ["small", "shop"] {
        cluster.announce(namespace, "web").await?;
    }
    cluster.condition("shop", "web", "Ready", "Ok").await?;
    // The refused attempts get rarer.
    let before = cluster.writes()?.len();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let writes = cluster.writes()?;
    let attempts = writes[before..].iter().filter(|w| w.code == 403).count();
    ensure!(attempts <= 4, "{attempts} attempts in 5 s");

    let kept = identities(&cluster.children("small", "web").await?);
    cluster
        .change(
            &quotas,
            "few",
            json!({"spec": {"hard": {"services.loadbalancers": "3"}}}),
        )
        .await?;
    let children = cluster.slots("small", "web", 3).await?;
    ensure!(
        kept.iter()
            .all(|(name, identity)| identities(&children).get(name) == Some(identity)),
        "{kept:?} became {children:?}"
    );
    cluster.announce("small", "web").await?;
    cluster.condition("small", "web", "Ready", "Ok").await?;
    Ok(())
}

/// Nothing can be made in a namespace that is going, and nothing is tried.
pub async fn terminating_namespace(lab: Lab) -> Result<()> {
    let cluster = Cluster::new(lab).await?;
    cluster.nodes(["node-1", "node-2"]).await?;
    cluster.namespace("going", json!({})).await?;
    let _controller = cluster.controller()?;
    cluster.pool("203.0.113.0/28").await?;
    cluster
        .apply(&load_balancer("going", "web", "edge"))
        .await?;
    cluster.load_balancer("web").await?;
    cluster.slots("going", "web", 2).await?;
    cluster.slots("shop", "web", 2).await?;

    // Without kube-controller-manager it is going for ever.
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    namespaces.delete("going", &DeleteParams::default()).await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let before = cluster.writes()?.len();
    cluster.nodes(["node-3"]).await?;
    cluster.slots("shop", "web", 3).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let writes = cluster.writes()?;
    let tried: Vec<_> = writes[before..]
        .iter()
        .filter(|w| w.namespace == "going" && w.resource == "services")
        .collect();
    ensure!(tried.is_empty(), "{tried:?}");
    ensure!(
        cluster.children("going", "web").await?.len() == 2,
        "its Services are gone"
    );
    Ok(())
}

/// Admission that denies what is applied for one pool concerns that pool alone.
pub async fn metallb_denies_a_pool(lab: Lab) -> Result<()> {
    let cluster = Cluster::new(lab).await?;
    cluster.nodes(["node-1", "node-2"]).await?;
    cluster
        .apply(
            "
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: pools}
spec:
  failurePolicy: Fail
  matchConstraints:
    resourceRules:
    - {apiGroups: [metallb.io], apiVersions: ['*'], operations: [CREATE, UPDATE], resources: [ipaddresspools]}
  validations:
  - {expression: \"object.metadata.name != 'l2lb-bad'\", message: these addresses are not routed here}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: pools}
spec: {policyName: pools, validationActions: [Deny]}
",
        )
        .await?;
    wait_for_verdict(&cluster, false).await?;
    let _controller = cluster.controller()?;
    for (name, addresses) in [("bad", "198.51.100.0/28"), ("good", "203.0.113.0/28")] {
        cluster.apply(&pool(name, addresses)).await?;
        cluster.apply(&load_balancer("shop", name, name)).await?;
    }
    cluster.slots("shop", "good", 2).await?;
    cluster.announce("shop", "good").await?;
    cluster.condition("shop", "good", "Ready", "Ok").await?;
    cluster.pool_condition("good", "Configured", "Ok").await?;

    let condition = cluster
        .pool_condition("bad", "Configured", "Refused")
        .await?;
    ensure!(
        condition
            .message
            .starts_with("IPAddressPool metallb-system/l2lb-bad was refused: ")
            && condition
                .message
                .contains("these addresses are not routed here"),
        "{condition:?}"
    );
    let condition = cluster
        .condition("shop", "bad", "Accepted", "Refused")
        .await?;
    ensure!(
        condition
            .message
            .contains("these addresses are not routed here"),
        "{condition:?}"
    );
    ensure!(
        cluster.children("shop", "bad").await?.is_empty(),
        "Services were made"
    );
    // A later load balancer on the good pool is served as before.
    cluster
        .apply(&load_balancer("shop", "better", "good"))
        .await?;
    cluster.slots("shop", "better", 2).await?;

    cluster
        .lab
        .kubectl()
        .run(["delete", "validatingadmissionpolicybinding", "pools"])
        .await?;
    wait_for_verdict(&cluster, true).await?;
    cluster.slots("shop", "bad", 2).await?;
    cluster.pool_condition("bad", "Configured", "Ok").await?;
    Ok(())
}

/// Waits until the API server would let the pool in, or would not.
async fn wait_for_verdict(cluster: &Cluster, allowed: bool) -> Result<()> {
    let pools: Api<IpAddressPool> = cluster.metallb_pools();
    let pool: IpAddressPool = serde_json::from_value(json!({
        "apiVersion": "metallb.io/v1beta1", "kind": "IPAddressPool",
        "metadata": {"name": "l2lb-bad"}, "spec": {"addresses": ["192.0.2.0/28"]},
    }))?;
    let dry_run = kube::api::PostParams {
        dry_run: true,
        ..Default::default()
    };
    let start = Instant::now();
    loop {
        let verdict = pools.create(&dry_run, &pool).await;
        let exists = matches!(&verdict, Err(kube::Error::Api(s)) if s.is_already_exists());
        if (verdict.is_ok() || exists) == allowed {
            return Ok(());
        }
        ensure!(
            start.elapsed() < PATIENCE,
            "the policy does not become {allowed}: {verdict:?}"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
