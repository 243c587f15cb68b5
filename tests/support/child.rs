//! Tests that need a process of their own: an environment, a standard input, another user.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::sync::LazyLock;
use std::thread;
use std::time::Duration;

/// The variable that tells a child which test it is to run.
const MARK: &str = "KEYSHEATH_CHILD";

/// What a child prints once the body has come to its end.
const TOKEN: &str = "keysheath: the child has come to its end";

/// The variable that tells a child where its small disk is.
#[cfg(target_os = "linux")]
const DISK: &str = "KEYSHEATH_DISK";

/// The variables that would lead a child to its user's own keys, keychain or screen; a child has those that
/// its test sets and no others.
const LOOKED_AT: [&str; 11] = [
    "KANAL_API_KEY",
    "KANAL_API_KEY_FILE",
    "KATANA_API_KEY",
    "KATANA_API_KEY_FILE",
    "KATANA_API_TOKEN",
    "KANAL_STORE_ID",
    "CREDENTIALS_DIRECTORY",
    "DBUS_SESSION_BUS_ADDRESS",
    "DISPLAY",
    "WAYLAND_DISPLAY",
    "XDG_RUNTIME_DIR",
];

/// The user and group that have no rights anywhere, and that stand for those without a number of their own.
#[cfg(unix)]
pub(crate) const NOBODY: u32 = 65534;

/// A child process that runs one test, and nothing but that test.
pub(crate) struct Child {
    /// The test's name with its modules.
    path: String,
    command: Command,
    stdin: &'static str,
    /// Where the small disk is mounted; in no other process is anything in it.
    disk: Option<super::Folder>,
}

impl Child {
    /// For the test function of this name. The modules that it is in may be left out where no other test of
    /// this binary has the name.
    pub(crate) fn new(name: &'static str) -> Self {
        // By this link and not by path: the path may lead through folders that another user cannot enter.
        #[cfg(target_os = "linux")]
        let mut command = Command::new("/proc/self/exe");
        #[cfg(not(target_os = "linux"))]
        let mut command = Command::new(std::env::current_exe().expect("the test knows its own file"));
        let path = path_in_child(name).unwrap_or_else(|| full_path(name));
        command.args([&path, "--exact", "--nocapture", "--test-threads=1"]).env(MARK, &path);
        for variable in LOOKED_AT {
            command.env_remove(variable);
        }
        Self { path, command, stdin: "", disk: None }
    }

    pub(crate) fn var(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.command.env_remove(name);
        self
    }

    pub(crate) fn stdin(mut self, text: &'static str) -> Self {
        self.stdin = text;
        self
    }

    /// Takes root's rights away where there are any, and keeps an ordinary user as it is.
    #[cfg(unix)]
    pub(crate) fn ordinary_user(mut self) -> Self {
        use std::os::unix::process::CommandExt as _;

        if rustix::process::geteuid().is_root() {
            // Setting the user also drops the supplementary groups.
            self.command.uid(NOBODY).gid(NOBODY).env("TMPDIR", "/tmp");
        }
        self
    }

    /// Starts the child through a shell script, which ends with `exec "$@"`.
    #[cfg(unix)]
    pub(crate) fn through_shell(mut self, script: &str) -> Self {
        let mut shell = Command::new("sh");
        shell.args(["-c", script, "sh"]).arg(std::env::current_exe().expect("the test knows its own file"));
        self.wrap(shell);
        self
    }

    /// Gives the child a terminal of its own, whose foreground group it is in.
    #[cfg(target_os = "linux")]
    pub(crate) fn on_a_terminal(mut self) -> Self {
        let mut words = vec![std::env::current_exe().expect("the test knows its own file").into_os_string()];
        words.extend(self.command.get_args().map(OsStr::to_owned));
        let quoted = words.iter().map(|word| format!("'{}'", word.to_str().expect("a plain path")));
        let mut terminal = Command::new("script");
        terminal.args([
            "--quiet",
            "--return",
            "--command",
            &quoted.collect::<Vec<_>>().join(" "),
            "/dev/null",
        ]);
        self.command = with_environment(terminal, &self.command);
        self
    }

