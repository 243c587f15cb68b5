//! Asking Katana.

use std::time::Duration;

use http::Request;
use zeroize::Zeroizing;

use super::asking::Asking;
use super::{Finding, Probe, Report};
use crate::client::OriginGuard;
use crate::failure::{Answer, Obstacle};
use crate::key::{Katana, RawKey, Roots};

/// The cheapest request that needs a key.
const PATH: &str = "/v1/products?limit=1";

/// Asks Katana whether a key works, by `GET /v1/products?limit=1`: an ordinary, documented read. It writes nothing, and
/// counts against the key's limit (60 requests in 60 s).
///
/// ```no_run
/// use keysheath::key::{ApiKey, Katana};
/// use keysheath::probe::{KatanaProbe, Probe};
///
/// let key = ApiKey::<Katana>::parse("0190b3c4-5d6e-7f80-9a1b-2c3d4e5f6071").unwrap();
/// println!("{}", KatanaProbe::new().probe(key.as_raw()));
/// ```
#[derive(Clone, Debug)]
pub struct KatanaProbe {
    asking: Asking<Katana>,
}

impl KatanaProbe {
    /// Asks `https://api.katanamrp.com`.
    ///
    /// ```
    /// let probe = keysheath::probe::KatanaProbe::new();
    /// ```
    #[must_use]
    pub fn new() -> Self {
        Self { asking: Asking::new() }
    }

    /// At another origin in Katana's stead: a test server or a gateway.
    ///
    /// ```
    /// use keysheath::client::OriginGuard;
    /// use keysheath::key::Origin;
    /// use keysheath::probe::KatanaProbe;
    ///
    /// let server = Origin::parse("http://127.0.0.1:8080")?;
    /// let probe = KatanaProbe::new().at(OriginGuard::for_loopback(server)?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn at(self, guard: OriginGuard<Katana>) -> Self {
        Self { asking: self.asking.at(guard) }
    }

    /// With another deadline than [`DEFAULT_DEADLINE`](super::DEFAULT_DEADLINE), at most
    /// [`MAX_DEADLINE`](super::MAX_DEADLINE).
    ///
    /// ```
    /// # use std::time::Duration;
    /// let probe = keysheath::probe::KatanaProbe::new().with_deadline(Duration::from_secs(3));
    /// ```
    #[must_use]
    pub fn with_deadline(self, deadline: Duration) -> Self {
        Self { asking: self.asking.with_deadline(deadline) }
    }

    /// With authorities of your own in the stead of the public ones.
    ///
    /// ```no_run
    /// # use keysheath::key::Roots;
    /// # use keysheath::probe::KatanaProbe;
    /// let roots = Roots::from_pem(&std::fs::read("/etc/ssl/shop-ca.pem")?)?;
    /// let probe = KatanaProbe::new().with_roots(roots);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn with_roots(self, roots: Roots) -> Self {
        Self { asking: self.asking.with_roots(roots) }
    }

    fn ask(&self, key: &RawKey) -> Result<Answer, Obstacle> {
        let header = Asking::header(key)?;
        let request = Request::get(PATH).body(Zeroizing::default()).map_err(|_| Obstacle::Local)?;
        self.asking.ask(&header, request)
    }
}

impl Default for KatanaProbe {
    fn default() -> Self {
        Self::new()
    }
}

impl Probe for KatanaProbe {
    fn probe(&self, key: &RawKey) -> Report {
        Report::new(Finding::new(self.ask(key)))
    }
}
