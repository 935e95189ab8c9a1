//! docs/http.md.

use tallygate::wire::{HeaderStyle, WireOptions};
use tallygate::{Error, Gate};

async fn nearest_limit_alone() -> Result<Gate, Error> {
    let options = WireOptions { style: HeaderStyle::Nearest, ..WireOptions::default() };
    let gate = Gate::builder("tallygate.toml").wire(options).open().await?;
    Ok(gate)
}

async fn own_refusals() -> Result<Gate, Error> {
    use tallygate::wire::Reply;
    use tallygate::{Gate, Reason};

    let builder = Gate::builder("tallygate.toml").on_refusal(|refusal| {
        let limit =
            refusal.limit.as_ref().filter(|_| matches!(refusal.reason, Reason::Exhausted))?;
        let wait = refusal.retry_after.or(limit.resets_in)?.as_secs() + 1;
        let headers = vec![
            ("content-type", "application/json".to_owned()),
            ("cache-control", "no-store".to_owned()),
            ("retry-after", wait.to_string()),
            ("ratelimit", format!("\"{}\";r={};t={wait}", limit.name, limit.remaining.whole())),
        ];
        let body = format!(r#"{{"error":"{} is used up","wait":{wait}}}"#, limit.name);
        Some(Reply { status: 429, headers, body: body.into_bytes() })
    });
    let gate = builder.open().await?;
    Ok(gate)
}
