//! Tables for a terminal: columns as wide as they must be, and colour where
//! it helps and may be used.

use std::io::IsTerminal;

use comfy_table::presets::NOTHING;
use comfy_table::{Attribute, Cell as Styled, Color, ContentArrangement};

/// How a cell is shown where colour may be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Tone {
    /// As it is.
    #[default]
    Plain,
    /// As it should be.
    Good,
    /// To keep an eye on.
    Watch,
    /// To act on.
    Bad,
    /// Beside the point.
    Dim,
}

/// A cell: its text, and its tone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    pub fn new(text: impl Into<String>, tone: Tone) -> Self {
        Self {
            text: text.into(),
            tone,
        }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::new(text, Tone::Plain)
    }
}

/// Lines up rows below their headings.
pub(super) fn table<const N: usize>(headings: [&str; N], rows: &[[String; N]]) -> String {
    let rows = rows.iter().map(|row| row.iter().cloned());
    draw(&headings, rows, false)
}

/// The same, of cells that may have a colour.
pub(super) fn draw<C, R>(
    headings: &[&str],
    rows: impl IntoIterator<Item = R>,
    coloured: bool,
) -> String
where
    C: Into<Cell>,
    R: IntoIterator<Item = C>,
{
    draw_within(None, headings, rows, coloured)
}

/// The same, with sentences broken to fit a width.
pub(super) fn draw_within<C, R>(
    width: Option<u16>,
    headings: &[&str],
    rows: impl IntoIterator<Item = R>,
    coloured: bool,
) -> String
where
    C: Into<Cell>,
    R: IntoIterator<Item = C>,
{
    let mut table = comfy_table::Table::new();
    table
        .load_style(NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .force_no_tty()
        .style_text_only();
    if let Some(width) = width {
        table
            .set_content_arrangement(ContentArrangement::Dynamic)
            .set_width(width);
    }
    if coloured {
        table.enforce_styling();
    }
    let heading = |text: &&str| Styled::new(text).add_attribute(Attribute::Bold);
    table.set_header(headings.iter().map(heading).collect::<Vec<_>>());
    for row in rows {
        let cells = row.into_iter().map(|cell| styled(cell.into()));
        table.add_row(cells.collect::<Vec<_>>());
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let lines: Vec<String> = table.lines().map(|l| l.trim_end().to_owned()).collect();
    lines.join("\n") + "\n"
}

fn styled(cell: Cell) -> Styled {
    let styled = Styled::new_owned(cell.text);
    match cell.tone {
        Tone::Plain => styled,
        Tone::Good => styled.fg(Color::Green),
        Tone::Watch => styled.fg(Color::Yellow),
        Tone::Bad => styled.fg(Color::Red),
        Tone::Dim => styled.add_attribute(Attribute::Dim),
    }
}

/// The width of the terminal that standard output is, if it is one.
pub(super) fn width() -> Option<u16> {
    let is_terminal = std::io::stdout().is_terminal();
    let size = crossterm::terminal::size().ok().filter(|_| is_terminal)?;
    // Narrower than this nothing can be read.
    Some(size.0.max(100))
}

/// Whether standard output takes colour: a terminal, and nobody said NO_COLOR.
pub(super) fn takes_colour() -> bool {
    anstream::AutoStream::choice(&std::io::stdout()) != anstream::ColorChoice::Never
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [
            ["a".to_owned(), "1".to_owned()],
            ["long".to_owned(), String::new()],
        ];
        assert_eq!(table(["X", "Y"], &rows), "X     Y\na     1\nlong\n");
    }

    #[test]
    fn sentences_are_broken_to_fit() {
        let rows = || [["a", "many words that do not fit on one line of this width"]];
        let text = draw_within(Some(30), &["X", "SENTENCE"], rows(), false);
        assert!(text.lines().count() > 2, "{text}");
        assert!(text.lines().all(|l| l.chars().count() <= 30), "{text}");
        assert_eq!(draw(&["X", "SENTENCE"], rows(), false).lines().count(), 2);
    }

    #[test]
    fn colour_takes_no_room() {
        let rows = || [[Cell::new("bad", Tone::Bad), "1".into()]];
        let plain = draw(&["LONG", "Y"], rows(), false);
        assert_eq!(plain, "LONG  Y\nbad   1\n");
        let coloured = draw(&["LONG", "Y"], rows(), true);
        assert!(coloured.contains("\u{1b}["), "{coloured:?}");
        assert_eq!(anstream::adapter::strip_str(&coloured).to_string(), plain);
    }
}
