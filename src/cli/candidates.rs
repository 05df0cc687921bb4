//! What a shell offers as the next word.

use std::ffi::OsStr;

use clap_complete::engine::CompletionCandidate;

/// Values with their descriptions.
pub type Values = Vec<(String, String)>;

/// The values that begin with the word that is edited.
pub fn candidates(current: &OsStr, values: Values) -> Vec<CompletionCandidate> {
    let current = current.to_string_lossy();
    let matching = values.into_iter().filter(|(value, _)| value.starts_with(&*current));
    let candidate =
        |(value, help): (String, String)| CompletionCandidate::new(value).help((!help.is_empty()).then(|| help.into()));
    matching.map(candidate).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_begin_with_the_word() {
        let values = ["io", "compute", "copy"].map(|name| (name.to_owned(), String::new()));
        let found = candidates(OsStr::new("co"), values.into());
        assert_eq!(
            found.iter().map(|found| found.get_value().to_str().unwrap()).collect::<Vec<_>>(),
            ["compute", "copy"]
        );
    }
}
