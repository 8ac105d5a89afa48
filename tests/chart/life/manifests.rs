//! What the trial applies.

pub(super) const NAMESPACES: &str = "
apiVersion: v1
kind: Namespace
metadata:
  name: l2lb-system
  labels: {pod-security.kubernetes.io/enforce: restricted}
---
apiVersion: v1
kind: Namespace
metadata: {name: shop}
";

pub(super) const POOL: &str = "
apiVersion: l2lb.io/v1alpha1
kind: L2AddressPool
metadata: {name: edge}
spec:
  addresses: [192.0.2.100-192.0.2.104]
  dnsDomains: [example.org]
";
pub(super) const POOL_LARGER: &str = "
apiVersion: l2lb.io/v1alpha1
kind: L2AddressPool
metadata: {name: edge}
spec:
  addresses: [192.0.2.100-192.0.2.109]
  dnsDomains: [example.org]
";
pub(super) const POOL_ON_ETH0: &str = "
apiVersion: l2lb.io/v1alpha1
kind: L2AddressPool
metadata: {name: edge}
spec:
  addresses: [192.0.2.100-192.0.2.104]
  dnsDomains: [example.org]
  interfaces: [eth0]
";
pub(super) const ONE: &str = "
apiVersion: l2lb.io/v1alpha1
kind: L2LoadBalancer
metadata: {name: one, namespace: shop}
spec:
  addressPool: edge
  maxNodes: 1
  service: {selector: {app: web}, ports: [{port: 80, targetPort: 8090}]}
";
/// On every node.
pub(super) const LARGE: &str = "
apiVersion: l2lb.io/v1alpha1
kind: L2LoadBalancer
metadata: {name: NAME, namespace: shop}
spec:
  addressPool: edge
  service: {selector: {app: web}, ports: [{port: 80, targetPort: 8090}]}
";

pub(super) fn web(port: u16, ttl: u16) -> String {
    format!(
        "
apiVersion: l2lb.io/v1alpha1
kind: L2LoadBalancer
metadata: {{name: web, namespace: shop}}
spec:
  addressPool: edge
  nodeSelector: {{matchLabels: {{role: edge}}}}
  retirementPeriod: 0s
  dns: {{hostname: web.example.org, ttl: {ttl}}}
  service: {{selector: {{app: web}}, ports: [{{name: http, port: {port}, targetPort: 8090}}]}}
"
    )
}