    /// Starts the child by another program, whose last arguments are the child's own.
    #[cfg(unix)]
    fn wrap(&mut self, mut by: Command) {
        by.args(self.command.get_args());
        self.command = with_environment(by, &self.command);
    }

    /// Bounds the size of the files that the child writes, in blocks of 512 bytes. A write beyond it is an
    /// error, as on a disk that is full, and needs no rights.
    #[cfg(unix)]
    pub(crate) fn with_file_limit(mut self, blocks: u32) -> Self {
        let mut shell = Command::new("sh");
        shell.args(["-c", "trap '' XFSZ; ulimit -f \"$0\"; exec \"$@\"", &blocks.to_string()]);
        shell.arg(std::env::current_exe().expect("the test knows its own file"));
        shell.args(self.command.get_args()).env(MARK, &self.path);
        self.command = shell;
        self
    }

    /// Gives the child a disk of its own that holds no more than `size`, as `mount` counts it: a tmpfs that
    /// no other process sees and that goes with the child.
    #[cfg(target_os = "linux")]
    pub(crate) fn with_a_small_disk(mut self, size: &str) -> Self {
        if self.is_here() {
            return self;
        }
        let namespace: &[&str] =
            if rustix::process::geteuid().is_root() { &["--mount"] } else { &["--map-root-user", "--mount"] };
        let script = "mount -t tmpfs -o mode=700,size=\"$1\" keysheath \"$0\" && shift && exec \"$@\"";
        let disk = super::Folder::new();
        let may = Command::new("unshare")
            .args(namespace)
            .args(["sh", "-c", script])
            .arg(disk.path())
            .args([size, "true"])
            .output();
        assert!(
            may.as_ref().is_ok_and(|output| output.status.success()),
            "a small disk can be mounted by root, or where a user may make user namespaces, with `unshare` \
             and `mount` of Debian's util-linux and mount: {may:?}"
        );
        let mut shell = Command::new("unshare");
        shell.args(namespace).args(["sh", "-c", script]).arg(disk.path()).arg(size);
        shell.arg(std::env::current_exe().expect("the test knows its own file"));
        shell.args(self.command.get_args()).env(MARK, &self.path).env(DISK, disk.path());
        self.command = shell;
        self.disk = Some(disk);
        self
    }

    /// In a child that has one: its small disk.
    #[cfg(target_os = "linux")]
    pub(crate) fn small_disk() -> std::path::PathBuf {
        std::env::var_os(DISK).expect("the child was given one").into()
    }

    /// Whether this process is the child.
    pub(crate) fn is_here(&self) -> bool {
        path_in_child(&self.path).is_some()
    }

    /// Starts the child without waiting for it. Its standard output is a pipe.
    pub(crate) fn spawn(mut self) -> std::process::Child {
        self.command.stdin(Stdio::null()).stdout(Stdio::piped());
        self.command.spawn().expect("this test can be started a second time")
    }

    /// As [`Child::spawn`], with a pipe for its standard input as well.
    pub(crate) fn spawn_listening(mut self) -> std::process::Child {
        self.command.stdin(Stdio::piped()).stdout(Stdio::piped());
        self.command.spawn().expect("this test can be started a second time")
    }

    /// Starts the child and waits until it prints `= opened`; then kills it after a time, or lets it end by
    /// itself. Passes each whole line that it prints after that to `line`, and returns how it ended.
    pub(crate) fn run_until_killed(self, after: Option<Duration>, mut line: impl FnMut(&str)) -> ExitStatus {
        let mut child = self.spawn();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut text = String::new();
        // The test harness prints first.
        while !text.ends_with("= opened\n") {
            text.clear();
            assert_ne!(out.read_line(&mut text).unwrap(), 0, "the child has ended before it was ready");
        }
        let killing = thread::spawn(move || {
            if let Some(after) = after {
                thread::sleep(after);
                child.kill().unwrap();
            }
            child.wait().unwrap()
        });
        loop {
            text.clear();
            out.read_line(&mut text).unwrap();
            // A line that the kill has cut short does not count.
            let Some(whole) = text.strip_suffix('\n') else { break };
            line(whole);
        }
        killing.join().unwrap()
    }

