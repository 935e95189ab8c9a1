//! `infra dashboard`: the panels of [`ROWS`] for Grafana over Prometheus, and for CloudWatch.

use serde_json::{Value, json};
use tallygate::telemetry::{Kind, Metric};

use super::print_document;
use super::watched::{Only, Panel, ROWS};
use crate::args::{Dashboard, DashboardFormat};
use crate::commands::Ran;
use crate::output::Output;

/// Columns of Grafana's and CloudWatch's grids, and of a panel.
const COLUMNS: usize = 24;
const WIDTH: usize = 8;
const HEIGHT: usize = 8;

/// Most lines of a panel of CloudWatch: the largest.
const LINES: usize = 20;

pub(super) fn run(out: Output, how: &Dashboard) -> Ran {
    super::check_namespace(&how.namespace)?;
    let region = how.region.as_deref().unwrap_or_default();
    print_document(
        out,
        &match how.format {
            DashboardFormat::Grafana => grafana(),
            DashboardFormat::Cloudwatch => cloudwatch(&how.namespace, region),
        },
    )
}

/// The panels with their places: below the title of their row, from left to right.
fn placed<T>(
    place: impl Fn(&Panel, usize, usize) -> T,
    title: impl Fn(&str, usize) -> T,
) -> Vec<T> {
    let (mut all, mut y) = (Vec::new(), 0);
    for row in ROWS {
        all.push(title(row.title, y));
        y += 1;
        for (n, panel) in row.panels.iter().enumerate() {
            let (line, column) = (n * WIDTH / COLUMNS, n * WIDTH % COLUMNS);
            all.push(place(panel, column, y + line * HEIGHT));
        }
        y += (row.panels.len() * WIDTH).div_ceil(COLUMNS) * HEIGHT;
    }
    all
}

fn grafana() -> Value {
    let mut panels = placed(
        |panel, x, y| {
            json!({
                "type": "timeseries",
                "title": panel.title,
                "description": panel.metric.help,
                "datasource": { "type": "prometheus", "uid": "${datasource}" },
                "fieldConfig": {
                    "defaults": { "unit": grafana_unit(panel.metric) },
                    "overrides": [],
                },
                "gridPos": { "x": x, "y": y, "w": WIDTH, "h": HEIGHT },
                "targets": [{
                    "refId": "A",
                    "expr": promql(panel),
                    "legendFormat": legend(panel),
                }],
            })
        },
        |title, y| {
            let place = json!({ "x": 0, "y": y, "w": COLUMNS, "h": 1 });
            json!({
                "type": "row", "title": title, "collapsed": false,
                "panels": [], "gridPos": place,
            })
        },
    );
    for (n, panel) in panels.iter_mut().enumerate() {
        panel["id"] = Value::from(n + 1);
    }
    let of_job = format!("label_values({}, job)", Metric::CatalogInfo.name);
    json!({
        "title": "tallygate",
        "tags": ["tallygate"],
        "schemaVersion": 39,
        "editable": true,
        "refresh": "1m",
        "time": { "from": "now-6h", "to": "now" },
        "templating": { "list": [
            {
                "name": "datasource", "label": "Data source",
                "type": "datasource", "query": "prometheus",
            },
            {
                "name": "job", "label": "Job", "type": "query", "query": of_job,
                "datasource": { "type": "prometheus", "uid": "${datasource}" },
                "includeAll": true, "allValue": ".*", "multi": true, "refresh": 2
            },
        ] },
        "panels": panels,
    })
}

fn grafana_unit(metric: Metric) -> &'static str {
    match (metric.unit, metric.kind) {
        ("seconds", _) => "s",
        (_, Kind::Counter) => "cps",
        _ => "short",
    }
}

/// The expression of Prometheus: a rate, a level, the slowest hundredth, or a time that passed.
fn promql(panel: &Panel) -> String {
    let Panel { metric, by, .. } = panel;
    let name = metric.name;
    let labels = String::from_iter(panel.only.iter().map(|(l, word)| format!(", {l}=\"{word}\"")));
    let series = |suffix: &str| format!("{name}{suffix}{{job=~\"$job\"{labels}}}");
    let by_labels = |first: &[&str]| [first, by].concat().join(", ");
    match metric.kind {
        Kind::Counter => {
            format!("sum by ({}) (rate({}[$__rate_interval]))", by_labels(&[]), series(""))
        }
        Kind::Gauge if *metric == Metric::ReportedAt => format!("time() - max({})", series("")),
        Kind::Gauge => format!("max by ({}) ({})", by_labels(&[]), series("")),
        Kind::Histogram => format!(
            "histogram_quantile(0.99, sum by ({}) (rate({}[$__rate_interval])))",
            by_labels(&["le"]),
            series("_bucket")
        ),
    }
}

fn legend(panel: &Panel) -> String {
    let labels: Vec<_> = panel.by.iter().map(|label| format!("{{{{{label}}}}}")).collect();
    if labels.is_empty() { panel.title.to_owned() } else { labels.join(" ") }
}

fn cloudwatch(namespace: &str, region: &str) -> Value {
    let widgets = placed(
        |panel, x, y| {
            json!({
                "type": "metric", "x": x, "y": y, "width": WIDTH, "height": HEIGHT,
                "properties": {
                    "title": panel.title,
                    "region": region,
                    "view": "timeSeries",
                    "period": 60,
                    "metrics": lines(panel, namespace),
                },
            })
        },
        |title, y| {
            json!({
                "type": "text", "x": 0, "y": y, "width": COLUMNS, "height": 1,
                "properties": { "markdown": format!("## {title}") },
            })
        },
    );
    json!({ "widgets": widgets })
}

/// A query, and what is shown of its numbers.
fn lines(panel: &Panel, namespace: &str) -> Value {
    let over = match panel.metric.kind {
        Kind::Counter => "SUM",
        Kind::Gauge | Kind::Histogram => "MAX",
    };
    let mut query = query(over, panel.metric, namespace, panel.only);
    if panel.metric == Metric::ReportedAt {
        return json!([
            [{ "expression": query, "id": "q1", "visible": false }],
            [{ "expression": "EPOCH(q1) - q1", "id": "e1", "label": panel.title }],
        ]);
    }
    if !panel.by.is_empty() {
        let by = panel.by.join(", ");
        query = format!("{query} GROUP BY {by} ORDER BY {over}() DESC LIMIT {LINES}");
    }
    json!([[{ "expression": query, "id": "q1" }]])
}

/// A query of CloudWatch Metrics Insights.
pub(super) fn query(over: &str, metric: Metric, namespace: &str, only: Only) -> String {
    let only: Vec<_> = only.iter().map(|(label, word)| format!("{label} = '{word}'")).collect();
    let only =
        if only.is_empty() { String::new() } else { format!(" WHERE {}", only.join(" AND ")) };
    format!("SELECT {over}({}) FROM \"{namespace}\"{only}", metric.name)
}
