//! `infra template`. The files in `templates/` are whole but for the default names.

use super::{Names, check_name, print};
use crate::args::TemplateFormat;
use crate::commands::Ran;
use crate::failure::Failure;
use crate::output::Output;

pub(super) fn run(out: Output, names: &Names, format: TemplateFormat) -> Ran {
    if names.table.starts_with("arn:") {
        let text = "a template makes a table, and this is the ARN of one\nhelp: --table NAME";
        return Err(Failure::usage(text));
    }
    check_name(&names.table)?;
    let text = match format {
        TemplateFormat::Cloudformation => include_str!("templates/cloudformation.yaml"),
        TemplateFormat::Terraform => include_str!("templates/terraform.tf"),
        TemplateFormat::Sam => include_str!("templates/sam.yaml"),
    };
    print(out, &text.replace("%TABLE%", &names.table).replace("%SPACE%", &names.space))
}
