//! MetalLB's objects as this project reads and writes them, what the
//! installed MetalLB can do, and how its speakers elect an announcer.

mod capability;
pub mod election;
mod types;

pub use capability::{Capabilities, DEFINITIONS};
pub use types::{
    BgpAdvertisement, BgpAdvertisementSpec, IpAddressPool, IpAddressPoolSpec, L2Advertisement,
    L2AdvertisementSpec, PreferredNodeSelector, ServiceAllocation,
};

/// The weight that our advertisements give the node that they prefer: the largest.
pub const PREFERENCE: i32 = 100;

/// Label of a ServiceL2Status: the node that announces.
pub const STATUS_NODE: &str = "metallb.io/node";
/// Label of a ServiceL2Status: the Service's name.
pub const STATUS_SERVICE: &str = "metallb.io/service-name";
/// Label of a ServiceL2Status: the Service's namespace.
pub const STATUS_NAMESPACE: &str = "metallb.io/service-namespace";
