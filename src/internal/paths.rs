//! Relative paths, resolved once: what is named is the same file after the working folder has changed.

use std::path::PathBuf;

/// The path from the root. A relative one is taken from the working folder of this moment. Links and, but on
/// Windows, `..` stay as they are. An empty path, and any relative one where the working folder is not known,
/// stays relative.
pub(crate) fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}

/// Why a path that went through [`absolute`] names no file.
pub(crate) fn rule_broken_by(path: &std::path::Path) -> Option<&'static str> {
    if path.as_os_str().is_empty() {
        Some("it is empty: name the file")
    } else if path.is_relative() {
        Some("it is relative, and the working folder is not known: write it from the root")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relative_path_is_taken_from_the_working_folder() {
        let here = std::env::current_dir().unwrap();
        assert_eq!(absolute("keys/kanal".into()), here.join("keys/kanal"));
        // Windows takes the folder before it away, links or not, and so does std.
        let above = if cfg!(windows) { here.parent().unwrap().join("kanal") } else { here.join("../kanal") };
        assert_eq!(absolute("../kanal".into()), above);
        assert_eq!(rule_broken_by(&absolute("kanal".into())), None);
        assert_eq!(absolute(here.join("kanal")), here.join("kanal"));
        assert_eq!(absolute(PathBuf::new()), PathBuf::new());
        assert!(rule_broken_by(&PathBuf::new()).is_some());
    }
}
