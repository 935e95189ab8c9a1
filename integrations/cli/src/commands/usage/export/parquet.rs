//! Rows as Parquet, by the writer of columns alone: no Arrow, no compression beyond the
//! dictionaries that every column has.
//!
//! Law: `used` is the amount as a decimal of 18 places, rounded down; where that is not exact,
//! `used_exact` has it as text, and else nothing.

use std::sync::Arc;

use jiff::civil::Date;
use parquet::basic::{ConvertedType, LogicalType, Repetition, Type as Physical};
use parquet::data_type::{ByteArray, ByteArrayType, FixedLenByteArray};
use parquet::data_type::{FixedLenByteArrayType, Int32Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::{Type, TypePtr};

use super::{Row, Rows, Sink, not_written};
use crate::args::By;
use crate::failure::Failure;

/// Rows of a group, which are in memory until it is written: a few megabytes.
const GROUP: usize = 50_000;
/// Digits of `used`: the largest amount has 20 before the point.
const PRECISION: i32 = 38;
/// Digits behind its point.
const SCALE: u32 = 18;

/// A file that is being written, and the rows of its current group, column by column.
pub(super) struct Parquet {
    to: SerializedFileWriter<Sink>,
    tenants: Vec<ByteArray>,
    meters: Vec<ByteArray>,
    days: Vec<i32>,
    used: Vec<FixedLenByteArray>,
    exact: Vec<ByteArray>,
    /// For each row whether `exact` has a value of it.
    has_exact: Vec<i16>,
}

impl Parquet {
    pub(super) fn begin(sink: Sink, by: By) -> Result<Self, Failure> {
        let (schema, how) = (schema(by).map_err(failed)?, Arc::new(WriterProperties::default()));
        let to = SerializedFileWriter::new(sink, schema, how).map_err(failed)?;
        let (tenants, meters, days, used) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let (exact, has_exact) = (Vec::new(), Vec::new());
        Ok(Self { to, tenants, meters, days, used, exact, has_exact })
    }

    /// Writes the rows at hand as a group.
    fn group(&mut self) -> Result<(), ParquetError> {
        let mut group = self.to.next_row_group()?;
        column::<ByteArrayType>(&mut group, &self.tenants, None)?;
        column::<ByteArrayType>(&mut group, &self.meters, None)?;
        column::<Int32Type>(&mut group, &self.days, None)?;
        column::<FixedLenByteArrayType>(&mut group, &self.used, None)?;
        column::<ByteArrayType>(&mut group, &self.exact, Some(&self.has_exact))?;
        group.close()?;
        self.tenants.clear();
        self.meters.clear();
        self.days.clear();
        self.used.clear();
        self.exact.clear();
        self.has_exact.clear();
        Ok(())
    }
}

impl Rows for Parquet {
    fn row(&mut self, row: &Row<'_>) -> Result<(), Failure> {
        let text = row.used.to_string();
        let (number, is_exact) = decimal(&text).unwrap_or((0, false));
        self.tenants.push(row.tenant.into());
        self.meters.push(row.meter.into());
        self.days.push(since_epoch(row.day));
        self.used.push(number.to_be_bytes().to_vec().into());
        self.has_exact.push(i16::from(!is_exact));
        if !is_exact {
            self.exact.push(text.as_str().into());
        }
        if self.days.len() < GROUP { Ok(()) } else { self.group().map_err(failed) }
    }

    fn end(mut self: Box<Self>) -> Result<(), Failure> {
        if !self.days.is_empty() {
            self.group().map_err(failed)?;
        }
        self.to.finish().map_err(failed)?;
        std::io::Write::flush(self.to.inner_mut()).map_err(not_written)
    }
}

fn schema(by: By) -> Result<TypePtr, ParquetError> {
    let text = |name: &str, repetition| {
        let field = Type::primitive_type_builder(name, Physical::BYTE_ARRAY);
        field.with_logical_type(Some(LogicalType::String)).with_repetition(repetition).build()
    };
    let day = Type::primitive_type_builder(by.word(), Physical::INT32)
        .with_logical_type(Some(LogicalType::Date))
        .with_repetition(Repetition::REQUIRED);
    let used = Type::primitive_type_builder("used", Physical::FIXED_LEN_BYTE_ARRAY)
        .with_length(16)
        .with_precision(PRECISION)
        .with_scale(SCALE.cast_signed())
        .with_converted_type(ConvertedType::DECIMAL)
        .with_logical_type(Some(LogicalType::decimal(SCALE.cast_signed(), PRECISION)))
        .with_repetition(Repetition::REQUIRED);
    let fields = [
        text("tenant", Repetition::REQUIRED)?,
        text("meter", Repetition::REQUIRED)?,
        day.build()?,
        used.build()?,
        text("used_exact", Repetition::OPTIONAL)?,
    ];
    let fields = fields.map(Arc::new).to_vec();
    Type::group_type_builder("usage").with_fields(fields).build().map(Arc::new)
}

/// Writes the next column of a group; `defined` says for each row whether it has a value.
fn column<T: parquet::data_type::DataType>(
    group: &mut SerializedRowGroupWriter<'_, Sink>,
    values: &[T::T],
    defined: Option<&[i16]>,
) -> Result<(), ParquetError> {
    let missing = || ParquetError::General("a column is missing in the schema".to_owned());
    let mut column = group.next_column()?.ok_or_else(missing)?;
    column.typed::<T>().write_batch(values, defined, None)?;
    column.close()
}

/// An amount (`12`, `12.345`, `37/3`) in units of 10^-18, rounded down, and whether that is exact.
fn decimal(text: &str) -> Option<(i128, bool)> {
    let one = 10_i128.pow(SCALE);
    if let Some((over, under)) = text.split_once('/') {
        let (over, under): (i128, i128) = (over.parse().ok()?, under.parse().ok()?);
        let scaled = over.checked_mul(one)?;
        return Some((scaled.checked_div(under)?, scaled.checked_rem(under)? == 0));
    }
    let (whole, places) = text.split_once('.').unwrap_or((text, ""));
    let kept: String = places.chars().chain("0".repeat(SCALE as usize).chars()).collect();
    let kept: i128 = kept.get(..SCALE as usize)?.parse().ok()?;
    let whole = whole.parse::<i128>().ok()?.checked_mul(one)?;
    Some((whole.checked_add(kept)?, places.len() <= SCALE as usize))
}

/// Days since 1970-01-01.
fn since_epoch(day: Date) -> i32 {
    const EPOCH: Date = jiff::civil::date(1970, 1, 1);
    EPOCH.until(day).map_or(0, |span| span.get_days())
}

fn failed(error: ParquetError) -> Failure {
    match error {
        ParquetError::External(cause) => match cause.downcast::<std::io::Error>() {
            Ok(cause) => not_written(*cause),
            Err(cause) => not_written(std::io::Error::other(cause)),
        },
        other => not_written(std::io::Error::other(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_decimals_and_what_is_not_exact_is_known() {
        let one = 10_i128.pow(SCALE);
        assert_eq!(decimal("12"), Some((12 * one, true)));
        assert_eq!(decimal("12.345"), Some((12_345 * (one / 1_000), true)));
        assert_eq!(decimal("0.000000000000000001"), Some((1, true)));
        assert_eq!(decimal("0.0000000000000000019"), Some((1, false)));
        assert_eq!(decimal("37/3"), Some((12_333_333_333_333_333_333, false)));
        let most = decimal(&u64::MAX.to_string());
        assert_eq!(most, Some((i128::from(u64::MAX) * one, true)));
        assert!(u128::from(u64::MAX) * 10_u128.pow(SCALE) < 10_u128.pow(PRECISION as u32));
        assert_eq!(decimal(&format!("{}/3600000", u64::MAX)).map(|it| it.1), Some(false));
    }

    #[test]
    fn days_are_counted_from_1970() {
        assert_eq!(since_epoch(jiff::civil::date(1970, 1, 2)), 1);
        assert_eq!(since_epoch(jiff::civil::date(2026, 11, 24)), 20_781);
    }
}
