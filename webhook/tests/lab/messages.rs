//! What kubectl prints, word by word: testdata/admission/kubectl. The input
//! is one file for each step, in order of their names; `UPDATE_GOLDEN=1`
//! writes the expectations anew.

use std::fmt::Write;
use std::time::Duration;

use anyhow::{Result, ensure};
use l2lb_lab::{Lab, place};

use crate::cluster;

pub async fn run(lab: Lab) -> Result<()> {
    let _webhooks = cluster::start(&lab, &[9443], &[]).await?;
    cluster::add_nodes(&lab, &["a", "b", "c", "d", "e"]).await?;
    lab.kubectl().run(["create", "namespace", "shop"]).await?;
    lab.kubectl().run(["create", "namespace", "team"]).await?;
    let folder = place::workspace().join("testdata/admission/kubectl");
    let mut files: Vec<_> = std::fs::read_dir(&folder)?
        .map(|e| e.map(|e| e.path()))
        .collect::<Result<_, _>>()?;
    files.retain(|f| f.extension().is_some_and(|e| e == "yaml"));
    files.sort();
    let mut said = String::new();
    for file in &files {
        let input = std::fs::read_to_string(file)?;
        let name = file
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let (_, text) = cluster::kubectl(&["apply", "-f", "-"], &input).await?;
        writeln!(said, "$ kubectl apply -f {name}\n{}", text.trim_end())?;
        // What was stored is seen by the watches before the next step.
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let expected = folder.join("expected.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&expected, &said)?;
    }
    let wanted = std::fs::read_to_string(&expected).unwrap_or_default();
    ensure!(
        said == wanted,
        "{} differs; kubectl said:\n{said}",
        expected.display()
    );

    lint(&files).await?;
    never_blocked(&lab).await?;
    malformed().await?;
    child_services(&lab).await?;
    let metrics = cluster::probe(9443, "/metrics").await?;
    for wanted in [
        "l2lb_webhook_reviews_total{kind=\"L2LoadBalancer\",operation=\"CREATE\",outcome=\"denied\"}",
        "l2lb_webhook_findings_total{rule=\"sizing\",verdict=\"denial\"}",
        "l2lb_webhook_review_duration_seconds_count",
    ] {
        ensure!(metrics.contains(wanted), "{wanted} is not in\n{metrics}");
    }
    eprintln!(
        "{}",
        metrics
            .lines()
            .filter(|l| l.contains("review_duration"))
            .collect::<Vec<_>>()
            .join("\n")
    );
    Ok(())
}

/// The same rules over files, against the same cluster.
async fn lint(files: &[std::path::PathBuf]) -> Result<()> {
    let program = cluster::controller().with_file_name("kubectl-l2lb");
    ensure!(
        program.exists(),
        "{} is not built: cargo build -p l2lb",
        program.display()
    );
    let mut command = tokio::process::Command::new(program);
    command
        .args(["lint", "--from-cluster", "-f"])
        .args(files)
        .envs(Lab::environment());
    let output = command.output().await?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.code() == Some(1),
        "lint ended with {}: {text}",
        output.status
    );
    for says in [
        "04-too-many-nodes.yaml:4: L2LoadBalancer shop/web: spec.maxNodes: error: L2AddressPool small has 2 free",
        "09-shrink.yaml:5: L2AddressPool edge: spec.addresses: error: the pool would lose 1 address",
    ] {
        ensure!(
            text.contains(says),
            "lint does not say {says:?} but\n{text}"
        );
    }
    Ok(())
}

