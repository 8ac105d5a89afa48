//! What the chart grants, and what of it was used.

use std::collections::BTreeSet;
use std::fmt;

use anyhow::{Result, ensure};
use l2lb::manifest;
use l2lb_lab::Request;
use serde_json::Value;

/// The namespace of the release.
pub const NAMESPACE: &str = "l2lb-system";

/// Something that an account may do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Right {
    account: String,
    verb: String,
    group: String,
    resource: String,
    /// Empty: all.
    namespace: String,
    /// Empty: all.
    name: String,
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let group = if self.group.is_empty() {
            "core"
        } else {
            &self.group
        };
        write!(
            f,
            "{} may {} {} ({group})",
            self.account, self.verb, self.resource
        )?;
        if !self.name.is_empty() {
            write!(f, " named {}", self.name)?;
        }
        match self.namespace.as_str() {
            "" => write!(f, " everywhere"),
            namespace => write!(f, " in {namespace}"),
        }
    }
}

/// Granted for what no request shows, and where it is tested instead.
fn is_unseen(right: &Right) -> bool {
    // The API server asks itself about it when an object is made that delays
    // the deletion of its owner; the lab's does (OwnerReferencesPermissionEnforcement).
    right.resource == "l2loadbalancers/finalizers" && right.verb == "update"
}

/// Whether a request makes use of a right.
fn uses(right: &Right, request: &Request) -> bool {
    let user = format!("system:serviceaccount:{NAMESPACE}:{}", right.account);
    // What server-side apply makes anew needs the right to create as well.
    let verb = request.verb == right.verb
        || (right.verb == "create" && request.verb == "patch" && request.code == 201);
    verb && request.user == user
        && request.group == right.group
        && request.resource == right.resource
        && (right.namespace.is_empty() || right.namespace == request.namespace)
        && (right.name.is_empty() || right.name == request.name)
        && !request.forbidden
}

/// Fails if one of the accounts was refused something.
pub fn ensure_nothing_was_forbidden(requests: &[Request]) -> Result<()> {
    let prefix = format!("system:serviceaccount:{NAMESPACE}:");
    let forbidden: BTreeSet<String> = requests
        .iter()
        .filter(|request| request.forbidden && request.user.starts_with(&prefix))
        .map(|r| {
            let account = r.user.trim_start_matches(&prefix);
            let (verb, resource, group) = (&r.verb, &r.resource, &r.group);
            format!(
                "{account} may not {verb} {resource} ({group}) {}/{}",
                r.namespace, r.name
            )
        })
        .collect();
    ensure!(
        forbidden.is_empty(),
        "the chart does not grant what is needed:\n{}",
        lines(&forbidden)
    );
    Ok(())
}

/// Fails if the chart grants its accounts something that no request needed.
pub fn ensure_nothing_is_superfluous(manifests: &str, requests: &[Request]) -> Result<()> {
    let granted = granted(manifests)?;
    ensure!(
        granted.len() > 60,
        "only {} rights were found",
        granted.len()
    );
    let superfluous: BTreeSet<String> = granted
        .iter()
        .filter(|right| !is_unseen(right) && !requests.iter().any(|r| uses(right, r)))
        .map(ToString::to_string)
        .collect();
    ensure!(
        superfluous.is_empty(),
        "the chart grants what was never used:\n{}",
        lines(&superfluous)
    );
    eprintln!("{} rights granted, all of them used", granted.len());
    Ok(())
}

fn lines(all: &BTreeSet<String>) -> String {
    all.iter().map(|line| format!("  {line}\n")).collect()
}

/// What rendered manifests grant to accounts of the release.
fn granted(manifests: &str) -> Result<BTreeSet<Right>> {
    let objects = manifest::parse("the chart", manifests)?;
    let objects: Vec<&Value> = objects.iter().map(|m| &m.value).collect();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut rights = BTreeSet::new();
    for binding in &objects {
        if !["ClusterRoleBinding", "RoleBinding"]
            .map(Into::into)
            .contains(&binding["kind"])
        {
            continue;
        }
        // None for a ClusterRoleBinding.
        let namespace = text(&binding["metadata"]["namespace"]);
        let roles = objects.iter().filter(|role| {
            role["kind"] == binding["roleRef"]["kind"]
                && role["metadata"]["name"] == binding["roleRef"]["name"]
                && role["metadata"]["namespace"] == binding["metadata"]["namespace"]
        });
        for rule in roles.flat_map(|role| items(&role["rules"])) {
            let mut names: Vec<String> = items(&rule["resourceNames"]).map(text).collect();
            if names.is_empty() {
                names.push(String::new());
            }
            for subject in items(&binding["subjects"]) {
                for group in items(&rule["apiGroups"]) {
                    for resource in items(&rule["resources"]) {
                        for verb in items(&rule["verbs"]) {
                            rights.extend(names.iter().map(|name| Right {
                                account: text(&subject["name"]),
                                verb: text(verb),
                                group: text(group),
                                resource: text(resource),
                                namespace: namespace.clone(),
                                name: name.clone(),
                            }));
                        }
                    }
                }
            }
        }
    }
    Ok(rights)
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}
