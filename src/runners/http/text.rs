//! Templates of URLs and header values, and what becomes of them for an attempt.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::options::OptionsError;
use super::secret_file::SecretFile;
use crate::model::{Part, Template, template::has_dot_segment};

/// All but the unreserved characters of RFC 3986.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The values of placeholders that differ between attempts.
pub(super) struct Values {
    pub(super) task: String,
    pub(super) attempt: u32,
    pub(super) args: Box<[Box<str>]>,
}

/// Why there is no text.
#[derive(Debug)]
pub(super) enum TextError {
    /// The task can never be run.
    Invalid(String),
    /// A secret cannot be read at present.
    Unreadable(String),
}

/// The files of a handler, each read once.
#[derive(Default)]
pub(super) struct Files(BTreeMap<PathBuf, Arc<SecretFile>>);

/// A template with its environment variables and files resolved.
pub(super) struct Text {
    pieces: Box<[Piece]>,
    pub(super) args: usize,
}

enum Piece {
    Fixed(Box<str>),
    TaskId,
    Attempt,
    Arg(usize),
    File(Arc<SecretFile>),
}

impl Text {
    pub(super) fn new(template: &Template, files: &mut Files) -> Result<Self, OptionsError> {
        let piece = |part: &Part| {
            Ok(match part {
                Part::Text(text) => Piece::Fixed(text.clone()),
                Part::TaskId => Piece::TaskId,
                Part::Attempt => Piece::Attempt,
                Part::Arg(index) => Piece::Arg(*index),
                Part::Env(name) => match std::env::var(&**name) {
                    Ok(value) => Piece::Fixed(value.trim().into()),
                    Err(_) => return Err(OptionsError::NoVariable(name.clone())),
                },
                Part::File(path) => Piece::File(files.open(path)?),
            })
        };
        Ok(Self { args: template.args(), pieces: template.parts.iter().map(piece).collect::<Result<_, _>>()? })
    }

    /// The value of a header.
    pub(super) async fn header(&self, values: &Values) -> Result<String, TextError> {
        let mut text = String::new();
        for piece in &self.pieces {
            self.add(piece, values, &mut text, String::push_str).await?;
        }
        Ok(text)
    }

    /// Path and query of a URL, always with a path.
    pub(super) async fn target(&self, values: &Values) -> Result<String, TextError> {
        let mut text = String::new();
        for piece in &self.pieces {
            if let Some(value) = piece.of_task(values) {
                check_url_value(value)?;
            }
            self.add(piece, values, &mut text, |text, value| text.extend(utf8_percent_encode(value, ENCODED))).await?;
        }
        if !text.starts_with('/') {
            text.insert(0, '/');
        }
        if has_dot_segment(text.split('?').next().unwrap_or_default()) {
            return Err(TextError::Invalid("a segment of the URL's path is . or ..".to_owned()));
        }
        Ok(text)
    }

    async fn add(
        &self,
        piece: &Piece,
        values: &Values,
        text: &mut String,
        add_value: impl Fn(&mut String, &str),
    ) -> Result<(), TextError> {
        match piece {
            Piece::Fixed(fixed) => text.push_str(fixed),
            Piece::Attempt => text.push_str(&values.attempt.to_string()),
            Piece::TaskId | Piece::Arg(_) => match piece.of_task(values) {
                Some(value) => add_value(text, value),
                None => return Err(TextError::Invalid(format!("`args` has {} values", values.args.len()))),
            },
            Piece::File(file) => match file.content().await {
                Ok(content) => text.push_str(&content),
                Err(error) => {
                    return Err(TextError::Unreadable(format!("failed to read `{}`: {error}", file.path().display())));
                }
            },
        }
        Ok(())
    }
}

impl Piece {
    /// A text that the submitter chose.
    fn of_task<'v>(&self, values: &'v Values) -> Option<&'v str> {
        match self {
            Self::TaskId => Some(&values.task),
            Self::Arg(index) => values.args.get(*index).map(|arg| &**arg),
            _ => None,
        }
    }
}

impl Files {
    fn open(&mut self, path: &PathBuf) -> Result<Arc<SecretFile>, OptionsError> {
        if let Some(file) = self.0.get(path) {
            return Ok(Arc::clone(file));
        }
        let file = Arc::new(SecretFile::open(path.clone())?);
        self.0.insert(path.clone(), Arc::clone(&file));
        Ok(file)
    }
}

