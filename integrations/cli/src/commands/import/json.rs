//! JSON as the tools of AWS print it. What has another shape is refused with what was expected, and
//! no error repeats a text: it may be a key.

use serde_json::{Map, Number, Value};

use crate::failure::Failure;

/// The entries of what `aws apigateway` prints.
pub(super) fn items(bytes: &[u8], command: &str) -> Result<Vec<Value>, Failure> {
    let wrong = |why: String| {
        Failure::usage(format!("{why}\nhelp: aws apigateway {command} --output json > FILE"))
    };
    let place = |error: &serde_json::Error| (error.line(), error.column());
    let read: Value = serde_json::from_slice(bytes).map_err(|error| {
        let (line, column) = place(&error);
        wrong(format!("it is not JSON: line {line}, column {column}"))
    })?;
    let Value::Object(mut fields) = read else {
        let expected = format!("an object with \"items\" is expected, as {command} prints it");
        return Err(wrong(format!("it is {}, where {expected}", kind(&read))));
    };
    match fields.remove("items") {
        Some(Value::Array(items)) => Ok(items),
        None | Some(Value::Null) => {
            Err(wrong(format!("it has no \"items\", as {command} prints them")))
        }
        Some(other) => Err(wrong(unlike("items", kind(&other), "a list"))),
    }
}

/// An object, whose fields are read by name. One that is null is not there.
#[derive(Clone, Copy)]
pub(super) struct Object<'a>(&'a Map<String, Value>);

impl<'a> Object<'a> {
    pub(super) fn of(value: &'a Value) -> Result<Self, String> {
        let why = || format!("it is {}, where an object is expected", kind(value));
        value.as_object().map(Self).ok_or_else(why)
    }

    fn field(self, name: &str) -> Option<&'a Value> {
        self.0.get(name).filter(|it| !it.is_null())
    }

    /// A field of a kind.
    fn read<T>(
        self,
        (name, expected): (&str, &str),
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, String> {
        let Some(value) = self.field(name) else { return Ok(None) };
        read(value).map(Some).ok_or_else(|| unlike(name, kind(value), expected))
    }

    /// A text; an empty one says nothing.
    pub(super) fn text(self, name: &str) -> Result<Option<&'a str>, String> {
        Ok(self.read((name, "text"), Value::as_str)?.filter(|text| !text.is_empty()))
    }

    pub(super) fn flag(self, name: &str) -> Result<Option<bool>, String> {
        self.read((name, "true or false"), Value::as_bool)
    }

    pub(super) fn object(self, name: &str) -> Result<Option<Self>, String> {
        self.read((name, "an object"), |it| it.as_object().map(Self))
    }

    /// A list; one that is not there is empty.
    pub(super) fn list(self, name: &str) -> Result<&'a [Value], String> {
        let list = self.read((name, "a list"), |it| it.as_array().map(Vec::as_slice))?;
        Ok(list.unwrap_or_default())
    }

    /// A number, which is there and not below 0.
    pub(super) fn number(self, name: &str) -> Result<&'a Number, String> {
        const EXPECTED: &str = "a number of at least 0";
        let number = self.some_number(name, EXPECTED)?;
        let is_one = number.as_f64().is_some_and(|it| it >= 0.0);
        is_one.then_some(number).ok_or_else(|| unlike(name, &number.to_string(), EXPECTED))
    }

    /// A whole number, which is there and not below 0.
    pub(super) fn whole(self, name: &str) -> Result<u64, String> {
        const EXPECTED: &str = "a whole number of at least 0";
        let number = self.some_number(name, EXPECTED)?;
        number.as_u64().ok_or_else(|| unlike(name, &number.to_string(), EXPECTED))
    }

    /// The same, where it may be missing.
    pub(super) fn whole_or_none(self, name: &str) -> Result<Option<u64>, String> {
        self.field(name).map(|_| self.whole(name)).transpose()
    }

    fn some_number(self, name: &str, expected: &str) -> Result<&'a Number, String> {
        let number = self.read((name, expected), Value::as_number)?;
        number.ok_or_else(|| format!("it has no {name:?}"))
    }

    /// Its fields.
    pub(super) fn fields(self) -> impl Iterator<Item = (&'a String, &'a Value)> {
        self.0.iter()
    }
}

fn unlike(name: &str, is: &str, expected: &str) -> String {
    format!("its {name:?} is {is}, where {expected} is expected")
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
