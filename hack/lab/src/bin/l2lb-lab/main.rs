//! The lab for people: a real cluster to play with, in one command.

mod client;
mod exec;
mod product;
mod protocol;
mod serve;

use std::net::IpAddr;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

use protocol::Request;

/// A real Kubernetes cluster with MetalLB and l2lb on this machine, without containers.
///
/// Every program is the real one (etcd, kube-apiserver,
/// kube-controller-manager, kube-proxy, MetalLB, l2lb-controller), every node is a network
/// namespace, and a client outside the cluster shares their Ethernet segment.
/// Nothing is left behind when the lab ends, however it ends.
#[derive(Parser)]
#[command(name = "l2lb-lab", version, after_help = EXAMPLES)]
struct Cli {
    /// Which lab: several can run side by side.
    #[arg(long, global = true, default_value = "default", env = "L2LB_LAB_NAME", value_parser = lab_name)]
    name: String,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  l2lb-lab shell                     a cluster with a shell in it
  l2lb-lab up --detach               a cluster in the background
  l2lb-lab exec -- kubectl get nodes
  l2lb-lab exec -- kubectl l2lb status
  l2lb-lab who 192.0.2.100           which node answers ARP for an address
  l2lb-lab get 192.0.2.100:80        an HTTP request from the client
  l2lb-lab kill-node node-1          cut a node's power
  l2lb-lab down";

#[derive(Subcommand)]
enum Command {
    /// Bring a lab up, and keep it until it is interrupted or told to end.
    Up {
        #[command(flatten)]
        cluster: Cluster,
        /// Return when the lab is up; `down` ends it.
        #[arg(long)]
        detach: bool,
    },
    /// Open a shell in a lab; without a running one, bring one up for it.
    Shell {
        #[command(flatten)]
        cluster: Cluster,
    },
    /// Run a command in the control plane, on a node, or on the client.
    Exec {
        /// On this node.
        #[arg(long, conflicts_with = "client")]
        node: Option<String>,
        /// On the client outside the cluster.
        #[arg(long)]
        client: bool,
        /// The command and its arguments.
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Add a node.
    AddNode {
        /// Its name; the next free node-N if absent.
        node: Option<String>,
    },
    /// Cut a node's power: its link goes down and its programs end.
    KillNode {
        /// The node.
        node: String,
    },
    /// Give a node its power back.
    ReviveNode {
        /// The node.
        node: String,
    },
    /// Say which node answers ARP or NDP for addresses, as the client hears it.
    Who {
        /// The addresses; those of all LoadBalancer Services if absent.
        addresses: Vec<IpAddr>,
    },
    /// Request / over HTTP from the client.
    Get {
        /// ADDRESS, ADDRESS:PORT or [ADDRESS]:PORT; the port is 80 unless given.
        #[arg(value_parser = protocol::target)]
        target: std::net::SocketAddr,
    },
    /// Show the nodes, and the Services with who answers for their addresses.
    Status,
    /// End a lab.
    Down,
}

/// What a new lab consists of.
#[derive(Args, Clone)]
struct Cluster {
    /// How many nodes.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=60))]
    nodes: u8,
    /// The version of MetalLB, a metallb-VERSION folder of hack/tools.
    #[arg(long, default_value = l2lb_lab::METALLB)]
    metallb: String,
    /// IPv6 besides IPv4.
    #[arg(long)]
    dual_stack: bool,
    /// Without l2lb: neither its resource definitions nor its controller.
    #[arg(long)]
    bare: bool,
}

impl Cluster {
    fn config(&self) -> l2lb_lab::LabConfig {
        l2lb_lab::LabConfig {
            nodes: self.nodes,
            metallb: Some(self.metallb.clone()),
            dual_stack: self.dual_stack,
            ..l2lb_lab::LabConfig::default()
        }
    }
}

fn lab_name(text: &str) -> Result<String, String> {
    let good = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if text.is_empty() || text.len() > 40 || !text.chars().all(good) {
        return Err("a lab's name has up to 40 letters, digits, - and _".into());
    }
    Ok(text.to_owned())
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("l2lb-lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<ExitCode> {
    let name = &cli.name;
    let request = match cli.command {
        Command::Up {
            cluster,
            detach: true,
        } if !serve::is_detached() => return serve::detach(name, &cluster),
        Command::Up { cluster, .. } => return serve::up(name, &cluster),
        Command::Shell { cluster } => return serve::shell(name, &cluster),
        Command::Exec {
            node,
            client,
            command,
        } => {
            let machine = node.or(client.then(|| l2lb_lab::topology::CLIENT.to_owned()));
            return exec::run(name, machine.as_deref(), &command);
        }
        Command::AddNode { node } => Request::AddNode { node },
        Command::KillNode { node } => Request::KillNode { node },
        Command::ReviveNode { node } => Request::ReviveNode { node },
        Command::Who { addresses } => Request::Who { addresses },
        Command::Get { target } => Request::Get { target },
        Command::Status => Request::Status,
        Command::Down => Request::Down,
    };
    print!("{}", client::ask(name, &request)?);
    Ok(ExitCode::SUCCESS)
}
