//! Lists as tables: as many columns as fit a terminal, all of them for other programs.

use std::cmp::Reverse;

use clap::Args;
use console::{measure_text_width, truncate_str};

use super::error::CliError;
use super::view::{Cell, Text, View};

/// Blanks between two columns.
pub const GAP: usize = 2;
/// A column is not cut below this width.
const CUT_MIN: usize = 10;
/// Less important columns are left out before it is cut below this width.
const CUT_PREFERRED: usize = 16;

/// A column of a table whose rows are made from values of type `T`.
#[derive(Debug)]
pub struct Column<T> {
    heading: &'static str,
    cell: fn(&T, &View) -> Cell,
    rank: u8,
    can_be_cut: bool,
}

impl<T> Column<T> {
    /// Columns with the highest rank are left out first if a terminal is too narrow; those of rank 0 are not left out.
    pub const fn new(heading: &'static str, rank: u8, cell: fn(&T, &View) -> Cell) -> Self {
        Self { heading, cell, rank, can_be_cut: false }
    }

    /// A column whose values are texts that can be cut if a terminal is too narrow.
    pub const fn text(heading: &'static str, rank: u8, cell: fn(&T, &View) -> Cell) -> Self {
        Self { can_be_cut: true, ..Self::new(heading, rank, cell) }
    }

    /// The name on the command line.
    fn name(&self) -> String {
        self.heading.to_lowercase().replace(' ', "-")
    }
}

/// Options of commands that print a list.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Table")]
pub struct TableArgs {
    /// Columns to print, such as id,state [default: those that fit the terminal; all if stdout is not one]
    #[arg(long, value_name = "COLUMN,...", value_delimiter = ',')]
    columns: Vec<String>,
    /// Print all columns, and do not cut them to the width of the terminal
    #[arg(long, short)]
    wide: bool,
    /// Print the first column only, without its heading
    #[arg(long, short, conflicts_with_all = ["columns", "wide"])]
    quiet: bool,
    /// Print no headings
    #[arg(long)]
    no_headers: bool,
    /// Sort by this column; -COLUMN for the reverse order
    #[arg(long, value_name = "COLUMN", allow_hyphen_values = true)]
    sort: Option<String>,
}

/// A table with the chosen columns.
#[derive(Debug)]
pub struct Table<T: 'static> {
    columns: Vec<&'static Column<T>>,
    /// The column to sort by, and whether the order is reversed.
    sort: Option<(&'static Column<T>, bool)>,
    has_headings: bool,
    /// Whether columns are left out, and cut, to fit the terminal.
    fits: bool,
    cuts: bool,
}

impl<T> Table<T> {
    /// # Errors
    /// A name of a column is unknown.
    pub fn new(columns: &'static [Column<T>], args: &TableArgs) -> Result<Self, CliError> {
        let find = |option: &str, name: &str| {
            let found = columns.iter().find(|column| column.name().eq_ignore_ascii_case(name));
            let names = || columns.iter().map(Column::name).collect::<Vec<_>>().join(", ");
            found.ok_or_else(|| CliError::Usage(format!("{option}: there is no column {name:?}; columns: {}", names())))
        };
        let sort = args.sort.as_deref().map(|name| match name.strip_prefix('-') {
            Some(name) => find("--sort", name).map(|column| (column, true)),
            None => find("--sort", name).map(|column| (column, false)),
        });
        let chosen: Result<Vec<_>, _> = args.columns.iter().map(|name| find("--columns", name)).collect();
        let chosen = chosen?;
        let fits = chosen.is_empty() && !args.wide && !args.quiet;
        let columns = match chosen {
            chosen if !chosen.is_empty() => chosen,
            _ if args.quiet => columns.iter().take(1).collect(),
            _ => columns.iter().collect(),
        };
        let (has_headings, cuts) = (!args.no_headers && !args.quiet, !args.wide && !args.quiet);
        Ok(Self { columns, sort: sort.transpose()?, has_headings, fits, cuts })
    }

    /// The table of a command without options for it.
    pub fn plain(columns: &'static [Column<T>]) -> Self {
        Self { columns: columns.iter().collect(), sort: None, has_headings: true, fits: true, cuts: true }
    }

    /// Leaves out the columns with these headings.
    pub fn without(&mut self, headings: &[&str]) {
        self.columns.retain(|column| !headings.contains(&column.heading));
    }

    /// Sorts the values as the command line asks for; rows that are equal keep their order.
    pub fn sort(&self, values: &mut [T], view: &View) {
        let Some((column, is_reversed)) = self.sort else { return };
        let key = |value: &T| (column.cell)(value, view);
        if is_reversed {
            values.sort_by_cached_key(|value| Reverse(SortKey(key(value))));
        } else {
            values.sort_by_cached_key(|value| SortKey(key(value)));
        }
    }

