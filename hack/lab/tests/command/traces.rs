//! What a lab leaves on the machine: processes, and the namespaces that they are in.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

/// How long the kernel may take to end what was in a namespace.
const PATIENCE: Duration = Duration::from_secs(20);

/// By what a lab is known from outside.
#[derive(Debug)]
pub struct Traces {
    /// The process that waits outside of its namespaces.
    pub outer: i32,
    pids: u64,
    networks: BTreeSet<u64>,
}

impl Traces {
    /// Those of the lab with a control socket.
    pub fn of(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket).context("connecting to a lab")?;
        let first = getsockopt(&stream, PeerCredentials).context("asking who it is")?;
        let first = first.pid();
        let outer = field(first, "PPid:").context("the lab has no parent")?;
        let pids = namespace(first, "pid").context("the lab has ended")?;
        let own = namespace(std::process::id().cast_signed(), "net");
        let mut traces = Self {
            outer,
            pids,
            networks: BTreeSet::new(),
        };
        ensure!(
            namespace(outer, "pid") != Some(pids),
            "{outer} is inside of the lab"
        );
        for process in traces.processes()? {
            traces.networks.extend(namespace(process, "net"));
        }
        // The control plane, and each node.
        ensure!(
            traces.networks.len() >= 2 && own.is_none_or(|own| !traces.networks.contains(&own)),
            "{traces:?}"
        );
        Ok(traces)
    }

    /// Its processes inside.
    pub fn processes(&self) -> Result<Vec<i32>> {
        let all = processes()?.into_iter();
        Ok(all
            .filter(|p| namespace(*p, "pid") == Some(self.pids))
            .collect())
    }

    /// Waits until nothing is left of it.
    pub fn until_gone(&self) -> Result<()> {
        let start = Instant::now();
        loop {
            let left: Vec<i32> = processes()?
                .into_iter()
                .filter(|p| {
                    *p == self.outer
                        || namespace(*p, "pid") == Some(self.pids)
                        || namespace(*p, "net").is_some_and(|n| self.networks.contains(&n))
                })
                .collect();
            if left.is_empty() {
                return Ok(());
            }
            ensure!(
                start.elapsed() < PATIENCE,
                "processes {left:?} are left of {self:?}"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Namespaces of a lab's machines that are seen outside: by name, or mounted.
pub fn of_namespaces() -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    if let Ok(entries) = std::fs::read_dir("/run/netns") {
        for entry in entries {
            found.insert(entry?.file_name().to_string_lossy().into_owned());
        }
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").context("reading mounts")?;
    let of_labs = |line: &&str| line.contains(" /run/netns") || line.contains(" /run/lab");
    found.extend(mounts.lines().filter(of_labs).map(str::to_owned));
    Ok(found)
}

/// All processes that can be seen, but for those that only wait to be buried.
fn processes() -> Result<Vec<i32>> {
    let entries = std::fs::read_dir("/proc").context("reading /proc")?;
    let ids = entries.filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok());
    Ok(ids.filter(|id| is_alive(*id)).collect())
}

fn is_alive(process: i32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"));
    status.is_ok_and(|text| {
        let state = text.lines().find(|l| l.starts_with("State:"));
        state.is_some_and(|s| !s.contains("Z (") && !s.contains("X ("))
    })
}

fn field(process: i32, name: &str) -> Option<i32> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find(|l| l.starts_with(name))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// The number of the namespace that a process is in, if that can be seen.
fn namespace(process: i32, kind: &str) -> Option<u64> {
    let path = format!("/proc/{process}/ns/{kind}");
    std::fs::metadata(path).ok().map(|m| m.ino())
}
