//! The list of tenants in the order of their outer ids: an entry for each, which is written before
//! the tenant's record and names its surrogate. The entries are spread over partitions by the hash
//! of the id, and a list merges them.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use tokio::task::JoinSet;

use super::names::{entry, surrogate};
use super::write::make;
use super::{Directory, DirectoryError, Surrogate, Tenant, TenantRecord};
use crate::store::layout::LIST_SHARDS;
use crate::store::{Item, Key, Page, Query, StoreError, StoreErrorKind};

/// Most reads of the store at once for one list. A table answers each in milliseconds.
const READS_AT_ONCE: usize = 16;

/// Entries read from a partition beyond its even share of a page: ids are not spread evenly. Where
/// a partition has more of the page than that, each further query of it reads as many: few of them
/// are behind the page.
const SPARE_ENTRIES: usize = 4;

impl Directory {
    /// Lists this id, if it is not listed yet. A repeat writes the same entry.
    pub(super) async fn enlist(&self, tenant: Surrogate, id: &str) -> Result<(), StoreError> {
        make(&*self.inner.store, entry(self.place_in_list(id), tenant)).await.map(drop)
    }

    /// The place of an id in the list.
    pub(super) fn place_in_list(&self, id: &str) -> Key {
        self.inner.space.listed(shard(id), id)
    }

    /// A page of the list, as [`Directory::list`] describes it.
    pub(super) async fn read_list(
        &self,
        prefix: &str,
        after: &str,
        most: usize,
    ) -> Result<Vec<Tenant>, DirectoryError> {
        if prefix.len().max(after.len()) > Key::MAX_SK_BYTES {
            return Err(DirectoryError::TenantId);
        }
        let mut entries = Entries::new(self, prefix, after, most);
        let mut tenants = Vec::new();
        while tenants.len() < most {
            let listed = entries.take(most - tenants.len()).await?;
            if listed.is_empty() {
                break;
            }
            let reads = listed.iter().map(|(_, tenant)| self.lookup_tenant(*tenant));
            let records = at_once(reads).await?;
            // Those without a record are of creations that were cut short, and those of another id
            // of erasures: that tenant stands further on.
            let is_its = |id: &String, record: &Arc<TenantRecord>| record.id == *id;
            let found = listed.iter().zip(records);
            let found = found.filter_map(|((id, _), record)| record.filter(|it| is_its(id, it)));
            tenants.extend(found.map(|record| self.handle(record)));
        }
        Ok(tenants)
    }
}

/// The partition of an id.
fn shard(id: &str) -> u8 {
    Sha256::digest(id)[0] % LIST_SHARDS
}

/// The entries of all partitions from one id on, ascending.
struct Entries<'a> {
    directory: &'a Directory,
    prefix: &'a str,
    after: &'a str,
    partitions: Vec<Partition>,
}

/// What was read of one partition and not yet taken, and the query that reads on.
struct Partition {
    read: VecDeque<(String, Item)>,
    rest: Option<Query>,
}

impl<'a> Entries<'a> {
    fn new(directory: &'a Directory, prefix: &'a str, after: &'a str, most: usize) -> Self {
        let limit = most / usize::from(LIST_SHARDS) + SPARE_ENTRIES;
        let partition = |shard| {
            let Key { pk, sk: from } = directory.inner.space.listed(shard, prefix.max(after));
            let rest = Some(Query { pk, from, until: None, limit });
            Partition { read: VecDeque::new(), rest }
        };
        Self { directory, prefix, after, partitions: (0..LIST_SHARDS).map(partition).collect() }
    }

    /// The next entries, at most this many, as id and tenant; none at the end.
    async fn take(&mut self, most: usize) -> Result<Vec<(String, Surrogate)>, StoreError> {
        let mut taken = Vec::new();
        while taken.len() < most {
            self.fill().await?;
            let next = self.partitions.iter_mut().filter(|part| !part.read.is_empty());
            let Some(next) = next.min_by(|a, b| a.read[0].0.cmp(&b.read[0].0)) else { break };
            let first = next.read.pop_front();
            let first = first.map(|(id, item)| surrogate(&item).map(|tenant| (id, tenant)));
            taken.extend(first.transpose()?);
        }
        Ok(taken)
    }

    /// Reads on where a partition has entries and none at hand: without its next one, the least of
    /// all is not known.
    async fn fill(&mut self) -> Result<(), StoreError> {
        let is_due = |part: &&mut Partition| part.read.is_empty() && part.rest.is_some();
        loop {
            let mut due: Vec<&mut Partition> = self.partitions.iter_mut().filter(is_due).collect();
            if due.is_empty() {
                return Ok(());
            }
            let queries = due.iter_mut().filter_map(|part| part.rest.take());
            let queries: Vec<Query> = queries.collect();
            let store = &self.directory.inner.store;
            let pages = at_once(queries.iter().map(|query| store.query(query.clone()))).await?;
            for ((part, query), page) in due.into_iter().zip(queries).zip(pages) {
                part.add(page, query, self.prefix, self.after);
            }
        }
    }
}

impl Partition {
    fn add(&mut self, page: Page, query: Query, prefix: &str, after: &str) {
        let past = page.items.iter().any(|(id, _)| !id.starts_with(prefix));
        let wanted = page.items.into_iter().filter(|(id, _)| id.as_str() > after);
        self.read.extend(wanted.take_while(|(id, _)| id.starts_with(prefix)));
        let rest = |from| Query { from, limit: SPARE_ENTRIES, ..query };
        self.rest = page.next.filter(|_| !past).map(rest);
    }
}

/// The answers of all these calls, in their order, or the first error.
async fn at_once<T: Send + 'static>(
    calls: impl Iterator<Item = impl Future<Output = Result<T, StoreError>> + Send + 'static>,
) -> Result<Vec<T>, StoreError> {
    let mut calls = calls.enumerate();
    let mut running = JoinSet::new();
    let mut answers = Vec::new();
    loop {
        for (place, call) in calls.by_ref().take(READS_AT_ONCE - running.len()) {
            running.spawn(async move { (place, call.await) });
        }
        let Some(ended) = running.join_next().await else { break };
        let cut =
            |_| StoreError::new(StoreErrorKind::Unavailable, "a read of a list was cut short");
        let (place, answer) = ended.map_err(cut)?;
        answers.push((place, answer?));
    }
    answers.sort_unstable_by_key(|(place, _)| *place);
    Ok(answers.into_iter().map(|(_, answer)| answer).collect())
}
