//! The variables that the command-line tools of OpenBao and Vault read.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use zeroize::{Zeroize as _, Zeroizing};

use super::{Login, OpenBao, OpenBaoError, secret};
use crate::internal::trusted_file::Trust;
use crate::key::{Origin, Roots};

/// The largest file of certificates that is read, in bytes.
const MAX_CERTIFICATES: usize = 1024 * 1024;

/// The two names of each variable: of OpenBao and of Vault.
const ADDRESS: [&str; 2] = ["BAO_ADDR", "VAULT_ADDR"];
const TOKEN: [&str; 2] = ["BAO_TOKEN", "VAULT_TOKEN"];
const CERTIFICATES: [&str; 2] = ["BAO_CACERT", "VAULT_CACERT"];
const NAMESPACE: [&str; 2] = ["BAO_NAMESPACE", "VAULT_NAMESPACE"];

/// The host that a token may go to in the clear.
const PLAIN_HTTP: &str = "KEYSHEATH_OPENBAO_PLAIN_HTTP";

/// A variable's value, wiped when dropped. Set to nothing counts as not set, as it does for those tools.
struct Value(OsString);

impl Value {
    fn of(name: &str) -> Option<Self> {
        env::var_os(name).map(Self).filter(|value| !value.0.is_empty())
    }

    fn text(&mut self, variable: &'static str) -> Result<Zeroizing<String>, OpenBaoError> {
        match std::mem::take(&mut self.0).into_string() {
            Ok(text) => Ok(Zeroizing::new(text)),
            Err(value) => {
                self.0 = value;
                Err(OpenBaoError::BadVariable { variable, rule: "it is not UTF-8 text" })
            }
        }
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        std::mem::take(&mut self.0).into_encoded_bytes().zeroize();
    }
}

/// The one prefix that is in use: 0 for `BAO_`, 1 for `VAULT_`.
fn prefix() -> Result<usize, OpenBaoError> {
    let all = [ADDRESS, TOKEN, CERTIFICATES, NAMESPACE];
    let values = all.map(|names| (names, names.map(Value::of)));
    if values.iter().all(|(_, [bao, _])| bao.is_none()) {
        return Ok(1);
    }
    for ([_, variable], [bao, vault]) in &values {
        let is_same = match (bao, vault) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(bao), Some(vault)) => bao.0 == vault.0,
        };
        if !is_same {
            return Err(OpenBaoError::TwoPrefixes { variable });
        }
    }
    Ok(0)
}

pub(super) fn read() -> Result<OpenBao, OpenBaoError> {
    let prefix = prefix()?;
    let variable = |names: [&'static str; 2]| {
        let name = names[prefix];
        Value::of(name).map(|mut value| Ok((value.text(name)?, name))).transpose()
    };
    let (address, name) = variable(ADDRESS)?.ok_or(OpenBaoError::NoAddress)?;
    let bad = || OpenBaoError::BadVariable {
        variable: name,
        rule: "it is not scheme, host and port, and perhaps a path, such as https://bao.example:8200 or https://proxy.example/bao",
    };
    let host = address.find("://").map_or(0, |at| at + 3);
    let end = address[host..].find('/').map_or(address.len(), |at| host + at);
    let (origin, path) = address.split_at(end);
    let origin = Origin::parse(origin).map_err(|_| bad())?;
    let login = match variable(TOKEN)? {
        Some((mut token, _)) => Login::token(std::mem::take(&mut *token)),
        None => Login::token_file(token_file().ok_or(OpenBaoError::NoToken)?),
    };
    let plain = Value::of(PLAIN_HTTP).map(|mut value| value.text(PLAIN_HTTP)).transpose()?;
    let is_plain = plain.is_some_and(|host| host.eq_ignore_ascii_case(origin.host()));
    let mut client =
        if is_plain { OpenBao::at_plain_http(origin, login)? } else { OpenBao::at(origin, login)? };
    if !matches!(path, "" | "/") {
        client = client.with_path_prefix(path).map_err(|_| bad())?;
    }
    if let Some((namespace, _)) = variable(NAMESPACE)? {
        client = client.with_namespace(namespace.trim_matches('/'))?;
    }
    if let Some((path, _)) = variable(CERTIFICATES)? {
        let pem = secret::read(Path::new(&*path), MAX_CERTIFICATES, Trust::default())?;
        client = client.with_roots(Roots::from_pem(&pem).map_err(OpenBaoError::BadRoots)?);
    }
    Ok(client)
}

/// Where both tools leave the token after a login.
fn token_file() -> Option<PathBuf> {
    let home = env::home_dir().filter(|home| !home.as_os_str().is_empty())?;
    Some(home.join(".vault-token")).filter(|path| path.symlink_metadata().is_ok())
}
