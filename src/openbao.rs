//! OpenBao: a server that keeps the secrets of a fleet. Vault has the same API.
//!
//! An [`OpenBao`] is a client of one server or cluster. `source::OpenBaoField` reads a key from it, and
//! `store::OpenBaoStore` keeps the key set of a rotation in it. Both use a *key-value secrets engine of
//! version 2*, which keeps versions and can write only if unchanged. Version 1 cannot, and would ignore the
//! request to: it is refused.
//!
//! This was tested with OpenBao 2.7. Vault documents the same API; it was not run.
//!
//! - **Where a token goes.** Only to the address and the named [members](OpenBao::with_members), over TLS (an
//!   IP-literal loopback address excepted, and what [`OpenBao::at_plain_http`] names), without a proxy.
//!   Redirects are followed only to those.
//! - **Consistency.** Standbys answer reads from their own store, which may be behind. Each call carries the
//!   index of the last answer (`X-Vault-Index`) and asks a standby that has not reached it to forward the
//!   call to the active node (`X-Vault-Inconsistent: forward-active-node`). So a client never sees anything
//!   older than what it has seen or written. It sees another client's write once its standby has it: some
//!   tens of milliseconds later, and later if the standby was down or is cut off. Nothing is overwritten by
//!   that: a step on an older key set is refused. A refresher asks again (`RefreshSettings::with_lag`) when
//!   its key is refused. A process that starts beside such a standby may be shown an older next step: act on
//!   one only while all members of the cluster are healthy.
//! - **Retries.** A server that is down, an election, a rate limit and a failure are retried, with pauses
//!   that double from 0.1 s to 1 s, until the [deadline](OpenBao::with_deadline). A write is retried only if
//!   the server certainly did not apply it.
//! - **Bounds.** An answer has at most 512 KiB. A process makes at most four calls at once to one secret, 32
//!   to one server ([`with_max_calls`](OpenBao::with_max_calls)), and 64 to all places together. A further
//!   call waits for its turn until its deadline, and the error says so. A process that follows 100 key sets
//!   in one OpenBao therefore reads all of them in about four times the time of one answer: 0.8 s at 200 ms,
//!   4 s at 1 s. Set its deadline above that.
//!
//! # Policies
//! A service that reads a key or follows a key set at `secret/shop/kanal` needs no more than this:
//!
//! ```text
//! path "secret/data/shop/kanal"     { capabilities = ["read"] }
//! path "secret/metadata/shop/kanal" { capabilities = ["read"] }
//! ```
//!
//! What a rotator needs:
//!
//! ```text
//! path "secret/data/shop/kanal"     { capabilities = ["create", "read", "update"] }
//! path "secret/metadata/shop/kanal" { capabilities = ["read"] }
//! ```
//!
//! A service that shows which key it uses (`rotation::Presence`) in `secret/shop/kanal-presence` also needs:
//!
//! ```text
//! path "secret/data/shop/kanal-presence"     { capabilities = ["create", "read", "update"] }
//! path "secret/metadata/shop/kanal-presence" { capabilities = ["read"] }
//! ```
//!
//! What the rotator of that fleet needs, to see it:
//!
//! ```text
//! path "secret/data/shop/kanal-presence" { capabilities = ["read"] }
//! ```
//!
//! Reading a key (`OpenBaoField`) needs no access to `metadata`. A token also needs the policy `default`,
//! which it has unless it was removed: it looks itself up (to tell a refused token from a policy that
//! forbids) and renews itself.
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

#[cfg_attr(not(feature = "rotation"), allow(dead_code, reason = "the store alone writes"))]
pub(crate) mod entry;
mod error;
mod json;
mod login;
mod servers;
mod session;

use std::env;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{fmt, io};

use http::HeaderValue;

use crate::internal::bytes::{WipedBytes, read_at_most};
use crate::internal::files::{self, FileProblem, Kind, Trust};
use crate::internal::time;
use crate::key::{Origin, Roots};

pub use error::OpenBaoError;
pub use login::Login;

