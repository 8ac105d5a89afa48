//! What a container sees: a root folder of its own with its mounts, and its
//! environment.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVar, Secret, ServiceAccount, Volume};
use kube::ResourceExt;
use kube::api::{Api, PostParams};
use kube::runtime::reflector::ObjectRef;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::cluster::Cluster;
use crate::control_plane;
use crate::kubelet::Volumes;
use crate::lab::Image;
use crate::place;
use crate::pod::PodContext;
use crate::process::Spec;
use crate::topology::CONTROL_PLANE;
use crate::{tools, unpacked};

/// Where every pod finds its ServiceAccount's token.
const SERVICE_ACCOUNT: &str = "var/run/secrets/kubernetes.io/serviceaccount";
/// Folders of the machine that programs may need: libraries, mostly.
const SYSTEM: [&str; 7] = ["usr", "bin", "sbin", "lib", "lib64", "dev", "proc"];

/// A pod's root folder. Its containers share it.
pub(crate) struct Sandbox {
    root: PathBuf,
    mounts: Vec<PathBuf>,
    /// What was written last, so that only changes are written.
    written: BTreeMap<PathBuf, Vec<u8>>,
}

impl Sandbox {
    /// Makes a pod's root folder, with the token of its ServiceAccount.
    pub async fn new(cluster: &Cluster, context: &PodContext) -> Result<Self> {
        let pod = &context.pod;
        let namespace = pod.namespace().unwrap_or_default();
        let account = pod
            .spec
            .as_ref()
            .and_then(|spec| spec.service_account_name.clone());
        let token = token(cluster, &namespace, account.as_deref().unwrap_or("default")).await?;
        let uid = pod.uid().unwrap_or_default();
        let mut sandbox = Self {
            root: Path::new(place::RUN).join("pods").join(uid),
            mounts: Vec::new(),
            written: BTreeMap::new(),
        };
        let images = pod
            .spec
            .iter()
            .flat_map(|spec| &spec.containers)
            .filter_map(|container| find(cluster, container).ok());
        let roots: Vec<&Path> = images.filter_map(|image| image.root.as_deref()).collect();
        for root in &roots {
            unpacked::copy(root, &sandbox.root)?;
        }
        let system: &[&str] = if roots.is_empty() { &SYSTEM } else { &[] };
        for name in system {
            let from = Path::new("/").join(name);
            let to = sandbox.root.join(name);
            if from.is_symlink() {
                create_dir(&sandbox.root)?;
                let target = std::fs::read_link(&from)
                    .with_context(|| format!("reading {}", from.display()))?;
                if !to.is_symlink() {
                    std::os::unix::fs::symlink(target, &to)
                        .with_context(|| format!("linking {}", to.display()))?;
                }
            } else if from.is_dir() {
                sandbox.bind(&from, &to)?;
            }
        }
        if roots.is_empty() {
            create_dir(&sandbox.root.join("tmp"))?;
        }
        let ca = std::fs::read(control_plane::pki().join("ca.crt")).context("reading the CA")?;
        for (name, data) in [
            ("token", token.into_bytes()),
            ("namespace", namespace.into_bytes()),
            ("ca.crt", ca),
        ] {
            sandbox.write(Path::new(SERVICE_ACCOUNT), name, data)?;
        }
        Ok(sandbox)
    }

    fn bind(&mut self, from: &Path, to: &Path) -> Result<()> {
        if self.mounts.iter().any(|mounted| mounted == to) {
            return Ok(());
        }
        create_dir(to)?;
        mount(
            Some(from),
            to,
            None::<&str>,
            MsFlags::MS_BIND | MsFlags::MS_REC,
            None::<&str>,
        )
        .with_context(|| format!("binding {}", to.display()))?;
        self.mounts.push(to.to_path_buf());
        Ok(())
    }

    fn write(&mut self, folder: &Path, name: &str, data: Vec<u8>) -> Result<()> {
        let path = self.root.join(folder).join(name);
        if self.written.get(&path) == Some(&data) {
            return Ok(());
        }
        create_dir(&self.root.join(folder))?;
        let new = path.with_extension("new");
        std::fs::write(&new, &data)
            .and_then(|()| std::fs::rename(&new, &path))
            .with_context(|| format!("writing {}", path.display()))?;
        self.written.insert(path, data);
        Ok(())
    }