    /// Sorts by the column with this index instead.
    #[must_use]
    pub fn sorted_by(mut self, sort: Option<(usize, bool)>) -> Self {
        self.sort = sort.and_then(|(index, is_reversed)| Some((*self.columns.get(index)?, is_reversed)));
        self
    }

    pub fn text(&self, values: &[T], view: &View) -> Text {
        let grid = self.grid(values, view);
        let headings: Vec<_> = grid.columns.iter().map(|column| Cell::from(column.heading)).collect();
        let headings = self.has_headings.then_some(&headings);
        let lines = headings.into_iter().chain(&grid.rows).map(|cells| grid.line(cells, view));
        Text::from_safe(lines.collect::<Vec<_>>().join("\n"))
    }

    /// The columns that fit, with their cells.
    pub fn grid(&self, values: &[T], view: &View) -> Grid {
        let mut rows: Vec<Vec<Cell>> =
            values.iter().map(|value| self.columns.iter().map(|column| (column.cell)(value, view)).collect()).collect();
        let natural: Vec<usize> = (0..self.columns.len()).map(|index| self.natural_width(index, &rows)).collect();
        let widths = match view.width {
            Some(width) if self.cuts => self.fitted(&natural, &rows, width),
            _ => natural.into_iter().map(Some).collect(),
        };
        for row in &mut rows {
            let mut index = 0;
            row.retain_mut(|cell| {
                index += 1;
                let Some(width) = widths[index - 1] else { return false };
                if measure_text_width(&cell.text) > width {
                    cell.text = truncate_str(&cell.text, width, "…").into_owned();
                }
                true
            });
        }
        let column = |(index, width): (usize, &Option<usize>)| {
            Some(GridColumn { index, heading: self.columns[index].heading, width: (*width)? })
        };
        Grid { columns: widths.iter().enumerate().filter_map(column).collect(), rows }
    }

    fn natural_width(&self, column: usize, rows: &[Vec<Cell>]) -> usize {
        let heading = if self.has_headings { self.columns[column].heading.len() } else { 0 };
        rows.iter().map(|row| measure_text_width(&row[column].text)).max().unwrap_or(0).max(heading)
    }

    /// The widths of the columns that fit into `total`; `None`: the column is left out.
    fn fitted(&self, natural: &[usize], rows: &[Vec<Cell>], total: usize) -> Vec<Option<usize>> {
        let limited = |index: usize, limit: usize| {
            let can_be_cut = self.columns[index].can_be_cut;
            if can_be_cut { natural[index].min(limit.max(self.columns[index].heading.len())) } else { natural[index] }
        };
        let is_empty = |index: usize| !rows.is_empty() && rows.iter().all(|row| row[index].text.is_empty());
        let (mut optional, needed): (Vec<usize>, Vec<usize>) =
            (0..natural.len()).partition(|index| self.fits && self.columns[*index].rank > 0);
        optional.sort_by_key(|index| self.columns[*index].rank);
        let mut widths = vec![None; natural.len()];
        let mut spare = total + GAP;
        for index in needed {
            widths[index] = Some(limited(index, CUT_MIN));
            spare = spare.saturating_sub(limited(index, CUT_MIN) + GAP);
        }
        // Widens the columns from the left, and returns what is left.
        let widen = |widths: &mut [Option<usize>], limit: usize, mut spare: usize| {
            for (index, width) in widths.iter_mut().enumerate() {
                let Some(width) = width else { continue };
                let more = (limited(index, limit) - *width).min(spare);
                *width += more;
                spare -= more;
            }
            spare
        };
        spare = widen(&mut widths, CUT_PREFERRED, spare);
        for index in optional {
            if limited(index, CUT_MIN) + GAP <= spare && !is_empty(index) {
                widths[index] = Some(0);
                spare = widen(&mut widths, CUT_PREFERRED, spare - GAP);
            }
        }
        widen(&mut widths, usize::MAX, spare);
        widths
    }
}

/// The part of a table that fits.
#[derive(Debug)]
pub struct Grid {
    pub columns: Vec<GridColumn>,
    /// A cell for each column.
    pub rows: Vec<Vec<Cell>>,
}

#[derive(Debug)]
pub struct GridColumn {
    /// Number of the column in the table, which can have more columns.
    pub index: usize,
    pub heading: &'static str,
    pub width: usize,
}

