//! How a client gets its token, and keeps it: obtained at the first call, renewed before it ends, replaced
//! when it is refused.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::HeaderValue;
use subtle::ConstantTimeEq as _;

use super::servers::{Answered, Call, Servers, encoded};
use super::{OpenBaoError, json, read_file};
use crate::internal::bytes::WipedBytes;
use crate::internal::files::{Trust, absolute};
use crate::internal::printing::{Printable, PrintablePath};
use crate::internal::threads::Lock;
use crate::internal::time::Clocks;

/// How a client gets its token. Nothing is read or sent before the first call.
///
/// | login | gets its token | renews it | when the token is refused |
/// |---|---|---|---|
/// | [`Login::token`] | as given | yes, if it is renewable | [`OpenBaoError::TokenRefused`] |
/// | [`Login::token_file`] | from a file, such as an agent writes | no: the writer of the file does | reads the file again |
/// | [`Login::app_role`], [`Login::app_role_file`] | for a role ID and a secret ID | yes | logs in again |
/// | [`Login::kubernetes`] | for a service account's JWT, in a file | yes | logs in again, with the file as it is then |
///
/// ```
/// use keysheath::openbao::Login;
/// let login = Login::kubernetes("shop-sync").at_mount("k8s-east");
/// assert_eq!(format!("{login:?}"), "Login(Kubernetes at k8s-east)");
/// ```
#[derive(Clone)]
pub struct Login {
    method: Method,
    mount: Option<String>,
    /// Whose files are read.
    trust: Trust,
}

#[derive(Clone)]
enum Method {
    Token(Credential),
    TokenFile(PathBuf),
    AppRole { role: Credential, secret: SecretId },
    Kubernetes { role: String, jwt: PathBuf },
}

#[derive(Clone)]
enum SecretId {
    Given(Credential),
    File(PathBuf),
}

impl Login {
    /// Where Kubernetes puts the JWT of a pod's service account.
    pub const KUBERNETES_JWT: &'static str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

    /// A token. The block of the text is taken over and wiped in place.
    #[must_use]
    pub fn token(token: String) -> Self {
        Self::by(Method::Token(Credential::given(token)))
    }

    /// The token in a file, such as an agent keeps up to date or `bao login` leaves in `~/.vault-token`. The
    /// file must belong to root, to this user or to [who is trusted](Login::with_trusted_owner), and be
    /// writable by no one else.
    #[must_use]
    pub fn token_file(path: impl Into<PathBuf>) -> Self {
        Self::by(Method::TokenFile(absolute(path.into())))
    }

    /// `AppRole`, with a secret ID. The blocks of both texts are taken over and wiped in place.
    #[must_use]
    pub fn app_role(role_id: String, secret_id: String) -> Self {
        let secret = SecretId::Given(Credential::given(secret_id));
        Self::by(Method::AppRole { role: Credential::given(role_id), secret })
    }

    /// `AppRole`, with the secret ID in a file, which is read at each login. The file must belong to root, to
    /// this user or to [who is trusted](Login::with_trusted_owner), and be writable by no one else.
    #[must_use]
    pub fn app_role_file(role_id: String, secret_id: impl Into<PathBuf>) -> Self {
        let secret = SecretId::File(absolute(secret_id.into()));
        Self::by(Method::AppRole { role: Credential::given(role_id), secret })
    }

    /// Kubernetes, with the JWT at [`Login::KUBERNETES_JWT`].
    #[must_use]
    pub fn kubernetes(role: impl Into<String>) -> Self {
        Self::by(Method::Kubernetes { role: role.into(), jwt: Self::KUBERNETES_JWT.into() })
    }

    /// With the JWT of the Kubernetes login in another file. Other logins have none, and stay as they are.
    #[must_use]
    pub fn with_jwt(mut self, path: impl Into<PathBuf>) -> Self {
        if let Method::Kubernetes { jwt, .. } = &mut self.method {
            *jwt = absolute(path.into());
        }
        self
    }

