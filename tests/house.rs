//! The rules of the house: what imports what, which rooms and features are listed, how long files are, where the crate
//! refuses to build.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every `.rs` file below a folder, as a path from the root with `/`.
fn sources(folder: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let path = path.strip_prefix(root()).unwrap();
                found.push(path.to_str().unwrap().replace('\\', "/"));
            }
        }
    }
    found.retain(|path| is_rust(path));
    found.sort();
    found
}

fn is_rust(path: &str) -> bool {
    Path::new(path).extension().is_some_and(|extension| extension == "rs")
}

/// The modules in the order of `lib.rs`.
fn rooms() -> Vec<String> {
    let lib = read("src/lib.rs");
    let name = |line: &str| {
        let line = line.strip_prefix("pub ").unwrap_or(line);
        Some(line.strip_prefix("mod ")?.strip_suffix(';')?.to_owned())
    };
    lib.lines().filter_map(name).collect()
}

/// The modules that a line of code names after `crate::`, groups included.
fn named_after_crate(code: &str) -> Vec<String> {
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut names = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut start = true;
            for (at, c) in group.char_indices() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => start = true,
                    c if start && c.is_alphabetic() => {
                        names.push(word(&group[at..]));
                        start = false;
                    }
                    _ => {}
                }
            }
        } else {
            names.push(word(rest));
        }
    }
    names
}

/// Upward imports of one file: the file's room and the room below it that it names.
fn upward_imports(path: &str, code: &str, rooms: &[String]) -> Vec<String> {
    let room = path.trim_start_matches("src/").split(['/', '.']).next().unwrap();
    let place = |name: &str| rooms.iter().position(|room| room == name);
    let Some(own) = place(room) else { return Vec::new() };
    let code: String =
        code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    named_after_crate(&code)
        .into_iter()
        .filter(|name| place(name).is_some_and(|other| other > own))
        .map(|name| format!("{path} imports crate::{name}"))
        .collect()
}

#[test]
fn a_module_imports_only_from_modules_above_it() {
    let rooms = rooms();
    assert!(rooms.len() >= 9, "lib.rs lists its modules one to a line: {rooms:?}");
    let wrong: Vec<String> =
        sources("src").iter().flat_map(|path| upward_imports(path, &read(path), &rooms)).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn an_upward_import_would_be_seen_in_each_way_of_writing_it() {
    let rooms = rooms();
    for code in [
        "use crate::chain::Chain;",
        "use crate::{\n    chain::Chain,\n};",
        "use crate::{format::{Hint, KeyFormat}, chain::Chain};",
        "fn f() -> crate::chain::Chain<K> {}",
    ] {
        assert_eq!(upward_imports("src/key.rs", code, &rooms), ["src/key.rs imports crate::chain"], "{code}");
    }
    assert!(upward_imports("src/key.rs", "/// [`crate::chain`]\nuse crate::key::Hint;", &rooms).is_empty());
}

#[test]
fn no_file_is_longer_than_500_lines() {
    for folder in ["src", "tests", "examples", "benches", "fuzz/bodies", "fuzz/fuzz_targets"] {
        for path in sources(folder) {
            let lines = read(&path).lines().count();
            assert!(lines <= 500, "{path} has {lines} lines: split it");
        }
    }
}

#[test]
fn a_name_in_a_message_goes_through_the_printing_filter() {
    for path in sources("src").iter().filter(|path| *path != "src/internal/printable.rs") {
        let text = read(path);
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap().lines();
        for (number, line) in code.enumerate().filter(|(_, line)| !line.trim_start().starts_with("//")) {
            for raw in [".display()", "escape_debug()", "escape_default()", "to_string_lossy()"] {
                assert!(!line.contains(raw), "{path}:{}: {raw}: print it as Printable", number + 1);
            }
        }
    }
}

/// Adding a span to a time, or taking one from it, panics where the platform's clock ends, and that of Windows ends early.
#[test]
fn no_time_is_added_to_without_a_bound() {
    let is_exempt = |path: &str| path.ends_with("tests.rs") || ["src/internal/utc.rs"].contains(&path);
    for path in sources("src").iter().filter(|path| !is_exempt(path)) {
        let text = read(path);
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap().lines();
        for (number, line) in code.enumerate().filter(|(_, line)| !line.trim_start().starts_with("//")) {
            for sum in ["now() + ", "now() - ", "UNIX_EPOCH + ", "UNIX_EPOCH - ", " now + ", "(now + "] {
                let at = number + 1;
                assert!(!line.contains(sum), "{path}:{at}: use internal::clocks::later, or checked_add");
            }
        }
    }
}

#[test]
fn an_error_is_printed_with_its_cause_or_has_it_as_a_source() {
    let mut transparent = 0;
    for path in sources("src") {
        let text = read(&path);
        let text = text.split("#[cfg(test)]").next().unwrap();
        for (at, _) in text.match_indices("#[source]").chain(text.match_indices("#[from]")) {
            let message = text[..at].rfind("#[error(").unwrap_or_else(|| panic!("{path}: no message"));
            assert!(
                text[message..].starts_with("#[error(transparent)]"),
                "{path}: the cause is printed twice"
            );
            transparent += 1;
        }
    }
    assert!(transparent > 0, "the search finds none");
}

#[test]
fn architecture_lists_the_rooms_of_lib_rs_in_order() {
    let text = read("ARCHITECTURE.md");
    let listed: Vec<String> = text
        .lines()
        .filter_map(|line| Some(line.strip_prefix("| `")?.split_once('`')?.0.to_owned()))
        .collect();
    let rooms: Vec<String> = rooms().into_iter().filter(|room| room != "live_tests").collect();
    assert_eq!(listed, rooms);
}

#[test]
fn the_readme_lists_the_features_of_the_manifest() {
    let manifest = read("Cargo.toml");
    let section = manifest.split("[features]").nth(1).unwrap().split("\n[").next().unwrap();
    let readme = read("README.md");
    let mut count = 0;
    for line in section.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_lowercase())) {
        let name = line.split_once(" =").unwrap().0;
        if name != "default" {
            assert!(readme.contains(&format!("| `{name}` |")), "README has no row for the feature {name}");
            count += 1;
        }
    }
    assert!(count >= 4);
}

