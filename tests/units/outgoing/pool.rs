//! Connections that are kept between requests.

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
