//! What a file says of tenants, and what is wrong with it: whatever the format, a row at a time.

use std::collections::HashMap;

use crate::failure::Failure;
use crate::output::say;

/// Most rows of a file.
const MOST_ROWS: usize = 100_000;

/// Where something is in a file: `line 5`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) word: &'static str,
    pub(super) number: u64,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.word, self.number)
    }
}

/// An API key, as the store is to have it.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct KeyRow {
    pub(super) name: String,
    pub(super) sha256: [u8; 32],
}

/// What a row says of a tenant.
#[derive(Clone)]
pub(super) struct Row {
    pub(super) at: Place,
    pub(super) tenant: String,
    pub(super) plan: Option<String>,
    pub(super) account: Option<String>,
    pub(super) key: Option<KeyRow>,
}

/// A row that is wrong, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) at: Place,
    pub(super) why: String,
}

/// What was read of a file.
#[derive(Default)]
pub(super) struct Read {
    pub(super) rows: Vec<Row>,
    pub(super) wrong: Vec<Wrong>,
    /// What has no equivalent here.
    pub(super) notes: Vec<String>,
}

/// What all rows of a file say of one tenant.
#[derive(Clone)]
pub(super) struct TenantRows {
    pub(super) at: Place,
    pub(super) id: String,
    pub(super) plan: Option<(Place, String)>,
    pub(super) account: Option<(Place, String)>,
    pub(super) keys: Vec<(Place, KeyRow)>,
    /// How many rows say something of it.
    pub(super) count: usize,
}

impl Read {
    /// Adds what a row says, or what is wrong with it.
    pub(super) fn add(&mut self, at: Place, row: Result<Row, String>) -> Result<(), Failure> {
        match row {
            Ok(row) => self.rows.push(row),
            Err(why) => self.wrong.push(Wrong { at, why }),
        }
        within(self.rows.len() + self.wrong.len())
    }

    /// The rows by tenant, in the order in which the file names them. A row that says something
    /// else than one before it is wrong, and so is one with another tenant's key or account.
    pub(super) fn by_tenant(self) -> (Vec<TenantRows>, Vec<Wrong>) {
        let mut wrong = self.wrong;
        let mut places = HashMap::<String, usize>::new();
        let mut owners = Owners::default();
        let mut tenants = Vec::<TenantRows>::new();
        for row in self.rows {
            let place = *places.entry(row.tenant.clone()).or_insert_with(|| {
                let (plan, account, keys) = (None, None, Vec::new());
                tenants.push(TenantRows {
                    at: row.at,
                    id: row.tenant.clone(),
                    plan,
                    account,
                    keys,
                    count: 0,
                });
                tenants.len() - 1
            });
            let taken = owners.take(place, &row);
            let tenant = &mut tenants[place];
            match taken.or_else(|| tenant.differs(&row)) {
                Some(why) => wrong.push(Wrong { at: row.at, why }),
                None => tenant.take(row),
            }
        }
        // A tenant of wrong rows alone is left out with them.
        tenants.retain(|tenant| tenant.count > 0);
        (tenants, wrong)
    }
}

/// Which tenant has a key or an account, by the first row that names it.
#[derive(Default)]
struct Owners {
    keys: HashMap<[u8; 32], (usize, Place)>,
    accounts: HashMap<String, (usize, Place)>,
}

impl Owners {
    /// Gives a row's key and account to its tenant; or what of them is another's.
    fn take(&mut self, tenant: usize, row: &Row) -> Option<String> {
        let own = (tenant, row.at);
        let key = row.key.as_ref().map(|key| *self.keys.entry(key.sha256).or_insert(own));
        let account = row.account.clone();
        let account = account.map(|it| *self.accounts.entry(it).or_insert(own));
        let mut owners = [("key", key), ("account", account)].into_iter();
        owners.find_map(|(what, owner)| {
            let (_, at) = owner.filter(|(other, _)| *other != tenant)?;
            Some(format!("its {what} is on {at} another tenant's"))
        })
    }
}

