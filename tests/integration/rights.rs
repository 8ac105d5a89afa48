//! What people may do with `kubectl l2lb` by the roles that the chart has for
//! them.

use anyhow::{Context, Result, ensure};
use l2lb_lab::Lab;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::plugin::{prepared, served};

/// A team that sees load balancers in its namespace, and an operator.
const PEOPLE: &str = "
apiVersion: v1
kind: ServiceAccount
metadata: {namespace: shop, name: team}
---
apiVersion: v1
kind: ServiceAccount
metadata: {namespace: shop, name: operator}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {namespace: shop, name: team}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: l2lb-view}
subjects: [{kind: ServiceAccount, namespace: shop, name: team}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: operator}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: l2lb-operator}
subjects: [{kind: ServiceAccount, namespace: shop, name: operator}]
";

/// Somebody at a terminal.
struct Person<'a> {
    cluster: &'a Cluster,
    kubeconfig: std::path::PathBuf,
}

impl<'a> Person<'a> {
    async fn of(cluster: &'a Cluster, account: &str) -> Result<Self> {
        Ok(Self {
            cluster,
            kubeconfig: cluster.lab.kubeconfig_of("shop", account).await?,
        })
    }

    /// Runs the plugin; its exit code, and what it printed and said.
    async fn plugin(&self, args: &[&str]) -> Result<(i32, String, String)> {
        let mut command = self.cluster.lab.plugin_command()?;
        let output = command
            .env("KUBECONFIG", &self.kubeconfig)
            .args(args)
            .output()
            .await
            .context("running kubectl-l2lb")?;
        let code = output.status.code().context("kubectl-l2lb was killed")?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok((code, text(&output.stdout), text(&output.stderr)))
    }

    /// The same, of what is printed as JSON.
    async fn json(&self, args: &[&str]) -> Result<(i32, Value)> {
        let args: Vec<&str> = args.iter().copied().chain(["-o", "json"]).collect();
        let (code, text, said) = self.plugin(&args).await?;
        let value =
            serde_json::from_str(&text).with_context(|| format!("{args:?}: {text}{said}"))?;
        Ok((code, value))
    }
}

/// A team sees what is reported of its load balancers; an operator everything,
/// and may drain.
pub async fn of_people(lab: Lab) -> Result<()> {
    let cluster = prepared(lab).await?;
    let _controller = cluster.controller()?;
    served(&cluster).await?;
    cluster
        .lab
        .apply_templates(&["aggregate-roles.yaml", "operator-role.yaml"])
        .await?;
    cluster.apply(PEOPLE).await?;
    let team = Person::of(&cluster, "team").await?;
    let operator = Person::of(&cluster, "operator").await?;
    let (code, all) = operator.json(&["status", "-n", "shop", "web"]).await?;
    ensure!(code == 0 && all.get("notLookedAt").is_none(), "{all:#}");
    sees_reports(&team, &all).await?;
    operates(&operator, &all).await
}

async fn sees_reports(team: &Person<'_>, all: &Value) -> Result<()> {
    let (code, view) = team.json(&["status", "-n", "shop", "web"]).await?;
    let slots = view["loadBalancers"][0]["slots"].as_array();
    let slots = slots.context("slots")?;
    ensure!(code == 0 && slots.len() == 3, "{code}: {view:#}");
    for (slot, full) in slots.iter().zip(
        all["loadBalancers"][0]["slots"]
            .as_array()
            .into_iter()
            .flatten(),
    ) {
        for field in ["service", "home", "addresses", "announcedBy", "phase"] {
            ensure!(slot[field] == full[field], "{slot:#} and not {full:#}");
        }
    }
    let open = view["notLookedAt"].as_array().into_iter().flatten();
    let open: Vec<&str> = open.filter_map(|u| u["what"].as_str()).collect();
    for kind in ["Node", "Service", "L2AddressPool", "L2Advertisement"] {
        ensure!(open.contains(&kind), "{kind} is not in {open:?}");
    }
    let (code, text, said) = team.plugin(&["status", "-n", "shop"]).await?;
    ensure!(
        code == 0 && text.contains("not looked at, as you may not read it"),
        "{code}: {text}{said}"
    );
    for (args, hint) in [
        (&["status", "-A"] as &[&str], "name one with -n"),
        (&["status", "-n", "default"], "in namespace default"),
        (&["why", "203.0.113.1"], "status -n NAMESPACE"),
        (&["drain", "node-1"], "the right to read"),
    ] {
        let (code, text, said) = team.plugin(args).await?;
        ensure!(
            code == 1 && text.is_empty() && said.contains(hint),
            "{args:?}: {code}: {text}{said}"
        );
    }
    Ok(())
}

async fn operates(operator: &Person<'_>, all: &Value) -> Result<()> {
    let address = all["loadBalancers"][0]["slots"][0]["addresses"][0].as_str();
    let address = address.context("an address")?;
    let (_, report) = operator.json(&["check"]).await?;
    let open = report["notLookedAt"].as_array().context("notLookedAt")?;
    // No kube-proxy runs here, of which it is said to the administrator, too.
    ensure!(
        open.len() == 1 && open[0]["what"] == json!("strictARP of kube-proxy"),
        "{report:#}"
    );
    for args in [
        &["status", "-A"] as &[&str],
        &["why", address],
        &["export", "-A"],
        &["rebalance"],
        &["drain", "node-1", "--no-wait"],
        &["undrain", "node-1", "--no-wait"],
    ] {
        let (code, text, said) = operator.plugin(args).await?;
        ensure!(code == 0, "{args:?}: {code}: {text}{said}");
    }
    Ok(())
}
