//! A test's body in a process of its own, for what belongs to a whole process, such as its environment.

use std::env;
use std::ffi::OsStr;
use std::process::Command;

const CHILD: &str = "KEYSHEATH_CHILD";

/// Variables of whoever runs the tests that would lead a child to their own keys, keychain or screen.
const NOT_INHERITED: [&str; 9] = [
    "KANAL_API_KEY",
    "KANAL_API_KEY_FILE",
    "KANAL_STORE_ID",
    "KATANA_API_KEY",
    "KATANA_API_KEY_FILE",
    "CREDENTIALS_DIRECTORY",
    "DBUS_SESSION_BUS_ADDRESS",
    "DISPLAY",
    "WAYLAND_DISPLAY",
];

/// Runs `body` in a child process that has `variables`. `name` is the test's own, with its modules.
///
/// The child is this test binary, told to run this one test: what stands before the call runs in both.
pub fn in_child(name: &str, variables: &[(&str, &OsStr)], body: impl FnOnce()) {
    let token = format!("the body of {name} came to its end");
    if env::var_os(CHILD).is_some_and(|child| child == name) {
        body();
        println!("{token}");
        return;
    }
    let mut command = Command::new(env::current_exe().expect("a test binary has a path"));
    command.args([name, "--exact", "--nocapture", "--test-threads=1"]);
    for variable in NOT_INHERITED {
        command.env_remove(variable);
    }
    command.env(CHILD, name).envs(variables.iter().copied());
    let output = command.output().expect("the test binary starts again");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    // Without the token the child ran no test: then the name is not the test's own.
    let passed = output.status.success() && out.contains(&token);
    assert!(passed, "in the child ({}):\n{out}\n{err}", output.status);
}
