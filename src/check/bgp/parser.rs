//! What MetalLB's parser refuses in a BGPAdvertisement by itself.

use crate::check::Facts;
use crate::check::parser::{selectors, twice};
use crate::metallb::BgpAdvertisementSpec;

/// Everything wrong with one, as sentences.
pub(in crate::check) fn wrong(facts: &Facts<'_>, spec: &BgpAdvertisementSpec) -> Vec<String> {
    let mut found = Vec::new();
    for (field, list) in [
        ("ipAddressPools", &spec.ip_address_pools),
        ("communities", &spec.communities),
        ("peers", &spec.peers),
    ] {
        found.extend(twice(field, list));
    }
    for (field, list) in [
        ("ipAddressPoolSelectors", &spec.ip_address_pool_selectors),
        ("nodeSelectors", &spec.node_selectors),
        ("serviceSelectors", &spec.service_selectors),
    ] {
        found.extend(selectors(field, list));
    }
    for (field, length, most) in [
        ("aggregationLength", spec.aggregation_length, 32),
        ("aggregationLengthV6", spec.aggregation_length_v6, 128),
    ] {
        let Some(length) = length.filter(|l| *l != most) else {
            continue;
        };
        if length > most {
            found.push(format!("spec.{field} is {length}, and {most} is the most"));
        }
        if !spec.service_selectors.is_empty() {
            found.push(format!(
                "spec.{field} is {length}, and beside spec.serviceSelectors it must be {most}"
            ));
        }
    }
    let is_bad = |text: &&String| matches!(community(text), Community::Bad);
    let bad = spec.communities.iter().filter(is_bad);
    found.extend(bad.map(|text| {
        format!("{text} in spec.communities is neither 65000:100 nor large:65000:1:1 in form")
    }));
    found.extend(native(facts, spec));
    found
}

/// What the native BGP mode refuses, where speakers are seen to run in it.
fn native(facts: &Facts<'_>, spec: &BgpAdvertisementSpec) -> Option<String> {
    let world = facts.world;
    if !world.bgp_may_be_native() || world.speakers.running().next().is_none() {
        return None;
    }
    let large = |text: &&String| matches!(community(text), Community::Large);
    if let Some(text) = spec.communities.iter().find(large) {
        return Some(format!(
            "{text} in spec.communities is a large community, which native BGP mode does not know"
        ));
    }
    let prepends = spec.as_path_prepend.filter(|times| *times > 0)?;
    Some(format!(
        "spec.asPathPrepend is {prepends}, which frr-k8s alone can do, and MetalLB runs in native \
         BGP mode"
    ))
}

/// What a text among the communities is.
enum Community {
    Legacy,
    Large,
    /// The name of one in an object of kind Community.
    Alias,
    Bad,
}

fn community(text: &str) -> Community {
    let parts: Vec<&str> = text.split(':').collect();
    let is_number = |part: &str, most: u32| {
        part.bytes().all(|b| b.is_ascii_digit()) && part.parse::<u32>().is_ok_and(|n| n <= most)
    };
    match parts.as_slice() {
        [a, b] if [a, b].iter().all(|p| is_number(p, u32::from(u16::MAX))) => Community::Legacy,
        ["large", rest @ ..] if rest.len() == 3 && rest.iter().all(|p| is_number(p, u32::MAX)) => {
            Community::Large
        }
        [_, _] | [_, _, _, _] => Community::Bad,
        _ => Community::Alias,
    }
}
