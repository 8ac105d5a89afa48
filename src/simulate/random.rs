//! Random histories, the same for the same seed.

use std::collections::BTreeMap;

use serde_json::{Map, json};

use super::event::{Event, Labelled, Order};

/// What a random history is made of.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// How many events.
    pub steps: usize,
    /// Nodes that are there when it begins, `node-1` and on.
    pub nodes: usize,
    /// Load balancers that are there when it begins, `default/lb-1` and on.
    pub load_balancers: usize,
    /// `maxNodes` of the load balancers that it makes.
    pub max_nodes: Option<u32>,
}

/// The name of a node.
pub fn node(number: usize) -> String {
    format!("node-{number}")
}

/// The event that a node joins.
pub fn join(number: usize) -> Event {
    Event::Join(Labelled {
        node: node(number),
        labels: BTreeMap::new(),
    })
}

/// The event that a load balancer is created.
pub fn create(number: usize, max_nodes: Option<u32>) -> Event {
    let mut spec = Map::new();
    if let Some(max) = max_nodes {
        spec.insert("maxNodes".to_owned(), json!(max));
    }
    Event::Create(Order {
        load_balancer: format!("default/lb-{number}"),
        spec,
    })
}

/// Makes up a history: nodes fail and return, are cordoned, leave and join,
/// and load balancers come and go.
pub fn history(seed: u64, recipe: &Recipe) -> Vec<Event> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut nodes: Vec<usize> = (1..=recipe.nodes).collect();
    let mut load_balancers: Vec<usize> = (1..=recipe.load_balancers).collect();
    let (mut next_node, mut next_lb) = (recipe.nodes + 1, recipe.load_balancers + 1);
    let (mut lost, mut cordoned): (Vec<usize>, Vec<usize>) = (Vec::new(), Vec::new());
    let mut events = Vec::with_capacity(recipe.steps);
    while events.len() < recipe.steps {
        let event = match random.u32(0..100) {
            0..25 => {
                let well: Vec<usize> = nodes
                    .iter()
                    .copied()
                    .filter(|n| !lost.contains(n))
                    .collect();
                // One that is left keeps the history interesting.
                let Some(n) = random.choice(&well).copied().filter(|_| well.len() > 1) else {
                    continue;
                };
                lost.push(n);
                Event::Lose(node(n))
            }
            25..45 => {
                let Some(n) = take(&mut random, &mut lost) else {
                    continue;
                };
                Event::Return(node(n))
            }
            45..53 => {
                let Some(n) = random.choice(&nodes).copied() else {
                    continue;
                };
                if cordoned.contains(&n) {
                    continue;
                }
                cordoned.push(n);
                Event::Cordon(node(n))
            }
            53..60 => {
                let Some(n) = take(&mut random, &mut cordoned) else {
                    continue;
                };
                Event::Uncordon(node(n))
            }
            60..68 => {
                nodes.push(next_node);
                next_node += 1;
                join(next_node - 1)
            }
            68..72 => {
                if nodes.len() < 3 {
                    continue;
                }
                let Some(n) = take(&mut random, &mut nodes) else {
                    continue;
                };
                lost.retain(|l| *l != n);
                cordoned.retain(|c| *c != n);
                Event::Leave(node(n))
            }
            72..82 => {
                load_balancers.push(next_lb);
                next_lb += 1;
                create(next_lb - 1, recipe.max_nodes)
            }
            82..86 => {
                let Some(n) = take(&mut random, &mut load_balancers) else {
                    continue;
                };
                Event::Delete(format!("default/lb-{n}"))
            }
            _ => {
                let times = ["15s", "5m", "25h"];
                Event::Wait(times[random.usize(0..times.len())].to_owned())
            }
        };
        events.push(event);
    }
    events
}

fn take(random: &mut fastrand::Rng, from: &mut Vec<usize>) -> Option<usize> {
    (!from.is_empty()).then(|| from.swap_remove(random.usize(0..from.len())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_is_one_history() {
        let recipe = Recipe {
            steps: 50,
            nodes: 4,
            load_balancers: 3,
            max_nodes: None,
        };
        assert_eq!(history(7, &recipe), history(7, &recipe));
        assert_ne!(history(7, &recipe), history(8, &recipe));
        assert_eq!(history(7, &recipe).len(), 50);
    }
}
