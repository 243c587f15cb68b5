//! P5: a Kanal key cannot be passed where a Katana key is wanted; and what a key or a handle refuses to do,
//! it refuses when the program is compiled.
//!
//! Each case in `compile_fail/` stands beside one of the same name in `compile_pass/`, which differs from it
//! in the one line that must not compile, so that no case fails for another reason. Both are compiled with
//! the library and the crates that this test was built with.
//!
//! What the compiler says is committed beside each case, as rustc 1.95 writes it; another one may word it
//! otherwise. `KEYSHEATH_P5=overwrite cargo test --all-features --test promises p5` writes it again, and the
//! diff shows whether the reason is still the same.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

fn cases() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/promises/p5_issuers_apart")
}

fn is_of_kind(file: &Path, extension: &str) -> bool {
    file.extension().is_some_and(|found| found == extension)
}

/// The names of the cases of a folder, by their files of one kind.
fn names(folder: &str, extension: &str) -> BTreeSet<String> {
    let files = cases().join(folder).read_dir().unwrap().map(|entry| entry.unwrap().path());
    let files = files.filter(|path| is_of_kind(path, extension));
    files.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect()
}

/// The compiler, the library and the crates that the cases name.
struct Compiler {
    libraries: Vec<(&'static str, PathBuf)>,
    output: TempDir,
}

impl Compiler {
    /// Asks cargo what this test was built with. It is all there, so nothing is built.
    fn of_this_test() -> Self {
        let program = std::env::current_exe().unwrap();
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["test", "--frozen", "--all-features", "--test", "promises", "--no-run"]);
        cargo.arg("--message-format=json").arg("--target-dir").arg(program.ancestors().nth(3).unwrap());
        if !cfg!(debug_assertions) {
            cargo.arg("--release");
        }
        // The variables that cargo sets for a test would let it run build scripts again that read them.
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
                cargo.env_remove(&name);
            }
        }
        let output = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).output().expect("cargo runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let messages: Vec<serde_json::Value> = String::from_utf8(output.stdout)
            .unwrap()
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect();
        let libraries = |name: &'static str| {
            let is_it = move |message: &&serde_json::Value| {
                let target = &message["target"];
                target["name"] == name
                    && target["kind"] == serde_json::json!(["lib"])
                    && message["profile"]["test"] == false
            };
            let files = messages.iter().filter(is_it).filter_map(|message| message["filenames"].as_array());
            let files = files.flatten().filter_map(|file| file.as_str()).map(PathBuf::from);
            files.filter(|file| is_of_kind(file, "rlib")).map(move |file| (name, file))
        };
        // A crate that macros or build scripts use as well may be there once more, with other features.
        let http: Vec<_> = libraries("keysheath").chain(libraries("http")).collect();
        assert_eq!(http.len(), 2, "{http:?}");
        libraries("serde")
            .map(|serde| Self {
                libraries: http.iter().cloned().chain([serde]).collect(),
                output: tempfile::tempdir().unwrap(),
            })
            .find(|compiler| compiler.compile("compile_pass", "serializing_a_key").status.success())
            .expect("a key reference can be serialized")
    }

    fn compile(&self, folder: &str, name: &str) -> Output {
        let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
        rustc.args(["--edition=2024", "--crate-name=case", "--emit=metadata", "--error-format=short"]);
        rustc.args(["--cap-lints=allow", "--out-dir"]).arg(self.output.path());
        for (name, file) in &self.libraries {
            rustc.arg("--extern").arg(format!("{name}={}", file.display()));
            rustc.arg(format!("-Ldependency={}", file.parent().unwrap().display()));
        }
        rustc.arg(format!("{name}.rs")).current_dir(cases().join(folder)).output().expect("rustc runs")
    }
}

/// The errors, a line each, without the count of them.
fn errors(output: &Output) -> String {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    text.split_inclusive('\n').filter(|line| !line.starts_with("error: aborting")).collect()
}

#[test]
fn what_must_not_compile_does_not() {
    let compiler = Compiler::of_this_test();
    let mut wrong = String::new();
    for name in names("compile_fail", "rs") {
        let good = compiler.compile("compile_pass", &name);
        assert!(good.status.success(), "compile_pass: {}", errors(&good));
        let bad = compiler.compile("compile_fail", &name);
        assert_eq!(bad.status.code(), Some(1), "compile_fail/{name}.rs compiles");
        let (said, expected) = (errors(&bad), cases().join("compile_fail").join(format!("{name}.stderr")));
        if std::env::var_os("KEYSHEATH_P5").is_some_and(|value| value == "overwrite") {
            std::fs::write(expected, said).unwrap();
        } else if said != std::fs::read_to_string(expected).unwrap_or_default() {
            wrong.push_str(&said);
        }
    }
    assert!(wrong.is_empty(), "other errors than are committed:\n{wrong}");
}

#[test]
fn each_case_differs_in_one_line_from_one_that_compiles() {
    let names_of_cases = names("compile_fail", "rs");
    assert!(names_of_cases.len() >= 10, "{names_of_cases:?}");
    assert_eq!(names_of_cases, names("compile_pass", "rs"));
    assert_eq!(names_of_cases, names("compile_fail", "stderr"));
    for name in names_of_cases {
        let [fails, compiles] = ["compile_fail", "compile_pass"]
            .map(|folder| std::fs::read_to_string(cases().join(folder).join(format!("{name}.rs"))).unwrap());
        assert_eq!(fails.lines().count(), compiles.lines().count(), "{name}");
        let different = fails.lines().zip(compiles.lines()).filter(|(fails, compiles)| fails != compiles);
        assert_eq!(different.count(), 1, "{name}: more than one line differs");
    }
}
