//! What the installed MetalLB can do, read from its resource definitions.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps,
};

/// What the installed MetalLB can do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// IPAddressPool and L2Advertisement are served at all.
    pub installed: bool,
    /// L2Advertisement has `preferredNodeSelectors` (0.16.2 and later).
    pub preferred_nodes: bool,
    /// L2Advertisement has `serviceSelectors` (0.16 and later).
    pub service_selectors: bool,
    /// Annotations with the prefix `metallb.io/` are read (0.14.9 and later,
    /// told by BGPPeer's field `dynamicASN`).
    pub new_annotations: bool,
    /// ServiceL2Status exists (0.14.8 and later in the form read here).
    pub l2_status: bool,
    /// IPAddressPool has counters in its status (0.15 and later): what tells
    /// 0.14.9 from its successors.
    pub pool_counters: bool,
}

/// The definitions that [`Capabilities`] is read from.
pub const DEFINITIONS: [&str; 4] = [
    "ipaddresspools.metallb.io",
    "l2advertisements.metallb.io",
    "bgppeers.metallb.io",
    "servicel2statuses.metallb.io",
];

impl Capabilities {
    /// Those of MetalLB 0.16.2 and later.
    pub const CURRENT: Self = Self {
        installed: true,
        preferred_nodes: true,
        service_selectors: true,
        new_annotations: true,
        l2_status: true,
        pool_counters: true,
    };

    /// Those of a version of MetalLB, from 0.13.12 on, as its own resource
    /// definitions tell them; `None` for what is not a version, or is older.
    pub fn of_version(version: &str) -> Option<Self> {
        let text = version.trim().trim_start_matches('v');
        let mut parts = text.split('.').map(|part| part.parse::<u32>().ok());
        let found = (parts.next()??, parts.next()??, parts.next()??);
        if parts.next().is_some() || found < (0, 13, 12) {
            return None;
        }
        let since = |major, minor, patch| found >= (major, minor, patch);
        Some(Self {
            installed: true,
            preferred_nodes: since(0, 16, 2),
            service_selectors: since(0, 16, 0),
            new_annotations: since(0, 14, 9),
            l2_status: since(0, 14, 8),
            pool_counters: since(0, 15, 0),
        })
    }

    /// Reads them from the definitions that are installed, in any order.
    pub fn from_definitions<'a>(
        definitions: impl IntoIterator<Item = &'a CustomResourceDefinition>,
    ) -> Self {
        let mut found = Self::default();
        let (mut pools, mut advertisements) = (false, false);
        for definition in definitions {
            let has = |field| has_field(definition, "spec", field);
            match definition.metadata.name.as_deref() {
                Some("ipaddresspools.metallb.io") => {
                    pools = true;
                    found.pool_counters = has_field(definition, "status", "availableIPv4");
                }
                Some("l2advertisements.metallb.io") => {
                    advertisements = true;
                    found.preferred_nodes = has("preferredNodeSelectors");
                    found.service_selectors = has("serviceSelectors");
                }
                Some("bgppeers.metallb.io") => found.new_annotations = has("dynamicASN"),
                Some("servicel2statuses.metallb.io") => found.l2_status = true,
                _ => {}
            }
        }
        found.installed = pools && advertisements;
        found
    }

    /// Whether slots can be pinned by preference, with failover by MetalLB itself.
    pub fn can_prefer(&self) -> bool {
        self.installed && self.preferred_nodes && self.service_selectors
    }

    /// Whether a Service that shares its address is announced by nobody as soon as
    /// one of the L2Advertisements for it has serviceSelectors (0.16.2 and later).
    /// Source: `ShouldAnnounce` in MetalLB's `speaker/layer2_controller.go`.
    pub fn mutes_shared(&self) -> bool {
        self.can_prefer()
    }

    /// Whether ServiceL2Status can be believed (0.16 and later). Before, a
    /// stand-in puts its label on the home's object; when the home is back, it
    /// leaves that label there, or the object is deleted and not made anew.
    pub fn reports_announcers(&self) -> bool {
        self.l2_status && self.service_selectors
    }

    /// Whether its speakers announce nothing while memberlist is switched off
    /// (up to 0.14.9). Later ones take every node for alive then.
    pub fn needs_memberlist(&self) -> bool {
        self.installed && !self.pool_counters
    }

    /// Whether, in native BGP mode, any BGPAdvertisement makes it refuse every
    /// IPv6 pool, not only those that it matches (up to 0.14.8).
    pub fn bgp_forbids_ipv6(&self) -> bool {
        self.installed && !self.new_annotations
    }

    /// Whether its speakers announce nothing from a cordoned node: 0.14.9 alone.
    pub fn cordon_silences(&self) -> bool {
        self.installed && self.new_annotations && !self.pool_counters
    }
}

/// Whether a part (`spec`, `status`) of a served version has a field.
fn has_field(definition: &CustomResourceDefinition, part: &str, field: &str) -> bool {
    fn properties(
        schema: &JSONSchemaProps,
    ) -> Option<&std::collections::BTreeMap<String, JSONSchemaProps>> {
        schema.properties.as_ref()
    }
    definition
        .spec
        .versions
        .iter()
        .filter(|v| v.served)
        .any(|version| {
            version
                .schema
                .as_ref()
                .and_then(|s| s.open_api_v3_schema.as_ref())
                .and_then(properties)
                .and_then(|p| p.get(part))
                .and_then(properties)
                .is_some_and(|p| p.contains_key(field))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(name: &str, fields: &[&str]) -> CustomResourceDefinition {
        let fields: serde_json::Map<_, _> = fields
            .iter()
            .map(|f| ((*f).to_owned(), serde_json::json!({"type": "string"})))
            .collect();
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": name},
            "spec": {"group": "metallb.io", "scope": "Namespaced",
                "names": {"plural": "x", "kind": "X"},
                "versions": [{"name": "v1beta1", "served": true, "storage": true,
                    "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                        "spec": {"type": "object", "properties": fields}}}}}]}
        }))
        .unwrap()
    }

    #[test]
    fn tells_the_versions_apart() {
        let pools = definition("ipaddresspools.metallb.io", &["addresses"]);
        let new = definition(
            "l2advertisements.metallb.io",
            &["serviceSelectors", "preferredNodeSelectors"],
        );
        let old = definition("l2advertisements.metallb.io", &["nodeSelectors"]);
        let peers = definition("bgppeers.metallb.io", &["dynamicASN"]);
        assert!(Capabilities::from_definitions([&pools, &new, &peers]).can_prefer());
        let found = Capabilities::from_definitions([&old, &pools]);
        assert!(found.installed && !found.can_prefer() && !found.new_annotations);
        assert!(!Capabilities::from_definitions([&new]).installed);
    }

    #[test]
    fn versions_have_what_their_definitions_tell() {
        let of = |version| Capabilities::of_version(version).unwrap();
        assert_eq!(of("0.16.2"), Capabilities::CURRENT);
        assert_eq!(of("v1.0.0"), Capabilities::CURRENT);
        assert!(of("0.16.1").service_selectors && !of("0.16.1").can_prefer());
        assert!(of("0.14.9").cordon_silences() && of("0.14.9").new_annotations);
        assert!(!of("0.15.2").cordon_silences() && !of("0.14.8").cordon_silences());
        assert!(of("0.14.8").l2_status && !of("0.13.12").l2_status);
        assert!(of("0.16.1").reports_announcers() && !of("0.15.2").reports_announcers());
        for bad in ["0.13.11", "0.16", "new", "0.16.2.1", ""] {
            assert_eq!(Capabilities::of_version(bad), None, "{bad}");
        }
    }
}