/// Metadata, finalizers and deletion go on while the webhook is down.
async fn never_blocked(lab: &Lab) -> Result<()> {
    let dead =
        r#"[{"op": "replace", "path": "/webhooks/0/clientConfig/service/port", "value": 444}]"#;
    let configuration = "validatingwebhookconfiguration/l2lb";
    lab.kubectl()
        .run(["patch", configuration, "--type=json", "-p", dead])
        .await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let spec = r#"{"spec": {"maxNodes": 1}}"#;
    let web = ["-n", "shop", "l2loadbalancer/web"];
    let (allowed, text) = cluster::kubectl(
        &["patch", web[0], web[1], web[2], "--type=merge", "-p", spec],
        "",
    )
    .await?;
    ensure!(
        !allowed && text.contains("failed calling webhook"),
        "a dead webhook: {text}"
    );
    for metadata in [
        r#"{"metadata": {"labels": {"x": "y"}, "finalizers": ["example.org/test"]}}"#,
        r#"{"metadata": {"finalizers": []}}"#,
    ] {
        lab.kubectl()
            .run([
                "patch",
                web[0],
                web[1],
                web[2],
                "--type=merge",
                "-p",
                metadata,
            ])
            .await?;
    }
    lab.kubectl()
        .run(["delete", web[0], web[1], web[2]])
        .await?;
    let alive = dead.replace("444", "443");
    lab.kubectl()
        .run(["patch", configuration, "--type=json", "-p", &alive])
        .await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    Ok(())
}

/// Junk over TLS is answered and the server lives on.
async fn malformed() -> Result<()> {
    let script = "for body in '' '{}' '[1,2' 'junk'; do \
        curl -sk -o /dev/null -w '%{http_code} ' -d \"$body\" https://192.0.2.1:9443/validate; done; \
        head -c 9000000 /dev/zero | curl -sk -o /dev/null -w '%{http_code} ' --data-binary @- https://192.0.2.1:9443/validate; \
        curl -sk -o /dev/null -w '%{http_code}' https://192.0.2.1:9443/other";
    let output = tokio::process::Command::new("sh")
        .args(["-c", script])
        .output()
        .await?;
    let codes = String::from_utf8_lossy(&output.stdout).into_owned();
    // A client that is still sending may see the end of the connection first.
    let codes = codes.replace(" 000 ", " 413 ");
    ensure!(
        codes == "400 400 400 400 413 404",
        "the answers to junk: {codes}"
    );
    let old = "curl -sk --tls-max 1.1 https://192.0.2.1:9443/validate -o /dev/null";
    let output = tokio::process::Command::new("sh")
        .args(["-c", old])
        .output()
        .await?;
    ensure!(!output.status.success(), "TLS 1.1 is spoken");
    Ok(())
}

/// Somebody who may change Services, and no pools.
const TENANT: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: tenant, namespace: team}
rules: [{apiGroups: [''], resources: [services], verbs: [get, patch, update]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: tenant, namespace: team}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: tenant}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: tenant}]
";

