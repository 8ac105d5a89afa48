//! What an L2LoadBalancer alone decides: the rules that its definition has in
//! CEL as well, for objects that were stored without them and for files that
//! no API server has seen. The planner, admission and `lint` share them.
//!
//! A name in `spec.dns` is not among them: one that cannot be published is no
//! reason not to serve, and the condition `DNSPublished` says so.

use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::pool::Problem;
use crate::address::AddressRange;
use crate::api::{L2LoadBalancer, L2LoadBalancerSpec, ServiceSpec, names};
use crate::duration::{self, DurationError};
use crate::selector::Selector;
use crate::world::Key;

/// The longest `retirementPeriod`: a year.
const LONGEST_RETIREMENT: SignedDuration = SignedDuration::from_hours(8760);

/// What was read of a spec. Where something is wrong it is not to be used.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct OwnSpec {
    pub retirement: SignedDuration,
    pub nodes: Selector,
}

/// Reads the object alone, or says in a sentence what is wrong with it.
pub(super) fn parse(key: &Key, object: &L2LoadBalancer) -> Result<OwnSpec, String> {
    let (spec, problems) = read(key, object);
    match problems.first() {
        None => Ok(spec),
        Some(problem) => Err(problem.text()),
    }
}

/// Everything that is wrong with the object alone.
pub(crate) fn problems(key: &Key, object: &L2LoadBalancer) -> Vec<Problem> {
    read(key, object).1
}

fn read(key: &Key, object: &L2LoadBalancer) -> (OwnSpec, Vec<Problem>) {
    let mut problems = Vec::new();
    let spec = &object.spec;
    problems.extend(bad_name(&key.name));
    addresses(spec, &mut problems);
    reserved_keys(&spec.service, &mut problems);
    let mut say = |field: &str, message: String| problems.push(Problem::new(field, message));
    if spec.service.ports.is_empty() {
        say(
            "spec.service.ports",
            "the list is empty: a Service needs at least one port".to_owned(),
        );
    }
    let retirement = retirement(&spec.retirement_period).unwrap_or_else(|message| {
        say("spec.retirementPeriod", message);
        SignedDuration::ZERO
    });
    if spec.address_pool.is_empty() {
        say(
            "spec.addressPool",
            "the name of an L2AddressPool is missing".to_owned(),
        );
    }
    if spec.max_nodes == Some(0) {
        say("spec.maxNodes", "at least 1 node is needed".to_owned());
    }
    let nodes = Selector::parse(spec.node_selector.as_ref()).unwrap_or_else(|error| {
        say("spec.nodeSelector", error.to_string());
        Selector::default()
    });
    service(&spec.service, &mut problems);
    (OwnSpec { retirement, nodes }, problems)
}

fn bad_name(name: &str) -> Option<Problem> {
    let is_dns_label = name.starts_with(|c: char| c.is_ascii_lowercase())
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
        && !name.ends_with('-');
    if is_dns_label && name.len() <= names::MAX_LOAD_BALANCER_NAME {
        return None;
    }
    Some(Problem::new(
        "metadata.name",
        format!(
            "the name {name} ({} characters) leaves no room for its Services' names: they are \
             named {name}-0, {name}-1, ... and a Service's name begins with a letter, has only \
             lower-case letters, digits and dashes, and ends at 63 characters. Use a name of \
             at most {} characters",
            name.len(),
            names::MAX_LOAD_BALANCER_NAME
        ),
    ))
}

fn addresses(spec: &L2LoadBalancerSpec, problems: &mut Vec<Problem>) {
    for (index, address) in spec.addresses.iter().enumerate() {
        let field = format!("spec.addresses[{index}]");
        if address.parse::<std::net::IpAddr>().is_err() {
            let message = format!("{address:?} is not an IP address");
            problems.push(Problem::new(field, message));
        } else if let Err(error) = AddressRange::parse(address) {
            problems.push(Problem::new(field, error));
        }
    }
}

