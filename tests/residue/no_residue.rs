//! P2: on our own paths no freed heap block still holds a key.
//!
//! Every scenario runs in a process of its own, whose allocator looks at each block that is freed, on every
//! thread. `cargo test --test residue no_residue -- --nocapture` prints a line for each.

#[cfg(feature = "client")]
mod client;
#[cfg(feature = "dotenv")]
mod dotenv;

use std::fs;
use std::path::PathBuf;

use crate::support::residue::{KEY, KEY_BASE64, NONE, Residue, alone, residue_of};
use keysheath::FileProblem;
use keysheath::chain::Chain;
use keysheath::key::{ApiKey, Issuer, Kanal, Katana, KeyFormat, Origin, Profile, RawKey};
use keysheath::source::{self, Command, KeyRef, Loaded, Problem, Reading, SecretFile, Source, Variable};

/// An issuer whose keys are long, so that buffers grow: 21 times the planted key.
enum Long {}

impl Issuer for Long {
    const PROFILE: &'static Profile = &Profile::new(
        "long",
        "LONG_API_KEY",
        Origin::https("long.example"),
        KeyFormat::exactly(24 * 170).with_placeholders(),
        128,
    );
}

/// Measures in a process of its own, prints a line, and wants nothing left behind.
fn leaves_nothing<T>(test: &'static str, variables: &[(&str, &str)], work: impl FnOnce() -> T) {
    alone(test, variables, || {
        let found = residue_of(work);
        println!("{found}: {}", test.replace('_', " "));
        assert_eq!(found, NONE, "freed blocks with the key in them");
    });
}

fn kanal(text: &str) -> ApiKey<Kanal> {
    ApiKey::parse(text).expect("the planted key is well-formed")
}

/// A folder, and a file in it with the given parts one after another. No part goes through the heap.
fn file_of(parts: &[&str]) -> (tempfile::TempDir, PathBuf) {
    use std::io::Write as _;

    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("key");
    let mut file = fs::File::create(&path).expect("a new file");
    for part in parts {
        file.write_all(part.as_bytes()).expect("a part is written");
    }
    (folder, path)
}

fn loads(source: &dyn Source, profile: &'static Profile) {
    match source::load(source, profile) {
        Ok(Loaded::Found(found)) => assert!(found.key().expose_secret().starts_with(KEY)),
        other => panic!("no key: {other:?}"),
    }
}

fn fails(source: &dyn Source, expected: fn(&Problem) -> bool) {
    let error = source::load(source, Kanal::PROFILE).expect_err("the source is broken");
    assert!(expected(error.problem()), "{error:?}");
}

mod controls {
    //! What must be found, so that finding nothing means something.

    use super::*;

    fn is_found(test: &'static str, expected: Residue, work: impl FnOnce()) {
        alone(test, &[], || {
            let found = residue_of(work);
            println!("{found}: {}", test.replace('_', " "));
            assert_eq!(found, expected, "the allocator's check missed it");
        });
    }

    #[test]
    fn a_string_that_is_dropped_is_found() {
        let one = Residue { whole: 1, partial: 0 };
        is_found("controls::a_string_that_is_dropped_is_found", one, || drop(String::from(KEY)));
    }

    #[test]
    fn a_vector_that_grows_is_found_twice() {
        let two = Residue { whole: 2, partial: 0 };
        is_found("controls::a_vector_that_grows_is_found_twice", two, || {
            let mut text = Vec::with_capacity(24);
            text.extend_from_slice(KEY.as_bytes());
            text.reserve(4096);
        });
    }

    #[test]
    fn eight_bytes_of_the_key_are_found() {
        let part = Residue { whole: 0, partial: 1 };
        is_found("controls::eight_bytes_of_the_key_are_found", part, || {
            drop([b"xxxxx", &KEY.as_bytes()[13..21], b"x"].concat());
        });
    }

