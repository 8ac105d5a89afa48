//! Names: which are well formed, which a pool allows, and who has which.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::record::is_published;
use crate::api::{Dns, L2LoadBalancer, Reason};
use crate::plan::claims::{pool_for, staying};
use crate::plan::pool::PoolView;
use crate::selector::is_dns_subdomain;
use crate::world::{Key, World};

/// Whether a load balancer may publish the name that it asks for.
pub(in crate::plan) type Permission = Result<(), (Reason, String)>;

/// Whether a name is a full domain name in lower case, with or without a
/// wildcard as its first label.
pub(crate) fn is_hostname(hostname: &str) -> bool {
    let name = hostname.strip_prefix("*.").unwrap_or(hostname);
    is_dns_subdomain(name) && name.contains('.') && name.split('.').all(|label| label.len() <= 63)
}

/// Whether a name is one of the domains or below one; a wildcard is below
/// what follows it.
pub(crate) fn is_below(hostname: &str, domains: &[String]) -> bool {
    let hostname = hostname.to_ascii_lowercase();
    let name = hostname.strip_prefix("*.").unwrap_or(&hostname);
    domains.iter().any(|domain| {
        let domain = domain.to_ascii_lowercase();
        name.strip_suffix(domain.as_str())
            .is_some_and(|rest| !domain.is_empty() && (rest.is_empty() || rest.ends_with('.')))
    })
}

/// Each name with each load balancer that claims it. Two DNSEndpoints for one
/// name would fight, so that the first has it: one whose DNSEndpoint holds it
/// already, which nobody takes from it, else the oldest that may use its pool
/// and whose pool allows the name. `order` is the oldest first.
pub(in crate::plan) fn claims(
    world: &World,
    pools: &BTreeMap<String, Arc<PoolView>>,
    order: &[Key],
) -> Vec<(String, Key)> {
    let (mut published, mut others) = (Vec::new(), Vec::new());
    for (key, lb) in staying(world, order) {
        let Some(dns) = &lb.spec.dns else { continue };
        let claim = || (dns.hostname.to_ascii_lowercase(), key.clone());
        if is_published(world, key, &dns.hostname) {
            published.push(claim());
        } else if pool_for(world, pools, key, lb).is_some_and(|p| allowed(dns, p).is_ok()) {
            others.push(claim());
        }
    }
    published.append(&mut others);
    published
}

/// Judges the name that a load balancer asks for; `None` without `spec.dns`.
pub(in crate::plan) fn permission(
    key: &Key,
    object: &L2LoadBalancer,
    pool: &PoolView,
    claims: &HashMap<String, Key>,
) -> Option<Permission> {
    let dns = object.spec.dns.as_ref()?;
    let taken = || match claims.get(&dns.hostname.to_ascii_lowercase()) {
        Some(other) if other != key => Err((
            Reason::HostnameTaken,
            format!(
                "{} is published for L2LoadBalancer {other}, and ExternalDNS takes a name from \
                 one object: use another name, or delete that one's spec.dns",
                dns.hostname
            ),
        )),
        _ => Ok(()),
    };
    Some(allowed(dns, pool).and_then(|()| taken()))
}

/// Whether a pool's administrator allows a name.
fn allowed(dns: &Dns, pool: &PoolView) -> Permission {
    let hostname = &dns.hostname;
    if !is_hostname(&hostname.to_ascii_lowercase()) {
        return Err((
            Reason::InvalidSpec,
            format!("spec.dns.hostname: {hostname:?} is not a full domain name"),
        ));
    }
    if is_below(hostname, &pool.dns_domains) {
        return Ok(());
    }
    Err((
        Reason::DomainNotAllowed,
        format!(
            "{hostname} may not be used: {}",
            domains_allowed(&pool.name, &pool.dns_domains)
        ),
    ))
}

/// What names a pool allows, for a person.
pub(crate) fn domains_allowed(pool: &str, domains: &[String]) -> String {
    if domains.is_empty() {
        format!("L2AddressPool {pool} allows no names (its spec.dnsDomains is empty)")
    } else {
        format!(
            "L2AddressPool {pool} allows names below {}",
            domains.join(", ")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_are_whole_labels() {
        let domains = vec!["Example.org".to_owned()];
        for good in [
            "example.org",
            "a.example.org",
            "A.EXAMPLE.ORG",
            "*.example.org",
            "a.b.example.org",
        ] {
            assert!(is_below(good, &domains), "{good}");
        }
        for bad in [
            "badexample.org",
            "example.org.evil.net",
            "org",
            "*.org",
            ".example.com",
        ] {
            assert!(!is_below(bad, &domains), "{bad}");
        }
        assert!(!is_below("a.example.org", &[]));
        assert!(!is_below("a.example.org", &[String::new()]));
    }

    #[test]
    fn hostnames_are_full_names() {
        for good in ["a.b", "*.example.org", "x-1.example.org"] {
            assert!(is_hostname(good), "{good}");
        }
        let long = format!("{}.org", "a".repeat(64));
        for bad in [
            "",
            "localhost",
            "*.org",
            "a.*.org",
            "A.org",
            "a..org",
            "a.org.",
            &long,
        ] {
            assert!(!is_hostname(bad), "{bad}");
        }
    }
}
