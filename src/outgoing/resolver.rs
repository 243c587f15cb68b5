//! Looking up a host's name, which the system may let hang.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

use http::Uri;
use ureq::Error;
use ureq::config::Config;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

/// The most look-ups at once in this process, abandoned ones included. A further one fails at once, as one
/// past its deadline.
const MAX_LOOKUPS: usize = 16;

/// More addresses than a host needs; ureq's list holds as many.
const MAX_ADDRESSES: usize = 16;

static UNDER_WAY: AtomicUsize = AtomicUsize::new(0);

/// Takes an address as it is, and looks a name up on a thread of its own, which is left behind at the
/// deadline.
#[derive(Debug)]
pub(super) struct NameResolver;

/// The right to one look-up.
struct Slot;

impl Slot {
    fn take() -> Option<Self> {
        let next = |count| (count < MAX_LOOKUPS).then_some(count + 1);
        UNDER_WAY.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).ok().map(|_| Self)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        UNDER_WAY.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Resolver for NameResolver {
    fn resolve(&self, uri: &Uri, _: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let host = uri.host().ok_or(Error::HostNotFound)?.to_owned();
        let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("http") { 80 } else { 443 });
        let mut addresses = self.empty();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        if let Ok(address) = bare.parse::<IpAddr>() {
            addresses.push(SocketAddr::new(address, port));
            return Ok(addresses);
        }
        let late = || Error::Timeout(timeout.reason);
        let slot = Slot::take().ok_or_else(late)?;
        let (sender, found) = mpsc::sync_channel(1);
        let look_up = move || {
            let found = (host.as_str(), port).to_socket_addrs();
            drop(slot);
            // The caller may have given up.
            let _ = sender.send(found);
        };
        thread::Builder::new().name("keysheath-names".into()).spawn(look_up)?;
        // A failed look-up has no kind of its own among the system's errors.
        let found = found.recv_timeout(*timeout.after).map_err(|_| late())?.map_err(not_found)?;
        found.take(MAX_ADDRESSES).for_each(|address| addresses.push(address));
        if addresses.is_empty() { Err(Error::HostNotFound) } else { Ok(addresses) }
    }
}

fn not_found(_: io::Error) -> Error {
    Error::HostNotFound
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn resolve(uri: &str, timeout: NextTimeout) -> Result<Vec<SocketAddr>, Error> {
        let uri = uri.parse().expect("a URI");
        NameResolver.resolve(&uri, &Config::default(), timeout).map(|found| found.to_vec())
    }

    #[test]
    fn addresses_are_used_as_they_are_and_lookups_are_bounded() {
        let patient = NextTimeout::default();
        for (uri, expected) in [
            ("http://127.0.0.1/x", "127.0.0.1:80"),
            ("https://127.0.0.1", "127.0.0.1:443"),
            ("http://127.0.0.1:8080", "127.0.0.1:8080"),
            ("https://[::1]:8443/", "[::1]:8443"),
        ] {
            assert_eq!(resolve(uri, patient).unwrap(), [expected.parse().unwrap()], "{uri}");
        }
        assert!(resolve("http://localhost:1", patient).unwrap().iter().all(|found| found.ip().is_loopback()));

        let slots: Vec<_> = std::iter::from_fn(Slot::take).collect();
        assert_eq!(slots.len(), MAX_LOOKUPS);
        let started = Instant::now();
        assert!(matches!(resolve("http://localhost:1", patient), Err(Error::Timeout(_))));
        assert!(started.elapsed().as_secs() < 5, "it fails at once");
        assert!(resolve("http://127.0.0.1", patient).is_ok(), "an address needs no slot");
        drop(slots);
        assert!(resolve("http://localhost:1", patient).is_ok());
    }
}