    #[test]
    fn base64_of_the_key_is_found() {
        let one = Residue { whole: 1, partial: 0 };
        is_found("controls::base64_of_the_key_is_found", one, || drop(String::from(KEY_BASE64)));
    }

    #[test]
    fn a_block_that_another_thread_frees_late_is_found() {
        let one = Residue { whole: 1, partial: 0 };
        is_found("controls::a_block_that_another_thread_frees_late_is_found", one, || {
            let text = String::from(KEY);
            std::thread::spawn(move || {
                std::thread::sleep(std::time::Duration::from_millis(200));
                drop(text);
            });
        });
    }

    #[test]
    fn a_text_without_the_key_is_not_found() {
        is_found("controls::a_text_without_the_key_is_not_found", NONE, || {
            drop(String::from("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z"));
            drop([&KEY.as_bytes()[..7], b"-", &KEY.as_bytes()[7..14]].concat());
        });
    }

    #[test]
    fn a_command_that_was_given_the_key_is_found() {
        alone("controls::a_command_that_was_given_the_key_is_found", &[], || {
            let found = residue_of(|| loads(&Command::new("printf").args(["%s", KEY]), Kanal::PROFILE));
            println!("{found}: a command that was given the key as an argument");
            assert!(found.whole > 0, "arguments are no place for a key");
        });
    }
}

mod keys {
    use super::*;

    #[test]
    fn a_key_is_parsed_and_dropped() {
        leaves_nothing("keys::a_key_is_parsed_and_dropped", &[], || drop(kanal(KEY)));
    }

    #[test]
    fn bytes_are_parsed_and_dropped() {
        leaves_nothing("keys::bytes_are_parsed_and_dropped", &[], || {
            drop(ApiKey::<Kanal>::parse_bytes(KEY.as_bytes()).unwrap());
            drop(RawKey::parse(Katana::PROFILE, KEY.as_bytes()).unwrap());
        });
    }

    #[test]
    fn a_string_with_spare_capacity_is_taken() {
        leaves_nothing("keys::a_string_with_spare_capacity_is_taken", &[], || {
            let mut text = String::with_capacity(100);
            text.push_str(KEY);
            text.push_str(KEY);
            // The second copy is now spare capacity.
            text.truncate(24);
            ApiKey::<Kanal>::parse_owned(text).unwrap().expose_secret().len()
        });
    }

    #[test]
    fn a_string_that_is_no_key_is_taken() {
        leaves_nothing("keys::a_string_that_is_no_key_is_taken", &[], || {
            let mut text = String::with_capacity(100);
            text.push_str(KEY);
            text.push('\n');
            ApiKey::<Kanal>::parse_owned(text).unwrap_err().to_string()
        });
    }

    #[test]
    fn a_key_is_cloned() {
        leaves_nothing("keys::a_key_is_cloned", &[], || {
            let key = kanal(KEY);
            let clone = key.clone_key();
            drop(key);
            drop(clone.as_raw().clone_key());
        });
    }

    #[test]
    fn a_key_is_erased_and_typed_again() {
        leaves_nothing("keys::a_key_is_erased_and_typed_again", &[], || {
            drop(kanal(KEY).into_raw().try_into_typed::<Kanal>().unwrap());
        });
    }

    #[test]
    fn a_key_of_another_issuer_is_refused() {
        leaves_nothing("keys::a_key_of_another_issuer_is_refused", &[], || {
            let mismatch = kanal(KEY).into_raw().try_into_typed::<Katana>().unwrap_err();
            let text = format!("{mismatch} {mismatch:?}");
            drop(mismatch.into_key().try_into_typed::<Katana>().unwrap_err());
            text
        });
    }

    #[test]
    fn a_key_is_fingerprinted_and_printed() {
        leaves_nothing("keys::a_key_is_fingerprinted_and_printed", &[], || {
            let key = kanal(KEY);
            let text = format!("{} {key:?} {key:#?} {:?}", key.fingerprint().unwrap(), key.as_raw());
            drop(text);
        });
    }