fn reserved_keys(service: &ServiceSpec, problems: &mut Vec<Problem>) {
    for (field, map) in [
        ("labels", &service.labels),
        ("annotations", &service.annotations),
    ] {
        for bad in map.keys().filter(|k| names::is_reserved_key(k)) {
            problems.push(Problem::new(
                format!("spec.service.{field}"),
                format!("{bad} is set by the controllers alone: remove it"),
            ));
        }
    }
}

fn retirement(text: &str) -> Result<SignedDuration, String> {
    let too_long = || format!("{text} is not between 0s and 8760h (a year)");
    match duration::parse(text) {
        Ok(duration) if duration <= LONGEST_RETIREMENT => Ok(duration),
        Ok(_) | Err(DurationError::TooLong) => Err(too_long()),
        Err(DurationError::Malformed) => {
            Err(format!("{text:?} is not a duration as in 24h or 1h30m"))
        }
    }
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn messages(change: impl FnOnce(&mut Value)) -> Vec<String> {
        let mut spec = json!({
            "addressPool": "edge",
            "service": {"selector": {"app": "web"}, "ports": [{"port": 80}]},
        });
        change(&mut spec);
        let object = L2LoadBalancer::new("web", serde_json::from_value(spec).unwrap());
        let found = problems(&Key::new("shop", "web"), &object);
        found.iter().map(Problem::text).collect()
    }

    #[test]
    fn nothing_is_wrong_with_a_good_one() {
        assert_eq!(messages(|_| {}), Vec::<String>::new());
        let long = messages(|s| s["retirementPeriod"] = json!("8760h"));
        assert_eq!(long, Vec::<String>::new());
    }

    #[test]
    fn no_period_panics() {
        for period in ["1h-1h", "-1h", "1d", "", "1h+-1h", "1e400h"] {
            let said = messages(|s| s["retirementPeriod"] = json!(period));
            let wanted =
                format!("spec.retirementPeriod: {period:?} is not a duration as in 24h or 1h30m");
            assert_eq!(said, [wanted]);
        }
        for period in ["8760h1ns", "99999999999999999h", "9223372036854775807h"] {
            let said = messages(|s| s["retirementPeriod"] = json!(period));
            let wanted =
                format!("spec.retirementPeriod: {period} is not between 0s and 8760h (a year)");
            assert_eq!(said, [wanted]);
        }
    }

    #[test]
    fn families_are_what_a_service_takes() {
        let said = messages(|s| s["service"]["ipFamilies"] = json!(["IPv4", "IPv4"]));
        assert_eq!(said, ["spec.service.ipFamilies: IPv4 is named twice"]);
        let said = messages(|s| s["service"]["ipFamilies"] = json!(["IPv4", "IPv6"]));
        assert_eq!(
            said,
            ["spec.service.ipFamilies: two families need ipFamilyPolicy: RequireDualStack"]
        );
        let said = messages(|s| {
            s["service"]["ipFamilies"] = json!(["IPv4", "IPv6"]);
            s["service"]["ipFamilyPolicy"] = json!("RequireDualStack");
        });
        assert_eq!(said, Vec::<String>::new());
    }

    #[test]
    fn addresses_are_those_of_hosts() {
        let said = messages(|s| s["addresses"] = json!(["203.0.113.7", "127.0.0.1", "ff02::1"]));
        assert_eq!(said.len(), 2);
        assert!(said[0].starts_with("spec.addresses[1]: \"127.0.0.1\" holds loopback addresses"));
        let said = messages(|s| s["addresses"] = json!(["203.0.113.0/24"]));
        assert_eq!(
            said,
            ["spec.addresses[0]: \"203.0.113.0/24\" is not an IP address"]
        );
    }

    #[test]
    fn every_key_of_others_is_reserved() {
        let said = messages(|s| {
            s["service"]["annotations"] = json!({"external-dns.other.example/x": "y"});
        });
        assert_eq!(
            said,
            [
                "spec.service.annotations: external-dns.other.example/x is set by the controllers \
                 alone: remove it"
            ]
        );
    }
}
