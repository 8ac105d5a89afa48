//! The programs, linked statically, and the same wherever they are built.

use std::collections::{BTreeMap, BTreeSet};
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use cargo_metadata::{Message, PackageId};
use oci_spec::image::Arch;

use crate::elf;
use crate::project::Project;

/// A program that is released.
#[derive(Debug, PartialEq, Eq)]
pub struct Program {
    /// Its name, which is also its image's.
    pub name: &'static str,
    /// The package that it is built from.
    pub package: &'static str,
    /// What it is, in a sentence without a full stop.
    pub description: &'static str,
    /// Whether there is an image of it.
    pub in_image: bool,
}

/// All of them.
pub const PROGRAMS: [Program; 3] = [
    Program {
        name: "l2lb-controller",
        package: "l2lb",
        description: "Fans one load balancer out over many nodes, on MetalLB in L2 mode",
        in_image: true,
    },
    Program {
        name: "l2lb-webhook",
        package: "l2lb-webhook",
        description: "Judges pools and load balancers of l2lb before they are stored",
        in_image: true,
    },
    Program {
        name: "kubectl-l2lb",
        package: "l2lb",
        description: "Look at, try out and steer l2lb load balancers",
        in_image: false,
    },
];

/// What programs are built for.
#[derive(Debug)]
pub struct Platform {
    /// Its name in archives and images.
    pub arch: &'static str,
    /// Its name in Rust.
    pub triple: &'static str,
    /// The machine's name as Rust's standard library has it.
    machine: &'static str,
    /// Its number in ELF.
    elf: u16,
}

/// All of them. The images of a release have those that this machine can
/// build for.
pub const PLATFORMS: [Platform; 2] = [
    Platform {
        arch: "amd64",
        triple: "x86_64-unknown-linux-gnu",
        machine: "x86_64",
        elf: elf::AMD64,
    },
    Platform {
        arch: "arm64",
        triple: "aarch64-unknown-linux-gnu",
        machine: "aarch64",
        elf: elf::ARM64,
    },
];

impl Platform {
    /// Its name in an image.
    #[must_use]
    pub fn oci(&self) -> Arch {
        Arch::from(self.arch)
    }

    /// The compiler that links for it, if it is not the machine's own.
    fn linker(&self) -> Option<String> {
        (self.machine != std::env::consts::ARCH).then(|| format!("{}-linux-gnu-gcc", self.machine))
    }

    /// What this machine lacks to build for it, and how to get that.
    pub fn missing(&self) -> Result<Option<String>> {
        let folder = rustc(&["--print", "target-libdir", "--target", self.triple])?;
        if !Path::new(folder.trim()).exists() {
            return Ok(Some(format!(
                "Rust's target is missing: rustup target add {}",
                self.triple
            )));
        }
        Ok(self
            .linker()
            .filter(|linker| !is_on_path(linker))
            .map(|linker| format!("the linker {linker} is missing")))
    }
}

/// The programs of a platform.
#[derive(Debug)]
pub struct Built {
    /// The platform.
    pub platform: &'static Platform,
    /// The files, by the programs' names.
    pub programs: BTreeMap<&'static str, PathBuf>,
    /// Every package that was compiled.
    pub packages: BTreeSet<PackageId>,
    /// The compiler.
    pub rustc: String,
}

impl Built {
    /// A program's bytes, which are those of a static program for the platform.
    pub fn read(&self, program: &Program) -> Result<Vec<u8>> {
        let path = self
            .programs
            .get(program.name)
            .with_context(|| format!("{} was not built", program.name))?;
        let bytes = crate::read(path)?;
        let say = || format!("{} for {}", program.name, self.platform.triple);
        elf::ensure_static(&bytes).with_context(say)?;
        let machine = elf::machine(&bytes).with_context(say)?;
        ensure!(
            machine == self.platform.elf,
            "{} is for machine {machine}",
            say()
        );
        Ok(bytes)
    }
}