/// A value must stay a segment of its own also for a service that decodes a path before it resolves it. An empty one
/// would make another URL.
fn check_url_value(value: &str) -> Result<(), TextError> {
    let refused = if value.is_empty() {
        "is empty"
    } else if value.contains(char::is_control) {
        "has a control character"
    } else if has_dot_segment(value) {
        "has a segment . or .."
    } else {
        return Ok(());
    };
    Err(TextError::Invalid(format!("a value for the URL {refused}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::UrlTemplate;

    fn values(task: &str, args: &[&str]) -> Values {
        Values { task: task.to_owned(), attempt: 2, args: args.iter().map(|arg| (*arg).into()).collect() }
    }

    async fn target(url: &str, values: &Values) -> Result<String, TextError> {
        let url = UrlTemplate::parse(url).unwrap();
        Text::new(&url.target, &mut Files::default()).unwrap().target(values).await
    }

    #[tokio::test]
    async fn values_are_encoded_in_urls_and_stay_in_their_segment() {
        let two = values("ns/t", &["a b&c=ä#?", "x.y~"]);
        let found = target("https://h/{args[1]}/{task_id}/{attempt}?q={args[0]}", &two).await.unwrap();
        assert_eq!(found, "/x.y~/ns%2Ft/2?q=a%20b%26c%3D%C3%A4%23%3F");
        assert_eq!(target("https://h", &values("t", &[])).await.unwrap(), "/");
        assert_eq!(target("https://h?a={task_id}", &values("t", &[])).await.unwrap(), "/?a=t");
    }

    #[tokio::test]
    async fn a_value_cannot_change_the_path() {
        for arg in ["", ".", "..", "../admin", r"a\..\b", "a/../b", "%2e%2e", "a/./b", "a\nb", "a\0b"] {
            let found = target("https://h/users/{args[0]}", &values("t", &[arg])).await;
            assert!(matches!(found, Err(TextError::Invalid(_))), "{arg:?}: {found:?}");
        }
        for arg in ["//evil.example/", "@evil.example", ":80", "?a", "#a", "%2f", "..."] {
            let found = target("https://h/users/{args[0]}", &values("t", &[arg])).await.unwrap();
            let segment = found.strip_prefix("/users/").unwrap();
            assert!(!segment.contains(['/', '@', ':', '?', '#']), "{arg:?}: {found}");
        }
        let joined = target("https://h/a/.{args[0]}/b", &values("t", &["."])).await;
        assert!(matches!(joined, Err(TextError::Invalid(_))), "{joined:?}");
        let missing = target("https://h/{args[1]}", &values("t", &["a"])).await;
        assert!(matches!(missing, Err(TextError::Invalid(_))), "{missing:?}");
    }

    #[tokio::test]
    async fn secrets_come_from_the_environment_and_from_files_that_are_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        std::fs::write(&path, "first\n").unwrap();
        let template = Template::parse(&format!("{{env:PATH}} {{file:{}}}", path.display())).unwrap();
        let text = Text::new(&template, &mut Files::default()).unwrap();
        let (none, path_variable) = (values("t", &[]), std::env::var("PATH").unwrap());
        assert_eq!(text.header(&none).await.unwrap(), format!("{path_variable} first"));
        std::fs::write(&path, "second\n").unwrap();
        tokio::time::pause();
        tokio::time::advance(std::time::Duration::from_secs(2)).await;
        assert_eq!(text.header(&none).await.unwrap(), format!("{path_variable} second"));
        std::fs::remove_file(&path).unwrap();
        tokio::time::advance(std::time::Duration::from_secs(2)).await;
        let error = text.header(&none).await.unwrap_err();
        assert!(matches!(&error, TextError::Unreadable(text) if text.contains("token")), "{error:?}");
        let missing = Template::parse("{env:NOT_SET_ANYWHERE}").unwrap();
        assert!(matches!(Text::new(&missing, &mut Files::default()), Err(OptionsError::NoVariable(_))));
        let missing = Template::parse(&format!("{{file:{}}}", path.display())).unwrap();
        assert!(matches!(Text::new(&missing, &mut Files::default()), Err(OptionsError::Unreadable { .. })));
    }
}
