//! A lab with the controller on it, for tests that change something and look
//! at what becomes of the load balancers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use l2lb_lab::{Lab, Process, Spec};
use serde_json::{Value, json};

/// How long anything may take.
pub const PATIENCE: Duration = Duration::from_secs(90);
/// The namespace of the load balancers and of their pods, unless another is named.
pub const NAMESPACE: &str = "default";
/// The port of the load balancers.
pub const PORT: u16 = 80;

/// One slot as status tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Its Service.
    pub service: String,
    /// Its home.
    pub home: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Who announces it.
    pub announced_by: Option<String>,
    /// Where it is in its life.
    pub phase: String,
    /// What a person should know about it.
    pub message: String,
}

/// A condition as status tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// `True` or `False`.
    pub status: String,
    /// Why, in one word.
    pub reason: String,
    /// Why, in a sentence.
    pub message: String,
}

/// The lab and the controller.
pub struct Stage {
    /// The lab.
    pub lab: Arc<Lab>,
    namespace: String,
    program: PathBuf,
    args: Vec<String>,
    controller: Option<Process>,
}

impl Stage {
    /// Installs the product and pods of an app `web` on every node, and
    /// starts the controller with these arguments.
    ///
    /// # Errors
    /// What the lab says.
    pub async fn set(lab: Lab, program: PathBuf, args: &[&str]) -> Result<Self> {
        Self::set_in(lab, NAMESPACE, program, args).await
    }

    /// The same in a namespace, which is made unless it is the usual one.
    ///
    /// # Errors
    /// What the lab says.
    pub async fn set_in(
        lab: Lab,
        namespace: &str,
        program: PathBuf,
        args: &[&str],
    ) -> Result<Self> {
        lab.install_product_crds().await?;
        if namespace != NAMESPACE {
            lab.kubectl()
                .run(["create", "namespace", namespace])
                .await?;
        }
        lab.deploy_backend(namespace, "web", 8080).await?;
        let mut stage = Self {
            lab: Arc::new(lab),
            namespace: namespace.to_owned(),
            program,
            args: args.iter().map(|a| (*a).to_owned()).collect(),
            controller: None,
        };
        stage.start_controller()?;
        Ok(stage)
    }

    fn start_controller(&mut self) -> Result<()> {
        let mut spec = Spec::new("l2lb-controller", &self.program).args(&self.args);
        if !self.args.iter().any(|a| a.starts_with("--listen=")) {
            spec = spec.args(["--listen=0"]);
        }
        self.controller = Some(self.lab.start(spec)?);
        Ok(())
    }

    /// Kills the controller and starts it anew.
    ///
    /// # Errors
    /// What the lab says.
    pub async fn restart_controller(&mut self) -> Result<()> {
        if let Some(controller) = self.controller.take() {
            controller.kill().await;
        }
        self.start_controller()
    }

    /// Applies an L2AddressPool.
    ///
    /// # Errors
    /// What the API server says.
    pub async fn pool(&self, name: &str, spec: Value) -> Result<()> {
        let pool = json!({"apiVersion": "l2lb.io/v1alpha1", "kind": "L2AddressPool",
            "metadata": {"name": name}, "spec": spec});
        self.lab.apply(&pool.to_string()).await
    }

    /// Applies an L2LoadBalancer for the pods of app `web`; `more` goes into
    /// its spec, `service` into that of its Services.
    ///
    /// # Errors
    /// What the API server says.
    pub async fn load_balancer(
        &self,
        name: &str,
        pool: &str,
        more: Value,
        service: Value,
    ) -> Result<()> {
        let mut spec = json!({"addressPool": pool, "service": {
            "selector": {"app": "web"}, "ports": [{"port": PORT, "targetPort": 8080}]}});
        merge(&mut spec, more);
        merge(&mut spec["service"], service);
        let lb = json!({"apiVersion": "l2lb.io/v1alpha1", "kind": "L2LoadBalancer",
            "metadata": {"namespace": self.namespace, "name": name}, "spec": spec});
        self.lab.apply(&lb.to_string()).await
    }

