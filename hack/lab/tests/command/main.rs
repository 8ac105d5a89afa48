//! The lab as people use it, by its command: two labs side by side, and
//! nothing left of either, however it ends.

mod person;
mod traces;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use libtest_mimic::{Arguments, Failed, Trial};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use person::{Person, Said};
use traces::Traces;

const PATIENCE: Duration = Duration::from_secs(90);

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Two labs at once are enough for one machine.
    arguments.test_threads = Some(1);
    let own = Trial::test("two_labs", || {
        trial(Person::myself().map_err(|e| Failed::from(format!("{e:#}")))?)
    });
    let ordinary = match Person::ordinary() {
        Ok(()) => Trial::test("two_labs_of_an_ordinary_user", || {
            trial(Person::nobody().map_err(|e| Failed::from(format!("{e:#}")))?)
        }),
        Err(why) => {
            if !arguments.list {
                eprintln!("two_labs_of_an_ordinary_user is skipped: {why}");
            }
            Trial::test("two_labs_of_an_ordinary_user", || Ok(())).with_ignored_flag(true)
        }
    };
    libtest_mimic::run(&arguments, vec![own, ordinary]).exit_code()
}

fn trial(person: Person) -> Result<(), Failed> {
    let outcome = two_labs(&person);
    outcome.map_err(|error| Failed::from(format!("{error:#}\n{}", person.logs())))
}

fn two_labs(person: &Person) -> Result<()> {
    let clean = traces::of_namespaces()?;
    let a = person.start("a", &["up", "--detach", "--nodes=2"])?;
    let b = person.start("b", &["up", "--detach", "--nodes=1", "--bare"])?;
    for (name, up) in [("a", a), ("b", b)] {
        let said = Said::of(up)?;
        ensure!(
            said.code == 0 && said.text.contains(&format!("the lab {name} is up")),
            "{name}: {said:?}"
        );
    }
    let twice = person.run("a", &["up"])?;
    ensure!(
        twice.code != 0 && twice.text.contains("a lab called a is running already"),
        "{twice:?}"
    );
    let (a, b) = (
        Traces::of(&person.socket("a"))?,
        Traces::of(&person.socket("b"))?,
    );
    ensure!(
        a.processes()?.len() > 8 && b.processes()?.len() > 6,
        "{a:?}, {b:?}"
    );

    commands(person)?;
    load_balancer(person)?;

    // One is told to end, the other one's own process is killed.
    ensure!(person.good("a", &["down"])?.contains("the lab ends"));
    a.until_gone()?;
    ensure!(!person.socket("a").exists(), "its socket is still there");
    ensure!(
        person.good("b", &["status"])?.contains("node-1"),
        "b ended with a"
    );
    kill(Pid::from_raw(b.outer), Signal::SIGKILL).context("killing b")?;
    b.until_gone()?;
    for name in ["a", "b"] {
        let gone = person.run(name, &["status"])?;
        ensure!(
            gone.code != 0
                && gone
                    .text
                    .contains(&format!("no lab called {name} is running")),
            "{gone:?}"
        );
    }
    ensure!(
        traces::of_namespaces()? == clean,
        "namespaces are left: {:?}",
        traces::of_namespaces()?
    );
    Ok(())
}

/// Commands run in the lab that is named, where they are told to.
fn commands(person: &Person) -> Result<()> {
    let nodes = ["exec", "--", "kubectl", "get", "nodes", "-o", "name"];
    let of_a = person.good("a", &nodes)?;
    let of_b = person.good("b", &nodes)?;
    ensure!(
        of_a.contains("node-2") && of_b.contains("node-1") && !of_b.contains("node-2"),
        "{of_a:?}, {of_b:?}"
    );
    let failed = person.run("a", &["exec", "--", "sh", "-c", "exit 7"])?;
    ensure!(failed.code == 7, "{failed:?}");
    for (place, address) in [
        ("--client", "192.0.2.2/24"),
        ("--node=node-1", "192.0.2.11/24"),
    ] {
        let text = person.good("a", &["exec", place, "--", "ip", "address", "show", "eth0"])?;
        ensure!(text.contains(address), "{place}: {text}");
    }
    let missing = person.run("a", &["exec", "--node=node-9", "--", "true"])?;
    ensure!(missing.text.contains("no machine node-9"), "{missing:?}");
    // A lab's commands within mean that lab, and the plugin is at hand.
    let within = person.good("a", &["exec", "--", "l2lb-lab", "status"])?;
    ensure!(within.contains("node-2"), "{within}");
    let plugin = person.good("a", &["exec", "--", "kubectl", "l2lb", "status"])?;
    ensure!(!plugin.is_empty(), "the plugin says nothing");
    let crd = [
        "exec",
        "--",
        "kubectl",
        "get",
        "crd",
        "l2loadbalancers.l2lb.io",
    ];
    ensure!(person.run("b", &crd)?.code != 0, "b is not bare");
    Ok(())
}

/// What the banner names can be applied at once, and follows nodes.
fn load_balancer(person: &Person) -> Result<()> {
    let apply = ["exec", "--", "kubectl", "apply", "-f"];
    for file in [
        "testdata/demo/pool.yaml",
        "testdata/demo/load-balancer.yaml",
    ] {
        person.good("a", &[&apply[..], &[file]].concat())?;
    }
    let ready = "exec -- kubectl -n shop wait --for=condition=Ready --timeout=60s l2lb/web";
    person.good("a", &ready.split(' ').collect::<Vec<_>>())?;
    let homes = until_answered(person, "each node answers for one", |by| {
        by.len() == 2
            && ["node-1", "node-2"]
                .iter()
                .all(|n| by.values().any(|v| v == n))
    })?;
    let address = homes.iter().find(|(_, node)| *node == "node-1");
    let address = address.context("node-1 has none")?.0.clone();
    let start = Instant::now();
    while !person.run("a", &["get", &address])?.text.contains(" web-") {
        ensure!(start.elapsed() < PATIENCE, "{address} does not serve");
    }

    let joined = person.good("a", &["add-node"])?;
    ensure!(joined.trim() == "node-3 has joined", "{joined}");
    until_answered(person, "the third answers for a third", |by| {
        by.len() == 3 && by.values().any(|v| v == "node-3")
    })?;
    person.good("a", &["kill-node", "node-1"])?;
    let status = person.good("a", &["status"])?;
    ensure!(
        status
            .lines()
            .any(|l| l.starts_with("node-1") && l.contains("off")),
        "{status}"
    );
    until_answered(person, "another answers for node-1", |by| {
        by.get(&address)
            .is_some_and(|n| n.starts_with("node-") && n != "node-1")
    })?;
    person.good("a", &["revive-node", "node-1"])?;
    until_answered(person, "node-1 has its address back", |by| {
        by.get(&address).is_some_and(|n| n == "node-1")
    })?;
    let nobody = person.good("b", &["who", &address])?;
    ensure!(nobody.contains("nobody"), "{nobody}");
    Ok(())
}

/// Asks lab a who answers for the addresses of its Services, until that is good.
fn until_answered(
    person: &Person,
    what: &str,
    good: impl Fn(&BTreeMap<String, String>) -> bool,
) -> Result<BTreeMap<String, String>> {
    let start = Instant::now();
    loop {
        let text = person.good("a", &["who"])?;
        let pairs = text.lines().filter_map(|l| l.split_once(' '));
        let found = pairs
            .map(|(address, by)| (address.to_owned(), by.trim().to_owned()))
            .collect();
        if good(&found) {
            return Ok(found);
        }
        if start.elapsed() > PATIENCE {
            bail!("waited {PATIENCE:?} until {what}: {text}");
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}
