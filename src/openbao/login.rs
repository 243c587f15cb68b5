//! A login: how a client gets its token, and the secrets that it needs for that.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderValue;
use subtle::ConstantTimeEq as _;

use super::{OpenBaoError, json, read_file};
use crate::internal::bytes::WipedBytes;
use crate::internal::files::{Trust, absolute};
use crate::internal::printing::{Printable, PrintablePath};

/// How a client gets its token. Nothing is read or sent before the first call.
///
/// | login | gets its token | renews it | when the token is refused |
/// |---|---|---|---|
/// | [`Login::token`] | as given | yes, if it is renewable | [`OpenBaoError::TokenRefused`] |
/// | [`Login::token_file`] | from a file, such as an agent writes | no: the writer of the file does | reads the file again |
/// | [`Login::app_role`] | for a role ID, and a secret ID where the role needs one | yes | logs in again |
/// | [`Login::kubernetes`] | for a service account's JWT, in a file | yes | logs in again, with the file as it is then |
///
/// ```
/// use keysheath::openbao::Login;
/// let login = Login::kubernetes("shop-sync").at_mount("k8s-east");
/// assert_eq!(format!("{login:?}"), "Login(Kubernetes at k8s-east)");
/// ```
#[derive(Clone)]
pub struct Login {
    pub(super) method: Method,
    mount: Option<String>,
    /// Whose files are read; `None` where the environment names the login, and nothing sets it.
    pub(super) trust: Option<Trust>,
}

#[derive(Clone)]
pub(super) enum Method {
    Token(Credential),
    TokenFile(PathBuf),
    AppRole { role: Credential, secret: Option<SecretId> },
    Kubernetes { role: String, jwt: PathBuf },
}

#[derive(Clone)]
pub(super) enum SecretId {
    Given(Credential),
    File(PathBuf),
}

impl Login {
    /// Where Kubernetes puts the JWT of a pod's service account.
    pub const KUBERNETES_JWT: &'static str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

    /// Logs in with a token. The block of the text is taken over and wiped in place.
    #[must_use]
    pub fn token(token: String) -> Self {
        Self::by(Method::Token(Credential::given(token)))
    }

    /// Logs in with the token in a file, such as an agent keeps up to date or `bao login` leaves in
    /// `~/.vault-token`. The file must belong to root, to this user or to a [trusted
    /// owner](Login::with_trusted_owner), and be writable by no one else.
    #[must_use]
    pub fn token_file(path: impl Into<PathBuf>) -> Self {
        Self::by(Method::TokenFile(absolute(path.into())))
    }

    /// The file of [`Login::token_file`] that the command-line tools leave in the home.
    pub(super) fn of_home(path: PathBuf) -> Self {
        Self { trust: None, ..Self::token_file(path) }
    }

    /// Logs in by `AppRole`, with this role ID. Without a secret ID it is for a role that needs none
    /// (`bind_secret_id` is false). The block of the text is taken over and wiped in place.
    ///
    /// ```
    /// use keysheath::openbao::Login;
    /// let login = Login::app_role("a-role-id".to_owned()).with_secret_id_file("/run/secrets/secret-id");
    /// assert_eq!(format!("{login:?}"), "Login(AppRole at approle)");
    /// ```
    #[must_use]
    pub fn app_role(role_id: String) -> Self {
        Self::by(Method::AppRole { role: Credential::given(role_id), secret: None })
    }

    /// Sets the secret ID of the `AppRole` login. Other logins have none, and stay as they are. The block of
    /// the text is taken over and wiped in place.
    #[must_use]
    pub fn with_secret_id(self, secret_id: String) -> Self {
        self.with_secret(SecretId::Given(Credential::given(secret_id)))
    }

    /// Sets the file of the `AppRole` login's secret ID, which is read at each login. Other logins have
    /// none, and stay as they are. The file must belong to root, to this user or to a
    /// [trusted owner](Login::with_trusted_owner), and be writable by no one else.
    #[must_use]
    pub fn with_secret_id_file(self, path: impl Into<PathBuf>) -> Self {
        self.with_secret(SecretId::File(absolute(path.into())))
    }

    fn with_secret(mut self, secret_id: SecretId) -> Self {
        if let Method::AppRole { secret, .. } = &mut self.method {
            *secret = Some(secret_id);
        }
        self
    }

