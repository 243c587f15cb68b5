//! Credentials that systemd passes in `$CREDENTIALS_DIRECTORY`.

use crate::support::{
    Child, Folder, KEY, KEY_IN_BASE64, OTHER_KEY, absence, assert_gives_the_key, error, found, in_child,
    problem, set_mode,
};
use keysheath::FileProblem;
use keysheath::key::{Issuer, Kanal, Katana};
use keysheath::source::{self, Absence, Problem, Provenance, SecretFile, Source as _};

/// Runs `body` where `$CREDENTIALS_DIRECTORY` is `folder`.
fn with_credentials(name: &'static str, folder: &Folder, body: impl FnOnce()) {
    Child::new(name).var("CREDENTIALS_DIRECTORY", folder.path()).run(body);
}

#[test]
fn a_credential_gives_its_key() {
    let folder = Folder::new();
    // systemd makes them so.
    set_mode(&folder.write("kanal_api_key", format!("{KEY}\n")), 0o400);
    with_credentials("a_credential_gives_its_key", &folder, || {
        let found = found(&SecretFile::systemd_credential(Kanal::PROFILE.variable().to_ascii_lowercase()));
        assert!(found.key().matches(KEY.as_bytes()));
        assert!(found.remarks().is_empty());
        assert_eq!(found.provenance(), &Provenance::Systemd { name: "kanal_api_key".to_owned() });
    });
}

#[test]
fn a_credential_may_be_base64() {
    let folder = Folder::new();
    folder.write("encoded", KEY_IN_BASE64);
    with_credentials("a_credential_may_be_base64", &folder, || {
        assert_gives_the_key(&SecretFile::systemd_credential("encoded").base64());
    });
}

#[test]
fn a_credential_that_was_not_passed_is_absent() {
    let folder = Folder::new();
    folder.write("kanal_api_key", KEY);
    with_credentials("a_credential_that_was_not_passed_is_absent", &folder, || {
        assert_eq!(
            absence(&SecretFile::systemd_credential(Katana::PROFILE.variable().to_ascii_lowercase())),
            Absence::NoFile
        );
    });
}

#[test]
fn without_the_variable_there_are_no_credentials() {
    Child::new("without_the_variable_there_are_no_credentials").run(|| {
        assert_eq!(
            absence(&SecretFile::systemd_credential(Kanal::PROFILE.variable().to_ascii_lowercase())),
            Absence::NoCredentials
        );
    });
}

#[test]
fn an_empty_variable_means_no_credentials() {
    let name = "an_empty_variable_means_no_credentials";
    in_child(name, &[("CREDENTIALS_DIRECTORY", "")], || {
        assert_eq!(
            absence(&SecretFile::systemd_credential(Kanal::PROFILE.variable().to_ascii_lowercase())),
            Absence::NoCredentials
        );
    });
}

#[test]
fn a_relative_directory_is_refused_even_with_the_credential() {
    let folder = Folder::new();
    folder.write("kanal_api_key", KEY);
    let name = "a_relative_directory_is_refused_even_with_the_credential";
    Child::new(name).var("CREDENTIALS_DIRECTORY", ".").var("FOLDER", folder.path()).run(|| {
        std::env::set_current_dir(std::env::var_os("FOLDER").unwrap()).unwrap();
        let error = error(&SecretFile::systemd_credential(Kanal::PROFILE.variable().to_ascii_lowercase()));
        assert!(matches!(error.problem(), Problem::BadPath { .. }));
        assert!(error.to_string().contains("$CREDENTIALS_DIRECTORY must be an absolute path"), "{error}");
    });
}

#[test]
fn a_directory_that_is_gone_is_broken_and_not_absent() {
    let folder = Folder::new();
    let child = Child::new("a_directory_that_is_gone_is_broken_and_not_absent");
    child.var("CREDENTIALS_DIRECTORY", folder.at("gone")).run(|| {
        let error = error(&SecretFile::systemd_credential(Kanal::PROFILE.variable().to_ascii_lowercase()));
        assert!(matches!(error.problem(), Problem::BadPath { .. }));
        assert!(error.to_string().contains("does not exist"), "{error}");
    });
}

#[test]
fn a_file_in_the_place_of_the_directory_is_unreadable() {
    let folder = Folder::new();
    let child = Child::new("a_file_in_the_place_of_the_directory_is_unreadable");
    child.var("CREDENTIALS_DIRECTORY", folder.write("file", KEY)).run(|| {
        let problem =
            problem(&SecretFile::systemd_credential(Kanal::PROFILE.variable().to_ascii_lowercase()));
        assert_eq!(problem, Problem::File(FileProblem::Unreadable(std::io::ErrorKind::NotADirectory)));
    });
}

