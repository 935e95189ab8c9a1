//! What `infra` prints, as the tools read it that it is for.

use std::path::Path;
use std::process::Command;

use test_support::skips::needed;

use crate::home::Home;

/// AWS's own linter, from `tests/servers/get-cfn-lint`.
fn linter() -> Result<std::path::PathBuf, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/servers/cfn-lint");
    root.canonicalize().map_err(|_| "run tests/servers/get-cfn-lint".to_owned())
}

#[test]
fn templates_pass_the_linter_of_aws() {
    let test = "infra::templates_pass_the_linter_of_aws";
    let Some(linter) = needed(test, linter()) else { return };
    let home = Home::empty();
    for format in ["cloudformation", "sam"] {
        let text = home.run(&["infra", "template", "--format", format]).ok();
        home.write("template.yaml", &text);
        let mut lint = Command::new("python3");
        lint.arg(linter.join("bin/cfn-lint")).arg(home.path("template.yaml"));
        let ran = lint.env("PYTHONPATH", &linter).output().unwrap();
        let said = String::from_utf8_lossy(&ran.stdout);
        assert!(ran.status.success(), "{format}: {said}");
    }
}
