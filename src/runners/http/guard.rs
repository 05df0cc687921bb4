//! Decides which addresses a handler may connect to, and resolves the name of its service.

use std::error::Error;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::client::legacy::connect::dns::Name;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tower::Service;

use crate::model::{Network, is_public};
use crate::runners::BoxFuture;

/// How long an answer is used for further connections, so that a burst of them needs one look-up.
const ANSWER_AGE_MAX: Duration = Duration::from_secs(1);

/// The name of a service leads to an address that the handler may not call.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{host}` has the address {address}, which is not public; if it is meant, add it to `allowed_networks` of the handler"
)]
pub(super) struct Refused {
    pub(super) host: String,
    pub(super) address: IpAddr,
}

/// Resolves the name of one host, to those of its addresses that the handler may connect to.
#[derive(Clone)]
pub(super) struct Guard {
    allowed: Arc<[Network]>,
    answer: Arc<Mutex<Option<Answer>>>,
}

struct Answer {
    at: Instant,
    name: String,
    addresses: Result<Vec<IpAddr>, Arc<io::Error>>,
}

impl Guard {
    pub(super) fn new(allowed: &[Network]) -> Self {
        Self { allowed: allowed.into(), answer: Arc::default() }
    }

    /// # Errors
    /// [`Refused`], without contacting the address.
    pub(super) fn check(&self, host: &str, address: IpAddr) -> Result<(), Refused> {
        if is_public(address) || self.allowed.iter().any(|network| network.contains(address)) {
            return Ok(());
        }
        Err(Refused { host: host.to_owned(), address })
    }

    async fn resolve(&self, name: &str) -> Result<Vec<SocketAddr>, Box<dyn Error + Send + Sync>> {
        let addresses = self.look_up(name).await.map_err(|error| io::Error::new(error.kind(), error.to_string()))?;
        let checked: Vec<_> = addresses.iter().map(|address| self.check(name, *address)).collect();
        let admitted = addresses.iter().zip(&checked).filter(|(_, checked)| checked.is_ok());
        let admitted: Vec<_> = admitted.map(|(address, _)| SocketAddr::new(*address, 0)).collect();
        match checked.into_iter().find_map(Result::err) {
            Some(refused) if admitted.is_empty() => Err(refused.into()),
            _ => Ok(admitted),
        }
    }

    /// The system resolves a name in a thread; one look-up runs at a time.
    async fn look_up(&self, name: &str) -> Result<Vec<IpAddr>, Arc<io::Error>> {
        let mut answer = self.answer.lock().await;
        if let Some(answer) =
            answer.as_ref().filter(|answer| answer.name == name && answer.at.elapsed() < ANSWER_AGE_MAX)
        {
            return answer.addresses.clone();
        }
        let found = tokio::net::lookup_host((name, 0)).await;
        let addresses = found.map(|found| found.map(|address| address.ip()).collect()).map_err(Arc::new);
        *answer = Some(Answer { at: Instant::now(), name: name.to_owned(), addresses: addresses.clone() });
        addresses
    }
}

impl Service<Name> for Guard {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = Box<dyn Error + Send + Sync>;
    type Future = BoxFuture<Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let guard = self.clone();
        Box::pin(async move { Ok(guard.resolve(name.as_str()).await?.into_iter()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(allowed: &[&str]) -> Guard {
        Guard::new(&allowed.iter().map(|network| Network::parse(network).unwrap()).collect::<Vec<_>>())
    }

    /// What names such as these resolve to depends on the system; they never resolve to a public address.
    #[tokio::test]
    async fn names_of_this_machine_are_refused_however_they_are_written() {
        for name in ["localhost", "127.1", "2130706433", "0x7f000001", "017700000001", "0", "localhost."] {
            let error = guard(&[]).resolve(name).await.expect_err(name);
            assert!(error.is::<Refused>() || error.is::<io::Error>(), "{name}: {error}");
        }
        let error = guard(&["10.0.0.0/8"]).resolve("localhost").await.unwrap_err();
        assert!(error.to_string().contains("`localhost` has the address"), "{error}");
    }

    #[tokio::test]
    async fn only_the_allowed_addresses_of_a_name_are_used() {
        let guard = guard(&["127.0.0.0/8", "::1"]);
        let addresses = guard.resolve("localhost").await.unwrap();
        assert!(!addresses.is_empty() && addresses.iter().all(|address| address.ip().is_loopback()));
        // As if the name had a private address as well.
        let mixed = vec!["10.0.0.1".parse().unwrap(), "127.0.0.1".parse().unwrap()];
        *guard.answer.lock().await =
            Some(Answer { at: Instant::now(), name: "mixed".to_owned(), addresses: Ok(mixed) });
        assert_eq!(guard.resolve("mixed").await.unwrap(), ["127.0.0.1:0".parse().unwrap()]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_used_for_a_second() {
        let guard = guard(&["192.0.2.0/24", "127.0.0.0/8", "::1"]);
        let stale = vec!["192.0.2.1".parse().unwrap()];
        *guard.answer.lock().await =
            Some(Answer { at: Instant::now(), name: "localhost".to_owned(), addresses: Ok(stale) });
        assert_eq!(guard.resolve("localhost").await.unwrap(), ["192.0.2.1:0".parse().unwrap()]);
        tokio::time::advance(ANSWER_AGE_MAX).await;
        assert!(guard.resolve("localhost").await.unwrap()[0].ip().is_loopback());
    }
}