use servers::{Answered, Call, Servers, check_name, encoded};
use session::Session;

/// The default deadline of a call, login and retries included: 8 s. An election after the loss of an active
/// node was seen to take 2 to 7 s.
const DEFAULT_DEADLINE: Duration = Duration::from_secs(8);

/// The largest answer that is read, in bytes: the metadata of some thousands of versions.
const MAX_ANSWER: usize = 512 * 1024;

/// The default number of calls to one server at once in this process; see [`OpenBao::with_max_calls`].
pub(crate) const MAX_CALLS_PER_SERVER: usize = 32;

/// The most members of a cluster that can be named, the address included.
const MAX_MEMBERS: usize = 16;

/// A client of one OpenBao server or cluster. Clones share its token and its connections.
///
/// The source or the store that it is given to makes the calls. A client logs in at the first call, so share
/// one: clone it instead of making one for each store. Changing a setting makes a separate client.
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
    /// Creates a client of the server at an address. Sends nothing yet.
    ///
    /// # Errors
    /// [`OpenBaoError::NotHttps`] for an address that is neither `https` nor an IP-literal loopback one, and
    /// [`OpenBaoError::BadName`] for a login whose mount is no name.
    pub fn at(address: Origin, login: Login) -> Result<Self, OpenBaoError> {
        Self::of(Servers::new(address), login)
    }

    /// As [`OpenBao::at`], and also accepts plain HTTP, for example to a host of a container network whose
    /// proxies add TLS. **The token and every secret are sent in the clear**: anyone on the way can read and
    /// change them. This also applies to the members that are named, and to no other server.
    ///
    /// # Errors
    /// [`OpenBaoError::BadName`], as [`OpenBao::at`].
    pub fn at_plain_http(address: Origin, login: Login) -> Result<Self, OpenBaoError> {
        let mut servers = Servers::new(address);
        servers.is_plain = true;
        Self::of(servers, login)
    }

    fn of(servers: Servers, login: Login) -> Result<Self, OpenBaoError> {
        check(&servers.members[0], servers.is_plain)?;
        check_name(login.mount())?;
        let shared = Shared { servers, session: Session::new(login) };
        Ok(Self { shared: Arc::new(shared), deadline: DEFAULT_DEADLINE, max_calls: MAX_CALLS_PER_SERVER })
    }

    /// Creates a client of the server that the environment names, as the command-line tools read it:
    ///
    /// | variable | also | what |
    /// |---|---|---|
    /// | `BAO_ADDR` | `VAULT_ADDR` | the address, with a path where OpenBao is served below one; without it there is none (the tools take a local one) |
    /// | `BAO_TOKEN` | `VAULT_TOKEN` | the token; without it, that in `~/.vault-token` |
    /// | `BAO_CACERT` | `VAULT_CACERT` | a file with the certificates of the authority |
    /// | `BAO_NAMESPACE` | `VAULT_NAMESPACE` | the namespace |
    ///
    /// A variable that is set to nothing counts as not set. One prefix holds for all: where any `BAO_`
    /// variable is set, a `VAULT_` one that is not the same as its partner is an error, because one server's
    /// token must not be sent to another. (The tools mix them.) No variable turns the check of certificates
    /// off.
    ///
    /// An address of plain HTTP is refused, but for an IP-literal loopback one, unless the variable
    /// `KEYSHEATH_OPENBAO_PLAIN_HTTP` names its host, such as `bao.internal` for
    /// `BAO_ADDR=http://bao.internal:8200`: then it is used as by [`OpenBao::at_plain_http`].
    ///
    /// # Errors
    /// [`OpenBaoError`], when one is missing or cannot be used, or when the two prefixes differ.
    pub fn from_env() -> Result<Self, OpenBaoError> {
        read_environment()
    }

    /// Sets the namespace, such as `team/shop`.
    ///
    /// # Errors
    /// [`OpenBaoError::BadName`] for what is no name.
    pub fn with_namespace(self, namespace: &str) -> Result<Self, OpenBaoError> {
        check_name(namespace)?;
        let not_ascii = OpenBaoError::BadName { rule: "a namespace is printable ASCII" };
        let value =
            HeaderValue::from_str(namespace).ok().filter(|_| namespace.is_ascii()).ok_or(not_ascii)?;
        Ok(self.with(|servers| servers.namespace = Some(value)))
    }

    /// Sets the path below which the API is served, such as `/bao` behind a proxy. It applies to all members.
    ///
    /// # Errors
    /// [`OpenBaoError::BadName`] for what is no path of visible ASCII, or has parts that lead elsewhere.
    pub fn with_path_prefix(self, prefix: &str) -> Result<Self, OpenBaoError> {
        let path = prefix.strip_prefix('/').unwrap_or(prefix);
        let path = path.strip_suffix('/').unwrap_or(path);
        check_name(path)?;
        if encoded(path) != path {
            return Err(OpenBaoError::BadName {
                rule: "a path before /v1 has letters, digits and -_.~/ alone",
            });
        }
        Ok(self.with(|servers| servers.prefix = format!("/{path}")))
    }

    /// Trusts these certificate authorities instead of the public ones.
    #[must_use]
    pub fn with_roots(self, roots: Roots) -> Self {
        self.with(|servers| servers.roots = Some(roots))
    }

    /// Names the other members of the cluster. A redirect may lead to them, and they are asked when the
    /// address does not answer. The token is sent to each.
    ///
    /// # Errors
    /// [`OpenBaoError::NotHttps`], as [`OpenBao::at`], and [`OpenBaoError::BadName`] for more than 16.
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

    /// Sets the deadline of a call, login and retries included. The default is 8 s, the maximum an hour.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline.min(crate::outgoing::MAX_DEADLINE);
        self
    }

    /// Sets how many calls to the server may be under way at once in this process, for all of its secrets
    /// together. The default is 32, the minimum one. To one secret there are at most four.
    #[must_use]
    pub fn with_max_calls(mut self, max_calls: usize) -> Self {
        self.max_calls = max_calls;
        self
    }

    /// Returns the address.
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
        time::after(self.deadline)
    }

    fn call(&self, call: &Call<'_>, access: &'static str, until: Instant) -> Result<Answered, OpenBaoError> {
        self.shared.session.call(&self.shared.servers, call, access, until)
    }
}

