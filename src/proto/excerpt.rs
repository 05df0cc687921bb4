//! Excerpts of output as one text.

use super::v1;

impl v1::StreamExcerpt {
    /// Both parts, and between them a line with the number of bytes that are left out.
    pub fn to_text(&self) -> String {
        let Self { head, omitted_bytes, tail } = self;
        if *omitted_bytes == 0 {
            return head.clone();
        }
        let newline = if head.is_empty() || head.ends_with('\n') { "" } else { "\n" };
        format!("{head}{newline}[{omitted_bytes} bytes left out]\n{tail}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_a_line_between_the_parts() {
        for (head, omitted_bytes, tail, text) in [
            ("all\n", 0, "", "all\n"),
            ("first\n", 7, "last\n", "first\n[7 bytes left out]\nlast\n"),
            ("first", 7, "last", "first\n[7 bytes left out]\nlast"),
            ("", 7, "", "[7 bytes left out]\n"),
        ] {
            let excerpt = v1::StreamExcerpt { head: head.to_owned(), omitted_bytes, tail: tail.to_owned() };
            assert_eq!(excerpt.to_text(), text);
        }
    }
}
