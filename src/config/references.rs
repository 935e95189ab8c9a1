//! References to secrets. A possible inline secret is refused and never shown.

use super::reader::ServiceTable;
use super::tree::{Data, Node};
use super::{SecretRef, SecretSource};

/// The reference under a key, with nothing else in it. An inline secret is refused.
pub(super) fn secret(table: &ServiceTable<'_>, key: &'static str) -> Option<SecretRef> {
    let (node, field) = (table.get(key)?, table.path_of(key));
    if let Data::Text(_) = node.data {
        let message = format!("`{field}` is a reference: secrets do not belong in this file");
        let help = format!("write {key} = {{ env = \"..\" }} and put the secret there");
        table.reader.wrong_secret(node, &message, &help);
        return None;
    }
    let entry = table.reader.table(node, &field)?;
    let secret = secret_ref(&entry, node, &field);
    entry.finish();
    secret
}

/// One of `env`, `file`, `secret`, `ssm` in a table that may hold other keys too.
pub(super) fn secret_ref(table: &ServiceTable<'_>, node: &Node, field: &str) -> Option<SecretRef> {
    let sources = [
        table.text("env").map(|name| SecretSource::Env(name.into())),
        table.text("file").map(|path| SecretSource::File(path.into())),
        table.text("secret").map(|name| SecretSource::SecretsManager(name.into())),
        table.text("ssm").map(|name| SecretSource::ParameterStore(name.into())),
    ];
    if let Some((name_node, name)) = table.text_node("env")
        && ["sk_", "rk_", "whsec_"].iter().any(|prefix| name.starts_with(prefix))
    {
        let message = format!("`{field}` names an environment variable, but this is a secret");
        let help = "put it into a variable and write the variable's name; replace the secret, too";
        table.reader.wrong_secret(name_node, &message, help);
        return None;
    }
    let mut sources = sources.into_iter().flatten();
    match (sources.next(), sources.next()) {
        (Some(source), None) => Some(SecretRef { field: field.into(), source }),
        _ => {
            let message = format!("`{field}` names exactly one place of its secret");
            let help =
                "{ env = \"..\" }, { file = \"..\" }, { secret = \"..\" } or { ssm = \"..\" }";
            table.reader.wrong_secret(node, &message, help);
            None
        }
    }
}