    /// Logs in by Kubernetes, with the JWT at [`Login::KUBERNETES_JWT`].
    #[must_use]
    pub fn kubernetes(role: impl Into<String>) -> Self {
        Self::by(Method::Kubernetes { role: role.into(), jwt: Self::KUBERNETES_JWT.into() })
    }

    /// Sets another file of the Kubernetes login's JWT. Other logins have none, and stay as they are.
    #[must_use]
    pub fn with_jwt(mut self, path: impl Into<PathBuf>) -> Self {
        if let Method::Kubernetes { jwt, .. } = &mut self.method {
            *jwt = absolute(path.into());
        }
        self
    }

    /// Sets another mount than `approle` or `kubernetes`. A token needs none.
    #[must_use]
    pub fn at_mount(mut self, mount: impl Into<String>) -> Self {
        self.mount = Some(mount.into());
        self
    }

    /// Also accepts files that this user owns, for example a token that an agent writes as user 100, or a
    /// secret that a container runtime mounts with its owner on the host. That user decides as whom this
    /// process logs in, and so whose keys it gets.
    #[must_use]
    pub fn with_trusted_owner(mut self, uid: u32) -> Self {
        self.trust.get_or_insert_default().owner = Some(uid);
        self
    }

    /// Also accepts files that this group can write. Its members decide as that owner would.
    #[must_use]
    pub fn with_trusted_group(mut self, gid: u32) -> Self {
        self.trust.get_or_insert_default().group = Some(gid);
        self
    }

    fn by(method: Method) -> Self {
        Self { method, mount: None, trust: Some(Trust::default()) }
    }

    /// The method's name, for messages.
    pub(super) const fn name(&self) -> &'static str {
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
    pub(super) fn body(&self) -> Result<Option<WipedBytes>, OpenBaoError> {
        Ok(match &self.method {
            Method::Token(_) | Method::TokenFile(_) => None,
            Method::AppRole { role, secret } => {
                let secret = match secret {
                    None => None,
                    Some(SecretId::Given(secret)) => Some(secret.clone()),
                    Some(SecretId::File(path)) => Some(Credential::from_file(path, self.trust)?),
                };
                let mut fields = vec![("role_id", role.checked()?)];
                if let Some(secret) = &secret {
                    fields.push(("secret_id", secret.checked()?));
                }
                Some(json::object(&fields))
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
pub(super) struct Credential(Arc<WipedBytes>);

impl Credential {
    /// Takes the block over as it is. It is checked when it is used.
    pub(super) fn new(bytes: WipedBytes) -> Self {
        Self(Arc::new(bytes))
    }

    fn given(text: String) -> Self {
        Self::new(WipedBytes::from(text.into_bytes()))
    }

    /// The first line of a file that is this user's, root's or a trusted one's.
    pub(super) fn from_file(path: &Path, trust: Option<Trust>) -> Result<Self, OpenBaoError> {
        let mut bytes = read_file(path, MAX_CREDENTIAL + 2, trust)?;
        let end = bytes.trim_ascii_end().len();
        bytes.truncate(end);
        Ok(Self::new(bytes))
    }

    /// Its bytes, if they are printable ASCII of a possible length.
    pub(super) fn checked(&self) -> Result<&[u8], OpenBaoError> {
        let is_plain = self.0.iter().all(u8::is_ascii_graphic);
        let fits = (1..=MAX_CREDENTIAL).contains(&self.0.len());
        if is_plain && fits { Ok(&self.0) } else { Err(OpenBaoError::BadCredential) }
    }

    pub(super) fn is(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }

    /// A header's value that shares the memory, and that nothing prints.
    pub(super) fn header(&self) -> Result<HeaderValue, OpenBaoError> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_without_a_secret_id_sends_none() {
        let role = || Login::app_role("a-role".to_owned());
        assert_eq!(*role().body().unwrap().unwrap(), *br#"{"role_id":"a-role"}"#);
        let login = role().with_secret_id("a-secret".to_owned());
        assert_eq!(*login.body().unwrap().unwrap(), *br#"{"role_id":"a-role","secret_id":"a-secret"}"#);
        let other = Login::token("a-token".to_owned()).with_secret_id("a-secret".to_owned());
        assert!(other.body().unwrap().is_none());
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
