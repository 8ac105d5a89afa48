//! `kubectl l2lb check`: reads a snapshot, and applies the rules of
//! [`crate::check`] to it.

use std::process::ExitCode;

use futures::future::join_all;
use kube::api::{Api, DynamicObject, ListParams};
use kube::core::ApiResource;
use serde::Serialize;
use serde_json::{Value, json};

use super::cluster::{self, Cluster, Target};
use super::output::{Format, Plain};
use super::table::{Cell, Tone, draw_within, takes_colour, width};
use crate::check::{Finding, KUBE_PROXY, LEASE, RULES, Severity, Snapshot, check};
use crate::world::Kind;

/// Looks for what keeps addresses from being announced as they should, or will
/// one day: in our objects, in MetalLB's and others', in nodes, speakers,
/// kube-proxy and webhooks. Each finding names the object and says what to do.
///
/// Errors: an address is dark or goes elsewhere, or MetalLB or l2lb does not
/// work. Warnings: it works, and will not when something else happens.
///
/// What may not be read is named and left out. It only sees what the API shows:
/// whether an address answers is for arping.
///
/// Ends with 0 when there is no error (there may be warnings), 1 when there
/// is one, 2 when it could not look.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    kubectl l2lb check\n  \
    kubectl l2lb check -o json | jq -r '.findings[] | select(.rule == \"no-standby\").object'\n  \
    kubectl l2lb check --rules")]
pub(super) struct Args {
    /// Only list the rules
    #[arg(long)]
    rules: bool,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Plain,
    #[command(flatten)]
    target: Target,
}

/// What is printed for a program.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report<'a> {
    findings: &'a [Finding],
    not_looked_at: Vec<Unread<'a>>,
}

#[derive(Serialize)]
struct Unread<'a> {
    what: &'a str,
    why: &'a str,
}

