//! Reads the lines of the input in chunks that fit into one submission.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;

use tokio::sync::mpsc;

use crate::cli::error::CliError;
use crate::cli::task::check_json;
use crate::model::spec::JSON;
use crate::proto::v1::{self, payload::Kind};

/// Lines of a chunk.
const LINES_MAX: usize = 1_000;
/// Bytes of the lines of a chunk.
const BYTES_MAX: usize = 4 << 20;
/// Chunks that are read ahead.
const CHUNKS_AHEAD: usize = 2;

/// A line of the input, and what its task gets.
#[derive(Debug, PartialEq)]
pub struct Line {
    /// From 1 on.
    pub number: u64,
    pub payload: Option<v1::Payload>,
    pub arg: Option<String>,
}

/// Opens the input and reads it on a thread. The last chunk may be an error.
pub async fn read(
    path: Option<PathBuf>,
    json: bool,
    args: bool,
) -> Result<mpsc::Receiver<Result<Vec<Line>, CliError>>, CliError> {
    let input: Box<dyn Read + Send> = match path {
        Some(path) => {
            let failed = |error| CliError::Usage(format!("failed to read `{}`: {error}", path.display()));
            Box::new(tokio::fs::File::open(&path).await.map_err(failed)?.into_std().await)
        }
        None => Box::new(std::io::stdin()),
    };
    let (sender, chunks) = mpsc::channel(CHUNKS_AHEAD);
    // Not awaited: a read from a terminal may never end.
    drop(tokio::task::spawn_blocking(move || {
        let mut reader = Reader { input: BufReader::new(input), number: 0, json, args };
        loop {
            let chunk = reader.chunk();
            let is_last = chunk.as_ref().map_or(true, Vec::is_empty);
            if chunk.as_ref().is_ok_and(Vec::is_empty) || sender.blocking_send(chunk).is_err() || is_last {
                return;
            }
        }
    }));
    Ok(chunks)
}

struct Reader<R> {
    input: BufReader<R>,
    /// Lines read so far.
    number: u64,
    json: bool,
    args: bool,
}

impl<R: Read> Reader<R> {
    /// Empty at the end of the input.
    fn chunk(&mut self) -> Result<Vec<Line>, CliError> {
        let (mut lines, mut bytes) = (Vec::new(), 0);
        while lines.len() < LINES_MAX && bytes < BYTES_MAX {
            let mut data = Vec::new();
            let read = self.input.read_until(b'\n', &mut data);
            if read.map_err(|error| CliError::Usage(format!("failed to read the input: {error}")))? == 0 {
                break;
            }
            if data.last() == Some(&b'\n') {
                data.pop();
            }
            self.number += 1;
            bytes += data.len();
            lines.push(self.line(data)?);
            // A line that is typed, or comes from a slow program, is not kept waiting for others.
            if self.input.buffer().is_empty() {
                break;
            }
        }
        Ok(lines)
    }

    fn line(&self, data: Vec<u8>) -> Result<Line, CliError> {
        let number = self.number;
        let text =
            |data: Vec<u8>| String::from_utf8(data).map_err(|_| CliError::Usage(format!("line {number} is not UTF-8")));
        if self.args {
            return Ok(Line { number, payload: None, arg: Some(text(data)?) });
        }
        let mut content_type = String::new();
        let mut kind = Kind::Data(data.into());
        if let (true, Kind::Data(data)) = (self.json, &mut kind) {
            let json = text(data.to_vec())?;
            check_json(&json).map_err(|error| CliError::Usage(format!("line {number} is not JSON: {error}")))?;
            JSON.clone_into(&mut content_type);
        }
        Ok(Line { number, payload: Some(v1::Payload { kind: Some(kind), content_type }), arg: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(text: &str, json: bool, args: bool) -> Reader<&[u8]> {
        Reader { input: BufReader::new(text.as_bytes()), number: 0, json, args }
    }

    #[test]
    fn every_line_is_a_payload_or_an_argument() {
        let lines = reader("a\n\nb", false, false).chunk().unwrap();
        let payload = |line: &Line| match line.payload.clone().unwrap().kind.unwrap() {
            Kind::Data(data) => (line.number, data),
            Kind::Json(_) => panic!("not bytes"),
        };
        let found: Vec<_> = lines.iter().map(payload).collect();
        assert_eq!(found, [(1, "a".into()), (2, "".into()), (3, "b".into())]);
        let lines = reader("-v\n", false, true).chunk().unwrap();
        assert_eq!(lines, [Line { number: 1, payload: None, arg: Some("-v".to_owned()) }]);
        assert_eq!(reader("", false, false).chunk().unwrap(), []);
    }

    #[test]
    fn a_line_that_is_not_json_is_named() {
        let error = reader("1\n{\n", true, false).chunk().unwrap_err();
        assert!(matches!(&error, CliError::Usage(text) if text.starts_with("line 2 is not JSON")), "{error:?}");
    }

    #[test]
    fn a_chunk_is_limited() {
        let text = "x\n".repeat(2_500);
        let mut reader = reader(&text, false, false);
        let counts: Vec<_> = std::iter::from_fn(|| Some(reader.chunk().unwrap().len()).filter(|n| *n > 0)).collect();
        assert_eq!(counts, [1_000, 1_000, 500]);
    }
}
