//! CSV as in RFC 4180, with a header.
//!
//! Null is an empty field and an empty text is `""`. A text that a spreadsheet could take for a formula begins with `'`.

use std::borrow::Cow;
use std::io::{self, Write};

use super::buffer::Buffer;
use super::value::Value;
use super::writer::{Shortened, TableWriter};

pub(super) struct CsvWriter<W> {
    buffer: Buffer<W>,
    is_row_start: bool,
}

impl<W: Write> CsvWriter<W> {
    pub fn new(columns: &[String], file: W) -> Self {
        let mut writer = Self { buffer: Buffer::new(file), is_row_start: true };
        for column in columns {
            writer.add(&Value::Text(Cow::Borrowed(column)));
        }
        writer.add_line_end();
        writer
    }

    fn add(&mut self, value: &Value<'_>) {
        let out = &mut self.buffer.bytes;
        if !std::mem::take(&mut self.is_row_start) {
            out.push(b',');
        }
        match value {
            Value::Text(text) => write_field(text, is_formula(text), out),
            Value::Json(text) => write_field(text, false, out),
            Value::Bytes(_) => {
                let start = out.len();
                value.write_text(out);
                // Base64 has this character of those that begin a formula.
                if out.get(start) == Some(&b'+') {
                    out.insert(start, b'\'');
                }
            }
            _ => value.write_text(out),
        }
    }

    fn add_line_end(&mut self) {
        self.buffer.bytes.extend_from_slice(b"\r\n");
        self.is_row_start = true;
    }
}

impl<W: Write> TableWriter for CsvWriter<W> {
    fn cell(&mut self, value: &Value<'_>) -> io::Result<()> {
        self.add(value);
        Ok(())
    }

    fn end_row(&mut self) -> io::Result<()> {
        self.add_line_end();
        self.buffer.flush_if_full()
    }

    fn finish(self: Box<Self>) -> io::Result<Shortened> {
        self.buffer.finish()?;
        Ok(Shortened::default())
    }
}

/// Whether a spreadsheet could take the text for a formula. The characters are those that OWASP names for CSV injection.
pub(super) fn is_formula(text: &str) -> bool {
    text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠'])
}

fn write_field(text: &str, is_formula: bool, out: &mut Vec<u8>) {
    let needs_quotes = |byte: u8| matches!(byte, b'"' | b',' | b'\r' | b'\n');
    let bytes = text.as_bytes();
    if !is_formula && !bytes.is_empty() && !bytes.iter().any(|byte| needs_quotes(*byte)) {
        return out.extend_from_slice(bytes);
    }
    out.push(b'"');
    if is_formula {
        out.push(b'\'');
    }
    let mut parts = text.split('"');
    out.extend_from_slice(parts.next().unwrap_or_default().as_bytes());
    for part in parts {
        out.extend_from_slice(b"\"\"");
        out.extend_from_slice(part.as_bytes());
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runners::export::decimal::Decimal;

    fn field(value: &Value<'_>) -> String {
        let mut out = Vec::new();
        let mut writer = Box::new(CsvWriter::new(&["a".to_owned()], &mut out));
        writer.cell(value).unwrap();
        writer.end_row().unwrap();
        writer.finish().unwrap();
        let text = String::from_utf8(out).unwrap();
        text.strip_prefix("a\r\n").unwrap().strip_suffix("\r\n").unwrap().to_owned()
    }

    #[test]
    fn null_and_an_empty_text_differ() {
        assert_eq!(field(&Value::Null), "");
        assert_eq!(field(&Value::Text("".into())), "\"\"");
    }

    #[test]
    fn fields_are_quoted_if_they_have_to_be() {
        for (text, expected) in [
            ("Hall 7", "Hall 7"),
            ("a,b", "\"a,b\""),
            ("two\nlines", "\"two\nlines\""),
            ("6\" pipe", "\"6\"\" pipe\""),
            ("\"", "\"\"\"\""),
            ("Grüße, 世界", "\"Grüße, 世界\""),
        ] {
            assert_eq!(field(&Value::Text(text.into())), expected);
        }
        assert_eq!(field(&Value::Json(r#"{"a":1}"#.into())), r#""{""a"":1}""#);
    }

    #[test]
    fn a_text_that_is_a_formula_is_neutralised_and_a_number_is_not() {
        for (text, expected) in [
            ("=1+1", "\"'=1+1\""),
            ("@SUM(A1)", "\"'@SUM(A1)\""),
            ("+49 30 1234", "\"'+49 30 1234\""),
            ("-", "\"'-\""),
            ("\t=1", "\"'\t=1\""),
            ("＝1", "\"'＝1\""),
            ("=\"x\"", "\"'=\"\"x\"\"\""),
            ("a=1", "a=1"),
        ] {
            assert_eq!(field(&Value::Text(text.into())), expected);
        }
        assert_eq!(field(&Value::Bytes(&[0xF8, 0])), "'+AA=");
        assert_eq!(field(&Value::Integer(-5)), "-5");
        assert_eq!(field(&Value::Decimal(Decimal::Text("-5.10"))), "-5.10");
    }
}
