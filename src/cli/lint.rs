//! `kubectl l2lb lint`: the rules of admission over files.

pub(super) mod place;
mod report;
pub(super) mod schema;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::ValueEnum;
use jiff::Timestamp;
use serde_json::Value;

use super::cluster::{self, Target};
use super::merge;
use crate::admission::{Candidate, Finding, Rule, review};
use crate::manifest::{self, Manifest};
use crate::metallb::Capabilities;
use crate::world::{Kind, World};

/// Judges the L2AddressPools and L2LoadBalancers in files as the webhook
/// would: for a repository's CI, or before an apply.
///
/// The other objects in the files are the cluster that they are judged
/// against: Nodes, Namespaces (for a pool's namespaceSelector), Services,
/// ServiceCIDRs and MetalLB's own. With --from-cluster that is the cluster of
/// the kubeconfig, changed by what is in the files.
///
/// Ends with 1 when something is denied, with 2 when it cannot judge.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    kubectl l2lb lint -f nodes.yaml -f pools.yaml -f apps/*.yaml\n  \
    kubectl l2lb lint -f apps/ --from-cluster\n  \
    kubectl l2lb lint -f deploy.yaml -o sarif > lint.sarif")]
pub(super) struct Args {
    /// File or folder with manifests in YAML or JSON; - is standard input. May be repeated
    #[arg(short, long = "filename", value_name = "FILE", required = true, num_args = 1..)]
    files: Vec<PathBuf>,
    /// Judge against the cluster of the kubeconfig
    #[arg(long)]
    from_cluster: bool,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    target: Target,
}

/// How findings are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    /// One line for each finding
    #[default]
    Text,
    /// One JSON object
    Json,
    /// SARIF 2.1.0, which code hosts show beside the lines
    Sarif,
}

/// A finding and where it is.
#[derive(Debug)]
struct Located {
    file: String,
    line: usize,
    denied: bool,
    finding: Finding,
}

