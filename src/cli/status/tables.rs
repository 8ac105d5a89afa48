//! The view as tables.

use jiff::Timestamp;

use super::view::{LoadBalancer, Node, Pool, Problem, Slot, View};
use crate::api::SlotPhase;
use crate::cli::age;
use crate::cli::cluster::kinds;
use crate::cli::table::{Cell, Tone, draw};

/// How tables are drawn.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    pub wide: bool,
    pub colour: bool,
    pub now: Timestamp,
}

/// The tables, one below the other, and what needs a sentence.
pub(super) fn text(view: &View, look: Look) -> String {
    let mut parts = Vec::new();
    if view.load_balancers.is_empty() {
        parts.push("no L2LoadBalancer here; -A looks into every namespace\n".to_owned());
    } else {
        parts.push(load_balancers(&view.load_balancers, look));
    }
    if !view.pools.is_empty() {
        parts.push(pools(&view.pools, look));
    }
    if !view.nodes.is_empty() {
        parts.push(nodes(&view.nodes, look));
    }
    let said = sentences(view);
    if !said.is_empty() {
        parts.push(said);
    }
    parts.join("\n")
}

fn load_balancers(all: &[LoadBalancer], look: Look) -> String {
    let mut headings = vec![
        "NAMESPACE",
        "LOAD BALANCER",
        "SLOT",
        "HOME",
        "ANNOUNCER",
        "ADDRESSES",
        "PHASE",
        "SINCE",
    ];
    if look.wide {
        headings.extend(["READY", "POOL", "SERVICE", "PIN", "NEXT"]);
    }
    let mut rows = Vec::new();
    for lb in all {
        for (index, slot) in lb.slots.iter().enumerate() {
            rows.push(row(lb, Some(slot), index == 0, look));
        }
        if lb.slots.is_empty() {
            rows.push(row(lb, None, true, look));
        }
    }
    draw(&headings, rows, look.colour)
}

fn row(lb: &LoadBalancer, slot: Option<&Slot>, first: bool, look: Look) -> Vec<Cell> {
    // Scripts cut columns, so that names are in every line; the eye needs them once.
    let name_tone = if first { Tone::Plain } else { Tone::Dim };
    let mut cells: Vec<Cell> = vec![
        Cell::new(&lb.namespace, name_tone),
        Cell::new(&lb.name, name_tone),
    ];
    let Some(slot) = slot else {
        cells.extend(["-"; 6].map(Cell::from));
        if look.wide {
            cells.extend([ready(&lb.ready), Cell::from(lb.pool.as_str())]);
            cells.extend(["-"; 3].map(Cell::from));
        }
        return cells;
    };
    let number = slot.service.rsplit_once('-').map_or("-", |(_, n)| n);
    let away = slot.announced_by.iter().any(|n| *n != slot.home) || slot.announced_by.len() > 1;
    let announcer = match slot.announced_by.as_slice() {
        [] => Cell::new("-", Tone::Bad),
        some => Cell::new(some.join(","), if away { Tone::Watch } else { Tone::Plain }),
    };
    let tone = match slot.phase {
        SlotPhase::Announced => Tone::Good,
        SlotPhase::Pending => Tone::Bad,
        SlotPhase::FailedOver | SlotPhase::Draining | SlotPhase::Retiring => Tone::Watch,
    };
    let since = slot.announced_since.map(|at| age::since(at, look.now));
    cells.extend([
        Cell::from(number),
        Cell::from(slot.home.as_str()),
        announcer,
        Cell::from(slot.addresses.join(",")),
        Cell::new(format!("{:?}", slot.phase), tone),
        Cell::from(since.unwrap_or_else(|| "-".to_owned())),
    ]);
    if look.wide {
        let or_dash = |text: &str| Cell::from(if text.is_empty() { "-" } else { text });
        cells.extend([
            ready(&lb.ready),
            Cell::from(lb.pool.as_str()),
            Cell::from(slot.service.as_str()),
            or_dash(&slot.pin),
            or_dash(slot.heir.as_deref().unwrap_or_default()),
        ]);
    }
    cells
}

fn ready(status: &str) -> Cell {
    let tone = match status {
        "True" => Tone::Good,
        "False" => Tone::Bad,
        _ => Tone::Watch,
    };
    Cell::new(status, tone)
}

/// Width of a usage bar.
const BAR: i64 = 20;

