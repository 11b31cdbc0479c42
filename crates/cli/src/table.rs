//! Plain text tables: columns as wide as they must be, numbers to the right.

/// A table under construction.
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
    right: Vec<bool>,
}

impl Table {
    /// A table with these headings; those that begin with `>` are set to the right.
    pub(crate) fn new(headings: &[&str]) -> Self {
        let right = headings.iter().map(|h| h.starts_with('>')).collect();
        let heading = headings.iter().map(|h| h.trim_start_matches('>').to_owned()).collect();
        Self { rows: vec![heading], right }
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// The text, without a line break at its end.
    pub(crate) fn text(&self) -> String {
        let width = |c: usize| self.rows.iter().filter_map(|r| r.get(c)).map(|s| s.chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.right.len()).map(width).collect();
        let cell = |(c, text): (usize, &String)| {
            let w = widths[c];
            if self.right[c] { format!("{text:>w$}") } else { format!("{text:<w$}") }
        };
        let line =
            |row: &Vec<String>| row.iter().enumerate().map(cell).collect::<Vec<_>>().join("  ").trim_end().into();
        let mut lines: Vec<String> = self.rows.iter().map(line).collect();
        lines.insert(1, "-".repeat(widths.iter().sum::<usize>() + 2 * widths.len().saturating_sub(1)));
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut t = Table::new(&["layer", ">bytes"]);
        t.row(vec!["a".into(), "10".into()]);
        t.row(vec!["dense".into(), "1000000".into()]);
        assert_eq!(t.text(), "layer    bytes\n--------------\na           10\ndense  1000000");
    }
}
