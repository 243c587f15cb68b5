//! A real Secret Service: gnome-keyring on a session bus of its own, in a folder of its own.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::io::{BufRead as _, BufReader, ErrorKind, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::child::in_child;

/// How long anything may take to start; only a broken machine needs it.
const PATIENCE: Duration = Duration::from_secs(30);

const BUS: &str = "DBUS_SESSION_BUS_ADDRESS";
const FOLDER: &str = "XDG_RUNTIME_DIR";
const SERVICE: &str = "org.freedesktop.secrets";
const PROMPTER: &str = "org.gnome.keyring.SystemPrompter";
const PASSWORD: &[u8] = b"test";

/// Runs `body` in a child process whose session bus is to be in a private folder. Nothing runs there yet.
pub fn in_session(name: &'static str, body: impl FnOnce()) -> Option<Output> {
    let folder = private_folder();
    let mut address = OsString::from("unix:path=");
    address.push(folder.path().join("bus"));
    in_child(name, &[(BUS, address.as_os_str()), (FOLDER, folder.path().as_os_str())], body)
}

/// Runs `body` in a child process with an unlocked keychain of its own.
pub fn with_keychain(name: &'static str, body: impl FnOnce(&mut SecretService)) -> Option<Output> {
    in_session(name, || body(&mut SecretService::start()))
}

/// An empty folder that no other user can look into, as a session's has to be.
pub fn private_folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::set_permissions(folder.path(), Permissions::from_mode(0o700)).expect("mode 700");
    folder
}

/// A session bus that starts nothing on its own, but for a prompter that was asked for.
pub struct Bus {
    process: Running,
    folder: PathBuf,
}

/// A bus and the keychain's daemon on it.
pub struct SecretService {
    // Fields are dropped in this order: the daemon ends before its bus.
    daemon: Running,
    bus: Bus,
}

/// A process that ends when this is dropped.
struct Running(Child);

impl Bus {
    /// Starts a bus at the address that this process has in its environment.
    pub fn start() -> Self {
        let folder = folder();
        let configuration = folder.join("bus.conf");
        fs::create_dir_all(folder.join("services")).expect("writable");
        fs::write(&configuration, configuration_in(&folder)).expect("writable");
        let mut command = program("dbus-daemon", &folder);
        command.args(["--nofork", "--print-address=1"]).stdout(Stdio::piped());
        command.arg(format!("--config-file={}", configuration.display()));
        let mut process = Running::spawn(&mut command, "dbus");
        // It prints its address once it listens there.
        let mut line = String::new();
        BufReader::new(process.0.stdout.take().expect("piped")).read_line(&mut line).expect("text");
        let expected = env::var(BUS).expect("runs in a session");
        assert!(line.starts_with(&expected), "the bus did not come: {}", log_of("dbus-daemon", &folder));
        Self { process, folder }
    }

    /// As [`Bus::start`], with a prompter that the bus starts when a keychain wants to ask its user, and that
    /// never asks.
    pub fn start_with_silent_prompter() -> Self {
        let folder = folder();
        let (script, asked) = (folder.join("prompter.sh"), asked_file(&folder));
        let commands = format!("echo $$ >{0}.new && mv {0}.new {0} && exec sleep 60\n", asked.display());
        fs::write(&script, commands).expect("writable");
        fs::create_dir_all(folder.join("services")).expect("writable");
        let entry = format!("[D-BUS Service]\nName={PROMPTER}\nExec=/bin/sh {}\n", script.display());
        fs::write(folder.join(format!("services/{PROMPTER}.service")), entry).expect("writable");
        Self::start()
    }

    /// Starts a daemon that makes or opens the default collection.
    pub fn with_daemon(self) -> SecretService {
        SecretService { daemon: self.unlocked_daemon(), bus: self }
    }

    /// Starts a daemon that is given no password, and so has no default collection.
    pub fn with_daemon_without_collection(self) -> SecretService {
        let mut command = daemon_in(&self.folder);
        let daemon = Running::spawn(&mut command, "gnome-keyring");
        self.wait_for_daemon(has_secret_service);
        SecretService { daemon, bus: self }
    }

