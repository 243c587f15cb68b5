//! What can go wrong between this crate and OpenBao.

use std::path::PathBuf;

use crate::failure::Obstacle;
use crate::internal::files::FileProblem;
use crate::internal::printing::PrintablePath;
use crate::key::RootsError;

/// OpenBao did not give or take something, or could not be asked: why, and what to do next. It holds no byte
/// of a token, of a secret, or of an answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenBaoError {
    /// No variable says where OpenBao is.
    #[error("OpenBao's address is not known: set BAO_ADDR (or VAULT_ADDR), such as https://bao.example:8200")]
    NoAddress,
    /// Variables of both prefixes are set, and are not the same. One server's token is not sent to another
    /// one.
    #[error(
        "{variable} is set beside BAO_ variables, and is not the same as its BAO_ partner: unset those of \
         one prefix"
    )]
    TwoPrefixes {
        /// The `VAULT_` variable.
        variable: &'static str,
    },
    /// A variable has what cannot be used.
    #[error("{variable} cannot be used: {rule}")]
    #[non_exhaustive]
    BadVariable {
        /// The variable.
        variable: &'static str,
        /// The rule that it breaks.
        rule: &'static str,
    },
    /// The certificates of the authority cannot be used.
    #[error("the authority's certificates cannot be used: {0}")]
    BadRoots(RootsError),
    /// There is neither a token nor a token file.
    #[error("there is no token: set BAO_TOKEN (or VAULT_TOKEN), or sign in so that ~/.vault-token is there")]
    NoToken,
    /// The address is not one that a token may go to.
    #[error(
        "a token goes over TLS: write the address as https:// (http:// is for an IP-literal loopback \
         address, and for a host that is named to OpenBao::at_plain_http or by KEYSHEATH_OPENBAO_PLAIN_HTTP)"
    )]
    NotHttps,
    /// A namespace, a mount or a path is not well-formed.
    #[error("a name cannot be used: {rule}")]
    #[non_exhaustive]
    BadName {
        /// The rule that it breaks.
        rule: &'static str,
    },
    /// A token, a role or a secret ID has what a header or a text cannot carry.
    #[error(
        "the token, role or secret ID is not text of 1 to 8192 printable characters: write it alone, on one \
         line"
    )]
    BadCredential,
    /// A file of the login, or of the certificates, is not there.
    #[error("{} is not there: sign in first, mount it, or name another file", PrintablePath(.path))]
    NoFile {
        /// The file.
        path: PathBuf,
    },
    /// A file of a [`Login`](super::Login) is not read.
    #[error("{}: {problem}{}", PrintablePath(.path), .problem.other_way())]
    LoginFileRefused {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: FileProblem,
    },
    /// A file that [`OpenBao::from_env`](super::OpenBao::from_env) uses is not read: the certificates of
    /// `BAO_CACERT`, or `~/.vault-token`.
    #[error("{}: {problem}", PrintablePath(.path))]
    FileRefused {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: FileProblem,
    },
    /// The token is no longer good, or never was.
    #[error(
        "OpenBao refuses the token (expired, revoked, another server's, or one that may not look itself up): \
         sign in again, or give a new token"
    )]
    TokenRefused,
    /// The login is refused.
    #[error(
        "OpenBao refuses the {method} login: check its role and its secret, and that they are still good"
    )]
    LoginRefused {
        /// The login method.
        method: &'static str,
    },
    /// There is no such login method.
    #[error("OpenBao has no {method} login at that mount: check the mount and the namespace")]
    #[non_exhaustive]
    NoLoginMount {
        /// The login method.
        method: &'static str,
    },
    /// The token is good, and its policies forbid this.
    #[error("the token's policies forbid this: let them {access}")]
    Forbidden {
        /// What they must allow.
        access: &'static str,
    },
    /// Nothing is mounted there, or nothing that this token may see.
    #[error(
        "no secrets engine is mounted there, or none that the token's policies give anything of: check the \
         mount, the namespace and the policies"
    )]
    NoMount,
    /// There is no such namespace.
    #[error("there is no such namespace: check its name (BAO_NAMESPACE or VAULT_NAMESPACE)")]
    NoNamespace,
    /// The mount is not a key-value secrets engine of version 2.
    #[error(
        "the mount is no key-value secrets engine of version 2, and others have no versions and write over \
         what is there: use one that was enabled with `bao secrets enable -version=2 kv`"
    )]
    NotVersion2,
    /// The secret has no such field.
    #[error("the secret is there and has no such field: check the field's name, or write it")]
    NoField,
    /// The field is not a text.
    #[error("the field is there and is not a text: write the key as a string")]
    NotText,
    /// The current version was deleted.
    #[error(
        "version {version}, the current one, was deleted: restore it with `bao kv undelete`, or write a new \
         one"
    )]
    Deleted {
        /// The version.
        version: u64,
    },
    /// The current version was destroyed.
    #[error(
        "version {version}, the current one, was destroyed: bring an earlier one back with `bao kv rollback`"
    )]
    Destroyed {
        /// The version.
        version: u64,
    },
    /// OpenBao is sealed.
    #[error("OpenBao is sealed: unseal it")]
    Sealed,
    /// No node of the cluster is the active one now.
    #[error("no node of OpenBao's cluster is active now: wait for the election, or see why there is none")]
    NoActiveNode,
    /// The secrets engine is not ready on the node that was asked, such as just after it was mounted.
    #[error("the secrets engine is not ready yet: ask again shortly")]
    NotReady,
    /// OpenBao has had too many requests.
    #[error("OpenBao has had too many requests: ask less often, or raise its rate limit quota")]
    TooManyRequests,
    /// OpenBao failed.
    #[error("OpenBao failed with status {status}: ask again later, and look at its log")]
    Failed {
        /// The HTTP status.
        status: u16,
    },
    /// OpenBao did not take the request.
    #[error(
        "OpenBao did not take the request (status {status}): check the mount and the path, and look at its \
         log"
    )]
    Rejected {
        /// The HTTP status.
        status: u16,
    },
    /// The answer points to a server that was not named. The token was not taken there.
    #[error(
        "the server points to another one that was not named, and the token was not taken there: name the \
         cluster's members, or look at what stands between you and OpenBao"
    )]
    Redirected,
    /// What answered is not OpenBao.
    #[error(
        "what came (status {status}) is no answer of OpenBao: check the address, and look at what stands \
         between you and it, such as a proxy"
    )]
    NotOpenBao {
        /// The HTTP status.
        status: u16,
    },
    /// Whether a write has happened is not known.
    #[error("whether the write has happened is not known: read again")]
    Unsettled,
    /// Nothing came.
    #[error("OpenBao gave no answer: {0}")]
    NoAnswer(Obstacle),
}

impl OpenBaoError {
    /// Returns whether the same call may succeed later, without a change of a name, a policy or a token.
    #[must_use]
    pub const fn is_temporary(&self) -> bool {
        matches!(
            self,
            Self::Sealed
                | Self::NoActiveNode
                | Self::NotReady
                | Self::TooManyRequests
                | Self::Failed { .. }
                | Self::NotOpenBao { .. }
                | Self::Unsettled
                | Self::NoAnswer(_)
        )
    }
}