    #[test]
    fn keys_are_compared() {
        leaves_nothing("keys::keys_are_compared", &[], || {
            let (key, other) = (kanal(KEY), kanal(KEY));
            assert!(key == other && key.matches(KEY.as_bytes()) && !key.matches(&KEY.as_bytes()[1..]));
        });
    }

    #[test]
    fn a_text_that_is_no_key_is_refused() {
        leaves_nothing("keys::a_text_that_is_no_key_is_refused", &[], || {
            let mut text = [b' '; 25];
            text[1..].copy_from_slice(KEY.as_bytes());
            let error = ApiKey::<Kanal>::parse_bytes(&text).unwrap_err();
            drop(format!("{error} {error:?}"));
        });
    }

    #[test]
    fn a_key_reference_that_is_a_key_is_refused() {
        leaves_nothing("keys::a_key_reference_that_is_a_key_is_refused", &[], || {
            let error = KEY.parse::<KeyRef>().unwrap_err();
            drop(format!("{error} {error:?}"));
            let kept = KeyRef::from_text(KEY);
            drop(format!("{kept} {kept:?} {:?}", kept.source().err()));
        });
    }
}

mod sources {
    use super::*;

    #[test]
    fn a_file_is_loaded() {
        let (_folder, path) = file_of(&["\u{feff}", KEY, "\r\n"]);
        leaves_nothing("sources::a_file_is_loaded", &[], || loads(&SecretFile::new(path), Kanal::PROFILE));
    }

    #[test]
    fn a_file_of_four_thousand_bytes_is_loaded() {
        let (_folder, path) = file_of(&[KEY; 170]);
        leaves_nothing("sources::a_file_of_four_thousand_bytes_is_loaded", &[], || {
            loads(&SecretFile::new(path), Long::PROFILE);
        });
    }

    #[test]
    fn a_file_in_base64_is_loaded() {
        let (_folder, path) = file_of(&[KEY_BASE64, "\n"]);
        leaves_nothing("sources::a_file_in_base64_is_loaded", &[], || {
            loads(&SecretFile::new(path).base64(), Kanal::PROFILE);
        });
    }

    #[test]
    fn a_field_of_a_json_file_is_loaded() {
        // With an escape in it, which a general parser would copy, and another secret beside it.
        let escaped = &["{\"a\": [\"", KEY, "\"], \"k\": \"\\u0051", &KEY[1..], "\"}\n"];
        let (_folder, path) = file_of(escaped);
        leaves_nothing("sources::a_field_of_a_json_file_is_loaded", &[], || {
            loads(&SecretFile::new(path).field("k"), Kanal::PROFILE);
        });
    }

    #[test]
    fn a_field_in_base64_of_a_json_file_is_loaded() {
        let (_folder, path) = file_of(&["{\"k\": \"", KEY_BASE64, "\"}\n"]);
        leaves_nothing("sources::a_field_in_base64_of_a_json_file_is_loaded", &[], || {
            loads(&SecretFile::new(path).field("k").base64(), Kanal::PROFILE);
        });
    }

    #[test]
    fn a_json_file_without_the_field_is_refused() {
        let (_folder, path) = file_of(&["{\"", KEY, "\": \"", KEY, "\", \"", KEY, "\\n\": 1}\n"]);
        leaves_nothing("sources::a_json_file_without_the_field_is_refused", &[], || {
            fails(&SecretFile::new(&path).field("k"), |problem| matches!(problem, Problem::NoField { .. }));
            fails(&SecretFile::new(&path).field("k").base64(), |it| matches!(it, Problem::NoField { .. }));
        });
    }

    #[test]
    fn a_line_of_a_file_is_loaded() {
        let (_folder, path) = file_of(&["shop\n", KEY, "\r\n", KEY, "\n"]);
        leaves_nothing("sources::a_line_of_a_file_is_loaded", &[], || {
            loads(&SecretFile::new(path).line(2), Kanal::PROFILE);
        });
    }

