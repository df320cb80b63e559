//! Plain aligned tables for terminals.

/// A cell; numbers stand to the right, texts to the left.
#[derive(Clone, Debug)]
pub enum Cell {
    /// A text.
    Text(String),
    /// A number, with its unit if it has one.
    Number(String),
}

impl Cell {
    /// A text cell.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// A number cell.
    pub fn number(number: &impl ToString) -> Self {
        Self::Number(number.to_string())
    }

    fn content(&self) -> &str {
        match self {
            Self::Text(content) | Self::Number(content) => content,
        }
    }

    fn width(&self) -> usize {
        self.content().chars().count()
    }
}

/// Renders a header and rows, each line with its end. Rows may be shorter than the header.
pub fn render(header: &[&str], rows: &[Vec<Cell>]) -> String {
    let widths: Vec<usize> = header
        .iter()
        .enumerate()
        .map(|(column, title)| {
            let cells = rows.iter().filter_map(|row| row.get(column)).map(Cell::width);
            cells.chain([title.chars().count()]).max().unwrap_or(0)
        })
        .collect();
    // A heading stands like the cells below it.
    let titles = header.iter().enumerate().map(|(column, title)| {
        let numeric = rows
            .iter()
            .filter_map(|row| row.get(column))
            .any(|cell| matches!(cell, Cell::Number(_)));
        if numeric {
            Cell::number(title)
        } else {
            Cell::text(*title)
        }
    });
    let mut text = line(&titles.collect::<Vec<_>>(), &widths);
    for row in rows {
        text.push_str(&line(row, &widths));
    }
    text
}

fn line(cells: &[Cell], widths: &[usize]) -> String {
    let padded = cells.iter().zip(widths).map(|(cell, width)| match cell {
        Cell::Text(text) => format!("{text:<width$}"),
        Cell::Number(number) => format!("{number:>width$}"),
    });
    let mut line = padded.collect::<Vec<_>>().join("  ");
    line.truncate(line.trim_end().len());
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aligns_by_kind_and_by_characters_not_bytes() {
        let rows = vec![
            vec![Cell::text("é"), Cell::number(&7)],
            vec![Cell::text("long name"), Cell::number(&1234)],
        ];
        assert_eq!(
            render(&["pod", "n"], &rows),
            "pod           n\né             7\nlong name  1234\n"
        );
    }
}
