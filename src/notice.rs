//! Lines that an operator must see: of a gate that opens, and of a plan file that changes. They
//! are logged through `tracing`. In a program without a subscriber they would be lost, so there
//! they go to standard error, one each, without a time.

/// Whether no subscriber takes what is logged on this thread.
pub(crate) fn is_unheard() -> bool {
    tracing::dispatcher::get_default(|it| it.is::<tracing::subscriber::NoSubscriber>())
}

/// Writes a line to standard error: its level, its text, its fields.
pub(crate) fn print(level: &str, text: std::fmt::Arguments<'_>, fields: &[(&str, String)]) {
    let fields = fields.iter().map(|(name, value)| format!(" {name}={value}"));
    eprintln!("tallygate: {level}: {text}{}", String::from_iter(fields));
}

/// Logs a line as `tracing`'s macros do, and prints it where there is no subscriber. A field is
/// shown as `Display` does.
macro_rules! notice {
    ($level:ident, $($name:ident = $value:expr,)* $text:literal $(, $($arg:tt)*)?) => {{
        if $crate::notice::is_unheard() {
            let fields = [$((stringify!($name), $value.to_string())),*];
            $crate::notice::print(
                stringify!($level),
                format_args!($text $(, $($arg)*)?),
                &fields,
            );
        } else {
            tracing::$level!($($name = %$value,)* $text $(, $($arg)*)?);
        }
    }};
}

pub(crate) use notice;