    /// At another mount than `approle` or `kubernetes`. A token needs none.
    #[must_use]
    pub fn at_mount(mut self, mount: impl Into<String>) -> Self {
        self.mount = Some(mount.into());
        self
    }

    /// Also accepts files that this user owns, for example a token that an agent writes as user 100, or a
    /// secret that a container runtime mounts with its owner on the host. That user decides as whom this
    /// process logs in, and so whose keys it gets.
    #[must_use]
    pub const fn with_trusted_owner(mut self, uid: u32) -> Self {
        self.trust.owner = Some(uid);
        self
    }

    /// Also accepts files that this group can write. Its members decide as that owner would.
    #[must_use]
    pub const fn with_trusted_group(mut self, gid: u32) -> Self {
        self.trust.group = Some(gid);
        self
    }

    fn by(method: Method) -> Self {
        Self { method, mount: None, trust: Trust::default() }
    }

    /// The method's name, for messages.
    const fn name(&self) -> &'static str {
        match self.method {
            Method::Token(_) => "token",
            Method::TokenFile(_) => "token file",
            Method::AppRole { .. } => "AppRole",
            Method::Kubernetes { .. } => "Kubernetes",
        }
    }

    pub(super) fn mount(&self) -> &str {
        self.mount.as_deref().unwrap_or(match self.method {
            Method::Kubernetes { .. } => "kubernetes",
            _ => "approle",
        })
    }

    /// What is sent to log in; `None` where there is a token without it.
    fn body(&self) -> Result<Option<WipedBytes>, OpenBaoError> {
        Ok(match &self.method {
            Method::Token(_) | Method::TokenFile(_) => None,
            Method::AppRole { role, secret } => {
                let secret = match secret {
                    SecretId::Given(secret) => secret.clone(),
                    SecretId::File(path) => Credential::from_file(path, self.trust)?,
                };
                Some(json::object(&[("role_id", role.checked()?), ("secret_id", secret.checked()?)]))
            }
            Method::Kubernetes { role, jwt } => {
                let role = Credential::given(role.clone());
                let jwt = Credential::from_file(jwt, self.trust)?;
                Some(json::object(&[("role", role.checked()?), ("jwt", jwt.checked()?)]))
            }
        })
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Login({}", self.name())?;
        match &self.method {
            Method::Token(_) => {}
            Method::TokenFile(path) => write!(f, " {}", PrintablePath(path))?,
            Method::AppRole { .. } | Method::Kubernetes { .. } => {
                write!(f, " at {}", Printable(self.mount()))?;
            }
        }
        f.write_str(")")
    }
}

/// The longest token, role, secret ID or JWT, in bytes. A batch token has some hundreds, a JWT up to some
/// thousands.
const MAX_CREDENTIAL: usize = 8192;

/// A token, role, secret ID or JWT. Clones share its memory, which is wiped with the last of them.
#[derive(Clone)]
struct Credential(Arc<WipedBytes>);

impl Credential {
    /// Takes the block over as it is. It is checked when it is used.
    fn new(bytes: WipedBytes) -> Self {
        Self(Arc::new(bytes))
    }

    fn given(text: String) -> Self {
        Self::new(WipedBytes::from(text.into_bytes()))
    }

    /// The first line of a file that is this user's, root's or a trusted one's.
    fn from_file(path: &Path, trust: Trust) -> Result<Self, OpenBaoError> {
        let mut bytes = read_file(path, MAX_CREDENTIAL + 2, trust)?;
        let end = bytes.trim_ascii_end().len();
        bytes.truncate(end);
        Ok(Self::new(bytes))
    }

    /// Its bytes, if they are printable ASCII of a possible length.
    fn checked(&self) -> Result<&[u8], OpenBaoError> {
        let is_plain = self.0.iter().all(u8::is_ascii_graphic);
        let fits = (1..=MAX_CREDENTIAL).contains(&self.0.len());
        if is_plain && fits { Ok(&self.0) } else { Err(OpenBaoError::BadCredential) }
    }

