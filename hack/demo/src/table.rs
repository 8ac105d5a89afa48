//! A plain table for a terminal.

use std::fmt::Write;

/// Columns as wide as their widest cell, two spaces apart.
pub fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    let mut widths = head.map(str::len);
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.len());
        }
    }
    let mut text = String::new();
    let mut line = |cells: [&str; N]| {
        let mut row = String::new();
        for (cell, width) in cells.iter().zip(widths) {
            // Writing to a String does not fail.
            let _ = write!(row, "{cell:<width$}  ");
        }
        text.push_str("          ");
        text.push_str(row.trim_end());
        text.push('\n');
    };
    line(head);
    for row in rows {
        line(row.each_ref().map(String::as_str));
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn columns_line_up() {
        let text = super::table(["A", "B"], &[["long".to_owned(), "x".to_owned()]]);
        assert_eq!(text, "          A     B\n          long  x\n");
    }
}
