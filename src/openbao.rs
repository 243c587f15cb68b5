//! OpenBao: a server that keeps the secrets of a fleet. Vault has the same API.
//!
//! An [`OpenBao`] is a client of one server or cluster. A key is read from it by `source::OpenBaoField`, and the key set of a
//! rotation is kept in it by `document::OpenBaoStore`; both ask a *key-value secrets engine of version 2*, which keeps
//! versions and can write only if unchanged. Version 1 can not, and would ignore the request to do so: it is refused.
//!
//! OpenBao 2.7 is what this was tested against. Vault's documented API is the same one; it was not run.
//!
//! - **Where a token goes.** To the address and to the [members](OpenBao::with_members) that were named, over TLS (an
//!   IP-literal loopback address excepted, and what [`OpenBao::at_plain_http`] names), without a proxy. A redirect is followed to
//!   those alone.
//! - **Consistency.** Standbys answer reads from their own store, which may be behind. Each call carries what the server
//!   said of the last answer (`X-Vault-Index`) and asks a standby that has not seen it to hand the call to the active node
//!   (`X-Vault-Inconsistent: forward-active-node`). So a client sees what it has seen or written before, and nothing older; what
//!   another client has written it sees once the standby that it asks has heard of that: some tens of milliseconds later, and
//!   later where the standby was away or is cut off. Nothing is overwritten by that: a step on an older key set is refused. A
//!   refresher asks again (`RefreshSettings::with_lag`) when its key is refused. But a process that starts beside such a standby
//!   may be shown an older next step: who acts on one asks a cluster whose members are all well.
//! - **What passes.** A server that is away, an election, a rate limit and a failure are met by asking again, with pauses that double
//!   from 0.1 s to 1 s, until the [deadline](OpenBao::with_deadline). A write is asked again only where the server surely has
//!   not done it.
//! - **Bounds.** An answer has at most [`MAX_ANSWER`] bytes. A process makes at most four calls at once to one secret
//!   ([`MAX_CALLS_PER_PLACE`](crate::source::MAX_CALLS_PER_PLACE)), 32 to one server
//!   ([`with_max_calls`](OpenBao::with_max_calls)), and 64 to all places together; a further call waits for its turn within its
//!   deadline, and says so where it does not come. So a process that follows 100 key sets in one OpenBao reads all of them in
//!   about four times what one answer takes: 0.8 s at 200 ms, 4 s at 1 s. Its deadline should be above that.
//!
//! # Policies
//! What a service needs that reads a key or follows a key set at `secret/shop/kanal`, and no more:
//!
//! ```text
//! path "secret/data/shop/kanal"     { capabilities = ["read"] }
//! path "secret/metadata/shop/kanal" { capabilities = ["read"] }
//! ```
//!
//! And whoever rotates:
//!
//! ```text
//! path "secret/data/shop/kanal"     { capabilities = ["create", "read", "update"] }
//! path "secret/metadata/shop/kanal" { capabilities = ["read"] }
//! ```
//!
//! A service that shows which key it uses (`rotation::Presence`) in `secret/shop/kanal-presence` needs, beside what it reads:
//!
//! ```text
//! path "secret/data/shop/kanal-presence"     { capabilities = ["create", "read", "update"] }
//! path "secret/metadata/shop/kanal-presence" { capabilities = ["read"] }
//! ```
//!
//! And whoever rotates that fleet, to see it:
//!
//! ```text
//! path "secret/data/shop/kanal-presence" { capabilities = ["read"] }
//! ```
//!
//! A key alone (`OpenBaoField`) needs nothing of `metadata`. Beside them a token needs the policy `default`, which it has unless it was
//! taken away: looking itself up (to tell a token that is refused from a policy that forbids) and renewing itself.
//!
//! # Try it
//! ```text
//! bao server -dev -dev-root-token-id=root &
//! export BAO_ADDR=http://127.0.0.1:8200 BAO_TOKEN=root
//! bao kv put secret/shop/kanal key=8fK2pX9mWq4Ld7Vb3Nc6Ts1Z
//! ```
//!
//! Then `openbao:secret/shop/kanal#key` is a [key reference](crate::source::KeyRef) to it.
//!
//! ```no_run
//! use keysheath::key::{Issuer, Kanal};
//! use keysheath::openbao::OpenBao;
//! use keysheath::source::{self, Loaded, OpenBaoField};
//!
//! let source = OpenBaoField::new(OpenBao::from_env()?, "secret/shop/kanal", "key");
//! if let Loaded::Found(found) = source::load(&source, Kanal::PROFILE)? {
//!     println!("{:?} from {}", found.key(), found.provenance());
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod calling;
pub(crate) mod entry;
mod environment;
mod error;
mod index;
mod json;
mod login;
mod name;
mod secret;
mod session;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderValue;

