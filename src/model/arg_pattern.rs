//! The pattern that arguments of submitters have to match.

use regex_automata::meta::Regex;

use super::error::innermost;

/// A regular expression that matches an argument as a whole.
#[derive(Clone, Debug)]
pub struct ArgPattern {
    source: Box<str>,
    regex: Regex,
}

impl ArgPattern {
    /// The error says what is wrong with the expression.
    pub fn parse(source: &str) -> Result<Self, String> {
        let compile = |pattern: &str| Regex::new(pattern).map_err(|error| innermost(&error));
        // By itself as well, so that `a)|(b` cannot leave the group.
        compile(source)?;
        Ok(Self { source: source.into(), regex: compile(&format!(r"\A(?:{source})\z"))? })
    }

    pub fn as_str(&self) -> &str {
        &self.source
    }

    /// The index of the first argument that does not match.
    pub fn mismatch(&self, args: &[impl AsRef<str>]) -> Option<usize> {
        args.iter().position(|arg| !self.regex.is_match(arg.as_ref()))
    }
}

impl PartialEq for ArgPattern {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Eq for ArgPattern {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_argument_matches_as_a_whole() {
        let matches = |pattern, arg| ArgPattern::parse(pattern).unwrap().mismatch(&[arg]).is_none();
        assert!(matches("[a-z]+", "abc"));
        assert!(matches("a|ab", "ab"));
        for arg in ["--files0-from=abc", "abc\n", "abc\n--help", "", "-abc"] {
            assert!(!matches("[a-z]+", arg), "{arg:?}");
        }
        assert!(!matches("a|b", "a-option"));
        assert_eq!(ArgPattern::parse("[a-z]+").unwrap().mismatch(&["a", "b", "-c", "-d"]), Some(2));
    }

    #[test]
    fn an_invalid_pattern_is_refused() {
        for pattern in ["(", "a)|(b", "(?x)a # )", r"\pL{100000}"] {
            assert!(ArgPattern::parse(pattern).is_err(), "{pattern}");
        }
    }
}