    fn is(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }

    /// A header's value that shares the memory, and that nothing prints.
    fn header(&self) -> Result<HeaderValue, OpenBaoError> {
        self.checked()?;
        let shared = Bytes::from_owner(self.clone());
        let mut value = HeaderValue::from_maybe_shared(shared).map_err(|_| OpenBaoError::BadCredential)?;
        value.set_sensitive(true);
        Ok(value)
    }
}

impl AsRef<[u8]> for Credential {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// How soon a renewal that failed is tried again.
const RENEWAL_PAUSE: Duration = Duration::from_secs(5);

/// Which part of a call's time a renewal may take.
const RENEWAL_PART: u32 = 3;

pub(super) struct Session {
    pub(super) login: Login,
    token: Lock<Option<Token>>,
    /// How many tokens there have been.
    count: AtomicU64,
}

#[derive(Clone)]
struct Token {
    credential: Credential,
    header: HeaderValue,
    /// Which token of this session it is.
    number: u64,
    lease: Option<Lease>,
}

#[derive(Clone, Copy)]
struct Lease {
    /// How long the first one was: what is much shorter nears the end that renewal cannot move.
    first: Duration,
    /// Before it was asked for. OpenBao's own clock goes on while this machine is suspended.
    since: Clocks,
    length: Duration,
    /// When a renewal was tried last.
    tried: Option<Clocks>,
    is_renewable: bool,
}

impl Lease {
    fn new(since: Clocks, seconds: u64, is_renewable: bool, first: Option<Duration>) -> Option<Self> {
        let length = Duration::from_secs(seconds);
        let first = first.unwrap_or(length);
        let is_renewable = is_renewable && length.saturating_mul(2) >= first;
        // 0 is a token without an end.
        (seconds > 0).then_some(Self { first, since, length, tried: None, is_renewable })
    }

    /// Whether it is to be renewed by now, by either clock.
    fn is_due(&self, now: Clocks) -> bool {
        let rests = self.tried.is_some_and(|tried| !now.has_expired(tried, RENEWAL_PAUSE));
        !rests && now.has_expired(self.since, self.length / 3 * 2)
    }

    fn is_over(&self, now: Clocks) -> bool {
        now.has_expired(self.since, self.length)
    }
}

impl Session {
    pub(super) const fn new(login: Login) -> Self {
        Self { login, token: Lock::new(None), count: AtomicU64::new(0) }
    }

    /// Sends a request with the token. A token that OpenBao does not know any more is replaced, once.
    /// `access` is what the policies must allow.
    pub(super) fn call(
        &self,
        servers: &Servers,
        call: &Call<'_>,
        access: &'static str,
        until: Instant,
    ) -> Result<Answered, OpenBaoError> {
        let (header, number) = self.token(servers, until)?;
        let answered = servers.call(call, Some(&header), until)?;
        if answered.status != 403 {
            return Ok(answered);
        }
        // Both a bad token and a policy that forbids are a 403, with texts that are not documented.
        if lookup(servers, &header, until)?.is_some() {
            return Err(OpenBaoError::Forbidden { access });
        }
        self.refused(number)?;
        let (header, _) = self.token(servers, until)?;
        let answered = servers.call(call, Some(&header), until)?;
        if answered.status == 403 { Err(OpenBaoError::Forbidden { access }) } else { Ok(answered) }
    }

    /// Returns the token. One caller obtains or renews it while the others wait.
    fn token(&self, servers: &Servers, until: Instant) -> Result<(HeaderValue, u64), OpenBaoError> {
        let mut token = self.token.lock();
        let next = match token.take() {
            None => self.obtain(servers, until)?,
            Some(there) => self.kept_good(servers, there, until)?,
        };
        let token = token.insert(next);
        Ok((token.header.clone(), token.number))
    }

