//! A small HTTP server on 127.0.0.1 that answers as the issuer's failure table says.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use keysheath::failure::{KANAL, Meaning};
use keysheath::issuer::StoreId;
use keysheath::key::RawKey;
use keysheath::origin::Origin;

pub const OWN_STORE: StoreId = store(123);
pub const FOREIGN_STORE: StoreId = store(456);
pub const PAUSED_STORE: StoreId = store(789);

/// The longest request that is read, in bytes.
const MAX_REQUEST: u64 = 8 * 1024;

const fn store(number: u64) -> StoreId {
    match StoreId::new(number) {
        Some(store) => store,
        None => panic!("a store's number is positive"),
    }
}

/// Serves until the program ends.
pub struct Server {
    origin: Origin,
}

struct Shop {
    key: RawKey,
    own: StoreId,
}

impl Server {
    /// Starts a server that accepts `key`, for the store `own` where the issuer has stores.
    pub fn start(key: RawKey, own: StoreId) -> io::Result<Self> {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        let address = listener.local_addr()?;
        let shop = Arc::new(Shop { key, own });
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shop = Arc::clone(&shop);
                // A connection that breaks concerns nobody else.
                thread::spawn(move || shop.serve(&stream).ok());
            }
        });
        let origin = Origin::parse(&format!("http://{address}")).map_err(io::Error::other)?;
        Ok(Self { origin })
    }

    pub const fn origin(&self) -> &Origin {
        &self.origin
    }
}

impl Shop {
    fn serve(&self, stream: &TcpStream) -> io::Result<()> {
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let mut reader = BufReader::new(stream.take(MAX_REQUEST));
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
        let (mut authorization, mut length) = (None, 0);
        loop {
            line.clear();
            reader.read_line(&mut line)?;
            let Some((name, value)) = line.split_once(':') else { break };
            match name.to_ascii_lowercase().as_str() {
                "authorization" => authorization = Some(value.trim().to_owned()),
                "content-length" => length = value.trim().parse().map_err(io::Error::other)?,
                _ => {}
            }
        }
        let mut body = Vec::new();
        reader.take(length).read_to_end(&mut body)?;
        let (status, answer) = self.answer(&path, authorization.as_deref(), &body);
        write!(
            &*stream,
            "HTTP/1.1 {status} \r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
             connection: close\r\n\r\n{answer}",
            answer.len()
        )
    }

    fn answer(&self, path: &str, authorization: Option<&str>, body: &[u8]) -> (u16, String) {
        let key = authorization.map(|value| value.strip_prefix("Bearer ").unwrap_or_default());
        let accepted = key.is_some_and(|key| self.key.matches(key.as_bytes()));
        if path.starts_with("/v1/") {
            return if accepted { (200, r#"{"data":[]}"#.to_owned()) } else { katana_refusal() };
        }
        let store = path.split('/').nth(4).and_then(|store| store.parse::<StoreId>().ok());
        match store {
            _ if key.is_none() => row(Meaning::KeyMissing),
            _ if !accepted => row(Meaning::KeyRefused),
            Some(store) if store == self.own && body.starts_with(b"{ \"phone\"") => (200, "{}".to_owned()),
            Some(store) if store == self.own => {
                (422, r#"{"message":"Invalid.","errors":{"phone":["Required."]}}"#.to_owned())
            }
            Some(FOREIGN_STORE) => row(Meaning::StoreForbidden),
            _ => row(Meaning::StoreNotFound),
        }
    }
}

fn row(meaning: Meaning) -> (u16, String) {
    let row = KANAL.iter().find(|row| row.meaning() == meaning);
    row.map_or((500, String::new()), |row| (row.status(), row.body().unwrap_or_default()))
}

fn katana_refusal() -> (u16, String) {
    (401, r#"{"statusCode":401,"name":"UnauthorizedError","message":"Unauthorized"}"#.to_owned())
}
