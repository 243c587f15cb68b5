//! The example `first_request`, which the README names, as a process.

use std::path::PathBuf;
use std::process::{Command, Output};

use crate::support::recorder::Recorder;

const KEY: &str = "8fK2pX9mWq4Ld7Vb3Nc6Ts1Z";

fn first_request(arguments: &[&str]) -> Command {
    let test = std::env::current_exe().unwrap();
    let target = test.ancestors().nth(2).unwrap();
    let name = format!("first_request{}", std::env::consts::EXE_SUFFIX);
    let example: PathBuf = target.join("examples").join(name);
    assert!(example.is_file(), "not built: cargo build --example first_request --all-features");
    let mut command = Command::new(example);
    command.args(arguments).env_remove("KANAL_API_KEY").env_remove("KANAL_STORE_ID");
    command
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn it_shows_each_row_of_the_table_and_never_the_key() {
    let output = first_request(&[]).output().unwrap();
    let (shown, errors) = texts(&output);
    assert!(output.status.success(), "{errors}");
    for (case, answer) in [
        ("good key", "201: accepted"),
        ("deleted key", "401: the key is unknown or was deleted"),
        ("another team's store", "403: the key is good, but not for this store"),
        ("paused store", "404: the store is unknown or paused"),
        ("no header", "401: the request carried no key"),
    ] {
        let line = shown.lines().find(|line| line.trim_start().starts_with(case));
        assert!(line.is_some_and(|line| line.contains(answer)), "{case}: {shown}");
    }
    assert!(shown.contains("Fingerprint urdz-nrsd-3rmw-jtz2"));
    assert!(!shown.contains(&KEY[..6]) && errors.is_empty());
}

#[test]
fn it_serves_katana_too() {
    let output = first_request(&["--issuer", "katana"]).output().unwrap();
    let (shown, _) = texts(&output);
    assert!(output.status.success() && shown.contains("200: accepted"), "{shown}");
}

#[test]
fn no_proxy_of_the_environment_gets_the_request() {
    let server = Recorder::plain("422 Unprocessable");
    let proxy = Recorder::plain("200 OK");
    let url = format!("http://{}", server.address);
    let proxy_url = format!("http://{}", proxy.address);
    let mut command = first_request(&["env:KANAL_API_KEY", "--url", &url, "--store", "7"]);
    for variable in ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"] {
        command.env(variable, &proxy_url);
    }
    let output =
        command.env("KANAL_API_KEY", KEY).env_remove("NO_PROXY").env_remove("no_proxy").output().unwrap();
    let (shown, errors) = texts(&output);
    assert!(output.status.success(), "{errors}");
    // The answer has no body, so it is not one that Kanal documents.
    assert!(shown.contains("422: not an answer that the issuer documents"), "{shown}");
    assert_eq!(server.heads().len(), 1);
    assert!(server.heads()[0].starts_with("POST /api/v1/stores/7/customers "));
    assert!(proxy.heads().is_empty(), "{:?}", proxy.heads());
    assert!(!format!("{shown}{errors}").contains(&KEY[..6]));
}

#[test]
fn bad_input_is_refused_and_not_echoed() {
    for (arguments, expected) in [
        (&[KEY][..], "REFERENCE: a key reference names a place"),
        (&["env:NO_SUCH_VARIABLE"], "no Kanal key was found"),
        (&["env:KANAL_API_KEY", "--url", "http://localhost:9", "--store", "1"], "a key goes over TLS only"),
        (
            &["env:KANAL_API_KEY", "--url", "http://getkanal.example", "--store", "1"],
            "a key goes over TLS only",
        ),
        (&["env:KANAL_API_KEY", "--url", "https://api.getkanal.com"], "ask your contact at Kanal"),
        (&["--url", "https://8fK2pX9mWq4Ld7Vb3Nc6Ts1Z@x"], "--url: an origin has no user name"),
        (&["--store", KEY], "--store: a store id is a positive number"),
        (&["--issuer", KEY], "--issuer: it is kanal or katana"),
        (&["--8fK2pX9mWq4Ld7Vb3Nc6Ts1Z"], "an argument was not understood"),
        (&["--store"], "a value is missing"),
        (
            &["env:KANAL_API_KEY", "--url", "https://api.katanamrp.com", "--store", "1"],
            "must not get another issuer's key",
        ),
    ] {
        let output = first_request(arguments).env("KANAL_API_KEY", KEY).output().unwrap();
        let (shown, errors) = texts(&output);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(errors.contains(expected), "{errors}");
        assert!(!format!("{shown}{errors}").contains(&KEY[..6]), "{shown}{errors}");
    }
}

#[cfg(unix)]
#[test]
fn an_argument_that_is_not_unicode_is_refused_and_not_echoed() {
    use std::os::unix::ffi::OsStrExt as _;

    let argument = [KEY.as_bytes(), b"\xff"].concat();
    let output = first_request(&[]).arg(std::ffi::OsStr::from_bytes(&argument)).output().unwrap();
    let (shown, errors) = texts(&output);
    assert_eq!(output.status.code(), Some(1));
    assert!(errors.contains("an argument is not Unicode"), "{errors}");
    assert!(!format!("{shown}{errors}").contains(&KEY[..6]), "{shown}{errors}");
}

#[test]
fn it_runs_wherever_temporary_files_are() {
    let folder = tempfile::tempdir().unwrap();
    let odd = folder.path().join("50% of #1, why?");
    std::fs::create_dir(&odd).unwrap();
    let output = first_request(&[]).env("TMPDIR", &odd).env("TMP", &odd).output().unwrap();
    let (shown, errors) = texts(&output);
    assert!(output.status.success() && shown.contains("50% of #1, why?"), "{shown}{errors}");
}
