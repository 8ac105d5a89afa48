//! Being a lab: up, and then doing what is asked over the control socket.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::IpAddr;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::Service;
use kube::api::{Api, ListParams};
use kube::{Resource, ResourceExt};
use l2lb_lab::{Interrupt, Lab, enter_with, is_inside, place};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::protocol::{Reply, Request, socket};
use crate::{Cluster, client, exec, product};

/// Tells a process that it is the one in the background.
const DETACHED: &str = "L2LB_LAB_DETACHED";

/// What a person in a lab can do.
fn banner(cluster: &Cluster) -> String {
    let product = if cluster.bare {
        product::BARE.to_owned()
    } else {
        product::hints(cluster.dual_stack)
    };
    format!(
        "\
You are in a real Kubernetes cluster; the backends `app: web` answer on port 8080.

  kubectl get nodes,pods -A            the cluster
{product}  l2lb-lab status                      nodes, Services, and who answers for each address
  l2lb-lab who 192.0.2.100             which node answers ARP, as a client sees it
  l2lb-lab get 192.0.2.100             an HTTP request from that client
  l2lb-lab kill-node node-1            cut a node's power; revive-node gives it back
  l2lb-lab add-node                    one more node
  l2lb-lab exec --client -- ip neigh   any command on the client, or on a --node
  exit                                 end the lab; nothing is left
"
    )
}

/// Whether this process is a lab in the background.
pub fn is_detached() -> bool {
    std::env::var_os(DETACHED).is_some()
}

