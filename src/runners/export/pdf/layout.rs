//! Widths of columns, and lines of cells.

use super::fonts::Faces;

pub const FONT_SIZE: f32 = 7.5;
pub const LINE_HEIGHT: f32 = 10.0;
/// Beside and above the text of a cell.
pub const PADDING: f32 = 3.0;
pub const MARGIN: f32 = 30.0;
pub const TITLE_HEIGHT: f32 = 34.0;
pub const FOOTER_HEIGHT: f32 = 18.0;
const A4: (f32, f32) = (595.0, 842.0);
const LINES_MAX: usize = 4;
const ELLIPSIS: char = '…';

/// The text of a cell.
#[derive(Clone)]
pub struct Cell {
    pub text: Box<str>,
    pub is_number: bool,
    /// The text is longer than what is kept.
    is_cut: bool,
}

/// A table with the places of everything.
pub struct Layout {
    /// Of the pages.
    pub width: f32,
    pub height: f32,
    /// Of each column, with padding.
    pub columns: Vec<f32>,
    /// Whether the column has numbers, so that its name is aligned to the right.
    pub is_number: Vec<bool>,
    pub header: Row,
    pub pages: Vec<Vec<Row>>,
    /// Cells that do not show their whole text.
    pub cut_cells: u64,
}

pub struct Row {
    pub cells: Vec<Lines>,
    pub height: f32,
}

pub struct Lines {
    pub lines: Vec<String>,
    pub is_number: bool,
}

impl Cell {
    pub fn new(text: &[u8], bytes_max: usize, is_number: bool) -> Self {
        let is_cut = text.len() > bytes_max;
        let mut kept = String::from_utf8_lossy(&text[..text.len().min(bytes_max)]).into_owned();
        if is_cut && kept.ends_with('\u{FFFD}') {
            kept.pop();
        }
        let text = kept.chars().map(|char| if char.is_control() && char != '\n' { ' ' } else { char });
        Self { text: text.collect::<String>().into(), is_number, is_cut }
    }
}

impl Layout {
    /// The cells are those of all rows.
    pub fn new(header: Vec<Cell>, cells: Vec<Cell>, faces: &mut Faces<'_>) -> Self {
        let count = header.len();
        let mut natural: Vec<f32> = header.iter().map(|cell| width_of(&cell.text, faces)).collect();
        let mut is_number: Vec<Option<bool>> = vec![None; count];
        for (index, cell) in cells.iter().enumerate() {
            let column = index % count;
            natural[column] = natural[column].max(width_of(&cell.text, faces));
            if !cell.text.is_empty() {
                is_number[column].get_or_insert(cell.is_number);
            }
        }
        let needed: f32 = natural.iter().map(|width| width + 2.0 * PADDING).sum();
        let (width, height) = if needed <= A4.0 - 2.0 * MARGIN { A4 } else { (A4.1, A4.0) };
        let columns = share(&natural, width - 2.0 * MARGIN);
        let mut cut_cells = 0;
        let mut lines = |cell: Cell, width: f32, faces: &mut Faces<'_>| {
            let (lines, is_cut) = wrap(&cell.text, width - 2.0 * PADDING, cell.is_cut, faces);
            cut_cells += u64::from(is_cut);
            Lines { lines, is_number: cell.is_number }
        };
        let mut row = |cells: &mut dyn Iterator<Item = Cell>, faces: &mut Faces<'_>| {
            Row::new(cells.zip(&columns).map(|(cell, width)| lines(cell, *width, faces)).collect())
        };
        let header = row(&mut header.into_iter(), faces);
        let room = height - 2.0 * MARGIN - FOOTER_HEIGHT - header.height;
        let mut pages = vec![Vec::new()];
        let mut left = room - TITLE_HEIGHT;
        let mut cells = cells.into_iter().peekable();
        while cells.peek().is_some() {
            let row = row(&mut cells.by_ref().take(count), faces);
            if row.height > left {
                pages.push(Vec::new());
                left = room;
            }
            left -= row.height;
            pages.last_mut().expect("there is a page").push(row);
        }
        let is_number = is_number.into_iter().map(Option::unwrap_or_default).collect();
        Self { width, height, columns, is_number, header, pages, cut_cells }
    }
}

impl Row {
    fn new(cells: Vec<Lines>) -> Self {
        let lines = cells.iter().map(|cell| cell.lines.len()).max().unwrap_or(1).max(1);
        #[expect(clippy::cast_precision_loss, reason = "there are at most four lines")]
        Self { cells, height: lines as f32 * LINE_HEIGHT + 2.0 * PADDING }
    }
}

