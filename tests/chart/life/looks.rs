//! What is looked at, and waited for.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::{Life, PATIENCE};
use crate::rights::NAMESPACE;

impl Life {
    pub(super) async fn ca_bundle(&self) -> Result<String> {
        let path = "jsonpath={.webhooks[0].clientConfig.caBundle}";
        let bundle = self
            .kubectl(&["get", "validatingwebhookconfiguration", "l2lb", "-o", path])
            .await?;
        ensure!(!bundle.is_empty(), "there is no caBundle");
        Ok(bundle)
    }

    /// The type of the field that the older release's definition lacks; empty
    /// where the definition lacks it.
    pub(super) async fn field_type(&self) -> Result<String> {
        let path = "jsonpath={.spec.versions[0].schema.openAPIV3Schema.properties.spec.properties.addresses.type}";
        self.kubectl(&["get", "crd", "l2loadbalancers.l2lb.io", "-o", path])
            .await
    }

    /// The controller's flags, as the Deployment has them.
    pub(super) async fn controller_flags(&self) -> Result<String> {
        let path = "jsonpath={.spec.template.spec.containers[*].args}";
        let deployment = "deployment/l2lb-controller";
        self.kubectl(&["get", deployment, "-n", NAMESPACE, "-o", path])
            .await
    }

    pub(super) async fn home(&self, service: &str) -> Result<String> {
        let args = [
            "get",
            "service",
            service,
            "-n",
            "shop",
            "-o",
            "jsonpath={.metadata.labels.l2lb\\.io/home}",
        ];
        self.until(&format!("{service} to have a home"), async || {
            Ok(self.kubectl(&args).await.is_ok_and(|home| !home.is_empty()))
        })
        .await?;
        self.kubectl(&args).await
    }

    /// UID and addresses of each child of `web`.
    pub(super) async fn children(&self) -> Result<BTreeMap<String, (String, String)>> {
        let selector = "l2lb.io/load-balancer=web";
        let list = self
            .kubectl(&["get", "services", "-A", "-o", "json", "-l", selector])
            .await?;
        let list: Value = serde_json::from_str(&list)?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok(list["items"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|service| {
                let metadata = &service["metadata"];
                let addresses = text(&metadata["annotations"]["metallb.io/loadBalancerIPs"]);
                (text(&metadata["name"]), (text(&metadata["uid"]), addresses))
            })
            .collect())
    }

    pub(super) async fn slots(&self) -> Result<Vec<Value>> {
        let lb = self
            .kubectl(&["get", "l2lb", "web", "-n", "shop", "-o", "json"])
            .await?;
        let lb: Value = serde_json::from_str(&lb)?;
        Ok(lb["status"]["slots"]
            .as_array()
            .cloned()
            .unwrap_or_default())
    }

    pub(super) async fn until_phases(
        &self,
        what: &str,
        good: impl Fn(&BTreeMap<String, String>) -> bool,
    ) -> Result<()> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        self.until(what, async || {
            let slots = self.slots().await?;
            Ok(good(
                &slots
                    .iter()
                    .map(|s| (text(&s["node"]), text(&s["phase"])))
                    .collect(),
            ))
        })
        .await
    }

    /// Waits until so many slots are announced by their homes.
    pub(super) async fn at_home(&self, count: usize) -> Result<()> {
        self.until_phases("each slot to be at home", |phases| {
            phases.len() == count && phases.values().all(|phase| phase == "Announced")
        })
        .await
    }

    /// Each address of `web` is answered, by the node that its slot names, and serves.
    pub(super) async fn serves(&self) -> Result<()> {
        for slot in self.slots().await? {
            let address: IpAddr = slot["addresses"][0]
                .as_str()
                .context("no address")?
                .parse()?;
            let node = slot["node"].as_str().context("no node")?;
            self.lab.wait_for_answer(address, node, PATIENCE).await?;
            self.lab.wait_for_http(address, 80, PATIENCE).await?;
        }
        Ok(())
    }

    /// Of all kinds that there are, no object of the release is left but the definitions.
    pub(super) async fn nothing_is_left_of_the_release(&self) -> Result<()> {
        let kinds = self
            .kubectl(&["api-resources", "--verbs=list", "-o", "name"])
            .await?;
        let kinds: Vec<&str> = kinds
            .lines()
            .filter(|kind| !kind.starts_with("events"))
            .collect();
        let kinds = kinds.join(",");
        let get = [
            "get",
            &kinds,
            "-A",
            "-o",
            "name",
            "-l",
            "app.kubernetes.io/instance=l2lb",
            "--ignore-not-found",
        ];
        self.until("everything of the release to go", async || {
            let left = self.kubectl(&get).await?;
            Ok(left
                .lines()
                .all(|name| name.starts_with("customresourcedefinition")))
        })
        .await
        .with_context(|| "what is left of the release")?;
        let crds = self.kubectl(&["get", "crd", "-o", "name"]).await?;
        ensure!(
            crds.matches(".l2lb.io").count() == 2,
            "the definitions are gone: {crds}"
        );
        let own = [
            "get",
            "leases,secrets,configmaps",
            "-n",
            NAMESPACE,
            "-o",
            "name",
        ];
        let left = self.kubectl(&own).await?;
        let left: Vec<&str> = left
            .lines()
            .filter(|name| !name.ends_with("kube-root-ca.crt"))
            .collect();
        ensure!(left.is_empty(), "left in {NAMESPACE}: {left:?}");
        Ok(())
    }

    pub(super) async fn until(
        &self,
        what: &str,
        mut good: impl AsyncFnMut() -> Result<bool>,
    ) -> Result<()> {
        let start = Instant::now();
        while !good().await? {
            if start.elapsed() > PATIENCE {
                let web = self
                    .kubectl(&["get", "l2lb,l2pool,services", "-A", "-o", "wide"])
                    .await?;
                bail!("waited {PATIENCE:?} for {what}; there is\n{web}");
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }
}
