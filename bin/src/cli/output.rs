//! Rows for people, programs, and spreadsheets.

use super::args::Format;
use serde_json::{Map, Value};
use std::io::{self, Write};

/// Characters of a cell in a table; longer ones are cut there, and only there.
const CELL_CHARS_MAX: usize = 60;

/// Rows under headings.
pub(crate) struct Rows {
    headings: &'static [&'static str],
    rows: Vec<Vec<Value>>,
}

impl Rows {
    pub(crate) fn new(headings: &'static [&'static str]) -> Self {
        Self { headings, rows: Vec::new() }
    }

    /// Adds a row with one value per heading.
    pub(crate) fn push(&mut self, row: Vec<Value>) {
        debug_assert_eq!(row.len(), self.headings.len());
        self.rows.push(row);
    }

    /// As objects named by the headings.
    pub(crate) fn into_objects(self) -> Vec<Value> {
        let headings = self.headings;
        let object = |row: Vec<Value>| {
            let fields = headings.iter().map(|heading| (*heading).to_owned()).zip(row);
            Value::Object(fields.collect::<Map<_, _>>())
        };
        self.rows.into_iter().map(object).collect()
    }

    /// Prints them; JSON as one array.
    pub(crate) fn print(self, format: Format, out: &mut dyn Write) -> io::Result<()> {
        match format {
            Format::Table => self.print_table(out),
            Format::Csv => self.print_csv(true, out),
            Format::Json => print_json(&Value::Array(self.into_objects()), out),
        }
    }

    pub(crate) fn print_table(self, out: &mut dyn Write) -> io::Result<()> {
        let mut table = comfy_table::Table::new();
        table.load_preset(comfy_table::presets::NOTHING);
        table.set_header(self.headings.iter().map(|heading| heading.to_uppercase()));
        for row in self.rows {
            table.add_row(row.iter().map(|value| cut(&text(value))));
        }
        for line in table.lines() {
            writeln!(out, "{}", line.trim_end().strip_prefix(' ').unwrap_or(line.trim_end()))?;
        }
        Ok(())
    }

    pub(crate) fn print_csv(self, with_headings: bool, out: &mut dyn Write) -> io::Result<()> {
        if with_headings {
            writeln!(out, "{}", self.headings.join(","))?;
        }
        for row in self.rows {
            let cells: Vec<_> = row.iter().map(|value| quoted(&text(value))).collect();
            writeln!(out, "{}", cells.join(","))?;
        }
        Ok(())
    }
}

/// Prints one JSON value, indented.
pub(crate) fn print_json(value: &Value, out: &mut dyn Write) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value)?;
    writeln!(out)
}

/// Prints the fields of one thing: in a table one per line, else as an object or a row.
pub(crate) fn print_fields(
    headings: &'static [&'static str],
    fields: Vec<Value>,
    format: Format,
    out: &mut dyn Write,
) -> io::Result<()> {
    match format {
        Format::Table => {
            for (heading, value) in headings.iter().zip(&fields) {
                writeln!(out, "{heading}: {}", text(value))?;
            }
            Ok(())
        }
        Format::Csv | Format::Json => {
            let mut rows = Rows::new(headings);
            rows.push(fields);
            match format {
                Format::Json => print_json(&rows.into_objects()[0], out),
                _ => rows.print_csv(true, out),
            }
        }
    }
}

/// A version as text: as a number it would lose digits in languages whose numbers are floating point. What a
/// transaction has written and not yet committed has none.
pub(crate) fn version(timestamp: trandb_client::Timestamp) -> Value {
    match timestamp {
        trandb_client::Timestamp::ZERO => Value::Null,
        timestamp => Value::String(timestamp.to_string()),
    }
}

/// Bytes as text if they are UTF-8, else escaped.
pub(crate) fn bytes(bytes: &[u8]) -> Value {
    Value::String(match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.escape_ascii().to_string(),
    })
}

/// Bytes in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes from hexadecimal.
pub(crate) fn unhex(text: &str) -> Result<bytes::Bytes, String> {
    let digits: Option<Vec<u8>> = text.chars().map(|c| c.to_digit(16).map(|digit| digit as u8)).collect();
    match digits {
        Some(digits) if digits.len() % 2 == 0 => {
            Ok(digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect::<Vec<u8>>().into())
        }
        _ => Err("not an even number of hexadecimal digits".to_owned()),
    }
}

/// A value in a cell.
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(text).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    }
}

/// On one line, and not longer than a cell. Control characters would let a value write to the terminal.
fn cut(text: &str) -> String {
    let mut cell = String::new();
    for (count, c) in text.chars().enumerate() {
        if count == CELL_CHARS_MAX {
            cell.push('…');
            break;
        }
        if c.is_control() {
            cell.extend(c.escape_default());
        } else {
            cell.push(c);
        }
    }
    cell
}

fn quoted(text: &str) -> String {
    match text.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn print(format: Format) -> String {
        let mut rows = Rows::new(&["key", "value"]);
        rows.push(vec![json!("a"), json!("x, \"y\"\nz\u{1b}[31m")]);
        rows.push(vec![json!("long"), json!("l".repeat(70))]);
        let mut out = Vec::new();
        rows.print(format, &mut out).expect("memory");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn tables_are_cut_and_keep_control_characters_from_the_terminal() {
        let expected = format!("KEY   VALUE\na     x, \"y\"\\nz\\u{{1b}}[31m\nlong  {}…\n", "l".repeat(60));
        assert_eq!(print(Format::Table), expected);
    }

    #[test]
    fn csv_is_quoted_where_it_must_be() {
        let expected = format!("key,value\na,\"x, \"\"y\"\"\nz\u{1b}[31m\"\nlong,{}\n", "l".repeat(70));
        assert_eq!(print(Format::Csv), expected);
    }

    #[test]
    fn json_is_complete() {
        let value: Value = serde_json::from_str(&print(Format::Json)).expect("is JSON");
        assert_eq!(value[1]["value"], json!("l".repeat(70)));
    }

    #[test]
    fn hexadecimal_there_and_back() {
        assert_eq!(
            unhex(&hex(b"\x00\xffab")).expect("even"),
            "\x00\u{ff}ab".chars().map(|c| c as u8).collect::<Vec<_>>()
        );
        assert!(unhex("abc").is_err() && unhex("zz").is_err());
    }
}
