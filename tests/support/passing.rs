//! A server that passes requests on to OpenBao, and keeps what was asked and how it was answered.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use keysheath::key::Origin;
use rustix::process::{Pid, Signal, kill_process};

/// Serves until the test's process ends. Each connection carries one request.
pub(crate) struct Passing {
    pub(crate) origin: Origin,
    seen: Arc<Mutex<Vec<Passed>>>,
}

/// A cluster's active node, which takes the writes, and a standby that has the reads and hears of each write
/// late: it stands still from before the write until it has been asked.
pub(crate) struct Late {
    pub(crate) leader: String,
    pub(crate) standby: String,
    /// The standby's process.
    pub(crate) process: Pid,
}

/// A request that was passed on, and the status that came back.
#[derive(Clone, Debug)]
pub(crate) struct Passed {
    pub(crate) method: String,
    /// What follows `/v1/`.
    pub(crate) path: String,
    /// The names of OpenBao's own headers, as they came.
    pub(crate) headers: Vec<String>,
    pub(crate) status: u16,
    /// Whether the answer had an `X-Vault-Index`.
    pub(crate) is_indexed: bool,
}

impl Passing {
    /// To a server at `target`, such as `https://127.0.0.1:8200`, whose certificate is `pem`. The header
    /// `without` is taken away on the way.
    pub(crate) fn to(target: String, pem: &str, without: Option<&'static str>) -> Self {
        Self::start(pem, without, move |_, _| target.clone())
    }

    /// As [`Passing::to`], to a standby that is late.
    pub(crate) fn to_late(late: Late, pem: &str, without: Option<&'static str>) -> Self {
        Self::start(pem, without, move |method, path| {
            let is_write = method == "POST" && path.contains("/data/");
            if is_write {
                kill_process(late.process, Signal::STOP).unwrap();
                return late.leader.clone();
            }
            let process = late.process;
            thread::spawn(move || {
                thread::sleep(Duration::from_millis(5));
                kill_process(process, Signal::CONT).unwrap();
            });
            late.standby.clone()
        })
    }

    fn start(
        pem: &str,
        without: Option<&'static str>,
        target: impl Fn(&str, &str) -> String + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let origin = Origin::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        let seen = Arc::<Mutex<Vec<_>>>::default();
        let (kept, agent) = (Arc::clone(&seen), super::http::agent(Some(pem)));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A client that hangs up early finds its end.
                let _ = pass_on(&stream, &agent, &target, without, &kept);
            }
        });
        Self { origin, seen }
    }

    pub(crate) fn seen(&self) -> Vec<Passed> {
        self.seen.lock().unwrap().clone()
    }

    /// How many requests were of this kind.
    pub(crate) fn count(&self, is_so: impl Fn(&Passed) -> bool) -> usize {
        self.seen.lock().unwrap().iter().filter(|passed| is_so(passed)).count()
    }
}

fn pass_on(
    mut stream: &TcpStream,
    agent: &ureq::Agent,
    target: &dyn Fn(&str, &str) -> String,
    without: Option<&str>,
    seen: &Mutex<Vec<Passed>>,
) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while reader.read_line(&mut head)? > 2 {}
    let mut lines = head.lines();
    let mut first = lines.next().unwrap_or_default().split(' ');
    let (method, path) = (first.next().unwrap_or_default(), first.next().unwrap_or_default());
    let headers: Vec<_> = lines.filter_map(|line| line.split_once(": ")).collect();
    let length =
        headers.iter().find(|(name, _)| *name == "content-length").map(|(_, value)| value.parse().unwrap());
    let mut body = String::new();
    reader.take(length.unwrap_or(0)).read_to_string(&mut body)?;
    let own = headers.iter().filter(|(name, _)| name.starts_with("x-vault"));
    let mut request =
        ureq::http::Request::builder().method(method).uri(format!("{}{path}", target(method, path)));
    for (name, value) in own.clone().filter(|(name, _)| Some(*name) != without) {
        request = request.header(*name, *value);
    }
    let request = request.body(body).map_err(io::Error::other)?;
    let answer = super::http::send(agent, request).map_err(io::Error::other)?;
    let index = answer.header("x-vault-index");
    seen.lock().unwrap().push(Passed {
        method: method.to_owned(),
        path: path.trim_start_matches("/v1/").to_owned(),
        headers: own.map(|(name, _)| (*name).to_owned()).collect(),
        status: answer.status,
        is_indexed: index.is_some(),
    });
    let index = index.map_or_else(String::new, |index| format!("x-vault-index: {index}\r\n"));
    write!(
        stream,
        "HTTP/1.1 {} Passed\r\n{index}connection: close\r\ncontent-length: {}\r\n\r\n{}",
        answer.status,
        answer.body.len(),
        answer.body
    )
}
