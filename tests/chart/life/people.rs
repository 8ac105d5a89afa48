//! What people may do by Kubernetes' own roles, which the chart adds to.

use std::path::Path;

use anyhow::{Result, ensure};
use l2lb::world::ANNOUNCE_FAILED;

use super::Life;
use super::manifests::{ONE, POOL};

/// An editor and a viewer of the namespace `shop`.
const PEOPLE: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: editor, namespace: shop}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: edit}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: editor}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: viewer, namespace: shop}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: viewer}]
";
const EDITOR: &str = "--as=editor";
const VIEWER: &str = "--as=viewer";
const SPEAKER: &str = "--as=system:serviceaccount:metallb-system:metallb-speaker";

fn event(reason: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Event
metadata: {{name: web-0.made-up, namespace: shop}}
involvedObject: {{apiVersion: v1, kind: Service, name: web-0, namespace: shop}}
reason: {reason}
message: made up
"
    )
}

impl Life {
    /// An editor of a namespace orders load balancers there, and no pools; a
    /// viewer sees them.
    pub(super) async fn people(&self) -> Result<()> {
        self.lab.apply(PEOPLE).await?;
        // kube-controller-manager puts the roles together.
        let what = "l2loadbalancers.l2lb.io";
        for (who, verb) in [(EDITOR, "create"), (VIEWER, "get")] {
            let can = ["auth", "can-i", verb, what, "-n", "shop", who];
            self.until(&format!("{who} to {verb} load balancers"), async || {
                Ok(self.kubectl(&can).await.is_ok())
            })
            .await?;
        }
        let order = ONE.replace("name: one", "name: ordered");
        self.create(EDITOR, &order, true).await?;
        self.create(EDITOR, &order.replace("shop", "default"), false)
            .await?;
        self.create(EDITOR, &POOL.replace("name: edge", "name: ours"), false)
            .await?;
        self.create(VIEWER, &order, false).await?;

        let get = ["get", "l2lb", "web", "-n", "shop", "-o", "name"];
        for who in [EDITOR, VIEWER] {
            let seen = self.kubectl(&[&get[..], &[who]].concat()).await?;
            ensure!(seen.contains("/web"), "{who} sees {seen:?}");
        }
        let note = ["annotate", "l2lb", "web", "-n", "shop", "--dry-run=server"];
        for (who, allowed) in [(EDITOR, true), (VIEWER, false)] {
            let args = [&note[..], &["example.org/note=mine", who]].concat();
            judge(who, self.kubectl(&args).await, allowed)?;
        }
        // Events that the controller goes by are MetalLB's alone.
        self.create(EDITOR, &event("Noted"), true).await?;
        self.create(SPEAKER, &event(ANNOUNCE_FAILED), true).await?;
        let denied = self.create(EDITOR, &event(ANNOUNCE_FAILED), true).await;
        ensure!(
            denied
                .as_ref()
                .is_err_and(|e| format!("{e:#}").contains("MetalLB's alone")),
            "an editor says that a node cannot announce: {denied:?}"
        );
        self.kubectl(&["delete", "rolebinding", "editor", "viewer", "-n", "shop"])
            .await?;
        Ok(())
    }

    /// Has somebody create something; nothing is stored.
    async fn create(&self, who: &str, manifest: &str, allowed: bool) -> Result<()> {
        let file = Path::new("/run/lab/of-people.yaml");
        std::fs::write(file, manifest)?;
        let file = file.to_string_lossy();
        let args = ["create", "--dry-run=server", "-f", &file, who];
        judge(who, self.kubectl(&args).await, allowed)
    }
}

/// Fails unless somebody was let do something, or was refused it for want of rights.
fn judge(who: &str, answer: Result<String>, allowed: bool) -> Result<()> {
    match answer {
        Err(error) if allowed => Err(error.context(format!("{who} was to be let do it"))),
        Ok(said) if !allowed => anyhow::bail!("{who} was let do it: {said}"),
        Err(error) => {
            let said = error.to_string();
            ensure!(said.contains("is forbidden: User"), "{who}: {said}");
            Ok(())
        }
        Ok(_) => Ok(()),
    }
}