use crate::internal::clocks;
use crate::key::{Origin, Roots, Scheme};

pub use error::OpenBaoError;
pub use login::Login;

use calling::{Answered, Call, Servers};
use session::Session;

/// How long one call may take unless told otherwise, logging in and asking again included: 8 s. The election after the loss of
/// an active node was seen to take 2 to 7 s.
///
/// ```
/// assert_eq!(keysheath::openbao::DEFAULT_DEADLINE.as_secs(), 8);
/// ```
pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(8);

/// The largest answer that is read, in bytes: the metadata of some thousands of versions.
///
/// ```
/// assert_eq!(keysheath::openbao::MAX_ANSWER, 512 * 1024);
/// ```
pub const MAX_ANSWER: usize = 512 * 1024;

/// How many calls to one server may be under way at once in this process, unless
/// [`OpenBao::with_max_calls`] says otherwise.
///
/// ```
/// assert_eq!(keysheath::openbao::MAX_CALLS_PER_SERVER, 32);
/// ```
pub const MAX_CALLS_PER_SERVER: usize = 32;

/// The most members of a cluster that can be named, the address included.
///
/// ```
/// assert_eq!(keysheath::openbao::MAX_MEMBERS, 16);
/// ```
pub const MAX_MEMBERS: usize = 16;

/// A client of one OpenBao server or cluster. Clones share its token and its connections.
///
/// Its calls are made by the source and the store that it is given to. It logs in at the first of them, so a client is not
/// made for each: what it was set to before is shared, and a setting that is changed makes another client.
///
/// ```
/// use keysheath::key::Origin;
/// use keysheath::openbao::{Login, OpenBao};
///
/// let address = Origin::parse("https://bao.example:8200")?;
/// let client = OpenBao::at(address, Login::kubernetes("shop-sync"))?.with_namespace("shop")?;
/// assert_eq!(format!("{client:?}"), "OpenBao(https://bao.example:8200, Login(Kubernetes at kubernetes))");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias = "vault")]
#[derive(Clone)]
pub struct OpenBao {
    shared: Arc<Shared>,
    deadline: Duration,
    max_calls: usize,
}

struct Shared {
    servers: Servers,
    session: Session,
}

impl OpenBao {
    /// The server at an address. Nothing is sent yet.
    ///
    /// # Errors
    /// [`OpenBaoError::NotHttps`] for an address that is neither `https` nor an IP-literal loopback one, and
    /// [`OpenBaoError::BadName`] for a login whose mount is no name.
    ///
    /// ```
    /// use keysheath::key::Origin;
    /// use keysheath::openbao::{Login, OpenBao, OpenBaoError};
    ///
    /// let address = Origin::parse("http://bao.example:8200")?;
    /// let refused = OpenBao::at(address, Login::token(String::from("s.…")));
    /// assert_eq!(refused.unwrap_err(), OpenBaoError::NotHttps);
    /// # Ok::<(), keysheath::key::OriginError>(())
    /// ```
    pub fn at(address: Origin, login: Login) -> Result<Self, OpenBaoError> {
        Self::of(Servers::new(address), login)
    }

