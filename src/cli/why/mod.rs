//! `kubectl l2lb why`: one address, explained.

mod explain;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::process::ExitCode;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::ListParams;

use super::age;
use super::cluster::{self, Cluster, Target};
use super::output::{Format, Plain};
use super::table::{Cell, Tone, draw, takes_colour};
use crate::world::{Key, World};
use explain::{Endpoints, Explanation, child_at};

/// Ends an explanation of what is not as it should be.
const DIFFERS: u8 = 3;

/// Explains an address: whose it is, which nodes may announce it and why the
/// others may not, in the order in which MetalLB elects, so who should
/// announce it, and who does. Where these differ it says what to do.
///
/// It goes by what MetalLB itself has (advertisements of others among it), and
/// elects as MetalLB does: the highest sum of preferences first, among equals
/// the lowest sha256(node#address).
///
/// Ends with 0 when all is as it should be, 3 when it is not, 1 when it could
/// not look.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    kubectl l2lb why 203.0.113.10\n  \
    kubectl l2lb why 2001:db8:1::7 -o yaml\n  \
    kubectl l2lb why 203.0.113.10 && echo all is well")]
pub(super) struct Args {
    /// An IPv4 or IPv6 address
    address: IpAddr,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Plain,
    #[command(flatten)]
    target: Target,
}

pub(super) fn run(args: &Args) -> Result<ExitCode, String> {
    cluster::run(async {
        let cluster = args.target.connect().await?;
        let world = cluster.world().await?;
        let endpoints = match child_at(&world, args.address) {
            Some(child) => endpoints(&cluster, &child.key).await?,
            None => None,
        };
        let explanation = Explanation::of(&world, args.address, &endpoints);
        super::print(&shown(&explanation, &world, args.output, takes_colour())?)?;
        Ok(if explanation.agrees {
            ExitCode::SUCCESS
        } else {
            ExitCode::from(DIFFERS)
        })
    })
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
    let serving = list
        .items
        .iter()
        .flat_map(|slice| slice.endpoints.iter().flatten())
        .filter(|endpoint| {
            // As MetalLB does: serving, and where nobody says so, ready.
            let conditions = endpoint.conditions.as_ref();
            conditions
                .and_then(|c| c.serving.or(c.ready))
                .unwrap_or(true)
        });
    let nodes: BTreeSet<String> = serving
        .map(|endpoint| endpoint.node_name.clone().unwrap_or_default())
        .collect();
    Ok(Some(nodes))
}

fn shown(
    explanation: &Explanation,
    world: &World,
    output: Plain,
    colour: bool,
) -> Result<String, String> {
    if let Some(text) = Format::from(output).of_program(explanation)? {
        return Ok(text);
    }
    Ok(text(explanation, world, colour))
}

fn text(explanation: &Explanation, world: &World, colour: bool) -> String {
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
        text.push('\n');
        text += &candidates(explanation, colour);
        text.push('\n');
        text += &match (&explanation.should_announce, &explanation.because) {
            (Some(node), Some(because)) => format!("Should announce: {node}, as {because}\n"),
            _ => "Should announce: nobody\n".to_owned(),
        };
    }
    if explanation.slot.is_some() || !explanation.announced_by.is_empty() {
        let by = match explanation.announced_by.as_slice() {
            [] => "nobody".to_owned(),
            some => some.join(", "),
        };
        let since = explanation
            .announced_since
            .filter(|_| world.reports_announcers())
            .map_or_else(String::new, |at| {
                format!(", for {}", age::since(at, world.now))
            });
        let inferred = if world.reports_announcers() {
            ""
        } else {
            " (inferred: MetalLB before 0.16 does not report it reliably)"
        };
        text += &format!("Announces:       {by}{since}{inferred}\n");
    }
    if !explanation.remedies.is_empty() {
        text.push('\n');
        for remedy in &explanation.remedies {
            text += &format!("Not as it should be: {remedy}\n");
        }
    }
    text
}

fn candidates(explanation: &Explanation, colour: bool) -> String {
    let rows = explanation.candidates.iter().map(|c| {
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
        [
            Cell::new(
                c.place.map_or_else(|| "-".to_owned(), |p| p.to_string()),
                tone,
            ),
            Cell::new(&c.node, tone),
            Cell::from(c.weight.to_string()),
            Cell::from(role),
            Cell::from(c.why.as_str()),
        ]
    });
    draw(
        &["ORDER", "NODE", "WEIGHT", "ROLE", ""],
        rows.collect::<Vec<_>>(),
        colour,
    )
}

/// What `why` prints of a world in which every Service has pods everywhere.
#[cfg(test)]
pub(super) fn of_world(args: &Args, world: &World) -> String {
    let explanation = Explanation::of(world, args.address, &None);
    shown(&explanation, world, args.output, false).unwrap()
}
