//! The dashboard as a picture, drawn from Prometheus' answers.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, anyhow};
use jiff::Timestamp;
use plotters::coord::Shift;
use plotters::prelude::*;

use crate::dashboard::{Dashboard, Kind, Panel};
use crate::prometheus::Series;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Pixels of a column and of a unit of height.
const COLUMN: i32 = 55;
const UNIT: i32 = 27;
/// Space around a panel.
const GAP: i32 = 6;
const FONT: &str = "sans-serif";
/// How many rows of a table are shown.
const ROWS: usize = 6;

const PAPER: RGBColor = RGBColor(244, 245, 247);
const INK: RGBColor = RGBColor(36, 41, 46);
const FAINT: RGBColor = RGBColor(120, 126, 134);
const COLOURS: [RGBColor; 9] = [
    RGBColor(31, 119, 180),
    RGBColor(230, 126, 34),
    RGBColor(39, 154, 80),
    RGBColor(192, 57, 43),
    RGBColor(125, 84, 178),
    RGBColor(23, 160, 170),
    RGBColor(200, 90, 150),
    RGBColor(140, 120, 40),
    RGBColor(100, 110, 120),
];

/// Answers by panel and number of the query.
pub type Answers = BTreeMap<(i64, usize), Vec<Series>>;

/// Draws it as SVG.
pub fn draw(
    dashboard: &Dashboard,
    answers: &Answers,
    from: Timestamp,
    to: Timestamp,
) -> Result<String> {
    let bottom = dashboard.panels.iter().map(|p| p.place.y + p.place.h);
    let height = bottom.max().unwrap_or(1) * UNIT + 2 * GAP;
    let mut svg = String::new();
    {
        let size = (
            u32::try_from(24 * COLUMN + 2 * GAP)?,
            u32::try_from(height)?,
        );
        let root = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        root.fill(&PAPER)?;
        let span = (seconds(from), seconds(to));
        for panel in &dashboard.panels {
            let corner = (panel.place.x * COLUMN + GAP, panel.place.y * UNIT + GAP);
            let size = (panel.place.w * COLUMN, panel.place.h * UNIT);
            let area = root.clone().shrink(corner, size);
            one(&area, panel, answers, span)
                .map_err(|error| anyhow!("drawing {}: {error}", panel.title))?;
        }
        root.present()?;
    }
    Ok(svg)
}

fn seconds(at: Timestamp) -> f64 {
    at.as_duration().as_secs_f64()
}

type Drawn = Result<(), Box<dyn std::error::Error>>;

fn write(area: &Area<'_>, text: &str, at: (i32, i32), size: i32, colour: &RGBColor) -> Drawn {
    let style = (FONT, size).into_font().color(colour);
    area.draw(&Text::new(text.to_owned(), at, style))?;
    Ok(())
}

fn one(area: &Area<'_>, panel: &Panel, answers: &Answers, span: (f64, f64)) -> Drawn {
    if panel.kind == Kind::Row {
        return write(area, &panel.title, (4, 6), 17, &INK);
    }
    let (width, height) = area.dim_in_pixel();
    let (right, below) = (i32::try_from(width)? - 3, i32::try_from(height)? - 3);
    area.draw(&Rectangle::new([(2, 2), (right, below)], WHITE.filled()))?;
    write(area, &panel.title, (10, 8), 14, &INK)?;
    let of = |index| {
        answers
            .get(&(panel.id, index))
            .map_or(&[][..], Vec::as_slice)
    };
    let series: Vec<(String, &Series)> = panel
        .targets
        .iter()
        .enumerate()
        .flat_map(|(index, target)| of(index).iter().map(|s| (named(&target.legend, s), s)))
        .collect();
    match panel.kind {
        Kind::Stat => stat(area, panel, &series),
        Kind::Table => table(area, panel, &series, span.1),
        _ => lines(area, panel, &series, span),
    }
}

/// Grafana's `{{label}}` replaced.
fn named(legend: &str, series: &Series) -> String {
    series
        .labels
        .iter()
        .fold(legend.to_owned(), |text, (label, value)| {
            text.replace(&format!("{{{{{label}}}}}"), value)
        })
}

