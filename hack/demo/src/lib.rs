//! The main job on a real cluster: one L2LoadBalancer becomes a Service for
//! each node, nodes come, fail and return, and everything goes again. Each
//! step checks what it shows; `make demo` runs it for people, `tests/demo.rs`
//! as a test.

pub mod stage;
mod table;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use l2lb_lab::{Lab, place};

use stage::{PATIENCE, PORT, Slot, Stage};

const NAMESPACE: &str = "shop";
const NAME: &str = "web";
/// The label of what l2lb made.
const MANAGED: &str = "app.kubernetes.io/managed-by=l2lb";

/// What is played.
#[derive(Clone, Debug)]
pub struct Script {
    /// The `l2lb-controller` to run.
    pub controller: PathBuf,
    /// L2AddressPool and L2LoadBalancer, below the workspace.
    pub files: [&'static str; 2],
}

impl Script {
    /// IPv4 alone.
    pub fn single_stack(controller: PathBuf) -> Self {
        let files = [
            "testdata/demo/pool.yaml",
            "testdata/demo/load-balancer.yaml",
        ];
        Self { controller, files }
    }

    /// Both families.
    pub fn dual_stack(controller: PathBuf) -> Self {
        let files = [
            "testdata/demo/pool-dual-stack.yaml",
            "testdata/demo/load-balancer-dual-stack.yaml",
        ];
        Self { controller, files }
    }
}

/// The demo as it runs.
pub struct Demo {
    stage: Stage,
    script: Script,
    started: Instant,
}

/// Plays the whole script.
///
/// # Errors
/// The first thing that is not as it should be.
pub async fn play(lab: Lab, script: Script) -> Result<()> {
    let mut demo = Demo::begin(lab, script).await?;
    demo.fan_out().await.context("step 1: the fan-out")?;
    let joined = demo.node_joins().await.context("step 2: a node joins")?;
    let failed = demo.node_fails().await.context("step 3: a node fails")?;
    ensure!(failed != joined, "the node that joined was to stay");
    demo.node_returns(&failed)
        .await
        .context("step 4: the node returns")?;
    demo.all_goes().await.context("step 5: everything goes")?;
    demo.say("done: every step was as it should be");
    Ok(())
}

impl Demo {
    fn say(&self, text: impl AsRef<str>) {
        println!(
            "[{:5.1} s] {}",
            self.started.elapsed().as_secs_f64(),
            text.as_ref()
        );
    }

    async fn begin(lab: Lab, script: Script) -> Result<Self> {
        let started = Instant::now();
        let program = script.controller.clone();
        let stage = Stage::set_in(lab, NAMESPACE, program, &["--listen=127.0.0.1:8080"]).await?;
        Ok(Self {
            stage,
            script,
            started,
        })
    }

    /// Step 1: a Service, an address and an announcer for each node.
    async fn fan_out(&mut self) -> Result<()> {
        self.say(format!(
            "applying {} and {}, with {} nodes",
            self.script.files[0],
            self.script.files[1],
            self.stage.lab.nodes().len()
        ));
        for file in self.script.files {
            self.stage
                .lab
                .apply_file(place::workspace().join(file))
                .await?;
        }
        let slots = self.wait_for_slots(self.stage.lab.nodes().len()).await?;
        self.show(&slots).await
    }

    /// Step 2: a node joins and gets a slot; the others keep theirs.
    async fn node_joins(&mut self) -> Result<String> {
        let before = self.slots().await?;
        let node = self.stage.lab.add_node().await?;
        self.say(format!("{node} joins"));
        self.stage
            .lab
            .kubectl()
            .run([
                "rollout",
                "status",
                "-n",
                NAMESPACE,
                "--timeout=30s",
                "daemonset/web",
            ])
            .await?;
        let after = self.wait_for_slots(before.len() + 1).await?;
        for slot in &before {
            ensure!(after.contains(slot), "{slot:?} is not as it was: {after:?}");
        }
        ensure!(
            after.iter().any(|s| s.home == node),
            "{node} has no slot: {after:?}"
        );
        self.show(&after).await?;
        self.say(format!(
            "{} has an address, the other {} are unchanged",
            node,
            before.len()
        ));
        Ok(node)
    }

