//! API Gateway's keys: what `get-api-keys --include-values` prints, or the CSV form in which it
//! imports them (`name,key,description,enabled,usageplanIds`).

use std::collections::HashMap;

use serde_json::Value;

use super::csv_file::{Cells, records};
use super::gateway_plans::UsagePlan;
use super::json::{Object, items};
use super::key;
use super::rows::{KeyRow, Place, Read, Row};
use crate::args::{ApiGateway, TenantFrom};
use crate::failure::Failure;

/// The columns that are read of a CSV file; `description` is passed over.
const COLUMNS: [&str; 4] = ["name", "key", "enabled", "usageplanids"];
/// Most characters of a key's name here.
const MOST_NAME: usize = 64;

/// What is known beside the file of keys.
pub(super) struct Sources<'a> {
    pub(super) plans: &'a [UsagePlan],
    /// The ids of the keys in each usage plan, by its id.
    pub(super) of_plans: &'a [(&'a str, Vec<String>)],
    pub(super) what: &'a ApiGateway,
}

/// A key as both forms have it.
#[derive(Default)]
struct ApiKey {
    id: Option<String>,
    name: String,
    value: Option<String>,
    customer: Option<String>,
    is_disabled: bool,
    usage_plans: Vec<String>,
}

/// A key of a file, or what is wrong with it.
type Entry = (Place, Result<ApiKey, String>);

impl Sources<'_> {
    /// Reads the keys of a file.
    pub(super) fn read(&self, bytes: &[u8], prefixes: &[String]) -> Result<Read, Failure> {
        let keys = match bytes.trim_ascii_start().first() {
            Some(b'{' | b'[') => self.of_json(bytes)?,
            _ => of_csv(bytes)?,
        };
        let mut read = Read::default();
        let repeated = self.repeated(&keys);
        for (at, key) in keys {
            match key {
                Ok(key) if key.is_disabled => {
                    read.notes.push(format!("{at}: {:?} is disabled, and left out", key.name));
                }
                Ok(key) => {
                    let first = repeated.get(&key.name).filter(|first| **first != at);
                    let row = match first {
                        Some(first) => Err(format!(
                            "{:?} is the name of another key, on {first}: --tenant-from \
                             customer-id tells whose each is, or give one another name",
                            key.name
                        )),
                        None => self.row(at, &key, prefixes),
                    };
                    read.add(at, row)?;
                }
                Err(why) => read.add(at, Err(why))?,
            }
        }
        Ok(read)
    }

    /// Where each name is for the first time, where a name is a tenant's.
    fn repeated(&self, keys: &[Entry]) -> HashMap<String, Place> {
        let mut first = HashMap::new();
        if self.what.tenant_from == TenantFrom::Name {
            for (at, key) in keys {
                if let Ok(key) = key.as_ref().map(|key| &key.name) {
                    first.entry(key.clone()).or_insert(*at);
                }
            }
        }
        first
    }

    fn row(&self, at: Place, of: &ApiKey, prefixes: &[String]) -> Result<Row, String> {
        let tenant = match self.what.tenant_from {
            TenantFrom::Name => Some(&of.name).filter(|name| !name.is_empty()),
            TenantFrom::CustomerId => of.customer.as_ref(),
            TenantFrom::Id => of.id.as_ref(),
        };
        let missing = || match self.what.tenant_from {
            TenantFrom::Name => "it has no name, so it is not known whose it is".to_owned(),
            TenantFrom::CustomerId => {
                "it has no customerId: give it one, or leave it out".to_owned()
            }
            TenantFrom::Id => "it has no id: only get-api-keys prints them".to_owned(),
        };
        let tenant = tenant.ok_or_else(missing)?.clone();
        let plan = self.plan(of)?;
        let no_value = "it has no value: aws apigateway get-api-keys --include-values prints them";
        let sha256 = key::hash(of.value.as_deref().ok_or(no_value)?, prefixes)?;
        let fits = |name: &&String| (1..=MOST_NAME).contains(&name.chars().count());
        let name = Some(&of.name).filter(fits).or(of.id.as_ref());
        let name = name.map_or_else(|| "api-gateway".to_owned(), String::clone);
        let key = Some(KeyRow { name, sha256 });
        Ok(Row { at, tenant, plan: Some(plan), account: None, key })
    }

    /// The plan of a key.
    fn plan(&self, key: &ApiKey) -> Result<String, String> {
        let mut plans = Vec::new();
        for id in &key.usage_plans {
            let known = self.plans.iter().find(|plan| plan.id == *id);
            let unknown = || format!("there is no usage plan {id:?} in the file of --usage-plans");
            plans.push(known.ok_or_else(unknown)?.plan.clone());
        }
        match plans.as_slice() {
            [plan] => Ok(plan.clone()),
            [] => self.what.plan.clone().ok_or_else(|| {
                "it is in no usage plan that is known: --plan-keys ID=FILE says which keys are in \
                 one, and --plan NAME is for those in none"
                    .to_owned()
            }),
            several => Err(format!(
                "it is in {} usage plans ({}), and a tenant has one plan: leave one",
                several.len(),
                several.join(", ")
            )),
        }
    }

    /// The keys of `get-api-keys`.
    fn of_json(&self, bytes: &[u8]) -> Result<Vec<Entry>, Failure> {
        let mut in_plans = HashMap::<&str, Vec<String>>::new();
        for (plan, keys) in self.of_plans {
            for key in keys {
                in_plans.entry(key).or_default().push((*plan).to_owned());
            }
        }
        let items = items(bytes, "get-api-keys --include-values")?;
        let key = |(n, item): (usize, &Value)| {
            (Place { word: "key", number: n as u64 + 1 }, api_key(item, &in_plans))
        };
        Ok(items.iter().enumerate().map(key).collect())
    }
}

