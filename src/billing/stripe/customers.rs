//! Customers, prices and subscriptions at Stripe, for webhooks and for linking customers.
//!
//! Before an object is created it is searched for, and creation carries an idempotency key derived
//! from its purpose and the hour: two processes that create it at once, or one that repeats it
//! after a lost answer, create one object. The hour, because Stripe replays an answer for a day,
//! even a 500.

use serde_json::Value;

use super::calls::ApiCall;
use super::http::{Called, HttpResponse};
use super::{Stripe, no_date};
use crate::billing::sink::SinkError;
use crate::billing::snapshot::LineSeen;

/// Most pages of an invoice's lines read, of 100 each: Stripe takes 250 items on an invoice.
const MAX_LINE_PAGES: usize = 20;

/// A subscription as returned, and Stripe's time of the answer in seconds.
pub(crate) type Dated = (Value, i64);

impl Stripe {
    /// The current subscription; `None` if there is none.
    pub(crate) async fn subscription(&self, id: &str) -> Result<Option<Dated>, SinkError> {
        let answer = self.inner.find(&ApiCall::subscription(id)?).await?;
        answer.map(dated).transpose()
    }

    /// A customer's current subscriptions, including ended ones: the newest 100.
    pub(crate) async fn subscriptions(&self, customer: &str) -> Result<Vec<Dated>, SinkError> {
        self.list(ApiCall::subscriptions(customer)).await
    }

    /// A customer's paid invoices: of the newest 100 those that were paid at this second or later.
    pub(crate) async fn paid_since(
        &self,
        customer: &str,
        second: i64,
    ) -> Result<Vec<Dated>, SinkError> {
        let mut paid = self.list(ApiCall::paid_invoices(customer)).await?;
        let paid_s = |invoice: &Value| invoice["status_transitions"]["paid_at"].as_i64();
        paid.retain(|(invoice, _)| paid_s(invoice).is_some_and(|paid_s| paid_s >= second));
        Ok(paid)
    }

    async fn list(&self, call: ApiCall) -> Result<Vec<Dated>, SinkError> {
        let answer = self.inner.ask(&call).await?;
        let at_s = answer.date_s.ok_or_else(no_date)?;
        let list = answer.body["data"].as_array().cloned().ok_or_else(shape)?;
        Ok(list.into_iter().map(|object| (object, at_s)).collect())
    }

    /// Subscribes a customer to the price of this lookup key, to be paid with this method: returns
    /// the subscription created now or within this hour. The caller has checked that none exists.
    pub(crate) async fn subscribe(
        &self,
        customer: &str,
        price: &str,
        method: &str,
    ) -> Result<Dated, SinkError> {
        let found = self.inner.ask(&ApiCall::prices(price)).await?;
        let missing = || SinkError(format!("there is no active price with lookup key `{price}`"));
        let id = found.body["data"][0]["id"].as_str().ok_or_else(missing)?;
        let call = ApiCall::subscribe(customer, id, method, price);
        let hour = found.date_s.ok_or_else(no_date)?.div_euclid(3_600);
        let key = format!("tg_subscribe_{customer}_{id}_{hour}");
        made(self.inner.http.post_once(&call, &key).await).and_then(dated)
    }

    /// Cancels a subscription now and returns its new state; `None` if there is none to cancel.
    pub(crate) async fn cancel(&self, id: &str) -> Result<Option<Dated>, SinkError> {
        match self.inner.http.ask(&ApiCall::cancel(id)?).await {
            Called::Answer(answer) if answer.status == 404 => Ok(None),
            other => made(other).and_then(dated).map(Some),
        }
    }

    /// A price's lookup key; empty for a price without one, or a missing price.
    pub(crate) async fn lookup_key(&self, price: &str) -> Result<(String, i64), SinkError> {
        let found = self.inner.find(&ApiCall::price(price)?).await?;
        let Some((price, at_s)) = found.map(dated).transpose()? else {
            return Ok((String::new(), 0));
        };
        Ok((price["lookup_key"].as_str().unwrap_or_default().to_owned(), at_s))
    }

    /// The current invoice; `None` if there is none.
    pub(crate) async fn invoice(&self, id: &str) -> Result<Option<Dated>, SinkError> {
        let answer = self.inner.find(&ApiCall::invoice(id)?).await?;
        answer.map(dated).transpose()
    }

    /// All lines of an invoice that sell something, and Stripe's time of the last page in seconds.
    pub(crate) async fn lines(&self, invoice: &str) -> Result<(Vec<LineSeen>, i64), SinkError> {
        let mut lines = Vec::new();
        let mut call = ApiCall::lines(invoice, None)?;
        for _ in 0..MAX_LINE_PAGES {
            let answer = self.inner.ask(&call).await?;
            let page = answer.body["data"].as_array().ok_or_else(shape)?;
            for line in page {
                lines.extend(LineSeen::read(line).ok_or_else(shape)?);
            }
            let last = page.last().and_then(|line| line["id"].as_str());
            match last.filter(|_| answer.body["has_more"] == true) {
                Some(last) => call = ApiCall::lines(invoice, Some(last))?,
                None => return Ok((lines, answer.date_s.ok_or_else(no_date)?)),
            }
        }
        Err(SinkError(format!("the invoice {invoice} has more lines than the limit")))
    }

    /// The identifiers in a meter's error report. Stripe gives samples, not all.
    pub(crate) async fn rejected(&self, event: &str) -> Result<Vec<String>, SinkError> {
        let answer = self.inner.find(&ApiCall::thin_event(event)?).await?;
        let Some(HttpResponse { body, .. }) = answer else { return Ok(Vec::new()) };
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let types = list(&body["data"]["reason"]["error_types"]);
        let samples = types.iter().flat_map(|kind| list(&kind["sample_errors"]));
        let identifier =
            |sample: Value| sample["request"]["identifier"].as_str().map(str::to_owned);
        Ok(samples.filter_map(identifier).collect())
    }

    /// The customer created for this tenant, or a new one. Stripe's search lags by a minute at
    /// most, which the idempotency key covers.
    pub(crate) async fn customer_for(&self, tenant: &str, name: &str) -> Result<String, SinkError> {
        let found = self.inner.ask(&ApiCall::customers_of(tenant)).await?;
        if let Some(id) = found.body["data"][0]["id"].as_str() {
            return Ok(id.to_owned());
        }
        let call = ApiCall::make_customer(tenant, name);
        let hour = found.date_s.ok_or_else(no_date)?.div_euclid(3_600);
        let key = format!("tg_customer_{tenant}_{hour}");
        let answer = made(self.inner.http.post_once(&call, &key).await)?;
        answer.body["id"].as_str().map(str::to_owned).ok_or_else(shape)
    }
}

/// The created object, if it was created.
pub(super) fn made(called: Called) -> Result<HttpResponse, SinkError> {
    match called {
        Called::Answer(answer) if answer.status == 200 && !answer.body.is_null() => Ok(answer),
        Called::Answer(answer) => Err(SinkError(answer.words())),
        Called::Silence(words) => Err(SinkError(words)),
    }
}

fn dated(answer: HttpResponse) -> Result<Dated, SinkError> {
    Ok((answer.body, answer.date_s.ok_or_else(no_date)?))
}

fn shape() -> SinkError {
    SinkError("an answer in an unknown shape".to_owned())
}
