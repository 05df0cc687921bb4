//! What the terminal shows, and how messages and keys change it. Draws nothing and calls nobody.

use std::collections::VecDeque;

use crate::cli::format;
use crate::cli::query::Query;
use crate::cli::table::{Column, Grid, Table};
use crate::cli::task::failures::COLUMNS as FAILURES;
use crate::cli::task::list;
use crate::cli::terminal;
use crate::cli::view::View;
use crate::model::{Clock, SystemClock};
use crate::proto::v1;

use super::feed::{Call, Message, Wanted};
use super::text::{POOLS, WORKERS};

/// Samples that the charts show at most.
const HISTORY: usize = 300;
/// Bytes of output that are kept.
const OUTPUT_MAX: usize = 256 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tab {
    Overview,
    Tasks,
    Workers,
    Pools,
    Failures,
}

impl Tab {
    pub const ALL: [(Self, &'static str); 5] = [
        (Self::Overview, "Overview"),
        (Self::Tasks, "Tasks"),
        (Self::Workers, "Workers"),
        (Self::Pools, "Pools"),
        (Self::Failures, "Failures"),
    ];

    pub fn index(self) -> usize {
        Self::ALL.iter().position(|(tab, _)| *tab == self).unwrap_or(0)
    }
}

/// Selection, order and filter of one tab.
#[derive(Debug, Default)]
pub struct Rows {
    /// Key of the selected row, so that it stays selected when the rows move.
    pub selected: Option<String>,
    /// Column to sort by, and whether the order is reversed.
    pub sort: Option<(usize, bool)>,
    pub filter: String,
    pub query: Query,
    /// Keys of the rows as they were shown last.
    pub keys: Vec<String>,
    pub columns: usize,
}

impl Rows {
    pub fn position(&self) -> Option<usize> {
        let selected = self.selected.as_ref()?;
        self.keys.iter().position(|key| key == selected)
    }

    /// Selects another row: `by` rows below, or above if it is negative.
    pub fn move_by(&mut self, by: isize) {
        let last = self.keys.len().saturating_sub(1);
        let at = self.position().map_or(if by > 0 { 0 } else { last }, |at| at.saturating_add_signed(by).min(last));
        self.selected = self.keys.get(at).cloned();
    }

    pub fn sort_by_next(&mut self) {
        self.sort = match self.sort {
            None => Some((0, false)),
            Some((column, is_reversed)) => (column + 1 < self.columns).then_some((column + 1, is_reversed)),
        };
    }
}

/// A task that is shown alone.
#[derive(Debug)]
pub struct Detail {
    pub id: String,
    pub task: Option<v1::Task>,
    pub stderr: bool,
    pub output: Vec<u8>,
    attempt: i32,
    /// Lines from the end of the output; 0: follows it.
    pub scrolled: usize,
}

impl Detail {
    fn new(id: String) -> Self {
        Self { id, task: None, stderr: false, output: Vec::new(), attempt: 0, scrolled: 0 }
    }

    pub fn toggle_stream(&mut self) {
        *self = Self { stderr: !self.stderr, task: self.task.take(), ..Self::new(std::mem::take(&mut self.id)) };
    }

    fn add(&mut self, piece: &v1::ReadOutputResponse) {
        if piece.attempt != self.attempt {
            self.attempt = piece.attempt;
            self.output.clear();
        }
        if piece.skipped > 0 {
            self.output.extend_from_slice(format!("\n[{} bytes were not stored]\n", piece.skipped).as_bytes());
        }
        self.output.extend_from_slice(&piece.data);
        let excess = self.output.len().saturating_sub(OUTPUT_MAX);
        self.output.drain(..excess);
    }

