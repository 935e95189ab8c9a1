//! The keys of a file as data: [`super::check_table`] checks a file against them, and its JSON
//! Schema is printed from them, so that the two cannot drift.

use serde_json::Value;
use toml::de::DeValue;

use super::TomlNode;
use super::units::Units;

/// The value of a key.
pub(crate) enum Form {
    /// Any string.
    Text,
    /// A string that is not empty.
    Filled,
    /// One of these strings.
    Word(&'static [&'static str]),
    /// A list of these strings.
    Words(&'static [&'static str]),
    /// A string, or a list of at least so many strings.
    Texts(usize),
    /// `true` or `false`.
    Flag,
    /// A whole number from 1 on.
    Count,
    /// A number and its unit, in a string: `"7d"`.
    Counted(&'static Units),
    /// A form of one file alone.
    Own(&'static Own),
    /// A form, or a table.
    Or(&'static Form, &'static Shape),
    /// A form, a table, or a list of both; and what these are in the singular.
    Several(&'static Form, &'static Shape, &'static str),
    /// A table with these keys.
    Table(&'static Shape),
    /// A list of such tables, not empty.
    Tables(&'static Shape),
    /// A list of such tables, or an empty list.
    TablesOrNone(&'static Shape),
    /// A table whose keys are names.
    Each(&'static Names, &'static Form),
}

/// A form of one file alone: a small language in strings, or a choice of types.
pub(crate) struct Own {
    /// Whether a value is of its types.
    pub(crate) fits: fn(&TomlNode<'_>) -> bool,
    /// A correct value.
    pub(crate) sample: &'static str,
    /// Its JSON Schema.
    pub(crate) schema: fn() -> Value,
    /// The message and help for a value of another type, where the type is not all there is to say:
    /// from the key, the value, and the value as written.
    pub(crate) mistake: fn(&str, &DeValue<'_>, &str) -> Option<(String, String)>,
}

/// The names that a table of names accepts.
pub(crate) struct Names {
    /// The regular expression for them in the JSON Schema, if they are of some form.
    pub(crate) pattern: Option<&'static str>,
    /// The fault of a name, and what to write instead.
    pub(crate) fault: fn(&str) -> Option<(String, &'static str)>,
}

/// The keys of a kind of table.
pub(crate) struct Shape {
    /// The table's name in errors: `plan`.
    pub(crate) name: &'static str,
    /// Keys that must be there: of each group, exactly one.
    pub(crate) required: &'static [&'static [&'static str]],
    pub(crate) keys: &'static [FormKey],
}

/// One key.
pub(crate) struct FormKey {
    pub(crate) name: &'static str,
    pub(crate) form: Form,
    /// Its description in the schema.
    pub(crate) about: &'static str,
    /// A correct value, instead of its form's.
    pub(crate) sample: Option<&'static str>,
    /// Whether its value may be a secret, and is never shown.
    pub(crate) secret: bool,
}

/// A key, its value, and its description in the schema.
pub(crate) const fn key(name: &'static str, form: Form, about: &'static str) -> FormKey {
    FormKey { name, form, about, sample: None, secret: false }
}

impl FormKey {
    /// With a correct value of its own, as errors show it.
    pub(crate) const fn like(self, sample: &'static str) -> Self {
        Self { sample: Some(sample), ..self }
    }

    /// Never shown.
    pub(crate) const fn secret(self) -> Self {
        Self { secret: true, ..self }
    }

    /// A correct line, once `..` is filled in.
    pub(crate) fn sample(&self, form: &Form) -> String {
        self.sample_of(self.name, form)
    }

    fn sample_of(&self, name: &str, form: &Form) -> String {
        let value = match form {
            Form::Text | Form::Filled | Form::Texts(_) => self.sample.unwrap_or("\"..\""),
            Form::Word(words) => {
                return format!("`{name} = \"{}\"`", words.first().copied().unwrap_or_default());
            }
            Form::Words(words) => return format!("`{name} = {words:?}`"),
            Form::Flag => "true",
            Form::Count => "20",
            Form::Counted(units) => return format!("`{name} = \"{}\"`", units.examples[0]),
            Form::Own(own) => own.sample,
            Form::Or(form, _) | Form::Several(form, ..) => return self.sample_of(name, form),
            Form::Table(_) => self.sample.unwrap_or("{ .. }"),
            Form::Tables(_) | Form::TablesOrNone(_) => match self.sample {
                Some(sample) => sample,
                None => return format!("[[{name}]]"),
            },
            Form::Each(_, Form::Table(_)) => return format!("[{name}.<name>]"),
            Form::Each(_, form) => return self.sample_of(&format!("{name}.<name>"), form),
        };
        format!("`{name} = {value}`")
    }
}

impl Shape {
    pub(crate) fn key(&self, name: &str) -> Option<&'static FormKey> {
        self.keys.iter().find(|key| key.name == name)
    }
}
