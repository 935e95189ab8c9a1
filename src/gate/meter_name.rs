//! Names of meters that are checked once, when the program starts, and not at each request.

use std::fmt;
use std::sync::Arc;

use super::Gate;
use crate::catalog::MeterSource;
use crate::error::Error;

/// The name of a meter that the plan file had when it was checked: [`Gate::meter`] returns it. It
/// goes where a name goes, at no cost of its own: [`Usage::add`](crate::Usage::add),
/// [`Usage::take`](crate::Usage::take), [`Ask::cost`](crate::Ask::cost). Keep it beside the gate.
///
/// It follows the plan file: each call looks the name up in the file that is in force. If a later
/// file has no such meter, it is unknown there, as any other name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MeterName(Arc<str>);

impl Gate {
    /// Checks the name of a meter against the plan file in force. Call it when the program starts,
    /// so that a mistyped name stops the program, and not the counting of a unit:
    ///
    /// ```
    /// # #[cfg(feature = "testing")]
    /// # async fn example() {
    /// use tallygate::Ask;
    ///
    /// let (gate, _clock) = tallygate::testing::gate(r#"
    ///     default-plan = "free"
    ///     [meter.output-tokens]
    ///     count = "reported"
    ///     [plan.free]
    ///     quota.output-tokens = "100k/month"
    /// "#);
    /// let tokens = gate.meter("output-tokens").unwrap();
    /// let acme = gate.tenant("acme").await.unwrap();
    /// let permit = gate.admit(Ask::new(&acme, "answer").cost(&tokens, 412)).await.unwrap();
    /// permit.settle();
    ///
    /// let mistyped = gate.meter("output-tokns").unwrap_err();
    /// assert!(mistyped.to_string().contains("did you mean `output-tokens`?"));
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::NoMeter`] if the plan file has no such meter, with the nearest one, or if it is a
    /// sum, which counts its parts.
    pub fn meter(&self, name: &str) -> Result<MeterName, Error> {
        let catalog = self.catalog();
        let Some(id) = catalog.meter(name) else {
            let help = catalog.meter_help(name);
            return Err(Error::NoMeter(format!("the plan file has no meter `{name}`: {help}")));
        };
        let meter = &catalog.meters[usize::from(id.0)];
        match meter.count {
            MeterSource::Sum => {
                let message = format!("the meter `{name}` is a sum: name a meter that it sums up");
                Err(Error::NoMeter(message))
            }
            _ => Ok(MeterName(meter.name.clone())),
        }
    }
}

impl AsRef<str> for MeterName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MeterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&MeterName> for Arc<str> {
    /// Allocates nothing.
    fn from(name: &MeterName) -> Self {
        name.0.clone()
    }
}