    /// The output without colours and control characters.
    pub fn lines(&self) -> Vec<String> {
        let text = String::from_utf8_lossy(&self.output);
        let text = console::strip_ansi_codes(&text);
        text.lines().map(|line| terminal::line(&line.replace('\t', "    ")).into_owned()).collect()
    }
}

/// What the user is asked.
#[derive(Debug)]
pub struct Question {
    pub text: String,
    pub call: Call,
}

#[derive(Debug)]
pub struct App {
    pub server: String,
    pub view: View,
    pub tab: Tab,
    pub sample: Option<v1::StreamPoolMetricsResponse>,
    /// Tasks submitted and finished per second, newest last.
    pub submitted: VecDeque<u64>,
    pub finished: VecDeque<u64>,
    tasks: Vec<v1::Task>,
    failures: Vec<v1::FailureGroup>,
    pub rows: [Rows; 5],
    pub detail: Option<Detail>,
    pub question: Option<Question>,
    /// The text of the filter while it is edited.
    pub editing: Option<String>,
    pub shows_help: bool,
    /// Whether the last sample is recent.
    pub is_connected: bool,
    /// A message, and whether it is an error.
    pub status: Option<(String, bool)>,
}

impl App {
    pub fn new(server: &str, view: View) -> Self {
        Self {
            server: server.to_owned(),
            view,
            tab: Tab::Overview,
            sample: None,
            submitted: VecDeque::new(),
            finished: VecDeque::new(),
            tasks: Vec::new(),
            failures: Vec::new(),
            rows: std::array::from_fn(|_| Rows::default()),
            detail: None,
            question: None,
            editing: None,
            shows_help: false,
            is_connected: false,
            status: None,
        }
    }

    /// Before each drawing: relative times go on.
    pub fn renew(&mut self) {
        self.view = self.view.renewed();
    }

    pub fn rows(&mut self) -> &mut Rows {
        &mut self.rows[self.tab.index()]
    }

    /// What the server has to be asked for.
    pub fn wanted(&self) -> Wanted {
        match (&self.detail, self.tab) {
            (Some(detail), _) => Wanted::Task { id: detail.id.clone(), stderr: detail.stderr },
            (None, Tab::Tasks) => Wanted::Tasks(Box::new(self.rows[self.tab.index()].query.for_tasks())),
            (None, Tab::Failures) => Wanted::Failures,
            (None, _) => Wanted::Nothing,
        }
    }

    pub fn receive(&mut self, message: Message) {
        match message {
            Message::Sample(sample) => {
                self.answered();
                self.record(&sample);
                self.sample = Some(*sample);
            }
            // An answer to what was shown before.
            Message::Tasks(wanted, _) | Message::Task(wanted, _) | Message::Output(wanted, _)
                if wanted != self.wanted() => {}
            Message::Tasks(_, tasks) => {
                self.answered();
                self.tasks = tasks;
            }
            Message::Failures(groups) => {
                self.answered();
                self.failures = groups;
            }
            Message::Task(_, task) => {
                if let Some(detail) = &mut self.detail {
                    detail.task = Some(*task);
                }
            }
            Message::Output(_, piece) => {
                if let Some(detail) = &mut self.detail {
                    detail.add(&piece);
                }
            }
            Message::Done(text) => self.status = Some((text, false)),
            Message::Failed(text) => self.status = Some((text, true)),
            Message::Lost(text) => {
                self.is_connected = false;
                self.status = Some((text, true));
            }
        }
    }

    fn answered(&mut self) {
        self.status.take_if(|_| !self.is_connected);
        self.is_connected = true;
    }

