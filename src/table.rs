//! Tables, each with indices of a type of its own, so that an index of one table does not fit
//! another. Only a table, or the plan of one, makes its indices.
//!
//! An index says nothing of *which* table of its kind it belongs to: it is used with the policy or
//! the catalog that it came from, and with tables made to lie beside that one, row by row.

use std::fmt;
use std::marker::PhantomData;
use std::ops::{self, Deref, DerefMut};
use std::sync::Arc;

/// The place of a row, wrapped by an index. Made here only.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub(crate) struct RowNumber(u16);

impl RowNumber {
    fn of(row: usize) -> Self {
        Self(u16::try_from(row).expect("the catalog bounds all that is counted far below 65,536"))
    }
}

impl fmt::Debug for RowNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The type of a table's indices; made by [`index_type!`].
pub(crate) trait Index: Copy {
    /// The index of this place: for tables only.
    fn at(place: RowNumber) -> Self;

    fn place(self) -> RowNumber;

    /// The number of rows before it.
    #[inline]
    fn number(self) -> usize {
        usize::from(self.place().0)
    }

    #[cfg(test)]
    fn test(n: u16) -> Self {
        Self::at(RowNumber(n))
    }
}

/// Makes the type of a table's indices.
macro_rules! index_type {
    ($(#[$about:meta])* $name:ident) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(transparent)]
        pub(crate) struct $name($crate::table::RowNumber);

        impl $crate::table::Index for $name {
            #[inline]
            fn at(place: $crate::table::RowNumber) -> Self {
                Self(place)
            }

            #[inline]
            fn place(self) -> $crate::table::RowNumber {
                self.0
            }
        }
    };
}
pub(crate) use index_type;

/// How many rows a table is to have; gives out their indices before it is made.
pub(crate) struct RowCount<I> {
    len: usize,
    by: PhantomData<fn(I) -> I>,
}

impl<I: Index> RowCount<I> {
    pub(crate) const fn new() -> Self {
        Self { len: 0, by: PhantomData }
    }

    /// Adds a row at the end.
    pub(crate) fn add(&mut self) -> I {
        self.len += 1;
        I::at(RowNumber::of(self.len - 1))
    }

    /// A table of as many rows.
    pub(crate) fn table<T, S: FromIterator<T>>(&self, row: impl FnMut() -> T) -> Table<I, S> {
        std::iter::repeat_with(row).take(self.len).collect()
    }
}

impl<I> fmt::Debug for RowCount<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.len.fmt(f)
    }
}

/// Rows `S` (a vector, or a boxed or shared slice), found by indices `I`.
pub(crate) struct Table<I, S> {
    rows: S,
    by: PhantomData<fn(I) -> I>,
}

impl<I: Index, T> Table<I, Vec<T>> {
    pub(crate) const fn new() -> Self {
        Self { rows: Vec::new(), by: PhantomData }
    }

    /// Adds a row at the end.
    pub(crate) fn push(&mut self, row: T) -> I {
        self.rows.push(row);
        I::at(RowNumber::of(self.rows.len() - 1))
    }

    /// The same rows, shared.
    pub(crate) fn shared(self) -> Table<I, Arc<[T]>> {
        Table { rows: self.rows.into(), by: PhantomData }
    }
}

impl<I: Index, T, S: Deref<Target = [T]>> Table<I, S> {
    pub(crate) fn iter(&self) -> std::slice::Iter<'_, T> {
        self.rows.iter()
    }

    pub(crate) fn iter_mut(&mut self) -> std::slice::IterMut<'_, T>
    where
        S: DerefMut,
    {
        self.rows.iter_mut()
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// The row, if there is one: the index may be of a longer table.
    pub(crate) fn get(&self, index: I) -> Option<&T> {
        self.rows.get(index.number())
    }

    /// The indices of all rows.
    pub(crate) fn indices(&self) -> impl Iterator<Item = I> + use<I, T, S> {
        (0..self.rows.len()).map(|row| I::at(RowNumber::of(row)))
    }

    /// All rows with their indices.
    pub(crate) fn pairs<'a>(&'a self) -> impl Iterator<Item = (I, &'a T)>
    where
        T: 'a,
    {
        self.indices().zip(self.iter())
    }

    /// The index of the first such row.
    pub(crate) fn find(&self, is_it: impl FnMut(&T) -> bool) -> Option<I> {
        self.rows.iter().position(is_it).map(|row| I::at(RowNumber::of(row)))
    }
}

impl<I, S> Table<I, S> {
    /// All rows, to be filled anew beside another table.
    pub(crate) fn rows_mut(&mut self) -> &mut S {
        &mut self.rows
    }
}

impl<I, S: Default> Default for Table<I, S> {
    fn default() -> Self {
        Self { rows: S::default(), by: PhantomData }
    }
}

impl<I: Index, T, S: Deref<Target = [T]>> ops::Index<I> for Table<I, S> {
    type Output = T;

    #[inline]
    fn index(&self, index: I) -> &T {
        &self.rows[index.number()]
    }
}

impl<I: Index, T, S: DerefMut<Target = [T]>> ops::IndexMut<I> for Table<I, S> {
    #[inline]
    fn index_mut(&mut self, index: I) -> &mut T {
        &mut self.rows[index.number()]
    }
}

impl<'a, I: Index, T: 'a, S: Deref<Target = [T]>> IntoIterator for &'a Table<I, S> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<'a, I: Index, T: 'a, S: DerefMut<Target = [T]>> IntoIterator for &'a mut Table<I, S> {
    type Item = &'a mut T;
    type IntoIter = std::slice::IterMut<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter_mut()
    }
}

impl<I, T, S: FromIterator<T>> FromIterator<T> for Table<I, S> {
    fn from_iter<R: IntoIterator<Item = T>>(rows: R) -> Self {
        Self { rows: rows.into_iter().collect(), by: PhantomData }
    }
}

impl<I, S: Clone> Clone for Table<I, S> {
    fn clone(&self) -> Self {
        Self { rows: self.rows.clone(), by: PhantomData }
    }
}

impl<I, S: fmt::Debug> fmt::Debug for Table<I, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.rows.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    index_type! {
        /// Of the table below.
        LetterIndex
    }

    #[test]
    fn a_row_is_found_by_the_index_that_its_table_gave_it() {
        let mut letters = Table::<LetterIndex, Vec<char>>::new();
        let (a, b) = (letters.push('a'), letters.push('b'));
        letters[b] = 'c';
        assert_eq!((letters[a], letters[b], letters.find(|it| *it == 'c')), ('a', 'c', Some(b)));
        assert_eq!(letters.indices().collect::<Vec<_>>(), [a, b]);
        let beside: Table<LetterIndex, Box<[u32]>> = letters.iter().map(|it| *it as u32).collect();
        assert_eq!(beside.pairs().nth(1), Some((b, &99)));
    }

    #[test]
    fn rows_are_numbered_before_they_are_made() {
        let mut rows = RowCount::<LetterIndex>::new();
        let (first, second) = (rows.add(), rows.add());
        let mut next = 'a'..;
        let table: Table<_, Box<[_]>> = rows.table(|| next.next().unwrap());
        assert_eq!((table[first], table[second], table.iter().count()), ('a', 'b', 2));
    }

    #[test]
    fn an_index_and_a_table_are_as_large_as_what_they_wrap() {
        assert_eq!(size_of::<LetterIndex>(), size_of::<u16>());
        assert_eq!(size_of::<Table<LetterIndex, Box<[u8]>>>(), size_of::<Box<[u8]>>());
    }
}
