//! The rules of the house: what imports what, which rooms and features are listed, how long files are, where
//! links lead, where the crate refuses to build.

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

/// The rooms in the order of `lib.rs`: its modules but for the guide.
fn rooms() -> Vec<String> {
    let lib = read("src/lib.rs");
    let name = |line: &str| {
        let line = line.strip_prefix("pub ").unwrap_or(line);
        let name = line.strip_prefix("mod ")?;
        Some(name.strip_suffix(';').or_else(|| name.strip_suffix(" {"))?.to_owned())
    };
    lib.lines().filter_map(name).filter(|name| name != "guide").collect()
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

const FOLDERS: [&str; 6] = ["src", "tests", "examples", "benches", "fuzz/bodies", "fuzz/fuzz_targets"];

#[test]
fn no_file_is_longer_than_500_lines() {
    for folder in FOLDERS {
        for path in sources(folder) {
            let lines = read(&path).lines().count();
            assert!(lines <= 500, "{path} has {lines} lines: split it");
        }
    }
}

/// The files of `src` under 60 lines, each with its reason.
const SHORT: [(&str, &str); 1] = [("src/platform.rs", "a test compiles it alone")];

#[test]
fn a_file_of_src_under_60_lines_has_a_reason() {
    let lengths = sources("src").into_iter().map(|path| (read(&path).lines().count(), path));
    let short: Vec<String> = lengths.filter(|(lines, _)| *lines < 60).map(|(_, path)| path).collect();
    let listed = SHORT.map(|(path, _)| path);
    assert_eq!(short, listed, "merge a short file with its neighbour, or list it with the reason");
}

/// A row of a table in the docs cannot be broken, so it may be longer.
#[test]
fn no_line_is_longer_than_110_columns() {
    let is_row = |line: &str| ["/// |", "//! |"].iter().any(|row| line.trim_start().starts_with(row));
    for path in FOLDERS.into_iter().flat_map(sources) {
        for (at, line) in read(&path).lines().enumerate().filter(|(_, line)| !is_row(line)) {
            assert!(line.chars().count() <= 110, "{path}:{}: break the line", at + 1);
        }
    }
    let scripts = fs::read_dir(root().join("scripts")).unwrap().map(|entry| entry.unwrap().file_name());
    let scripts = scripts.map(|name| format!("scripts/{}", name.into_string().unwrap()));
    let text = documents().into_iter().filter(|path| is_markdown(path)).chain(scripts);
    for path in text.chain(["Cargo.toml".to_owned()]) {
        let mut is_code = false;
        for (at, line) in read(&path).lines().enumerate() {
            let is_fence = is_markdown(&path) && line.trim_start().starts_with("```");
            is_code ^= is_fence;
            // Neither a table's row nor the package's description can be broken, and code is shown as it is.
            let is_exempt = is_code || line.starts_with("| ") || line.starts_with("description = ");
            let is_short = line.chars().count() <= 110;
            assert!(is_fence || is_exempt || is_short, "{path}:{}: break the line", at + 1);
        }
    }
}

/// The names of a file's test functions, those inside of macros included.
fn test_names(code: &str) -> Vec<&str> {
    let mut names = Vec::new();
    let mut is_test = false;
    for line in code.lines().map(str::trim_start) {
        is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
        let name = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ");
        if let Some(name) = name.and_then(|name| name.split('(').next())
            && std::mem::take(&mut is_test)
        {
            names.push(name);
        }
    }
    names
}

#[test]
fn no_test_name_is_longer_than_60_characters() {
    let code = "#[test]\nfn one() {}\nfn two() {}\n#[tokio::test]\nasync fn three() {}";
    assert_eq!(test_names(code), ["one", "three"]);
    for path in FOLDERS.into_iter().flat_map(sources) {
        for name in test_names(&read(&path)) {
            assert!(name.len() <= 60, "{path}: {name} has {} characters: shorten it", name.len());
        }
    }
}

#[test]
fn a_name_in_a_message_goes_through_the_printing_filter() {
    for path in sources("src").iter().filter(|path| *path != "src/internal/printing.rs") {
        let text = read(path);
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap().lines();
        for (number, line) in code.enumerate().filter(|(_, line)| !line.trim_start().starts_with("//")) {
            for raw in [".display()", "escape_debug()", "escape_default()", "to_string_lossy()"] {
                assert!(!line.contains(raw), "{path}:{}: {raw}: print it as Printable", number + 1);
            }
        }
    }
}

/// Adding a span to a time, or taking one from it, panics where the platform's clock ends. That of Windows
/// ends early.
#[test]
fn no_time_is_added_to_without_a_bound() {
    let is_exempt = |path: &str| path.ends_with("tests.rs") || ["src/internal/printing.rs"].contains(&path);
    for path in sources("src").iter().filter(|path| !is_exempt(path)) {
        let text = read(path);
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap().lines();
        for (number, line) in code.enumerate().filter(|(_, line)| !line.trim_start().starts_with("//")) {
            for sum in ["now() + ", "now() - ", "UNIX_EPOCH + ", "UNIX_EPOCH - ", " now + ", "(now + "] {
                let at = number + 1;
                assert!(!line.contains(sum), "{path}:{at}: use internal::time::later, or checked_add");
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
    let rooms = rooms();
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
    let text = read("SECURITY.md");
    let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("| P")).collect();
    assert!(rows.len() >= 11, "SECURITY.md has a table of promises");
    for row in rows {
        let named: Vec<&str> = row.split('`').filter(|word| is_rust(word)).collect();
        assert!(named.iter().any(|name| name.starts_with("tests/")), "no test named in: {row}");
        for name in named {
            assert!(root().join(name).is_file(), "SECURITY.md names {name}, which is not there");
        }
    }
}

/// The version of a package in a lock file.
fn locked(lock: &str, package: &str) -> String {
    let (_, rest) = lock.split_once(&format!("name = \"{package}\"\nversion = \"")).expect(package);
    assert!(!rest.contains(&format!("name = \"{package}\"\n")), "{package} is there in two versions");
    rest.split('"').next().unwrap().to_owned()
}

/// The packages have lock files of their own, so what they measure could differ from what is released.
#[test]
fn what_is_timed_has_the_versions_that_the_crate_has() {
    let own = read("Cargo.lock");
    for (path, packages) in [
        ("tests/p3_constant_time/Cargo.lock", ["subtle", "secrecy", "zeroize", "base64", "hmac-sha256"]),
        ("benches/compare/Cargo.lock", ["arc-swap", "blake3", "bytes", "http", "zeroize"]),
    ] {
        let timed = read(path);
        for package in packages {
            assert_eq!(locked(&own, package), locked(&timed, package), "{package}: update {path} too");
        }
    }
}

/// What people read, and what docs.rs shows.
fn documents() -> Vec<String> {
    let names =
        ["README.md", "ARCHITECTURE.md", "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md", "src/lib.rs"];
    let guide = fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().file_name());
    let guide = guide.map(|name| format!("docs/{}", name.into_string().unwrap()));
    names.into_iter().map(str::to_owned).chain(guide.filter(|name| is_markdown(name))).collect()
}

fn is_markdown(path: &str) -> bool {
    Path::new(path).extension().is_some_and(|extension| extension == "md")
}

/// The targets of the links of a document, written in place or at its end.
fn links(text: &str) -> Vec<&str> {
    let in_place = text.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
    let at_the_end = text.split("]: ").skip(1).filter_map(|rest| rest.split_once(['\n', '"']));
    in_place
        .chain(at_the_end)
        .map(|(target, _)| target)
        .filter(|target| target.contains(['/', '.']))
        .collect()
}

/// The anchor that GitHub and rustdoc give to a heading of plain words.
fn anchor(heading: &str) -> String {
    let heading = heading.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
    heading.chars().filter(|c| c.is_alphanumeric() || *c == '-' || *c == '_').collect()
}

/// What is wrong with a link, if anything.
fn broken_link(target: &str, packaged: &dyn Fn(&str) -> bool) -> Option<&'static str> {
    const DOCS: &str = "https://docs.rs/keysheath/latest/keysheath/";
    const SOURCE: &str = "https://docs.rs/crate/keysheath/latest/source/";
    if let Some(path) = target.strip_prefix(SOURCE) {
        return (!packaged(path)).then_some("is not in the package");
    }
    if let Some(path) = target.strip_prefix(DOCS) {
        let (path, heading) = path.split_once('#').unwrap_or((path, ""));
        if let Some(page) = path.strip_prefix("guide/") {
            let page = match page.trim_end_matches('/') {
                "" => return None,
                "security" => "SECURITY.md".to_owned(),
                page => format!("docs/{page}.md"),
            };
            let Ok(text) = fs::read_to_string(root().join(page)) else { return Some("has no page") };
            let mut headings = text.lines().filter(|line| line.starts_with('#')).map(anchor);
            return (!heading.is_empty() && !headings.any(|there| there == heading))
                .then_some("has no heading");
        }
        let (room, item) = path.split_once('/').unwrap_or((path, ""));
        if !rooms().iter().any(|there| there == room) {
            return Some("has no module");
        }
        let Some((kind, name)) = item.strip_suffix(".html").and_then(|item| item.split_once('.')) else {
            return (!item.is_empty()).then_some("is no item");
        };
        let is_there = |path: &String| {
            read(path).lines().any(|line| {
                let rest = line.trim_start().strip_prefix(&format!("pub {kind} {name}"));
                rest.is_some_and(|rest| !rest.starts_with(char::is_alphanumeric))
            })
        };
        let of_room = |path: &&String| path.trim_start_matches("src/").split(['/', '.']).next() == Some(room);
        return (!sources("src").iter().filter(of_room).any(is_there)).then_some("has no such item");
    }
    if target.contains("://") {
        return None;
    }
    (!packaged(target)).then_some("is not in the package")
}

#[test]
fn each_link_of_the_documents_leads_somewhere() {
    let manifest = read("Cargo.toml");
    let include = manifest.split("include = [").nth(1).unwrap().split(']').next().unwrap();
    let packaged = |path: &str| {
        let of_folder =
            path.split_once('/').is_some_and(|(top, _)| include.contains(&format!("\"/{top}/**\"")));
        root().join(path).is_file() && (of_folder || include.contains(&format!("\"/{path}\"")))
    };
    let mut count = 0;
    for document in documents() {
        let text = read(&document);
        for target in links(&text) {
            let broken = broken_link(target, &packaged);
            assert!(broken.is_none(), "{document} links {target}, which {}", broken.unwrap());
            count += 1;
        }
        assert!(packaged(&document), "{document} is not in the package");
    }
    assert!(count > 30, "{count}");
    for wrong in ["tests/house.rs", "https://docs.rs/keysheath/latest/keysheath/guide/nothing/"] {
        assert!(broken_link(wrong, &packaged).is_some(), "{wrong}");
    }
    for wrong in
        ["guide/stores/#nothing", "nothing/", "rotation/struct.Rotate.html", "rotation/enum.Rotation.html"]
    {
        let wrong = format!("https://docs.rs/keysheath/latest/keysheath/{wrong}");
        assert!(broken_link(&wrong, &packaged).is_some(), "{wrong}");
    }
}

#[test]
fn each_page_of_the_guide_is_shown_and_is_listed() {
    let (lib, readme) = (read("src/lib.rs"), read("README.md"));
    for page in documents().iter().filter_map(|path| path.strip_prefix("docs/")?.strip_suffix(".md")) {
        let (_, after) = lib.split_once(&format!("\"../docs/{page}.md\")]\n")).expect(page);
        // A plot may follow.
        let next = after.lines().find(|line| !line.starts_with("    #[doc = "));
        assert_eq!(next, Some(format!("    pub mod {page} {{}}").as_str()));
        let link = format!("https://docs.rs/keysheath/latest/keysheath/guide/{page}/");
        assert!(lib.contains(&link), "lib.rs does not list {page}");
        assert!(readme.contains(&link), "README.md does not list {page}");
    }
}

#[test]
fn the_readme_and_the_docs_of_the_crate_are_short() {
    let bytes = read("README.md").len();
    assert!(bytes <= 10_000, "README.md has {bytes} bytes: move something to docs/");
    let lines = read("src/lib.rs").lines().filter(|line| line.starts_with("//!")).count();
    assert!(lines <= 150, "the docs of the crate have {lines} lines");
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
fn the_crate_refuses_to_build_only_for_browsers_and_phones() {
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