    /// In the child: runs the body. Otherwise: runs the child, and gives what it wrote.
    pub(crate) fn run(mut self, body: impl FnOnce()) -> Option<Output> {
        if self.is_here() {
            body();
            println!("{TOKEN}");
            return None;
        }
        let mut child =
            self.command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect(
                "this test can be started a second time, by any user (its file must be executable by all)",
            );
        let mut stdin = child.stdin.take().expect("the child's standard input is a pipe");
        // The child need not read it.
        let _ = stdin.write_all(self.stdin.as_bytes());
        drop(stdin);
        let output = child.wait_with_output().expect("the child ends");
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let whole = output.status.success() && out.contains(TOKEN);
        assert!(whole, "the child of {} failed ({}):\n{out}\n{err}", self.path, output.status);
        Some(output)
    }
}

/// Whether a test's name with its modules is that of the test of this name.
fn is_path_of(path: &str, name: &str) -> bool {
    path.strip_suffix(name).is_some_and(|modules| modules.is_empty() || modules.ends_with("::"))
}

/// In a child that runs the test of this name: its name with its modules.
fn path_in_child(name: &str) -> Option<String> {
    std::env::var(MARK).ok().filter(|path| is_path_of(path, name))
}

/// The name of a test with its modules, by which it is selected.
fn full_path(name: &str) -> String {
    static TESTS: LazyLock<Vec<String>> = LazyLock::new(|| {
        let mut tests = Command::new(std::env::current_exe().expect("the test knows its own file"));
        let output = tests.args(["--list", "--format", "terse"]).output().expect("the tests can be listed");
        let list = String::from_utf8(output.stdout).expect("names are ASCII");
        list.lines().filter_map(|line| Some(line.strip_suffix(": test")?.to_owned())).collect()
    });
    let found: Vec<&String> = TESTS.iter().filter(|path| is_path_of(path, name)).collect();
    assert_eq!(found.len(), 1, "{name} must name one test here, with its module if need be: {found:?}");
    found[0].clone()
}

/// The variables that one command is given, given to another.
#[cfg(unix)]
fn with_environment(mut to: Command, from: &Command) -> Command {
    for (name, value) in from.get_envs() {
        match value {
            Some(value) => to.env(name, value),
            None => to.env_remove(name),
        };
    }
    to
}

/// Runs `body` in a child with these variables.
pub(crate) fn in_child<V: AsRef<OsStr>>(
    name: &'static str,
    variables: &[(&str, V)],
    body: impl FnOnce(),
) -> Option<Output> {
    let child = variables.iter().fold(Child::new(name), |child, (name, value)| child.var(name, value));
    child.run(body)
}

/// Runs `body` in a child that is not root, because root may read everything.
#[cfg(unix)]
pub(crate) fn as_ordinary_user(name: &'static str, body: impl FnOnce()) {
    let body = || {
        assert!(!rustix::process::geteuid().is_root(), "root's rights are still there");
        body();
    };
    Child::new(name).ordinary_user().run(body);
}

/// Runs `check` on a file that belongs to [`NOBODY`], with a key in it or not.
///
/// Root gives a file away. An ordinary user cannot, and looks at one of root's from a user namespace in which
/// root does not exist and is shown as nobody.
#[cfg(target_os = "linux")]
pub(crate) fn with_a_file_of_another_user(name: &'static str, check: impl Fn(&std::path::Path)) {
    if rustix::process::geteuid().is_root() {
        let folder = super::Folder::new();
        let path = folder.write("key", super::KEY);
        super::set_mode(&path, 0o644);
        std::os::unix::fs::chown(&path, Some(NOBODY), Some(NOBODY)).expect("root may give a file away");
        return check(&path);
    }
    let mut child = Child::new(name);
    let mut namespace = Command::new("unshare");
    namespace.args(["--user", "--map-current-user"]).arg(std::env::current_exe().expect("the test's file"));
    namespace.args(child.command.get_args()).env(MARK, &child.path);
    child.command = namespace;
    // Where this fails, run the tests as root, or where a user may make user namespaces; `unshare` is of
    // Debian's util-linux, from 2.37 on.
    child.run(|| check(std::path::Path::new("/etc/passwd")));
}
