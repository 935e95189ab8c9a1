//! Checks that the configured peppers are those that the table's keys were hashed with: under
//! another pepper every key is unknown, without any other sign of the mistake.

use crate::error::Error;
use crate::identity::Peppers;
use crate::store::layout::{self, Space, check_format};
use crate::store::{Change, Store, Value, When, Write, Written, until_known};

/// Format of the item.
const FORMAT: i64 = 1;
const VALUE: &str = "check";

/// Compares each pepper with what is kept of it; keeps it where nothing is.
pub(super) async fn check(
    store: &dyn Store,
    space: &Space,
    peppers: &Peppers,
) -> Result<(), Error> {
    for pepper in peppers.iter() {
        let value = pepper.check_value();
        let key = space.pepper(&value.scheme);
        let kept = match store.read(key.clone()).await? {
            Some(kept) => Some(kept),
            None => {
                let (name, version) = layout::format(FORMAT);
                let hash = Value::Bytes(value.hash.to_vec());
                let change = vec![Change::Set(name, version), Change::Set(VALUE.into(), hash)];
                let write = Write { key, when: vec![When::Absent], change };
                match until_known(store, write).await? {
                    Written::Applied(_) => None,
                    // Another process has kept it, or this one with a reply that was lost.
                    Written::Refused(kept) => kept,
                }
            }
        };
        let Some(kept) = kept else { continue };
        check_format(&kept, FORMAT, "a pepper")?;
        if kept.bytes(VALUE) != Some(&value.hash[..]) {
            let id = value.scheme.strip_prefix("hmac-").unwrap_or(&value.scheme);
            return Err(Error::Config(format!(
                "the pepper {id:?} is not the one that the keys in this table were made with: \
                 every key would be unknown. Restore the previous one; to change it, give the new \
                 one another id and keep the previous one after it: \
                 pepper = [{{ id = \"new\", .. }}, {{ id = {id:?}, .. }}]"
            )));
        }
    }
    Ok(())
}