    /// Reads an object; `kind` and more arguments as kubectl wants them.
    ///
    /// # Errors
    /// What kubectl says.
    pub async fn get(&self, args: &[&str]) -> Result<Value> {
        let all = ["get", "-o", "json"].iter().chain(args).copied();
        Ok(serde_json::from_str(&self.lab.kubectl().run(all).await?)?)
    }

    /// The slots of a load balancer.
    ///
    /// # Errors
    /// What kubectl says, and a status of another form.
    pub async fn slots(&self, name: &str) -> Result<Vec<Slot>> {
        let lb = self.get(&["l2lb", "-n", &self.namespace, name]).await?;
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        let slots = lb["status"]["slots"].as_array().cloned();
        slots
            .unwrap_or_default()
            .iter()
            .map(|slot| {
                let addresses = slot["addresses"].as_array().into_iter().flatten();
                Ok(Slot {
                    service: text(&slot["service"]),
                    home: text(&slot["node"]),
                    addresses: addresses
                        .map(|a| text(a).parse())
                        .collect::<Result<_, _>>()?,
                    announced_by: slot["announcedBy"].as_str().map(str::to_owned),
                    phase: text(&slot["phase"]),
                    message: text(&slot["message"]),
                })
            })
            .collect()
    }

    /// Waits until the slots of a load balancer are as wanted.
    ///
    /// # Errors
    /// The slots as they are when patience ends.
    pub async fn until(
        &self,
        name: &str,
        what: &str,
        wanted: impl Fn(&[Slot]) -> bool,
    ) -> Result<Vec<Slot>> {
        let start = Instant::now();
        loop {
            let slots = self.slots(name).await?;
            if wanted(&slots) {
                return Ok(slots);
            }
            if start.elapsed() > PATIENCE {
                bail!("waited {PATIENCE:?} for {what}; there is {slots:#?}");
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits until that many slots are announced by their homes, and each home
    /// answers for them.
    ///
    /// # Errors
    /// What is not so when patience ends.
    pub async fn at_home(&self, name: &str, count: usize) -> Result<Vec<Slot>> {
        let what = format!("{count} slots to be announced by their homes");
        let slots = self
            .until(name, &what, |slots| {
                slots.len() == count && slots.iter().all(|s| s.phase == "Announced")
            })
            .await?;
        for slot in &slots {
            self.answers(slot, &slot.home).await?;
        }
        Ok(slots)
    }

    /// Waits until exactly the named node answers for a slot's addresses.
    ///
    /// # Errors
    /// Who answers instead when patience ends.
    pub async fn answers(&self, slot: &Slot, node: &str) -> Result<()> {
        for address in &slot.addresses {
            self.lab.wait_for_answer(*address, node, PATIENCE).await?;
        }
        Ok(())
    }

    /// Waits until a slot is in a phase, announced by another node than its
    /// home, which answers for it, and returns it. Until MetalLB and the
    /// controller have come to terms it may be one node first and then another.
    ///
    /// # Errors
    /// What is not so when patience ends.
    pub async fn away(&self, name: &str, home: &str, phase: &str) -> Result<Slot> {
        let found = |s: &&Slot| {
            s.home == home
                && s.phase == phase
                && s.announced_by.as_ref().is_some_and(|by| by != home)
        };
        let start = Instant::now();
        loop {
            let what = format!("the slot of {home} to be {phase}");
            let slots = self
                .until(name, &what, |slots| slots.iter().any(|s| found(&s)))
                .await?;
            let slot = slots.iter().find(found).context("the slot is gone")?;
            let by = slot.announced_by.as_deref().unwrap_or_default();
            let mut answered = true;
            for address in &slot.addresses {
                let who = self.lab.who_answers(*address).await;
                answered &= who.is_ok_and(|who| who.as_deref() == Some(by));
            }
            if answered {
                return Ok(slot.clone());
            }
            ensure!(
                start.elapsed() < PATIENCE,
                "{by} is said to announce {slot:?}, and does not answer"
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// The slot of a home.
    ///
    /// # Errors
    /// That there is none.
    pub async fn slot(&self, name: &str, home: &str) -> Result<Slot> {
        let slots = self.slots(name).await?;
        let found = slots.into_iter().find(|s| s.home == home);
        found.with_context(|| format!("{home} has no slot"))
    }

    /// A condition of an object.
    ///
    /// # Errors
    /// What kubectl says, and that there is none.
    pub async fn condition(&self, kind: &str, name: &str, condition: &str) -> Result<Condition> {
        let object = self.get(&[kind, "-n", &self.namespace, name]).await?;
        let all = object["status"]["conditions"].as_array().cloned();
        let all = all.unwrap_or_default();
        let found = all.iter().find(|c| c["type"] == condition);
        let found = found.with_context(|| format!("{kind} {name} has no {condition}"))?;
        let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
        Ok(Condition {
            status: text("status"),
            reason: text("reason"),
            message: text("message"),
        })
    }

    /// Waits until a condition has a reason; returns its message.
    ///
    /// # Errors
    /// The condition as it is when patience ends.
    pub async fn reason(
        &self,
        kind: &str,
        name: &str,
        condition: &str,
        reason: &str,
    ) -> Result<String> {
        let start = Instant::now();
        loop {
            let found = self.condition(kind, name, condition).await;
            match found {
                Ok(found) if found.reason == reason => return Ok(found.message),
                found if start.elapsed() > PATIENCE => {
                    bail!("waited {PATIENCE:?} for {condition} {reason} of {name}: {found:?}")
                }
                _ => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    /// Fails unless every address of a load balancer has a live announcer.
    ///
    /// # Errors
    /// The condition as it is.
    pub async fn ensure_ready(&self, name: &str) -> Result<()> {
        let ready = self.condition("l2lb", name, "Ready").await?;
        ensure!(ready.status == "True", "Ready is {ready:?}");
        Ok(())
    }

    /// Of how many objects, a load balancer and its Services, the resource
    /// versions were other ones after a while than before, or that came or went.
    ///
    /// # Errors
    /// What kubectl says.
    pub async fn writes_during(&self, name: &str, time: Duration) -> Result<usize> {
        let before = self.versions(name).await?;
        tokio::time::sleep(time).await;
        let after = self.versions(name).await?;
        Ok(differences(&before, &after))
    }

    /// By kind and name.
    async fn versions(&self, name: &str) -> Result<BTreeMap<String, Value>> {
        let selector = format!("l2lb.io/load-balancer={name}");
        let list = self
            .get(&["services", "-n", &self.namespace, "-l", &selector])
            .await?;
        let lb = self.get(&["l2lb", "-n", &self.namespace, name]).await?;
        let items = list["items"].as_array().cloned().unwrap_or_default();
        let version = |o: &Value| {
            let key = format!("{} {}", o["kind"], o["metadata"]["name"]);
            (key, o["metadata"]["resourceVersion"].clone())
        };
        Ok(items.iter().chain([&lb]).map(version).collect())
    }
}

fn differences(before: &BTreeMap<String, Value>, after: &BTreeMap<String, Value>) -> usize {
    let keys: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    keys.into_iter()
        .filter(|key| before.get(*key) != after.get(*key))
        .count()
}

fn merge(into: &mut Value, more: Value) {
    if let (Some(into), Value::Object(more)) = (into.as_object_mut(), more) {
        into.extend(more);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_and_goes_differs() {
        let of = |all: &[(&str, &str)]| -> BTreeMap<String, Value> {
            all.iter()
                .map(|(k, v)| ((*k).to_owned(), json!(v)))
                .collect()
        };
        let before = of(&[("a", "1"), ("b", "2")]);
        assert_eq!(differences(&before, &before), 0);
        assert_eq!(
            differences(&before, &of(&[("a", "1"), ("b", "2"), ("c", "3")])),
            1
        );
        assert_eq!(differences(&before, &of(&[("b", "2"), ("c", "1")])), 2);
        assert_eq!(differences(&before, &of(&[("a", "1"), ("b", "3")])), 1);
    }
}