/// Builds programs for a platform, in a target folder of their own: flags that
/// are not those of other builds would make cargo compile everything anew.
pub fn build(
    project: &Project,
    platform: &'static Platform,
    wanted: &[&'static Program],
    target: &Path,
) -> Result<Built> {
    let mut command = Command::new(cargo());
    command.current_dir(&project.root).args([
        "build",
        "--release",
        "--locked",
        "--message-format=json-render-diagnostics",
        "--target",
        platform.triple,
    ]);
    command.arg("--target-dir").arg(target);
    for program in wanted {
        command.args(["--package", program.package, "--bin", program.name]);
    }
    isolate(&mut command);
    let remapped = remapped(project, target)?;
    let mut flags = vec!["-Ctarget-feature=+crt-static".to_owned()];
    let mut c_flags = Vec::new();
    for (from, to) in &remapped {
        let from = from.display();
        flags.push(format!("--remap-path-prefix={from}={to}"));
        c_flags.push(format!("'-ffile-prefix-map={from}={to}'"));
    }
    let name = platform.triple.replace('-', "_");
    command
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        .env(format!("CFLAGS_{name}"), c_flags.join(" "))
        // Folders may have spaces in their names.
        .env("CC_SHELL_ESCAPED_FLAGS", "1")
        // Not the commit's time: what has C code in it would be compiled anew
        // for each commit.
        .env("SOURCE_DATE_EPOCH", "0");
    if let Some(linker) = platform.linker() {
        command
            .env(
                format!("CARGO_TARGET_{}_LINKER", name.to_uppercase()),
                &linker,
            )
            .env(format!("CC_{name}"), &linker);
    }
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .context("starting cargo")?;
    let output = child.stdout.take().context("cargo has no output")?;
    let (mut programs, mut packages) = (BTreeMap::new(), BTreeSet::new());
    for message in Message::parse_stream(BufReader::new(output)) {
        let Message::CompilerArtifact(artifact) = message.context("reading cargo's messages")?
        else {
            continue;
        };
        packages.insert(artifact.package_id);
        let program = wanted.iter().find(|p| p.name == artifact.target.name);
        if let (Some(program), Some(file)) = (program, artifact.executable) {
            programs.insert(program.name, file.into_std_path_buf());
        }
    }
    let status = child.wait().context("waiting for cargo")?;
    ensure!(
        status.success(),
        "cargo could not build the programs for {}",
        platform.triple
    );
    for program in wanted {
        ensure!(
            programs.contains_key(program.name),
            "cargo did not say where {} is",
            program.name
        );
    }
    Ok(Built {
        platform,
        programs,
        packages,
        rustc: rustc(&["--version"])?.trim().to_owned(),
    })
}

/// What the C library that programs are linked with says of itself: its name
/// and, as the last word, its version.
pub(crate) fn c_library(platform: &Platform) -> Result<String> {
    const BANNER: &[u8] = b"GNU C Library ";
    let compiler = platform.linker().unwrap_or_else(|| "cc".to_owned());
    let output = Command::new(&compiler)
        .arg("-print-file-name=libc.a")
        .output()
        .with_context(|| format!("running {compiler}"))?;
    let path = String::from_utf8(output.stdout).context("reading a file's name")?;
    let library = crate::read(Path::new(path.trim()))?;
    let start = library
        .windows(BANNER.len())
        .position(|window| window == BANNER)
        .with_context(|| format!("{} does not say its version", path.trim()))?;
    let line = library[start..].split(|byte| *byte == b'\n').next();
    let line = String::from_utf8_lossy(line.unwrap_or_default());
    Ok(line.trim().trim_end_matches('.').to_owned())
}

/// The cargo that runs this, or that of the path.
fn cargo() -> PathBuf {
    std::env::var_os("CARGO").map_or_else(|| "cargo".into(), PathBuf::from)
}

/// Keeps away what would change the programs: flags and profiles of the
/// environment. How crates are fetched is the user's affair.
fn isolate(command: &mut Command) {
    const KEPT: [&str; 5] = [
        "CARGO_HOME",
        "CARGO_HTTP_",
        "CARGO_NET_",
        "CARGO_REGISTR",
        "CARGO_SOURCE_",
    ];
    const FLAGS: [&str; 5] = ["RUSTFLAGS", "CFLAGS", "CXXFLAGS", "CPPFLAGS", "LDFLAGS"];
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        let is_cargos = name.starts_with("CARGO") && !KEPT.iter().any(|k| name.starts_with(k));
        let is_flag = FLAGS
            .iter()
            .any(|flag| *name == **flag || name.starts_with(&format!("{flag}_")));
        if is_cargos || is_flag {
            command.env_remove(&*name);
        }
    }
}

/// Folders of this machine, and what stands for them in the programs. Of two
/// that match, compilers take the later.
fn remapped(project: &Project, target: &Path) -> Result<Vec<(PathBuf, &'static str)>> {
    let home = match std::env::var_os("CARGO_HOME") {
        Some(home) => PathBuf::from(home),
        None => std::env::home_dir()
            .context("there is neither CARGO_HOME nor a home folder")?
            .join(".cargo"),
    };
    let sysroot = rustc(&["--print", "sysroot"])?;
    Ok(vec![
        (home, "/cargo"),
        (PathBuf::from(sysroot.trim()), "/rust"),
        (project.root.clone(), "/l2lb"),
        (target.to_owned(), "/target"),
    ])
}

fn rustc(args: &[&str]) -> Result<String> {
    let output = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
        .args(args)
        .output()
        .context("running rustc")?;
    ensure!(
        output.status.success(),
        "rustc {}: {}",
        args.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    String::from_utf8(output.stdout).context("reading what rustc says")
}

fn is_on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_can_build_for_itself() {
        let own = PLATFORMS
            .iter()
            .find(|p| p.machine == std::env::consts::ARCH)
            .unwrap();
        assert_eq!(own.linker(), None);
        assert_eq!(own.missing().unwrap(), None);
    }

    #[test]
    fn flags_of_the_environment_are_kept_away() {
        let mut command = Command::new("cargo");
        isolate(&mut command);
        let removed: Vec<_> = command
            .get_envs()
            .map(|(name, _)| name.to_owned())
            .collect();
        // Cargo sets these for a test.
        assert!(removed.contains(&"CARGO_PKG_NAME".into()), "{removed:?}");
        assert!(!removed.contains(&"PATH".into()));
    }
}
