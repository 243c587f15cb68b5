//! Large files of what a reader may look at again and again.

use std::time::{Duration, Instant};

use super::*;

/// How large each file is; a reader that looks at each byte as often as there are bytes takes half a minute
/// and more.
const SIZE: usize = 64 * 1024;

/// Far more than one look takes.
const PATIENCE: Duration = Duration::from_secs(5);

#[test]
fn the_time_for_a_file_does_not_grow_with_its_square() {
    let folder = Folder::new();
    for part in ["\r", "\r ", "\u{b}A", "\u{b}#", "\u{2028}'\"`", "A=\"\\\n", "'A\n"] {
        let text = part.repeat(SIZE / part.len());
        for (before, after) in [("KANAL_API_KEY=k\n", "=\"'`"), ("", "\nB='\n")] {
            let source = dotenv(&folder, format!("{before}{text}{after}"));
            let start = Instant::now();
            let _ = keysheath::source::load(&source, Kanal::PROFILE);
            assert!(start.elapsed() < PATIENCE, "{part:?}: {:?}", start.elapsed());
        }
    }
    let value = format!("KANAL_API_KEY={}b\n", "a".repeat(4 * SIZE - 20));
    let start = Instant::now();
    assert!(matches!(problem(&dotenv(&folder, value)), Problem::Malformed(_)));
    assert!(start.elapsed() < PATIENCE, "{:?}", start.elapsed());
}
