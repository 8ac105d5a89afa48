//! MetalLB and the garbage collector, played.

use std::collections::{BTreeMap, BTreeSet};

use l2lb::api::names;
use l2lb::metallb;
use l2lb::world::{Kind, ObjectRef};
use serde_json::json;

use super::store::{METALLB, Store, object};

impl Store {
    /// The garbage collector: children whose owner is gone.
    pub fn collect_garbage(&mut self) {
        let owners: BTreeSet<String> = self
            .objects
            .values()
            .filter_map(|v| v["metadata"]["uid"].as_str().map(str::to_owned))
            .collect();
        let orphans: Vec<ObjectRef> = self
            .objects
            .iter()
            .filter(|(_, value)| {
                value["metadata"]["ownerReferences"]
                    .as_array()
                    .is_some_and(|refs| {
                        !refs.is_empty()
                            && refs
                                .iter()
                                .all(|r| !owners.contains(r["uid"].as_str().unwrap_or("")))
                    })
            })
            .map(|(object, _)| object.clone())
            .collect();
        for object in orphans {
            self.delete(&object);
        }
    }

    /// MetalLB: gives each Service the address that it asks for, if it is
    /// free and the pool exists, and reports who announces it.
    pub fn metallb(&mut self) {
        let services: Vec<ObjectRef> = self.all(Kind::Service).map(|(o, _)| o.clone()).collect();
        for service in &services {
            let value = &self.objects[service];
            let annotations = &value["metadata"]["annotations"];
            let asked = annotations[names::METALLB_IPS]
                .as_str()
                .unwrap_or("")
                .to_owned();
            let pool = annotations[names::METALLB_POOL].as_str().unwrap_or("");
            let has_pool = self
                .objects
                .contains_key(&object(Kind::IpAddressPool, METALLB, pool));
            let taken = services.iter().any(|other| {
                other != service
                    && self.objects[other]["status"]
                        .to_string()
                        .contains(&format!("\"{asked}\""))
            });
            if !asked.is_empty() && has_pool && !taken {
                let ingress = json!({"loadBalancer": {"ingress": [{"ip": asked}]}});
                self.edit(service, |v| v["status"] = ingress);
            }
        }
        self.speakers(&services);
    }

    fn speakers(&mut self, services: &[ObjectRef]) {
        let mut wanted = BTreeMap::new();
        for service in services {
            let value = &self.objects[service];
            let pin = &value["metadata"]["labels"][names::PIN];
            if let (Some(node), false) = (pin.as_str(), value["status"].is_null())
                && self.objects.contains_key(&object(Kind::Node, "", node))
            {
                let key = &service.key;
                wanted.insert(
                    object(Kind::ServiceL2Status, METALLB, &format!("l2-{}", key.name)),
                    json!({"metadata": {"labels": {metallb::STATUS_NODE: node,
                        metallb::STATUS_SERVICE: key.name, metallb::STATUS_NAMESPACE: key.namespace}}}),
                );
            }
        }
        let old: Vec<ObjectRef> = self
            .all(Kind::ServiceL2Status)
            .map(|(o, _)| o.clone())
            .filter(|o| !wanted.contains_key(o))
            .collect();
        for status in old {
            self.delete(&status);
        }
        for (status, value) in wanted {
            if self.objects.contains_key(&status) {
                self.edit(&status, |v| {
                    v["metadata"]["labels"] = value["metadata"]["labels"].clone()
                });
            } else {
                self.put(&status, value);
            }
        }
    }
}
