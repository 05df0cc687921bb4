//! Texts with placeholders that operators write in the configuration: URLs and header values of HTTP handlers.

use std::fmt;
use std::path::PathBuf;

use hyper::Uri;

use super::limits::ARGS_MAX;
use super::secret::MASK;

const PLACEHOLDERS: &str = "{task_id}, {attempt}, {args[N]}, {env:NAME} and {file:PATH}";

/// A text with placeholders. It may contain secrets, so it has no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Template {
    pub parts: Box<[Part]>,
}

/// A piece of a [`Template`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    Text(Box<str>),
    TaskId,
    /// The number of the attempt.
    Attempt,
    /// An argument of the task.
    Arg(usize),
    /// A variable of the server's environment.
    Env(Box<str>),
    /// The content of a file.
    File(PathBuf),
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

impl Template {
    /// `{{` and `}}` stand for braces. The errors do not contain the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let (mut plain, mut rest) = (String::new(), text);
        while let Some(at) = rest.find(['{', '}']) {
            plain.push_str(&rest[..at]);
            let brace = &rest[at..=at];
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix(brace) {
                plain.push_str(brace);
                rest = after;
                continue;
            }
            if brace == "}" {
                return Err("has a } without a {; write }} for the character itself".to_owned());
            }
            let (name, after) = rest.split_once('}').ok_or("has a { without a }; write {{ for the character itself")?;
            if !plain.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut plain).into()));
            }
            parts.push(Part::parse(name)?);
            rest = after;
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            parts.push(Part::Text(plain.into()));
        }
        Ok(Self { parts: parts.into() })
    }

    /// The number of arguments that it needs.
    pub fn args(&self) -> usize {
        let needed = self.parts.iter().map(|part| if let Part::Arg(index) = part { index + 1 } else { 0 });
        needed.max().unwrap_or(0)
    }

    /// The text with another for each placeholder.
    fn filled(&self, value: &str) -> String {
        self.parts.iter().map(|part| if let Part::Text(text) = part { text } else { value }).collect()
    }
}

impl Part {
    fn parse(name: &str) -> Result<Self, String> {
        let index = name.strip_prefix("args[").and_then(|rest| rest.strip_suffix(']'));
        match (name, index, name.split_once(':')) {
            ("task_id", ..) => Ok(Self::TaskId),
            ("attempt", ..) => Ok(Self::Attempt),
            (_, Some(index), _) => match index.parse() {
                Ok(index) if index < ARGS_MAX => Ok(Self::Arg(index)),
                _ => Err(format!("has {{args[N]}} with an N that is not 0 to {}", ARGS_MAX - 1)),
            },
            (_, _, Some(("env", name))) if !name.is_empty() && !name.contains('=') => Ok(Self::Env(name.into())),
            (_, _, Some(("file", path))) if !path.is_empty() => Ok(Self::File(path.into())),
            _ => Err(format!("has an unknown placeholder; the placeholders are {PLACEHOLDERS}")),
        }
    }
}

/// A URL with placeholders in its path and query only, so that they cannot change where a request goes.
#[derive(Clone, PartialEq, Eq)]
pub struct UrlTemplate {
    /// Scheme and authority, such as `https://example.com:8443`.
    origin: Box<str>,
    host: Box<str>,
    /// Path and query; empty, or begins with `/` or `?`.
    pub target: Template,
}

impl fmt::Debug for UrlTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:?}", self.origin, self.target)
    }
}

impl UrlTemplate {
    /// The errors do not contain the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text.split_once("://").ok_or("must begin with https:// or http://")?;
        if !matches!(scheme, "https" | "http") {
            return Err("must begin with https:// or http://".to_owned());
        }
        let authority = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
        if authority.contains(['{', '}']) {
            return Err("has a placeholder before its path; the host is fixed".to_owned());
        }
        if authority.contains('@') {
            return Err("has a user or password; set a header Authorization instead".to_owned());
        }
        if text.contains('#') {
            return Err("has a fragment (#), which is not sent; remove it".to_owned());
        }
        let target = Template::parse(&rest[authority.len()..])?;
        let origin = format!("{scheme}://{authority}");
        let sample: Uri = format!("{origin}{}", target.filled("x")).parse().map_err(|error| {
            format!("is not a URL: {error}; other characters than those of URLs are written as %XX")
        })?;
        let host = sample.host().filter(|host| !host.is_empty() && !host.contains('%')).ok_or("has no valid host")?;
        let is_complete = match sample.port_u16() {
            Some(port) => authority == format!("{host}:{port}"),
            None => authority == host,
        };
        if !is_complete {
            return Err("has a port that is not 0 to 65535".to_owned());
        }
        if has_dot_segment(sample.path()) {
            return Err("has a segment . or .. in its path; write the path without it".to_owned());
        }
        Ok(Self { host: host.into(), origin: origin.into(), target })
    }

    pub fn is_https(&self) -> bool {
        self.origin.starts_with("https:")
    }

    /// As in the URL: an IPv6 address has brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    pub fn origin(&self) -> &str {
        &self.origin
    }
}

