use std::fmt::Write as _;
use std::io::Write as _;

/// A table in the output of a test, even if the test passes.
pub struct Table {
    title: String,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new(title: impl Into<String>, columns: &[&str]) -> Self {
        Self { title: title.into(), rows: vec![columns.iter().map(|&column| column.to_owned()).collect()] }
    }

    pub fn row<const N: usize>(&mut self, cells: [&dyn ToString; N]) {
        self.rows.push(cells.iter().map(|cell| cell.to_string()).collect());
    }

    pub fn print(&self) {
        let widths: Vec<usize> = (0..self.rows[0].len())
            .map(|column| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default())
            .collect();
        let mut text = format!("\n{}\n", self.title);
        for (number, row) in self.rows.iter().enumerate() {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
            let _ = writeln!(text, "| {} |", cells.collect::<Vec<_>>().join(" | "));
            if number == 0 {
                let rule: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
                let _ = writeln!(text, "| {} |", rule.join(" | "));
            }
        }
        // Not `eprintln!`, whose output the test harness hides when a test passes.
        let _ = std::io::stderr().lock().write_all(text.as_bytes());
    }
}