#[test]
fn a_name_cannot_climb_out_of_the_directory() {
    let folder = Folder::new();
    folder.write("outside", OTHER_KEY);
    std::fs::create_dir(folder.at("credentials")).unwrap();
    std::fs::create_dir(folder.at("credentials/below")).unwrap();
    folder.write("credentials/below/key", OTHER_KEY);
    let name = "a_name_cannot_climb_out_of_the_directory";
    Child::new(name).var("CREDENTIALS_DIRECTORY", folder.at("credentials")).run(|| {
        let outside = std::env::var("CREDENTIALS_DIRECTORY").unwrap().replace("credentials", "outside");
        let long = "k".repeat(256);
        for name in [
            "../outside",
            "..",
            ".",
            "",
            "below/key",
            "./below/key",
            "below\\key",
            "a:b",
            "a\0b",
            &outside,
            &long,
        ] {
            let error = error(&SecretFile::systemd_credential(name));
            assert!(matches!(error.problem(), Problem::BadPath { .. }), "{name:?}: {error}");
            assert!(error.to_string().contains("one file name, without separators"), "{error}");
        }
        // Dots alone do not make a name bad.
        assert_eq!(absence(&SecretFile::systemd_credential("..name")), Absence::NoFile);
        assert_eq!(absence(&SecretFile::systemd_credential("kanal.key")), Absence::NoFile);
    });
}

/// The example of systemd's own page on credentials, shortened: on one line it is a well-formed key of
/// Katana.
const ENCRYPTED: &str = "k6iUCUh0RJCQyvL8k8q1UyAAAAABAAAADAAAABAAAAC1lFmbWAqWZ8dCCQkAAAAA\
                         gAAAAAAAAAALACMA0AAAACAAAAAAfgAg9uNpGmj8LL2nHE0ixcyc";

#[test]
fn an_encrypted_credential_is_no_key_and_the_remedy_is_named() {
    let folder = Folder::new();
    folder.write("one_line", ENCRYPTED);
    folder.write("wrapped", format!("{}\n{}\n", &ENCRYPTED[..69], &ENCRYPTED[69..]));
    with_credentials("an_encrypted_credential_is_no_key_and_the_remedy_is_named", &folder, || {
        for name in ["one_line", "wrapped"] {
            for profile in [Kanal::PROFILE, Katana::PROFILE] {
                let error = source::load(&SecretFile::systemd_credential(name), profile).unwrap_err();
                assert_eq!(error.problem(), &Problem::EncryptedCredential, "{name}");
                assert!(error.to_string().contains("LoadCredentialEncrypted="), "{error}");
                crate::support::assert_prints_nothing_of(&error, ENCRYPTED);
            }
        }
    });
}

#[test]
fn a_key_in_a_field_or_on_a_line_of_a_credential_is_read() {
    let folder = Folder::new();
    folder.write("json", format!("{{\"kanal\": \"{KEY}\"}}"));
    folder.write("lines", format!("user\n{KEY}\n"));
    with_credentials("a_key_in_a_field_or_on_a_line_of_a_credential_is_read", &folder, || {
        assert_gives_the_key(&SecretFile::systemd_credential("json").field("kanal"));
        assert_gives_the_key(&SecretFile::systemd_credential("lines").line(2));
        let deadline = std::time::Duration::from_secs(5);
        assert_gives_the_key(&SecretFile::systemd_credential("lines").with_deadline(deadline).line(2));
    });
}

#[test]
fn a_credential_goes_through_the_checks_of_a_secret_file() {
    let folder = Folder::new();
    folder.write("empty", "\n");
    folder.write("two_lines", format!("{KEY}\n{KEY}\n"));
    folder.write("large", vec![b'A'; 8193]);
    set_mode(&folder.write("writable", KEY), 0o606);
    std::fs::create_dir(folder.at("folder")).unwrap();
    std::os::unix::fs::symlink("gone", folder.at("link")).unwrap();
    with_credentials("a_credential_goes_through_the_checks_of_a_secret_file", &folder, || {
        let problem = |name| problem(&SecretFile::systemd_credential(name));
        assert_eq!(problem("empty"), Problem::Empty);
        assert!(matches!(problem("two_lines"), Problem::Malformed(_)));
        assert_eq!(problem("large"), Problem::File(FileProblem::TooLarge { limit: 8192 }));
        assert_eq!(problem("writable"), Problem::File(FileProblem::WritableByOthers { mode: 0o606 }));
        assert_eq!(problem("folder"), Problem::File(FileProblem::NotAFile));
        assert_eq!(problem("link"), Problem::File(FileProblem::DanglingLink));
    });
}
