//! The command line that continues an interrupted `map`.

/// The words of the command, with the batch and the number of printed results.
pub fn command(words: Vec<String>, batch: &str, printed: u64) -> String {
    let is_unordered = words.iter().any(|word| word == "--unordered");
    let mut kept = vec!["lineshaft".to_owned()];
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--batch" | "--after" => drop(words.next()),
            _ if word.starts_with("--batch=") || word.starts_with("--after=") => {}
            _ => kept.push(quoted(&word)),
        }
    }
    kept.extend(["--batch".to_owned(), quoted(batch)]);
    if printed > 0 && !is_unordered {
        kept.extend(["--after".to_owned(), printed.to_string()]);
    }
    kept.join(" ")
}

/// The word as a shell reads it.
fn quoted(word: &str) -> String {
    let is_plain = |char: char| char.is_ascii_alphanumeric() || "-_=./:,@%+".contains(char);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_continues_after_what_was_printed() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let first = command(words("map resize --json --label a=b"), "b1", 0);
        assert_eq!(first, "lineshaft map resize --json --label a=b --batch b1");
        let second = command(words(&first["lineshaft ".len()..]), "b1", 7);
        assert_eq!(second, format!("{first} --after 7"));
        let third = command(words(&second["lineshaft ".len()..]), "b1", 9);
        assert_eq!(third, format!("{first} --after 9"));
        assert_eq!(command(words("map x --unordered"), "b1", 7), "lineshaft map x --unordered --batch b1");
        assert_eq!(command(vec!["map".into(), "it's".into()], "b", 0), r"lineshaft map 'it'\''s' --batch b");
    }
}
