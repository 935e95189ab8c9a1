//! `usage export`: what it writes, read back and held against `usage show`.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::home::Home;

/// A tenant whose id is a formula to a spreadsheet, with what would end a cell.
const FORMULA: &str = "=cmd|'/c calc'!A1,\"x\";y";

const PLANS: &str = r#"
default-plan = "free"
[meter.thirds]
sum   = { requests = "1/3" }
parts = 3
[meter.halves]
sum   = { requests = "1/2" }
parts = 1000
[plan.free]
quota.requests = "10k/month"
"#;

/// Three tenants with usage.
fn home() -> Home {
    let home = Home::empty();
    home.run(&["init"]).ok();
    home.write("plans.toml", PLANS);
    for id in ["acme", FORMULA, "globex"] {
        home.run(&["tenant", "create", id]).ok();
    }
    let used = [("acme", "5"), ("acme", "8"), (FORMULA, "7"), ("globex", "1")];
    for (n, (id, units)) in used.into_iter().enumerate() {
        let event = format!("e{n}");
        home.run(&["usage", "record", id, "requests", units, "--id", &event]).ok();
    }
    home
}

/// Rows as tenant, meter, day, used.
fn rows(csv: &str) -> Vec<[String; 4]> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(csv.as_bytes());
    let rows = reader.records().map(|row| {
        let row = row.unwrap();
        assert_eq!(row.len(), 4, "{row:?}");
        [0, 1, 2, 3].map(|at| row[at].to_owned())
    });
    rows.collect()
}

/// What `usage show` says was used, by tenant and meter.
fn shown(home: &Home) -> BTreeMap<(String, String), String> {
    let mut all = BTreeMap::new();
    for id in ["acme", FORMULA, "globex"] {
        let report = home.run(&["usage", "show", id, "--json"]).json();
        for meter in report["meters"].as_array().unwrap() {
            let exact = meter["used_text"].as_str().map(str::to_owned);
            let used = exact.unwrap_or_else(|| meter["used"].to_string());
            all.insert((id.to_owned(), meter["name"].as_str().unwrap().to_owned()), used);
        }
    }
    all
}

#[test]
fn csv_read_back_is_what_is_shown() {
    let home = home();
    let text = home.run(&["usage", "export", "--by", "month"]).ok();
    assert!(text.split_inclusive('\n').all(|line| line.ends_with("\r\n")), "{text}");
    let read = rows(&text);
    assert_eq!(read[0], ["tenant", "meter", "month", "used"]);
    let by = |it: &[String; 4]| {
        let id = it[0].strip_prefix('\'').unwrap_or(&it[0]);
        ((id.to_owned(), it[1].clone()), it[3].clone())
    };
    let exported: BTreeMap<_, _> = read[1..].iter().map(by).collect();
    assert_eq!(exported, shown(&home));
    assert_eq!(exported[&("acme".to_owned(), "thirds".to_owned())], "13/3");
    assert_eq!(exported[&("acme".to_owned(), "halves".to_owned())], "6.5");
    // In the order of the ids, and no cell is a formula.
    let ids: Vec<&str> = read[1..].iter().map(|row| row[0].trim_start_matches('\'')).collect();
    assert!(ids.is_sorted(), "{ids:?}");
    assert!(read.iter().flatten().all(|cell| !cell.starts_with('=')), "{read:?}");
    let raw = rows(&home.run(&["usage", "export", "--raw"]).ok());
    assert!(raw.iter().any(|row| row[0] == FORMULA), "{raw:?}");
}

#[test]
fn a_part_of_it_is_asked_for() {
    let home = home();
    let of = |args: &[&str]| {
        let all = home.run(&[&["usage", "export", "--json"], args].concat()).ok();
        let line = |line: &str| {
            let row: Value = serde_json::from_str(line).unwrap();
            let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
            (text("tenant"), text("meter"), row["used"].as_u64().unwrap())
        };
        all.lines().map(line).collect::<Vec<_>>()
    };
    let only = |id: &str, used| vec![(id.to_owned(), "requests".to_owned(), used)];
    assert_eq!(of(&["--tenant", "globex", "--meter", "requests"]), only("globex", 1));
    assert_eq!(of(&["--prefix", "ac", "--meter", "requests"]), only("acme", 13));
    assert_eq!(of(&["--prefix", "hooli"]), []);
    assert_eq!(of(&["--until", "2020-01-01"]), []);
    assert_eq!(of(&["--from", "2020-01-01"]).len(), 9);
    let two = of(&["--tenant", "globex", "--tenant", "acme", "--meter", "requests"]);
    assert_eq!(two, [only("acme", 13), only("globex", 1)].concat());
}