/// The ids of the keys that `get-usage-plan-keys` prints.
pub(super) fn in_plan(bytes: &[u8]) -> Result<Vec<String>, Failure> {
    let id = |item: &Value| -> Result<String, String> {
        let id = Object::of(item)?.text("id")?;
        Ok(id.ok_or("it has no \"id\", as AWS gives each")?.to_owned())
    };
    let items = items(bytes, "get-usage-plan-keys")?;
    let ids = items
        .iter()
        .enumerate()
        .map(|(n, item)| id(item).map_err(|why| Failure::usage(format!("key {}: {why}", n + 1))));
    ids.collect()
}

fn api_key(item: &Value, in_plans: &HashMap<&str, Vec<String>>) -> Result<ApiKey, String> {
    let item = Object::of(item)?;
    let own = |name: &str| Ok::<_, String>(item.text(name)?.map(str::to_owned));
    let id = item.text("id")?;
    Ok(ApiKey {
        id: id.map(str::to_owned),
        name: own("name")?.unwrap_or_default(),
        value: own("value")?,
        customer: own("customerId")?,
        is_disabled: item.flag("enabled")? == Some(false),
        usage_plans: id.and_then(|id| in_plans.get(id)).cloned().unwrap_or_default(),
    })
}

/// The keys of a CSV file. Columns with other names are passed over, as API Gateway does.
fn of_csv(bytes: &[u8]) -> Result<Vec<Entry>, Failure> {
    let (heading, records) = records(bytes, &COLUMNS)?;
    if let Some(missing) =
        ["name", "key"].iter().find(|it| !heading.iter().any(|name| name == **it))
    {
        let text = format!("the first line has no column {missing:?}");
        let help = "\nhelp: name,key,description,enabled,usageplanIds; or JSON of get-api-keys";
        return Err(Failure::usage(text + help));
    }
    let key = |cells: Vec<String>| {
        let cells = Cells { heading: &heading, cells };
        let own = |column| cells.get(column).map(str::to_owned);
        let plans = cells.get("usageplanids").unwrap_or_default().trim_matches('\'');
        let plans = plans.split(',').map(str::trim).filter(|id| !id.is_empty());
        let is_disabled = match cells.get("enabled").map(str::to_lowercase).as_deref() {
            None | Some("true") => false,
            Some("false") => true,
            Some(_) => return Err("enabled is neither true nor false".to_owned()),
        };
        Ok(ApiKey {
            name: own("name").unwrap_or_default(),
            value: own("key"),
            is_disabled,
            usage_plans: plans.map(str::to_owned).collect(),
            ..ApiKey::default()
        })
    };
    let keys = records
        .into_iter()
        .map(|(line, cells)| (Place { word: "line", number: line }, cells.and_then(&key)));
    Ok(keys.collect())
}
