//! Prints results as a table for people, or as one JSON object on each line for programs.

use std::io::{self, BufWriter, Stdout, StdoutLock, Write};

use clap::Args;
use oauth_dance_core::Timestamp;
use serde::Serializer as _;
use serde::ser::SerializeMap as _;
use serde_json::Value;

/// How results are printed.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct OutputArgs {
    /// Print one JSON object on each line instead of a table
    #[arg(long)]
    pub json: bool,
}

/// Prints rows page by page, so that the memory does not depend on their number.
pub(crate) struct Rows<W: Write = BufWriter<StdoutLock<'static>>> {
    columns: &'static [&'static str],
    widths: Vec<usize>,
    json: bool,
    out: W,
}

impl Rows {
    pub(crate) fn new(output: OutputArgs, columns: &'static [&'static str]) -> Self {
        Self::to(BufWriter::new(Stdout::lock(&io::stdout())), output, columns)
    }
}

impl<W: Write> Rows<W> {
    fn to(out: W, output: OutputArgs, columns: &'static [&'static str]) -> Self {
        Self { columns, widths: Vec::new(), json: output.json, out }
    }

    /// Prints a page of rows. The first page determines the widths of the columns, and later pages may increase them.
    pub(crate) fn print(&mut self, page: &[Vec<Value>]) -> io::Result<()> {
        if self.json {
            return page.iter().try_for_each(|row| self.object(row));
        }
        let texts: Vec<Vec<String>> = page.iter().map(|row| row.iter().map(text).collect()).collect();
        let is_first = self.widths.is_empty();
        if is_first {
            self.widths = self.columns.iter().map(|name| name.chars().count()).collect();
        }
        for row in &texts {
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = cell.chars().count().max(*width);
            }
        }
        if is_first {
            let names: Vec<_> = self.columns.iter().map(|name| (*name).replace('_', " ")).collect();
            self.line(&names)?;
        }
        texts.iter().try_for_each(|row| self.line(row))
    }

    /// Writes what was printed so far to the standard output.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// Ends the output. If there was no row, prints the names of the columns.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.print(&[])?;
        self.out.flush()
    }

    fn line(&mut self, cells: &[String]) -> io::Result<()> {
        let padded = cells.iter().zip(&self.widths).map(|(cell, width)| format!("{cell:width$}"));
        let line = padded.collect::<Vec<_>>().join("  ");
        writeln!(self.out, "{}", line.trim_end())
    }

    fn object(&mut self, row: &[Value]) -> io::Result<()> {
        let mut serializer = serde_json::Serializer::new(&mut self.out);
        let mut object = serializer.serialize_map(Some(row.len()))?;
        for (name, value) in self.columns.iter().zip(row) {
            object.serialize_entry(name, value)?;
        }
        object.end()?;
        writeln!(self.out)
    }
}

/// Prints one result: a line for each field, or one JSON object.
pub(crate) fn print_fields(output: OutputArgs, fields: &[(&str, Value)]) -> io::Result<()> {
    let mut out = BufWriter::new(Stdout::lock(&io::stdout()));
    if output.json {
        let mut serializer = serde_json::Serializer::new(&mut out);
        let mut object = serializer.serialize_map(Some(fields.len()))?;
        fields.iter().try_for_each(|(name, value)| object.serialize_entry(name, value))?;
        object.end()?;
        writeln!(out)?;
    } else {
        let width = fields.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
        for (name, value) in fields {
            writeln!(out, "{:width$}  {}", name.replace('_', " "), text(value))?;
        }
    }
    out.flush()
}

/// Prints an empty line between two results of [`print_fields`].
pub(crate) fn blank_line() -> io::Result<()> {
    writeln!(io::stdout().lock())
}

/// An instant in the format of RFC 3339, or null.
pub(crate) fn time(instant: Option<Timestamp>) -> Value {
    let text = |instant: Timestamp| {
        let since_epoch = std::time::Duration::from_secs(instant.as_unix_seconds());
        humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + since_epoch).to_string()
    };
    instant.map(text).into()
}

/// A value in a table. A name in a storage may contain any characters, so those that would control a terminal are
/// escaped.
fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::Bool(yes) => if *yes { "yes" } else { "no" }.to_owned(),
        Value::String(text) => visible(text),
        other => other.to_string(),
    }
}

/// Escapes control and format characters, such as those that change the direction of text.
pub(crate) fn visible(text: &str) -> String {
    text.chars().flat_map(|c| if c == '\'' || c == '"' { vec![c] } else { c.escape_debug().collect() }).collect()
}

/// An error and its causes, as the program prints them. A cause whose text is in the message already is left out.
pub fn on_one_line(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        if !line.contains(&text) {
            line = format!("{line}: {text}");
        }
        source = cause.source();
    }
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn printed(json: bool, pages: &[Vec<Vec<Value>>]) -> String {
        let mut out = Vec::new();
        let mut rows = Rows::to(&mut out, OutputArgs { json }, &["user", "key_id", "size"]);
        pages.iter().for_each(|page| rows.print(page).unwrap());
        rows.finish().unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn table_is_aligned_within_a_page() {
        let pages = [vec![vec![json!("alice"), json!(null), json!(7)]], vec![vec![json!("bo"), json!("k"), json!(10)]]];
        assert_eq!(printed(false, &pages), "user   key id  size\nalice  -       7\nbo     k       10\n");
    }

    #[test]
    fn column_names_are_printed_without_rows() {
        assert_eq!(printed(false, &[]), "user  key id  size\n");
        assert_eq!(printed(true, &[]), "");
    }

    #[test]
    fn json_is_one_object_a_line_in_order() {
        let page = vec![vec![json!("a\nb"), json!(null), json!(7)]; 2];
        let line = "{\"user\":\"a\\nb\",\"key_id\":null,\"size\":7}\n";
        assert_eq!(printed(true, &[page]), line.repeat(2));
    }

    #[test]
    fn names_cannot_control_a_terminal() {
        let page = vec![vec![json!("\u{1b}[2J\n\u{202e}évil'\""), json!(null), json!(1)]];
        let table = printed(false, &[page]);
        assert!(table.contains(r#"\u{1b}[2J\n\u{202e}évil'""#), "{table}");
    }
}
