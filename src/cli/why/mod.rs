//! `kubectl l2lb why`: one address, explained.

mod explain;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::process::ExitCode;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::ListParams;

use super::age;
use super::cluster::{self, Cluster, Target};
use super::output::Format;
use super::table::{Cell, Tone, draw, takes_colour};
use crate::world::{Key, World, serves};
use explain::{Candidate, Endpoints, Explanation, Known, child_at, holder, key};

/// Ends an explanation of what is not as it should be.
const DIFFERS: u8 = 3;

/// Explains an address: whose it is, which nodes may announce it and why the
/// others may not, in the order in which MetalLB elects, so who should
/// announce it, and who does. Where these differ it says what to do.
///
/// It goes by what MetalLB itself has (advertisements of others among it), and
/// elects as MetalLB does: the highest sum of preferences first, among equals
/// the lowest sha256(node#address). -o wide shows that hash (how it begins), and
/// which advertisements list a node and what weight each gives it.
///
/// An address of MetalLB's that a Service of somebody else has is explained in
/// the same way.
///
/// Ends with 0 when all is as it should be, 3 when it is not, 1 when it could
/// not look.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    kubectl l2lb why 203.0.113.10\n  \
    kubectl l2lb why 203.0.113.10 -o wide\n  \
    kubectl l2lb why 2001:db8:1::7 -o yaml\n  \
    kubectl l2lb why 203.0.113.10 && echo all is well")]
pub(super) struct Args {
    /// An IPv4 or IPv6 address
    address: IpAddr,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    target: Target,
}

pub(super) fn run(args: &Args) -> Result<ExitCode, String> {
    cluster::run(async {
        let cluster = args.target.connect().await?;
        let world = cluster.world().await?;
        let known = known(&cluster, &world, args.address).await?;
        let explanation = Explanation::of(&world, args.address, &known);
        super::print(&shown(&explanation, &world, args.output, takes_colour())?)?;
        Ok(if explanation.agrees {
            ExitCode::SUCCESS
        } else {
            ExitCode::from(DIFFERS)
        })
    })
}

/// Reads what the world does not have of the Services with an address.
async fn known(cluster: &Cluster, world: &World, address: IpAddr) -> Result<Known, String> {
    let mut foreign = Vec::new();
    for key in world.holders(address) {
        if world.child(key).is_none() {
            foreign.extend(service(cluster, key).await?);
        }
    }
    let subject = match child_at(world, address) {
        Some(child) => Some(child.key.clone()),
        None => holder(&foreign, address).map(key),
    };
    let endpoints = match subject {
        Some(key) => endpoints(cluster, &key).await?,
        None => None,
    };
    Ok(Known { endpoints, foreign })
}

/// A Service, if it is there still. It is listed, as that is what everything
/// else here needs the right for.
async fn service(cluster: &Cluster, key: &Key) -> Result<Option<Service>, String> {
    let services: Api<Service> = Api::namespaced(cluster.client.clone(), &key.namespace);
    let itself = ListParams::default().fields(&format!("metadata.name={}", key.name));
    let list = services.list(&itself).await;
    let list = list.map_err(|error| format!("Service {key}: {error}"))?;
    Ok(list.items.into_iter().next())
}

/// The nodes that have a serving pod of a Service; `None` when they may not be read.
async fn endpoints(cluster: &Cluster, service: &Key) -> Result<Endpoints, String> {
    let slices: Api<EndpointSlice> = Api::namespaced(cluster.client.clone(), &service.namespace);
    let of_service = format!("kubernetes.io/service-name={}", service.name);
    let list = match slices
        .list(&ListParams::default().labels(&of_service))
        .await
    {
        Ok(list) => list,
        Err(kube::Error::Api(status)) if status.code == 403 => return Ok(None),
        Err(error) => return Err(format!("EndpointSlices of {service}: {error}")),
    };
    let all = list.items.iter().flat_map(|s| s.endpoints.iter().flatten());
    let nodes: BTreeSet<String> = all
        .filter(|endpoint| serves(endpoint))
        .map(|endpoint| endpoint.node_name.clone().unwrap_or_default())
        .collect();
    Ok(Some(nodes))
}

fn shown(
    explanation: &Explanation,
    world: &World,
    output: Format,
    colour: bool,
) -> Result<String, String> {
    if let Some(text) = output.of_program(explanation)? {
        return Ok(text);
    }
    Ok(text(explanation, world, output == Format::Wide, colour))
}

