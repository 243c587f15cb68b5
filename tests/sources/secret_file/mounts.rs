//! Files whose name is taken away while they are read, and mounts of one file that never change.

use crate::support::OTHER_KEY;
use keysheath::chain::Chain;
use keysheath::key::Kanal;

use super::*;

fn explained(path: &Path) -> String {
    Chain::<Kanal>::new().with(file(path)).explain().to_string()
}

fn mount_alone(from: &Path, to: &Path) {
    fs::write(to, "").unwrap();
    let mount = std::process::Command::new("mount").arg("--bind").args([from, to]).status();
    assert!(mount.expect("mount runs (Debian: mount)").success());
}

#[test]
fn a_mount_of_one_file_says_that_it_never_changes_again() {
    let name = "mounts::a_mount_of_one_file_says_that_it_never_changes_again";
    Child::new(name).with_a_small_disk("1m").run(|| {
        let disk = Child::small_disk();
        let (secret, mounted, folder) = (disk.join("secret"), disk.join("mounted"), disk.join("folder"));
        fs::create_dir(&folder).unwrap();
        for path in [&secret, &folder.join("secret")] {
            fs::write(path, KEY).unwrap();
            set_mode(path, 0o600);
        }
        mount_alone(&secret, &mounted);
        assert_eq!(found(&file(&mounted)).remarks(), []);
        assert!(explained(&mounted).contains("a refresher follows this file"));
        for path in [&secret, &folder.join("secret")] {
            fs::write(disk.join("new"), OTHER_KEY).unwrap();
            set_mode(&disk.join("new"), 0o600);
            fs::rename(disk.join("new"), path).unwrap();
        }
        let stale = found(&file(&mounted));
        assert!(stale.key().matches(KEY.as_bytes()), "the mount shows the old file");
        assert_eq!(stale.remarks(), [Remark::Unlinked]);
        let explained = explained(&mounted);
        assert!(
            explained.contains("a mount of one file never shows another: mount its folder"),
            "{explained}"
        );
        assert!(!explained.contains("a refresher follows"), "{explained}");
        // In a folder it changes.
        let fresh = found(&file(folder.join("secret")));
        assert!(fresh.key().matches(OTHER_KEY.as_bytes()) && fresh.remarks().is_empty());
    });
}

#[test]
fn a_descriptor_of_a_file_without_a_name_says_so_too() {
    use std::os::fd::AsRawFd as _;

    let folder = Folder::new();
    let path = folder.write("key", KEY);
    let open = fs::File::open(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let source = file(format!("/proc/self/fd/{}", open.as_raw_fd()));
    assert_eq!(found(&source).remarks(), [Remark::Unlinked]);
}

#[test]
fn a_file_that_is_replaced_again_and_again_keeps_its_name() {
    let folder = Folder::new();
    let path = folder.write("key", KEY);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let replacing = scope.spawn(|| {
            let mut count = 0;
            while !done.load(Ordering::Relaxed) {
                fs::rename(folder.write("new", KEY), &path).unwrap();
                count += 1;
            }
            count
        });
        let end = Done(&done);
        let until = Instant::now() + Duration::from_secs(1);
        while Instant::now() < until {
            assert_eq!(found(&file(&path)).remarks(), []);
        }
        drop(end);
        assert!(replacing.join().unwrap() > 100, "there was too little to look at");
    });
}

#[test]
fn a_relative_path_is_resolved_once() {
    let (first, second) = (Folder::new(), Folder::new());
    for (folder, key) in [(&first, KEY), (&second, OTHER_KEY)] {
        folder.write("kanal", key);
        folder.write(".env", format!("KANAL_API_KEY={key}\n"));
    }
    let child = Child::new("mounts::a_relative_path_is_resolved_once");
    child.var("FIRST", first.path()).var("SECOND", second.path()).run(|| {
        let folder = |name: &str| std::env::var_os(name).unwrap();
        std::env::set_current_dir(folder("FIRST")).unwrap();
        let source = file("kanal");
        let reference: keysheath::source::KeyRef = "file:./kanal".parse().unwrap();
        let missing = error(&file("no/such/../key").required()).to_string();
        assert!(missing.contains(&format!("{}/no/such/../key", folder("FIRST").display())), "{missing}");
        #[cfg(feature = "dotenv")]
        let dotenv = Chain::<Kanal>::new().with_dotenv(".env");
        std::env::set_current_dir(folder("SECOND")).unwrap();
        assert_gives_the_key(&source);
        assert_gives_the_key(&*reference.source().unwrap());
        #[cfg(feature = "dotenv")]
        assert!(dotenv.load().unwrap().key().matches(KEY.as_bytes()));
    });
}

#[cfg(feature = "rotation")]
#[test]
fn relative_paths_of_stores_and_audits_are_resolved_once() {
    use keysheath::rotation::{Rotation, RotationPolicy};
    use keysheath::store::FileStore;

    let (first, second) = (Folder::new(), Folder::new());
    let child = Child::new("mounts::relative_paths_of_stores_and_audits_are_resolved_once");
    child.var("FIRST", first.path()).var("SECOND", second.path()).run(|| {
        let folder = |name: &str| std::path::PathBuf::from(std::env::var_os(name).unwrap());
        std::env::set_current_dir(folder("FIRST")).unwrap();
        let rotation = Rotation::<Kanal>::open(FileStore::new("document"), RotationPolicy::new()).unwrap();
        let rotation = rotation.with_audit_file("audit");
        std::env::set_current_dir(folder("SECOND")).unwrap();
        let key = keysheath::key::ApiKey::parse(KEY).unwrap();
        assert_eq!(rotation.adopt(&key).unwrap().unaudited(), None);
        for name in ["document", "audit"] {
            assert!(folder("FIRST").join(name).exists() && !folder("SECOND").join(name).exists(), "{name}");
        }
    });
}
