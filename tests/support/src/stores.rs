//! Stores around another one.

use tallygate::store::{Promise, Store};

/// Methods of a [`Store`] that pass a call to a field, for a store that changes only some calls:
/// `forward!(store: query, promise, close);` within the `impl`.
#[macro_export]
macro_rules! forward {
    ($field:tt: $($method:ident),+) => {
        $($crate::forward!(@$method self $field);)+
    };
    (@read $self:ident $field:tt) => {
        fn read(
            &$self,
            key: $crate::tallygate::store::Key,
        ) -> $crate::tallygate::store::StoreFuture<Option<$crate::tallygate::store::Item>> {
            $self.$field.read(key)
        }
    };
    (@write $self:ident $field:tt) => {
        fn write(
            &$self,
            write: $crate::tallygate::store::Write,
        ) -> $crate::tallygate::store::StoreFuture<$crate::tallygate::store::Written> {
            $self.$field.write(write)
        }
    };
    (@query $self:ident $field:tt) => {
        fn query(
            &$self,
            query: $crate::tallygate::store::Query,
        ) -> $crate::tallygate::store::StoreFuture<$crate::tallygate::store::Page> {
            $self.$field.query(query)
        }
    };
    (@expire $self:ident $field:tt) => {
        fn expire(&$self, now_ms: i64) -> $crate::tallygate::store::StoreFuture<usize> {
            $self.$field.expire(now_ms)
        }
    };
    (@promise $self:ident $field:tt) => {
        fn promise(&$self) -> $crate::tallygate::store::Promise {
            $self.$field.promise()
        }
    };
    (@close $self:ident $field:tt) => {
        fn close(&$self) -> $crate::tallygate::store::StoreFuture<()> {
            $self.$field.close()
        }
    };
}

/// A store that claims to be shared by several processes: the gates of a test.
#[derive(Clone, Debug)]
pub struct Shared<S>(pub S);

impl<S: Store> Store for Shared<S> {
    forward!(0: read, write, query, expire, close);

    fn promise(&self) -> Promise {
        Promise { shared: true, ..self.0.promise() }
    }
}