fn amount(value: f64, unit: &str) -> String {
    let days = 86_400.0;
    match unit {
        "s" if value >= 2.0 * days => format!("{:.0} days", value / days),
        "s" if value >= 1.0 || value == 0.0 => format!("{value:.0} s"),
        "s" if value >= 0.01 => format!("{:.0} ms", value * 1000.0),
        "s" => format!("{:.1} ms", value * 1000.0),
        "ops" => format!("{value:.1}/s"),
        _ if value.fract().abs() > 0.05 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

fn stat(area: &Area<'_>, panel: &Panel, series: &[(String, &Series)]) -> Drawn {
    let last = series
        .iter()
        .filter_map(|(_, s)| s.points.last())
        .next_back();
    let Some((_, value)) = last else {
        return Ok(());
    };
    let step = panel.steps.iter().rev().find(|(from, _)| value >= from);
    let colour = match step.map(|(_, name)| name.as_str()) {
        Some("green") => COLOURS[2],
        Some("orange") => COLOURS[1],
        Some("red") => COLOURS[3],
        _ => COLOURS[0],
    };
    write(area, &amount(*value, &panel.unit), (16, 48), 34, &colour)
}

fn table(area: &Area<'_>, panel: &Panel, series: &[(String, &Series)], now: f64) -> Drawn {
    // What is there at the end: a series that went has no point there.
    let present = series
        .iter()
        .filter(|(_, s)| s.points.last().is_some_and(|(at, _)| *at > now - 3.0));
    let rows: Vec<&BTreeMap<String, String>> = present.map(|(_, s)| &s.labels).collect();
    let columns: BTreeSet<&String> = rows.iter().flat_map(|labels| labels.keys()).collect();
    let columns: Vec<&String> = columns
        .into_iter()
        .filter(|c| !panel.hidden.contains(c))
        .collect();
    let (width, _) = area.dim_in_pixel();
    let step = i32::try_from(width)? / i32::try_from(columns.len().max(1))?;
    for (index, column) in columns.iter().enumerate() {
        let x = 12 + i32::try_from(index)? * step;
        write(area, column, (x, 34), 12, &FAINT)?;
        for (row, labels) in rows.iter().take(ROWS).enumerate() {
            let text = labels.get(*column).map_or("", String::as_str);
            write(area, text, (x, 54 + 19 * i32::try_from(row)?), 13, &INK)?;
        }
    }
    Ok(())
}

/// Points from the beginning on, one for each second; NaN is no point.
fn grid(series: &Series, span: (f64, f64)) -> Vec<Option<f64>> {
    let length = (span.1 - span.0).max(1.0) as usize + 1;
    let mut values = vec![None; length];
    for (at, value) in &series.points {
        let index = (at - span.0).round();
        if value.is_finite() && index >= 0.0 && (index as usize) < length {
            values[index as usize] = Some(*value);
        }
    }
    values
}

/// Steps instead of slopes, without the points that lie on a straight line.
fn steps(values: &[Option<f64>]) -> Vec<Vec<(f64, f64)>> {
    let mut runs: Vec<Vec<(f64, f64)>> = Vec::new();
    let mut before: Option<f64> = None;
    for (second, value) in values.iter().enumerate() {
        let x = second as f64;
        match (before, value) {
            (None, Some(value)) => runs.push(vec![(x, *value)]),
            (Some(old), Some(value)) => {
                if let Some(run) = runs.last_mut()
                    && (old - value).abs() > f64::EPSILON
                {
                    run.extend([(x, old), (x, *value)]);
                }
            }
            (Some(old), None) => runs
                .last_mut()
                .into_iter()
                .for_each(|run| run.push((x, old))),
            (None, None) => {}
        }
        before = *value;
    }
    if let (Some(last), Some(run)) = (before, runs.last_mut()) {
        run.push((values.len() as f64 - 1.0, last));
    }
    runs
}

fn lines(area: &Area<'_>, panel: &Panel, series: &[(String, &Series)], span: (f64, f64)) -> Drawn {
    let mut values: Vec<Vec<Option<f64>>> = series.iter().map(|(_, s)| grid(s, span)).collect();
    if panel.stacked {
        for index in 1..values.len() {
            let (below, this) = values.split_at_mut(index);
            for (value, base) in this[0].iter_mut().zip(&below[index - 1]) {
                let sum = value.unwrap_or(0.0) + base.unwrap_or(0.0);
                *value = value.or(*base).map(|_| sum);
            }
        }
    }
    let most = values
        .iter()
        .flatten()
        .flatten()
        .copied()
        .fold(0.0, f64::max);
    let top = if most > 0.0 { most * 1.12 } else { 1.0 };
    let (_, height) = area.dim_in_pixel();
    let chart_area = area.margin(30, 34, 8, 14);
    let mut chart = ChartBuilder::on(&chart_area)
        .set_label_area_size(LabelAreaPosition::Left, 52)
        .set_label_area_size(LabelAreaPosition::Bottom, 20)
        .build_cartesian_2d(0.0..(span.1 - span.0).max(1.0), 0.0..top)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(WHITE)
        .bold_line_style(PAPER)
        .axis_style(FAINT)
        .x_labels(5)
        .y_labels(5)
        .x_label_formatter(&|x| format!("{}:{:02}", *x as u64 / 60, *x as u64 % 60))
        .y_label_formatter(&|y| amount(*y, &panel.unit))
        .label_style((FONT, 11).into_font().color(&FAINT))
        .draw()?;
    // Stacked: the highest first, so that each covers what is below it.
    let order: Vec<usize> = if panel.stacked {
        (0..values.len()).rev().collect()
    } else {
        (0..values.len()).collect()
    };
    for index in order {
        let colour = COLOURS[index % COLOURS.len()];
        for run in steps(&values[index]) {
            if panel.stacked {
                let ends = [run.last(), run.first()].into_iter().flatten();
                let mut outline = run.clone();
                outline.extend(ends.map(|(x, _)| (*x, 0.0)));
                chart.draw_series([Polygon::new(outline, faded(colour).filled())])?;
            }
            chart.draw_series(LineSeries::new(run, colour.stroke_width(2)))?;
        }
    }
    legend(area, series, i32::try_from(height)? - 24)
}

/// The colour on white at a third of its strength.
fn faded(colour: RGBColor) -> RGBColor {
    let fade = |c: u8| 255 - (255 - c) / 3;
    RGBColor(fade(colour.0), fade(colour.1), fade(colour.2))
}

fn legend(area: &Area<'_>, series: &[(String, &Series)], y: i32) -> Drawn {
    let (width, _) = area.dim_in_pixel();
    let mut x = 14;
    for (index, (name, _)) in series.iter().enumerate() {
        let needed = 22 + i32::try_from(name.len())? * 7;
        if x + needed > i32::try_from(width)? {
            return write(area, "...", (x, y), 12, &INK);
        }
        let colour = COLOURS[index % COLOURS.len()];
        area.draw(&Rectangle::new(
            [(x, y + 4), (x + 10, y + 10)],
            colour.filled(),
        ))?;
        write(area, name, (x + 14, y), 12, &INK)?;
        x += needed;
    }
    Ok(())
}