#[test]
fn each_promise_that_is_made_names_a_test_that_is_there() {
    for document in ["README.md", "SECURITY.md"] {
        let text = read(document);
        let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("| P")).collect();
        assert!(rows.len() >= 7, "{document} has a table of promises");
        for row in rows {
            let tests: Vec<&str> =
                row.split('`').filter(|word| word.starts_with("tests/") && is_rust(word)).collect();
            assert!(!tests.is_empty(), "{document}: no test named in: {row}");
            for test in tests {
                assert!(root().join(test).is_file(), "{document} names {test}, which is not there");
            }
        }
    }
}

/// Compiles `src/platform.rs` alone for a target whose standard library need not be installed, and says
/// whether it refused.
fn refuses_to_build_for(target: &str) -> bool {
    let folder = tempfile::tempdir().unwrap();
    let crate_root = folder.path().join("lib.rs");
    let platform = root().join("src/platform.rs");
    let text = format!(
        "#![feature(no_core, rustc_attrs)]\n#![no_core]\n\
         #[rustc_builtin_macro]\nmacro_rules! compile_error {{ ($message:expr $(,)?) => {{}} }}\n\
         #[path = \"{}\"]\nmod platform;\n",
        platform.display()
    );
    fs::write(&crate_root, text).unwrap();
    let output = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
        .args(["--crate-type=lib", "--emit=metadata", "--target", target, "--out-dir"])
        .args([folder.path(), &crate_root])
        .env("RUSTC_BOOTSTRAP", "1")
        .output()
        .expect("rustc runs");
    let errors = String::from_utf8(output.stderr).unwrap();
    let refused = errors.contains("keysheath does not build for browsers, phones and the like");
    // A file without items builds to the end even so: nothing but the refusal may stop it.
    assert_ne!(refused, output.status.success(), "{target}: {errors}");
    refused
}

#[test]
fn the_crate_refuses_to_build_for_browsers_and_phones_and_nowhere_else() {
    for target in [
        "wasm32-unknown-unknown",
        "wasm64-unknown-unknown",
        "wasm32-unknown-emscripten",
        "aarch64-linux-android",
        "aarch64-apple-ios",
        "aarch64-apple-ios-macabi",
        "aarch64-apple-tvos",
        "aarch64-apple-watchos",
        "aarch64-apple-visionos",
        "aarch64-unknown-linux-ohos",
        "x86_64-unknown-linux-ohos",
    ] {
        assert!(refuses_to_build_for(target), "{target}");
    }
    for target in [
        "x86_64-unknown-linux-gnu",
        "x86_64-unknown-linux-musl",
        "aarch64-apple-darwin",
        "x86_64-pc-windows-msvc",
        "x86_64-unknown-freebsd",
        "wasm32-wasip2",
    ] {
        assert!(!refuses_to_build_for(target), "{target}");
    }
    assert!(read("src/lib.rs").contains("\nmod platform;"), "lib.rs must include the refusal");
}
