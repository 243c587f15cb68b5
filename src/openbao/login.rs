//! How a client gets its token.

use crate::internal::bytes::{WipedBytes, read_at_most};
use crate::internal::files::{self, FileProblem, Kind, Trust, absolute};
use bytes::Bytes;
use http::HeaderValue;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use subtle::ConstantTimeEq as _;

use super::OpenBaoError;
use super::json;
use crate::internal::printing::{Printable, PrintablePath};

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
    pub(super) method: Method,
    mount: Option<String>,
    /// Whose files are read.
    pub(super) trust: Trust,
}

#[derive(Clone)]
pub(super) enum Method {
    Token(Credential),
    TokenFile(PathBuf),
    AppRole { role: Credential, secret: SecretId },
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
    pub(super) fn from_file(path: &Path, trust: Trust) -> Result<Self, OpenBaoError> {
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

/// Reads a file that others cannot have written, into one block: its writer chooses who this process is, or
/// whom it trusts. May hang.
pub(super) fn read_file(path: &Path, limit: usize, trust: Trust) -> Result<WipedBytes, OpenBaoError> {
    let refused = |problem| OpenBaoError::FileRefused { path: path.into(), problem };
    let unreadable = |error: io::Error| refused(FileProblem::Unreadable(error.kind()));
    let file = files::open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => OpenBaoError::NoFile { path: path.into() },
        _ => unreadable(error),
    })?;
    match files::check_trusted(&file.metadata().map_err(unreadable)?, trust) {
        Ok(Kind::Regular) => {}
        Ok(Kind::Pipe) => return Err(refused(FileProblem::NotAFile)),
        Err(problem) => return Err(refused(problem)),
    }
    read_at_most(file, limit).map_err(unreadable)?.ok_or(refused(FileProblem::TooLarge { limit }))
}

#[cfg(test)]
mod tests {
    use super::*;

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
