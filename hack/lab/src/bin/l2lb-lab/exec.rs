//! Running commands in a lab.

use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use l2lb_lab::Lab;
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

use crate::client;

/// Runs a command with this program's terminal on a machine of a lab, or in
/// its control plane, and returns its exit code.
pub fn run(name: &str, machine: Option<&str>, command: &[String]) -> Result<ExitCode> {
    let stream = client::connect(name)?;
    let lab = getsockopt(&stream, PeerCredentials)
        .context("asking who the lab is")?
        .pid();
    // Afterwards /proc is the lab's, and does not tell where this program is.
    let environment = Lab::environment();
    enter(lab)?;
    if let Some(machine) = machine {
        let door = std::fs::File::open(Path::new("/run/netns").join(machine))
            .with_context(|| format!("there is no machine {machine}"))?;
        setns(door, CloneFlags::CLONE_NEWNET).with_context(|| format!("joining {machine}"))?;
    }
    let (program, args) = command.split_first().context("there is no command")?;
    let mut command = Command::new(program);
    // A lab's commands within mean that lab.
    command
        .args(args)
        .envs(environment)
        .env("L2LB_LAB_NAME", name);
    for name in Lab::hidden_environment() {
        command.env_remove(name);
    }
    let status = command
        .status()
        .with_context(|| format!("running {program}"))?;
    let code = status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}

/// Joins the namespaces of a process, as far as they are not this one's already.
fn enter(pid: i32) -> Result<()> {
    let kinds = [
        ("user", CloneFlags::CLONE_NEWUSER),
        ("mnt", CloneFlags::CLONE_NEWNS),
        ("net", CloneFlags::CLONE_NEWNET),
        ("pid", CloneFlags::CLONE_NEWPID),
    ];
    let here = std::env::current_dir().ok();
    // All are opened first: afterwards /proc is the lab's.
    let mut doors = Vec::new();
    for (kind, flag) in kinds {
        let path = format!("/proc/{pid}/ns/{kind}");
        let theirs = std::fs::metadata(&path).with_context(|| format!("looking at {path}"))?;
        let ours = std::fs::metadata(Path::new("/proc/self/ns").join(kind))
            .context("looking at /proc/self/ns")?;
        if (theirs.dev(), theirs.ino()) != (ours.dev(), ours.ino()) {
            doors.push((
                kind,
                flag,
                std::fs::File::open(&path).with_context(|| format!("opening {path}"))?,
            ));
        }
    }
    for (kind, flag, door) in doors {
        if let Err(error) = setns(door, flag) {
            bail!("joining the lab's {kind} namespace: {error}");
        }
    }
    if let Some(here) = here {
        let _ = std::env::set_current_dir(here);
    }
    Ok(())
}
