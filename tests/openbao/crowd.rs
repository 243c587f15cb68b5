//! Many secrets of one slow OpenBao, read by one process.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Instant;

use keysheath::key::Origin;
use keysheath::source::CallError;

use super::*;
use crate::support::answering::measured;

const MOUNT: &str = r#"{"data":{"path":"secret/","type":"kv","options":{"version":"2"}}}"#;

/// A server that takes any number of connections at once, and `time` for each answer.
fn slow(time: Duration) -> OpenBao {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let origin = Origin::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || drop(answer(&stream, time)));
        }
    });
    OpenBao::at(origin, Login::token("s.secrettoken".to_owned())).unwrap()
}

fn answer(mut stream: &TcpStream, time: Duration) -> std::io::Result<()> {
    let mut head = String::new();
    let mut reader = BufReader::new(stream);
    while reader.read_line(&mut head)? > 2 {}
    let body = if head.contains("/lookup-self ") {
        r#"{"data":{"ttl":0}}"#.to_owned()
    } else if head.contains("/sys/internal/ui/mounts/") {
        MOUNT.to_owned()
    } else {
        thread::sleep(time);
        format!(r#"{{"data":{{"data":{{"key":"{KEY}"}},"metadata":{{"version":7,"created_time":"t"}}}}}}"#)
    };
    stream.write_all(&measured("200 OK", body.as_bytes()))
}

/// The outcomes of a load of each source, all at once.
fn load_all(sources: &[OpenBaoField]) -> Vec<Result<(), Problem>> {
    let load =
        |source| source::load(source, Kanal::PROFILE).map(drop).map_err(|error| error.problem().clone());
    thread::scope(|scope| {
        let loads: Vec<_> = sources.iter().map(|source| scope.spawn(move || load(source))).collect();
        loads.into_iter().map(|load| load.join().unwrap()).collect()
    })
}

fn sources(client: &OpenBao, count: usize) -> Vec<OpenBaoField> {
    (0..count).map(|number| field(client.clone(), &format!("secret/shop-{number}"))).collect()
}

#[test]
fn a_hundred_secrets_of_a_slow_server_are_all_read_in_time() {
    let client = slow(Duration::from_millis(200)).with_deadline(Duration::from_secs(3));
    let sources = sources(&client, 100);
    let start = Instant::now();
    let outcomes = load_all(&sources);
    let bad: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).collect();
    assert!(bad.is_empty(), "{} of 100 failed: {}", bad.len(), bad[0]);
    println!("100 secrets at 200 ms an answer: {:?}", start.elapsed());
}

#[test]
fn a_call_that_waits_for_its_server_says_so() {
    let deadline = Duration::from_secs(1);
    let client = slow(Duration::from_millis(400)).with_deadline(deadline).with_max_calls(2);
    let outcomes = load_all(&sources(&client, 20));
    let good = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    assert!((2..=4).contains(&good), "{good} were good");
    let mut queued = 0;
    for problem in outcomes.into_iter().filter_map(Result::err) {
        match problem {
            Problem::Call(CallError::Queued { waited, under_way }) => {
                assert!(waited == deadline && under_way <= 2, "{problem}");
                queued += 1;
            }
            Problem::Call(CallError::LateTurn { .. }) => {}
            other => panic!("{other}"),
        }
    }
    assert!(queued >= 10, "{queued} were queued");
}

#[test]
fn one_secret_of_a_server_does_not_take_the_turns_of_others() {
    let client = slow(Duration::from_millis(300)).with_deadline(Duration::from_secs(8));
    let one = field(client.clone(), "secret/asked-often");
    let often: Vec<_> = (0..40).map(|_| one.clone()).collect();
    thread::scope(|scope| {
        let crowd = scope.spawn(move || load_all(&often));
        thread::sleep(Duration::from_millis(150));
        let start = Instant::now();
        assert_gives_the_key(&field(client, "secret/another"));
        // Forty loads of the first take ten times as long as one.
        assert!(start.elapsed() < Duration::from_millis(1500), "it waited for {:?}", start.elapsed());
        assert!(crowd.join().unwrap().iter().all(Result::is_ok));
    });
}