    fn record(&mut self, sample: &v1::StreamPoolMetricsResponse) {
        // The first sample of a stream has no rates.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rate is not negative and is small"
        )]
        let sum = |rate: fn(&v1::PoolMetrics) -> f64| sample.pools.iter().map(rate).sum::<f64>().round() as u64;
        for (history, value) in
            [(&mut self.submitted, sum(|pool| pool.submit_rate)), (&mut self.finished, sum(|pool| pool.finish_rate))]
        {
            history.push_back(value);
            if history.len() > HISTORY {
                history.pop_front();
            }
        }
    }

    /// The rows of the tab as they fit into this width.
    pub fn grid(&mut self, width: usize) -> Grid {
        let view = self.view.with_width(Some(width));
        let rows = &self.rows[self.tab.index()];
        let pools = self.sample.iter().flat_map(|sample| &sample.pools);
        let (grid, keys, columns) = match self.tab {
            Tab::Tasks => arrange(self.tasks.clone(), &list::COLUMNS, rows.sort, &view, |task| task.task_id.clone()),
            Tab::Workers => {
                let workers = pools.flat_map(|pool| &pool.workers).filter(|worker| {
                    rows.query.matches(&[&worker.pool, &worker.name, &worker.current_handler, &worker.current_task_id])
                });
                arrange(workers.cloned().collect(), &WORKERS, rows.sort, &view, |worker| {
                    format!("{}/{}", worker.pool, worker.name)
                })
            }
            Tab::Overview | Tab::Pools => {
                let pools = pools.filter(|pool| rows.query.matches(&[&pool.pool]));
                arrange(pools.cloned().collect(), &POOLS, rows.sort, &view, |pool| pool.pool.clone())
            }
            Tab::Failures => {
                let shown = |group: &&v1::FailureGroup| {
                    rows.query.matches(&[&group.handler, &format::failure_reason(group.reason), &group.message])
                };
                let groups = self.failures.iter().filter(shown);
                arrange(groups.cloned().collect(), &FAILURES, rows.sort, &view, |group| group.example_task_id.clone())
            }
        };
        let rows = self.rows();
        (rows.keys, rows.columns) = (keys, columns);
        grid
    }

    /// The task that the selected row is about.
    pub fn selected_task(&self) -> Option<String> {
        if let Some(detail) = &self.detail {
            return Some(detail.id.clone());
        }
        let key = self.rows[self.tab.index()].selected.clone()?;
        match self.tab {
            Tab::Tasks | Tab::Failures => Some(key),
            Tab::Workers => {
                let workers = self.sample.iter().flat_map(|sample| &sample.pools).flat_map(|pool| &pool.workers);
                let worker = workers.into_iter().find(|worker| format!("{}/{}", worker.pool, worker.name) == key)?;
                Some(worker.current_task_id.clone()).filter(|id| !id.is_empty())
            }
            Tab::Overview | Tab::Pools => None,
        }
    }

    pub fn open_task(&mut self) {
        if let Some(id) = self.selected_task() {
            self.detail = Some(Detail::new(id));
        }
    }

    pub fn ask_to_cancel(&mut self) {
        match self.selected_task() {
            Some(id) => {
                let text = format!("Cancel task {id}?");
                self.question = Some(Question { text, call: Call::Cancel { id, force: false } });
            }
            None => self.status = Some(("select a task to cancel".to_owned(), true)),
        }
    }

    pub fn ask_to_retry(&mut self) {
        match self.selected_task() {
            Some(id) => {
                let text = format!("Submit task {id} again?");
                self.question = Some(Question { text, call: Call::Retry { id } });
            }
            None => self.status = Some(("select a task to submit again".to_owned(), true)),
        }
    }

    pub fn ask_to_pause(&mut self) {
        let selected = self.rows[self.tab.index()].selected.clone();
        let pools = self.sample.iter().flat_map(|sample| &sample.pools);
        let pool = pools.into_iter().find(|pool| self.tab == Tab::Pools && Some(&pool.pool) == selected.as_ref());
        match pool {
            Some(v1::PoolMetrics { pool, paused, .. }) => {
                let verb = if *paused { "Resume" } else { "Pause" };
                let call = Call::Pause { pool: pool.clone(), paused: !paused };
                self.question = Some(Question { text: format!("{verb} pool {pool}?"), call });
            }
            None => self.status = Some(("select a pool on the page Pools to pause it".to_owned(), true)),
        }
    }

    /// Applies the filter that the user has typed.
    pub fn apply_filter(&mut self, text: String) {
        match Query::parse(&text, SystemClock.now()) {
            Ok(query) => {
                let rows = self.rows();
                (rows.filter, rows.query) = (text, query);
                self.status = None;
            }
            Err(problem) => self.status = Some((problem, true)),
        }
    }
}