/// A token goes over TLS or stays on this machine, unless plain HTTP was asked for.
fn check(origin: &Origin, is_plain: bool) -> Result<(), OpenBaoError> {
    let is_safe = origin.scheme() == "https" || origin.is_loopback();
    if is_safe || is_plain { Ok(()) } else { Err(OpenBaoError::NotHttps) }
}

impl fmt::Debug for OpenBao {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OpenBao({}, {:?})", self.address(), self.shared.session.login)
    }
}

/// The largest file of certificates that is read, in bytes.
const MAX_CERTIFICATES: usize = 1024 * 1024;

/// The two names of each variable: of OpenBao and of Vault.
const ADDRESS: [&str; 2] = ["BAO_ADDR", "VAULT_ADDR"];
const TOKEN: [&str; 2] = ["BAO_TOKEN", "VAULT_TOKEN"];
const CERTIFICATES: [&str; 2] = ["BAO_CACERT", "VAULT_CACERT"];
const NAMESPACE: [&str; 2] = ["BAO_NAMESPACE", "VAULT_NAMESPACE"];

/// The host that a token may go to in the clear.
const PLAIN_HTTP: &str = "KEYSHEATH_OPENBAO_PLAIN_HTTP";

/// A variable's value. Set to nothing counts as not set, as it does for those tools.
fn value(name: &str) -> Option<WipedBytes> {
    let value = env::var_os(name).map(|value| WipedBytes::from(value.into_encoded_bytes()));
    value.filter(|value| !value.is_empty())
}

fn text<'a>(value: &'a WipedBytes, variable: &'static str) -> Result<&'a str, OpenBaoError> {
    str::from_utf8(value).map_err(|_| OpenBaoError::BadVariable { variable, rule: "it is not UTF-8 text" })
}

