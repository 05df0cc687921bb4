//! Pages of workers.

use prost::Message;

use crate::proto::v1;

use super::filter::{checksum, page_size};
use super::invalid_fields::InvalidFields;

/// Maximum size of a page in bytes. Most clients refuse messages of more than 4 MiB.
const BYTES_MAX: usize = 3 << 20;

/// The page of a request.
pub struct WorkerPage {
    size: usize,
    /// The last worker of the previous page.
    after: Option<String>,
    /// The request without its page.
    conditions: v1::ListWorkersRequest,
}

/// The order of the workers: those of the server by number, remote ones by ID. A pool has only one kind.
type Position<'a> = (u64, &'a str);

fn position(name: &str, is_remote: bool) -> Position<'_> {
    let number = name.rsplit('-').next().filter(|_| !is_remote).and_then(|number| number.parse().ok());
    number.map_or((0, name), |number| (number, ""))
}

impl WorkerPage {
    /// # Errors
    /// [`InvalidFields`].
    pub fn parse(request: &v1::ListWorkersRequest) -> Result<Self, InvalidFields> {
        let size = page_size(request.page_size)?;
        let conditions = v1::ListWorkersRequest { pool: request.pool.clone(), ..v1::ListWorkersRequest::default() };
        let after = request.page_token.split_once('-').map(|(_, name)| name.to_owned());
        let page = Self { size, after, conditions };
        if page.after.as_deref().map(|name| page.token(name)).unwrap_or_default() != request.page_token {
            let description = "is not valid for this pool; pass the token of the previous page unchanged";
            return Err(InvalidFields::one("page_token", description));
        }
        Ok(page)
    }

    fn token(&self, after: &str) -> String {
        format!("{:x}-{after}", checksum(after, &self.conditions))
    }

    /// The workers of the page, of all workers in their order, and the token of the next page. At least one, if there is one.
    pub fn of(&self, mut workers: Vec<v1::Worker>) -> (Vec<v1::Worker>, String) {
        if let Some(after) = &self.after {
            let is_later = |worker: &v1::Worker| {
                let is_remote = worker.remote.is_some();
                position(&worker.name, is_remote) > position(after, is_remote)
            };
            workers.retain(is_later);
        }
        let mut bytes = 0;
        let fits = |worker: &&v1::Worker| {
            bytes += worker.encoded_len();
            bytes <= BYTES_MAX
        };
        let count = workers.iter().take(self.size).take_while(fits).count().max(1);
        let is_last = count >= workers.len();
        workers.truncate(count);
        let token = workers.last().filter(|_| !is_last).map(|last| self.token(&last.name));
        (workers, token.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(number: usize) -> v1::Worker {
        v1::Worker { name: format!("PoolWorker-{number}"), ..v1::Worker::default() }
    }

    fn remote(name: &str, handlers: usize) -> v1::Worker {
        let handlers = vec!["h".repeat(64); handlers];
        let remote = Some(v1::RemoteWorker { handlers, ..v1::RemoteWorker::default() });
        v1::Worker { name: name.to_owned(), remote, ..v1::Worker::default() }
    }

    fn page(page_size: i32, page_token: &str) -> WorkerPage {
        let (pool, page_token) = ("p".to_owned(), page_token.to_owned());
        WorkerPage::parse(&v1::ListWorkersRequest { pool, page_size, page_token }).unwrap()
    }

    /// The names of the workers of all pages.
    fn pages(size: i32, mut workers: impl FnMut() -> Vec<v1::Worker>) -> Vec<Vec<String>> {
        let (mut pages, mut token) = (Vec::new(), String::new());
        loop {
            let (found, next) = page(size, &token).of(workers());
            pages.push(found.into_iter().map(|worker| worker.name).collect());
            if next.is_empty() {
                return pages;
            }
            token = next;
        }
    }

    #[test]
    fn workers_of_the_server_have_the_order_of_their_numbers_on_all_pages() {
        let found = pages(4, || (7..17).map(local).collect());
        assert_eq!(found.iter().map(Vec::len).collect::<Vec<_>>(), [4, 4, 2]);
        assert_eq!(found.concat(), (7..17).map(|number| local(number).name).collect::<Vec<_>>());
        assert_eq!(pages(10, || (0..10).map(local).collect()).len(), 1, "a full last page has no token");
        assert_eq!(pages(0, Vec::new), [Vec::<String>::new()]);
    }

    #[test]
    fn a_page_begins_after_the_last_worker_of_the_one_before_although_workers_come_and_go() {
        let mut left = vec![vec!["a", "b-9", "c", "d"], vec!["a", "aa", "c", "d", "e"], vec!["e"]].into_iter();
        let found = pages(2, || left.next().unwrap().into_iter().map(|name| remote(name, 1)).collect());
        assert_eq!(found, [vec!["a", "b-9"], vec!["c", "d"], vec!["e"]]);
    }

    #[test]
    fn a_page_of_large_workers_is_cut_at_its_size_in_bytes() {
        let workers = || (0..90).map(|number| remote(&format!("w{number:02}"), 1_000)).collect();
        let found = pages(0, workers);
        assert_eq!(found.iter().map(Vec::len).collect::<Vec<_>>(), [47, 43]);
    }

    #[test]
    fn a_token_is_valid_only_for_its_pool_and_unchanged() {
        let token = page(1, "").of(vec![local(1), local(2)]).1;
        for (pool, token) in [("q", token.clone()), ("p", token.replace('1', "2")), ("p", "x".to_owned())] {
            let request = v1::ListWorkersRequest { pool: pool.to_owned(), page_size: 1, page_token: token };
            assert_eq!(WorkerPage::parse(&request).err().unwrap().paths(), ["page_token"]);
        }
    }
}