/// Of the longest line, in points.
fn width_of(text: &str, faces: &mut Faces<'_>) -> f32 {
    let width = |line: &str, faces: &mut Faces<'_>| line.chars().map(|char| faces.width(char)).sum::<f32>() * FONT_SIZE;
    // A little more, so that the rounding of a sum does not wrap the widest cell.
    text.lines().map(|line| width(line, faces)).fold(0.0, f32::max) + 0.1
}

/// Gives each column what it needs if that is not more than its share; the others share the rest.
fn share(natural: &[f32], available: f32) -> Vec<f32> {
    let needs: Vec<f32> = natural.iter().map(|width| width + 2.0 * PADDING).collect();
    let total: f32 = needs.iter().sum();
    if total <= available {
        let factor = available / total;
        return needs.iter().map(|width| width * factor).collect();
    }
    let mut order: Vec<usize> = (0..needs.len()).collect();
    order.sort_by(|one, other| needs[*one].total_cmp(&needs[*other]));
    let mut widths = vec![0.0; needs.len()];
    let mut left = available;
    for (place, column) in order.iter().enumerate() {
        #[expect(clippy::cast_precision_loss, reason = "there are few columns")]
        let fair = left / (needs.len() - place) as f32;
        widths[*column] = needs[*column].min(fair);
        left -= widths[*column];
    }
    widths
}

/// Breaks a text into at most [`LINES_MAX`] lines, at white space where possible. Returns whether a part of it is missing.
fn wrap(text: &str, width: f32, is_cut: bool, faces: &mut Faces<'_>) -> (Vec<String>, bool) {
    let width = width / FONT_SIZE;
    let mut lines = Vec::new();
    for paragraph in text.lines() {
        let mut rest = paragraph;
        loop {
            let end = fitting(rest, width, faces);
            lines.push(rest[..end].trim_end().to_owned());
            rest = rest[end..].trim_start();
            if rest.is_empty() || lines.len() > LINES_MAX {
                break;
            }
        }
        if lines.len() > LINES_MAX {
            break;
        }
    }
    let is_missing = is_cut || lines.len() > LINES_MAX;
    if is_missing {
        lines.truncate(LINES_MAX);
        let last = lines.last_mut().expect("there is a line");
        let room = width - faces.width(ELLIPSIS);
        let mut used = 0.0;
        let end = last.char_indices().find(|(_, char)| {
            used += faces.width(*char);
            used > room
        });
        last.truncate(end.map_or(last.len(), |(index, _)| index));
        last.push(ELLIPSIS);
    }
    (lines, is_missing)
}

/// The length of the part that fits into a line. At least one character.
fn fitting(text: &str, width: f32, faces: &mut Faces<'_>) -> usize {
    let mut used = 0.0;
    let mut space = None;
    for (index, char) in text.char_indices() {
        used += faces.width(char);
        if char.is_whitespace() {
            space = Some(index + char.len_utf8());
        } else if used > width && index > 0 {
            return space.unwrap_or(index);
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runners::export::pdf::Fonts;

    #[test]
    fn a_text_is_wrapped_at_spaces_and_a_long_word_anywhere() {
        let fonts = Fonts::default();
        let mut faces = fonts.faces();
        let mut wrapped = |text: &str, width| wrap(text, width, false, &mut faces);
        assert_eq!(wrapped("Hall 7", 100.0), (vec!["Hall 7".to_owned()], false));
        assert_eq!(wrapped("", 100.0), (Vec::new(), false));
        let (lines, is_cut) = wrapped("one two three four", 30.0);
        assert!(lines.len() > 1 && lines.join(" ") == "one two three four" && !is_cut, "{lines:?}");
        let (lines, is_cut) = wrapped(&"x".repeat(200), 30.0);
        assert!(lines.len() == 4 && is_cut && lines[3].ends_with("x…"), "{lines:?}");
        assert_eq!(wrapped("a\nb", 100.0).0, ["a", "b"]);
    }

    #[test]
    fn wide_columns_share_what_narrow_ones_leave() {
        let widths = share(&[10.0, 500.0, 500.0], 300.0);
        let is_close = |found: f32, expected: f32| (found - expected).abs() < 0.01;
        assert!(is_close(widths[0], 16.0) && is_close(widths[1], 142.0) && is_close(widths[2], 142.0), "{widths:?}");
        assert!(is_close(share(&[10.0, 20.0], 300.0).iter().sum(), 300.0));
    }

    #[test]
    fn a_kept_text_ends_between_characters() {
        let cell = Cell::new("äöü".as_bytes(), 3, false);
        assert!(&*cell.text == "ä" && cell.is_cut);
        assert_eq!(&*Cell::new(b"a\tb\r\nc", 10, false).text, "a b \nc");
    }
}