fn arrange<T>(
    mut values: Vec<T>,
    columns: &'static [Column<T>],
    sort: Option<(usize, bool)>,
    view: &View,
    key: impl Fn(&T) -> String,
) -> (Grid, Vec<String>, usize) {
    let table = Table::plain(columns).sorted_by(sort);
    table.sort(&mut values, view);
    (table.grid(&values, view), values.iter().map(key).collect(), columns.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(id: &str, handler: &str) -> v1::Task {
        v1::Task { task_id: id.to_owned(), handler: handler.to_owned(), state: 3, ..v1::Task::default() }
    }

    fn app() -> App {
        let mut app = App::new("http://x", View::of_stdout(None));
        app.tab = Tab::Tasks;
        app.receive(Message::Tasks(app.wanted(), vec![task("b", "io"), task("a", "compute"), task("c", "io")]));
        app.receive(Message::Failures(Vec::new()));
        app.receive(Message::Tasks(Wanted::Failures, Vec::new()));
        app.grid(80);
        app
    }

    #[test]
    fn the_selected_task_stays_selected_when_the_rows_move() {
        let mut app = app();
        app.rows().move_by(1);
        app.rows().move_by(1);
        assert_eq!(app.selected_task().as_deref(), Some("a"));
        app.receive(Message::Tasks(app.wanted(), vec![task("d", "io"), task("b", "io"), task("a", "compute")]));
        app.grid(80);
        assert_eq!((app.selected_task().as_deref(), app.rows().position()), (Some("a"), Some(2)));
        app.rows().move_by(9);
        assert_eq!(app.rows().position(), Some(2));
        app.rows().move_by(-9);
        assert_eq!(app.rows().position(), Some(0));
    }

    #[test]
    fn rows_are_filtered_and_sorted() {
        let mut app = app();
        app.rows().sort_by_next();
        app.grid(80);
        assert_eq!(app.rows().keys, ["a", "b", "c"]);
        app.rows().sort = Some((0, true));
        app.grid(80);
        assert_eq!(app.rows().keys, ["c", "b", "a"]);
        app.apply_filter("state=nonsense".to_owned());
        assert!(app.status.as_ref().is_some_and(|(text, is_error)| *is_error && text.contains("nonsense")));
        app.apply_filter("handler=io Refused".to_owned());
        let texts = vec!["refused".to_owned()];
        let filter = v1::TaskFilter { handler: "io".to_owned(), texts, ..v1::TaskFilter::default() };
        assert_eq!(app.wanted(), Wanted::Tasks(Box::new(filter)), "the server applies it");
    }

    #[test]
    fn output_of_another_attempt_replaces_that_of_the_first_and_controls_nothing() {
        let mut app = app();
        app.rows().move_by(1);
        app.open_task();
        let piece = |attempt, data: &'static [u8]| {
            let piece = v1::ReadOutputResponse { attempt, data: data.into(), ..v1::ReadOutputResponse::default() };
            Message::Output(Wanted::Task { id: "b".to_owned(), stderr: false }, Box::new(piece))
        };
        app.receive(piece(1, b"first"));
        app.receive(piece(2, b"\x1b[31mred\x1b[0m\n\x07b"));
        app.receive(piece(2, b"c"));
        assert_eq!(app.detail.as_ref().unwrap().lines(), ["red", "\\u{7}bc"]);
        assert_eq!(app.wanted(), Wanted::Task { id: "b".to_owned(), stderr: false });
    }
}