pub(super) fn run(args: &Args) -> Result<ExitCode, String> {
    if args.rules {
        super::print(&rules())?;
        return Ok(ExitCode::SUCCESS);
    }
    let snapshot = cluster::run(async { read(&args.target.connect().await?).await })?;
    let findings = check(&snapshot);
    super::print(&shown(
        &snapshot,
        &findings,
        args.output,
        (takes_colour(), width()),
    )?)?;
    let bad = findings.iter().any(|f| f.severity == Severity::Error);
    Ok(if bad {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn rules() -> String {
    let rows: Vec<[String; 3]> = RULES
        .iter()
        .flat_map(|(family, rules)| {
            let row = |(name, about): &(&str, &str)| {
                [
                    (*family).to_owned(),
                    (*name).to_owned(),
                    (*about).to_owned(),
                ]
            };
            rules.iter().map(row)
        })
        .collect();
    super::table::table(["FAMILY", "RULE", "FINDS THAT"], &rows)
}

fn shown(
    snapshot: &Snapshot,
    findings: &[Finding],
    output: Plain,
    (colour, width): (bool, Option<u16>),
) -> Result<String, String> {
    let unread = snapshot.unread.iter();
    let report = Report {
        findings,
        not_looked_at: unread.map(|(what, why)| Unread { what, why }).collect(),
    };
    if let Some(text) = Format::from(output).of_program(&report)? {
        return Ok(text);
    }
    let mut text = String::new();
    if findings.is_empty() {
        text += "nothing found\n";
    } else {
        let rows = findings.iter().map(|f| {
            let tone = match f.severity {
                Severity::Error => Tone::Bad,
                Severity::Warning => Tone::Watch,
                Severity::Info => Tone::Dim,
            };
            [
                Cell::new(f.severity.as_str(), tone),
                Cell::from(f.rule),
                Cell::from(f.object.as_str()),
                Cell::from(f.message.as_str()),
                Cell::from(f.remedy.as_str()),
            ]
        });
        let headings = ["SEVERITY", "RULE", "OBJECT", "FINDING", "WHAT TO DO"];
        text += &draw_within(width, &headings, rows.collect::<Vec<_>>(), colour);
        let count = |severity| findings.iter().filter(|f| f.severity == severity).count();
        text += &format!(
            "\n{} errors, {} warnings, {} to know\n",
            count(Severity::Error),
            count(Severity::Warning),
            count(Severity::Info)
        );
    }
    for (what, why) in &snapshot.unread {
        text += &format!("not looked at: {what}: {why}\n");
    }
    Ok(text)
}

/// Where something is that the planner does not see.
struct Place<'a> {
    kind: &'a str,
    api_version: &'a str,
    plural: &'a str,
    namespace: Option<&'a str>,
    labels: Option<&'a str>,
    fields: Option<String>,
}

impl Place<'_> {
    const fn of(kind: &'static str, api_version: &'static str, plural: &'static str) -> Self {
        Self {
            kind,
            api_version,
            plural,
            namespace: None,
            labels: None,
            fields: None,
        }
    }
}

async fn read(cluster: &Cluster) -> Result<Snapshot, String> {
    let (world, objects) = cluster.world_and_objects().await?;
    let kept = [Kind::Service, Kind::Node].map(Kind::as_str);
    let mut snapshot = Snapshot {
        objects: objects
            .into_iter()
            .filter(|o| o["kind"].as_str().is_some_and(|k| kept.contains(&k)))
            .collect(),
        world,
        unread: Vec::new(),
    };
    let metallb = Some(cluster.options.metallb_namespace.as_str());
    let slices = || Place::of("EndpointSlice", "discovery.k8s.io/v1", "endpointslices");
    let named = |name: &str| Some(format!("metadata.name={name}"));
    let mut places = vec![
        Place::of(
            "CustomResourceDefinition",
            "apiextensions.k8s.io/v1",
            "customresourcedefinitions",
        ),
        Place::of(
            "ValidatingWebhookConfiguration",
            "admissionregistration.k8s.io/v1",
            "validatingwebhookconfigurations",
        ),
        Place {
            fields: named(LEASE),
            ..Place::of("Lease", "coordination.k8s.io/v1", "leases")
        },
        Place {
            namespace: Some(KUBE_PROXY.0),
            fields: named(KUBE_PROXY.1),
            ..Place::of("ConfigMap", "v1", "configmaps")
        },
        Place {
            namespace: metallb,
            ..Place::of("Pod", "v1", "pods")
        },
        Place {
            namespace: metallb,
            ..Place::of(
                "ConfigurationState",
                "metallb.io/v1beta1",
                "configurationstates",
            )
        },
        Place {
            namespace: metallb,
            ..Place::of("AddressPool", "metallb.io/v1beta1", "addresspools")
        },
        Place {
            fields: Some("reason=AllocationFailed".to_owned()),
            ..Place::of("Event", "v1", "events")
        },
        // EndpointSlices have the labels of their Service.
        Place {
            labels: Some(crate::api::names::LOAD_BALANCER),
            ..slices()
        },
        Place {
            namespace: Some("default"),
            labels: Some("kubernetes.io/service-name=kubernetes"),
            ..slices()
        },
    ];
    let hooks = services_of_webhooks(cluster).await;
    let selectors: Vec<(String, String)> = hooks
        .into_iter()
        .map(|(namespace, name)| (namespace, format!("kubernetes.io/service-name={name}")))
        .collect();
    for (namespace, selector) in &selectors {
        places.push(Place {
            namespace: Some(namespace),
            labels: Some(selector),
            ..slices()
        });
    }
    let answers = join_all(places.iter().map(|place| list(cluster, place))).await;
    for (place, answer) in places.iter().zip(answers) {
        match answer {
            Ok(list) => snapshot.objects.extend(list),
            Err(why) => {
                let unread = (place.kind.to_owned(), why);
                if !snapshot.unread.contains(&unread) {
                    snapshot.unread.push(unread);
                }
            }
        }
    }
    Ok(snapshot)
}

/// Namespace and name of the Services that our webhooks are called at. What
/// may not be read is said when the configurations are listed.
async fn services_of_webhooks(cluster: &Cluster) -> Vec<(String, String)> {
    let place = Place::of(
        "ValidatingWebhookConfiguration",
        "admissionregistration.k8s.io/v1",
        "validatingwebhookconfigurations",
    );
    let configurations = list(cluster, &place).await.unwrap_or_default();
    let hooks = configurations
        .iter()
        .flat_map(|c| c["webhooks"].as_array().into_iter().flatten());
    let ours = hooks.filter(|h| h["name"].as_str().is_some_and(|n| n.ends_with(".l2lb.io")));
    let mut services: Vec<(String, String)> = ours
        .filter_map(|hook| {
            let service = &hook["clientConfig"]["service"];
            let namespace = service["namespace"].as_str()?;
            Some((namespace.to_owned(), service["name"].as_str()?.to_owned()))
        })
        .collect();
    services.sort();
    services.dedup();
    services
}

/// The objects of a place; none where the kind is not served.
async fn list(cluster: &Cluster, place: &Place<'_>) -> Result<Vec<Value>, String> {
    let (group, version) = place
        .api_version
        .split_once('/')
        .unwrap_or(("", place.api_version));
    let resource = ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        api_version: place.api_version.to_owned(),
        kind: place.kind.to_owned(),
        plural: place.plural.to_owned(),
    };
    let client = cluster.client.clone();
    let api: Api<DynamicObject> = match place.namespace {
        Some(namespace) => Api::namespaced_with(client, namespace, &resource),
        None => Api::all_with(client, &resource),
    };
    let params = ListParams {
        label_selector: place.labels.map(str::to_owned),
        field_selector: place.fields.clone(),
        ..ListParams::default()
    };
    match api.list(&params).await {
        Ok(list) => Ok(list
            .items
            .into_iter()
            .map(|item| {
                let mut value = json!(item);
                // Items of a list lack these.
                value["apiVersion"] = json!(place.api_version);
                value["kind"] = json!(place.kind);
                value
            })
            .collect()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Vec::new()),
        Err(error) => Err(error.to_string()),
    }
}

/// What `check` prints of a snapshot.
#[cfg(test)]
pub(super) fn of_snapshot(args: &Args, snapshot: &Snapshot) -> String {
    if args.rules {
        return rules();
    }
    shown(snapshot, &check(snapshot), args.output, (false, None)).unwrap()
}
