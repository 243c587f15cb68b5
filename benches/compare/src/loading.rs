//! Loading a key, beside the same by hand: a text becomes a `SecretString` of 24 characters.

use std::fs;
use std::hint::black_box;

use keysheath::chain::Chain;
use keysheath::source::{DotenvFile, SecretFile, Source, Variable};
use secrecy::{ExposeSecret as _, SecretString};

use super::{KEY, Kanal, row};

/// A variable with a key.
pub(super) const VARIABLE: &str = "KEYSHEATH_COMPARE_KEY";

pub(super) fn rows() {
    variable();
    files();
}

fn variable() {
    let chain = chain(Variable::new(VARIABLE));
    let ours = || black_box(&chain).load().is_ok();
    let theirs = || by_hand(std::env::var(black_box(VARIABLE)).ok()).is_some();
    let what = "`Chain::load` from a variable, its format and its being no placeholder checked";
    row(what, ours, "`env::var`, `SecretString`, its length", theirs);
}

fn files() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("kanal");
    fs::write(&path, format!("{KEY}\n")).expect("a file");
    let source = chain(SecretFile::new(&path));
    let ours = || black_box(&source).load().is_ok();
    let theirs = || by_hand(fs::read_to_string(black_box(&path)).ok()).is_some();
    let what = "`Chain::load` from a file: owner, mode, size and format checked, on a thread with a deadline";
    row(what, ours, "`fs::read_to_string`, `SecretString`, its length", theirs);

    let path = folder.path().join(".env");
    let mut lines: Vec<_> = (0..10).map(|line| format!("NAME_{line}=\"a value of line {line}\"")).collect();
    lines.push(format!("KANAL_API_KEY={KEY}\n"));
    fs::write(&path, lines.join("\n")).expect("a file");
    let source = chain(DotenvFile::new(&path, "KANAL_API_KEY"));
    let ours = || black_box(&source).load().is_ok();
    let theirs = || {
        let lines = dotenvy::from_path_iter(black_box(&path)).ok();
        let mut pairs = lines.into_iter().flatten().map_while(Result::ok);
        by_hand(pairs.find_map(|(name, value)| (name == "KANAL_API_KEY").then_some(value))).is_some()
    };
    let what = "`Chain::load` from a `.env` of 11 lines, checked as the file above";
    row(what, ours, "`dotenvy::from_path_iter`, `SecretString`, its length", theirs);
}

fn chain(source: impl Source + 'static) -> Chain<Kanal> {
    Chain::new().with(source)
}

/// As a careful hand writes it.
fn by_hand(text: Option<String>) -> Option<SecretString> {
    let secret = SecretString::from(text?.trim_end());
    (secret.expose_secret().len() == KEY.len()).then_some(secret)
}
