//! Files put into a world, as an apply would store them.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::admission::{Candidate, review};
use crate::cli::lint::schema;
use crate::cli::merge;
use crate::manifest::Manifest;
use crate::world::{Kind, Observed, World};

/// What an apply would make of a world.
#[derive(Default)]
pub(super) struct Applied {
    /// The world then.
    pub world: World,
    /// The objects in the files that differ from what is stored.
    pub objects: Vec<String>,
    /// What would be denied; nothing of it is in the world.
    pub denied: Vec<String>,
}

impl Applied {
    /// Puts what the files hold over what is stored, pools first.
    ///
    /// # Errors
    /// A sentence that names the file and document that cannot be read.
    pub fn to(
        world: &World,
        stored: &[Value],
        manifests: Vec<Manifest>,
        namespace: &str,
    ) -> Result<Self, String> {
        let mut applied = Self {
            world: world.clone(),
            ..Self::default()
        };
        let mut ours = Vec::new();
        for mut manifest in manifests {
            merge::default_namespace(&mut manifest, namespace);
            match merge::observe(stored, &manifest)? {
                Some(o) if matches!(o.kind(), Kind::AddressPool | Kind::LoadBalancer) => {
                    ours.push((o.kind(), manifest));
                }
                Some(other) => applied.put_other(other),
                None => {}
            }
        }
        // A stable sort: within a kind the order of the files stays.
        ours.sort_by_key(|(kind, _)| *kind != Kind::AddressPool);
        for (kind, manifest) in ours {
            applied.put_ours(kind, manifest)?;
        }
        Ok(applied)
    }

    /// Takes in an object of somebody else's, and notes it if the planner sees
    /// a difference.
    fn put_other(&mut self, observed: Observed) {
        let object = observed.object();
        let networks = |world: &World| world.service_cidrs.get(&object.key.name).cloned();
        let before = (self.world.revision(), networks(&self.world));
        let is_known = is_known(&self.world, &observed);
        self.world.observe(observed);
        let is_news = match object.kind {
            Kind::ServiceCidr => networks(&self.world) != before.1,
            _ => !is_known && self.world.revision() != before.0,
        };
        if is_news {
            self.objects.push(object.to_string());
        }
    }

    fn put_ours(&mut self, kind: Kind, manifest: Manifest) -> Result<(), String> {
        let place = merge::place(&manifest);
        let unknown = schema::unknown_fields(kind, &manifest.value);
        let now = self.world.now;
        let (object, old) = merge::identify_newest(&self.world, kind, manifest.value, now)
            .map_err(|error| format!("{place}: {error}"))?;
        let name = object.object();
        match old.as_ref().map(|old| changed_fields(old, &object)) {
            None => self.objects.push(format!("{name}: new")),
            Some(fields) if fields.is_empty() => {}
            Some(fields) => self.objects.push(format!("{name}: {}", fields.join(", "))),
        }
        let candidate = Candidate {
            object: object.clone(),
            old,
            selects_pods: None,
        };
        let denials = review(&self.world, &candidate).denials;
        if unknown.is_empty() && denials.is_empty() {
            self.world.observe(object);
        }
        let unknown = unknown
            .into_iter()
            .map(|field| (field, schema::UNKNOWN.to_owned()));
        let denials = denials.into_iter().map(|d| (d.field, d.message));
        self.denied.extend(
            unknown
                .chain(denials)
                .map(|(field, message)| format!("{name}: {field}: {message}")),
        );
        Ok(())
    }
}

/// Whether the world has just this object, of the kinds that it takes in
/// unseen. Of the others its revision says whether anything in them is new.
fn is_known(world: &World, observed: &Observed) -> bool {
    let key = observed.object().key;
    match observed {
        Observed::IpAddressPool(new) => world.ip_address_pools.get(&key.name) == Some(new),
        Observed::L2Advertisement(new) => world.l2_advertisements.get(&key.name) == Some(new),
        Observed::BgpAdvertisement(new) => world.bgp_advertisements.get(&key.name) == Some(new),
        Observed::DnsEndpoint(new) => world.dns_endpoints.get(&key) == Some(new),
        _ => false,
    }
}

/// The fields of the spec that differ.
fn changed_fields(old: &Observed, new: &Observed) -> Vec<String> {
    let spec = |observed: &Observed| -> Value {
        match observed {
            Observed::AddressPool(stored) => stored.valid().map(|o| json!(o.spec)),
            Observed::LoadBalancer(stored) => stored.valid().map(|o| json!(o.spec)),
            _ => None,
        }
        .unwrap_or_default()
    };
    let (old, new) = (spec(old), spec(new));
    let fields = |value: &Value| -> BTreeSet<String> {
        value
            .as_object()
            .into_iter()
            .flatten()
            .map(|(k, _)| k.clone())
            .collect()
    };
    fields(&old)
        .union(&fields(&new))
        .filter(|field| old[field.as_str()] != new[field.as_str()])
        .map(|field| format!("spec.{field}"))
        .collect()
}
