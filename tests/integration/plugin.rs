//! `kubectl l2lb` against a real API server: what it shows, explains, finds
//! and hands over is what is there.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Node;
use kube::{Api, ResourceExt};
use l2lb::api::names;
use l2lb_lab::Lab;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::process::ChildStdout;
use tokio::time::timeout;

use crate::cluster::{Cluster, PATIENCE, addresses, label, load_balancer};

/// Runs a command of which the output is JSON; its exit code and the output.
async fn answer(cluster: &Cluster, args: &[&str]) -> Result<(i32, Value)> {
    let (code, text) = cluster
        .lab
        .plugin(args.iter().chain(&["-o", "json"]))
        .await?;
    let value = serde_json::from_str(&text).with_context(|| format!("{args:?}: {text}"))?;
    Ok((code, value))
}

/// Three nodes.
pub async fn prepared(lab: Lab) -> Result<Cluster> {
    let cluster = Cluster::new(lab).await?;
    cluster.nodes(["node-1", "node-2", "node-3"]).await?;
    Ok(cluster)
}

/// A load balancer `shop/web` that is announced.
pub async fn served(cluster: &Cluster) -> Result<()> {
    cluster.pool("203.0.113.0/28").await?;
    cluster.load_balancer("web").await?;
    cluster.slots("shop", "web", 3).await?;
    for slot in 0..3 {
        let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": format!("web-{slot}-x"), "namespace": "shop", "labels": {
                "kubernetes.io/service-name": format!("web-{slot}"),
                names::LOAD_BALANCER: "web"}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": ["10.0.0.7"], "nodeName": "node-1",
                "conditions": {"ready": true, "serving": true}}],
            "ports": [{"port": 8080}]});
        cluster.apply(&slice.to_string()).await?;
    }
    cluster.announce("shop", "web").await?;
    cluster.condition("shop", "web", "Ready", "Ok").await?;
    cluster.condition("shop", "web", "Pinned", "Ok").await?;
    Ok(())
}

fn rules(report: &Value) -> Vec<&str> {
    let findings = report["findings"].as_array().into_iter().flatten();
    findings.filter_map(|f| f["rule"].as_str()).collect()
}

/// `status`, `why` and `check` say what is there.
pub async fn looks(lab: Lab) -> Result<()> {
    let cluster = prepared(lab).await?;
    let _controller = cluster.controller()?;
    served(&cluster).await?;

    let (code, view) = answer(&cluster, &["status", "-n", "shop", "web"]).await?;
    let slots = view["loadBalancers"][0]["slots"]
        .as_array()
        .context("slots")?;
    ensure!(code == 0 && slots.len() == 3, "{code}: {view:#}");
    for slot in slots {
        ensure!(
            slot["phase"] == "Announced"
                && slot["announcedBy"] == json!([slot["home"]])
                && slot["announcedSince"].is_string(),
            "{slot:#}"
        );
    }
    ensure!(view["pools"][0]["free"]["ipv4"] == 13, "{view:#}");
    let inherits = view["nodes"].as_array().into_iter().flatten();
    let inherits: u64 = inherits.filter_map(|n| n["inherits"].as_u64()).sum();
    ensure!(inherits == 3, "each slot has one heir: {view:#}");
    let (_, text) = cluster.lab.plugin(["status", "-A"]).await?;
    ensure!(
        !text.contains('\u{1b}'),
        "colour without a terminal: {text}"
    );
    let (code, text) = cluster.lab.plugin(["status", "-n", "shop", "nope"]).await?;
    ensure!(code == 1 && text.contains("shop/nope"), "{code}: {text}");

    let slot = &slots[0];
    let address = slot["addresses"][0].as_str().context("an address")?;
    let (code, why) = answer(&cluster, &["why", address]).await?;
    ensure!(
        code == 0 && why["agrees"] == true && why["shouldAnnounce"] == slot["home"],
        "{code}: {why:#}"
    );
    ensure!(why["candidates"][0]["weight"] == 100, "{why:#}");
    // Nobody can announce what has no pod.
    let slices = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": "web-0-x", "namespace": "shop"}, "addressType": "IPv4",
        "endpoints": []});
    cluster.apply(&slices.to_string()).await?;
    let (code, text) = cluster.lab.plugin(["why", address]).await?;
    ensure!(code == 3 && text.contains("no pod"), "{code}: {text}");

    // The controller of the test has no Lease, and a Service without a pod is
    // given a minute.
    let (code, report) = answer(&cluster, &["check"]).await?;
    let found = rules(&report);
    ensure!(
        code == 1 && found.contains(&"controller-never-ran"),
        "{report:#}"
    );
    // No kube-proxy runs here, of which it is said alone.
    let open = report["notLookedAt"].as_array().context("notLookedAt")?;
    ensure!(
        open.len() == 1 && open[0]["what"] == "strictARP of kube-proxy",
        "{report:#}"
    );
    ensure!(!found.contains(&"address-held-by-others"), "{report:#}");
    ensure!(!found.contains(&"definition-old"), "{report:#}");
    let thief = json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "thief", "namespace": "default"},
        "spec": {"ports": [{"port": 80}], "externalIPs": ["203.0.113.9"]}});
    cluster.apply(&thief.to_string()).await?;
    let (_, report) = answer(&cluster, &["check"]).await?;
    ensure!(
        rules(&report).contains(&"address-held-by-others"),
        "{report:#}"
    );
    let (code, text) = cluster
        .lab
        .plugin(["check", "--kubeconfig", "/nowhere"])
        .await?;
    ensure!(code == 2 && text.contains("/nowhere"), "{code}: {text}");
    Ok(())
}