    #[test]
    fn a_field_of_a_variable_is_loaded_by_a_reference() {
        let json = format!("{{\"k\": \"{KEY}\"}}\n");
        leaves_nothing("sources::a_field_of_a_variable_is_loaded_by_a_reference", &[("SHOP", &json)], || {
            let reference: KeyRef = "env:SHOP?field=k".parse().unwrap();
            loads(&*reference.source().unwrap(), Kanal::PROFILE);
        });
    }

    #[test]
    fn a_pipe_is_loaded() {
        use std::io::Write as _;
        use std::os::fd::AsRawFd as _;

        leaves_nothing("sources::a_pipe_is_loaded", &[], || {
            let (reader, mut writer) = std::io::pipe().unwrap();
            writer.write_all(KEY.as_bytes()).unwrap();
            drop(writer);
            loads(&SecretFile::new(format!("/proc/self/fd/{}", reader.as_raw_fd())), Kanal::PROFILE);
        });
    }

    #[test]
    fn a_file_that_is_not_base64_is_refused() {
        // The decoder has gone through most of it before it comes to what it does not like.
        let (_folder, path) = file_of(&[KEY_BASE64, KEY_BASE64, "!"]);
        leaves_nothing("sources::a_file_that_is_not_base64_is_refused", &[], || {
            fails(&SecretFile::new(path).base64(), |problem| matches!(problem, Problem::NotBase64));
        });
    }

    #[test]
    fn a_malformed_file_is_refused() {
        let (_folder, path) = file_of(&["KANAL_API_KEY=", KEY, "\n"]);
        leaves_nothing("sources::a_malformed_file_is_refused", &[], || {
            fails(&SecretFile::new(path), |problem| matches!(problem, Problem::Malformed(_)));
        });
    }

    #[test]
    fn a_file_that_is_too_large_is_refused() {
        let (_folder, path) = file_of(&[KEY; 400]);
        leaves_nothing("sources::a_file_that_is_too_large_is_refused", &[], || {
            fails(&SecretFile::new(path), |problem| {
                matches!(problem, Problem::File(FileProblem::TooLarge { .. }))
            });
        });
    }

    #[test]
    fn the_file_that_a_variable_names_is_loaded() {
        let (_folder, path) = file_of(&[KEY, "\n"]);
        let variables = [("SHOP_KEY_FILE", path.to_str().unwrap())];
        leaves_nothing("sources::the_file_that_a_variable_names_is_loaded", &variables, || {
            loads(&SecretFile::named_by_variable("SHOP_KEY"), Kanal::PROFILE);
        });
    }

    #[test]
    fn a_key_and_a_file_of_one_variable_are_refused() {
        let variables = [("SHOP_KEY", KEY), ("SHOP_KEY_FILE", "/run/secrets/kanal")];
        leaves_nothing("sources::a_key_and_a_file_of_one_variable_are_refused", &variables, || {
            fails(&Variable::new("SHOP_KEY"), |problem| matches!(problem, Problem::BothSet { .. }));
            fails(&SecretFile::named_by_variable("SHOP_KEY"), |problem| {
                matches!(problem, Problem::BothSet { .. })
            });
        });
    }

    #[test]
    fn a_key_where_the_name_of_a_file_belongs_is_refused() {
        let variables = [("SHOP_KEY_FILE", KEY)];
        let folder = tempfile::tempdir().unwrap();
        leaves_nothing("sources::a_key_where_the_name_of_a_file_belongs_is_refused", &variables, || {
            // The place of the key in the path decides what the stack keeps of it.
            std::env::set_current_dir(folder.path()).unwrap();
            fails(&SecretFile::named_by_variable("SHOP_KEY"), |problem| matches!(problem, Problem::FileGone));
        });
    }

    #[test]
    fn a_systemd_credential_is_loaded() {
        let (folder, _path) = file_of(&[KEY, "\n"]);
        let variables = [("CREDENTIALS_DIRECTORY", folder.path().to_str().unwrap())];
        leaves_nothing("sources::a_systemd_credential_is_loaded", &variables, || {
            loads(&SecretFile::systemd_credential("key"), Kanal::PROFILE);
        });
    }