    /// The token, renewed or replaced where that is due.
    fn kept_good(&self, servers: &Servers, there: Token, until: Instant) -> Result<Token, OpenBaoError> {
        let now = Clocks::now();
        let Some(lease) = there.lease.filter(|lease| lease.is_due(now)) else { return Ok(there) };
        if lease.is_over(now) {
            return self.renew(servers, &there, lease, until);
        }
        // It is good for a while yet, so most of the time is for the call that it is wanted for.
        let begun = now.monotonic();
        let soon = begun + until.saturating_duration_since(begun) / RENEWAL_PART;
        let renewed = self.renew(servers, &there, lease, soon);
        let later = Some(Lease { tried: Some(now), ..lease });
        Ok(renewed.unwrap_or(Token { lease: later, ..there }))
    }

    fn renew(
        &self,
        servers: &Servers,
        there: &Token,
        lease: Lease,
        until: Instant,
    ) -> Result<Token, OpenBaoError> {
        let can_log_in = matches!(self.login.method, Method::AppRole { .. } | Method::Kubernetes { .. });
        if lease.is_renewable {
            let call = Call { is_repeatable: true, ..Call::post("auth/token/renew-self", json::object(&[])) };
            let asked = Clocks::now();
            let answered = servers.call(&call, Some(&there.header), until)?;
            if answered.status == 200 {
                let auth = auth(&answered)?;
                let lease = Lease::new(asked, auth.lease_duration, auth.is_renewable, Some(lease.first));
                return Ok(Token { lease, ..there.clone() });
            }
        }
        if can_log_in {
            return self.obtain(servers, until);
        }
        // It is asked again, for what has refused may be a proxy; once it has ended, OpenBao says so.
        let now = Clocks::now();
        let is_worth_it = lease.is_renewable && !lease.is_over(now);
        let lease = is_worth_it.then_some(Lease { tried: Some(now), ..lease });
        Ok(Token { lease, ..there.clone() })
    }

    fn obtain(&self, servers: &Servers, until: Instant) -> Result<Token, OpenBaoError> {
        let (method, asked) = (self.login.name(), Clocks::now());
        let (credential, lease) = match (&self.login.method, self.login.body()?) {
            (_, Some(body)) => {
                let path = format!("auth/{}/login", encoded(self.login.mount()));
                let answered = servers.call(&Call::post(&path, body), None, until)?;
                match answered.status {
                    200 => {}
                    404 => {
                        return Err(
                            json::not_there(&answered.body).unwrap_or(OpenBaoError::NoLoginMount { method })
                        );
                    }
                    _ => return Err(OpenBaoError::LoginRefused { method }),
                }
                let auth = auth(&answered)?;
                let token = auth.token().ok_or(OpenBaoError::NotOpenBao { status: answered.status })?;
                (Credential::new(token), Lease::new(asked, auth.lease_duration, auth.is_renewable, None))
            }
            (Method::TokenFile(path), None) => (Credential::from_file(path, self.login.trust)?, None),
            (Method::Token(token), None) => {
                let lease = lookup(servers, &token.header()?, until)?
                    .and_then(|found| Lease::new(asked, found.ttl, found.renewable, None));
                (token.clone(), lease)
            }
            _ => unreachable!("the other logins have a body"),
        };
        self.numbered(credential, lease)
    }

    fn numbered(&self, credential: Credential, lease: Option<Lease>) -> Result<Token, OpenBaoError> {
        let header = credential.header()?;
        Ok(Token { credential, header, number: self.count.fetch_add(1, Ordering::Relaxed), lease })
    }

