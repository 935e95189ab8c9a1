//! `infra template`. The files in `templates/` are whole but for the default names.

use super::{AlertTargets, alert_targets, check_name, names, print};
use crate::args::{OfTable, TemplateFormat};
use crate::commands::Ran;
use crate::failure::Failure;
use crate::output::Output;
use crate::settings::Settings;

pub(super) fn run(out: Output, settings: &Settings, of: &OfTable, format: TemplateFormat) -> Ran {
    let names = names(settings, of);
    if names.table.starts_with("arn:") {
        let text = "a template makes a table, and this is the ARN of one\nhelp: --table NAME";
        return Err(Failure::usage(text));
    }
    check_name(&names.table)?;
    let text = match format {
        TemplateFormat::Cloudformation => include_str!("templates/cloudformation.yaml").to_owned(),
        TemplateFormat::Terraform => include_str!("templates/terraform.tf").to_owned(),
        TemplateFormat::Sam => include_str!("templates/sam.yaml")
            .replace("            %ALERTS%\n", &alert_statements(&alert_targets(settings)?)),
    };
    print(out, &text.replace("%TABLE%", &names.table).replace("%SPACE%", &names.space))
}

/// What SAM's function needs to send alerts.
fn alert_statements(of: &AlertTargets) -> String {
    let here = "arn:${AWS::Partition}:events:${AWS::Region}:${AWS::AccountId}:event-bus";
    let bus = |bus: &String| match bus.starts_with("arn:") {
        true => bus.clone(),
        false => format!("!Sub {here}/{bus}"),
    };
    let topics: Vec<_> = of.topics.iter().cloned().collect();
    let buses: Vec<_> = of.buses.iter().map(bus).collect();
    let mut text = String::new();
    for (sid, action, to) in
        [("Publish", "sns:Publish", topics), ("PutEvents", "events:PutEvents", buses)]
    {
        let head = [
            format!("- Sid: {sid}"),
            "  Effect: Allow".to_owned(),
            format!("  Action: {action}"),
            "  Resource:".to_owned(),
        ];
        let to: Vec<_> = to.iter().map(|it| format!("    - {it}")).collect();
        let lines = head.iter().filter(|_| !to.is_empty()).chain(&to);
        text.extend(lines.map(|line| format!("            {line}\n")));
    }
    text
}