/// Starts a lab in the background, and waits until it is up.
pub fn detach(name: &str, cluster: &Cluster) -> Result<ExitCode> {
    prepare(name, cluster)?;
    let components = cluster.config().components();
    // Here, where progress is seen.
    l2lb_lab::build_tools(&components.iter().map(String::as_str).collect::<Vec<_>>())?;
    let log = place::state_dir().join(format!("{name}.log"));
    let output =
        std::fs::File::create(&log).with_context(|| format!("creating {}", log.display()))?;
    let mut child = Command::new(std::env::current_exe().context("finding this program")?)
        .args(std::env::args_os().skip(1))
        .env(DETACHED, "1")
        .stdin(Stdio::null())
        .stdout(output.try_clone().context("sharing the log")?)
        .stderr(output)
        .spawn()
        .context("starting the lab")?;
    loop {
        if client::ask(name, &Request::Status).is_ok() {
            println!("the lab {name} is up; `l2lb-lab down` ends it");
            return Ok(ExitCode::SUCCESS);
        }
        if let Some(status) = child.try_wait().context("waiting for the lab")? {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            bail!("the lab did not come up ({status}):\n{said}");
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Is a lab until it is interrupted or told to end.
pub fn up(name: &str, cluster: &Cluster) -> Result<ExitCode> {
    if !is_inside() {
        prepare(name, cluster)?;
        if is_detached() {
            let _ = nix::unistd::setsid();
        }
    }
    serve(name, cluster, Interrupt::Ends, async |_, mut down| {
        let mut interrupted = signal(SignalKind::interrupt()).context("watching for signals")?;
        let mut terminated = signal(SignalKind::terminate()).context("watching for signals")?;
        println!("`l2lb-lab shell` opens a shell in it; Ctrl-C or `l2lb-lab down` ends it");
        tokio::select! {
            _ = interrupted.recv() => {}
            _ = terminated.recv() => {}
            _ = down.recv() => {}
        }
        Ok(0)
    })
}

/// Opens a shell: in the running lab, if there is one, else in a new one
/// that ends with the shell.
pub fn shell(name: &str, cluster: &Cluster) -> Result<ExitCode> {
    let shell = if Path::new("/bin/bash").exists() {
        "/bin/bash"
    } else {
        "/bin/sh"
    };
    if !is_inside() && client::connect(name).is_ok() {
        println!("{}", banner(cluster));
        return exec::run(name, None, &[shell.to_owned()]);
    }
    if !is_inside() {
        prepare(name, cluster)?;
    }
    let banner = banner(cluster);
    let name = name.to_owned();
    serve(
        &name.clone(),
        cluster,
        Interrupt::Inside,
        async move |_, mut down| {
            println!("{banner}");
            let mut command = tokio::process::Command::new(shell);
            command
                .envs(Lab::environment())
                .env("L2LB_LAB_NAME", name)
                .kill_on_drop(true);
            for name in Lab::hidden_environment() {
                command.env_remove(name);
            }
            if shell.ends_with("bash") {
                let file = Path::new("/run/lab/bashrc");
                std::fs::write(
                    file,
                    "[ -f ~/.bashrc ] && . ~/.bashrc\nPS1=\"(lab) $PS1\"\n",
                )
                .context("writing bashrc")?;
                command.arg("--rcfile").arg(file);
            }
            let mut child = command
                .spawn()
                .with_context(|| format!("starting {shell}"))?;
            tokio::select! {
                status = child.wait() => Ok(status.ok().and_then(|status| status.code()).unwrap_or(1)),
                _ = down.recv() => Ok(0),
            }
        },
    )
}

/// Makes the folder for control sockets, and makes sure that the name is free
/// and that what is to run is there.
fn prepare(name: &str, cluster: &Cluster) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    if !cluster.bare {
        product::controller()?;
    }
    let folder = place::state_dir();
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&folder)
        .with_context(|| format!("creating {}", folder.display()))?;
    if client::connect(name).is_ok() {
        bail!("a lab called {name} is running already; --name makes another");
    }
    Ok(())
}

/// Brings a lab up, listens on its socket, and runs `work` in it.
fn serve<F>(name: &str, cluster: &Cluster, interrupt: Interrupt, work: F) -> Result<ExitCode>
where
    F: AsyncFnOnce(Arc<Lab>, mpsc::Receiver<()>) -> Result<i32>,
{
    let config = cluster.config();
    let components = config.components();
    enter_with(
        &components.iter().map(String::as_str).collect::<Vec<_>>(),
        interrupt,
    )?;
    l2lb_lab::log_to_stderr();
    let runtime = tokio::runtime::Runtime::new().context("starting tokio")?;
    let path = socket(Path::new(place::INNER_STATE), name);
    let code = runtime.block_on(async {
        let start = Instant::now();
        println!(
            "bringing up {} nodes with MetalLB {}{} ...",
            config.nodes,
            config.metallb.as_deref().unwrap_or("-"),
            if cluster.bare { "" } else { " and l2lb" }
        );
        let lab = match Lab::up(config).await {
            Ok(lab) => Arc::new(lab),
            Err(error) => {
                eprintln!("{}", l2lb_lab::log_tails(10));
                return Err(error);
            }
        };
        lab.deploy_backend("default", "web", 8080).await?;
        // Held, so that the controller lives as long as the lab.
        let _controller = match cluster.bare {
            true => None,
            false => Some(product::install(&lab).await?),
        };
        println!(
            "up after {:.1} s; logs in {}",
            start.elapsed().as_secs_f64(),
            lab.logs_dir().display()
        );
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path)
            .with_context(|| format!("listening on {}", path.display()))?;
        let (down, ended) = mpsc::channel(1);
        tokio::spawn(listen(listener, lab.clone(), down));
        let code = work(lab, ended).await;
        let _ = std::fs::remove_file(&path);
        code
    })?;
    let _ = std::io::stdout().flush();
    // The namespaces end with this process.
    std::process::exit(code)
}

async fn listen(listener: UnixListener, lab: Arc<Lab>, down: mpsc::Sender<()>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (lab, down) = (lab.clone(), down.clone());
        tokio::spawn(async move {
            if let Err(error) = converse(stream, &lab, &down).await {
                tracing::debug!("control socket: {error:#}");
            }
        });
    }
}

