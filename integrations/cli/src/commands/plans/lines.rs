//! Where a plan file says what: the line of a limit, of a plan, of a route, of an exception.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A plan file as text, with its tables.
pub(super) struct Lines<'a> {
    text: &'a str,
    tables: DeTable<'a>,
}

impl<'a> Lines<'a> {
    /// The file has been checked: it is TOML.
    pub(super) fn of(text: &'a str) -> Option<Self> {
        Some(Self { text, tables: DeTable::parse(text).ok()?.into_inner() })
    }

    /// The line of `[route.NAME]`.
    pub(super) fn route(&self, name: &str) -> Option<usize> {
        self.line(&["route", name])
    }

    /// The line of `[plan.NAME]`.
    pub(super) fn plan(&self, name: &str) -> Option<usize> {
        self.line(&["plan", name])
    }

    /// The line of `[addon.NAME]`.
    pub(super) fn addon(&self, name: &str) -> Option<usize> {
        self.line(&["addon", name])
    }

    /// The line that gives a plan a limit of this kind (`quota`, `rate` or `concurrency`) by this
    /// id (`requests/month`): its own, or that of what it extends.
    pub(super) fn of_limit(&self, plan: &str, kind: &str, id: &str) -> Option<usize> {
        self.of_plan(plan, &keys(kind, id), 0)
    }

    /// The line of `[tenant.x]` that sets a limit.
    pub(super) fn of_exception(&self, tenant: &str, kind: &str, id: &str) -> Option<usize> {
        self.line(&[&["tenant", tenant], &*keys(kind, id)].concat())
    }

    fn of_plan(&self, plan: &str, keys: &[&str], deep: usize) -> Option<usize> {
        /// The file is legal: what extends itself has been refused.
        const MOST: usize = 64;
        let own = self.line(&[&["plan", plan], keys].concat());
        own.or_else(|| {
            let base = self.value(&["plan", plan, "extends"])?.get_ref().as_str()?;
            (deep < MOST).then(|| self.of_plan(base, keys, deep + 1)).flatten()
        })
    }

    /// The line of a key.
    fn line(&self, keys: &[&str]) -> Option<usize> {
        let (last, before) = keys.split_last()?;
        let table = match before {
            [] => &self.tables,
            _ => self.value(before)?.get_ref().as_table()?,
        };
        let (key, _) = table.get_key_value(*last)?;
        Some(self.line_at(key.span()))
    }

    fn value(&self, keys: &[&str]) -> Option<&Spanned<DeValue<'a>>> {
        let (first, rest) = keys.split_first()?;
        let mut value = self.tables.get(*first)?;
        for key in rest {
            value = value.get_ref().as_table()?.get(*key)?;
        }
        Some(value)
    }

    fn line_at(&self, span: Range<usize>) -> usize {
        let before = self.text.get(..span.start).unwrap_or_default();
        before.bytes().filter(|byte| *byte == b'\n').count() + 1
    }
}

/// The keys of a limit within its plan.
fn keys<'a>(kind: &'a str, id: &'a str) -> Vec<&'a str> {
    match kind {
        "concurrency" => vec!["concurrency"],
        kind => vec![kind, id.split('/').next().unwrap_or(id)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_where_a_plan_what_that_extends_or_an_exception_has_it() {
        let text = "[plan.free]\nquota.requests = \"1/day\"\nrate.all = \"1/s\"\n[plan.pro]\n\
                    extends = \"free\"\nconcurrency = 5\n[tenant.acme]\nnote = \"x\"\n\
                    quota.requests = \"9/day\"\n[route.chat]\n";
        let lines = Lines::of(text).unwrap();
        assert_eq!(lines.of_exception("acme", "quota", "requests/day"), Some(9));
        assert_eq!(lines.of_exception("globex", "quota", "requests/day"), None);
        assert_eq!(lines.of_limit("pro", "quota", "requests/day"), Some(2));
        assert_eq!(lines.of_limit("pro", "rate", "all/s"), Some(3));
        assert_eq!(lines.of_limit("pro", "concurrency", "concurrency"), Some(6));
        assert_eq!(lines.of_limit("free", "concurrency", "concurrency"), None);
        assert_eq!((lines.plan("pro"), lines.route("chat")), (Some(4), Some(10)));
    }
}
