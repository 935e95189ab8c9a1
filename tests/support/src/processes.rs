//! Child processes: started, signalled, ended, and what they print.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use crate::waits;

/// Set in a process that [`printed_alone`] has started.
const ALONE: &str = "TALLYGATE_TEST_ALONE";

/// Runs a test of this binary in a process of its own, for what is one for a whole process, as a
/// recorder of metrics is. The result is what it has printed; `None`: this is that process.
#[track_caller]
pub fn printed_alone(test: &str) -> Option<String> {
    if std::env::var_os(ALONE).is_some() {
        return None;
    }
    let mut again = Command::new(std::env::current_exe().unwrap());
    let ran = again.args(["--exact", test, "--nocapture"]).env(ALONE, "1").output().unwrap();
    let [out, err] = [ran.stdout, ran.stderr].map(|it| String::from_utf8(it).unwrap());
    assert!(ran.status.success(), "{out}{err}");
    assert!(out.contains("1 passed"), "no test is named {test}: {out}");
    Some(out)
}

/// A child process. Dropped, it is killed; if that is because a test fails, what it has written to
/// standard error is shown.
#[derive(Debug)]
pub struct Process {
    child: Child,
    stdout: Output,
    stderr: Output,
}

impl Process {
    /// Starts it. Its output is kept.
    pub fn start(command: &mut Command) -> Self {
        let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdout = Output::of(child.stdout.take().unwrap());
        let stderr = Output::of(child.stderr.take().unwrap());
        Self { child, stdout, stderr }
    }

    /// Its id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the first line that it prints; what there is, if it ends without one.
    #[track_caller]
    pub fn first_line(&self) -> String {
        waits::found("the process prints a line", || self.stdout.first_line())
    }

    /// What it has written to standard error so far.
    pub fn stderr(&self) -> String {
        self.stderr.so_far()
    }

    /// Sends it a signal, as [`signal`] does.
    #[track_caller]
    pub fn signal(&self, name: &str) {
        signal(self.id(), name);
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for its end, and returns whether it was a good one.
    #[track_caller]
    pub fn ends_well(&mut self) -> bool {
        waits::found("the process ends", || self.child.try_wait().unwrap()).success()
    }

    /// What it has printed so far.
    pub fn printed_so_far(&self) -> String {
        self.stdout.so_far()
    }

    /// Waits for its end, and returns all that it printed.
    #[track_caller]
    pub fn printed(&mut self) -> String {
        self.ends_well();
        self.stdout.whole()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("process {} wrote:\n{}", self.id(), self.stderr.so_far());
        }
    }
}

/// What a process writes, read by a thread of its own so that it never waits for a reader.
#[derive(Debug)]
struct Output {
    text: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

impl Output {
    fn of(output: impl Read + Send + 'static) -> Self {
        let text = Arc::<Mutex<String>>::default();
        let to = text.clone();
        let reader = thread::spawn(move || {
            let (mut output, mut line) = (BufReader::new(output), Vec::new());
            while output.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
                to.lock().unwrap().push_str(&String::from_utf8_lossy(&line));
                line.clear();
            }
        });
        Self { text, reader: Some(reader) }
    }

    fn first_line(&self) -> Option<String> {
        let has_ended = self.reader.as_ref().is_none_or(JoinHandle::is_finished);
        let text = self.text.lock().unwrap();
        let line = text.split_once('\n').map(|(line, _)| line);
        line.or(has_ended.then_some(&text)).map(str::to_owned)
    }

    fn so_far(&self) -> String {
        self.text.lock().unwrap().clone()
    }

    /// All of it, once its process has ended.
    fn whole(&mut self) -> String {
        let _ = self.reader.take().map(JoinHandle::join);
        self.so_far()
    }
}

/// Sends a signal to a process, by its name as `kill` takes it: `-TERM`.
#[track_caller]
pub fn signal(process: u32, name: &str) {
    let sent = Command::new("kill").args([name, &process.to_string()]).status();
    assert!(sent.unwrap().success(), "no signal {name} to {process}");
}
