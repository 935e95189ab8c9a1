//! Values of a file whose shape has been checked: a value of the wrong type has been reported, and
//! reads as absent.

use std::borrow::Cow;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

pub(crate) type TomlNode<'a> = Spanned<DeValue<'a>>;

/// A table of the file.
#[derive(Clone, Copy)]
pub(crate) struct TomlTable<'a>(pub(crate) &'a DeTable<'a>);

/// One line of a table.
pub(crate) struct TableLine<'a> {
    pub(crate) name: &'a str,
    pub(crate) span: Range<usize>,
    pub(crate) node: &'a TomlNode<'a>,
}

/// A string of the file, and the span of its literal.
#[derive(Clone, Debug)]
pub(crate) struct Text<'a> {
    pub(crate) text: &'a str,
    pub(crate) span: Range<usize>,
}

impl<'a> TomlTable<'a> {
    pub(crate) fn of(node: &'a TomlNode<'a>) -> Option<Self> {
        node.get_ref().as_table().map(Self)
    }

    pub(crate) fn node(self, key: &str) -> Option<&'a TomlNode<'a>> {
        self.0.get(key)
    }

    pub(crate) fn table(self, key: &str) -> Option<TomlTable<'a>> {
        self.node(key).and_then(Self::of)
    }

    pub(crate) fn text(self, key: &str) -> Option<Text<'a>> {
        self.node(key).and_then(Text::of)
    }

    /// A string that is not empty: an empty one has been reported.
    pub(crate) fn filled(self, key: &str) -> Option<Text<'a>> {
        self.text(key).filter(|text| !text.text.is_empty())
    }

    pub(crate) fn flag(self, key: &str) -> Option<bool> {
        self.node(key)?.get_ref().as_bool()
    }

    pub(crate) fn count(self, key: &str) -> Option<u32> {
        self.node(key).and_then(integer).and_then(|n| u32::try_from(n).ok())
    }

    /// The strings of a list, or a single string.
    pub(crate) fn texts(self, key: &str) -> Vec<Text<'a>> {
        let items = self.node(key).map(items).unwrap_or_default();
        items.iter().filter_map(Text::of).collect()
    }

    /// Its lines, in the order of the file.
    pub(crate) fn entries(self) -> Vec<TableLine<'a>> {
        let entry = |(key, node): (&'a Spanned<Cow<'a, str>>, _)| TableLine {
            name: key.get_ref(),
            span: key.span(),
            node,
        };
        let mut entries: Vec<_> = self.0.iter().map(entry).collect();
        entries.sort_by_key(|entry| entry.span.start);
        entries
    }

    /// The span of a key.
    pub(crate) fn key_span(self, key: &str) -> Option<Range<usize>> {
        self.0.get_key_value(key).map(|(key, _)| key.span())
    }
}

impl<'a> Text<'a> {
    pub(crate) fn of(node: &'a TomlNode<'a>) -> Option<Self> {
        node.get_ref().as_str().map(|text| Self { text, span: node.span() })
    }
}

/// The items of a list, or a single value.
pub(crate) fn items<'a>(node: &'a TomlNode<'a>) -> &'a [TomlNode<'a>] {
    match node.get_ref() {
        DeValue::Array(array) => array,
        _ => std::slice::from_ref(node),
    }
}

pub(crate) fn integer(node: &TomlNode<'_>) -> Option<i64> {
    let number = node.get_ref().as_integer()?;
    i64::from_str_radix(number.as_str(), number.radix()).ok()
}
