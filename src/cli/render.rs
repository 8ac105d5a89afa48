//! `kubectl l2lb render`: the plan without a cluster.

use std::path::PathBuf;

use jiff::Timestamp;
use serde_json::json;

use super::Output;
use crate::manifest::{self, Manifest};
use crate::metallb::Capabilities;
use crate::render;
use crate::world::Options;

/// Reads Nodes, L2AddressPools and L2LoadBalancers from files and prints the
/// objects that the controller would apply for them, and the status that it
/// would write.
///
/// Namespaces (for a pool's namespaceSelector), Services, ServiceCIDRs and
/// MetalLB's own objects are taken into account when they are in the files;
/// `kubectl get nodes,l2addresspools,... -A -o yaml` of a live cluster works
/// as input too.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    kubectl l2lb render -f nodes.yaml -f pool.yaml -f web.yaml\n  \
    kubectl get nodes -o yaml | kubectl l2lb render -f - -f pool.yaml -f web.yaml -o json")]
pub(super) struct Args {
    /// File with manifests in YAML or JSON; - is standard input. May be repeated
    #[arg(short, long = "filename", value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    /// Namespace of MetalLB
    #[arg(long, value_name = "NAME", default_value = "metallb-system")]
    metallb_namespace: String,
    /// Version of MetalLB to render for, 0.13.12 or later
    #[arg(long, value_name = "VERSION", default_value = "0.16.2", value_parser = metallb_version)]
    metallb_version: Capabilities,
    /// Say that MetalLB's speakers run with --ignore-exclude-lb
    #[arg(long)]
    ignore_exclude_lb: bool,
    /// The time that the plan is made for, RFC 3339 [default: now]
    #[arg(long, value_name = "TIME")]
    at: Option<Timestamp>,
}

pub(super) fn run(args: &Args) -> Result<(), String> {
    let mut manifests = Vec::new();
    for file in &args.files {
        manifests.extend(manifest::read_file(file).map_err(|e| e.to_string())?);
    }
    super::print(&rendered(args, manifests)?)
}

fn rendered(args: &Args, manifests: Vec<Manifest>) -> Result<String, String> {
    let options = Options {
        metallb_namespace: args.metallb_namespace.clone(),
        ignore_exclude_label: args.ignore_exclude_lb,
        ..Options::default()
    };
    let now = args.at.unwrap_or_else(Timestamp::now);
    let file_world = render::world_of(manifests, now, options, args.metallb_version)?;
    for ignored in &file_world.ignored {
        eprintln!("note: {ignored} does not matter to the plan and is left out");
    }
    let objects = render::objects(&file_world.world);
    match args.output {
        Output::Yaml => manifest::to_yaml(&objects).map_err(|e| e.to_string()),
        Output::Json => {
            let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
            let text = serde_json::to_string_pretty(&list).map_err(|e| e.to_string())?;
            Ok(text + "\n")
        }
    }
}

fn metallb_version(text: &str) -> Result<Capabilities, String> {
    Capabilities::of_version(text)
        .ok_or_else(|| "not a version of MetalLB from 0.13.12 on: write it as in 0.15.2".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::Value;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    const CLUSTER: &str = "
apiVersion: v1
kind: Node
metadata:
  name: a
  labels:
    kubernetes.io/hostname: a
    node.kubernetes.io/exclude-from-external-load-balancers: ''
---
apiVersion: l2lb.io/v1alpha1
kind: L2AddressPool
metadata: {name: edge}
spec: {addresses: [203.0.113.0/28]}
---
apiVersion: l2lb.io/v1alpha1
kind: L2LoadBalancer
metadata: {name: web, namespace: shop}
spec:
  addressPool: edge
  service: {selector: {app: web}, ports: [{port: 80}]}
";

    fn render(cluster: &str, flags: &[&str]) -> Vec<Value> {
        let mut words = vec!["render", "-f", "cluster.yaml", "-o", "json"];
        words.extend(flags);
        let line = Line::try_parse_from(words).unwrap();
        let manifests = manifest::parse("cluster.yaml", cluster).unwrap();
        let text = rendered(&line.args, manifests).unwrap();
        let list: Value = serde_json::from_str(&text).unwrap();
        list["items"].as_array().unwrap().clone()
    }

    fn services(objects: &[Value]) -> usize {
        objects.iter().filter(|o| o["kind"] == "Service").count()
    }

    #[test]
    fn excluded_nodes_count_where_the_speakers_ignore_the_label() {
        assert_eq!(services(&render(CLUSTER, &[])), 0);
        assert_eq!(services(&render(CLUSTER, &["--ignore-exclude-lb"])), 1);
    }

    #[test]
    fn what_no_service_can_be_is_not_rendered() {
        for bad in [
            "ipFamilies: [IPv4, IPv4]",
            "ipFamilies: [IPv4, IPv6]",
            "ipFamilyPolicy: PreferDualStack",
            "externalTrafficPolicy: Locale",
        ] {
            let cluster = CLUSTER.replace("ports:", &format!("{bad}, ports:"));
            let objects = render(&cluster, &["--ignore-exclude-lb"]);
            assert_eq!(services(&objects), 0, "{bad}");
            let load_balancer = objects.iter().find(|o| o["kind"] == "L2LoadBalancer");
            let accepted = &load_balancer.unwrap()["status"]["conditions"][0];
            assert_eq!(accepted["type"], "Accepted", "{bad}");
            assert_eq!(accepted["reason"], "InvalidSpec", "{bad}");
        }
    }
}
