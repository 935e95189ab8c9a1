//! Hides possible secrets in errors about a file: all comments, every value that is not known to be
//! harmless and, in a text that is not TOML, everything but its known keys.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::form::{Form, Shape};
use super::table::TomlNode;

/// A hidden part, as shown: its length is hidden, too.
pub(super) const MASKED: &str = "***";

/// A hidden byte under the mask: a control character, which no legal file has.
pub(super) const HIDDEN: char = '\u{7f}';

/// The bytes of a text to hide.
pub(super) struct Mask {
    /// The names of keys, which are shown even where the text is not TOML.
    known: BTreeSet<&'static str>,
    /// The values by their start: their end, and whether they are shown. `None`: not TOML.
    values: Option<BTreeMap<usize, (usize, bool)>>,
}

impl Mask {
    pub(super) fn new(keys: &Shape) -> Self {
        let mut known = BTreeSet::new();
        names(keys, &mut known);
        Self { known, values: None }
    }

    pub(super) fn parsed(&mut self, document: &DeTable<'_>) {
        let mut values = BTreeMap::new();
        document.values().for_each(|value| scalars(value, &mut values));
        self.values = Some(values);
    }

    pub(super) fn show(&mut self, node: &TomlNode<'_>) {
        let value = self.values.as_mut().and_then(|values| values.get_mut(&node.span().start));
        if let Some((_, shown)) = value {
            *shown = !node.get_ref().as_str().is_some_and(looks_secret);
        }
    }

    /// The text, as long as before, with [`HIDDEN`] for each byte to hide.
    pub(super) fn over(&self, text: &str) -> String {
        let mut bytes = text.as_bytes().to_vec();
        let mut hide = |span: Range<usize>| {
            let span = bytes.get_mut(span).unwrap_or_default();
            span.iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = HIDDEN as u8);
        };
        let Some(values) = &self.values else {
            let mut start = 0;
            for line in text.split_inclusive('\n') {
                hide(start + self.known_part(line)..start + line.len());
                start += line.len();
            }
            return String::from_utf8_lossy(&bytes).into_owned();
        };
        let mut from = 0;
        for (start, (end, shown)) in values.iter().chain([(&text.len(), &(text.len(), true))]) {
            // Between values there are keys and comments.
            while let Some(at) = text.get(from..*start).and_then(|gap| gap.find('#')) {
                let gap = &text[from + at..*start];
                let comment = from + at..from + at + gap.find('\n').unwrap_or(gap.len());
                from = comment.end;
                hide(comment);
            }
            if !shown {
                hide(*start..*end);
            }
            from = *end;
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The length of a line's key or header, if it consists of known names.
    fn known_part(&self, line: &str) -> usize {
        let (part, value) = match line.split_once('=') {
            Some((key, value)) => (key, value.trim_start_matches(' ')),
            None if line.trim_start().starts_with('[') => (line, ""),
            None => return 0,
        };
        let mut words = part.split(['.', '[', ']', ' ', '\t', '\r', '\n']);
        let known = words.all(|word| word.is_empty() || self.known.contains(word));
        if known { line.len() - value.len() } else { 0 }
    }
}

/// A part of a text under a mask, for display.
pub(super) fn unmask(text: &str) -> String {
    let mut shown = String::new();
    let mut last = ' ';
    for c in text.chars() {
        match (c, last) {
            (HIDDEN, HIDDEN) => {}
            (HIDDEN, _) => shown.push_str(MASKED),
            _ => shown.push(c),
        }
        last = c;
    }
    shown
}

/// Whether a value is one of Stripe's secrets.
pub(crate) fn looks_secret(text: &str) -> bool {
    ["sk_", "rk_", "whsec_"].iter().any(|prefix| text.starts_with(prefix))
}

fn scalars(value: &Spanned<DeValue<'_>>, into: &mut BTreeMap<usize, (usize, bool)>) {
    match value.get_ref() {
        DeValue::Array(items) => items.iter().for_each(|item| scalars(item, into)),
        DeValue::Table(table) => table.values().for_each(|value| scalars(value, into)),
        _ => drop(into.insert(value.span().start, (value.span().end, false))),
    }
}

fn names(keys: &Shape, into: &mut BTreeSet<&'static str>) {
    for key in keys.keys {
        into.insert(key.name);
        if let Form::Table(shape) | Form::Tables(shape) | Form::TablesOrNone(shape) = &key.form {
            names(shape, into);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::form::key;
    use super::*;

    static KEYS: Shape = Shape {
        name: "file",
        required: &[],
        keys: &[key("a", Form::Text, ""), key("b", Form::Text, "")],
    };

    fn shown(text: &str) -> String {
        let mut mask = Mask::new(&KEYS);
        if let Ok(document) = DeTable::parse(text) {
            mask.parsed(document.get_ref());
            document.get_ref().get("a").into_iter().for_each(|node| mask.show(node));
        }
        let masked = mask.over(text);
        assert_eq!(masked.len(), text.len(), "every place stays where it is");
        unmask(&masked)
    }

    #[test]
    fn values_comments_and_torn_lines_are_hidden() {
        assert_eq!(shown("a = \"x#y\" # z\nb = \"x\"\n"), "a = \"x#y\" ***\nb = ***\n");
        assert_eq!(shown("c = [1, { d = \"\u{e9}\" }]"), "c = [***, { d = *** }]");
        assert_eq!(shown("b = \"\"\"x\ny\"\"\"\na = 1"), "b = ***\n***\na = 1");
        assert_eq!(shown("a = \"sk_live_9\""), "a = ***", "it looks like a secret");
        assert_eq!(shown("[a]\na.b = x\nc = y\nz"), "[a]\na.b = ***\n***\n***");
    }
}
