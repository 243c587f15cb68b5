//! Files that hold a key and nothing else, and the checks that each goes through.

mod mounts;
mod pipes;
mod trusted;

use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support::child::NOBODY;
use crate::support::{
    Child, Folder, KEY, KEY_IN_BASE64, MAX_CALLS_PER_PLACE, MAX_SECRET_FILE, absence, as_ordinary_user,
    assert_gives_the_key, error, found, problem, set_mode, with_a_file_of_another_user,
};
use keysheath::FileProblem;
use keysheath::key::{FormatRule, Hint, Issuer, Katana};
use keysheath::source::{self, Absence, Loaded, Problem, Remark, SecretFile, Source as _};

/// Far more than any of these files takes, and far less than the deadline of 30 s.
const PATIENCE: Duration = Duration::from_secs(10);

fn file(path: impl AsRef<Path>) -> SecretFile {
    SecretFile::new(path.as_ref())
}

fn malformed(path: &Path) -> (FormatRule, Option<Hint>) {
    match problem(&file(path)) {
        Problem::Malformed(error) => (error.rule(), error.hint()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_file_gives_its_key_with_or_without_a_newline() {
    let folder = Folder::new();
    for (name, end) in [("bare", ""), ("newline", "\n"), ("crlf", "\r\n")] {
        let found = found(&file(folder.write(name, format!("{KEY}{end}"))));
        assert!(found.key().matches(KEY.as_bytes()), "{name}");
        assert_eq!(found.provenance().to_string(), format!("file {}", folder.at(name).display()));
        assert!(found.remarks().is_empty(), "{name}");
    }
}

#[test]
fn one_byte_order_mark_is_removed_and_a_second_is_not() {
    let folder = Folder::new();
    assert_gives_the_key(&file(folder.write("one", format!("\u{feff}{KEY}\r\n"))));
    let two = folder.write("two", format!("\u{feff}\u{feff}{KEY}"));
    assert_eq!(malformed(&two), (FormatRule::Length { found: 27 }, Some(Hint::Invisible)));
}

#[test]
fn a_missing_file_is_absent() {
    let folder = Folder::new();
    assert_eq!(absence(&file(folder.at("missing"))), Absence::NoFile);
    assert_eq!(absence(&file(folder.at("missing/too"))), Absence::NoFile);
}

#[test]
fn a_file_without_text_is_malformed_and_not_absent() {
    let folder = Folder::new();
    for (name, content) in [("empty", ""), ("newline", "\n"), ("crlf", "\r\n"), ("mark", "\u{feff}\n")] {
        assert_eq!(problem(&file(folder.write(name, content))), Problem::Empty, "{name}");
    }
    let message = error(&file(folder.at("empty"))).to_string();
    assert!(message.contains("write the key into it, or remove it"), "{message}");
}

#[test]
fn nothing_but_one_final_newline_is_removed() {
    let folder = Folder::new();
    let length = |found| FormatRule::Length { found };
    let cases = [
        (format!("{KEY}\n\n"), length(25), Hint::TrailingNewline),
        (format!("{KEY}\r"), length(25), Hint::TrailingNewline),
        (format!("{KEY}\n{KEY}\n"), length(49), Hint::SeveralLines),
        (format!("{KEY}\r\n{KEY}\r\n"), length(50), Hint::SeveralLines),
        (format!(" {KEY}\n"), length(25), Hint::SurroundingSpace),
        (format!("{KEY}\t\n"), length(25), Hint::SurroundingSpace),
        (format!("\n{KEY}\n"), length(25), Hint::SeveralLines),
        (format!("KANAL_API_KEY={KEY}\n"), length(38), Hint::Assignment),
    ];
    for (content, rule, hint) in cases {
        assert_eq!(malformed(&folder.write("key", &content)), (rule, Some(hint)), "{content:?}");
    }
}

#[test]
fn nul_bytes_and_utf_16_are_malformed() {
    let folder = Folder::new();
    let mut nul = KEY.as_bytes().to_vec();
    nul[7] = 0;
    let nul = folder.write("nul", nul);
    assert_eq!(malformed(&nul), (FormatRule::Character { position: 8 }, Some(Hint::Nul)));
    let wide: Vec<u8> = KEY.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let wide = folder.write("wide", [&b"\xff\xfe"[..], &wide].concat());
    assert_eq!(malformed(&wide), (FormatRule::Length { found: 50 }, Some(Hint::Nul)));
}

#[test]
fn a_file_of_10_mb_is_refused_at_once() {
    let folder = Folder::new();
    let path = folder.write("large", KEY.repeat(10 * 1024 * 1024 / KEY.len()));
    assert_eq!(problem(&file(&path)), Problem::File(FileProblem::TooLarge { limit: MAX_SECRET_FILE }));
}

#[test]
fn a_file_of_exactly_the_bound_is_read_and_one_byte_more_is_not() {
    let folder = Folder::new();
    let bound = folder.write("bound", vec![b'A'; MAX_SECRET_FILE]);
    assert_eq!(malformed(&bound).0, FormatRule::Length { found: MAX_SECRET_FILE });
    let more = folder.write("more", vec![b'A'; MAX_SECRET_FILE + 1]);
    assert_eq!(problem(&file(more)), Problem::File(FileProblem::TooLarge { limit: MAX_SECRET_FILE }));
}

#[test]
fn a_file_that_says_its_size_is_0_is_read_to_its_end() {
    let path = "/proc/sys/kernel/random/boot_id";
    assert_eq!(fs::metadata(path).unwrap().len(), 0, "this kernel gives the file a size");
    // A UUID, so in the form of a Katana key.
    let Loaded::Found(found) = source::load(&file(path), Katana::PROFILE).unwrap() else {
        panic!("{path} holds an id");
    };
    assert!(found.key().matches(fs::read_to_string(path).unwrap().trim_end().as_bytes()));
}

#[test]
fn a_file_that_says_its_size_is_0_is_bounded_all_the_same() {
    let name = "a_file_that_says_its_size_is_0_is_bounded_all_the_same";
    Child::new(name).var("PADDING", KEY.repeat(1000)).run(|| {
        let path = "/proc/self/environ";
        assert_eq!(fs::metadata(path).unwrap().len(), 0);
        assert_eq!(problem(&file(path)), Problem::File(FileProblem::TooLarge { limit: MAX_SECRET_FILE }));
    });
}

#[test]
fn a_directory_a_device_and_a_socket_are_no_files() {
    let folder = Folder::new();
    let _listener = UnixListener::bind(folder.at("socket")).unwrap();
    for path in [folder.path(), &folder.at("socket"), Path::new("/dev/zero"), Path::new("/dev/null")] {
        let start = Instant::now();
        let error = error(&file(path));
        assert_eq!(error.problem(), &Problem::File(FileProblem::NotAFile), "{}", path.display());
        assert!(error.to_string().contains("name the file itself"), "{error}");
        assert!(start.elapsed() < PATIENCE, "{}", path.display());
    }
}

#[test]
fn a_link_is_followed_and_its_target_is_checked() {
    let folder = Folder::new();
    let target = folder.write("target", KEY);
    symlink(&target, folder.at("link")).unwrap();
    assert_gives_the_key(&file(folder.at("link")));
    set_mode(&target, 0o602);
    assert_eq!(
        problem(&file(folder.at("link"))),
        Problem::File(FileProblem::WritableByOthers { mode: 0o602 })
    );
}

#[test]
fn a_dangling_link_is_broken_and_not_absent() {
    let folder = Folder::new();
    symlink(folder.at("gone"), folder.at("link")).unwrap();
    let error = error(&file(folder.at("link")));
    assert_eq!(error.problem(), &Problem::File(FileProblem::DanglingLink));
    assert!(error.to_string().contains("correct or remove the link"), "{error}");
    // A folder on the way may be the link, as Kubernetes' `..data` is.
    assert_eq!(problem(&file(folder.at("link/key"))), Problem::File(FileProblem::DanglingLink));
}

#[test]
fn a_link_to_itself_is_unreadable() {
    let folder = Folder::new();
    symlink(folder.at("loop"), folder.at("loop")).unwrap();
    assert!(matches!(problem(&file(folder.at("loop"))), Problem::File(FileProblem::Unreadable(_))));
}

#[test]
fn a_path_through_a_file_is_unreadable_and_a_nul_is_no_path() {
    let folder = Folder::new();
    let path = folder.write("file", KEY);
    let through = problem(&file(path.join("key")));
    assert_eq!(through, Problem::File(FileProblem::Unreadable(std::io::ErrorKind::NotADirectory)));
    assert!(matches!(problem(&file("a\0b")), Problem::BadPath { .. }));
}

#[test]
fn a_file_of_mode_000_is_unreadable() {
    as_ordinary_user("secret_file::a_file_of_mode_000_is_unreadable", || {
        let folder = Folder::new();
        let path = folder.write("key", KEY);
        set_mode(&path, 0);
        let error = error(&file(&path));
        assert_eq!(
            error.problem(),
            &Problem::File(FileProblem::Unreadable(std::io::ErrorKind::PermissionDenied))
        );
        assert!(
            error.to_string().contains("check the path and the disk, and that this user may read it"),
            "{error}"
        );
    });
}

#[test]
fn a_file_in_a_forbidden_folder_is_unreadable_not_absent() {
    let name = "a_file_in_a_forbidden_folder_is_unreadable_not_absent";
    as_ordinary_user(name, || {
        let folder = Folder::new();
        let inner = folder.at("inner");
        fs::create_dir(&inner).unwrap();
        set_mode(&inner, 0);
        let problem = problem(&file(inner.join("missing")));
        set_mode(&inner, 0o700);
        assert_eq!(problem, Problem::File(FileProblem::Unreadable(std::io::ErrorKind::PermissionDenied)));
    });
}

#[test]
fn a_file_that_belongs_to_root_is_read_by_another_user() {
    as_ordinary_user("a_file_that_belongs_to_root_is_read_by_another_user", || {
        let path = Path::new("/etc/passwd");
        assert_eq!(fs::metadata(path).unwrap().uid(), 0, "/etc/passwd belongs to root");
        // It holds no key; what counts is that its owner is not the objection.
        assert!(matches!(
            problem(&file(path)),
            Problem::Malformed(_) | Problem::File(FileProblem::TooLarge { .. })
        ));
    });
}

#[test]
fn a_file_of_another_user_is_refused() {
    with_a_file_of_another_user("secret_file::a_file_of_another_user_is_refused", |path| {
        let error = error(&file(path));
        assert_eq!(error.problem(), &Problem::File(FileProblem::ForeignOwner { uid: NOBODY }));
        let ways = ["chown it to root or to yourself", "with_trusted_owner(65534)", "?owner=65534"];
        assert!(ways.iter().all(|way| error.to_string().contains(way)), "{error}");
    });
}

#[test]
fn a_file_that_others_can_write_is_refused() {
    let folder = Folder::new();
    let path = folder.write("key", KEY);
    for mode in [0o602, 0o622, 0o646, 0o662, 0o666, 0o777] {
        set_mode(&path, mode);
        assert_eq!(problem(&file(&path)), Problem::File(FileProblem::WritableByOthers { mode }), "{mode:o}");
        let strict = file(&path).with_strict_permissions();
        assert_eq!(problem(&strict), Problem::File(FileProblem::WritableByOthers { mode }), "{mode:o}");
    }
    let message = error(&file(&path)).to_string();
    assert!(message.contains("mode 777") && message.contains("chmod go-w"), "{message}");
}

#[test]
fn no_group_may_write_a_file_not_even_the_users_own() {
    let folder = Folder::new();
    let path = folder.write("key", KEY);
    chown(&path, None, Some(rustix::process::getegid().as_raw())).unwrap();
    for mode in [0o620, 0o660, 0o664] {
        set_mode(&path, mode);
        let gid = rustix::process::getegid().as_raw();
        assert_eq!(
            problem(&file(&path)),
            Problem::File(FileProblem::WritableByGroup { mode, gid }),
            "{mode:o}"
        );
        let message = error(&file(&path)).to_string();
        let ways = ["chmod g-w it", &format!("with_trusted_group({gid})"), &format!("?group={gid}")];
        assert!(ways.iter().all(|way| message.contains(way)), "{message}");
        let message = error(&file(&path)).to_string();
        let ways = [format!("with_trusted_group({gid})"), format!("?group={gid}"), "chmod g-w".to_owned()];
        assert!(ways.iter().all(|way| message.contains(way)), "{message}");
    }
    set_mode(&path, 0o640);
    assert_gives_the_key(&file(&path));
}

#[test]
fn a_file_readable_by_others_is_noted_and_refused_when_strict() {
    let folder = Folder::new();
    let path = folder.write("key", KEY);
    set_mode(&path, 0o644);
    assert_eq!(found(&file(&path)).remarks(), [Remark::ReadableByOthers { mode: 0o644 }]);
    for mode in [0o644, 0o604, 0o640, 0o610, 0o601] {
        set_mode(&path, mode);
        let strict = file(&path).with_strict_permissions();
        assert_eq!(problem(&strict), Problem::File(FileProblem::ReadableByOthers { mode }), "{mode:o}");
    }
    let message = error(&file(&path).with_strict_permissions()).to_string();
    assert!(message.contains("chmod 400 or 600"), "{message}");
    for mode in [0o600, 0o400, 0o700] {
        set_mode(&path, mode);
        assert_gives_the_key(&file(&path).with_strict_permissions());
    }
}

#[test]
fn a_kubernetes_style_mount_is_read_before_and_after_a_swap() {
    let folder = Folder::new();
    for (version, key) in [("..2026_01", crate::support::OTHER_KEY), ("..2026_02", KEY)] {
        fs::create_dir(folder.at(version)).unwrap();
        set_mode(&folder.write(&format!("{version}/kanal"), key), 0o644);
    }
    symlink("..2026_01", folder.at("..data")).unwrap();
    symlink("..data/kanal", folder.at("kanal")).unwrap();
    let source = file(folder.at("kanal"));
    assert!(found(&source).key().matches(crate::support::OTHER_KEY.as_bytes()));
    symlink("..2026_02", folder.at("..data_tmp")).unwrap();
    fs::rename(folder.at("..data_tmp"), folder.at("..data")).unwrap();
    assert_gives_the_key(&source);
    fs::remove_file(folder.at("..data")).unwrap();
    assert_eq!(problem(&source), Problem::File(FileProblem::DanglingLink));
}

/// Says that it is over, also when what lies between finds something.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Mounts two versions of a secret as Kubernetes does, and swaps them for as long as the test looks on. The
/// old version is removed at once, so that a path can lead nowhere for an instant.
fn while_a_mounted_secret_is_swapped(folder: &Path, look: impl Fn()) {
    let mount = |version: usize| {
        let name = format!("..version_{version}");
        fs::create_dir(folder.join(&name)).unwrap();
        fs::write(folder.join(&name).join("kanal"), KEY).unwrap();
        set_mode(&folder.join(&name).join("kanal"), 0o644);
        symlink(&name, folder.join("..data_tmp")).unwrap();
        fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
        name
    };
    let mut old = mount(0);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let swapping = scope.spawn(|| {
            let mut version = 0;
            while !done.load(Ordering::Relaxed) {
                version += 1;
                let new = mount(version);
                fs::remove_dir_all(folder.join(&old)).unwrap();
                old = new;
            }
            version
        });
        let end = Done(&done);
        look();
        drop(end);
        assert!(swapping.join().unwrap() > 100, "there was too little to look at");
    });
}

#[test]
fn a_mounted_secret_is_never_absent_while_kubernetes_swaps_it() {
    let folder = Folder::new();
    symlink("..data/kanal", folder.at("kanal")).unwrap();
    while_a_mounted_secret_is_swapped(folder.path(), || {
        // By the link that Kubernetes makes, and by a path through the link that it swaps.
        let sources = [file(folder.at("kanal")), file(folder.at("..data/kanal"))];
        let end = Instant::now() + Duration::from_secs(3);
        while Instant::now() < end {
            for source in &sources {
                assert_gives_the_key(source);
            }
        }
    });
}

#[test]
fn a_key_missing_from_a_mount_is_absent_even_during_a_swap() {
    let folder = Folder::new();
    while_a_mounted_secret_is_swapped(folder.path(), || {
        let source = file(folder.at("..data/katana"));
        let end = Instant::now() + Duration::from_millis(500);
        while Instant::now() < end {
            // Where every attempt met a swap, that is an error and not an absence.
            match source::load(&source, Katana::PROFILE) {
                Ok(Loaded::Absent(Absence::NoFile)) => {}
                Err(error) => assert_eq!(error.problem(), &Problem::File(FileProblem::DanglingLink)),
                other => panic!("{other:?}"),
            }
        }
    });
    assert_eq!(absence(&file(folder.at("..data/katana"))), Absence::NoFile);
}

#[test]
fn a_file_may_hold_base64_and_one_newline_after_it() {
    let folder = Folder::new();
    let source = |content: &str| file(folder.write("key", content)).base64();
    assert_gives_the_key(&source(KEY_IN_BASE64));
    assert_gives_the_key(&source(&format!("{KEY_IN_BASE64}\n")));
    let (first, second) = KEY_IN_BASE64.split_at(16);
    for content in [format!("{KEY_IN_BASE64}\n\n"), format!("{first}\n{second}"), format!("{first}=")] {
        let error = error(&source(&content));
        assert_eq!(error.problem(), &Problem::NotBase64, "{content:?}");
        crate::support::assert_prints_nothing_of(&error, KEY_IN_BASE64);
        assert!(error.to_string().contains("base64 -w0"), "{error}");
    }
    // `echo KEY | base64` encodes a newline as well; of two, one is not removed.
    assert_gives_the_key(&source(&format!("{KEY_IN_BASE64}Cg==")));
    assert!(matches!(problem(&source(&format!("{KEY_IN_BASE64}Cgo="))), Problem::Malformed(_)));
}