/// Whether a segment of a path is `.` or `..`, plain or encoded: servers and proxies remove these together with other
/// segments.
pub fn has_dot_segment(path: &str) -> bool {
    path.split(['/', '\\']).any(|segment| {
        let bytes = segment.len();
        bytes <= 6 && matches!(&*segment.to_ascii_lowercase().replace("%2e", "."), "." | "..")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Part {
        Part::Text(text.into())
    }

    #[test]
    fn a_template_is_split_into_texts_and_placeholders() {
        let parse = |text| Template::parse(text).unwrap().parts.into_vec();
        assert_eq!(parse(""), []);
        assert_eq!(parse("plain"), [text("plain")]);
        assert_eq!(parse("{task_id}{attempt}"), [Part::TaskId, Part::Attempt]);
        assert_eq!(parse("a{args[3]}b"), [text("a"), Part::Arg(3), text("b")]);
        assert_eq!(parse("Bearer {env:TOKEN}"), [text("Bearer "), Part::Env("TOKEN".into())]);
        assert_eq!(parse("{file:/run/a:b}"), [Part::File("/run/a:b".into())]);
        assert_eq!(parse(r#"{{"id":"{task_id}"}}"#), [text(r#"{"id":""#), Part::TaskId, text(r#""}"#)]);
        assert_eq!(Template::parse("{args[0]}/{args[4]}").unwrap().args(), 5);
        assert_eq!(Template::parse("{task_id}").unwrap().args(), 0);
    }

    #[test]
    fn what_is_no_template_is_refused_without_showing_it() {
        for bad in
            ["{hunter2", "hunter2}", "{hunter2}", "{args[64]}", "{args[-1]}", "{args[]}", "{env:}", "{file:}", "{}"]
        {
            let error = Template::parse(bad).unwrap_err();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_url_keeps_its_host_apart_from_the_placeholders() {
        let url = UrlTemplate::parse("https://example.com:8443/a/{args[0]}?task={task_id}").unwrap();
        assert_eq!((url.origin(), url.host(), url.is_https()), ("https://example.com:8443", "example.com", true));
        assert_eq!(url.target.args(), 1);
        for (plain, host) in [("http://[::1]", "[::1]"), ("http://h?x={attempt}", "h"), ("http://1.2.3.4/", "1.2.3.4")]
        {
            assert_eq!(UrlTemplate::parse(plain).unwrap().host(), host);
        }
        assert_eq!(format!("{url:?}"), "https://example.com:8443(hidden)");
    }

    #[test]
    fn a_url_that_could_leave_its_host_is_refused() {
        for bad in [
            "",
            "example.com/path",
            "ftp://example.com/",
            "HTTP://example.com/",
            "file:///etc/passwd",
            "https://",
            "https:///path",
            "https://{args[0]}/path",
            "https://example.com{args[0]}/path",
            "https://example.com:{args[0]}/",
            "https://{args[0]}.example.com/",
            "https://user:hunter2@example.com/",
            "https://example.com@evil.example/",
            r"https://example.com\@evil.example/",
            r"https://example.com\.evil.example/",
            "https://example%2ecom/",
            "https://exa mple.com/",
            "https://exämple.com/",
            "https://example.com:99999/",
            "https://example.com/#hunter2",
            "https://example.com/a/../b",
            "https://example.com/a/%2E%2e/{args[0]}",
            "https://example.com/a b",
            "https://example.com/\r\nHost: evil.example",
            "https://example.com/{hunter2}",
        ] {
            let error = UrlTemplate::parse(bad).unwrap_err();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn dot_segments_are_found_however_they_are_written() {
        for path in ["/..", "/a/../b", "/%2e%2E/", "/.%2e", "/a/./b", r"/a\..\b", ".."] {
            assert!(has_dot_segment(path), "{path}");
        }
        for path in ["", "/", "/a..b/...", "/.well-known/x", "/%2e%2e%2e", "/..a"] {
            assert!(!has_dot_segment(path), "{path}");
        }
    }
}