    #[test]
    fn a_variable_is_loaded() {
        leaves_nothing("sources::a_variable_is_loaded", &[("SHOP_KEY", KEY)], || {
            loads(&Variable::new("SHOP_KEY"), Kanal::PROFILE);
        });
    }

    #[test]
    fn a_variable_in_base64_is_loaded() {
        leaves_nothing("sources::a_variable_in_base64_is_loaded", &[("SHOP_KEY", KEY_BASE64)], || {
            loads(&Variable::new("SHOP_KEY").base64(), Kanal::PROFILE);
        });
    }

    #[test]
    fn a_command_prints_the_key() {
        let (_folder, path) = file_of(&[KEY, "\n"]);
        leaves_nothing("sources::a_command_prints_the_key", &[], || {
            loads(&Command::new("cat").args([path]), Kanal::PROFILE);
        });
    }

    #[test]
    fn a_command_runs_beside_variables_that_hold_keys() {
        let (_folder, path) = file_of(&[KEY, "\n"]);
        let variables = [
            ("KANAL_API_KEY", KEY),
            ("KATANA_API_KEY", KEY),
            ("KATANA_API_TOKEN", KEY),
            ("LONG_API_KEY", KEY),
        ];
        leaves_nothing("sources::a_command_runs_beside_variables_that_hold_keys", &variables, || {
            // The output fails the format, and the profile's own variable was set.
            assert!(source::load(&Command::new("cat").args([path]), Long::PROFILE).is_err());
        });
    }

    #[test]
    fn a_command_that_fails_after_the_key_is_refused() {
        let (_folder, path) = file_of(&[KEY]);
        leaves_nothing("sources::a_command_that_fails_after_the_key_is_refused", &[], || {
            let source = Command::new("cat").args([path.as_os_str(), "/no/such/file".as_ref()]);
            fails(&source, |problem| matches!(problem, Problem::Failed { .. }));
        });
    }

    #[test]
    fn a_command_that_floods_is_refused() {
        let (_folder, path) = file_of(&[KEY; 400]);
        leaves_nothing("sources::a_command_that_floods_is_refused", &[], || {
            fails(&Command::new("cat").args([path]), |problem| matches!(problem, Problem::TooLarge { .. }));
        });
    }

    #[test]
    fn a_source_of_ones_own_hands_over_a_text() {
        leaves_nothing("sources::a_source_of_ones_own_hands_over_a_text", &[], || {
            let mut text = String::with_capacity(64);
            text.push_str(KEY);
            drop(format!("{:?}", Reading::present(text)));
        });
    }

    #[test]
    fn a_chain_is_loaded_and_explained() {
        let (_folder, path) = file_of(&[KEY, "\n"]);
        leaves_nothing("sources::a_chain_is_loaded_and_explained", &[("SHOP_KEY", KEY)], || {
            let chain = Chain::<Kanal>::new()
                .with(Variable::new("NO_SUCH_VARIABLE"))
                .with(Variable::new("SHOP_KEY"))
                .with(SecretFile::new(&path))
                .with(SecretFile::new(&path).base64());
            let selected = chain.load().unwrap();
            drop(format!("{selected:?} {}", selected.attempts()));
            assert!(selected.into_key().matches(KEY.as_bytes()));
            let explanation = chain.explain();
            drop(format!("{explanation} {explanation:?}"));
        });
    }

    #[test]
    fn a_chain_that_is_broken_is_refused() {
        leaves_nothing("sources::a_chain_that_is_broken_is_refused", &[("SHOP_KEY", KEY_BASE64)], || {
            let error = Chain::<Kanal>::new().with(Variable::new("SHOP_KEY")).load().unwrap_err();
            drop(format!("{error} {error:?}"));
        });
    }
}
