//! Headless Chromium on a pipe: what a person sees, types and presses on a page, and what the
//! browser complains of.
//!
//! It speaks the DevTools protocol: JSON objects that end with a zero byte, on the descriptors 3
//! and 4. `tests/servers/get-chromium` installs the browser; without one a test is skipped by name.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};

use serde_json::{Value, json};

use crate::skips::needed;
use crate::waits::{self, PATIENCE};

/// A browser with one page. Dropped, it is ended.
#[derive(Debug)]
pub struct Browser {
    child: Child,
    to: ChildStdin,
    from: Receiver<Value>,
    calls: u64,
    session: Option<String>,
    complaints: Vec<String>,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Starts one, unless this machine has none: then the test is skipped, and that is printed.
    #[track_caller]
    pub fn start(test: &str) -> Option<Self> {
        let name = needed(test, name())?;
        let profile = tempfile::tempdir().unwrap();
        let mut child = Command::new("sh")
            .args(["-c", r#"exec "$0" "$@" 3<&0 4>&1 0</dev/null 1>/dev/null 2>/dev/null"#, &name])
            .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run"])
            .args(["--disable-background-networking", "--disable-component-update"])
            .args(["--disable-sync", "--hide-scrollbars", "--lang=en", "--remote-debugging-pipe"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .env("TZ", "UTC")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (to, answers) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (tell, from) = channel();
        std::thread::spawn(move || read(BufReader::new(answers), &tell));
        let (calls, session, complaints) = (0, None, Vec::new());
        let mut browser = Self { child, to, from, calls, session, complaints, _profile: profile };
        browser.open();
        Some(browser)
    }

    fn open(&mut self) {
        let target = self.call("Target.createTarget", json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let session = self.call("Target.attachToTarget", attach);
        self.session = session["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log"] {
            self.call(&format!("{domain}.enable"), json!({}));
        }
        self.size(1280, 900);
    }

    /// Makes a call of the protocol, and returns its answer.
    #[track_caller]
    pub fn call(&mut self, method: &str, parameters: Value) -> Value {
        let answer = self.answer(method, parameters);
        assert!(answer["error"].is_null(), "{method}: {}", answer["error"]);
        answer["result"].clone()
    }

    /// The same, with what may be an error.
    #[track_caller]
    fn answer(&mut self, method: &str, parameters: Value) -> Value {
        self.calls += 1;
        let mut call = json!({ "id": self.calls, "method": method, "params": parameters });
        if let Some(session) = &self.session {
            call["sessionId"] = json!(session);
        }
        self.to.write_all(format!("{call}\0").as_bytes()).unwrap();
        loop {
            let message = match self.from.recv_timeout(PATIENCE) {
                Ok(message) => message,
                Err(RecvTimeoutError::Timeout) => panic!("{method} is not answered"),
                Err(RecvTimeoutError::Disconnected) => panic!("the browser has ended: {method}"),
            };
            if message["id"] == self.calls {
                return message;
            }
            self.hear(&message);
        }
    }

    /// Keeps what a developer would see in red.
    fn hear(&mut self, message: &Value) {
        let said = &message["params"];
        match message["method"].as_str().unwrap_or_default() {
            "Runtime.exceptionThrown" => {
                self.complaints.push(format!("exception: {}", said["exceptionDetails"]));
            }
            "Runtime.consoleAPICalled" if said["type"] != "log" => {
                self.complaints.push(format!("console: {}", said["args"]));
            }
            "Log.entryAdded" => {
                let entry = &said["entry"];
                let (source, text, url) = (&entry["source"], &entry["text"], &entry["url"]);
                self.complaints.push(format!("{source}: {text} {url}"));
            }
            _ => {}
        }
    }

    /// What the browser has complained of: exceptions, its policy, answers that are errors.
    pub fn complaints(&mut self) -> Vec<String> {
        self.eval("0"); // what was said before that is heard
        std::mem::take(&mut self.complaints)
    }

    /// Goes to an address, and waits until it is loaded.
    #[track_caller]
    pub fn go(&mut self, url: &str) {
        self.call("Page.navigate", json!({ "url": url }));
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'");
    }

    /// The value of an expression; of a promise, what it becomes.
    #[track_caller]
    pub fn eval(&mut self, expression: &str) -> Value {
        self.evaluated(expression).unwrap_or_else(|error| panic!("{expression}: {error}"))
    }

    fn evaluated(&mut self, expression: &str) -> Result<Value, String> {
        let parameters =
            json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        let answer = self.answer("Runtime.evaluate", parameters);
        let (error, thrown) = (&answer["error"], &answer["result"]["exceptionDetails"]);
        match (error, thrown) {
            (Value::Null, Value::Null) => Ok(answer["result"]["result"]["value"].clone()),
            (Value::Null, error) | (error, _) => Err(error.to_string()),
        }
    }

    /// Waits until an expression is so; panics with the page's text if that takes too long. While
    /// the page changes for another, or lacks what is looked at, it is not so yet.
    #[track_caller]
    pub fn until(&mut self, expression: &str) {
        let is_so = format!("!!({expression})");
        let look = || (self.evaluated(&is_so).ok()? == true).then_some(());
        if waits::found_within(PATIENCE / 2, look).is_none() {
            panic!("never: {expression}\n{}", self.text());
        }
    }

    /// Loads the page anew.
    pub fn reload(&mut self) {
        self.call("Page.reload", json!({}));
    }

    /// The text of the page, as a person sees it.
    pub fn text(&mut self) -> String {
        self.eval("document.body.innerText").as_str().unwrap_or_default().to_owned()
    }

    /// Waits until this text is on the page.
    #[track_caller]
    pub fn reads(&mut self, text: &str) {
        self.until(&format!("document.body.innerText.includes({})", json!(text)));
    }

    /// Types text where the focus is.
    #[track_caller]
    pub fn types(&mut self, text: &str) {
        self.call("Input.insertText", json!({ "text": text }));
    }

    /// Presses a key, with Shift if the name begins with `Shift+`.
    #[track_caller]
    pub fn presses(&mut self, key: &str) {
        let (shift, key) = key.strip_prefix("Shift+").map_or((0, key), |key| (8, key));
        let (code, text) = match key {
            "Tab" => (9, ""),
            "Enter" => (13, "\r"),
            "Escape" => (27, ""),
            " " => (32, " "),
            "ArrowDown" => (40, ""),
            other => panic!("{other} has no code here"),
        };
        let name = if key == " " { "Space" } else { key };
        for kind in ["keyDown", "keyUp"] {
            let mut event = json!({
                "type": kind, "key": key, "code": name, "windowsVirtualKeyCode": code,
                "modifiers": shift,
            });
            if kind == "keyDown" && !text.is_empty() {
                event["text"] = json!(text);
            }
            self.call("Input.dispatchKeyEvent", event);
        }
    }

    /// Sets the size of the page's window, in CSS pixels.
    pub fn size(&mut self, width: u32, height: u32) {
        let size =
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.call("Emulation.setDeviceMetricsOverride", size);
    }

    /// What the person prefers: `light` or `dark`.
    pub fn scheme(&mut self, scheme: &str) {
        let feature = json!({ "name": "prefers-color-scheme", "value": scheme });
        self.call("Emulation.setEmulatedMedia", json!({ "features": [feature] }));
    }

    /// A picture of the window as PNG, or of the whole page.
    pub fn picture(&mut self, file: &Path, is_whole: bool) {
        let mut parameters = json!({ "format": "png" });
        if is_whole {
            let size = "[innerWidth, document.documentElement.scrollHeight]";
            let size = self.eval(size);
            parameters["captureBeyondViewport"] = json!(true);
            parameters["clip"] =
                json!({ "x": 0, "y": 0, "width": size[0], "height": size[1], "scale": 1 });
        }
        let shot = self.call("Page.captureScreenshot", parameters);
        std::fs::write(file, base64(shot["data"].as_str().unwrap())).unwrap();
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The browser's name on this machine.
fn name() -> Result<String, String> {
    let named = std::env::var("CHROMIUM").ok();
    let names = ["chromium", "chromium-browser", "google-chrome"].map(str::to_owned);
    let runs = |name: &String| Command::new(name).arg("--version").output().is_ok();
    let found = named.into_iter().chain(names).find(runs);
    found.ok_or_else(|| "no chromium; run tests/servers/get-chromium".to_owned())
}

fn read(mut from: impl BufRead, tell: &Sender<Value>) {
    let mut message = Vec::new();
    while from.read_until(0, &mut message).is_ok_and(|n| n > 0) {
        message.pop();
        let Ok(read) = serde_json::from_slice(&message) else { return };
        if tell.send(read).is_err() {
            return;
        }
        message.clear();
    }
}

/// The bytes of base64 (RFC 4648, section 4).
fn base64(text: &str) -> Vec<u8> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = text.bytes().filter_map(|byte| ALPHABET.iter().position(|it| *it == byte));
    let (mut bits, mut count, mut bytes) = (0_usize, 0, Vec::new());
    for digit in digits {
        (bits, count) = ((bits << 6 | digit) & 0xffff, count + 6);
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count & 0xff) as u8);
        }
    }
    bytes
}
