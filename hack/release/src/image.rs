//! Images: one program, the certificate authorities, and nothing else.
//! <https://github.com/opencontainers/image-spec/blob/v1.1.1/spec.md>

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Result, ensure};
use oci_spec::image::{
    ANNOTATION_CREATED, ANNOTATION_DESCRIPTION, ANNOTATION_LICENSES, ANNOTATION_REF_NAME,
    ANNOTATION_REVISION, ANNOTATION_TITLE, ANNOTATION_VERSION, ConfigBuilder, Descriptor,
    HistoryBuilder, ImageConfigurationBuilder, ImageManifestBuilder, MediaType, Os,
    PlatformBuilder, RootFsBuilder,
};

use crate::archive::{self, Entry};
use crate::build::{Built, Program};
use crate::layout::{self, Layout};
use crate::project::Project;
use crate::trust;

/// The user and group that the program runs as: of no name and no rights, and
/// a number, as Kubernetes needs one to see that it is not root.
pub const USER: &str = "65532:65532";
/// The type of a bill of materials.
pub const BILL: &str = "application/vnd.cyclonedx+json";
/// The type of notices.
pub const NOTICES: &str = "text/plain";

/// A program of a platform, with its papers.
#[derive(Debug)]
pub struct Part<'a> {
    /// The program's platform, and where it is.
    pub built: &'a Built,
    /// Its papers.
    pub papers: &'a Papers,
}

/// What goes along with a program.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Papers {
    /// Its bill of materials.
    pub bill: Vec<u8>,
    /// The notices of what is linked into it.
    pub notices: Vec<u8>,
}

/// The image of a platform.
#[derive(Debug, PartialEq, Eq)]
pub struct Row {
    /// The platform.
    pub arch: &'static str,
    /// How many bytes a node fetches.
    pub size: u64,
    /// The digest of its manifest.
    pub digest: String,
}

/// An image in its layout.
#[derive(Debug, PartialEq, Eq)]
pub struct Assembled {
    /// The digest by which the whole is named: for several platforms that of
    /// the index, for one that of its manifest.
    pub digest: String,
    /// The image of each platform.
    pub rows: Vec<Row>,
}

/// Writes a program's image for all its platforms as an image layout; what
/// was in the folder goes.
pub fn assemble(
    project: &Project,
    program: &Program,
    parts: &[Part<'_>],
    to: &Path,
) -> Result<Assembled> {
    ensure!(!parts.is_empty(), "{} was built for nothing", program.name);
    let labels = labels(project, program);
    let layout = Layout::new(to)?;
    let mut rows = Vec::new();
    let mut images = Vec::new();
    let mut referrers = Vec::new();
    for part in parts {
        let (image, size) = image(&layout, project, program, part, &labels)?;
        for (kind, paper) in [(BILL, &part.papers.bill), (NOTICES, &part.papers.notices)] {
            referrers.push(referrer(&layout, project, &image, kind, paper)?);
        }
        rows.push(Row {
            arch: part.built.platform.arch,
            size,
            digest: image.digest().to_string(),
        });
        images.push(image);
    }
    let mut named = match images.as_slice() {
        [only] => only.clone(),
        _ => {
            let mut index = layout::index(images)?;
            index.set_annotations(Some(labels));
            layout.json(MediaType::ImageIndex, &index)?
        }
    };
    let digest = named.digest().to_string();
    named.set_annotations(Some(layout::annotations([(
        ANNOTATION_REF_NAME,
        project.version.clone(),
    )])));
    layout.finish([vec![named], referrers].concat())?;
    Ok(Assembled { digest, rows })
}

fn labels(project: &Project, program: &Program) -> HashMap<String, String> {
    let revision = project
        .revision
        .iter()
        .map(|revision| (ANNOTATION_REVISION, revision.clone()));
    layout::annotations(
        [
            (ANNOTATION_TITLE, program.name.to_owned()),
            (ANNOTATION_DESCRIPTION, program.description.to_owned()),
            (ANNOTATION_VERSION, project.version.clone()),
            (ANNOTATION_LICENSES, "Apache-2.0".to_owned()),
            (ANNOTATION_CREATED, project.time.to_string()),
        ]
        .into_iter()
        .chain(revision),
    )
}

/// The one layer of an image.
fn layer(project: &Project, program: &Program, built: &Built) -> Result<Vec<u8>> {
    let mut entries = vec![
        Entry::program(program.name, built.read(program)?),
        Entry::file(trust::PATH, trust::certificates()),
    ];
    let folders = Path::new(trust::PATH).ancestors().skip(1);
    entries.extend(
        folders
            .filter(|folder| *folder != Path::new(""))
            .map(|folder| Entry::folder(folder.to_string_lossy())),
    );
    archive::tar(entries, project.seconds())
}

/// Adds the image of one platform, and says how large it is.
fn image(
    layout: &Layout,
    project: &Project,
    program: &Program,
    part: &Part<'_>,
    labels: &HashMap<String, String>,
) -> Result<(Descriptor, u64)> {
    let plain = layer(project, program, part.built)?;
    let layer = layout.blob(MediaType::ImageLayerGzip, &archive::gzip(&plain)?)?;
    let arch = part.built.platform.oci();
    let config = ConfigBuilder::default()
        .user(USER)
        .entrypoint([format!("/{}", program.name)])
        .working_dir("/")
        .labels(labels.clone())
        .build()?;
    let roots = RootFsBuilder::default()
        .typ("layers")
        .diff_ids([format!("sha256:{}", crate::sha256(&plain))])
        .build()?;
    let history = HistoryBuilder::default()
        .created(project.time.to_string())
        .created_by("l2lb-release image")
        .build()?;
    let configuration = ImageConfigurationBuilder::default()
        .created(project.time.to_string())
        .architecture(arch.clone())
        .os(Os::Linux)
        .config(config)
        .rootfs(roots)
        .history([history])
        .build()?;
    let config = layout.json(MediaType::ImageConfig, &configuration)?;
    let size = layer.size() + config.size();
    let manifest = ImageManifestBuilder::default()
        .schema_version(2_u32)
        .media_type(MediaType::ImageManifest)
        .config(config)
        .layers([layer])
        .annotations(labels.clone())
        .build()?;
    let mut image = layout.json(MediaType::ImageManifest, &manifest)?;
    let size = size + image.size();
    let platform = PlatformBuilder::default()
        .architecture(arch)
        .os(Os::Linux)
        .build()?;
    image.set_platform(Some(platform));
    Ok((image, size))
}

/// Adds a paper of an image, as something that refers to it.
fn referrer(
    layout: &Layout,
    project: &Project,
    image: &Descriptor,
    kind: &str,
    paper: &[u8],
) -> Result<Descriptor> {
    let kind = MediaType::Other(kind.to_owned());
    let paper = layout.blob(kind.clone(), paper)?;
    let nothing = layout.blob(MediaType::EmptyJSON, b"{}")?;
    let subject = Descriptor::new(
        image.media_type().clone(),
        image.size(),
        image.digest().clone(),
    );
    let manifest = ImageManifestBuilder::default()
        .schema_version(2_u32)
        .media_type(MediaType::ImageManifest)
        .artifact_type(kind.clone())
        .config(nothing)
        .layers([paper])
        .subject(subject)
        .annotations(layout::annotations([(
            ANNOTATION_CREATED,
            project.time.to_string(),
        )]))
        .build()?;
    let mut referrer = layout.json(MediaType::ImageManifest, &manifest)?;
    referrer.set_artifact_type(Some(kind));
    Ok(referrer)
}