pub(super) fn run(args: &Args) -> Result<ExitCode, String> {
    let mut manifests = Vec::new();
    for file in place::expand(&args.files)? {
        manifests.extend(manifest::read_file(&file).map_err(|e| e.to_string())?);
    }
    let (world, stored) = if args.from_cluster {
        let read = async { Ok(args.target.connect().await?.world_and_objects().await?) };
        cluster::run(read)?
    } else {
        let options = args.target.options();
        let empty = World::new(Timestamp::now(), options, Capabilities::CURRENT);
        (empty, Vec::new())
    };
    let findings = lint(world, &stored, manifests, args.from_cluster)?;
    super::print(&report::text(&findings, args.output)?)?;
    let denied = findings.iter().any(|f| f.denied);
    Ok(if denied {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// Judges everything of ours in the manifests, pools first. `stored` is
/// everything that the API server has, if there is one.
fn lint(
    mut world: World,
    stored: &[Value],
    manifests: Vec<Manifest>,
    from_cluster: bool,
) -> Result<Vec<Located>, String> {
    let mut judged = Vec::new();
    for mut manifest in manifests {
        merge::default_namespace(&mut manifest, "default");
        match merge::observe(stored, &manifest)? {
            Some(o) if matches!(o.kind(), Kind::AddressPool | Kind::LoadBalancer) => {
                judged.push((o.kind(), manifest));
            }
            Some(o) => world.observe(o),
            None => {}
        }
    }
    // A stable sort: within a kind the order of the files stays.
    judged.sort_by_key(|(kind, _)| *kind != Kind::AddressPool);
    let blind = !from_cluster && world.nodes.is_empty();
    if blind && !judged.is_empty() {
        eprintln!(
            "note: there are no Nodes in the files, so that sizes are not judged; add the output \
             of `kubectl get nodes -o yaml`, or use --from-cluster"
        );
    }
    let mut findings = Vec::new();
    for (kind, manifest) in judged {
        let (object, old) = merge::identify(&world, kind, manifest.value.clone())?;
        let name = object.object();
        let verdict = review(
            &world,
            &Candidate {
                object: object.clone(),
                old,
                selects_pods: None,
            },
        );
        let allowed = verdict.is_allowed();
        let unknown = schema::unknown_fields(kind, &manifest.value)
            .into_iter()
            .map(|field| {
                let message = schema::UNKNOWN.to_owned();
                (
                    true,
                    Finding {
                        rule: Rule::Field,
                        object: name.clone(),
                        field,
                        message,
                    },
                )
            });
        let all = unknown
            .chain(verdict.denials.into_iter().map(|f| (true, f)))
            .chain(verdict.warnings.into_iter().map(|f| (false, f)));
        for (denied, finding) in all {
            let unknown_namespace = finding.rule == Rule::Namespace
                && !world.namespaces.contains_key(&name.key.namespace);
            if blind && finding.rule == Rule::Nodes {
                continue;
            }
            findings.push(Located {
                line: place::line_of(&manifest, &name.key.name, &finding.field),
                file: manifest.source_name.clone(),
                denied: denied && (from_cluster || !unknown_namespace),
                finding,
            });
        }
        if allowed {
            world.observe(object);
        }
    }
    findings.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::Options;

    fn findings(text: &str) -> Vec<Located> {
        let manifests = manifest::parse("test.yaml", text).unwrap();
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let world = World::new(now, Options::default(), Capabilities::CURRENT);
        lint(world, &[], manifests, false).unwrap()
    }

    const POOL: &str = "apiVersion: l2lb.io/v1alpha1\nkind: L2AddressPool\n\
        metadata: {name: edge}\nspec:\n  addresses:\n  - 192.0.2.50\n";

    fn node(name: &str) -> String {
        format!(
            "---\napiVersion: v1\nkind: Node\n\
             metadata: {{name: {name}, labels: {{kubernetes.io/hostname: {name}}}}}\n"
        )
    }

    fn load_balancer(name: &str, more: &str) -> String {
        format!(
            "---\napiVersion: l2lb.io/v1alpha1\nkind: L2LoadBalancer\n\
             metadata: {{name: {name}, namespace: shop}}\nspec:\n  addressPool: edge\n{more}  \
             service: {{selector: {{a: b}}, ports: [{{port: 80}}]}}\n"
        )
    }

    #[test]
    fn files_are_judged_together_and_in_order() {
        let text = format!(
            "{}{POOL}{}{}{}",
            load_balancer("first", "  maxNodes: 1\n").trim_start_matches("---\n"),
            node("a"),
            node("b"),
            load_balancer("second", "  maxNodes: 1\n")
        )
        .replace(POOL, &format!("---\n{POOL}"));
        let found = findings(&text);
        let denied: Vec<_> = found.iter().filter(|f| f.denied).collect();
        assert_eq!(denied.len(), 1, "{found:?}");
        assert_eq!(denied[0].finding.object.key.name, "second");
        assert_eq!(denied[0].finding.rule, Rule::Sizing);
    }

    #[test]
    fn without_nodes_nothing_is_said_of_nodes() {
        let found = findings(&format!("{POOL}{}", load_balancer("web", "")));
        assert!(found.is_empty(), "{found:?}");
    }

    #[test]
    fn fields_that_do_not_exist_are_found() {
        let found = findings(&format!("{POOL}{}", load_balancer("web", "  maxNode: 3\n")));
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].finding.field, "spec.maxNode");
        assert!(found[0].denied);
    }

    #[test]
    fn a_namespace_that_is_in_no_file_is_not_held_against_it() {
        let pool = format!("{POOL}  namespaceSelector: {{matchLabels: {{edge: ok}}}}\n");
        let found = findings(&format!("{pool}{}", load_balancer("web", "")));
        assert!(
            found.iter().all(|f| !f.denied) && found.len() == 1,
            "{found:?}"
        );
        let namespace = "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n";
        let found = findings(&format!("{pool}{}{namespace}", load_balancer("web", "")));
        assert!(found[0].denied);
    }

    #[test]
    fn a_pool_that_is_being_deleted_stays_so() {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let mut world = World::new(now, Options::default(), Capabilities::CURRENT);
        let mut pool = manifest::parse("test.yaml", POOL).unwrap().remove(0).value;
        pool["metadata"]["deletionTimestamp"] = serde_json::json!(now);
        let namespace = serde_json::json!({"apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": "shop"}});
        for stored in [pool, namespace] {
            let read = crate::world::observe_manifest(stored).unwrap().unwrap();
            world.observe(read);
        }
        let text = format!("{POOL}{}", load_balancer("web", ""));
        let manifests = manifest::parse("test.yaml", &text).unwrap();
        let found = lint(world, &[], manifests, true).unwrap();
        let denied: Vec<_> = found.iter().filter(|f| f.denied).collect();
        assert!(
            denied.iter().any(|f| f.finding.message.contains("deleted")),
            "{found:?}"
        );
    }
}
