//! docs/http.md.

use tallygate::wire::{HeaderStyle, LegacyReset, WireOptions};
use tallygate::{Error, Gate};

async fn legacy_headers() -> Result<Gate, Error> {
    let style = HeaderStyle::Legacy { reset: LegacyReset::Epoch };
    let options = WireOptions { style, ..WireOptions::default() };
    let gate = Gate::builder("tallygate.toml").wire(options).open().await?;
    Ok(gate)
}