impl TenantRows {
    /// What a row says otherwise than one before it.
    fn differs(&self, row: &Row) -> Option<String> {
        let pairs = [("plan", &self.plan, &row.plan), ("account", &self.account, &row.account)];
        pairs.into_iter().find_map(|(what, before, now)| {
            let ((at, before), now) = (before.as_ref()?, now.as_ref()?);
            (before != now).then(|| format!("{:?} has the {what} {before:?} on {at}", self.id))
        })
    }

    fn take(&mut self, row: Row) {
        let at = row.at;
        self.count += 1;
        self.plan = self.plan.take().or(row.plan.map(|plan| (at, plan)));
        self.account = self.account.take().or(row.account.map(|account| (at, account)));
        let is_known = |key: &KeyRow| self.keys.iter().any(|(_, it)| it.sha256 == key.sha256);
        let key = row.key.filter(|key| !is_known(key));
        self.keys.extend(key.map(|key| (at, key)));
    }
}

/// Whether so many rows are read.
pub(super) fn within(rows: usize) -> Result<(), Failure> {
    if rows <= MOST_ROWS {
        return Ok(());
    }
    let text = format!("the file has more than {MOST_ROWS} rows");
    Err(Failure::usage(text + "\nhelp: split it; parts are imported one by one"))
}

/// Says what is wrong with which rows, in their order.
pub(super) fn say_wrong(file: &str, wrong: &mut [Wrong]) {
    wrong.sort_by_key(|it| it.at);
    wrong.iter().for_each(|it| say(&format!("{file}: {}: {}", it.at, it.why)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_or_an_account_of_another_tenants_row_is_wrong() {
        let account = |number, tenant: &str, account: &str| Row {
            account: Some(account.to_owned()),
            ..row(number, tenant, None, None)
        };
        let rows = vec![
            account(2, "acme", "cus_1"),
            account(3, "globex", "cus_1"),
            account(4, "acme", "cus_1"),
            row(5, "acme", None, Some(1)),
            row(6, "initech", None, Some(1)),
            account(7, "initech", "cus_2"),
        ];
        let (tenants, wrong) = Read { rows, ..Read::default() }.by_tenant();
        let ids: Vec<_> = tenants.iter().map(|it| (it.id.as_str(), it.count)).collect();
        assert_eq!(ids, [("acme", 3), ("initech", 1)], "a tenant without a right row is none");
        let why: Vec<_> = wrong.iter().map(|it| (it.at.number, it.why.as_str())).collect();
        let of = |what: &str, line: u64| format!("its {what} is on line {line} another tenant's");
        assert_eq!(why, [(3, &*of("account", 2)), (6, &*of("key", 5))]);
    }

    fn row(number: u64, tenant: &str, plan: Option<&str>, key: Option<u8>) -> Row {
        let at = Place { word: "line", number };
        let key = key.map(|it| KeyRow { name: "x".to_owned(), sha256: [it; 32] });
        let (tenant, plan) = (tenant.to_owned(), plan.map(str::to_owned));
        Row { at, tenant, plan, account: None, key }
    }

    #[test]
    fn rows_of_a_tenant_are_one_and_may_not_differ() {
        let rows = vec![
            row(2, "acme", None, Some(1)),
            row(3, "globex", Some("free"), Some(2)),
            row(4, "acme", Some("pro"), Some(3)),
            row(5, "acme", Some("free"), Some(4)),
            row(6, "globex", None, Some(1)),
            row(7, "acme", Some("pro"), Some(3)),
        ];
        let (tenants, wrong) = Read { rows, ..Read::default() }.by_tenant();
        let shown =
            |it: &TenantRows| (it.id.clone(), it.plan.clone().map(|it| it.1), it.keys.len());
        let shown: Vec<_> = tenants.iter().map(shown).collect();
        let of = |id: &str, plan: &str, keys| (id.to_owned(), Some(plan.to_owned()), keys);
        assert_eq!(shown, [of("acme", "pro", 2), of("globex", "free", 1)]);
        let why: Vec<_> = wrong.iter().map(|it| (it.at.number, it.why.as_str())).collect();
        assert_eq!(
            why,
            [
                (5, "\"acme\" has the plan \"pro\" on line 4"),
                (6, "its key is on line 2 another tenant's"),
            ]
        );
    }
}
