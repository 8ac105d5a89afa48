//! Containers of unpacked images, which see those alone.

use std::path::Path;

use anyhow::{Context, Result};

use crate::pod::PodContext;

/// Copies a folder's contents into another.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to).with_context(|| format!("creating {}", to.display()))?;
    let say = || format!("copying {}", from.display());
    for entry in std::fs::read_dir(from).with_context(say)? {
        let entry = entry.with_context(say)?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy(&from, &to)?;
        } else {
            std::fs::copy(&from, &to).with_context(say)?;
        }
    }
    Ok(())
}

/// The user and group that a pod names, as chroot takes them; none if a lab
/// of an ordinary user has no other users.
pub(crate) fn user(context: &PodContext) -> Result<Option<String>> {
    let security = context
        .pod
        .spec
        .as_ref()
        .and_then(|spec| spec.security_context.as_ref());
    let Some((user, group)) = security.and_then(|s| Some((s.run_as_user?, s.run_as_group?))) else {
        return Ok(None);
    };
    for (file, id) in [("uid_map", user), ("gid_map", group)] {
        let map = std::fs::read_to_string(Path::new("/proc/self").join(file))
            .with_context(|| format!("reading {file}"))?;
        if !is_mapped(&map, id) {
            return Ok(None);
        }
    }
    Ok(Some(format!("{user}:{group}")))
}

/// Whether a user or group exists here: see `user_namespaces(7)`.
fn is_mapped(map: &str, id: i64) -> bool {
    map.lines().any(|line| {
        let numbers: Vec<i64> = line
            .split_whitespace()
            .filter_map(|number| number.parse().ok())
            .collect();
        matches!(*numbers, [first, _, count] if (first..first + count).contains(&id))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_of_a_namespace() {
        let root = "         0          0 4294967295\n";
        let ordinary = "         0       1000          1\n";
        assert!(is_mapped(root, 65532));
        assert!(!is_mapped(ordinary, 65532));
        assert!(is_mapped(ordinary, 0));
    }
}
