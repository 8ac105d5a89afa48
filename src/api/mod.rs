//! The objects of the API group `l2lb.io`, version `v1alpha1`, and the names
//! that this project puts on the objects that it makes.
//!
//! The custom resource definitions in `crds/` are generated from these types;
//! what one object alone decides is a CEL rule here, so that it holds also
//! where the webhook is not installed.

pub mod condition;
pub mod load_balancer;
pub mod names;
pub mod pool;
mod rules;

pub use condition::{ConditionType, Reason};
pub use load_balancer::{
    Dns, L2LoadBalancer, L2LoadBalancerSpec, L2LoadBalancerStatus, ServicePort, ServiceSpec,
    SlotPhase, SlotStatus,
};
pub use pool::{
    FamilyCount, L2AddressPool, L2AddressPoolSpec, L2AddressPoolStatus, MissingInterfaces, OnCordon,
};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON,
};
use kube::CustomResourceExt;
use serde_json::json;

/// The definitions of both kinds, in the order in which they are installed.
pub fn crds() -> Vec<CustomResourceDefinition> {
    let mut crds = vec![L2AddressPool::crd(), L2LoadBalancer::crd()];
    crds.iter_mut().for_each(default_status);
    crds
}

/// Gives a status that nobody wrote yet a generation that no object has.
/// Whoever waits for an object to be ready, as Flux does by kstatus, takes one
/// without `observedGeneration` and without conditions for ready.
fn default_status(crd: &mut CustomResourceDefinition) {
    for version in &mut crd.spec.versions {
        let schema = version.schema.as_mut();
        let status = schema
            .and_then(|s| s.open_api_v3_schema.as_mut())
            .and_then(|s| s.properties.as_mut())
            .and_then(|p| p.get_mut("status"));
        if let Some(status) = status {
            status.default = Some(JSON(json!({"observedGeneration": -1})));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_have_status_short_names_and_columns() {
        for crd in crds() {
            let version = &crd.spec.versions[0];
            assert!(version.subresources.as_ref().unwrap().status.is_some());
            let schema = version.schema.as_ref().unwrap();
            let schema = schema.open_api_v3_schema.as_ref().unwrap();
            let status = &schema.properties.as_ref().unwrap()["status"];
            let born = &status.default.as_ref().unwrap().0;
            assert_eq!(born["observedGeneration"], -1);
            assert!(!crd.spec.names.short_names.clone().unwrap().is_empty());
            assert!(
                version
                    .additional_printer_columns
                    .as_ref()
                    .unwrap()
                    .iter()
                    .any(|c| c.name == "Age")
            );
        }
    }
}