    /// Brings mounted Secrets and ConfigMaps up to date; an error means that
    /// one of them does not exist (yet).
    pub fn refresh(&mut self, volumes: &Volumes, context: &PodContext) -> Result<()> {
        let Some(spec) = &context.pod.spec else {
            return Ok(());
        };
        let namespace = context.pod.namespace().unwrap_or_default();
        for container in &spec.containers {
            for mount in container.volume_mounts.iter().flatten() {
                let Some(volume) = spec
                    .volumes
                    .iter()
                    .flatten()
                    .find(|volume| volume.name == mount.name)
                else {
                    continue;
                };
                let folder = PathBuf::from(mount.mount_path.trim_start_matches('/'));
                create_dir(&self.root.join(&folder))?;
                let Some(files) = files(volumes, &namespace, volume)? else {
                    continue;
                };
                let stale: Vec<PathBuf> = self
                    .written
                    .keys()
                    .filter(|path| path.parent() == Some(self.root.join(&folder).as_path()))
                    .filter(|path| {
                        !path
                            .file_name()
                            .is_some_and(|n| files.contains_key(&*n.to_string_lossy()))
                    })
                    .cloned()
                    .collect();
                for path in stale {
                    let _ = std::fs::remove_file(&path);
                    self.written.remove(&path);
                }
                for (name, data) in files {
                    self.write(&folder, &name, data)?;
                }
            }
        }
        Ok(())
    }

    /// The program that a container stands for.
    pub fn program(
        &mut self,
        cluster: &Cluster,
        context: &PodContext,
        container: &Container,
        volumes: &Volumes,
    ) -> Result<Spec> {
        let found = find(cluster, container)?;
        let program = if found.root.is_some() {
            found.program.clone()
        } else {
            let folder = found
                .program
                .parent()
                .context("the image's program has no folder")?;
            self.bind(folder, &self.root.join("l2lb"))?;
            let name = found
                .program
                .file_name()
                .context("the image's program has no name")?;
            Path::new("/l2lb").join(name)
        };

        let mut env: BTreeMap<String, String> = BTreeMap::from([
            ("KUBERNETES_SERVICE_HOST".into(), CONTROL_PLANE.to_string()),
            ("KUBERNETES_SERVICE_PORT".into(), "6443".into()),
        ]);
        for variable in container.env.iter().flatten() {
            if let Some(value) = value(variable, context, volumes)? {
                env.insert(variable.name.clone(), value);
            }
        }
        let command = container
            .command
            .iter()
            .flatten()
            .skip(1)
            .chain(container.args.iter().flatten());
        let args: Vec<String> = command.map(|argument| expand(argument, &env)).collect();
        let chroot = tools::on_path("chroot").context("chroot is missing")?;
        // The others, MetalLB's speakers for one, need capabilities.
        let user = if found.root.is_some() {
            unpacked::user(context)?
        } else {
            None
        };
        let mut spec = Spec::new(format!("{}-{}", container.name, context.node), chroot)
            .args(user.map(|user| format!("--userspec={user}")))
            .args([self.root.as_os_str(), program.as_os_str()])
            .args(args);
        spec.env = env.into_iter().collect();
        Ok(spec)
    }

    /// Takes the folder away; the programs have ended.
    pub fn remove(self) {
        for mounted in self.mounts.iter().rev() {
            let _ = umount2(mounted, MntFlags::MNT_DETACH);
        }
        // The folders stay: they are empty, and what was mounted on them is
        // not worth the risk of removing the wrong thing.
        for path in self.written.keys() {
            let _ = std::fs::remove_file(path);
        }
    }
}

fn create_dir(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).with_context(|| format!("creating {}", path.display()))
}

/// What a container's image stands for.
fn find<'a>(cluster: &'a Cluster, container: &Container) -> Result<&'a Image> {
    let image = container.image.as_deref().unwrap_or_default();
    let name = repository(image);
    cluster
        .images
        .iter()
        .find(|candidate| candidate.repository == image || candidate.repository == name)
        .with_context(|| format!("the lab has no image {image}"))
}

/// An image's name without its tag and digest.
fn repository(image: &str) -> &str {
    let image = image.split('@').next().unwrap_or(image);
    match image.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => image,
    }
}

