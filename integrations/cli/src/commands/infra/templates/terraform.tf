# The table of tallygate, the schedule of its reports to Stripe, and alarms on both.

terraform {
  required_version = ">= 1.5"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.30"
    }
  }
}

variable "table_name" {
  description = "store.table of the service file"
  type        = string
  default     = "%TABLE%"
}

variable "kms_key_arn" {
  description = "Your key that encrypts the table; null for a key of DynamoDB's"
  type        = string
  default     = null
}

variable "alarm_topic_arn" {
  description = "The SNS topic of alarms; null for alarms without one"
  type        = string
  default     = null
}

variable "reporter_function_arn" {
  description = "The function with run_stripe_report; null where a server reports, or nothing is billed"
  type        = string
  default     = null
}

variable "report_every" {
  description = "As stripe.report-every of the service file"
  type        = string
  default     = "rate(15 minutes)"
}

data "aws_caller_identity" "current" {}

locals {
  reporters     = var.reporter_function_arn == null ? 0 : 1
  alarm_actions = var.alarm_topic_arn == null ? [] : [var.alarm_topic_arn]
}

resource "aws_dynamodb_table" "table" {
  name                        = var.table_name
  billing_mode                = "PAY_PER_REQUEST"
  deletion_protection_enabled = true
  hash_key                    = "pk"
  range_key                   = "sk"

  attribute {
    name = "pk"
    type = "S"
  }

  attribute {
    name = "sk"
    type = "S"
  }

  ttl {
    attribute_name = "ttl"
    enabled        = true
  }

  point_in_time_recovery {
    enabled = true
  }

  dynamic "server_side_encryption" {
    for_each = var.kms_key_arn == null ? [] : [var.kms_key_arn]
    content {
      enabled     = true
      kms_key_arn = server_side_encryption.value
    }
  }

  lifecycle {
    prevent_destroy = true
  }
}

# Throttled calls are repeated, so a few are no trouble.
resource "aws_cloudwatch_metric_alarm" "table_throttles" {
  alarm_name          = "${var.table_name}-throttles"
  alarm_description   = "The table throttles writes. See docs/operations.md"
  namespace           = "AWS/DynamoDB"
  metric_name         = "WriteThrottleEvents"
  dimensions          = { TableName = aws_dynamodb_table.table.name }
  statistic           = "Sum"
  period              = 60
  evaluation_periods  = 5
  threshold           = 100
  comparison_operator = "GreaterThanThreshold"
  treat_missing_data  = "notBreaching"
  alarm_actions       = local.alarm_actions
}

# Invocations that the function never had: they are throttled, or not permitted.
resource "aws_sqs_queue" "reporter" {
  count                     = local.reporters
  name_prefix               = "${var.table_name}-reporter-"
  sqs_managed_sse_enabled   = true
  message_retention_seconds = 1209600
}

data "aws_iam_policy_document" "scheduler" {
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["scheduler.amazonaws.com"]
    }
    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [data.aws_caller_identity.current.account_id]
    }
  }
}

data "aws_iam_policy_document" "report" {
  count = local.reporters
  statement {
    sid       = "Invoke"
    actions   = ["lambda:InvokeFunction"]
    resources = [var.reporter_function_arn, "${var.reporter_function_arn}:*"]
  }
  statement {
    sid       = "Undelivered"
    actions   = ["sqs:SendMessage"]
    resources = [aws_sqs_queue.reporter[0].arn]
  }
}

resource "aws_iam_role" "reporter" {
  count              = local.reporters
  name_prefix        = "tallygate-reporter-"
  assume_role_policy = data.aws_iam_policy_document.scheduler.json
}

resource "aws_iam_role_policy" "report" {
  count  = local.reporters
  name   = "report"
  role   = aws_iam_role.reporter[0].id
  policy = data.aws_iam_policy_document.report[0].json
}

resource "aws_scheduler_schedule" "reporter" {
  count               = local.reporters
  name_prefix         = "tallygate-reporter-"
  description         = "Reports what is owed to Stripe"
  schedule_expression = var.report_every

  flexible_time_window {
    mode = "OFF"
  }

  target {
    arn      = var.reporter_function_arn
    role_arn = aws_iam_role.reporter[0].arn
    input    = "{}"

    dead_letter_config {
      arn = aws_sqs_queue.reporter[0].arn
    }

    # The next report sends what this one did not.
    retry_policy {
      maximum_event_age_in_seconds = 600
      maximum_retry_attempts       = 2
    }
  }
}

resource "aws_cloudwatch_metric_alarm" "reporter_undelivered" {
  count               = local.reporters
  alarm_name          = "${var.table_name}-reporter-undelivered"
  alarm_description   = "The schedule cannot invoke the reporter. See docs/operations.md"
  namespace           = "AWS/SQS"
  metric_name         = "ApproximateNumberOfMessagesVisible"
  dimensions          = { QueueName = aws_sqs_queue.reporter[0].name }
  statistic           = "Maximum"
  period              = 300
  evaluation_periods  = 1
  threshold           = 0
  comparison_operator = "GreaterThanThreshold"
  treat_missing_data  = "notBreaching"
  alarm_actions       = local.alarm_actions
}

# One failed report is made up by the next.
resource "aws_cloudwatch_metric_alarm" "reporter_fails" {
  count               = local.reporters
  alarm_name          = "${var.table_name}-reporter-fails"
  alarm_description   = "Reports to Stripe fail. See docs/operations.md"
  namespace           = "AWS/Lambda"
  metric_name         = "Errors"
  dimensions          = { FunctionName = split(":", var.reporter_function_arn)[6] }
  statistic           = "Sum"
  period              = 3600
  evaluation_periods  = 1
  threshold           = 3
  comparison_operator = "GreaterThanThreshold"
  treat_missing_data  = "notBreaching"
  alarm_actions       = local.alarm_actions
}

output "table_name" {
  value = aws_dynamodb_table.table.name
}

output "table_arn" {
  value = aws_dynamodb_table.table.arn
}
