//! One measured figure beside its baseline and its target.

use std::fmt::Write;

use serde::Serialize;

/// One measured figure.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    /// What was measured.
    pub name: String,
    /// The figure itself.
    pub value: f64,
    /// Its unit; empty for a plain number.
    pub unit: &'static str,
    /// What it is compared with, in the same unit and run.
    pub baseline: f64,
    /// `value / baseline`.
    pub ratio: f64,
    /// The ratio that it is to stay below; none where it only informs.
    pub target: Option<f64>,
    /// Whether it does.
    pub met: Option<bool>,
}

impl Figure {
    /// A figure with its baseline and target.
    pub fn new(
        name: impl Into<String>,
        unit: &'static str,
        value: f64,
        baseline: f64,
        target: Option<f64>,
    ) -> Self {
        let ratio = value / baseline;
        Self {
            name: name.into(),
            value,
            unit,
            baseline,
            ratio,
            target,
            met: target.map(|t| ratio <= t),
        }
    }
}

/// The figures for people.
pub fn table(figures: &[Figure]) -> String {
    let width = figures.iter().map(|f| f.name.len()).max().unwrap_or(4);
    let mut text = format!(
        "{:width$}  {:>10}  {:>10}  {:>6}  {:>6}  MET\n",
        "FIGURE", "VALUE", "BASELINE", "RATIO", "TARGET"
    );
    for f in figures {
        let target = f
            .target
            .map_or_else(|| "-".to_owned(), |t| format!("{t:.2}"));
        let met = match f.met {
            Some(true) => "yes",
            Some(false) => "NO",
            None => "-",
        };
        // Writing to a String does not fail.
        let _ = writeln!(
            text,
            "{:width$}  {:>7.2} {:<2}  {:>7.2} {:<2}  {:>6.3}  {target:>6}  {met}",
            f.name, f.value, f.unit, f.baseline, f.unit, f.ratio
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_padded_for_people_alone() {
        let figures = [
            Figure::new("a", "ms", 1.0, 2.0, Some(0.6)),
            Figure::new("b", "s", 1.0, 2.0, Some(0.4)),
            Figure::new("c", "", 1.0, 2.0, None),
        ];
        let text = table(&figures);
        let ends: Vec<_> = text.lines().filter_map(|line| line.find("0.500")).collect();
        assert!(
            ends.len() == 3 && ends.iter().all(|at| *at == ends[0]),
            "{text}"
        );
        for figure in &figures {
            assert_eq!(figure.unit, figure.unit.trim());
        }
        assert!(text.contains("yes\n") && text.contains("NO\n"), "{text}");
    }
}
