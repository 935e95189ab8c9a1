//! `init`: two files to begin with.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::Ran;
use crate::args::Init;
use crate::failure::{Failure, code};
use crate::output::{Output, say};

/// The files: name and text.
const FILES: [(&str, &str); 2] = [("plans.toml", PLANS), ("tallygate.toml", SERVICE)];

const PLANS: &str = r#"# What is sold: docs/plans.md describes every key.
default-plan = "free"

[plan.free]
rate.default   = "2/s burst 5"
quota.requests = "10k/month"

[plan.pro]
extends        = "free"
rate.default   = "50/s burst 100"
quota.requests = "1M/cycle"
"#;

const SERVICE: &str = r#"# Where it runs and who calls: docs/service-file.md describes every key.
[store]
kind = "redb"
path = "tallygate.redb"

[plans]
file = "plans.toml"

[[identify]]
api-key = ["authorization", "x-api-key"]
"#;

/// Writes both files, or none of them.
pub(super) fn run(out: Output, how: &Init) -> Ran {
    for (name, _) in FILES {
        let path = path(&how.dir, name);
        if path.symlink_metadata().is_ok() {
            let text = format!("{}: it is there, and is left as it is", path.display());
            return Err(Failure::conflict(format!("{text}\nhelp: name another folder")));
        }
    }
    for (name, text) in FILES {
        let path = path(&how.dir, name);
        if !how.dry_run {
            write(&path, text)?;
        }
        let shown = path.display().to_string();
        match out.json {
            true => out.document(&json!({ "path": shown, "dry_run": how.dry_run }))?,
            false => out.line(&shown)?,
        }
    }
    if how.dry_run {
        say("dry run: nothing was written");
    }
    Ok(code::OK)
}

/// A file of a folder, by its name alone in this one.
fn path(dir: &Path, name: &str) -> PathBuf {
    if dir == Path::new(".") { name.into() } else { dir.join(name) }
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let mut new = std::fs::OpenOptions::new();
    let file = new.write(true).create_new(true).open(path);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| Failure::of_file(path, &error))
}