/// `diff` says what an apply then does, and what `export` writes is no
/// difference to the cluster that it comes from.
pub async fn compares(lab: Lab) -> Result<()> {
    let cluster = prepared(lab).await?;
    let _controller = cluster.controller()?;
    served(&cluster).await?;
    let folder = scratch(&cluster)?;
    let second = folder.join("second.yaml");
    std::fs::write(&second, load_balancer("shop", "second", "edge"))?;
    let second = second.display().to_string();
    let (code, diff) = answer(&cluster, &["diff", "-f", &second]).await?;
    let rows = diff["addresses"].as_array().context("addresses")?;
    let of = |change: &str, field: &str| -> Vec<String> {
        let rows = rows.iter().filter(|r| r["change"] == change);
        let mut found: Vec<String> = rows
            .filter_map(|r| r[field].as_str().map(str::to_owned))
            .collect();
        found.sort();
        found
    };
    ensure!(code == 1, "{code}: {diff:#}");
    ensure!(
        of("unchanged", "loadBalancer") == ["shop/web"; 3],
        "{diff:#}"
    );
    let promised = of("added", "address");
    cluster.apply(&std::fs::read_to_string(&second)?).await?;
    let children = cluster.slots("shop", "second", 3).await?;
    let mut given: Vec<String> = children.values().flat_map(addresses).collect();
    given.sort();
    ensure!(given == promised, "{given:?} and not {promised:?}");
    let (code, text) = cluster.lab.plugin(["diff", "-f", &second]).await?;
    ensure!(code == 0, "{code}: {text}");

    let (code, text) = cluster.lab.plugin(["export", "-A"]).await?;
    ensure!(code == 0 && !text.contains("uid:"), "{text}");
    let exported = folder.join("exported.yaml");
    std::fs::write(&exported, &text)?;
    let exported = exported.display().to_string();
    let (_, diff) = answer(&cluster, &["diff", "-f", &exported]).await?;
    let changed = diff["addresses"].as_array().into_iter().flatten();
    let changed = changed.filter(|r| r["change"] != "unchanged").count();
    ensure!(changed == 0 && diff["denied"] == json!([]), "{diff:#}");
    let greedy = folder.join("greedy.yaml");
    let pool = "apiVersion: l2lb.io/v1alpha1\nkind: L2AddressPool\nmetadata: {name: edge}\n\
                spec: {addresses: [198.51.100.0/29]}\n";
    std::fs::write(&greedy, pool)?;
    let (code, text) = cluster
        .lab
        .plugin(["diff", "-f", &greedy.display().to_string()])
        .await?;
    ensure!(
        code == 2 && text.contains("would be denied"),
        "{code}: {text}"
    );
    Ok(())
}