fn pools(pools: &[Pool], look: Look) -> String {
    let mut headings = vec!["POOL", "READY", "FAMILY", "USED", "", "FREE"];
    if look.wide {
        headings.extend(["CAPACITY", "LOAD BALANCERS"]);
    }
    let mut rows: Vec<Vec<Cell>> = Vec::new();
    for pool in pools {
        let families = [
            (
                "IPv4",
                pool.capacity.ipv4,
                pool.allocated.ipv4,
                pool.free.ipv4,
            ),
            (
                "IPv6",
                pool.capacity.ipv6,
                pool.allocated.ipv6,
                pool.free.ipv6,
            ),
        ];
        let there: Vec<_> = families.iter().filter(|f| f.1 > 0 || f.2 > 0).collect();
        for (family, capacity, used, free) in &there {
            let tone = if *free == 0 { Tone::Watch } else { Tone::Plain };
            let mut cells = vec![
                Cell::from(pool.name.as_str()),
                ready(&pool.ready),
                Cell::from(*family),
                Cell::new(bar(*used, *capacity), tone),
                Cell::from(format!("{used} of {}", count(*capacity))),
                Cell::from(count(*free)),
            ];
            if look.wide {
                cells.push(Cell::from(capacity.to_string()));
                cells.push(Cell::from(pool.load_balancers.to_string()));
            }
            rows.push(cells);
        }
        if there.is_empty() {
            let mut cells = vec![Cell::from(pool.name.as_str()), ready(&pool.ready)];
            cells.resize(headings.len(), Cell::from("-"));
            rows.push(cells);
        }
    }
    draw(&headings, rows, look.colour)
}

/// A number of addresses; that of a large IPv6 range says nothing to anybody.
fn count(addresses: i64) -> String {
    if addresses > 1_000_000_000 {
        "many".to_owned()
    } else {
        addresses.to_string()
    }
}

/// As much of a bar as is used: anything in use is seen, and full is full.
fn bar(used: i64, capacity: i64) -> String {
    let filled = if used <= 0 || capacity <= 0 {
        0
    } else if used >= capacity {
        BAR
    } else {
        let share = i128::from(used) * i128::from(BAR) / i128::from(capacity);
        i64::try_from(share).unwrap_or(BAR).clamp(1, BAR - 1)
    };
    let part = |mark: &str, n: i64| mark.repeat(usize::try_from(n).unwrap_or(0));
    format!("[{}{}]", part("#", filled), part(".", BAR - filled))
}

fn nodes(nodes: &[Node], look: Look) -> String {
    let mut headings = vec!["NODE", "STATE", "HOMES", "ANNOUNCES", "WOULD INHERIT"];
    if look.wide {
        headings.push("FROM");
    }
    let rows = nodes.iter().map(|node| {
        let tone = if node.serves { Tone::Good } else { Tone::Watch };
        let mut cells = vec![
            Cell::from(node.name.as_str()),
            Cell::new(node.state, tone),
            Cell::from(node.homes.to_string()),
            Cell::from(node.announces.to_string()),
            Cell::from(node.inherits.to_string()),
        ];
        if look.wide {
            let from: Vec<String> = node
                .inherits_from
                .iter()
                .map(|(from, n)| format!("{from}: {n}"))
                .collect();
            cells.push(Cell::from(if from.is_empty() {
                "-".to_owned()
            } else {
                from.join(", ")
            }));
        }
        cells
    });
    draw(&headings, rows.collect::<Vec<_>>(), look.colour)
}

/// What the tables cannot say.
fn sentences(view: &View) -> String {
    let mut text = String::new();
    let mut say = |object: String, problems: &[Problem]| {
        for p in problems {
            text += &format!(
                "{object}: {}=False {}: {}\n",
                p.condition, p.reason, p.message
            );
        }
    };
    for lb in &view.load_balancers {
        say(format!("{}/{}", lb.namespace, lb.name), &lb.problems);
    }
    for pool in &view.pools {
        say(format!("pool {}", pool.name), &pool.problems);
    }
    for lb in view.load_balancers.iter().filter(|lb| lb.stale) {
        text += &format!(
            "{}/{}: the controller has not judged this spec yet; does it run?\n",
            lb.namespace, lb.name
        );
    }
    if !view.not_looked_at.is_empty() {
        text += &format!(
            "what is shown is what the controller reported last; not looked at, as you may not \
             read it: {}\n",
            kinds(&view.not_looked_at)
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::bar;

    #[test]
    fn bars_show_the_first_and_the_last_address() {
        assert_eq!(bar(0, 40), "[....................]");
        assert_eq!(bar(1, 1000), "[#...................]");
        assert_eq!(bar(20, 40), "[##########..........]");
        assert_eq!(bar(999, 1000), "[###################.]");
        assert_eq!(bar(41, 40), "[####################]");
        assert_eq!(bar(5, i64::MAX), "[#...................]");
    }
}