/// The one prefix that is in use: 0 for `BAO_`, 1 for `VAULT_`.
fn prefix() -> Result<usize, OpenBaoError> {
    let all = [ADDRESS, TOKEN, CERTIFICATES, NAMESPACE];
    let values = all.map(|names| (names, names.map(value)));
    if values.iter().all(|(_, [bao, _])| bao.is_none()) {
        return Ok(1);
    }
    for ([_, variable], [bao, vault]) in &values {
        let is_same = match (bao, vault) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(bao), Some(vault)) => **bao == **vault,
        };
        if !is_same {
            return Err(OpenBaoError::TwoPrefixes { variable });
        }
    }
    Ok(0)
}

fn read_environment() -> Result<OpenBao, OpenBaoError> {
    let prefix = prefix()?;
    let variable = |names: [&'static str; 2]| {
        let name = names[prefix];
        value(name).map(|value| (value, name))
    };
    let (address, name) = variable(ADDRESS).ok_or(OpenBaoError::NoAddress)?;
    let address = text(&address, name)?;
    let bad = || OpenBaoError::BadVariable {
        variable: name,
        rule: "it is not scheme, host and port, and perhaps a path, such as https://bao.example:8200 or \
               https://proxy.example/bao",
    };
    let host = address.find("://").map_or(0, |at| at + 3);
    let end = address[host..].find('/').map_or(address.len(), |at| host + at);
    let (origin, path) = address.split_at(end);
    let origin = Origin::parse(origin).map_err(|_| bad())?;
    let login = match variable(TOKEN) {
        Some((token, name)) => Login::token(text(&token, name)?.to_owned()),
        None => Login::of_home(token_file().ok_or(OpenBaoError::NoToken)?),
    };
    let is_plain = match value(PLAIN_HTTP) {
        Some(host) => text(&host, PLAIN_HTTP)?.eq_ignore_ascii_case(origin.host()),
        None => false,
    };
    let mut client =
        if is_plain { OpenBao::at_plain_http(origin, login)? } else { OpenBao::at(origin, login)? };
    if !matches!(path, "" | "/") {
        client = client.with_path_prefix(path).map_err(|_| bad())?;
    }
    if let Some((namespace, name)) = variable(NAMESPACE) {
        client = client.with_namespace(text(&namespace, name)?.trim_matches('/'))?;
    }
    if let Some((path, name)) = variable(CERTIFICATES) {
        let pem = read_file(Path::new(text(&path, name)?), MAX_CERTIFICATES, None)?;
        client = client.with_roots(Roots::from_pem(&pem).map_err(OpenBaoError::BadRoots)?);
    }
    Ok(client)
}

/// Where both tools leave the token after a login.
fn token_file() -> Option<PathBuf> {
    let home = env::home_dir().filter(|home| !home.as_os_str().is_empty())?;
    Some(home.join(".vault-token")).filter(|path| path.symlink_metadata().is_ok())
}

/// Reads a file that others cannot have written, into one block: its writer chooses who this process is, or
/// whom it trusts. `None` is where nothing sets who else is trusted. May hang.
fn read_file(path: &Path, limit: usize, trust: Option<Trust>) -> Result<WipedBytes, OpenBaoError> {
    let refused = |problem| match trust {
        Some(_) => OpenBaoError::LoginFileRefused { path: path.into(), problem },
        None => OpenBaoError::FileRefused { path: path.into(), problem },
    };
    let unreadable = |error: io::Error| refused(FileProblem::Unreadable(error.kind()));
    let file = files::open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => OpenBaoError::NoFile { path: path.into() },
        _ => unreadable(error),
    })?;
    match files::check_trusted(&file.metadata().map_err(unreadable)?, trust.unwrap_or_default()) {
        Ok(Kind::Regular) => {}
        Ok(Kind::Pipe) => return Err(refused(FileProblem::NotAFile)),
        Err(problem) => return Err(refused(problem)),
    }
    read_at_most(file, limit).map_err(unreadable)?.ok_or(refused(FileProblem::TooLarge { limit }))
}
