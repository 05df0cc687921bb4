//! Draws the state on the terminal.

use std::collections::VecDeque;

use clap::builder::styling::AnsiColor;
use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph, Sparkline};

use crate::cli::table::{Grid, GridColumn};
use crate::cli::task::print;
use crate::cli::time::{format_duration, from_proto};
use crate::cli::view::{Cell, View};
use crate::cli::{format, terminal};
use crate::proto::v1;

use super::app::{App, Detail, Tab};
use super::feed::Call;
use super::keys::KEYS;

/// The smallest terminal for which there is room.
const WIDTH_MIN: u16 = 80;
const HEIGHT_MIN: u16 = 24;
/// Lines of the description of a task.
const DETAILS_MAX: u16 = 14;

pub fn draw(frame: &mut Frame, app: &mut App) {
    let area = frame.area();
    if area.width < WIDTH_MIN || area.height < HEIGHT_MIN {
        let text = format!("needs {WIDTH_MIN} columns and {HEIGHT_MIN} rows, has {} and {}", area.width, area.height);
        frame.render_widget(Paragraph::new(text), area);
        return;
    }
    let rows =
        Layout::vertical([Constraint::Length(1), Constraint::Length(2), Constraint::Fill(1), Constraint::Length(1)]);
    let [title_area, tabs_area, body, footer_area] = rows.areas(area);
    frame.render_widget(title(app), title_area);
    frame.render_widget(tabs(app), tabs_area);
    if let Some(detail) = &mut app.detail {
        task(frame, detail, app.view, body);
    } else if app.tab == Tab::Overview {
        overview(frame, app, body);
    } else {
        list(frame, app, body);
    }
    frame.render_widget(footer(app), footer_area);
    if app.shows_help {
        help(frame, area);
    }
}

fn style(view: &View, color: AnsiColor) -> Style {
    let color = match color {
        AnsiColor::Green => Color::Green,
        AnsiColor::Red => Color::Red,
        AnsiColor::Magenta => Color::Magenta,
        AnsiColor::Cyan => Color::Cyan,
        AnsiColor::Yellow => Color::Yellow,
        _ => return Style::new(),
    };
    if view.is_colored() { Style::new().fg(color) } else { Style::new() }
}

const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);
const DIM: Style = Style::new().add_modifier(Modifier::DIM);

fn title(app: &App) -> Line<'static> {
    let (state, color) =
        if app.is_connected { ("connected", AnsiColor::Green) } else { ("not connected", AnsiColor::Red) };
    let state = Span::styled(state, style(&app.view, color));
    let system = app.sample.as_ref().and_then(|sample| sample.system).unwrap_or_default();
    let machine = format!(
        "   CPU {:.0}%  memory {:.0}%   server {} MiB",
        system.cpu_percent,
        system.memory_percent,
        system.process_memory_bytes >> 20
    );
    let server = app.server.trim_start_matches("http://").to_owned();
    Line::from(vec![Span::styled("lineshaft ", BOLD), server.into(), "   ".into(), state, machine.into()])
}

fn tabs(app: &App) -> Line<'static> {
    let tab = |(index, (tab, name)): (usize, &(Tab, &str))| {
        let selected = if *tab == app.tab { BOLD.add_modifier(Modifier::REVERSED) } else { Style::new() };
        [Span::styled(format!(" {} {name} ", index + 1), selected), Span::raw(" ")]
    };
    let mut spans: Vec<_> = Tab::ALL.iter().enumerate().flat_map(tab).collect();
    let filter = &app.rows[app.tab.index()].filter;
    if !filter.is_empty() && app.tab != Tab::Overview {
        spans.push(Span::styled(format!(" filter: {filter}"), style(&app.view, AnsiColor::Yellow)));
    }
    Line::from(spans)
}

fn footer(app: &App) -> Line<'static> {
    if let Some(text) = &app.editing {
        return Line::from(vec![Span::styled("filter: ", BOLD), format!("{text}\u{2588}").into()]);
    }
    if let Some(question) = &app.question {
        let force = matches!(question.call, Call::Cancel { .. });
        let keys = if force { "  y yes  f kill at once  n no" } else { "  y yes  n no" };
        let asked = Span::styled(question.text.clone(), BOLD.patch(style(&app.view, AnsiColor::Yellow)));
        return Line::from(vec![asked, keys.into()]);
    }
    if let Some((text, is_error)) = &app.status {
        let color = if *is_error { AnsiColor::Red } else { AnsiColor::Green };
        return Line::styled(terminal::line(text).into_owned(), style(&app.view, color));
    }
    let keys = match (&app.detail, app.tab) {
        (Some(_), _) => "Esc back  o stdout/stderr  c cancel  r retry  up/down scroll  ? help  q quit",
        (None, Tab::Overview) => "1-5 page  ? help  q quit",
        (None, Tab::Pools) => "up/down select  p pause  / filter  s sort  ? help  q quit",
        (None, _) => "up/down select  Enter task  c cancel  r retry  / filter  s sort  ? help  q quit",
    };
    Line::styled(keys, DIM)
}