    fn unlocked_daemon(&self) -> Running {
        let mut command = daemon_in(&self.folder);
        let mut daemon = Running::spawn(command.arg("--unlock").stdin(Stdio::piped()), "gnome-keyring");
        // Dropped at once: the password ends where the input does.
        daemon.0.stdin.take().expect("piped").write_all(PASSWORD).expect("it reads its password");
        self.wait_for_daemon(|| default_collection().is_some());
        daemon
    }

    fn wait_for_daemon(&self, ready: impl Fn() -> bool) {
        wait_until(ready, || {
            format!("the daemon did not come: {}", log_of("gnome-keyring-daemon", &self.folder))
        });
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        dismiss_prompt(&self.folder);
    }
}

impl SecretService {
    /// Starts a bus and an unlocked keychain at the address that this process has in its environment.
    pub fn start() -> Self {
        Bus::start().with_daemon()
    }

    /// Stops the daemon until [`SecretService::resume`]: it is there and answers nothing.
    pub fn stop(&self) {
        self.daemon.signal(Signal::STOP);
    }

    /// Lets a stopped daemon go on.
    pub fn resume(&self) {
        self.daemon.signal(Signal::CONT);
    }

    /// Ends the daemon; the bus stays.
    pub fn end_daemon(&mut self) {
        self.daemon.end();
        wait_until(|| !has_secret_service(), || "the ended daemon is still on the bus".to_owned());
    }

    /// Ends the daemon and starts another one on the same bus with the same data.
    pub fn restart(&mut self) {
        self.end_daemon();
        self.daemon = self.bus.unlocked_daemon();
    }

    /// Restarts the daemon with a second collection, as empty or full as the default one is now, that stays
    /// locked.
    pub fn restart_with_a_second_collection(&mut self) {
        self.end_daemon();
        let folder = self.bus.folder.join("data/keyrings");
        fs::copy(folder.join("login.keyring"), folder.join("second.keyring"))
            .expect("the daemon has stored it");
        self.daemon = self.bus.unlocked_daemon();
        let introspection = gdbus(
            SERVICE,
            "/org/freedesktop/secrets/collection/second",
            "org.freedesktop.DBus.Introspectable.Introspect",
            "",
        );
        assert!(introspection.contains("org.freedesktop.Secret.Collection"), "there is no second one");
    }

    /// Ends the bus, and with it what is on it.
    pub fn end_bus(&mut self) {
        self.bus.process.end();
    }

    /// Locks the default collection, as happens when a person leaves the machine.
    #[allow(clippy::unused_self, reason = "a service that is borrowed is one that runs")]
    pub fn lock(&self) {
        let collection = default_collection().expect("there is a default collection");
        let answer = service_says("Lock", &format!("[objectpath '{collection}']"));
        assert!(answer.contains(&collection), "not locked: {answer}");
    }

    /// Waits until the keychain has asked its user, who does not answer.
    pub fn wait_for_prompt(&self) {
        wait_until(|| asked_file(&self.bus.folder).exists(), || "no person was asked".to_owned());
    }

    /// Dismisses the prompt that is open, as a person does with Escape.
    pub fn dismiss_prompt(&self) {
        self.wait_for_prompt();
        dismiss_prompt(&self.bus.folder);
    }
}

impl Running {
    fn spawn(command: &mut Command, package: &str) -> Self {
        match command.spawn() {
            Ok(child) => Self(child),
            Err(error) if error.kind() == ErrorKind::NotFound => panic!(
                "{} is missing: install the Debian package {package}",
                command.get_program().to_string_lossy()
            ),
            Err(error) => panic!("{}: {error}", command.get_program().to_string_lossy()),
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).expect("it runs");
    }

