//! Stands for `tls` in a build without the feature `emulator-tls`: no acceptor can be made.

use std::io;

use tokio::net::TcpStream;

pub(super) type Encrypted = TcpStream;

#[derive(Clone)]
pub(super) enum Acceptor {}

impl Acceptor {
    #[allow(clippy::unused_async, reason = "with the feature it waits")]
    pub(super) async fn accept(&self, _: TcpStream) -> io::Result<Encrypted> {
        match *self {}
    }
}

pub(super) const fn socket(stream: &mut Encrypted) -> &mut TcpStream {
    stream
}

#[derive(Debug)]
pub(super) enum Certificate {}

pub(super) const fn make() -> Option<(Acceptor, Certificate)> {
    None
}