#[test]
fn what_cannot_be_exported_is_said_and_nothing_is_written() {
    let home = home();
    for (code, args) in [
        (4, &["--tenant", "acme", "--tenant", "hooli"][..]),
        (4, &["--meter", "tokens"]),
        (2, &["--from", "yesterday"]),
        (2, &["--from", "2026-01-02", "--until", "2026-01-02"]),
        (2, &["--tenant", "acme", "--prefix", "a"]),
        (2, &["--format", "csv", "--json"]),
        (4, &["--output", "no/such/folder/usage.csv"]),
    ] {
        home.run(&[&["usage", "export"], args].concat()).fails(code);
    }
    home.run(&["usage", "export", "--tenant", "hooli", "--output", "usage.csv"]).fails(4);
    assert!(!home.path("usage.csv").exists());
    let files = std::fs::read_dir(home.path("")).unwrap().map(|it| it.unwrap().file_name());
    let left: Vec<_> = files.filter(|it| it.to_string_lossy().starts_with(".tallygate-")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_file_is_written_once_and_never_over_another() {
    let home = home();
    let to_file = ["usage", "export", "--output", "usage.csv"];
    let ran = home.run(&to_file);
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (0, "", "9 rows\n"));
    let written = std::fs::read_to_string(home.path("usage.csv")).unwrap();
    assert_eq!(written, home.run(&["usage", "export"]).ok());
    home.write("usage.csv", "mine");
    let said = home.run(&to_file).fails(6);
    assert!(said.contains("usage.csv: it is there, and is left as it is"), "{said}");
    assert_eq!(std::fs::read_to_string(home.path("usage.csv")).unwrap(), "mine");
}

/// More tenants than a page of the list has.
#[test]
fn all_pages_are_exported() {
    let home = Home::empty();
    home.run(&["init"]).ok();
    let tenants = 260;
    seed(&home, tenants);
    let exported = rows(&home.run(&["usage", "export"]).ok());
    assert_eq!(exported.len(), 1 + tenants);
    let used: u64 = exported[1..].iter().map(|row| row[3].parse::<u64>().unwrap()).sum();
    assert_eq!(used, (1..=tenants as u64).sum::<u64>());
}

/// Tenants t0, t1, .. with one, two, .. requests each, by the library.
fn seed(home: &Home, tenants: usize) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = home.path("tallygate.redb");
        let service = format!("[store]\npath = {:?}\n", store.to_str().unwrap());
        let builder = tallygate::GateBuilder::from_text(&service).work_only();
        let gate = builder.plans_file(home.path("plans.toml")).open().await.unwrap();
        for n in 0..tenants {
            let id = format!("t{n}");
            gate.directory().tenant(&id).save().await.unwrap();
            let event = tallygate::ingest::UsageEvent::new("e", &id, "requests", n as u64 + 1);
            gate.ingest().events(vec![event]).await.pop().unwrap().unwrap();
        }
        gate.close().await.unwrap();
    });
}

#[cfg(feature = "parquet")]
mod in_parquet {
    use parquet::file::reader::{FileReader as _, SerializedFileReader};
    use parquet::record::{Field, RowAccessor as _};

    use super::*;

    /// Rows as the file's own reader has them: tenant, meter, days since 1970, used, exact.
    fn read(home: &Home, name: &str) -> Vec<(String, String, i32, i128, Option<String>)> {
        let reader = SerializedFileReader::new(std::fs::File::open(home.path(name)).unwrap());
        let reader = reader.unwrap();
        let schema = reader.metadata().file_metadata().schema_descr();
        let used = schema.column(3);
        assert_eq!((used.type_precision(), used.type_scale()), (38, 18));
        let row = |row: parquet::record::Row| {
            let text = |at| row.get_string(at).unwrap().clone();
            let bytes = row.get_decimal(3).unwrap().data().try_into().unwrap();
            let exact = row.get_string(4).ok().cloned();
            let day = match row.get_column_iter().nth(2) {
                Some((_, Field::Date(day))) => *day,
                other => panic!("{other:?}"),
            };
            (text(0), text(1), day, i128::from_be_bytes(bytes), exact)
        };
        reader.get_row_iter(None).unwrap().map(|it| row(it.unwrap())).collect()
    }

    #[test]
    fn a_file_read_back_is_what_is_shown() {
        let home = home();
        let export = ["usage", "export", "--format", "parquet", "--output", "usage.parquet"];
        home.run(&export).ok();
        let one = 10_i128.pow(18);
        let mut exported = BTreeMap::new();
        let today = read(&home, "usage.parquet")[0].2;
        for (tenant, meter, day, used, exact) in read(&home, "usage.parquet") {
            assert_eq!(day, today);
            let text = match exact {
                Some(exact) => exact,
                None if used % one == 0 => (used / one).to_string(),
                None => format!("{}.{}", used / one, used % one / (one / 10)),
            };
            exported.insert((tenant, meter), text);
        }
        assert_eq!(exported, shown(&home));
        let thirds = read(&home, "usage.parquet").into_iter().find(|it| it.1 == "thirds");
        let thirds = thirds.map(|it| (it.3, it.4));
        assert!(matches!(&thirds, Some((_, Some(exact))) if exact.ends_with("/3")), "{thirds:?}");
        home.run(&export).fails(6);
    }

    #[test]
    fn it_goes_through_a_pipe_and_not_to_a_terminal() {
        let home = home();
        let by_month = "usage export --format parquet --by month";
        let ran = home.shell(&format!("tallygate {by_month} > piped.parquet"));
        assert_eq!(ran.code, 0, "{}", ran.stdout);
        assert_eq!(read(&home, "piped.parquet").len(), 9);
        #[cfg(target_os = "linux")]
        {
            let ran = home.terminal(&format!("tallygate {by_month}"), "");
            assert!(ran.code == 2 && ran.stdout.contains("--output FILE"), "{}", ran.stdout);
        }
        // Without rows it is a file all the same.
        home.shell("tallygate usage export --prefix hooli --format parquet > none.parquet");
        assert_eq!(read(&home, "none.parquet").len(), 0);
    }
}

#[cfg(not(feature = "parquet"))]
#[test]
fn a_build_without_parquet_says_so() {
    let said = home().run(&["usage", "export", "--format", "parquet"]).fails(3);
    assert!(said.contains("--features parquet"), "{said}");
}