    /// As [`OpenBao::at`], and the address may be one of plain HTTP, such as a host of a container network whose proxies add TLS.
    /// **The token and every secret go to it in the clear**: whoever is on the way can read and change them. It holds for the
    /// members that are named beside it as well, and for no other server.
    ///
    /// # Errors
    /// [`OpenBaoError::BadName`], as [`OpenBao::at`].
    ///
    /// ```
    /// use keysheath::key::Origin;
    /// use keysheath::openbao::{Login, OpenBao};
    ///
    /// let address = Origin::parse("http://openbao:8200")?;
    /// assert!(OpenBao::at(address.clone(), Login::kubernetes("shop-sync")).is_err());
    /// let client = OpenBao::at_plain_http(address, Login::kubernetes("shop-sync"))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn at_plain_http(address: Origin, login: Login) -> Result<Self, OpenBaoError> {
        let mut servers = Servers::new(address);
        servers.is_plain = true;
        Self::of(servers, login)
    }

    fn of(servers: Servers, login: Login) -> Result<Self, OpenBaoError> {
        check(&servers.members[0], servers.is_plain)?;
        name::check(login.mount())?;
        let shared = Shared { servers, session: Session::new(login) };
        Ok(Self { shared: Arc::new(shared), deadline: DEFAULT_DEADLINE, max_calls: MAX_CALLS_PER_SERVER })
    }

    /// The server that the environment names, as the command-line tools read it:
    ///
    /// | variable | also | what |
    /// |---|---|---|
    /// | `BAO_ADDR` | `VAULT_ADDR` | the address, with a path where OpenBao is served below one; without it there is none (the tools take a local one) |
    /// | `BAO_TOKEN` | `VAULT_TOKEN` | the token; without it, that in `~/.vault-token` |
    /// | `BAO_CACERT` | `VAULT_CACERT` | a file with the certificates of the authority |
    /// | `BAO_NAMESPACE` | `VAULT_NAMESPACE` | the namespace |
    ///
    /// A variable that is set to nothing counts as not set. One prefix holds for all: where any `BAO_` variable is set, a
    /// `VAULT_` one that is not the same as its partner is an error, because one server's token is not to go to another. (The
    /// tools mix them.) Of other variables one is read, `KEYSHEATH_OPENBAO_PLAIN_HTTP`: where it is the host of the address, that
    /// may be one of plain HTTP, as for [`OpenBao::at_plain_http`]. None turns the check of certificates off.
    ///
    /// # Errors
    /// [`OpenBaoError`], when one is missing or cannot be used, or when the two prefixes differ.
    ///
    /// ```no_run
    /// let client = keysheath::openbao::OpenBao::from_env()?;
    /// # Ok::<(), keysheath::openbao::OpenBaoError>(())
    /// ```
    pub fn from_env() -> Result<Self, OpenBaoError> {
        environment::read()
    }

    /// In a namespace, such as `team/shop`.
    ///
    /// # Errors
    /// [`OpenBaoError::BadName`] for what is no name.
    ///
    /// ```
    /// # use keysheath::key::Origin;
    /// # use keysheath::openbao::{Login, OpenBao};
    /// # let client = OpenBao::at(Origin::https("bao.example"), Login::kubernetes("shop-sync"))?;
    /// let client = client.with_namespace("team/shop")?;
    /// # Ok::<(), keysheath::openbao::OpenBaoError>(())
    /// ```
    pub fn with_namespace(self, namespace: &str) -> Result<Self, OpenBaoError> {
        name::check(namespace)?;
        let not_ascii = OpenBaoError::BadName { rule: "a namespace is printable ASCII" };
        let value =
            HeaderValue::from_str(namespace).ok().filter(|_| namespace.is_ascii()).ok_or(not_ascii)?;
        Ok(self.with(|servers| servers.namespace = Some(value)))
    }

    /// Served below a path, such as `/bao` behind a proxy that has other services too. It holds for all members.
    ///
    /// # Errors
    /// [`OpenBaoError::BadName`] for what is no path of visible ASCII, or has parts that lead elsewhere.
    ///
    /// ```
    /// # use keysheath::key::Origin;
    /// # use keysheath::openbao::{Login, OpenBao};
    /// # let client = OpenBao::at(Origin::https("proxy.example"), Login::kubernetes("shop-sync"))?;
    /// let client = client.with_path_prefix("/bao")?;
    /// # Ok::<(), keysheath::openbao::OpenBaoError>(())
    /// ```
    pub fn with_path_prefix(self, prefix: &str) -> Result<Self, OpenBaoError> {
        let path = prefix.strip_prefix('/').unwrap_or(prefix);
        let path = path.strip_suffix('/').unwrap_or(path);
        name::check(path)?;
        if name::encoded(path) != path {
            return Err(OpenBaoError::BadName {
                rule: "a path before /v1 has letters, digits and -_.~/ alone",
            });
        }
        Ok(self.with(|servers| servers.prefix = format!("/{path}")))
    }

    /// With authorities of your own, in the stead of the public ones.
    ///
    /// ```no_run
    /// # use keysheath::key::{Origin, Roots};
    /// # use keysheath::openbao::{Login, OpenBao};
    /// # let client = OpenBao::at(Origin::https("bao.example"), Login::kubernetes("shop-sync"))?;
    /// let client = client.with_roots(Roots::from_pem(&std::fs::read("/etc/ssl/shop-ca.pem")?)?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn with_roots(self, roots: Roots) -> Self {
        self.with(|servers| servers.roots = Some(roots))
    }

    /// With the other members of the cluster: a redirect may lead to them, and they are asked when the address does not answer.
    /// The token goes to each.
    ///
    /// # Errors
    /// [`OpenBaoError::NotHttps`], as [`OpenBao::at`], and [`OpenBaoError::BadName`] for more than [`MAX_MEMBERS`].
    ///
    /// ```
    /// # use keysheath::key::Origin;
    /// # use keysheath::openbao::{Login, OpenBao};
    /// # let client = OpenBao::at(Origin::https("bao-1.example"), Login::kubernetes("shop-sync"))?;
    /// let client = client.with_members([Origin::https("bao-2.example"), Origin::https("bao-3.example")])?;
    /// # Ok::<(), keysheath::openbao::OpenBaoError>(())
    /// ```
    pub fn with_members(self, members: impl IntoIterator<Item = Origin>) -> Result<Self, OpenBaoError> {
        let mut all = vec![self.shared.servers.members[0].clone()];
        for member in members {
            check(&member, self.shared.servers.is_plain)?;
            if !all.contains(&member) {
                all.push(member);
            }
            if all.len() > MAX_MEMBERS {
                return Err(OpenBaoError::BadName { rule: "a cluster has at most 16 members" });
            }
        }
        Ok(self.with(|servers| servers.members = all))
    }

    /// How long one call may take; [`DEFAULT_DEADLINE`] unless set, and at most an hour.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use keysheath::key::Origin;
    /// # use keysheath::openbao::{Login, OpenBao};
    /// # let client = OpenBao::at(Origin::https("bao.example"), Login::kubernetes("shop-sync"))?;
    /// let client = client.with_deadline(Duration::from_secs(3));
    /// # Ok::<(), keysheath::openbao::OpenBaoError>(())
    /// ```
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline.min(crate::outgoing::MAX_DEADLINE);
        self
    }

    /// How many calls to the server may be under way at once in this process, for all of its secrets together;
    /// [`MAX_CALLS_PER_SERVER`] unless set, and at least one. To one secret there are at most
    /// [`MAX_CALLS_PER_PLACE`](crate::source::MAX_CALLS_PER_PLACE).
    ///
    /// ```
    /// # use keysheath::key::Origin;
    /// # use keysheath::openbao::{Login, OpenBao};
    /// # let client = OpenBao::at(Origin::https("bao.example"), Login::kubernetes("shop-sync"))?;
    /// let client = client.with_max_calls(8);
    /// # Ok::<(), keysheath::openbao::OpenBaoError>(())
    /// ```
    #[must_use]
    pub fn with_max_calls(mut self, max_calls: usize) -> Self {
        self.max_calls = max_calls;
        self
    }

    /// The address.
    ///
    /// ```
    /// # use keysheath::key::Origin;
    /// # use keysheath::openbao::{Login, OpenBao};
    /// let client = OpenBao::at(Origin::https("bao.example"), Login::kubernetes("shop-sync"))?;
    /// assert_eq!(client.address().host(), "bao.example");
    /// # Ok::<(), keysheath::openbao::OpenBaoError>(())
    /// ```
    #[must_use]
    pub fn address(&self) -> &Origin {
        &self.shared.servers.members[0]
    }

    pub(crate) const fn deadline(&self) -> Duration {
        self.deadline
    }

    pub(crate) const fn max_calls(&self) -> usize {
        self.max_calls
    }

    /// Another client, without a token and connections yet.
    fn with(&self, change: impl FnOnce(&mut Servers)) -> Self {
        let mut servers = self.shared.servers.copy();
        change(&mut servers);
        let session = Session::new(self.shared.session.login.clone());
        Self {
            shared: Arc::new(Shared { servers, session }),
            deadline: self.deadline,
            max_calls: self.max_calls,
        }
    }

    fn until(&self) -> Instant {
        clocks::after(self.deadline)
    }

    fn call(&self, call: &Call<'_>, access: &'static str, until: Instant) -> Result<Answered, OpenBaoError> {
        self.shared.session.call(&self.shared.servers, call, access, until)
    }
}

/// A token goes over TLS, or stays on this machine, unless somebody has said otherwise.
fn check(origin: &Origin, is_plain: bool) -> Result<(), OpenBaoError> {
    let is_safe = origin.scheme() == Scheme::Https || origin.is_loopback();
    if is_safe || is_plain { Ok(()) } else { Err(OpenBaoError::NotHttps) }
}

impl fmt::Debug for OpenBao {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OpenBao({}, {:?})", self.address(), self.shared.session.login)
    }
}
