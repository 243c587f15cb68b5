//! FIFOs, `/dev/stdin`, and what a shell's `<(…)` gives.

use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;

use super::*;

fn fifo(folder: &Folder, mode: &str) -> PathBuf {
    let path = folder.at("fifo");
    let status = std::process::Command::new("mkfifo").args(["-m", mode]).arg(&path).status();
    assert!(status.expect("mkfifo runs (Debian: coreutils)").success());
    path
}

fn write_after(pause: Duration, path: PathBuf, text: String) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        std::thread::sleep(pause);
        // Waits for a reader, as the writer of a password manager does.
        let mut pipe = fs::File::options().write(true).open(path).unwrap();
        for piece in text.as_bytes().chunks(7) {
            pipe.write_all(piece).unwrap();
            std::thread::sleep(Duration::from_millis(2));
        }
    })
}

#[test]
fn a_fifo_is_read_to_its_end_whichever_side_opens_first() {
    for pause in [Duration::ZERO, Duration::from_millis(200)] {
        let folder = Folder::new();
        let path = fifo(&folder, "600");
        let writer = write_after(pause, path.clone(), format!("{KEY}\n"));
        let found = found(&file(&path));
        assert!(found.key().matches(KEY.as_bytes()));
        assert_eq!(found.remarks(), [Remark::Pipe]);
        writer.join().unwrap();
    }
}

#[test]
fn a_fifo_is_opened_once_for_each_load() {
    let folder = Folder::new();
    let path = fifo(&folder, "600");
    let served = path.clone();
    let writer = std::thread::spawn(move || {
        for key in [KEY, crate::support::OTHER_KEY] {
            fs::write(&served, key).unwrap();
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    assert!(found(&file(&path)).key().matches(KEY.as_bytes()));
    assert!(found(&file(&path)).key().matches(crate::support::OTHER_KEY.as_bytes()));
    writer.join().unwrap();
}

#[cfg(feature = "dotenv")]
#[test]
fn threads_that_read_one_fifo_do_not_divide_its_text() {
    use keysheath::source::DotenvFile;

    const THREADS: usize = 4;
    let folder = Folder::new();
    let path = fifo(&folder, "600");
    let served = path.clone();
    // The key's line is the last: who reads the beginning alone finds none.
    let text = format!("{}KANAL_API_KEY={KEY}\n", "A=1\n".repeat(4_000));
    let writer = std::thread::spawn(move || {
        for _ in 0..THREADS {
            fs::write(&served, &text).unwrap();
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    let source = DotenvFile::new(&path, "KANAL_API_KEY");
    let loads: Vec<_> = (0..THREADS)
        .map(|_| {
            let source = source.clone();
            std::thread::spawn(move || source::load(&source, keysheath::key::Kanal::PROFILE))
        })
        .collect();
    for load in loads {
        let loaded = load.join().unwrap();
        assert!(matches!(loaded, Ok(Loaded::Found(_))), "{loaded:?}");
    }
    writer.join().unwrap();
}

#[test]
fn a_fifo_that_nothing_writes_to_ends_at_the_deadline() {
    let folder = Folder::new();
    let path = fifo(&folder, "600");
    let deadline = Duration::from_millis(60);
    // More often than calls may hang at once: each of these has ended.
    for _ in 0..2 * MAX_CALLS_PER_PLACE {
        let start = Instant::now();
        let error = error(&file(&path).with_deadline(deadline));
        assert_eq!(error.problem(), &Problem::Slow { after: deadline });
        assert!(start.elapsed() < PATIENCE, "it hung for {:?}", start.elapsed());
        assert!(error.to_string().contains("what writes to the pipe"), "{error}");
        std::thread::sleep(deadline);
    }
}

#[test]
fn a_fifo_goes_through_the_checks_of_a_file() {
    let folder = Folder::new();
    let path = fifo(&folder, "666");
    assert_eq!(problem(&file(&path)), Problem::File(FileProblem::WritableByOthers { mode: 0o666 }));
    set_mode(&path, 0o644);
    assert_eq!(
        problem(&file(&path).with_strict_permissions()),
        Problem::File(FileProblem::ReadableByOthers { mode: 0o644 })
    );
    set_mode(&path, 0o600);
    let writer = write_after(Duration::ZERO, path.clone(), KEY.repeat(400));
    assert_eq!(problem(&file(&path)), Problem::File(FileProblem::TooLarge { limit: MAX_SECRET_FILE }));
    assert!(writer.join().is_err(), "the writer sees that nothing reads on");
}

#[test]
fn the_pipe_of_a_shell_is_read_once() {
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(format!("{KEY}\n").as_bytes()).unwrap();
    drop(writer);
    for folder in ["/dev/fd", "/proc/self/fd"] {
        let source = file(format!("{folder}/{}", reader.as_raw_fd()));
        if folder == "/dev/fd" {
            assert_gives_the_key(&source);
        } else {
            let error = error(&source);
            assert_eq!(error.problem(), &Problem::EmptyPipe);
            assert!(error.to_string().contains("gives its text once"), "{error}");
        }
    }
}

#[test]
fn standard_input_is_read() {
    // Its text is `KEY`, and a newline.
    let child = Child::new("pipes::standard_input_is_read").stdin("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z\n");
    child.run(|| assert_gives_the_key(&file("/dev/stdin")));
}

#[cfg(feature = "dotenv")]
#[test]
fn a_dotenv_that_is_a_fifo_is_read_once() {
    use keysheath::source::DotenvFile;

    let folder = Folder::new();
    let path = fifo(&folder, "600");
    let writer = write_after(Duration::from_millis(50), path.clone(), format!("A=1\nKANAL_API_KEY={KEY}\n"));
    assert_gives_the_key(&DotenvFile::new(&path, "KANAL_API_KEY"));
    writer.join().unwrap();
    let late = DotenvFile::new(&path, "KANAL_API_KEY").with_deadline(Duration::from_millis(60));
    assert!(matches!(problem(&late), Problem::Slow { .. }));
}
