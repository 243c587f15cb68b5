//! The way to a file: over which links it leads, and where it ends.

use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

/// How many links are followed; Linux follows as many.
const MOST_LINKS: usize = 40;

/// A name in a folder. Who makes it anew, or points it elsewhere, may change what the way leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Resolved: no link is in it.
    pub(super) folder: PathBuf,
    pub(super) name: OsString,
}

/// Each link on the way, and at last the file; where the way ends before, the name that is missing there.
pub(super) fn to(file: &Path) -> Vec<Entry> {
    let mut entries = Vec::new();
    let Ok(file) = std::path::absolute(file) else { return entries };
    let mut folder = PathBuf::new();
    // What is still to be walked, the next step at the end.
    let mut rest = steps(&file);
    let mut links = 0;
    while let Some(step) = rest.pop() {
        let name = match step {
            Step::Root(root) => {
                folder = root;
                continue;
            }
            Step::Up => {
                folder.pop();
                continue;
            }
            Step::Into(name) => name,
        };
        let path = folder.join(&name);
        let entry = Entry { folder: folder.clone(), name };
        let is_link = path.symlink_metadata().map(|metadata| metadata.is_symlink());
        match is_link {
            Ok(true) => {
                links += 1;
                entries.push(entry);
                match path.read_link() {
                    Ok(target) if links <= MOST_LINKS => rest.extend(steps(&target)),
                    _ => return entries,
                }
            }
            Ok(false) if !rest.is_empty() => folder = path,
            _ => {
                entries.push(entry);
                return entries;
            }
        }
    }
    entries
}

enum Step {
    Root(PathBuf),
    Up,
    Into(OsString),
}

/// The steps of a path, the first at the end. A path from the root begins with the root, whatever was before.
fn steps(path: &Path) -> Vec<Step> {
    let mut root = PathBuf::new();
    let mut steps = Vec::new();
    for component in path.components() {
        match component {
            Component::Prefix(_) | Component::RootDir => root.push(component),
            Component::CurDir => {}
            Component::ParentDir => steps.push(Step::Up),
            Component::Normal(name) => steps.push(Step::Into(name.to_owned())),
        }
    }
    steps.reverse();
    if !root.as_os_str().is_empty() {
        steps.push(Step::Root(root));
    }
    steps
}

#[cfg(all(test, unix))]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().canonicalize().unwrap();
        (folder, path)
    }

    /// The entries below `folder`, as paths from there.
    fn names(folder: &Path, file: &str) -> Vec<String> {
        let entries = to(&folder.join(file)).into_iter().map(|entry| entry.folder.join(entry.name));
        entries.map(|path| path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn the_way_to_a_kubernetes_secret_leads_over_both_links() {
        let (_folder, at) = folder();
        fs::create_dir(at.join("..2026_1")).unwrap();
        fs::write(at.join("..2026_1/key"), "").unwrap();
        symlink("..2026_1", at.join("..data")).unwrap();
        symlink("..data/key", at.join("key")).unwrap();
        assert_eq!(names(&at, "key"), ["key", "..data", "..2026_1/key"]);
    }

    #[test]
    fn links_in_the_middle_upwards_and_from_the_root_are_followed() {
        let (_folder, at) = folder();
        fs::create_dir_all(at.join("releases/7")).unwrap();
        fs::create_dir_all(at.join("shared/keys")).unwrap();
        fs::write(at.join("shared/keys/kanal"), "").unwrap();
        symlink("releases/7", at.join("current")).unwrap();
        symlink(at.join("shared"), at.join("releases/7/config")).unwrap();
        symlink("../shared/./keys", at.join("releases/keys")).unwrap();
        assert_eq!(
            names(&at, "current/config/keys/kanal"),
            ["current", "releases/7/config", "shared/keys/kanal"]
        );
        assert_eq!(names(&at, "current/../keys/kanal"), ["current", "releases/keys", "shared/keys/kanal"]);
    }

    #[test]
    fn a_way_that_ends_before_its_file_ends_at_what_is_missing() {
        let (_folder, at) = folder();
        assert_eq!(names(&at, "a/b/key"), ["a"]);
        fs::create_dir(at.join("a")).unwrap();
        assert_eq!(names(&at, "a/b/key"), ["a/b"]);
        symlink("gone/key", at.join("link")).unwrap();
        assert_eq!(names(&at, "link"), ["link", "gone"]);
    }

    #[test]
    fn links_in_a_circle_come_to_an_end() {
        let (_folder, at) = folder();
        symlink("b", at.join("a")).unwrap();
        symlink("a", at.join("b")).unwrap();
        assert_eq!(names(&at, "a").len(), MOST_LINKS + 1);
    }
}
