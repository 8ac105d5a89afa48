//! What is done to a cluster with the release.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use l2lb_lab::Lab;

use super::Life;
use super::manifests::{LARGE, ONE, POOL, POOL_LARGER, POOL_ON_ETH0, web};
use super::silence::Silence;
use crate::rights::NAMESPACE;

/// What makes the controller write something.
enum Step {
    Web(u16, u16),
    Cordon,
    Pool(&'static str),
}

impl Life {
    /// The main job, for the first time.
    pub(super) async fn work(&self) -> Result<()> {
        self.lab.apply(POOL).await?;
        self.lab.apply(&web(80, 60)).await?;
        self.everything_works().await?;
        // Reviewed by the webhook.
        let denied = self.lab.apply(&LARGE.replace("NAME", "large")).await;
        ensure!(
            denied
                .as_ref()
                .is_err_and(|e| e.to_string().contains("has 2 free")),
            "a load balancer for which there are no addresses: {denied:?}"
        );
        // A home that somebody with a right to pools gives away.
        self.lab.apply(ONE).await?;
        let home = self.home("one-0").await?;
        let other = if home == "node-1" { "node-2" } else { "node-1" };
        let label = format!("l2lb.io/home={other}");
        self.kubectl(&[
            "label",
            "--overwrite",
            "-n",
            "shop",
            "service/one-0",
            &label,
        ])
        .await?;
        let pin = [
            "get",
            "service",
            "one-0",
            "-n",
            "shop",
            "-o",
            "jsonpath={.metadata.labels.l2lb\\.io/pin}",
        ];
        self.until("one-0 to be pinned to its new home", async || {
            Ok(self.kubectl(&pin).await? == other)
        })
        .await?;
        self.kubectl(&["delete", "l2lb", "one", "-n", "shop"])
            .await?;
        Ok(())
    }

    /// Each address of `web` is announced by its home, and serves; the record is there.
    pub(super) async fn everything_works(&self) -> Result<()> {
        self.kubectl(&[
            "wait",
            "--for=condition=Ready",
            "--timeout=90s",
            "l2pool/edge",
        ])
        .await?;
        self.at_home(3).await?;
        self.serves().await?;
        let targets = [
            "get",
            "dnsendpoints",
            "-n",
            "shop",
            "-o",
            "jsonpath={.items[*].spec.endpoints[*].targets}",
        ];
        self.until("a record with three addresses", async || {
            let targets = self.kubectl(&targets).await?;
            Ok(targets.matches("192.0.2.").count() == 3)
        })
        .await
    }