    /// Step 3: a node loses power; its address moves, the others never stop.
    async fn node_fails(&mut self) -> Result<String> {
        let slots = self.slots().await?;
        let lost = slots.get(1).context("there is no second slot")?.clone();
        let targets = slots
            .iter()
            .flat_map(|s| &s.addresses)
            .map(|a| SocketAddr::new(*a, PORT));
        let probe = self
            .stage
            .lab
            .probe(targets.collect(), Duration::from_millis(100));
        tokio::time::sleep(Duration::from_secs(1)).await;
        self.say(format!("{} loses power", lost.home));
        let start = Instant::now();
        self.stage.lab.kill_node(&lost.home).await?;
        for address in &lost.addresses {
            let (heir, after) = loop {
                let taken = self
                    .stage
                    .lab
                    .nodes()
                    .into_iter()
                    .filter(|n| *n != lost.home)
                    .find_map(|n| probe.moved_to(*address, &n, start).map(|after| (n, after)));
                if let Some(taken) = taken {
                    break taken;
                }
                ensure!(
                    start.elapsed() < PATIENCE,
                    "nobody took {address} over in {PATIENCE:?}"
                );
                tokio::time::sleep(Duration::from_millis(100)).await;
            };
            self.say(format!(
                "{address} moved from {} to {heir}, which answered after {:.1} s",
                lost.home,
                after.as_secs_f64()
            ));
        }
        // Long enough for Kubernetes to notice, and for the pin to follow.
        self.stage
            .until(NAME, "the slot to be reported as failed over", |slots| {
                slots
                    .iter()
                    .any(|s| s.service == lost.service && s.phase == "FailedOver")
            })
            .await?;
        ensure!(
            self.condition("Ready").await? == "True",
            "Ready must stay True through the failure of one node"
        );
        let mut watched = 0;
        for slot in slots.iter().filter(|s| s.service != lost.service) {
            for address in &slot.addresses {
                let failures = probe.failures(*address, start);
                ensure!(
                    failures.is_empty(),
                    "{address} stopped answering: {failures:?}"
                );
                let attempts = probe.since(*address, start);
                let strayed = attempts
                    .iter()
                    .find(|a| a.answered_by != [slot.home.clone()]);
                ensure!(
                    strayed.is_none(),
                    "{address} left {}: {strayed:?}",
                    slot.home
                );
                watched += attempts.len();
            }
        }
        ensure!(watched > 0, "the other addresses were not watched");
        self.say(format!(
            "the other {} addresses answered all of {watched} requests meanwhile",
            slots
                .iter()
                .filter(|s| s.service != lost.service)
                .map(|s| s.addresses.len())
                .sum::<usize>()
        ));
        probe.stop().await;
        let slots = self.slots().await?;
        self.print(&slots).await?;
        Ok(lost.home)
    }

    /// Step 4: the node returns and takes its address back.
    async fn node_returns(&mut self, node: &str) -> Result<()> {
        let before = self.slots().await?;
        let own = before
            .iter()
            .find(|s| s.home == node)
            .context("its slot is gone")?;
        self.say(format!("{node} has power again"));
        let start = Instant::now();
        self.stage.lab.revive_node(node).await?;
        for address in &own.addresses {
            self.stage
                .lab
                .wait_for_answer(*address, node, PATIENCE)
                .await?;
            self.stage
                .lab
                .wait_for_http(*address, PORT, PATIENCE)
                .await?;
            self.say(format!(
                "{address} is back at {node} after {:.1} s",
                start.elapsed().as_secs_f64()
            ));
        }
        let slots = self.wait_for_slots(before.len()).await?;
        for (old, new) in before.iter().zip(&slots) {
            ensure!(
                (&old.service, &old.home, &old.addresses)
                    == (&new.service, &new.home, &new.addresses),
                "{old:?} became {new:?}"
            );
        }
        self.show(&slots).await
    }