/// A token for a ServiceAccount.
pub(crate) async fn token(cluster: &Cluster, namespace: &str, account: &str) -> Result<String> {
    let accounts: Api<ServiceAccount> = Api::namespaced(cluster.client.clone(), namespace);
    let request = TokenRequest {
        spec: Some(TokenRequestSpec {
            expiration_seconds: Some(24 * 3600),
            ..TokenRequestSpec::default()
        }),
        ..TokenRequest::default()
    };
    let answer = accounts
        .create_token_request(account, &PostParams::default(), &request)
        .await
        .with_context(|| format!("requesting a token for ServiceAccount {namespace}/{account}"))?;
    answer
        .status
        .and_then(|status| status.token)
        .context("the API server gave no token")
}

/// The files of a volume; nothing for volumes that start empty.
fn files(
    volumes: &Volumes,
    namespace: &str,
    volume: &Volume,
) -> Result<Option<BTreeMap<String, Vec<u8>>>> {
    if let Some(source) = &volume.secret {
        let name = source.secret_name.as_deref().unwrap_or_default();
        return match secret(volumes, namespace, name) {
            Some(data) => Ok(Some(data)),
            None if source.optional == Some(true) => Ok(None),
            None => bail!("Secret {namespace}/{name} does not exist"),
        };
    }
    if let Some(source) = &volume.config_map {
        return match config_map(volumes, namespace, &source.name) {
            Some(data) => Ok(Some(data)),
            None if source.optional == Some(true) => Ok(None),
            None => bail!("ConfigMap {namespace}/{} does not exist", source.name),
        };
    }
    Ok(None)
}

fn secret(volumes: &Volumes, namespace: &str, name: &str) -> Option<BTreeMap<String, Vec<u8>>> {
    let secret = volumes
        .secrets
        .get(&ObjectRef::<Secret>::new(name).within(namespace))?;
    Some(
        secret
            .data
            .iter()
            .flatten()
            .map(|(key, value)| (key.clone(), value.0.clone()))
            .collect(),
    )
}

fn config_map(volumes: &Volumes, namespace: &str, name: &str) -> Option<BTreeMap<String, Vec<u8>>> {
    let map = volumes
        .config_maps
        .get(&ObjectRef::<ConfigMap>::new(name).within(namespace))?;
    Some(
        map.data
            .iter()
            .flatten()
            .map(|(key, value)| (key.clone(), value.clone().into_bytes()))
            .collect(),
    )
}

/// The value of an environment variable, if it has one.
fn value(variable: &EnvVar, context: &PodContext, volumes: &Volumes) -> Result<Option<String>> {
    let Some(source) = &variable.value_from else {
        return Ok(variable.value.clone());
    };
    let pod = &context.pod;
    let namespace = pod.namespace().unwrap_or_default();
    if let Some(field) = &source.field_ref {
        let join = |addresses: &[std::net::IpAddr]| {
            addresses
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(",")
        };
        return Ok(Some(match field.field_path.as_str() {
            "metadata.name" => pod.name_any(),
            "metadata.namespace" => namespace,
            "metadata.uid" => pod.uid().unwrap_or_default(),
            "spec.nodeName" => context.node.clone(),
            "spec.serviceAccountName" => pod
                .spec
                .as_ref()
                .and_then(|spec| spec.service_account_name.clone())
                .unwrap_or_default(),
            "status.podIP" => context.addresses[0].to_string(),
            "status.podIPs" => join(&context.addresses),
            "status.hostIP" => context.node_addresses[0].to_string(),
            "status.hostIPs" => join(&context.node_addresses),
            other => bail!("the lab does not know the pod field {other}"),
        }));
    }
    let (data, key, optional) = if let Some(reference) = &source.secret_key_ref {
        (
            secret(volumes, &namespace, &reference.name),
            &reference.key,
            reference.optional,
        )
    } else if let Some(reference) = &source.config_map_key_ref {
        (
            config_map(volumes, &namespace, &reference.name),
            &reference.key,
            reference.optional,
        )
    } else {
        return Ok(None);
    };
    match data.and_then(|mut data| data.remove(key)) {
        Some(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        None if optional == Some(true) => Ok(None),
        None => bail!("the source of variable {} does not exist", variable.name),
    }
}

/// Replaces `$(NAME)` by a variable's value, as Kubernetes does.
fn expand(argument: &str, env: &BTreeMap<String, String>) -> String {
    let mut text = argument.to_owned();
    for (name, value) in env {
        text = text.replace(&format!("$({name})"), value);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories() {
        assert_eq!(
            repository("quay.io/metallb/speaker:v0.16.2"),
            "quay.io/metallb/speaker"
        );
        assert_eq!(repository("registry:5000/a"), "registry:5000/a");
        assert_eq!(repository("a@sha256:00"), "a");
    }
}
