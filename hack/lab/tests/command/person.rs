//! Whoever types the commands, with a folder of their own.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use l2lb_lab::{LabConfig, build_tools, place};
use nix::unistd::{Gid, Uid, chown, getuid};

/// The user and group that own nothing.
const NOBODY: u32 = 65534;
/// The programs of this repository that a lab for people needs.
const PROGRAMS: [&str; 3] = ["l2lb-lab", "l2lb-controller", "kubectl-l2lb"];

/// Somebody with labs.
pub struct Person {
    folder: PathBuf,
    programs: PathBuf,
    user: u32,
    /// Whether commands are run as `user`, who is not the one that runs this.
    other: bool,
}

/// What a command said, and its exit code.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub text: String,
}

impl Said {
    /// Waits for a command.
    pub fn of(child: Child) -> Result<Self> {
        let output = child.wait_with_output().context("waiting for a command")?;
        let text = [output.stdout, output.stderr].concat();
        Ok(Self {
            code: output.status.code().context("it was killed")?,
            text: String::from_utf8_lossy(&text).into_owned(),
        })
    }
}

impl Person {
    /// Whoever runs the tests.
    pub fn myself() -> Result<Self> {
        let program = Path::new(env!("CARGO_BIN_EXE_l2lb-lab"));
        let person = Self {
            folder: folder("own")?,
            programs: program.parent().context("no folder")?.to_path_buf(),
            user: getuid().as_raw(),
            other: false,
        };
        for name in PROGRAMS {
            ensure!(
                person.programs.join(name).is_file(),
                "{name} is not built: cargo build --workspace --bins"
            );
        }
        Ok(person)
    }

    /// Whether root, who runs the tests, can run them as an ordinary user; else
    /// why not.
    pub fn ordinary() -> Result<(), String> {
        if !getuid().is_root() {
            return Err("whoever runs the tests is an ordinary user".to_owned());
        }
        let works = |what: &str, command: &[&str]| {
            let mut words = as_nobody().into_iter().chain(command.iter().copied());
            let program = words.next().unwrap_or("true");
            let output = Command::new(program).args(words).current_dir("/").output();
            match output {
                Ok(output) if output.status.success() => Ok(()),
                Ok(output) => Err(format!(
                    "{what}: {}",
                    String::from_utf8_lossy(&output.stderr).trim()
                )),
                Err(error) => Err(format!("{what}: {error}")),
            }
        };
        works("setpriv (of util-linux) does not work", &["true"])?;
        let unshare = "unshare --user --map-root-user --net --mount --pid --fork true";
        works(
            "ordinary users may not make user namespaces",
            &unshare.split(' ').collect::<Vec<_>>(),
        )?;
        let script = place::workspace().join("hack/tools/build.sh");
        let script = script.display().to_string();
        works(
            "ordinary users cannot read this repository",
            &["test", "-x", &script],
        )?;
        works("ordinary users cannot run go", &["go", "version"])
    }

    /// An ordinary user, who finds everything that is built.
    pub fn nobody() -> Result<Self> {
        let folder = folder("nobody")?;
        let programs = folder.join("bin");
        std::fs::create_dir(&programs)?;
        let own = Path::new(env!("CARGO_BIN_EXE_l2lb-lab"));
        for name in PROGRAMS {
            lend(&own.with_file_name(name), &programs)?;
        }
        // The cache is most often where others cannot look.
        let cache = folder.join("cache/tools");
        std::fs::create_dir_all(&cache)?;
        let components = LabConfig::default().components();
        let components: Vec<&str> = components.iter().map(String::as_str).collect();
        for built in build_tools(&components)?.values() {
            lend(built, &cache)?;
        }
        for owned in [&folder, &cache] {
            let (user, group) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
            chown(owned, Some(user), Some(group)).context("giving a folder away")?;
        }
        Ok(Self {
            folder,
            programs,
            user: NOBODY,
            other: true,
        })
    }

    /// The control socket of a lab.
    pub fn socket(&self, lab: &str) -> PathBuf {
        self.folder
            .join(format!("l2lb-lab-{}", self.user))
            .join(format!("{lab}.sock"))
    }

    /// Starts a command of a lab.
    pub fn start(&self, lab: &str, args: &[&str]) -> Result<Child> {
        let program = self.programs.join("l2lb-lab");
        let mut command = if self.other {
            let [first, rest @ ..] = as_nobody();
            let mut command = Command::new(first);
            command
                .args(rest)
                .arg(program)
                .env("HOME", &self.folder)
                .env("L2LB_CACHE", self.folder.join("cache"));
            command
        } else {
            Command::new(program)
        };
        command
            .args(["--name", lab])
            .args(args)
            .current_dir(place::workspace())
            .env("XDG_RUNTIME_DIR", &self.folder)
            .env("L2LB_LAB_LOGS", self.folder.join(format!("logs-{lab}")))
            .env_remove("L2LB_LAB_STATE")
            .env_remove("L2LB_LAB_NAME")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting l2lb-lab {args:?}"))
    }

    /// Runs a command of a lab.
    pub fn run(&self, lab: &str, args: &[&str]) -> Result<Said> {
        Said::of(self.start(lab, args)?).with_context(|| format!("l2lb-lab {args:?}"))
    }

    /// Runs a command of a lab that is to succeed.
    pub fn good(&self, lab: &str, args: &[&str]) -> Result<String> {
        let said = self.run(lab, args)?;
        if said.code != 0 {
            bail!(
                "l2lb-lab --name {lab} {args:?} ends with {}: {}",
                said.code,
                said.text
            );
        }
        Ok(said.text)
    }

    /// The ends of the labs' own logs, and of the controller's.
    pub fn logs(&self) -> String {
        let folder = self.folder.join(format!("l2lb-lab-{}", self.user));
        let controller = self.folder.join("logs-a/l2lb-controller.log");
        let mut text = String::new();
        for path in [folder.join("a.log"), folder.join("b.log"), controller] {
            let log = std::fs::read_to_string(&path).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let end = lines.len().saturating_sub(15);
            text += &format!("{}:\n{}\n", path.display(), lines[end..].join("\n"));
        }
        text
    }
}

impl Drop for Person {
    /// Ends what a failure left.
    fn drop(&mut self) {
        for lab in ["a", "b"] {
            if self.socket(lab).exists() {
                let _ = self.run(lab, &["down"]);
            }
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// What runs a command as nobody.
fn as_nobody() -> [&'static str; 4] {
    [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
    ]
}

/// A new folder with a short path: those of sockets are limited.
fn folder(name: &str) -> Result<PathBuf> {
    let path = std::env::temp_dir().join(format!("l2lb-{name}-{}", std::process::id()));
    std::fs::create_dir(&path).with_context(|| format!("creating {}", path.display()))?;
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&path, open).context("opening a folder to others")?;
    Ok(path)
}

/// Puts a file or folder into a folder, by hard links if that is possible.
fn lend(what: &Path, into: &Path) -> Result<()> {
    for how in ["-al", "-a"] {
        let mut copy = Command::new("cp");
        copy.arg(how).arg(what).arg(into).stderr(Stdio::null());
        if copy.status().context("running cp")?.success() {
            return Ok(());
        }
    }
    bail!("{} could not be copied", what.display())
}
