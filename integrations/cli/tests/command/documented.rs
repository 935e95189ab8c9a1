//! Every command line that a page shows in a block is run by a test: those of docs/cli.md by
//! [`sessions`](crate::sessions), and the others here, each block in order in a folder of its own.
//! A block that is in neither fails.

use std::path::Path;

use serde_json::json;

use crate::home::Home;

/// A block of a page, between fences or indented.
struct Block {
    page: String,
    /// What stands behind the opening fence.
    kind: String,
    lines: Vec<String>,
}

impl Block {
    /// The lines that run the command. The text of `export` and of `aws` is for a reader's own.
    fn commands(&self) -> impl Iterator<Item = &str> {
        let line = |line: &str| {
            let words = ["tallygate ", "$ tallygate ", "key=$(tallygate "];
            words.iter().any(|it| line.trim_start().starts_with(it))
        };
        self.lines.iter().map(String::as_str).filter(move |it| line(it))
    }

    /// Its page and its first command, by which a test knows it.
    fn name(&self) -> (&str, &str) {
        (&self.page, self.commands().next().unwrap_or_default().trim())
    }
}

/// What stands behind the opening fence of a block of command lines; nothing, where it is indented.
const SHELLS: [&str; 5] = ["", "bash", "console", "sh", "shell"];

/// The blocks of the pages that show a command line.
fn blocks() -> Vec<Block> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut pages = vec!["README.md".to_owned()];
    for (folder, each) in [("docs", ""), ("integrations", "/README.md"), ("examples", "/README.md")]
    {
        for entry in std::fs::read_dir(root.join(folder)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let page = format!("{folder}/{name}{each}");
            if page.ends_with(".md") && root.join(&page).is_file() {
                pages.push(page);
            }
        }
    }
    let all = pages.iter().flat_map(|page| {
        let text = std::fs::read_to_string(root.join(page)).unwrap();
        blocks_of(page, &text)
    });
    let shows = |it: &Block| SHELLS.contains(&&*it.kind) && it.commands().next().is_some();
    all.filter(shows).collect()
}

fn blocks_of(page: &str, text: &str) -> Vec<Block> {
    let new = |kind: &str| Block { page: page.to_owned(), kind: kind.to_owned(), lines: vec![] };
    let (mut all, mut fenced, mut indented) = (Vec::new(), None::<Block>, new(""));
    for line in text.lines() {
        match (line.trim_start().strip_prefix("```"), fenced.take()) {
            (Some(_), Some(block)) => all.push(block),
            (Some(kind), None) => fenced = Some(new(kind)),
            (None, Some(mut block)) => {
                block.lines.push(line.to_owned());
                fenced = Some(block);
            }
            (None, None) if line.starts_with("    ") => indented.lines.push(line.to_owned()),
            (None, None) => all.push(std::mem::replace(&mut indented, new(""))),
        }
    }
    all.push(indented);
    all
}

/// The block with this first command.
fn block(page: &str, first: &str) -> Block {
    let is_it = |it: &Block| it.page == page && it.name().1.starts_with(first);
    let found = blocks().into_iter().find(is_it);
    found.unwrap_or_else(|| panic!("{page} has no block that begins with `{first}`"))
}

/// The blocks that tests below run.
const RUN: [(&str, &str); 4] = [
    ("docs/cli.md", "tallygate tenant list --url unix:"),
    ("docs/cli.md", "tallygate top --url"),
    ("docs/migrating.md", "tallygate import api-gateway"),
    ("integrations/cli/README.md", "tallygate init"),
];

