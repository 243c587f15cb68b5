//! The example, as a process: it signs in at the real server, and calls an API and the emulator.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Command, Stdio};

use base64::Engine as _;
use keysheath::emulator::Emulator;
use keysheath::key::{Issuer as _, Katana, Origin, RawKey};
use keysheath::store::{DocumentStore as _, FileStore};

use crate::support::Folder;
use crate::support::oidc::{Browser, CLIENT_SECRET, Decision, Oidc, visit};

/// Starts the example in a folder, with its client secret there.
fn example(oidc: &Oidc, folder: &Folder, api: &Origin) -> Command {
    folder.write("client-secret", CLIENT_SECRET);
    let test = std::env::current_exe().unwrap();
    let name = format!("oauth_sign_in{}", std::env::consts::EXE_SUFFIX);
    let program = test.ancestors().nth(2).unwrap().join("examples").join(name);
    assert!(program.is_file(), "not built: cargo build --example oauth_sign_in --all-features");
    let mut command = Command::new(program);
    let (login, api) = (oidc.origin().to_string(), api.to_string());
    command.args(["shop-sync", "file:client-secret", "--login", &login, "--api", &api]);
    command.current_dir(folder.path()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The access token in the grant, as its form has it.
fn access_token(folder: &Folder) -> Vec<u8> {
    let document = FileStore::new(folder.at("katana-grant")).read().unwrap().unwrap();
    let form: serde_json::Value = serde_json::from_slice(document.content().expose_secret()).unwrap();
    base64::engine::general_purpose::STANDARD.decode(form["access"].as_str().unwrap()).unwrap()
}

#[test]
fn it_signs_in_once_and_calls_an_api_and_the_emulator() {
    let (oidc, folder) = (Oidc::start(""), Folder::new());
    let mut child = example(&oidc, &folder, &oidc.origin()).spawn().unwrap();
    let mut shown = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.starts_with("http") {
        line.clear();
        assert_ne!(shown.read_line(&mut line).unwrap(), 0, "it ended before it showed a page");
    }
    let back = Browser::default().sign_in(line.trim(), Decision::Agree);
    assert_eq!(visit(&back).status, 200);
    let mut rest = String::new();
    shown.read_to_string(&mut rest).unwrap();
    assert!(child.wait().unwrap().success(), "{rest}");
    assert!(rest.contains("Signed in.") && rest.contains("200: accepted"), "{rest}");

    // The emulator takes that token for a key of its own, and no person is needed any more.
    let token = access_token(&folder);
    assert!(!rest.contains(std::str::from_utf8(&token).unwrap()));
    let key = RawKey::parse(Katana::PROFILE, &token).unwrap();
    let emulator = Emulator::katana().with_key(key).start().unwrap();
    let output = example(&oidc, &folder, emulator.origin()).output().unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && shown.ends_with("200: accepted\n"), "{shown}");
    assert!(!shown.contains("Open this page"), "{shown}");
    assert_eq!(oidc.count("exchanged"), 1);
}

#[test]
fn it_says_what_is_wrong_and_shows_no_secret() {
    let (oidc, folder) = (Oidc::start(""), Folder::new());
    std::fs::write(folder.at("katana-grant"), CLIENT_SECRET).unwrap();
    let output = example(&oidc, &folder, &oidc.origin()).output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && errors.starts_with("oauth_sign_in: "), "{errors}");
    assert!(!errors.contains(&CLIENT_SECRET[..6]), "{errors}");
}
