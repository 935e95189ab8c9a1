//! Captures log lines of the current thread in unit tests.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use crate::repeated::COUNTING;

/// The events from INFO up that `work` logs.
pub(crate) fn lines(work: impl FnOnce()) -> Vec<String> {
    let _counting = COUNTING.write().unwrap_or_else(PoisonError::into_inner);
    let heard = LogLines::default();
    let writer = heard.clone();
    let log = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone());
    tracing::subscriber::with_default(log.finish(), work);
    std::mem::take(&mut *heard.0.lock().expect("no test has panicked with it"))
}

#[derive(Clone, Default)]
struct LogLines(Arc<Mutex<Vec<String>>>);

/// An event is one write.
impl io::Write for LogLines {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event).into_owned();
        self.0.lock().expect("no test has panicked with it").push(text);
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
