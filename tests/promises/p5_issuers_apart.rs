//! P5: a Kanal key cannot be passed where a Katana key is wanted; and what a key or a handle refuses to do,
//! it refuses when the program is compiled.
//!
//! Each case in `compile_fail/` stands beside one of the same name in `compile_pass/`, which differs from it
//! in the one line that must not compile, so that no case fails for another reason. Those that compile are
//! modules of this test; the others are checked by `trybuild`, with the features of this test.
//!
//! What the compiler says is committed beside each case, as rustc 1.95 writes it; another one may word it
//! otherwise. `TRYBUILD=overwrite cargo test --all-features --test promises p5` writes it again, and the
//! diff shows whether the reason is still the same.

use std::collections::BTreeSet;
use std::path::Path;

#[allow(
    unused,
    clippy::all,
    clippy::pedantic,
    reason = "they are compared line by line with those that fail"
)]
mod compile_pass {
    mod a_kanal_header_at_a_katana_guard;
    mod a_kanal_key_where_a_katana_key_is_wanted;
    mod a_katana_key_staged_in_a_kanal_rotation;
    mod building_a_key_by_its_fields;
    mod building_a_raw_key_by_its_fields;
    mod calling_a_method_of_the_text_on_a_key;
    mod cloning_a_key;
    mod comparing_keys_of_two_issuers;
    mod dereferencing_a_key;
    mod deserializing_a_key;
    mod displaying_a_key;
    mod hashing_a_key;
    mod publishing_through_a_handle;
    mod serializing_a_key;
}

#[test]
fn what_must_not_compile_does_not() {
    trybuild::TestCases::new().compile_fail("tests/promises/p5_issuers_apart/compile_fail/*.rs");
}

#[test]
fn each_case_differs_in_one_line_from_one_that_compiles() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/promises/p5_issuers_apart");
    let names = |folder: &str, extension: &str| -> BTreeSet<String> {
        let files = tests.join(folder).read_dir().unwrap().map(|entry| entry.unwrap().path());
        let files = files.filter(|path| path.extension().is_some_and(|found| found == extension));
        files.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect()
    };
    let cases = names("compile_fail", "rs");
    assert!(cases.len() >= 10, "{cases:?}");
    assert_eq!(cases, names("compile_pass", "rs"));
    assert_eq!(cases, names("compile_fail", "stderr"));
    // Each is named among the modules above, so it was compiled.
    let this = include_str!("p5_issuers_apart.rs");
    for name in cases {
        assert!(this.contains(&format!("    mod {name};\n")), "{name} is not compiled");
        let [fails, compiles] = ["compile_fail", "compile_pass"]
            .map(|folder| std::fs::read_to_string(tests.join(folder).join(format!("{name}.rs"))).unwrap());
        assert_eq!(fails.lines().count(), compiles.lines().count(), "{name}");
        let different = fails.lines().zip(compiles.lines()).filter(|(fails, compiles)| fails != compiles);
        assert_eq!(different.count(), 1, "{name}: more than one line differs");
    }
}
