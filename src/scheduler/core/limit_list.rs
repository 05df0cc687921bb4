//! The limits that are configured or in use, with what is taken of them.

use crate::model::task_limit::LimitIdRef;
use crate::model::{LimitId, LimitRule, Namespace, Timestamp};

use super::limit_table::{Limit, Token};
use super::state::Core;

/// Limits that are looked at for a page, so that it costs the same however many there are.
const EXAMINED_MAX: usize = if cfg!(test) { 8 } else { 10_000 };

/// Limits that have no key are those of all namespaces, and match for each.
#[derive(Clone, Debug, Default)]
pub struct LimitFilter {
    /// Any of these namespaces; empty: all.
    pub namespaces: Vec<Namespace>,
    /// Only limits for which tasks wait.
    pub only_waiting: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitView {
    pub id: LimitId,
    /// `None` if the limit is not configured any more, or is a key whose tasks are not known.
    pub rule: Option<LimitRule>,
    /// Unfinished tasks that name it.
    pub tasks: usize,
    /// Of these, those that have a place: QUEUED or RUNNING.
    pub taken: usize,
    /// Of these, those that wait for it.
    pub waiting: usize,
    /// Tokens that are free now; `None` without a rate.
    pub tokens: Option<u32>,
    /// If none is free, when the next one is; `None` if that depends on tasks that have not started.
    pub next_token: Option<Timestamp>,
}

#[derive(Clone, Debug, Default)]
pub struct LimitPage {
    pub limits: Vec<LimitView>,
    /// Where the next page begins.
    pub next: Option<u64>,
}

impl Core {
    /// Up to `count` limits that match: first those of the configuration that have no key, and then those that unfinished tasks
    /// use, in no order. A page can end early. `from`: 0, or where the page before ended.
    pub fn list_limits(&self, now: Timestamp, filter: &LimitFilter, from: u64, count: usize) -> LimitPage {
        let configured = &self.options.catalog.limits;
        let first = usize::try_from(from).unwrap_or(usize::MAX);
        let shared = configured.keys().map(|name| Some(LimitIdRef { namespace: None, name: Some(name), key: "" }));
        let is_shared =
            |id: &LimitIdRef<'_>| id.key.is_empty() && id.name.is_some_and(|name| configured.contains_key(name));
        let used = self.limits.ids(first.saturating_sub(configured.len()));
        let used = used.map(|id| id.filter(|id| !is_shared(id)));
        let mut page = LimitPage::default();
        for (examined, id) in shared.skip(first).chain(used).enumerate() {
            if page.limits.len() == count || examined == EXAMINED_MAX {
                page.next = Some(from + examined as u64);
                break;
            }
            let Some(id) = id.filter(|id| filter.matches_namespace(id)) else { continue };
            let view = self.limit_view(now, id);
            page.limits.extend((view.waiting > 0 || !filter.only_waiting).then_some(view));
        }
        page
    }

    fn limit_view(&self, now: Timestamp, id: LimitIdRef<'_>) -> LimitView {
        let found = self.limits.find(id);
        let rule = match id.name {
            Some(name) => self.options.catalog.limits.get(name),
            None => found.and_then(|limit| self.own_rule(id, limit)),
        };
        let rate = rule.and_then(|rule| rule.rate);
        let tokens = rate.map(|rate| found.map_or(rate.burst, |limit| limit.tokens(rate, now)));
        let next_token = match (rate, found) {
            (Some(rate), Some(limit)) => match limit.token(rate, now) {
                Token::At(at) => Some(at),
                Token::Free | Token::AfterStart => None,
            },
            _ => None,
        };
        LimitView {
            id: id.to_id(),
            rule: rule.copied(),
            tasks: found.map_or(0, |limit| limit.tasks),
            taken: found.map_or(0, |limit| limit.taken),
            waiting: found.map_or(0, |limit| limit.waiting.len()),
            tokens,
            next_token,
        }
    }

    /// Each task has its own numbers of a key. Returns those of the first task that waits, or else of the newest one.
    fn own_rule(&self, id: LimitIdRef<'_>, limit: &Limit) -> Option<&LimitRule> {
        let first = limit.waiting.first().map(|turn| turn.index);
        first.into_iter().chain([limit.newest]).find_map(|index| {
            let options = &self.tasks.get(index)?.spec.options;
            self.rule_of(options.limits.iter().find(|named| named.id(&options.namespace) == id)?)
        })
    }
}

impl LimitFilter {
    fn matches_namespace(&self, id: &LimitIdRef<'_>) -> bool {
        id.namespace.is_none_or(|own| self.namespaces.is_empty() || self.namespaces.contains(own))
    }
}