/// The policy that keeps others from changing child Services.
async fn child_services(lab: &Lab) -> Result<()> {
    let child = |port: u16, label: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata:\n  name: kid-0\n  namespace: team\n  \
             labels: {{{label}}}\nspec: {{ports: [{{port: {port}}}]}}\n"
        )
    };
    let ours = "l2lb.io/slot: \"0\", l2lb.io/home: node-1";
    lab.apply(&child(80, ours)).await?;
    lab.apply(TENANT).await?;
    lab.apply_templates(&["child-service-policy.yaml"]).await?;
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    loop {
        let wearing = child(80, ours).replace("kid-0", "cuckoo");
        let (allowed, text) =
            cluster::kubectl(&["create", "--dry-run=server", "-f", "-"], &wearing).await?;
        if !allowed {
            ensure!(text.contains("create an L2LoadBalancer instead"), "{text}");
            break;
        }
        ensure!(
            std::time::Instant::now() < deadline,
            "the policy has no effect"
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let apply = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
    for (input, says) in [
        (child(81, ours), "change spec.service of the L2LoadBalancer"),
        (
            child(80, "l2lb.io/slot: \"1\", l2lb.io/home: node-1"),
            "change the L2LoadBalancer instead",
        ),
    ] {
        let (allowed, text) = cluster::kubectl(&apply, &input).await?;
        ensure!(!allowed && text.contains(says), "{text}");
    }
    // Another home is for those who may change pools, who may take none away.
    let label = ["label", "--overwrite", "-n", "team", "service/kid-0"];
    let label = |who: &'static str, what: &'static str| [&label[..], &[who, what]].concat();
    for (who, what, allowed) in [
        ("--as=tenant", "l2lb.io/home=node-2", false),
        ("--as=admin", "l2lb.io/home=node-2", true),
        ("--as=admin", "l2lb.io/home-", false),
        ("--as=admin", "l2lb.io/pin=node-2", false),
    ] {
        let who_as = if who == "--as=admin" {
            "--as-group=system:masters"
        } else {
            "--as-group=team"
        };
        let mut args = label(who, what);
        args.push(who_as);
        let (done, text) = cluster::kubectl(&args, "").await?;
        ensure!(done == allowed, "{who} {what}: {text}");
        ensure!(
            done || text.contains("change the L2LoadBalancer instead"),
            "{text}"
        );
    }
    let annotate = [
        "annotate",
        "-n",
        "team",
        "service/kid-0",
        "example.org/note=mine",
    ];
    lab.kubectl().run(annotate).await?;
    terminating_child(lab).await
}

/// A finalizer keeps a child that is being deleted, and MetalLB serves it: it may
/// be changed no more than any other. It goes when the finalizer does.
async fn terminating_child(lab: &Lab) -> Result<()> {
    let patch = |what: &'static str| {
        let how = ["patch", "-n", "team", "service/kid-0", "--type=merge", "-p"];
        [&how[..], &[what, "--as=tenant", "--as-group=team"]].concat()
    };
    let held = r#"{"metadata": {"finalizers": ["example.org/hold"]}}"#;
    let (done, text) = cluster::kubectl(&patch(held), "").await?;
    ensure!(done, "a finalizer of a tenant's: {text}");
    let delete = ["delete", "-n", "team", "service/kid-0", "--wait=false"];
    lab.kubectl().run(delete).await?;
    let since = "jsonpath={.metadata.deletionTimestamp}";
    let get = ["get", "-n", "team", "service/kid-0", "-o", since];
    ensure!(
        !lab.kubectl().run(get).await?.is_empty(),
        "the child is not being deleted"
    );
    for (what, says) in [
        (
            r#"{"spec": {"ports": [{"port": 81}]}}"#,
            "change spec.service of the L2LoadBalancer",
        ),
        (
            r#"{"spec": {"type": "LoadBalancer"}}"#,
            "change spec.service of the L2LoadBalancer",
        ),
        (
            r#"{"metadata": {"annotations": {"metallb.io/loadBalancerIPs": "192.0.2.99"}}}"#,
            "the addresses of a Service of l2lb",
        ),
        (
            r#"{"metadata": {"labels": {"l2lb.io/pin": "node-2"}}}"#,
            "change the L2LoadBalancer instead",
        ),
        (
            r#"{"metadata": {"labels": {"l2lb.io/slot": null}}}"#,
            "change the L2LoadBalancer instead",
        ),
    ] {
        let (done, text) = cluster::kubectl(&patch(what), "").await?;
        ensure!(!done && text.contains(says), "{what}: {text}");
    }
    // Nor does one that is no child become one on its way out.
    let stranger = "apiVersion: v1\nkind: Service\nmetadata: {name: stranger, namespace: team, \
                    finalizers: [example.org/hold]}\nspec: {ports: [{port: 80}]}\n";
    lab.apply(stranger).await?;
    let stranger = ["-n", "team", "service/stranger"];
    lab.kubectl()
        .run([&["delete", "--wait=false"][..], &stranger[..]].concat())
        .await?;
    let label = [&["label"][..], &stranger[..], &["l2lb.io/slot=0"]].concat();
    let (done, text) = cluster::kubectl(&label, "").await?;
    ensure!(
        !done && text.contains("change the L2LoadBalancer instead"),
        "{text}"
    );
    // Both go.
    let released = r#"{"metadata": {"finalizers": null}}"#;
    let (done, text) = cluster::kubectl(&patch(released), "").await?;
    ensure!(done, "the finalizer is taken away: {text}");
    let how = ["--type=merge", "-p", released];
    lab.kubectl()
        .run([&["patch"][..], &stranger[..], &how[..]].concat())
        .await?;
    let gone = ["wait", "--for=delete", "--timeout=20s", "-n", "team"];
    let both = ["service/kid-0", "service/stranger"];
    lab.kubectl().run([&gone[..], &both[..]].concat()).await?;
    Ok(())
}
