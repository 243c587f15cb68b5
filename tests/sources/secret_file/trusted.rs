//! Owners and groups that are trusted by an explicit word.

use keysheath::FileProblem;
use keysheath::source::KeyRef;

use super::*;

/// Whether a file is read as far as its text, which may be none of a key.
fn is_taken(source: &dyn keysheath::source::Source) -> bool {
    match source::load(source, Katana::PROFILE) {
        Ok(_) => true,
        Err(error) => {
            matches!(error.problem(), Problem::Malformed(_) | Problem::File(FileProblem::TooLarge { .. }))
        }
    }
}

#[test]
fn a_file_of_a_user_who_is_trusted_is_read() {
    with_a_file_of_another_user("trusted::a_file_of_a_user_who_is_trusted_is_read", |path| {
        assert!(is_taken(&file(path).with_trusted_owner(NOBODY)));
        assert!(!is_taken(&file(path).with_trusted_owner(NOBODY - 1)));
        let reference =
            |uid: u32| -> KeyRef { format!("file:{}?owner={uid}", path.display()).parse().unwrap() };
        assert!(is_taken(&*reference(NOBODY).source().unwrap()));
        assert!(!is_taken(&*reference(NOBODY - 1).source().unwrap()));
        #[cfg(feature = "dotenv")]
        {
            let dotenv = |uid: u32| {
                let text = format!("dotenv:{}?owner={uid}", format_args!("{}#KANAL_API_KEY", path.display()));
                text.parse::<KeyRef>().unwrap().source().unwrap()
            };
            let owner =
                |uid| matches!(problem(&*dotenv(uid)), Problem::File(FileProblem::ForeignOwner { .. }));
            assert!(!owner(NOBODY) && owner(NOBODY - 1));
        }
    });
}

#[test]
fn a_file_that_a_trusted_group_writes_is_read_and_no_other() {
    let folder = Folder::new();
    let path = folder.write("key", KEY);
    let gid = fs::metadata(&path).unwrap().gid();
    for mode in [0o620, 0o660, 0o664] {
        set_mode(&path, mode);
        assert!(is_taken(&file(&path).with_trusted_group(gid)), "{mode:o}");
        assert_eq!(
            problem(&file(&path).with_trusted_group(gid + 1)),
            Problem::File(FileProblem::WritableByGroup { mode, gid }),
            "{mode:o}"
        );
    }
    set_mode(&path, 0o662);
    assert_eq!(
        problem(&file(&path).with_trusted_group(gid)),
        Problem::File(FileProblem::WritableByOthers { mode: 0o662 })
    );
}
