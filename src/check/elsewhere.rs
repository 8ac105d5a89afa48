//! MetalLB's objects where MetalLB does not look.

use super::{Facts, Findings, Severity, title};

pub(super) const RULES: &[(&str, &str)] = &[(
    "metallb-object-elsewhere",
    "an object of MetalLB's is outside its namespace, where it is ignored",
)];

/// The kinds that an address can depend on.
pub(super) const KINDS: [&str; 3] = ["IPAddressPool", "L2Advertisement", "BGPAdvertisement"];

pub(super) fn check(facts: &Facts<'_>, found: &mut Findings) {
    let home = &facts.world.options.metallb_namespace;
    for object in KINDS.iter().flat_map(|kind| facts.of_kind(kind)) {
        let namespace = object["metadata"]["namespace"].as_str();
        if namespace.is_none_or(|n| n == home) {
            continue;
        }
        found.add(
            Severity::Warning,
            "metallb-object-elsewhere",
            title(object),
            format!("MetalLB reads its configuration from namespace {home} alone, and ignores it silently"),
            format!("write it to namespace {home}; name MetalLB's namespace by --metallb-namespace, if that is another"),
        );
    }
}