impl Grid {
    /// One line, without blanks at its end.
    fn line(&self, cells: &[Cell], view: &View) -> String {
        let mut line = String::new();
        let mut blanks = 0;
        for (cell, column) in cells.iter().zip(&self.columns) {
            if !cell.text.is_empty() {
                line.extend(std::iter::repeat_n(' ', blanks));
                blanks = 0;
            }
            line.push_str(&view.paint(&cell.text, cell.color));
            blanks += column.width.saturating_sub(measure_text_width(&cell.text)) + GAP;
        }
        line
    }
}

/// Compares cells by their numbers, or by their texts.
struct SortKey(Cell);

impl PartialEq for SortKey {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for SortKey {}

impl PartialOrd for SortKey {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for SortKey {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.sort_key().cmp(&other.0.sort_key())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Row(&'static str, i32, &'static str);

    static COLUMNS: [Column<Row>; 3] = [
        Column::new("ID", 0, |row, _| row.0.into()),
        Column::new("RUN COUNT", 2, |row, _| Cell::number(row.1)),
        Column::text("NOTE", 1, |row, _| row.2.into()),
    ];
    const ROWS: [Row; 2] = [Row("task-number-one", 9, "a long note about the task"), Row("x", 10, "")];

    fn shown(rows: &[Row], args: &TableArgs, width: Option<usize>) -> String {
        let view = View::of_stdout(None).with_width(width);
        let table = Table::new(&COLUMNS, args).unwrap();
        let mut rows: Vec<_> = rows.iter().map(|row| Row(row.0, row.1, row.2)).collect();
        table.sort(&mut rows, &view);
        table.text(&rows, &view).to_string()
    }

    fn args(change: impl FnOnce(&mut TableArgs)) -> TableArgs {
        let mut args = TableArgs::default();
        change(&mut args);
        args
    }

    #[test]
    fn another_program_gets_all_columns_uncut() {
        let text = shown(&ROWS, &TableArgs::default(), None);
        let expected = "ID               RUN COUNT  NOTE\n\
                        task-number-one  9          a long note about the task\n\
                        x                10";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_terminal_gets_the_columns_that_fit() {
        let default = TableArgs::default();
        for (width, expected) in [
            (60, "task-number-one  9          a long note about the task"),
            (53, "task-number-one  9          a long note about the ta…"),
            (44, "task-number-one  9          a long note abo…"),
            (43, "task-number-one  a long note about the task"),
            (36, "task-number-one  a long note about …"),
            (20, "task-number-one"),
            (5, "task-number-one"),
        ] {
            let text = shown(&ROWS, &default, Some(width));
            assert_eq!(text.lines().nth(1), Some(expected), "{width}");
        }
        let wide = shown(&ROWS, &args(|args| args.wide = true), Some(20));
        assert!(wide.contains("9          a long note about the task"), "{wide}");
        let chosen = args(|args| args.columns = vec!["note".to_owned(), "run-count".to_owned()]);
        assert_eq!(shown(&ROWS[..1], &chosen, Some(24)), "NOTE           RUN COUNT\na long note …  9");
        assert_eq!(
            shown(&[Row("漢字漢字漢字漢字", 1, "漢字漢字漢字漢字")], &default, Some(32)).lines().nth(1),
            Some("漢字漢字漢字漢字  漢字漢字漢字…")
        );
        assert_eq!(shown(&ROWS[1..], &default, Some(80)), "ID  RUN COUNT\nx   10", "an empty column is left out");
    }

    #[test]
    fn rows_are_sorted_by_number_or_text_and_printed_alone_for_scripts() {
        let sorted = |sort: &str| {
            let sorted = args(|args| (args.sort, args.quiet) = (Some(sort.to_owned()), true));
            shown(&ROWS, &sorted, None)
        };
        assert_eq!(sorted("run-count"), "task-number-one\nx");
        assert_eq!(sorted("-run-count"), "x\ntask-number-one");
        assert_eq!(sorted("note"), "x\ntask-number-one");
        assert_eq!(shown(&[], &args(|args| args.quiet = true), None), "");
        let no_headers = args(|args| (args.no_headers, args.columns) = (true, vec!["RUN-COUNT".to_owned()]));
        assert_eq!(shown(&ROWS, &no_headers, None), "9\n10");
        let unknown = args(|args| args.sort = Some("age".to_owned()));
        let error = Table::new(&COLUMNS, &unknown).unwrap_err();
        assert!(matches!(error, CliError::Usage(text) if text.ends_with("columns: id, run-count, note")));
    }

    #[test]
    fn a_value_with_newlines_stays_in_its_cell() {
        let text = shown(&[Row("x\nstate  COMPLETED", 1, "")], &TableArgs::default(), None);
        assert_eq!(text.lines().count(), 2, "{text}");
    }
}
