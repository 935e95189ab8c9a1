//! Checks that the configured peppers are those that the table's keys were hashed with: under
//! another pepper every key is unknown, without any other sign of the mistake.

use crate::config::{DEFAULT_PEPPER_ENV, DEFAULT_PEPPER_ID};
use crate::error::Error;
use crate::identity::{Pepper, Peppers};
use crate::store::layout::{self, Space, check_format};
use crate::store::{Change, Store, Value, When, Write, Written, until_known};

/// Format of the item.
const FORMAT: i64 = 1;
const VALUE: &str = "check";

/// API keys, as a gate is opened.
#[derive(Clone, Copy)]
pub(super) enum Keys<'a> {
    /// Under these peppers, none where no key is ever read.
    Under(&'a Peppers),
    /// They are the default, and off for lack of its pepper.
    Off,
}

/// Compares each pepper with what is kept of it; keeps it where nothing is. Keys that are off must
/// never have been on.
pub(super) async fn check(store: &dyn Store, space: &Space, keys: Keys<'_>) -> Result<(), Error> {
    let peppers = match keys {
        Keys::Under(peppers) => peppers,
        Keys::Off => return check_unused(store, space).await,
    };
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

/// Fails where the default pepper was in use: all keys of this store would be unknown without it.
async fn check_unused(store: &dyn Store, space: &Space) -> Result<(), Error> {
    let used = store.read(space.pepper(&Pepper::scheme_of(DEFAULT_PEPPER_ID))).await?;
    if used.is_none() {
        return Ok(());
    }
    Err(Error::Config(format!(
        "{DEFAULT_PEPPER_ENV} is not set, and API keys of this store were made with it: each of \
         them would be unknown. Set it; or, where the program names its callers itself and no API \
         key is in use any more, write `identify = []` at the top of the service file"
    )))
}
