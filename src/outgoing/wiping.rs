//! Buffers that are wiped. Without this, ureq frees its output buffer with the whole header in it.

use ureq::Error;
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, Transport};
use zeroize::Zeroize as _;

/// The last link of a chain of connectors: what the others made, with buffers that are wiped.
#[derive(Debug)]
pub(super) struct Wiping;

/// A connection whose output is wiped as soon as it is sent, and whose input when it ends.
#[derive(Debug)]
pub(super) struct Wiped<T: Transport>(T);

impl<In: Transport> Connector<In> for Wiping {
    type Out = Wiped<In>;

    fn connect(&self, _: &ConnectionDetails<'_>, made: Option<In>) -> Result<Option<Self::Out>, Error> {
        Ok(made.map(Wiped))
    }
}

impl<T: Transport> Transport for Wiped<T> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.0.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        let sent = self.0.transmit_output(amount, timeout);
        self.0.buffers().output()[..amount].zeroize();
        sent
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.0.await_input(timeout)
    }

    fn is_open(&mut self) -> bool {
        self.0.is_open()
    }

    fn is_tls(&self) -> bool {
        self.0.is_tls()
    }
}

impl<T: Transport> Drop for Wiped<T> {
    fn drop(&mut self) {
        let buffers = self.0.buffers();
        buffers.output().zeroize();
        // Consumed to the end, the whole of the input buffer is free, and can be wiped.
        let unread = buffers.input().len();
        buffers.input_consume(unread);
        buffers.input_append_buf().zeroize();
    }
}
