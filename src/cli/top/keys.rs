//! What each key does.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::app::{App, Tab};
use super::feed::Call;

/// Rows of a page.
const PAGE: isize = 10;

/// What a key asks for, besides another view.
#[derive(Debug, PartialEq)]
pub enum Action {
    Quit,
    Call(Call),
}

/// The keys for the help.
pub const KEYS: [(&str, &str); 13] = [
    ("1 to 5, Tab", "page"),
    ("up, down, j, k", "select a row"),
    ("Page up, Page down, Home, End", "select a row further away"),
    ("Enter", "task of the row, with its output"),
    ("Esc", "back; remove the filter"),
    ("/", "filter: state=S handler=H label=K=V, or texts"),
    ("s, S", "sort by the next column; reverse the order"),
    ("c", "cancel the task"),
    ("r", "retry the ended task"),
    ("p", "pause or resume the pool"),
    ("o", "stdout or stderr of the task"),
    ("?", "this help"),
    ("q, Ctrl-C", "quit"),
];

pub fn press(app: &mut App, key: KeyEvent) -> Option<Action> {
    if key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL) {
        return Some(Action::Quit);
    }
    if let Some(text) = app.editing.take() {
        edit(app, text, key.code);
        return None;
    }
    if let Some(question) = app.question.take() {
        let call = match (key.code, question.call) {
            (KeyCode::Char('y') | KeyCode::Enter, call) => call,
            (KeyCode::Char('f'), Call::Cancel { id, .. }) => Call::Cancel { id, force: true },
            _ => return None,
        };
        return Some(Action::Call(call));
    }
    if std::mem::take(&mut app.shows_help) {
        return None;
    }
    app.status.take_if(|_| app.is_connected);
    match key.code {
        KeyCode::Char('q') => return Some(Action::Quit),
        KeyCode::Char('?') => app.shows_help = true,
        KeyCode::Char('c') => app.ask_to_cancel(),
        KeyCode::Char('r') => app.ask_to_retry(),
        KeyCode::Char('p') => app.ask_to_pause(),
        code if app.detail.is_some() => in_task(app, code),
        code => in_list(app, code),
    }
    None
}

fn edit(app: &mut App, mut text: String, code: KeyCode) {
    match code {
        KeyCode::Enter => return app.apply_filter(text),
        KeyCode::Esc => return,
        KeyCode::Backspace => drop(text.pop()),
        KeyCode::Char(char) => text.push(char),
        _ => {}
    }
    app.editing = Some(text);
}

fn in_task(app: &mut App, code: KeyCode) {
    let Some(detail) = &mut app.detail else { return };
    match code {
        KeyCode::Esc | KeyCode::Backspace | KeyCode::Left => app.detail = None,
        KeyCode::Char('o') => detail.toggle_stream(),
        KeyCode::Up | KeyCode::Char('k') => detail.scrolled += 1,
        KeyCode::Down | KeyCode::Char('j') => detail.scrolled = detail.scrolled.saturating_sub(1),
        KeyCode::PageUp => detail.scrolled += PAGE.unsigned_abs(),
        KeyCode::PageDown => detail.scrolled = detail.scrolled.saturating_sub(PAGE.unsigned_abs()),
        KeyCode::Home => detail.scrolled = usize::MAX,
        KeyCode::End => detail.scrolled = 0,
        code => {
            if let Some(tab) = tab_of(app.tab, code) {
                (app.detail, app.tab) = (None, tab);
            }
        }
    }
}

fn in_list(app: &mut App, code: KeyCode) {
    match code {
        KeyCode::Up | KeyCode::Char('k') => app.rows().move_by(-1),
        KeyCode::Down | KeyCode::Char('j') => app.rows().move_by(1),
        KeyCode::PageUp => app.rows().move_by(-PAGE),
        KeyCode::PageDown => app.rows().move_by(PAGE),
        KeyCode::Home => app.rows().move_by(isize::MIN / 2),
        KeyCode::End => app.rows().move_by(isize::MAX / 2),
        KeyCode::Enter => app.open_task(),
        KeyCode::Char('/') if app.tab != Tab::Overview => app.editing = Some(app.rows().filter.clone()),
        KeyCode::Esc => app.apply_filter(String::new()),
        KeyCode::Char('s') => app.rows().sort_by_next(),
        KeyCode::Char('S') => {
            if let Some((_, is_reversed)) = &mut app.rows().sort {
                *is_reversed = !*is_reversed;
            }
        }
        code => app.tab = tab_of(app.tab, code).unwrap_or(app.tab),
    }
}

fn tab_of(present: Tab, code: KeyCode) -> Option<Tab> {
    let count = Tab::ALL.len();
    let index = match code {
        KeyCode::Char(digit @ '1'..='5') => usize::try_from(digit.to_digit(10)?).ok()? - 1,
        KeyCode::Tab | KeyCode::Right => (present.index() + 1) % count,
        KeyCode::BackTab | KeyCode::Left => (present.index() + count - 1) % count,
        _ => return None,
    };
    Tab::ALL.get(index).map(|(tab, _)| *tab)
}

#[cfg(test)]
mod tests {
    use crate::cli::view::View;
    use crate::proto::v1;

    use super::super::feed::Message;
    use super::*;

    fn app() -> App {
        let mut app = App::new("http://x", View::of_stdout(None));
        let pool = v1::PoolMetrics { pool: "default".to_owned(), ..v1::PoolMetrics::default() };
        let sample = v1::StreamPoolMetricsResponse { pools: vec![pool], ..v1::StreamPoolMetricsResponse::default() };
        app.receive(Message::Sample(Box::new(sample)));
        app
    }

    fn type_keys(app: &mut App, keys: &[KeyCode]) -> Option<Action> {
        let mut action = None;
        for key in keys {
            app.grid(80);
            action = press(app, KeyEvent::new(*key, KeyModifiers::NONE));
        }
        action
    }

    #[test]
    fn a_pool_is_paused_only_after_a_confirmation() {
        let mut app = app();
        let char = KeyCode::Char;
        assert_eq!(type_keys(&mut app, &[char('4'), char('p'), char('y')]), None, "no pool is selected");
        assert_eq!(type_keys(&mut app, &[KeyCode::Down, char('p'), char('n'), char('y')]), None);
        let call = Call::Pause { pool: "default".to_owned(), paused: true };
        assert_eq!(type_keys(&mut app, &[char('p'), char('y')]), Some(Action::Call(call)));
    }

    #[test]
    fn letters_belong_to_the_filter_while_it_is_edited() {
        let mut app = app();
        let char = KeyCode::Char;
        let keys = [char('4'), char('/'), char('q'), char('c'), KeyCode::Backspace, KeyCode::Enter];
        assert_eq!(type_keys(&mut app, &keys), None);
        assert_eq!(app.rows().filter, "q");
        assert_eq!(type_keys(&mut app, &[KeyCode::Esc]), None);
        assert_eq!(app.rows().filter, "");
        assert_eq!(type_keys(&mut app, &[char('q')]), Some(Action::Quit));
    }
}
