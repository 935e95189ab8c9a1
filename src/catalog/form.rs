//! The forms that only a plan file has: its small languages, and its names.

use serde_json::{Value, json};
use toml::de::DeValue;

use super::numbers::{BYTE_UNITS, MULTIPLIERS};
use super::words::{self, QUOTA_PERIODS, RATE_PERIODS, RATE_PERIODS_IN_FULL};
use crate::toml_file::{Names, Own, TomlNode, integer, items, unit_pattern, word_schema};

/// An amount: `25`, `"64KB"`, `"1M"`.
pub(super) static AMOUNT: Own = Own {
    fits: is_amount,
    sample: "\"64KB\"",
    schema: || or_integer(word_schema(amount(), &["64KB", "1M"])),
    mistake: no_float,
};

/// An amount or a fraction: `25`, `"1/1000"`.
pub(super) static FRACTION: Own = Own {
    fits: is_amount,
    sample: "25",
    schema: || or_integer(word_schema(format!(r"{}(/{NUMBER})?", amount()), &["1/1000", "2.5"])),
    mistake: no_float,
};

/// A rate in words.
pub(super) static RATE_WORDS: Own = Own {
    fits: is_text,
    sample: "\"50/s burst 100\"",
    schema: || {
        let number = amount();
        let periods = [unit_pattern(&RATE_PERIODS), unit_pattern(&RATE_PERIODS_IN_FULL)].join("|");
        let tail = format!(r"( +burst {number})?( +per {NAME})?( +burst {number})?");
        let pattern = format!(r"{number}( +{NAME})? */ *({periods}){tail}");
        word_schema(pattern, &["50/s burst 100", "100k input-tokens/min", "20/s per key"])
    },
    mistake: |_, value, written| {
        let message = format!("`{written}` is a bare number: a rate needs a period");
        let help = format!("write \"{written}/s\" or \"{written}/min\"");
        value.is_integer().then_some((message, help))
    },
};

/// A quota in words.
pub(super) static QUOTA_WORDS: Own = Own {
    fits: is_text,
    sample: "\"10k/month\"",
    schema: || {
        let (number, periods) = (amount(), unit_pattern(&QUOTA_PERIODS));
        let pattern = format!(r"unlimited|prepaid|{number}( */ *({periods})( +per {NAME})?)?");
        word_schema(
            pattern,
            &["10k/month", "1GB/month", "5k/day per user", "500", "unlimited", "prepaid"],
        )
    },
    mistake: |_, value, written| {
        let message = format!("`{written}` is a bare number: a quota needs a period");
        let help = format!("write \"{written}/month\", or \"{written}\" for units granted once");
        value.is_integer().then_some((message, help))
    },
};

/// A list of percentages.
pub(super) static PERCENTS: Own = Own {
    fits: |node| {
        node.get_ref().is_array() && items(node).iter().all(|item| integer(item).is_some())
    },
    sample: "[80, 100]",
    schema: || {
        let percent = json!({ "type": "integer", "minimum": 1 });
        json!({ "type": "array", "items": percent, "examples": [[80, 100]] })
    },
    mistake: |_, _, _| None,
};

/// A local date.
pub(super) static DATE: Own = Own {
    fits: |node| node.get_ref().as_datetime().is_some_and(|d| d.date.is_some() && d.time.is_none()),
    sample: "2027-03-31",
    // Editors see a TOML date as a string of this form.
    schema: || word_schema(r"\d{4}-\d{2}-\d{2}".into(), &["2027-03-31"]),
    mistake: |name, value, _| {
        let message = format!("`{name}` is a date without a time");
        value.is_datetime().then_some((message, "write a date: 2027-03-31".to_owned()))
    },
};

/// `true`, a number, `"unlimited"`, or a word.
pub(super) static FEATURE: Own = Own {
    fits: |node| is_text(node) || node.get_ref().is_bool() || integer(node).is_some(),
    sample: "true",
    schema: || json!({ "type": ["boolean", "integer", "string"] }),
    mistake: |_, _, _| None,
};

/// Payment rules that are words; a plan cannot have such a name.
pub(super) const PAYMENT_WORDS: &[&str] = &["full", "payment-required"];

/// The effect of a payment state: one of these words, or a plan's name.
pub(super) static PAYMENT: Own = Own {
    fits: is_text,
    sample: "\"full\"",
    schema: || json!({ "type": "string", "examples": PAYMENT_WORDS }),
    mistake: |_, _, _| None,
};

/// Letters, digits, `-` and `_`.
pub(super) static PLAIN: Names = Names { pattern: Some(NAME), fault: no_name };

/// The same, but no word of the small languages.
pub(super) static UNRESERVED: Names = Names {
    pattern: Some(NAME),
    fault: |name| {
        let reserved = words::is_reserved(name).then(|| {
            (
                format!("`{name}` is a word of the plan language"),
                "choose another name: limits would not read plainly with this one",
            )
        });
        no_name(name).or(reserved)
    },
};

/// Outer ids of tenants: any printable text.
pub(super) static OUTER: Names = Names {
    pattern: None,
    fault: |name| {
        const LONGEST: usize = 256;
        let good = (1..=LONGEST).contains(&name.len()) && !name.chars().any(char::is_control);
        let message = "not an id of a tenant".to_owned();
        (!good).then_some((message, "write its id, of 1 to 256 characters, in quotes"))
    },
};

/// A number with an optional part after the point.
const NUMBER: &str = r"\d+(\.\d+)?";

/// A name, as accepted by [`words::is_name`].
const NAME: &str = "[A-Za-z0-9][A-Za-z0-9_-]*";

/// A number and its unit.
fn amount() -> String {
    format!(r"{NUMBER}({}|{})?", unit_pattern(&MULTIPLIERS), unit_pattern(&BYTE_UNITS))
}

fn is_text(node: &TomlNode<'_>) -> bool {
    node.get_ref().is_str()
}

fn is_amount(node: &TomlNode<'_>) -> bool {
    is_text(node) || integer(node).is_some_and(|n| n >= 0)
}

fn or_integer(value: Value) -> Value {
    json!({ "anyOf": [{ "type": "integer", "minimum": 0 }, value] })
}

fn no_float(name: &str, value: &DeValue<'_>, written: &str) -> Option<(String, String)> {
    let message = format!("`{name}` takes no floating-point number");
    value.is_float().then(|| (message, format!("write it as a string: \"{written}\"")))
}

fn no_name(name: &str) -> Option<(String, &'static str)> {
    let help = "write letters, digits, `-` and `_`, at most 64, beginning with a letter or digit";
    (!words::is_name(name)).then(|| (format!("`{name}` cannot be a name"), help))
}
