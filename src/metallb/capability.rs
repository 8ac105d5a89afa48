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
    };

    /// Reads them from the definitions that are installed, in any order.
    pub fn from_definitions<'a>(
        definitions: impl IntoIterator<Item = &'a CustomResourceDefinition>,
    ) -> Self {
        let mut found = Self::default();
        let (mut pools, mut advertisements) = (false, false);
        for definition in definitions {
            let has = |field| has_spec_field(definition, field);
            match definition.metadata.name.as_deref() {
                Some("ipaddresspools.metallb.io") => pools = true,
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
}

/// Whether a served version's `spec` has a field.
fn has_spec_field(definition: &CustomResourceDefinition, field: &str) -> bool {
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
                .and_then(|p| p.get("spec"))
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
}
