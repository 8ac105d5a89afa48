//! `l2lb-release`: images and everything else that a release hands out.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use clap::{Parser, Subcommand};
use l2lb_release::artefacts::{self, Places, Programs};
use l2lb_release::build::Program;
use l2lb_release::image::Assembled;
use l2lb_release::project::Project;

/// Builds images and releases of l2lb, without a container daemon. The same
/// commit gives the same bytes, whatever the folder and the day.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// The repository.
    #[arg(long, default_value_os_t = repository())]
    repository: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build the images, as OCI layouts in the folder `images` of cargo's
    /// target folder.
    Image,
    /// Build everything that a release hands out.
    All {
        /// The folder for it; what is in it goes.
        #[arg(long, default_value = "dist")]
        to: PathBuf,
        /// The address of the folder that the files will be downloaded from,
        /// for krew.
        #[arg(long)]
        url: Option<String>,
        /// Where the images will be, for the plain manifests.
        #[arg(long)]
        registry: Option<String>,
    },
}

/// The repository that this was built in.
fn repository() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_path_buf()
}

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> Result<()> {
    let start = Instant::now();
    let project = Project::read(&args.repository)?;
    match args.command {
        Command::Image => {
            let programs = Programs::of_images(&project)?;
            let folder = artefacts::images_dir(&project);
            show(&programs.images(&project, &folder)?);
            let seconds = start.elapsed().as_secs_f64();
            println!("in {} after {seconds:.1} s", folder.display());
        }
        Command::All { to, url, registry } => {
            let programs = Programs::all(&project)?;
            let to = project.root.join(to);
            let names = artefacts::write(&project, &programs, &Places { url, registry }, &to)?;
            for name in names {
                println!("{}", to.join(name).display());
            }
        }
    }
    Ok(())
}

/// A table of images.
fn show(images: &[(&Program, Assembled)]) {
    println!("{:<16} {:<6} {:>9}  DIGEST", "IMAGE", "ARCH", "SIZE");
    for (program, image) in images {
        for row in &image.rows {
            let tenths = row.size * 10 / (1 << 20);
            let size = format!("{}.{} MiB", tenths / 10, tenths % 10);
            println!(
                "{:<16} {:<6} {size:>9}  {}",
                program.name, row.arch, row.digest
            );
        }
        if image.rows.len() > 1 {
            println!(
                "{:<16} {:<6} {:>9}  {}",
                program.name, "all", "", image.digest
            );
        }
    }
}