fn list(frame: &mut Frame, app: &mut App, area: Rect) {
    let grid = app.grid(usize::from(area.width));
    let sort = app.rows().sort;
    let position = app.rows().position();
    let [heading, body] = Layout::vertical([Constraint::Length(1), Constraint::Fill(1)]).areas(area);
    frame.render_widget(headings(&grid, sort), heading);
    let height = usize::from(body.height);
    // The selected row is in the middle, unless the list ends before.
    let first = position.unwrap_or(0).saturating_sub(height / 2).min(grid.rows.len().saturating_sub(height));
    let shown = grid.rows.iter().enumerate().skip(first).take(height);
    let lines: Vec<_> = shown.map(|(index, cells)| row(&grid, cells, Some(index) == position, &app.view)).collect();
    let empty = if app.is_connected { "no rows" } else { "" };
    let text = if lines.is_empty() { vec![Line::styled(empty, DIM)] } else { lines };
    frame.render_widget(Paragraph::new(text), body);
}

fn headings(grid: &Grid, sort: Option<(usize, bool)>) -> Line<'static> {
    let heading = |column: &GridColumn| {
        let is_sorted = sort.is_some_and(|(index, _)| index == column.index);
        let style = if is_sorted { BOLD.add_modifier(Modifier::UNDERLINED) } else { BOLD };
        let blanks = " ".repeat((column.width + 2).saturating_sub(column.heading.len()));
        [Span::styled(column.heading, style), Span::raw(blanks)]
    };
    Line::from(grid.columns.iter().flat_map(heading).collect::<Vec<_>>())
}

fn row(grid: &Grid, cells: &[Cell], is_selected: bool, view: &View) -> Line<'static> {
    let cell = |(cell, column): (&Cell, &GridColumn)| {
        let style = cell.color.map(|color| style(view, color)).unwrap_or_default();
        let blanks = " ".repeat((column.width + 2).saturating_sub(console::measure_text_width(&cell.text)));
        [Span::styled(cell.text.clone(), style), Span::raw(blanks)]
    };
    let line = Line::from(cells.iter().zip(&grid.columns).flat_map(cell).collect::<Vec<_>>());
    if is_selected { line.style(Style::new().add_modifier(Modifier::REVERSED)) } else { line }
}

fn overview(frame: &mut Frame, app: &mut App, area: Rect) {
    let rows = Layout::vertical([Constraint::Length(7), Constraint::Length(9), Constraint::Fill(1)]);
    let [charts, figures, pools] = rows.areas(area);
    let halves = Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).spacing(2);
    let [submitted, finished] = halves.areas(charts);
    chart(frame, "submitted", &app.submitted, style(&app.view, AnsiColor::Cyan), submitted);
    chart(frame, "finished", &app.finished, style(&app.view, AnsiColor::Green), finished);
    let [tasks, times] = halves.areas(figures);
    let sample = app.sample.clone().unwrap_or_default();
    frame.render_widget(
        Paragraph::new(totals(&sample.pools, &app.view)).block(Block::bordered().title(" Tasks ")),
        tasks,
    );
    frame.render_widget(
        Paragraph::new(percentiles(&sample.pools)).block(Block::bordered().title(" Wait and run time ")),
        times,
    );
    let grid = app.grid(usize::from(pools.width));
    let mut lines = vec![headings(&grid, None)];
    lines.extend(grid.rows.iter().map(|cells| row(&grid, cells, false, &app.view)));
    frame.render_widget(Paragraph::new(lines), pools);
}

fn chart(frame: &mut Frame, name: &str, rates: &VecDeque<u64>, style: Style, area: Rect) {
    let width = usize::from(area.width.saturating_sub(2));
    let shown: Vec<u64> = rates.iter().skip(rates.len().saturating_sub(width)).copied().collect();
    let now = shown.last().copied().unwrap_or(0);
    let highest = shown.iter().copied().max().unwrap_or(0);
    let title = format!(" {now}/s {name}, at most {highest}/s ");
    let block = Block::bordered().title(title);
    frame.render_widget(Sparkline::default().data(&shown).style(style).block(block), area);
}