    /// Back to the older release and forward again, as docs/operations.md has it:
    /// the definitions stay, and with them a field that the older one lacks.
    pub(super) async fn rolls_back(&self, older: &Path) -> Result<()> {
        let slots = self.slots().await?;
        let address = slots.first().context("web has no slot")?["addresses"][0].clone();
        let address = address.as_str().context("a slot has no address")?;
        let web = ["l2lb", "web", "-n", "shop"];
        let patch = |addresses: &str| format!(r#"{{"spec": {{"addresses": {addresses}}}}}"#);
        let given = patch(&format!(r#"["{address}"]"#));
        let how = ["--type=merge", "-p"];
        self.kubectl(&[&["patch"][..], &web[..], &how[..], &[given.as_str()]].concat())
            .await?;
        let before = self.children().await?;
        let newest = Lab::chart();
        for (chart, definitions) in [
            (older, "--set=crds.install=false"),
            (newest.as_path(), "--set=crds.install=true"),
        ] {
            self.helm(
                "upgrade",
                chart,
                &["--reset-then-reuse-values", definitions],
            )
            .await?;
            self.everything_works().await?;
            let path = ["-o", "jsonpath={.spec.addresses[*]}"];
            let kept = self
                .kubectl(&[&["get"][..], &web[..], &path[..]].concat())
                .await?;
            ensure!(
                kept == address && self.field_type().await? == "array",
                "{definitions}: of spec.addresses {address} {kept:?} is left"
            );
            ensure!(
                self.children().await? == before,
                "{definitions}: Services changed"
            );
        }
        let none = patch("null");
        self.kubectl(&[&["patch"][..], &web[..], &how[..], &[none.as_str()]].concat())
            .await?;
        Ok(())
    }

    /// Nodes leave and join, are cordoned, and a Lease goes.
    pub(super) async fn leaves_and_comes(&self) -> Result<()> {
        // The same twice, which is one event that is counted up.
        for _ in 0..2 {
            self.kubectl(&["cordon", "node-2"]).await?;
            self.until_phases("node-2's slot to be handed over", |phases| {
                phases
                    .get("node-2")
                    .is_some_and(|phase| phase == "Draining")
            })
            .await?;
            self.kubectl(&["uncordon", "node-2"]).await?;
            self.at_home(3).await?;
        }
        // Its slot is retired at once, and the node gets a new one.
        self.kubectl(&["label", "node", "node-3", "role-"]).await?;
        self.until_phases("node-3's slot to go", |phases| phases.len() == 2)
            .await?;
        self.kubectl(&["label", "node", "node-3", "role=edge"])
            .await?;
        self.at_home(3).await?;
        self.kubectl(&["delete", "lease", "l2lb-controller", "-n", NAMESPACE])
            .await?;
        let lease = [
            "get",
            "lease",
            "-n",
            NAMESPACE,
            "-o",
            "jsonpath={.items[*].spec.holderIdentity}",
        ];
        self.until("the Lease to be held again", async || {
            Ok(!self.kubectl(&lease).await?.is_empty())
        })
        .await?;
        // A record goes when the name is not wanted any more.
        let without = r#"[{"op": "remove", "path": "/spec/dns"}]"#;
        self.kubectl(&[
            "patch",
            "l2lb",
            "web",
            "-n",
            "shop",
            "--type=json",
            "-p",
            without,
        ])
        .await?;
        let records = ["get", "dnsendpoints", "-n", "shop", "-o", "name"];
        self.until("the record to go", async || {
            Ok(self.kubectl(&records).await?.is_empty())
        })
        .await?;
        self.lab.apply(&web(80, 60)).await?;
        self.everything_works().await
    }

    /// Writes that take too long: the controller looks what became of them.
    pub(super) async fn answers_get_lost(&self) -> Result<()> {
        let silence = Silence::start()?;
        let steps: [(&str, &str, Step); 6] = [
            ("", "services", Step::Web(81, 60)),
            ("externaldns.k8s.io", "dnsendpoints", Step::Web(81, 61)),
            ("l2lb.io", "l2loadbalancers/status", Step::Cordon),
            ("l2lb.io", "l2addresspools/status", Step::Pool(POOL_LARGER)),
            ("metallb.io", "ipaddresspools", Step::Pool(POOL)),
            ("metallb.io", "l2advertisements", Step::Pool(POOL_ON_ETH0)),
        ];
        for (group, resource, step) in steps {
            let asked = self.lab.requests()?.len();
            silence.over(&self.lab, group, resource).await?;
            match step {
                Step::Web(port, ttl) => self.lab.apply(&web(port, ttl)).await?,
                Step::Cordon => drop(self.kubectl(&["cordon", "node-1"]).await?),
                Step::Pool(pool) => self.lab.apply(pool).await?,
            }
            let kind = resource.split('/').next().unwrap_or_default();
            let what = format!("{kind} to be looked up after a lost answer");
            self.until(&what, async || {
                let requests = self.lab.requests()?;
                Ok(requests[asked..].iter().any(|r| {
                    r.verb == "get" && r.resource == kind && r.user.ends_with(":l2lb-controller")
                }))
            })
            .await?;
            silence.end(&self.lab).await?;
        }
        self.kubectl(&["uncordon", "node-1"]).await?;
        self.lab.apply(&web(80, 60)).await?;
        drop(silence);
        self.everything_works().await
    }

    /// Another pool comes, and goes with everything that was made for it.
    pub(super) async fn pool_goes(&self) -> Result<()> {
        let other = POOL
            .replace("edge", "other")
            .replace("192.0.2.100-192.0.2.104", "192.0.2.140-192.0.2.147");
        self.lab.apply(&other).await?;
        self.lab
            .apply(&LARGE.replace("NAME", "two").replace("edge", "other"))
            .await?;
        self.kubectl(&[
            "wait",
            "--for=condition=Ready",
            "--timeout=90s",
            "l2lb/two",
            "-n",
            "shop",
        ])
        .await?;
        self.kubectl(&["delete", "l2lb", "two", "-n", "shop"])
            .await?;
        self.kubectl(&["delete", "l2pool", "other", "--timeout=60s"])
            .await?;
        Ok(())
    }
}
