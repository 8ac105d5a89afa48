//! What the chart renders, judged by helm, by its own tests, and by the API
//! server's schemas, which know of no field more than there is.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use l2lb_lab::Lab;

/// Values that change what kinds of objects there are, and their names.
const VARIATIONS: &[(&str, &[&str])] = &[
    ("defaults", &[]),
    (
        "monitored",
        &[
            "monitoring.podMonitor.enabled=true",
            "monitoring.podMonitor.interval=30s",
            "monitoring.rules.enabled=true",
            "monitoring.dashboard.enabled=true",
        ],
    ),
    ("cert-manager", &["webhook.certificate.from=cert-manager"]),
    (
        "an issuer",
        &[
            "webhook.certificate.from=cert-manager",
            "webhook.certificate.issuerRef.name=internal",
            "webhook.certificate.issuerRef.kind=ClusterIssuer",
        ],
    ),
    (
        "a Secret",
        &[
            "webhook.certificate.from=secret",
            "webhook.certificate.caBundle=-----BEGIN CERTIFICATE-----",
        ],
    ),
    (
        "scheduling",
        &[
            "controller.nodeSelector.disk=ssd",
            "webhook.tolerations[0].operator=Exists",
            "controller.priorityClassName=system-cluster-critical",
            "image.pullSecrets[0].name=registry",
            "labels.team=net",
            "controller.podAnnotations.a=b",
            "webhook.serviceAccountAnnotations.c=d",
            "controller.extraArgs[0]=--lease-duration=30s",
            "controller.maxUnavailable=50%",
        ],
    ),
    (
        "a cluster that chooses users, and pods as others want them",
        &[
            "podSecurityContext.runAsUser=null",
            "podSecurityContext.runAsGroup=null",
            "controller.topologySpreadConstraints[0].maxSkew=1",
            "controller.topologySpreadConstraints[0].topologyKey=topology.kubernetes.io/zone",
            "controller.topologySpreadConstraints[0].whenUnsatisfiable=ScheduleAnyway",
            "controller.dnsPolicy=Default",
            "controller.extraEnv[0].name=KUBERNETES_SERVICE_HOST",
            "controller.extraEnv[0].value=api.example.org",
            "controller.annotations.a=b",
            "controller.revisionHistoryLimit=1",
            "webhook.runtimeClassName=gvisor",
            "webhook.dnsConfig.searches[0]=example.org",
            "webhook.extraEnv[0].name=A",
            "webhook.serviceAccountName=theirs",
        ],
    ),
    (
        "monitored by others",
        &[
            "monitoring.podMonitor.enabled=true",
            "monitoring.podMonitor.annotations.a=b",
            "monitoring.podMonitor.relabelings[0].targetLabel=cluster",
            "monitoring.podMonitor.relabelings[0].replacement=one",
            "monitoring.podMonitor.metricRelabelings[0].action=labeldrop",
            "monitoring.podMonitor.metricRelabelings[0].regex=instance",
            "monitoring.rules.enabled=true",
            "monitoring.rules.annotations.a=b",
            "monitoring.rules.alertLabels.team=net",
            "monitoring.rules.disabled[0]=L2LBPoolTooSmallForNextNode",
        ],
    ),
    (
        "network",
        &[
            "networkPolicy.metricsFrom[0].podSelector.matchLabels.app=prometheus",
            "networkPolicy.webhookFrom[0].ipBlock.cidr=192.0.2.0/24",
            "networkPolicy.egress[0].ports[0].port=6443",
        ],
    ),
    (
        "as little as possible",
        &[
            "webhook.enabled=false",
            "childServicePolicy.enabled=false",
            "eventPolicy.enabled=false",
            "rbac.aggregate=false",
            "rbac.operatorRole=false",
            "networkPolicy.enabled=false",
            "uninstall.releasePools=false",
            "crds.install=false",
        ],
    ),
];
/// Pod Security's level restricted forbids it.
const HOST_NETWORK: &[&str] = &["webhook.hostNetwork=true"];

/// Pods that do not meet the level bring a warning.
const NAMESPACE: &str = "
apiVersion: v1
kind: Namespace
metadata:
  name: l2lb-system
  labels: {pod-security.kubernetes.io/warn: restricted}
";

pub async fn are_valid(lab: Lab) -> Result<()> {
    let chart = Lab::chart();
    let chart = chart.to_string_lossy();
    lab.helm(["lint", "--strict", &chart]).await?;
    let said = lab
        .tool("helm-unittest", "helm-unittest", ["--strict", &chart])
        .await?;
    eprintln!("{said}");

    let definitions = lab.tool("definitions", "definitions", [""; 0]).await?;
    lab.apply(&definitions).await?;
    let wait = ["wait", "--for=condition=Established", "--timeout=30s"];
    lab.kubectl()
        .run(wait.iter().chain(&["crd", "--all"]))
        .await?;
    lab.apply(NAMESPACE).await?;

    for (name, values) in VARIATIONS {
        let rendered = render(&lab, values).await?;
        if let Err(error) = judge(&lab, &rendered).await {
            anyhow::bail!("with {name} ({values:?}): {error:#}");
        }
    }
    // What can be found is found: what is forbidden, and an unknown field of
    // a kind of Kubernetes and of somebody else's.
    let forbidden = judge(&lab, &render(&lab, HOST_NETWORK).await?).await;
    ensure!(
        forbidden.is_err_and(|e| e.to_string().contains("hostNetwork=true")),
        "Pod Security does not look at the pods"
    );
    let monitored = render(&lab, VARIATIONS[1].1).await?;
    for (good, bad) in [
        ("replicas:", "replicsa:"),
        ("podMetricsEndpoints:", "endpoints:"),
    ] {
        let broken = monitored.replace(good, bad);
        ensure!(broken != monitored, "{good} is not in the manifests");
        let said = judge(&lab, &broken).await;
        ensure!(
            said.as_ref()
                .is_err_and(|e| e.to_string().contains("unknown field")),
            "{bad} is let in: {said:?}"
        );
    }
    Ok(())
}

async fn render(lab: &Lab, values: &[&str]) -> Result<String> {
    let flags: Vec<String> = values
        .iter()
        .map(|value| format!("--set={value}"))
        .collect();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    lab.render_chart(&flags).await
}

/// Has the API server judge manifests without storing them.
async fn judge(lab: &Lab, manifests: &str) -> Result<()> {
    let file = PathBuf::from("/run/lab/manifests.yaml");
    std::fs::write(&file, manifests)?;
    let apply = [
        "apply",
        "--dry-run=server",
        "--validate=strict",
        "--warnings-as-errors",
        "-f",
    ];
    let args = apply
        .iter()
        .map(std::convert::AsRef::as_ref)
        .chain([file.as_os_str()]);
    lab.kubectl().run(args).await?;
    Ok(())
}
