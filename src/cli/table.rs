//! Plain tables as kubectl prints them: columns of even width, no lines.

use super::output::printable;

/// Space between columns.
const GAP: &str = "   ";

/// Indent of what follows the first line of a cell.
const CONTINUATION: &str = "    ";

/// A table with one heading per column.
#[derive(Debug)]
pub struct Table<const COLUMNS: usize> {
    rows: Vec<Row<COLUMNS>>,
}

#[derive(Debug)]
struct Row<const COLUMNS: usize> {
    cells: [String; COLUMNS],
    /// Lines below the row.
    below: Vec<String>,
}

impl<const COLUMNS: usize> Table<COLUMNS> {
    /// An empty table.
    pub fn new(headings: [&str; COLUMNS]) -> Self {
        Self {
            rows: vec![Row {
                cells: headings.map(str::to_owned),
                below: Vec::new(),
            }],
        }
    }

    /// Adds a row. Of a cell with several lines the first stands in the table, the others below the row.
    pub fn row(&mut self, cells: [String; COLUMNS]) {
        self.row_with(cells, []);
    }

    /// Adds a row with lines below it.
    pub fn row_with(&mut self, cells: [String; COLUMNS], lines: impl IntoIterator<Item = String>) {
        let mut below = Vec::new();
        let cells = cells.map(|cell| {
            let cell = printable(&cell);
            let mut lines = cell.lines();
            let first = lines.next().unwrap_or_default().to_owned();
            below.extend(lines.map(str::to_owned));
            if first.is_empty() { "-".to_owned() } else { first }
        });
        for line in lines {
            below.extend(printable(&line).lines().map(str::to_owned));
        }
        self.rows.push(Row { cells, below });
    }

    /// The table as text, if there is a row below the headings.
    pub fn render_unless_empty(&self) -> Option<String> {
        (self.rows.len() > 1).then(|| self.render())
    }

    /// The table as text; each line ends with a line break.
    pub fn render(&self) -> String {
        let mut widths = [0; COLUMNS];
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(&row.cells) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let mut text = String::new();
        for row in &self.rows {
            let line: Vec<String> = row
                .cells
                .iter()
                .zip(widths)
                .map(|(cell, width)| format!("{cell:width$}"))
                .collect();
            text.push_str(line.join(GAP).trim_end());
            text.push('\n');
            for line in &row.below {
                text.push_str(format!("{CONTINUATION}{line}").trim_end());
                text.push('\n');
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_even_and_further_lines_stand_below() {
        let mut table = Table::new(["NAME", "MESSAGE"]);
        table.row(["a".to_owned(), "one\n  two\n\nthree".to_owned()]);
        table.row_with(["longer-name".to_owned(), String::new()], ["note: ü".to_owned()]);
        assert_eq!(
            table.render(),
            "NAME          MESSAGE\na             one\n      two\n\n    three\nlonger-name   -\n    note: ü\n"
        );
    }
}
