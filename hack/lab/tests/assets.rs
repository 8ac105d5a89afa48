//! `KUBEBUILDER_ASSETS`: programs that are there already are taken from there.
//! Nothing is built: a script stands in for `go`.

#![allow(clippy::unwrap_used)]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use l2lb_lab::place;

/// Writes down what it is asked to build, and makes empty programs.
const GO: &str = r#"#!/usr/bin/env bash
case $1 in
env) printf 'go1.26\nlinux\namd64\n' ;;
build)
    while (($#)); do
        if [[ $1 == -o ]]; then out=$2; fi
        package=$1
        shift
    done
    echo "$package" >>"$GO_BUILT"
    : >"$out"
    chmod +x "$out"
    ;;
esac
"#;

struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let own = format!("l2lb-assets-{name}-{}", std::process::id());
        let place = Self(std::env::temp_dir().join(own));
        place.program("bin", "go", GO);
        place
    }

    fn program(&self, folder: &str, name: &str, text: &str) {
        let folder = self.0.join(folder);
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
    }

    /// Has Kubernetes' programs built; the folder that they are in, and what
    /// was built for it.
    fn build(&self, assets: Option<&Path>) -> (PathBuf, Vec<String>) {
        let built = self.0.join("built");
        let _ = std::fs::remove_file(&built);
        let path = std::env::var("PATH").unwrap();
        let mut command = Command::new(place::workspace().join("hack/tools/build.sh"));
        command
            .args(["--print", "kubernetes"])
            .env("PATH", format!("{}:{path}", self.0.join("bin").display()))
            .env("L2LB_CACHE", self.0.join("cache"))
            .env("GO_BUILT", &built)
            .env_remove("KUBEBUILDER_ASSETS");
        if let Some(assets) = assets {
            command.env("KUBEBUILDER_ASSETS", assets);
        }
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        let folder = String::from_utf8(output.stdout).unwrap();
        let list = std::fs::read_to_string(&built).unwrap_or_default();
        let mut programs: Vec<String> = list
            .lines()
            .map(|p| p.rsplit('/').next().unwrap().to_owned())
            .collect();
        programs.sort();
        (PathBuf::from(folder.trim()), programs)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn what_is_there_is_not_built() {
    let place = Place::new("all");
    for name in ["etcd", "kube-apiserver", "kubectl"] {
        place.program("assets", name, "#!/bin/sh\n");
    }
    let assets = place.0.join("assets");
    let (folder, built) = place.build(Some(&assets));
    assert_eq!(built, ["kube-controller-manager", "kube-proxy"]);
    for name in ["etcd", "kube-apiserver", "kubectl"] {
        let link = std::fs::read_link(folder.join("bin").join(name)).unwrap();
        assert_eq!(link, assets.join(name));
    }
    // Once is enough.
    let (again, built) = place.build(Some(&assets));
    assert_eq!((again, built), (folder.clone(), vec![]));
    // Without them everything is built, into a folder of its own.
    let (own, built) = place.build(None);
    assert_ne!(own, folder);
    assert_eq!(built.len(), 5, "{built:?}");
}

#[test]
fn what_is_missing_there_is_built() {
    let place = Place::new("some");
    place.program("assets", "etcd", "#!/bin/sh\n");
    let (folder, built) = place.build(Some(&place.0.join("assets")));
    assert_eq!(
        built,
        [
            "kube-apiserver",
            "kube-controller-manager",
            "kube-proxy",
            "kubectl"
        ]
    );
    assert!(folder.join("bin/etcd").is_symlink());
    assert!(!folder.join("bin/kubectl").is_symlink());
}