    fn end(&mut self) {
        // Neither fails for a process that has ended: its id stays ours until this wait.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

/// Runs `secret-tool`, another program that uses the same keychain, and gives what it printed.
pub fn secret_tool(arguments: &[&str], input: &str) -> Output {
    let mut command = program("secret-tool", &folder());
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = Running::spawn(&mut command, "libsecret-tools");
    let mut pipe = running.0.stdin.take().expect("piped");
    pipe.write_all(input.as_bytes()).expect("it reads its input");
    drop(pipe);
    collect(running)
}

/// Stores a text through `secret-tool` under `attributes`: names and values by turns.
pub fn store_with_secret_tool(attributes: &[&str], text: &str) {
    let output = secret_tool(&[&["store", "--label=from another tool"], attributes].concat(), text);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn has_secret_service() -> bool {
    gdbus("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus.NameHasOwner", SERVICE)
        .starts_with("(true")
}

fn default_collection() -> Option<String> {
    let answer = service_says("ReadAlias", "default");
    let path = answer.split('\'').nth(1)?;
    path.contains("/collection/").then(|| path.to_owned())
}

fn service_says(method: &str, argument: &str) -> String {
    let method = format!("org.freedesktop.Secret.Service.{method}");
    gdbus(SERVICE, "/org/freedesktop/secrets", &method, argument)
}

/// What `gdbus` printed; nothing when the call failed.
fn gdbus(destination: &str, path: &str, method: &str, argument: &str) -> String {
    let mut command = program("gdbus", &folder());
    command.args(["call", "--session", "--timeout=10", "--dest", destination, "--object-path", path]);
    command
        .args(["--method", method])
        .args((!argument.is_empty()).then_some(argument))
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let output = collect(Running::spawn(&mut command, "libglib2.0-bin"));
    String::from_utf8(output.stdout).expect("gdbus prints text")
}

fn collect(mut running: Running) -> Output {
    let read = |pipe: Option<&mut dyn std::io::Read>| {
        let mut bytes = Vec::new();
        if let Some(pipe) = pipe {
            pipe.read_to_end(&mut bytes).expect("a pipe");
        }
        bytes
    };
    // What these programs print fits a pipe, so one can be read after the other.
    let stdout = read(running.0.stdout.take().as_mut().map(|pipe| pipe as _));
    let stderr = read(running.0.stderr.take().as_mut().map(|pipe| pipe as _));
    Output { status: running.0.wait().expect("ours"), stdout, stderr }
}

fn folder() -> PathBuf {
    PathBuf::from(env::var_os(FOLDER).expect("runs in a session"))
}

/// A program that sees the session and nothing of the user who runs the tests.
fn program(name: &'static str, folder: &Path) -> Command {
    let log = File::options().create(true).append(true).open(log_path(name, folder)).expect("writable");
    let inherited = |name| env::var_os(name).unwrap_or_default();
    let mut command = Command::new(name);
    command.env_clear().env("PATH", inherited("PATH")).env("HOME", folder);
    command.env(BUS, inherited(BUS)).env(FOLDER, folder);
    for (variable, subfolder) in
        [("XDG_DATA_HOME", "data"), ("XDG_CACHE_HOME", "cache"), ("XDG_CONFIG_HOME", "config")]
    {
        command.env(variable, folder.join(subfolder));
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    command
}

fn daemon_in(folder: &Path) -> Command {
    let mut command = program("gnome-keyring-daemon", folder);
    command.args(["--foreground", "--components=secrets"]);
    command
}

fn configuration_in(folder: &Path) -> String {
    let folder = folder.display();
    // The standard configuration would start the keychain and a prompter by itself.
    format!(
        r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type>
  <listen>unix:path={folder}/bus</listen>
  <auth>EXTERNAL</auth>
  <servicedir>{folder}/services</servicedir>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
  </policy>
  <limit name="service_start_timeout">60000</limit>
</busconfig>
"#
    )
}

/// Where the prompter writes its process id once the bus has started it.
fn asked_file(folder: &Path) -> PathBuf {
    folder.join("asked")
}

fn dismiss_prompt(folder: &Path) {
    let asked = asked_file(folder);
    let Ok(text) = fs::read_to_string(&asked) else { return };
    fs::remove_file(&asked).expect("ours");
    let id = text.trim().parse().ok().and_then(Pid::from_raw).expect("a process id");
    // It may have ended by itself.
    let _ = kill_process(id, Signal::KILL);
}

fn log_path(program: &str, folder: &Path) -> PathBuf {
    folder.join(format!("{program}.log"))
}

fn log_of(program: &str, folder: &Path) -> String {
    fs::read_to_string(log_path(program, folder)).unwrap_or_default()
}

fn wait_until(done: impl Fn() -> bool, why_not: impl Fn() -> String) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "{}", why_not());
        thread::sleep(Duration::from_millis(20));
    }
}