/// A folder for files of a trial.
fn scratch(cluster: &Cluster) -> Result<std::path::PathBuf> {
    let folder = cluster.lab.kubeconfig().with_extension("files");
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// `drain` waits until a node is empty, `undrain` until it has its own again.
pub async fn drains(lab: Lab) -> Result<()> {
    let cluster = prepared(lab).await?;
    let _controller = cluster.controller()?;
    served(&cluster).await?;
    let speakers = async {
        loop {
            cluster.announce("shop", "web").await?;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let work = async {
        let (code, text) = cluster.lab.plugin(["drain", "node-1"]).await?;
        ensure!(
            code == 0 && text.contains("node node-1 announces nothing of l2lb"),
            "{code}: {text}"
        );
        let nodes: Api<Node> = Api::all(cluster.client.clone());
        let node = nodes.get("node-1").await?;
        ensure!(
            node.annotations().contains_key(names::DRAIN),
            "no annotation"
        );
        let children = cluster.children("shop", "web").await?;
        ensure!(
            children.values().all(|c| label(c, names::PIN) != "node-1"),
            "something is pinned there"
        );
        let (code, text) = cluster.lab.plugin(["drain", "node-1"]).await?;
        ensure!(code == 0, "a second time: {code}: {text}");

        // The last one has nobody to hand over to.
        let (code, text) = cluster.lab.plugin(["drain", "node-2"]).await?;
        ensure!(code == 0, "{code}: {text}");
        let (code, text) = cluster.lab.plugin(["drain", "node-3"]).await?;
        ensure!(
            code == 1
                && text.contains("1 slot on node node-3 cannot leave")
                && text.contains("node-1 is Drained"),
            "{code}: {text}"
        );
        for node in ["node-3", "node-2", "node-1"] {
            let (code, text) = cluster.lab.plugin(["undrain", node]).await?;
            ensure!(
                code == 0 && text.contains("again"),
                "{node}: {code}: {text}"
            );
        }
        let children = cluster.children("shop", "web").await?;
        ensure!(
            children
                .values()
                .all(|c| label(c, names::PIN) == label(c, names::HOME)),
            "not everything is at home"
        );
        let (code, text) = cluster.lab.plugin(["drain", "node-9"]).await?;
        ensure!(
            code == 1 && text.contains("there is no node node-9"),
            "{code}: {text}"
        );
        Ok(())
    };
    tokio::select! {
        done = work => done,
        broken = speakers => broken,
    }
}

/// JSON documents as they come.
struct Documents {
    from: ChildStdout,
    read: Vec<u8>,
}

impl Documents {
    /// The next one. What was read of it stays when this is given up.
    async fn next(&mut self) -> Result<Value> {
        loop {
            let mut documents = serde_json::Deserializer::from_slice(&self.read).into_iter();
            match documents.next() {
                Some(Ok(document)) => {
                    let end = documents.byte_offset();
                    self.read.drain(..end);
                    return Ok(document);
                }
                Some(Err(error)) if !error.is_eof() => {
                    let read = String::from_utf8_lossy(&self.read);
                    return Err(error).with_context(|| format!("no JSON: {read}"));
                }
                _ => {}
            }
            let count = self.from.read_buf(&mut self.read).await?;
            ensure!(count > 0, "the stream has ended");
        }
    }
}

/// `status --watch -o json` is a stream: a document at first, nothing while
/// nothing changes, and another one when something did.
pub async fn watches(lab: Lab) -> Result<()> {
    let cluster = prepared(lab).await?;
    let _controller = cluster.controller()?;
    served(&cluster).await?;
    let mut program = cluster
        .lab
        .plugin_command()?
        .args(["status", "-A", "--watch", "--interval=1", "-o", "json"])
        .stdout(Stdio::piped())
        .spawn()
        .context("starting kubectl-l2lb")?;
    let mut stream = Documents {
        from: program.stdout.take().context("it has no output")?,
        read: Vec::new(),
    };
    let state = |view: &Value, name: &str| {
        let mut nodes = view["nodes"].as_array().into_iter().flatten();
        let node = nodes.find(|n| n["name"] == name);
        node.map_or(Value::Null, |n| n["state"].clone())
    };

    let mut view = timeout(PATIENCE, stream.next()).await??;
    ensure!(view["loadBalancers"][0]["name"] == "web", "{view:#}");
    ensure!(state(&view, "node-2") == "Serving", "{view:#}");
    // The controller may have had something to say still.
    for more in 0.. {
        match timeout(Duration::from_secs(5), stream.next()).await {
            Ok(next) => {
                let next = next?;
                ensure!(next != view, "nothing changed, and it is said: {next:#}");
                ensure!(more < 3, "it goes on and on: {next:#}");
                view = next;
            }
            Err(_) => break,
        }
    }

    cluster.set_ready("node-2", false).await?;
    let changed = async {
        loop {
            let view = stream.next().await?;
            if state(&view, "node-2") == "NotReady" {
                return anyhow::Ok(view);
            }
        }
    };
    let view = timeout(PATIENCE, changed)
        .await
        .context("the change is not shown")??;
    ensure!(state(&view, "node-1") == "Serving", "{view:#}");
    ensure!(program.try_wait()?.is_none(), "it has ended");

    // As with `| head -1`: nobody reads on, and nothing changes.
    drop(stream);
    let status = timeout(Duration::from_secs(10), program.wait()).await;
    let status = status.context("it goes on without a reader")??;
    ensure!(status.success(), "it ends with {status}");
    Ok(())
}
