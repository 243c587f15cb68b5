//! How a client gets its token.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use super::OpenBaoError;
use super::json;
use super::secret::Secret;
use crate::internal::bytes::WipedBytes;
use crate::internal::paths::absolute;
use crate::internal::printable::{Printable, PrintablePath};
use crate::internal::trusted_file::Trust;

/// How a client gets its token. Nothing is read or sent before the first call.
///
/// | login | gets its token | renews it | when the token is refused |
/// |---|---|---|---|
/// | [`Login::token`] | as given | yes, if it is renewable | [`OpenBaoError::TokenRefused`] |
/// | [`Login::token_file`] | from a file, such as an agent writes | no: whoever writes the file does | reads the file again |
/// | [`Login::app_role`], [`Login::app_role_file`] | for a role ID and a secret ID | yes | logs in anew |
/// | [`Login::kubernetes`] | for a service account's JWT, in a file | yes | logs in anew, with the file as it is then |
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
    Token(Arc<Unchecked>),
    TokenFile(PathBuf),
    AppRole { role: Arc<Unchecked>, secret: SecretId },
    Kubernetes { role: String, jwt: PathBuf },
}

#[derive(Clone)]
pub(super) enum SecretId {
    Given(Arc<Unchecked>),
    File(PathBuf),
}

/// What a person gave, to be looked at when it is used.
pub(super) struct Unchecked(WipedBytes);

impl Unchecked {
    fn new(text: String) -> Arc<Self> {
        Arc::new(Self(WipedBytes::from(text.into_bytes())))
    }

    pub(super) fn secret(&self) -> Result<Secret, OpenBaoError> {
        Secret::new(WipedBytes::copy_of(&self.0))
    }
}

impl Login {
    /// Where Kubernetes puts the JWT of a pod's service account.
    ///
    /// ```
    /// use keysheath::openbao::Login;
    /// assert!(Login::KUBERNETES_JWT.starts_with("/var/run/secrets/"));
    /// ```
    pub const KUBERNETES_JWT: &'static str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

    /// A token. The block of the text is taken over and wiped in place.
    ///
    /// ```
    /// # use keysheath::openbao::Login;
    /// let login = Login::token(String::from("s.…"));
    /// ```
    #[must_use]
    pub fn token(token: String) -> Self {
        Self::by(Method::Token(Unchecked::new(token)))
    }

    /// The token in a file, such as an agent keeps up to date or `bao login` leaves in `~/.vault-token`. The file must belong
    /// to root, to this user or to [who is trusted](Login::with_trusted_owner), and be writable by no one else.
    ///
    /// ```
    /// # use keysheath::openbao::Login;
    /// let login = Login::token_file("/run/bao-agent/token");
    /// ```
    #[must_use]
    pub fn token_file(path: impl Into<PathBuf>) -> Self {
        Self::by(Method::TokenFile(absolute(path.into())))
    }

    /// `AppRole`, with a secret ID. The blocks of both texts are taken over and wiped in place.
    ///
    /// ```
    /// # use keysheath::openbao::Login;
    /// let login = Login::app_role(String::from("59d6d1ca-…"), String::from("84896a0c-…"));
    /// ```
    #[must_use]
    pub fn app_role(role_id: String, secret_id: String) -> Self {
        let secret = SecretId::Given(Unchecked::new(secret_id));
        Self::by(Method::AppRole { role: Unchecked::new(role_id), secret })
    }

    /// `AppRole`, with the secret ID in a file, which is read at each login. The file must belong to root, to this
    /// user or to [who is trusted](Login::with_trusted_owner), and be writable by no one else.
    ///
    /// ```
    /// # use keysheath::openbao::Login;
    /// let login = Login::app_role_file(String::from("59d6d1ca-…"), "/run/secrets/bao-secret-id");
    /// ```
    #[must_use]
    pub fn app_role_file(role_id: String, secret_id: impl Into<PathBuf>) -> Self {
        let secret = SecretId::File(absolute(secret_id.into()));
        Self::by(Method::AppRole { role: Unchecked::new(role_id), secret })
    }

    /// Kubernetes, with the JWT at [`Login::KUBERNETES_JWT`].
    ///
    /// ```
    /// # use keysheath::openbao::Login;
    /// let login = Login::kubernetes("shop-sync");
    /// ```
    #[must_use]
    pub fn kubernetes(role: impl Into<String>) -> Self {
        Self::by(Method::Kubernetes { role: role.into(), jwt: Self::KUBERNETES_JWT.into() })
    }

    /// With the JWT of the Kubernetes login in another file. Other logins have none, and stay as they are.
    ///
    /// ```
    /// # use keysheath::openbao::Login;
    /// let login = Login::kubernetes("shop-sync").with_jwt("/var/run/secrets/tokens/openbao");
    /// ```
    #[must_use]
    pub fn with_jwt(mut self, path: impl Into<PathBuf>) -> Self {
        if let Method::Kubernetes { jwt, .. } = &mut self.method {
            *jwt = absolute(path.into());
        }
        self
    }

    /// At another mount than `approle` or `kubernetes`. A token needs none.
    ///
    /// ```
    /// # use keysheath::openbao::Login;
    /// let login = Login::kubernetes("shop-sync").at_mount("k8s-east");
    /// ```
    #[must_use]
    pub fn at_mount(mut self, mount: impl Into<String>) -> Self {
        self.mount = Some(mount.into());
        self
    }

    /// Takes the files of this login from this user too: such as a token that an agent writes as user 100, or a secret that a
    /// container runtime mounts with its owner on the host. That user chooses who this process is at OpenBao, and so whose keys it
    /// gets.
    ///
    /// ```
    /// # use keysheath::openbao::Login;
    /// let login = Login::token_file("/run/bao-agent/token").with_trusted_owner(100);
    /// ```
    #[must_use]
    pub const fn with_trusted_owner(mut self, uid: u32) -> Self {
        self.trust.owner = Some(uid);
        self
    }

    /// Takes the files of this login although this group may write them, whose members choose as that user would.
    ///
    /// ```
    /// # use keysheath::openbao::Login;
    /// let login = Login::token_file("/run/bao-agent/token").with_trusted_group(1000);
    /// ```
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
                    SecretId::Given(secret) => secret.secret()?,
                    SecretId::File(path) => Secret::from_file(path, self.trust)?,
                };
                let role = role.secret()?;
                Some(json::object(&[("role_id", role.bytes()), ("secret_id", secret.bytes())]))
            }
            Method::Kubernetes { role, jwt } => {
                let role = Unchecked::new(role.clone()).secret()?;
                let jwt = Secret::from_file(jwt, self.trust)?;
                Some(json::object(&[("role", role.bytes()), ("jwt", jwt.bytes())]))
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
