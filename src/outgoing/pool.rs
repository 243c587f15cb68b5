//! Connections that are kept between the requests of one client.

use std::sync::Arc;
use std::time::Instant;

use http::Request;

use super::{Connection, LONGEST_REST, Outgoing, Reply};
use crate::failure::Obstacle;
use crate::internal::bytes::WipedBytes;
use crate::internal::panics::Lock;
use crate::internal::time::Clocks;

/// The most idle connections that are kept.
const MAX_KEPT: usize = 4;

/// Idle connections for the next requests, each with the time since when it is idle.
#[derive(Clone, Default)]
pub(crate) struct Pool(Arc<Lock<Vec<(Connection, Clocks)>>>);

impl Pool {
    /// Sends a request that can be repeated over a kept connection, if there is one, and reads the whole
    /// answer; redirects are returned as answers. If the kept connection has ended in the meantime, a new
    /// one is made within the rest of the deadline. `request` creates the request.
    pub(crate) fn send(
        &self,
        outgoing: &Outgoing,
        request: impl Fn() -> Request<WipedBytes>,
    ) -> Result<Reply, Obstacle> {
        let begun = Instant::now();
        let kept = self.take();
        if let Some(connection) = kept {
            match outgoing.exchange(&connection, request(), outgoing.deadline).map_err(Obstacle::from) {
                Err(Obstacle::Broken) => {}
                answer => return self.keep(connection, answer),
            }
        }
        let left = outgoing.deadline.saturating_sub(begun.elapsed());
        if left.is_zero() {
            return Err(Obstacle::Deadline { after: outgoing.deadline });
        }
        let connection = outgoing.connection(1);
        let answer = outgoing.exchange(&connection, request(), left);
        self.keep(connection, answer.map_err(Obstacle::from))
    }

    /// Takes a connection that is not idle for too long by either clock: during a suspend the server closes
    /// its end.
    fn take(&self) -> Option<Connection> {
        let now = Clocks::now();
        let mut kept = self.0.lock();
        kept.retain(|(_, since)| !now.has_expired(*since, LONGEST_REST));
        kept.pop().map(|(connection, _)| connection)
    }

    fn keep(&self, connection: Connection, answer: Result<Reply, Obstacle>) -> Result<Reply, Obstacle> {
        let mut kept = self.0.lock();
        if answer.is_ok() && kept.len() < MAX_KEPT {
            kept.push((connection, Clocks::now()));
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};
    use std::thread;
    use std::time::Duration;

    use super::*;

    fn head(stream: &TcpStream) {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") && { stream }.read(&mut byte).is_ok_and(|count| count > 0) {
            head.push(byte[0]);
        }
    }

    fn request(listener: &TcpListener) -> Request<WipedBytes> {
        let uri = format!("http://{}/", listener.local_addr().unwrap());
        Request::get(uri).body(WipedBytes::default()).unwrap()
    }

    /// Answers the first request, and keeps the connection open.
    fn first(listener: &TcpListener) -> TcpStream {
        let mut stream = listener.accept().unwrap().0;
        head(&stream);
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").unwrap();
        stream
    }

    #[test]
    fn a_kept_connection_that_breaks_late_leaves_the_rest_alone() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let request = || request(&listener);
        thread::scope(|scope| {
            let server = scope.spawn(|| {
                let stream = first(&listener);
                head(&stream);
                thread::sleep(Duration::from_millis(700));
                drop(stream);
                // The next one is never answered.
                let silent = listener.accept().unwrap().0;
                thread::sleep(Duration::from_secs(3));
                drop(silent);
            });
            let (kept, outgoing) = (Pool::default(), Outgoing::new(Duration::from_secs(1), 100));
            assert_eq!(kept.send(&outgoing, request).map_err(|_| ()).unwrap().status, 200);
            let start = Instant::now();
            let after = Duration::from_secs(1);
            assert_eq!(kept.send(&outgoing, request).map(|_| ()), Err(Obstacle::Deadline { after }));
            let took = start.elapsed();
            assert!(took < Duration::from_millis(1450), "one deadline, and not two: {took:?}");
            server.join().unwrap();
        });
    }

    #[test]
    fn a_connection_that_has_rested_long_by_either_clock_is_left() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let request = || request(&listener);
        thread::scope(|scope| {
            let server = scope.spawn(|| {
                let kept_open = first(&listener);
                // Over the suspend, the other end has forgotten the first one.
                drop(first(&listener));
                drop(kept_open);
            });
            let (kept, outgoing) = (Pool::default(), Outgoing::new(Duration::from_secs(5), 100));
            assert!(kept.send(&outgoing, request).is_ok());
            let now = Clocks::now();
            for (_, since) in &mut *kept.0.lock() {
                // As many hours of the wall clock as the machine was suspended for.
                *since = Clocks::at(now.wall() - Duration::from_secs(7200), now.monotonic());
            }
            assert!(kept.send(&outgoing, request).is_ok());
            server.join().unwrap();
        });
    }
}