#[test]
fn each_block_with_a_command_is_run() {
    let mut faults = Vec::new();
    for block in blocks() {
        let (page, first) = block.name();
        let is_session = page == "docs/cli.md" && block.kind == "console";
        let is_run = RUN.iter().any(|(of, begin)| *of == page && first.starts_with(begin));
        if !is_session && !is_run {
            faults.push(format!("{page}: `{first}`: make it a session, or run it here"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Runs a line as it is shown. It ends well, or as its comment says.
#[track_caller]
fn runs(home: &Home, line: &str) {
    let ran = home.shell(line);
    let wanted = match line.split("exits with ").nth(1) {
        Some(code) if !line.contains("tallygate audit") => {
            code.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap()
        }
        _ => 0,
    };
    assert_eq!(ran.code, wanted, "{line}\n{}", ran.stdout);
}

#[test]
fn usage_plans_of_api_gateway_are_imported() {
    let home = Home::empty();
    home.run(&["init"]).ok();
    std::fs::remove_file(home.path("plans.toml")).unwrap();
    // What the three lines before print.
    let plan = json!({
        "id": "c7y23b", "name": "basic", "throttle": { "rateLimit": 50.0, "burstLimit": 100 },
        "quota": { "limit": 1_000_000, "offset": 0, "period": "MONTH" },
    });
    let value = "apikey1234abcdefghij0123456789";
    let key = json!({ "id": "k1", "name": "acme", "value": value, "enabled": true });
    let in_plan = json!({ "id": "k1", "type": "API_KEY", "name": "acme" });
    for (file, item) in [("usage-plans.json", plan), ("keys.json", key), ("basic.json", in_plan)] {
        home.write(file, &json!({ "items": [item] }).to_string());
    }
    for line in block("docs/migrating.md", "tallygate import api-gateway").commands() {
        runs(&home, line);
    }
}

#[cfg(all(feature = "stripe", feature = "top", target_os = "linux"))]
#[tokio::test(flavor = "multi_thread")]
async fn the_commands_of_the_readme_run_in_their_order() {
    let sim = stripe_sim::Sim::start(stripe_sim::Settings::default()).await.unwrap();
    let service = crate::top::Service::begin().await;
    let mut home = Home::empty();
    home.set("TALLYGATE_OPERATOR_TOKEN", service.token());
    home.set("STRIPE_SECRET_KEY", "sk_test_x");
    home.write("tenants.csv", "tenant,plan,account,key\nhooli,free,cus_1,\n");
    for line in block("integrations/cli/README.md", "tallygate init").commands() {
        if line.contains("--url unix:") {
            at_a_socket(&home, line);
            continue;
        }
        if line.contains("--url") {
            at_a_terminal(&home, line, &service.url());
            continue;
        }
        if line.contains(" audit") {
            let stripe = "key = { env = \"STRIPE_SECRET_KEY\" }";
            let text = std::fs::read_to_string(home.path("tallygate.toml")).unwrap();
            let base = format!("{text}\n[stripe]\n{stripe}\napi-base = {:?}\n", sim.url());
            home.write("tallygate.toml", &base);
        }
        runs(&home, &line.replace("/usr/local/share/man/man1", "man1"));
        if line.contains(" init") {
            let plans = std::fs::read_to_string(home.path("plans.toml")).unwrap();
            home.write("new.toml", &plans.replace("10k/month", "5k/month"));
        }
    }
    for line in block("docs/cli.md", "tallygate tenant list --url unix:").commands() {
        at_a_socket(&home, line);
    }
    for line in block("docs/cli.md", "tallygate top --url").commands() {
        at_a_terminal(&home, line, &service.url());
    }
    service.end().await;
}

/// Runs a line beside a service of this folder, at its socket, which needs no token.
#[cfg(all(feature = "stripe", feature = "top", target_os = "linux"))]
fn at_a_socket(home: &Home, line: &str) {
    let service = crate::far::Service::begin(home);
    let line = line.replace("/run/acme/tallygate.sock", "admin.sock");
    runs(home, &format!("unset TALLYGATE_OPERATOR_TOKEN; {line}"));
    service.end();
}

/// `top` at a terminal, of a service at another address than the page's.
#[cfg(all(feature = "stripe", feature = "top", target_os = "linux"))]
fn at_a_terminal(home: &Home, line: &str, url: &str) {
    let line = line.replace("https://api.example.com/admin", url);
    let line = line.split('#').next().unwrap_or_default();
    assert!(line.contains(url), "{line}");
    let line = format!("stty rows 24 cols 80; {line}; echo $? >code");
    let ran = tokio::task::block_in_place(|| home.terminal(&line, "q"));
    let code = std::fs::read_to_string(home.path("code")).unwrap();
    assert_eq!(code, "0\n", "{}", ran.stdout);
    assert!(ran.stdout.contains("TENANT"), "{}", ran.stdout); // typed before it has read
}