async fn converse(stream: UnixStream, lab: &Lab, down: &mpsc::Sender<()>) -> Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    if stream
        .read_line(&mut line)
        .await
        .context("reading the request")?
        == 0
    {
        return Ok(());
    }
    let request = serde_json::from_str(&line).context("decoding the request");
    let ends = matches!(request, Ok(Request::Down));
    let reply = match request {
        Ok(request) => match answer(lab, request).await {
            Ok(text) => Reply::Done(text),
            Err(error) => Reply::Failed(format!("{error:#}")),
        },
        Err(error) => Reply::Failed(format!("{error:#}")),
    };
    let mut text = serde_json::to_string(&reply).context("encoding the answer")?;
    text.push('\n');
    stream
        .get_mut()
        .write_all(text.as_bytes())
        .await
        .context("sending the answer")?;
    if ends {
        let _ = down.send(()).await;
    }
    Ok(())
}

async fn answer(lab: &Lab, request: Request) -> Result<String> {
    Ok(match request {
        Request::AddNode { node: Some(node) } => {
            lab.add_node_named(&node).await?;
            format!("{node} has joined\n")
        }
        Request::AddNode { node: None } => format!("{} has joined\n", lab.add_node().await?),
        Request::KillNode { node } => {
            lab.kill_node(&node).await?;
            format!("{node} has lost power\n")
        }
        Request::ReviveNode { node } => {
            lab.revive_node(&node).await?;
            format!("{node} has power again\n")
        }
        Request::Who { addresses } => who(lab, addresses).await?,
        Request::Get { target } => lab.http_get(target.ip(), target.port()).await?.body,
        Request::Status => status(lab).await?,
        Request::Down => "the lab ends\n".into(),
    })
}

async fn who(lab: &Lab, addresses: Vec<IpAddr>) -> Result<String> {
    let addresses = if addresses.is_empty() {
        services(lab)
            .await?
            .into_iter()
            .flat_map(|(_, addresses)| addresses)
            .collect()
    } else {
        addresses
    };
    let mut text = String::new();
    for address in addresses {
        let _ = writeln!(text, "{address:<24}{}", answerer(lab, address).await);
    }
    Ok(text)
}

async fn answerer(lab: &Lab, address: IpAddr) -> String {
    match lab.who_answers(address).await {
        Ok(Some(node)) => node,
        Ok(None) => "nobody".into(),
        Err(error) => format!("{error:#}"),
    }
}

async fn status(lab: &Lab) -> Result<String> {
    let mut text = format!("{:<16}{:<8}{}\n", "NODE", "POWER", "READY");
    for node in lab.nodes() {
        let power = if lab.is_powered(&node) { "on" } else { "off" };
        let ready = if lab.is_ready(&node).await? {
            "yes"
        } else {
            "no"
        };
        let _ = writeln!(text, "{node:<16}{power:<8}{ready}");
    }
    let services = services(lab).await?;
    if !services.is_empty() {
        let _ = writeln!(text, "\n{:<32}{:<24}ANSWERED BY", "SERVICE", "ADDRESS");
    }
    for (service, addresses) in services {
        if addresses.is_empty() {
            let _ = writeln!(text, "{service:<32}-");
        }
        for address in addresses {
            let _ = writeln!(
                text,
                "{service:<32}{address:<24}{}",
                answerer(lab, address).await
            );
        }
    }
    Ok(text)
}

/// All Services of type LoadBalancer with their addresses.
async fn services(lab: &Lab) -> Result<Vec<(String, Vec<IpAddr>)>> {
    let services: Api<Service> = Api::all(lab.client());
    let list = services
        .list(&ListParams::default())
        .await
        .context("listing Services")?;
    let mut all = Vec::new();
    for service in list {
        if service.spec.as_ref().and_then(|spec| spec.type_.as_deref()) != Some("LoadBalancer") {
            continue;
        }
        let namespace = service.meta().namespace.clone().unwrap_or_default();
        let ingress = service
            .status
            .as_ref()
            .and_then(|status| status.load_balancer.as_ref()?.ingress.clone());
        let addresses = ingress
            .into_iter()
            .flatten()
            .filter_map(|ingress| ingress.ip?.parse().ok())
            .collect();
        all.push((format!("{namespace}/{}", service.name_any()), addresses));
    }
    Ok(all)
}
