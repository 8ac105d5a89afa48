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

pub use condition::{ConditionType, Reason};
pub use load_balancer::{
    Dns, L2LoadBalancer, L2LoadBalancerSpec, L2LoadBalancerStatus, ServicePort, ServiceSpec,
    SlotPhase, SlotStatus,
};
pub use pool::{FamilyCount, L2AddressPool, L2AddressPoolSpec, L2AddressPoolStatus, OnCordon};

use kube::CustomResourceExt;

/// The definitions of both kinds, in the order in which they are installed.
pub fn crds()
-> Vec<k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition>
{
    vec![L2AddressPool::crd(), L2LoadBalancer::crd()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_have_status_short_names_and_columns() {
        for crd in crds() {
            let version = &crd.spec.versions[0];
            assert!(version.subresources.as_ref().unwrap().status.is_some());
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
