//! Alerts of MetalLB's chart that are for pools which fill up by accident.

use regex::Regex;
use serde_json::Value;

use crate::api::names;
use crate::check::{Facts, Findings, Severity, title};
use crate::plan::neighbours::metallb_ranges;
use crate::plan::pool::owned_pool;
use crate::world::World;

/// How the names of the alerts begin (those of usage end in a percentage), and
/// the setting of MetalLB's chart that each belongs to.
const ALERTS: [(&str, &str); 2] = [
    ("MetalLBAddressPoolExhausted", "addressPoolExhausted"),
    ("MetalLBAddressPoolUsage", "addressPoolUsage"),
];

/// MetalLB's chart has the alerts, and from 0.15 on a way to leave pools out,
/// for each of the two kinds by itself.
pub(super) fn check(facts: &Facts<'_>, found: &mut Findings) {
    let mut full = None;
    for object in facts.of_kind("PrometheusRule") {
        let (mut alerts, mut settings, mut pools) = (Vec::new(), Vec::new(), Vec::new());
        for (alert, setting, expression) in of_pools(object) {
            let Some(matchers) = pool_matchers(expression) else {
                continue;
            };
            let full = full.get_or_insert_with(|| full_pools(facts.world));
            let Some(pool) = full.iter().find(|pool| match_pool(&matchers, pool)) else {
                continue;
            };
            alerts.push(alert);
            pools.push(*pool);
            let setting = format!("prometheus.prometheusRule.{setting}.excludePools");
            if !settings.contains(&setting) {
                settings.push(setting);
            }
        }
        alerts.dedup();
        let Some(pool) = pools.first() else { continue };
        let (which, fire) = match alerts.as_slice() {
            [_] => ("alert", "fires"),
            _ => ("alerts", "fire"),
        };
        found.add(
            Severity::Info,
            "alert-of-full-pools",
            title(object),
            format!(
                "its {which} {} {fire} for IPAddressPool {pool} of l2lb, which is full by design",
                alerts.join(", ")
            ),
            format!(
                "set {} to {} in MetalLB's chart, which has that from 0.15 on; before, set enabled to \
                 false there; l2lb has alerts of its own",
                settings.join(" and "),
                names::IP_ADDRESS_POOLS
            ),
        );
    }
}

/// The alerts of an object that are about pools: name, setting and expression.
fn of_pools(object: &Value) -> impl Iterator<Item = (&str, &'static str, &str)> {
    let groups = object["spec"]["groups"].as_array().into_iter().flatten();
    let rules = groups.flat_map(|g| g["rules"].as_array().into_iter().flatten());
    rules.filter_map(|rule| {
        let alert = rule["alert"].as_str()?;
        let (_, setting) = ALERTS.iter().find(|(name, _)| alert.starts_with(name))?;
        Some((alert, *setting, rule["expr"].as_str()?))
    })
}

/// Our IPAddressPools of which every address is in use.
fn full_pools(world: &World) -> Vec<&str> {
    let pools = world.ip_address_pools.iter();
    let full = pools.filter_map(|(name, stored)| {
        let pool = stored.valid()?;
        let ranges = metallb_ranges(&pool.spec);
        let each = ranges
            .ranges()
            .iter()
            .map(crate::address::AddressRange::len);
        let size = each.fold(0u128, u128::saturating_add);
        let used = world.held().filter(|a| ranges.contains(*a)).count();
        let is_full = u128::try_from(used).is_ok_and(|used| used == size);
        (owned_pool(&pool.metadata).is_some() && is_full).then_some(name.as_str())
    });
    full.collect()
}

/// What an expression of PromQL asks of the label `pool`: whether it shall
/// match, and what; `None` when that cannot be judged.
fn pool_matchers(expression: &str) -> Option<Vec<(bool, Regex)>> {
    let matchers = Regex::new(r#"\bpool\s*(=~|!~|!=|=)\s*["'`]([^"'`]*)["'`]"#).ok()?;
    let matchers = matchers.captures_iter(expression).map(|found| {
        let (_, [operator, value]) = found.extract();
        // In Prometheus' strings backslashes are doubled.
        let value = value.replace("\\\\", "\\");
        let pattern = if operator.ends_with('~') {
            value
        } else {
            regex::escape(&value)
        };
        // They are for the whole value.
        let pattern = Regex::new(&format!("^(?s:{pattern})$")).ok()?;
        Some((operator.starts_with('='), pattern))
    });
    matchers.collect()
}

fn match_pool(matchers: &[(bool, Regex)], pool: &str) -> bool {
    matchers
        .iter()
        .all(|(shall, pattern)| pattern.is_match(pool) == *shall)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_are_left_out_as_prometheus_does() {
        let leaves_out = |expression: &str, pool: &str| {
            pool_matchers(expression).is_none_or(|matchers| !match_pool(&matchers, pool))
        };
        let old = "metallb_allocator_addresses_in_use_total >= on(pool) \
                   metallb_allocator_addresses_total";
        let new = |excluded: &str| {
            format!(
                "metallb_allocator_addresses_in_use_total{{pool!~\"{excluded}\"}} >= \
                 metallb_allocator_addresses_total"
            )
        };
        let own = names::own_pool_name("shop", "web-0", [203, 0, 113, 7].into());
        for pool in [names::ip_address_pool_name("edge"), own.clone()] {
            assert!(!leaves_out(old, &pool));
            // As the chart has it from 0.15 on when nothing is said.
            assert!(!leaves_out(&new(""), &pool));
            assert!(!leaves_out(&new("public"), &pool));
            assert!(leaves_out(&new(names::IP_ADDRESS_POOLS), &pool));
            let more = format!("public|{}", names::IP_ADDRESS_POOLS);
            assert!(leaves_out(&new(&more), &pool));
        }
        assert!(!leaves_out(&new(names::IP_ADDRESS_POOLS), "public"));
        assert!(!leaves_out(&new("l2lb-.*"), &own));
        assert!(leaves_out(&new(r"l2lb\\..*"), &own));
        assert!(leaves_out(r#"x{pool="public"} > 1"#, &own));
        assert!(leaves_out(r#"x{pool!="l2lb-edge"} > 1"#, "l2lb-edge"));
        assert!(leaves_out(&new("("), &own), "it cannot be judged");
    }
}