fn text(explanation: &Explanation, world: &World, wide: bool, colour: bool) -> String {
    let address = explanation.address;
    let mut text: String = explanation
        .whose
        .iter()
        .map(|whose| format!("{address} is {whose}\n"))
        .collect();
    if let Some(slot) = &explanation.slot {
        text += &format!(
            "Home is {}, pinned to {}; {:?}{}\n",
            slot.home,
            slot.pin,
            slot.phase,
            slot.message
                .as_ref()
                .map_or_else(String::new, |m| format!(": {m}"))
        );
    }
    if let Some(service) = &explanation.service {
        let pool = service.ip_address_pool.as_deref().unwrap_or("none");
        text += &format!(
            "MetalLB's IPAddressPool is {pool}; externalTrafficPolicy is {}\n",
            service.external_traffic_policy
        );
    }
    let is_elected_for = explanation.slot.is_some() || explanation.service.is_some();
    if is_elected_for {
        text.push('\n');
        if !explanation.candidates.is_empty() {
            text += &candidates(&explanation.candidates, wide, colour);
            text.push('\n');
        }
        text += &match (&explanation.should_announce, &explanation.because) {
            (Some(node), Some(because)) => format!("Should announce: {node}, as {because}\n"),
            _ => "Should announce: nobody\n".to_owned(),
        };
    }
    if is_elected_for || !explanation.announced_by.is_empty() {
        text += &format!("Announces:       {}\n", announces(explanation, world));
    }
    for note in &explanation.notes {
        text += &format!("Note: {note}\n");
    }
    if !explanation.remedies.is_empty() {
        text.push('\n');
        for remedy in &explanation.remedies {
            text += &format!("Not as it should be: {remedy}\n");
        }
    }
    text
}

/// Who announces it, and since when.
fn announces(explanation: &Explanation, world: &World) -> String {
    let by = match explanation.announced_by.as_slice() {
        [] => "nobody".to_owned(),
        some => some.join(", "),
    };
    if world.reports_announcers() {
        let since = explanation.announced_since;
        let since = since.map(|at| format!(", for {}", age::since(at, world.now)));
        return by + &since.unwrap_or_default();
    }
    if explanation.slot.is_some() {
        return format!("{by} (inferred: MetalLB before 0.16 does not report it reliably)");
    }
    "not known, as MetalLB before 0.16 does not report it reliably".to_owned()
}

/// How much of a hash is shown: enough to tell nodes apart.
const HASH: usize = 8;

fn candidates(all: &[Candidate], wide: bool, colour: bool) -> String {
    let rows = all.iter().map(|c| {
        let role = match (c.home, c.pin) {
            (true, true) => "home, pin",
            (true, false) => "home",
            (false, true) => "pin",
            (false, false) => "-",
        };
        let tone = match (c.place, c.pin) {
            (None, true) => Tone::Bad,
            (None, false) => Tone::Dim,
            (Some(1), _) => Tone::Good,
            _ => Tone::Plain,
        };
        let place = c.place.map_or_else(|| "-".to_owned(), |p| p.to_string());
        let mut row = vec![
            Cell::new(place, tone),
            Cell::new(&c.node, tone),
            Cell::from(c.weight.to_string()),
        ];
        if wide {
            row.push(Cell::from(c.hash.get(..HASH).unwrap_or_default()));
        }
        row.push(Cell::from(role));
        if wide {
            row.push(Cell::from(advertisements(c)));
        }
        row.push(Cell::from(c.why.as_str()));
        row
    });
    let headings: &[&str] = if wide {
        &[
            "ORDER",
            "NODE",
            "WEIGHT",
            "HASH",
            "ROLE",
            "ADVERTISEMENTS",
            "",
        ]
    } else {
        &["ORDER", "NODE", "WEIGHT", "ROLE", ""]
    };
    draw(headings, rows.collect::<Vec<_>>(), colour)
}

/// The advertisements that list a node, with the weights that they give it.
fn advertisements(candidate: &Candidate) -> String {
    let all = candidate.advertisements.iter().map(|name| {
        let weight = candidate.weights.get(name);
        weight.map_or_else(|| name.clone(), |weight| format!("{name} ({weight})"))
    });
    let all: Vec<String> = all.collect();
    if all.is_empty() {
        "-".to_owned()
    } else {
        all.join(", ")
    }
}

/// What `why` prints of a world in which every Service has pods everywhere.
#[cfg(test)]
pub(super) fn of_snapshot(args: &Args, snapshot: &crate::check::Snapshot) -> String {
    let world = &snapshot.world;
    let of_somebody_else = |service: &Service| {
        let key = key(service);
        world.child(&key).is_none() && world.holders(args.address).any(|k| *k == key)
    };
    let services = snapshot.objects.iter().filter(|o| o["kind"] == "Service");
    let services = services.map(|o| serde_json::from_value(o.clone()).unwrap());
    let known = Known {
        endpoints: None,
        foreign: services.filter(of_somebody_else).collect(),
    };
    let explanation = Explanation::of(world, args.address, &known);
    shown(&explanation, world, args.output, false).unwrap()
}
