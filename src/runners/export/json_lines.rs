//! JSON Lines: an object per row, with the columns in their order.
//!
//! Decimals are texts, because most readers of JSON round numbers to 64-bit floats.

use std::io::{self, Write};

use super::buffer::Buffer;
use super::value::Value;
use super::writer::{Shortened, TableWriter};

pub(super) struct JsonLinesWriter<W> {
    buffer: Buffer<W>,
    /// What precedes each value: `{"first":`, `,"second":`.
    names: Vec<Box<[u8]>>,
    column: usize,
}

impl<W: Write> JsonLinesWriter<W> {
    pub fn new(columns: &[String], file: W) -> Self {
        let name = |(index, column): (usize, &String)| {
            let mut name = vec![if index == 0 { b'{' } else { b',' }];
            write_text(column, &mut name);
            name.push(b':');
            name.into_boxed_slice()
        };
        Self { buffer: Buffer::new(file), names: columns.iter().enumerate().map(name).collect(), column: 0 }
    }
}

impl<W: Write> TableWriter for JsonLinesWriter<W> {
    fn cell(&mut self, value: &Value<'_>) -> io::Result<()> {
        let out = &mut self.buffer.bytes;
        out.extend_from_slice(&self.names[self.column]);
        self.column += 1;
        match value {
            Value::Null => out.extend_from_slice(b"null"),
            Value::Text(text) => write_text(text, out),
            Value::Bool(_) | Value::Integer(_) | Value::Json(_) => value.write_text(out),
            Value::Float(number) if number.is_finite() => value.write_text(out),
            _ => {
                out.push(b'"');
                value.write_text(out);
                out.push(b'"');
            }
        }
        Ok(())
    }

    fn end_row(&mut self) -> io::Result<()> {
        self.column = 0;
        self.buffer.bytes.extend_from_slice(b"}\n");
        self.buffer.flush_if_full()
    }

    fn finish(self: Box<Self>) -> io::Result<Shortened> {
        self.buffer.finish()?;
        Ok(Shortened::default())
    }
}

fn write_text(text: &str, out: &mut Vec<u8>) {
    serde_json::to_writer(out, text).expect("a vector takes all bytes");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runners::export::decimal::Decimal;

    #[test]
    fn a_row_is_an_object_on_one_line() {
        let columns = ["id", "a \"b\"", "price", "ratio", "day", "note", "tags", "raw", "none"].map(String::from);
        let mut out = Vec::new();
        let mut writer = Box::new(JsonLinesWriter::new(&columns, &mut out));
        let values = [
            Value::Integer(i64::MAX),
            Value::Bool(true),
            Value::Decimal(Decimal::Text("0.10")),
            Value::Float(f64::NAN),
            Value::Date(0),
            Value::Text("=1\n\u{1}\"世".into()),
            Value::Json("[1, null]".into()),
            Value::Bytes(b"a"),
            Value::Null,
        ];
        for value in &values {
            writer.cell(value).unwrap();
        }
        writer.end_row().unwrap();
        writer.finish().unwrap();
        let expected = "{\"id\":9223372036854775807,\"a \\\"b\\\"\":true,\"price\":\"0.10\",\"ratio\":\"NaN\",\
                        \"day\":\"1970-01-01\",\"note\":\"=1\\n\\u0001\\\"世\",\"tags\":[1, null],\"raw\":\"YQ==\",\"none\":null}\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
