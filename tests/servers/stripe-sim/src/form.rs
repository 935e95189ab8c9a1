//! Stripe's form bodies and queries: `a[b][0][c]=v` as a tree of objects, lists and text.

use serde_json::{Map, Value};

/// Limit on nesting, counting the names of lists and objects.
const DEPTH: usize = 8;

/// Parameters of a call, as a JSON object whose leaves are text.
///
/// An object with the keys `0, 1, ..` is a list, and so is `a[]=`. If a name is repeated, the last
/// one counts, as at Stripe.
pub(crate) fn parse(text: &[u8]) -> Map<String, Value> {
    let mut tree = Map::new();
    for (name, value) in form_urlencoded::parse(text) {
        let path = path(&name);
        if !path.is_empty() && path.len() <= DEPTH {
            put(&mut tree, &path, value.into_owned());
        }
    }
    tree.values_mut().for_each(lists);
    tree
}

/// `a[b][c]` as `a, b, c`.
fn path(name: &str) -> Vec<&str> {
    let (head, rest) = name.split_once('[').unwrap_or((name, ""));
    let mut path = vec![head];
    path.extend(rest.split('[').filter(|part| !part.is_empty()).map(|p| p.trim_end_matches(']')));
    path
}

fn put(tree: &mut Map<String, Value>, path: &[&str], value: String) {
    let Some((head, rest)) = path.split_first() else { return };
    let head = if head.is_empty() { tree.len().to_string() } else { (*head).to_owned() };
    if rest.is_empty() {
        tree.insert(head, Value::String(value));
        return;
    }
    let inner = tree.entry(head).or_insert_with(|| Value::Object(Map::new()));
    if !inner.is_object() {
        *inner = Value::Object(Map::new());
    }
    if let Value::Object(inner) = inner {
        put(inner, rest, value);
    }
}

/// Turns objects with the keys of a list into lists, from the leaves up.
fn lists(value: &mut Value) {
    let Value::Object(object) = value else { return };
    object.values_mut().for_each(lists);
    let list: Option<Vec<Value>> =
        (0..object.len()).map(|at| object.get(&at.to_string()).cloned()).collect();
    if let Some(list) = list.filter(|list| !list.is_empty()) {
        *value = Value::Array(list);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn brackets_make_objects_and_lists() {
        let form = b"a=1&items[0][price]=p&items[1][price]=q&metadata[k%20x]=v&keys[]=m&keys[]=n";
        let expected = json!({
            "a": "1",
            "items": [{"price": "p"}, {"price": "q"}],
            "metadata": {"k x": "v"},
            "keys": ["m", "n"],
        });
        assert_eq!(Value::Object(parse(form)), expected);
    }

    #[test]
    fn nonsense_neither_panics_nor_nests_without_end() {
        for text in ["=", "[", "a[", "a[]", "a[b]=1&a=2&a[c]=3", "&&&", "a]b[c=1"] {
            parse(text.as_bytes());
        }
        let deep = format!("a{}=1", "[x]".repeat(1_000));
        assert!(parse(deep.as_bytes()).is_empty());
    }
}
