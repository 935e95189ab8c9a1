//! A folder with a service in it, and the command run there.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

/// What a run printed, and its exit code.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    /// Standard output, of a run that did well.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, 0, "{}{}", self.stdout, self.stderr);
        self.stdout
    }

    /// Its JSON document.
    #[track_caller]
    pub(crate) fn json(self) -> Value {
        serde_json::from_str(&self.ok()).unwrap()
    }

    /// What it says, of a run that failed with this code and printed nothing else.
    #[track_caller]
    pub(crate) fn fails(self, code: i32) -> String {
        assert_eq!(self.code, code, "{}{}", self.stdout, self.stderr);
        assert_eq!(self.stdout, "", "data of a command that failed");
        self.stderr
    }
}

/// A folder, and the environment of the commands in it.
pub(crate) struct Home {
    folder: tempfile::TempDir,
    env: Vec<(String, String)>,
}

impl Home {
    pub(crate) fn empty() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), env: Vec::new() }
    }

    /// With the files of `init`, and the tenants acme and globex.
    pub(crate) fn with_tenants() -> Self {
        let home = Self::empty();
        home.run(&["init"]).ok();
        home.run(&["tenant", "create", "acme", "--plan", "pro"]).ok();
        home.run(&["tenant", "create", "globex"]).ok();
        home
    }

    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.env.push((name.to_owned(), value.to_owned()));
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    /// Runs the command, without a terminal.
    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tallygate"));
        command.args(args);
        self.ran(&mut command)
    }

    /// Runs a line in a shell where `tallygate` is the command, with both outputs as one.
    pub(crate) fn shell(&self, line: &str) -> Ran {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("exec 2>&1\n{line}")]);
        self.ran(&mut command)
    }

    /// Runs a line at a terminal of its own (`script` of util-linux), where this is typed. What it
    /// prints is one text, without the carriage returns of a terminal.
    #[cfg(target_os = "linux")]
    pub(crate) fn terminal(&self, line: &str, typed: &str) -> Ran {
        self.write("typed", typed);
        let within = "exec script -qefc \"$LINE\" /dev/null <typed";
        let mut command = Command::new("sh");
        command.args(["-c", within]).env("LINE", line).env("SHELL", "/bin/sh");
        let ran = self.ran(&mut command);
        Ran { stdout: ran.stdout.replace('\r', ""), ..ran }
    }

    fn ran(&self, command: &mut Command) -> Ran {
        let ran = self.set_up(command).output().unwrap();
        Ran {
            code: ran.status.code().unwrap(),
            stdout: String::from_utf8(ran.stdout).unwrap(),
            stderr: String::from_utf8(ran.stderr).unwrap(),
        }
    }

    /// Starts the command, without a terminal.
    pub(crate) fn start(&self, args: &[&str]) -> Child {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tallygate"));
        self.set_up(command.args(args)).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// Starts another program in the folder, with what it reads and prints in our hands.
    pub(crate) fn start_other(&self, command: &mut Command) -> Child {
        let command = self.set_up(command).stdin(Stdio::piped()).stdout(Stdio::piped());
        command.spawn().unwrap()
    }

    /// The folder and the environment of a command.
    fn set_up<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        let binary = Path::new(env!("CARGO_BIN_EXE_tallygate"));
        let mut path = std::ffi::OsString::from(binary.parent().unwrap());
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        let ours = |name: &str| {
            let of_service = name.starts_with("TALLYGATE") || name.starts_with("STRIPE");
            of_service || name == "NO_COLOR" || name.starts_with("AWS_")
        };
        for (name, _) in std::env::vars_os().filter(|(it, _)| it.to_str().is_some_and(ours)) {
            command.env_remove(name);
        }
        command.env("PATH", path).env("USER", "kim").current_dir(self.folder.path());
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null())
    }
}
