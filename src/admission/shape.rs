//! What a load balancer alone decides: the rules that its definition has in
//! CEL as well, for files that no API server has seen.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{Draft, Rule};
use crate::api::{L2LoadBalancer, ServiceSpec};
use crate::plan::dns::is_hostname;
use crate::plan::gate;
use crate::plan::pool::Problem;
use crate::selector::Selector;
use crate::world::Key;

/// The longest `retirementPeriod`: a year.
const LONGEST_RETIREMENT: jiff::SignedDuration = jiff::SignedDuration::from_hours(8760);

/// Everything that is wrong with the object alone.
pub(super) fn judge(key: &Key, object: &L2LoadBalancer) -> Vec<Draft> {
    let (retirement, mut problems) = gate::read_spec(key, object);
    let spec = &object.spec;
    if retirement.is_negative() || retirement > LONGEST_RETIREMENT {
        problems.push(Problem::new(
            "spec.retirementPeriod",
            format!(
                "{} is not between 0s and 8760h (a year)",
                spec.retirement_period
            ),
        ));
    }
    if spec.address_pool.is_empty() {
        problems.push(Problem::new(
            "spec.addressPool",
            "the name of an L2AddressPool is missing",
        ));
    }
    if spec.max_nodes == Some(0) {
        problems.push(Problem::new("spec.maxNodes", "at least 1 node is needed"));
    }
    if let Err(error) = Selector::parse(spec.node_selector.as_ref()) {
        problems.push(Problem::new("spec.nodeSelector", error));
    }
    if let Some(dns) = spec.dns.as_ref().filter(|d| !is_hostname(&d.hostname)) {
        problems.push(Problem::new(
            "spec.dns.hostname",
            format!("{:?} is not a full domain name in lower case", dns.hostname),
        ));
    }
    service(&spec.service, &mut problems);
    problems.into_iter().map(draft).collect()
}

fn draft(problem: Problem) -> Draft {
    let rule = match problem.field.as_str() {
        "metadata.name" => Rule::Name,
        "spec.nodeSelector" => Rule::Selector,
        "spec.service.labels" | "spec.service.annotations" => Rule::ReservedKey,
        "spec.dns.hostname" => Rule::Dns,
        field if field.starts_with("spec.addresses") => Rule::Range,
        _ => Rule::Field,
    };
    Draft::denial(rule, problem.field, problem.message)
}

fn service(service: &ServiceSpec, problems: &mut Vec<Problem>) {
    let mut say = |field: String, message: String| {
        problems.push(Problem::new(format!("spec.service.{field}"), message));
    };
    if service.selector.is_empty() {
        say(
            "selector".to_owned(),
            "it selects nothing: name the labels of the pods".to_owned(),
        );
    }
    for (field, value, allowed) in [
        (
            "externalTrafficPolicy",
            &service.external_traffic_policy,
            &["Cluster", "Local"][..],
        ),
        (
            "internalTrafficPolicy",
            &service.internal_traffic_policy,
            &["Cluster", "Local"],
        ),
        (
            "sessionAffinity",
            &service.session_affinity,
            &["None", "ClientIP"],
        ),
        (
            "ipFamilyPolicy",
            &service.ip_family_policy,
            &["SingleStack", "RequireDualStack"],
        ),
    ] {
        if let Some(value) = value.as_deref().filter(|v| !allowed.contains(v)) {
            say(
                field.to_owned(),
                format!("{value:?} is not one of {}", allowed.join(" and ")),
            );
        }
    }
    if service.session_affinity_config.is_some()
        && service.session_affinity.as_deref() != Some("ClientIP")
    {
        say(
            "sessionAffinityConfig".to_owned(),
            "it needs sessionAffinity: ClientIP".to_owned(),
        );
    }
    let dual = service.ip_family_policy.as_deref() == Some("RequireDualStack");
    let families = &service.ip_families;
    if families.len() > 1 && families[0] == families[1] {
        say(
            "ipFamilies".to_owned(),
            format!("{} is named twice", families[0]),
        );
    } else if families.len() > 1 && !dual {
        let message = "two families need ipFamilyPolicy: RequireDualStack";
        say("ipFamilies".to_owned(), message.to_owned());
    }
    for (index, range) in service.load_balancer_source_ranges.iter().enumerate() {
        if range.parse::<ipnet::IpNet>().is_err() {
            let message = format!("{range:?} is not a CIDR, as in 198.51.100.0/24");
            say(format!("loadBalancerSourceRanges[{index}]"), message);
        }
    }
    ports(service, &mut say);
}

fn ports(service: &ServiceSpec, say: &mut impl FnMut(String, String)) {
    let is_port = |port: i32| (1..=65535).contains(&port);
    for (index, port) in service.ports.iter().enumerate() {
        let at = |field: &str| format!("ports[{index}].{field}");
        if !is_port(port.port) {
            say(
                at("port"),
                format!("{} is not between 1 and 65535", port.port),
            );
        }
        if !["TCP", "UDP", "SCTP"].contains(&port.protocol.as_str()) {
            say(
                at("protocol"),
                format!("{:?} is not one of TCP, UDP and SCTP", port.protocol),
            );
        }
        match &port.target_port {
            Some(IntOrString::Int(number)) if !is_port(*number) => {
                say(
                    at("targetPort"),
                    format!("{number} is not between 1 and 65535"),
                );
            }
            _ => {}
        }
        if service.ports.len() > 1 && port.name.is_none() {
            say(
                at("name"),
                "with more than one port every port needs a name".to_owned(),
            );
        }
        let earlier = &service.ports[..index];
        if earlier
            .iter()
            .any(|p| p.port == port.port && p.protocol == port.protocol)
        {
            say(
                at("port"),
                format!("{}/{} is listed twice", port.port, port.protocol),
            );
        }
        if port.name.is_some() && earlier.iter().any(|p| p.name == port.name) {
            let name = port.name.as_deref().unwrap_or_default();
            say(at("name"), format!("{name:?} is used twice"));
        }
    }
}

/// Fields that must not change.
pub(super) fn unchanged(new: &L2LoadBalancer, old: &L2LoadBalancer) -> Vec<Draft> {
    let mut drafts = Vec::new();
    let mut say = |field: &str, message: &str| {
        drafts.push(Draft::denial(Rule::Immutable, field, message));
    };
    let (new, old) = (&new.spec, &old.spec);
    if new.address_pool != old.address_pool {
        say(
            "spec.addressPool",
            "it cannot be changed: create another L2LoadBalancer with the new pool and delete this \
             one when clients have moved",
        );
    }
    if new.service.load_balancer_class != old.service.load_balancer_class {
        say(
            "spec.service.loadBalancerClass",
            "it cannot be changed, as on a Service",
        );
    }
    if let (Some(a), Some(b)) = (
        new.service.ip_families.first(),
        old.service.ip_families.first(),
    ) && a != b
    {
        say(
            "spec.service.ipFamilies",
            "the first family cannot be changed, as on a Service",
        );
    }
    drafts
}
