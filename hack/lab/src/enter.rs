//! Moving a program into namespaces of its own.
//!
//! Every lab lives in a fresh network, mount and process namespace (and, for
//! an ordinary user, a user namespace), so that fixed addresses and ports
//! never collide and nothing is left behind: when the outer process ends, for
//! whatever reason, the kernel kills the first process of the inner process
//! namespace, and with it everything that it started.

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::{Pid, getgid, getpid, getuid};

use crate::{place, tools};

/// Set to tell the inner process that it is the inner one.
const INSIDE: &str = "L2LB_LAB_INSIDE";
/// How long a lab may take to end after it was asked to, before it is killed.
const GRACE: Duration = Duration::from_secs(2);

/// What the outer process does when it is interrupted from the keyboard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interrupt {
    /// Ends the lab: for tests and everything else that just runs.
    Ends,
    /// Leaves it to the program inside: for an interactive shell.
    Inside,
}

/// Moves the calling program into namespaces of its own, where a
/// [`Lab`](crate::Lab) can be brought up.
///
/// Call it at the top of `main`, before any thread exists. Outside, it builds
/// the missing `components` (folders of `hack/tools`), runs the same program
/// with the same arguments inside, and ends with its exit code: it returns
/// only inside, or with an error.
pub fn enter(components: &[&str]) -> Result<()> {
    enter_with(components, Interrupt::Ends)
}

/// Like [`enter`], with a say in what Ctrl-C does.
pub fn enter_with(components: &[&str], interrupt: Interrupt) -> Result<()> {
    if is_inside() {
        inside()
    } else {
        outside(components, interrupt)
    }
}

/// Whether this process is the first one of a lab's namespaces.
#[must_use]
pub fn is_inside() -> bool {
    getpid().as_raw() == 1 && std::env::var_os(INSIDE).is_some()
}

fn outside(components: &[&str], interrupt: Interrupt) -> Result<()> {
    check_programs()?;
    let folders = tools::build(components)?;
    let logs = place::new_logs_dir();
    std::fs::create_dir_all(&logs).with_context(|| format!("creating {}", logs.display()))?;
    let state = place::state_dir();
    let program = std::env::current_exe().context("finding this program")?;

    // Waited for by hand; the child inherits this and undoes it.
    let mut signals = SigSet::empty();
    for signal in [
        Signal::SIGCHLD,
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
    ] {
        signals.add(signal);
    }
    signals.thread_block().context("blocking signals")?;

    new_namespaces()?;
    let mut child = Command::new(program)
        .args(std::env::args_os().skip(1))
        .env(INSIDE, "1")
        .env(tools::FOLDERS, tools::encode(&folders)?)
        .env(place::LOGS, &logs)
        .env(place::STATE, &state)
        .spawn()
        .context("starting this program in its namespaces")?;
    let pid = Pid::from_raw(i32::try_from(child.id()).context("the lab's process id")?);
    let mut kill_at: Option<Instant> = None;
    let status = loop {
        if let Some(status) = child.try_wait().context("waiting for the lab")? {
            break status;
        }
        match kill_at {
            None => match signals.wait().context("waiting for a signal")? {
                Signal::SIGCHLD => {}
                Signal::SIGINT if interrupt == Interrupt::Inside => {}
                signal => {
                    let _ = kill(pid, signal);
                    kill_at = Some(Instant::now() + GRACE);
                }
            },
            Some(at) if at <= Instant::now() => {
                let _ = kill(pid, Signal::SIGKILL);
                std::thread::sleep(Duration::from_millis(10));
            }
            Some(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    };
    std::process::exit(
        status
            .code()
            .unwrap_or_else(|| 128 + status.signal().unwrap_or(0)),
    );
}

/// The system's programs that a lab needs.
fn check_programs() -> Result<()> {
    let needed = [
        ("ip", "iproute2"),
        ("nft", "nftables"),
        ("mount", "mount"),
        ("chroot", "coreutils"),
    ];
    let missing: Vec<&str> = needed
        .iter()
        .filter(|(program, _)| tools::on_path(program).is_none())
        .map(|(_, package)| *package)
        .collect();
    if !missing.is_empty() {
        bail!(
            "these system packages are missing: {} (hack/tools/system-packages.sh installs them)",
            missing.join(" ")
        );
    }
    Ok(())
}

/// Leaves the caller's namespaces; the process namespace is the next child's.
fn new_namespaces() -> Result<()> {
    let common = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID;
    if getuid().is_root() {
        unshare(common)
            .context("making namespaces as root (is this a container without CAP_SYS_ADMIN?)")?;
    } else {
        let (uid, gid) = (getuid(), getgid());
        unshare(common | CloneFlags::CLONE_NEWUSER).context(
            "making a user namespace (the system may forbid it to ordinary users: see \
             kernel.unprivileged_userns_clone and kernel.apparmor_restrict_unprivileged_userns)",
        )?;
        std::fs::write("/proc/self/setgroups", "deny").context("denying setgroups")?;
        std::fs::write("/proc/self/uid_map", format!("0 {uid} 1")).context("mapping the user")?;
        std::fs::write("/proc/self/gid_map", format!("0 {gid} 1")).context("mapping the group")?;
    }
    // Nothing mounted from here on is seen outside.
    mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        None::<&str>,
    )
    .context("making mounts private")
}

fn inside() -> Result<()> {
    // Or no program of the lab could be asked to end.
    SigSet::empty()
        .thread_set_mask()
        .context("unblocking signals")?;
    // The kernel ends this process, and with it the namespaces, when the
    // outer one is gone.
    prctl::set_pdeathsig(Signal::SIGKILL).context("tying the lab to its parent")?;
    mount(
        Some("proc"),
        "/proc",
        Some("proc"),
        MsFlags::empty(),
        None::<&str>,
    )
    .context("mounting /proc")?;
    let folders = tools::folders()?;
    let state = std::fs::File::open(place::state_dir()).ok();
    // What lies below /run is hidden by the next step; these are kept in sight.
    let held: Vec<(String, std::fs::File)> = folders
        .iter()
        .map(|(name, folder)| Ok((name.clone(), open(folder)?)))
        .collect::<Result<_>>()?;
    mount(
        Some("tmpfs"),
        "/run",
        Some("tmpfs"),
        MsFlags::empty(),
        Some("mode=0755"),
    )
    .context("mounting /run")?;
    for folder in ["/run/netns", place::RUN, place::INNER_STATE] {
        std::fs::create_dir_all(folder).with_context(|| format!("creating {folder}"))?;
    }
    for (name, folder) in &held {
        bind(folder, &place::tool_dir(name))?;
    }
    if let Some(state) = state {
        bind(&state, Path::new(place::INNER_STATE))?;
    }
    Ok(())
}

fn open(path: &PathBuf) -> Result<std::fs::File> {
    std::fs::File::open(path).with_context(|| format!("opening {}", path.display()))
}

fn bind(folder: &std::fs::File, to: &Path) -> Result<()> {
    use std::os::fd::AsRawFd;
    std::fs::create_dir_all(to).with_context(|| format!("creating {}", to.display()))?;
    let from = format!("/proc/self/fd/{}", folder.as_raw_fd());
    match mount(
        Some(from.as_str()),
        to,
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    ) {
        // A user namespace may only bind a mount together with what lies below it.
        Err(Errno::EINVAL) => mount(
            Some(from.as_str()),
            to,
            None::<&str>,
            MsFlags::MS_BIND | MsFlags::MS_REC,
            None::<&str>,
        ),
        other => other,
    }
    .with_context(|| format!("binding {}", to.display()))
}