    /// Handles a token that OpenBao does not know. The first caller forgets it, so that the next call gets
    /// another one.
    fn refused(&self, number: u64) -> Result<(), OpenBaoError> {
        let mut token = self.token.lock();
        let Some(there) = token.as_ref().filter(|there| there.number == number) else {
            return Ok(());
        };
        match &self.login.method {
            Method::Token(_) => return Err(OpenBaoError::TokenRefused),
            Method::TokenFile(path) => {
                let credential = Credential::from_file(path, self.login.trust)?;
                if credential.is(&there.credential) {
                    return Err(OpenBaoError::TokenRefused);
                }
                *token = Some(self.numbered(credential, None)?);
            }
            Method::AppRole { .. } | Method::Kubernetes { .. } => *token = None,
        }
        Ok(())
    }
}

/// What OpenBao says of a token; `None` where it does not know it, or does not let it ask.
fn lookup(
    servers: &Servers,
    token: &HeaderValue,
    until: Instant,
) -> Result<Option<json::Lookup>, OpenBaoError> {
    let answered = servers.call(&Call::get("auth/token/lookup-self"), Some(token), until)?;
    match answered.status {
        200 => read::<json::Answer<json::Lookup>>(&answered).map(|answer| Some(answer.data)),
        403 => Ok(None),
        404 => Err(json::not_there(&answered.body).unwrap_or(OpenBaoError::NotOpenBao { status: 404 })),
        status => Err(OpenBaoError::Rejected { status }),
    }
}

fn auth(answered: &Answered) -> Result<json::Auth<'_>, OpenBaoError> {
    json::Auth::read(&answered.body).ok_or(OpenBaoError::NotOpenBao { status: answered.status })
}

pub(super) fn read<'a, T: serde::Deserialize<'a>>(answered: &'a Answered) -> Result<T, OpenBaoError> {
    json::read(&answered.body).ok_or(OpenBaoError::NotOpenBao { status: answered.status })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_token_is_renewed_and_ends_by_the_clock_that_shows_more() {
        let start = Clocks::now();
        let lease = Lease::new(start, 3600, true, None).unwrap();
        let at = |wall, monotonic| Clocks::at(start.wall() + wall, start.monotonic() + monotonic);
        assert!(!lease.is_due(at(HOUR / 2, HOUR / 2)) && lease.is_due(at(HOUR / 4 * 3, HOUR / 4 * 3)));
        // Suspended for two hours: the monotonic clock stood still.
        assert!(lease.is_due(at(HOUR * 2, Duration::ZERO)) && lease.is_over(at(HOUR * 2, Duration::ZERO)));
        assert!(lease.is_over(at(Duration::ZERO, HOUR)), "a wall clock that was set back");
        let tried = Lease { tried: Some(at(HOUR, HOUR)), ..lease };
        assert!(!tried.is_due(at(HOUR, HOUR)) && tried.is_due(at(HOUR + RENEWAL_PAUSE, HOUR)));
        assert!(Lease::new(start, 0, true, None).is_none());
    }

    #[test]
    fn what_was_renewed_for_less_than_half_is_not_renewed_again() {
        let start = Clocks::now();
        for (seconds, is_renewable) in [(1800, true), (1799, false), (u64::MAX, true)] {
            let lease = Lease::new(start, seconds, true, Some(HOUR)).unwrap();
            assert_eq!(lease.is_renewable, is_renewable, "{seconds}");
        }
    }

    #[test]
    fn a_credential_is_printable_and_bounded() {
        let credential = |text: &str| Credential::given(text.to_owned());
        for text in ["", "a b", "a\nb", "é", &"a".repeat(MAX_CREDENTIAL + 1)] {
            assert_eq!(credential(text).checked(), Err(OpenBaoError::BadCredential), "{}", text.len());
            assert_eq!(credential(text).header(), Err(OpenBaoError::BadCredential), "{}", text.len());
        }
        let text = "a".repeat(MAX_CREDENTIAL);
        let longest = credential(&text);
        assert!(longest.header().unwrap().is_sensitive());
        assert!(longest.is(&credential(&text)) && !longest.is(&credential("a")));
    }
}