fn totals(pools: &[v1::PoolMetrics], view: &View) -> Vec<Line<'static>> {
    let sum = |number: fn(&v1::PoolMetrics) -> i64| pools.iter().map(number).sum::<i64>();
    let (completed, failed) = (sum(|pool| pool.completed), sum(|pool| pool.failed));
    #[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
    let success = if completed + failed == 0 { 100.0 } else { 100.0 * completed as f64 / (completed + failed) as f64 };
    let depth = |priority: v1::Priority| {
        let depths = pools.iter().flat_map(|pool| &pool.priorities);
        depths.filter(|depth| depth.priority() == priority).map(|depth| depth.queued).sum::<i64>()
    };
    let (busy, size) = (sum(|pool| pool.busy.into()), sum(|pool| pool.size.into()));
    let oldest = pools.iter().filter_map(|pool| pool.oldest_wait.as_ref()).map(from_proto).max().unwrap_or_default();
    let by_priority = [v1::Priority::Critical, v1::Priority::High, v1::Priority::Normal, v1::Priority::Low].map(depth);
    let [critical, high, normal, low] = by_priority;
    let failures = if failed > 0 { style(view, AnsiColor::Red) } else { Style::new() };
    vec![
        Line::from(format!("running    {}  busy {busy} of {size}", sum(|pool| pool.running))),
        Line::from(format!("queued     {}  C/H/N/L {critical}/{high}/{normal}/{low}", sum(|pool| pool.queued))),
        Line::from(format!("waiting    {}", sum(|pool| pool.waiting))),
        Line::from(format!("oldest     queued for {}", format_duration(oldest))),
        Line::from(format!("completed  {completed}  ({success:.1}% success)")),
        Line::styled(format!("failed     {failed}  retried {}", sum(|pool| pool.retried)), failures),
        Line::from(format!("cancelled  {}", sum(|pool| pool.cancelled))),
    ]
}

fn percentiles(pools: &[v1::PoolMetrics]) -> Vec<Line<'static>> {
    let mut lines = vec![Line::styled(format!("{:12}{:>8}{:>8}{:>8}", "", "p50", "p90", "p99"), BOLD)];
    let line = |pool: &str, name: &str, times: Option<&v1::Percentiles>| {
        let of =
            |value: fn(&v1::Percentiles) -> Option<&prost_types::Duration>| format::duration(times.and_then(value));
        let label: String = format!("{pool} {name}").chars().take(12).collect();
        Line::from(format!(
            "{label:12}{:>8}{:>8}{:>8}",
            of(|times| times.p50.as_ref()),
            of(|times| times.p90.as_ref()),
            of(|times| times.p99.as_ref())
        ))
    };
    for pool in pools.iter().take(3) {
        let name: String = pool.pool.chars().take(7).collect();
        lines.push(line(&name, "wait", pool.wait_time.as_ref()));
        lines.push(line(&name, "run", pool.run_time.as_ref()));
    }
    lines
}

/// A task, and the end of its output.
fn task(frame: &mut Frame, detail: &mut Detail, view: View, area: Rect) {
    let text = match &detail.task {
        Some(task) => print::details(task, &view.uncolored()).to_string(),
        None => detail.id.clone(),
    };
    let lines: Vec<Line> = text.lines().map(|line| Line::from(line.to_owned())).collect();
    let height = u16::try_from(lines.len()).unwrap_or(u16::MAX).clamp(1, DETAILS_MAX.min(area.height / 2));
    let [description, output] = Layout::vertical([Constraint::Length(height), Constraint::Fill(1)]).areas(area);
    frame.render_widget(Paragraph::new(lines), description);
    let lines = detail.lines();
    let room = usize::from(output.height.saturating_sub(2));
    detail.scrolled = detail.scrolled.min(lines.len().saturating_sub(room));
    let last = lines.len() - detail.scrolled;
    let shown = lines[last.saturating_sub(room)..last].iter().map(|line| Line::from(line.clone())).collect::<Vec<_>>();
    let stream = if detail.stderr { "stderr" } else { "stdout" };
    let above = if detail.scrolled > 0 { format!(", {} lines below", detail.scrolled) } else { String::new() };
    let title = format!(" {stream}: {} lines{above} ", lines.len());
    frame.render_widget(Paragraph::new(shown).block(Block::bordered().title(title)), output);
}

fn help(frame: &mut Frame, area: Rect) {
    let lines: Vec<_> = KEYS.iter().map(|(key, text)| Line::from(format!(" {key:30} {text}"))).collect();
    let height = u16::try_from(lines.len()).unwrap_or(0) + 2;
    let width = area.width.min(120);
    let place = Rect { x: (area.width - width) / 2, y: (area.height - height) / 2, width, height };
    frame.render_widget(Clear, place);
    let block = Block::bordered().title(" Keys ").title_alignment(Alignment::Center);
    frame.render_widget(Paragraph::new(lines).block(block), place);
}