    /// Step 5: everything goes, and MetalLB is as it was.
    async fn all_goes(&mut self) -> Result<()> {
        self.say("deleting the L2LoadBalancer and the L2AddressPool");
        let kubectl = self.stage.lab.kubectl();
        kubectl
            .run(["delete", "l2lb", "-n", NAMESPACE, NAME, "--timeout=60s"])
            .await?;
        kubectl
            .run(["delete", "l2pool", "edge", "--timeout=60s"])
            .await?;
        let start = Instant::now();
        loop {
            let left = self.remains().await?;
            if left.is_empty() {
                break;
            }
            ensure!(start.elapsed() < PATIENCE, "still there: {left}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let states = self
            .stage
            .get(&["configurationstates", "-n", "metallb-system"])
            .await?;
        let items = states["items"].as_array().cloned().unwrap_or_default();
        ensure!(!items.is_empty(), "MetalLB reports no ConfigurationState");
        for state in &items {
            ensure!(
                state["status"]["result"] == "Valid",
                "MetalLB's configuration is not valid: {}",
                state["status"]
            );
        }
        self.say(format!(
            "no Service, IPAddressPool or L2Advertisement is left; all {} parts of MetalLB report \
             a valid configuration",
            items.len()
        ));
        Ok(())
    }

    /// What is left of ours, as a list of names. Nobody else makes objects of
    /// any of these kinds here, but for Services.
    async fn remains(&self) -> Result<String> {
        let of_ours = format!("--selector={MANAGED}");
        let kinds = "l2loadbalancers,l2addresspools,ipaddresspools,l2advertisements";
        let kubectl = self.stage.lab.kubectl();
        let mut left = kubectl.run(["get", kinds, "-A", "-o", "name"]).await?;
        left += &kubectl
            .run(["get", "services", "-A", &of_ours, "-o", "name"])
            .await?;
        Ok(left.split_whitespace().collect::<Vec<_>>().join(" "))
    }

    async fn condition(&self, kind: &str) -> Result<String> {
        let found = self.stage.condition("l2lb", NAME, kind).await?;
        Ok(found.status)
    }

    async fn slots(&self) -> Result<Vec<Slot>> {
        self.stage.slots(NAME).await
    }

    /// Waits for that many slots, every one announced by its home.
    async fn wait_for_slots(&self, count: usize) -> Result<Vec<Slot>> {
        let what = format!("{count} slots to be announced by their homes");
        self.stage
            .until(NAME, &what, |slots| {
                slots.len() == count && slots.iter().all(|s| s.phase == "Announced")
            })
            .await
    }

    /// Checks by ARP and HTTP from outside that every slot is at home, and
    /// shows it.
    async fn show(&self, slots: &[Slot]) -> Result<()> {
        let mut homes: BTreeMap<&str, usize> = BTreeMap::new();
        for slot in slots {
            *homes.entry(&slot.home).or_default() += 1;
            for address in &slot.addresses {
                self.stage
                    .lab
                    .wait_for_answer(*address, &slot.home, PATIENCE)
                    .await?;
                self.stage
                    .lab
                    .wait_for_http(*address, PORT, PATIENCE)
                    .await?;
            }
        }
        ensure!(
            homes.values().all(|n| *n == 1),
            "homes are uneven: {homes:?}"
        );
        ensure!(
            self.condition("Ready").await? == "True",
            "Ready is not True"
        );
        ensure!(
            self.condition("Pinned").await? == "True",
            "Pinned is not True"
        );
        self.print(slots).await
    }

    /// Who answers for an address, when no two do any more.
    async fn settled_answer(&self, address: IpAddr) -> Result<Option<String>> {
        let start = Instant::now();
        loop {
            match self.stage.lab.who_answers(address).await {
                Err(error) if start.elapsed() > PATIENCE => return Err(error),
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                answer => return answer,
            }
        }
    }

    /// Prints who answers for what, as the client outside sees it.
    async fn print(&self, slots: &[Slot]) -> Result<()> {
        let mut rows = Vec::new();
        for slot in slots {
            for address in &slot.addresses {
                // A speaker that has just started believes for a moment that it is alone.
                let answers = self.settled_answer(*address).await?;
                let http = match self.stage.lab.http_get(*address, PORT).await {
                    Ok(response) => {
                        format!("{} {}", response.status, response.body.trim())
                    }
                    Err(error) => format!("failed: {error:#}"),
                };
                rows.push([
                    slot.service.clone(),
                    slot.home.clone(),
                    address.to_string(),
                    answers.unwrap_or_else(|| "nobody".to_owned()),
                    http,
                ]);
            }
        }
        print!(
            "{}",
            table::table(
                ["SLOT", "HOME", "ADDRESS", "ARP ANSWERED BY", "HTTP"],
                &rows
            )
        );
        Ok(())
    }
}
