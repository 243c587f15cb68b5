//! `.env` files.

use keysheath::source::{DotenvFile, LineFault};

use super::*;

fn dotenv(parts: &[&str]) -> (tempfile::TempDir, DotenvFile) {
    let (folder, path) = file_of(parts);
    (folder, DotenvFile::new(path, "KANAL_API_KEY"))
}

#[test]
fn a_dotenv_with_the_keys_line_alone_is_loaded() {
    let (_folder, source) = dotenv(&["KANAL_API_KEY=", KEY, "\n"]);
    leaves_nothing("dotenv::a_dotenv_with_the_keys_line_alone_is_loaded", &[], || {
        loads(&source, Kanal::PROFILE);
    });
}

#[test]
fn a_quoted_key_among_many_lines_is_loaded() {
    let padding = "A=1\nAPP_NAME=My Shop\nC=\"x\ny\"\n".repeat(400);
    let (_folder, source) = dotenv(&[&padding, "export KANAL_API_KEY='", KEY, "' # production\n", &padding]);
    leaves_nothing("dotenv::a_quoted_key_among_many_lines_is_loaded", &[], || {
        loads(&source, Kanal::PROFILE);
    });
}

#[test]
fn a_key_in_base64_in_a_dotenv_is_loaded() {
    let (_folder, source) = dotenv(&["KANAL_API_KEY=", KEY_BASE64, "\n"]);
    leaves_nothing("dotenv::a_key_in_base64_in_a_dotenv_is_loaded", &[], || {
        loads(&source.base64(), Kanal::PROFILE);
    });
}

#[test]
fn a_dotenv_whose_line_is_malformed_is_refused() {
    let (_folder, source) = dotenv(&["KANAL_API_KEY=", KEY, " ", KEY, "\n"]);
    leaves_nothing("dotenv::a_dotenv_whose_line_is_malformed_is_refused", &[], || {
        fails(&source, |problem| matches!(problem, Problem::Malformed(_)));
    });
}

#[test]
fn a_dotenv_whose_line_is_not_clear_is_refused() {
    let (_folder, source) = dotenv(&["A=\"", KEY, "\nKANAL_API_KEY=", KEY, "\n\"\n"]);
    leaves_nothing("dotenv::a_dotenv_whose_line_is_not_clear_is_refused", &[], || {
        let fault = LineFault::InsideQuotes { opened: 1 };
        let error = source::load(&source, Kanal::PROFILE).expect_err("the line is inside quotes");
        assert_eq!(error.problem(), &Problem::BadLine { line: 2, fault });
    });
}

#[test]
fn a_key_without_a_name_is_refused() {
    let (_folder, source) = dotenv(&["A=1\n", KEY, "\n"]);
    leaves_nothing("dotenv::a_key_without_a_name_is_refused", &[], || {
        fails(&source, |problem| matches!(problem, Problem::BadLine { .. }));
    });
}
