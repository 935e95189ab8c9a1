//! What is logged while a test of this crate does something, on its own thread.

use std::io;
use std::sync::{Arc, Mutex};

/// The events from INFO on that this logs, each as it is written.
pub(crate) fn lines(work: impl FnOnce()) -> Vec<String> {
    let heard = Heard::default();
    let writer = heard.clone();
    let log = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone());
    tracing::subscriber::with_default(log.finish(), work);
    std::mem::take(&mut *heard.0.lock().expect("no test has panicked with it"))
}

#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<String>>>);

/// An event is one write.
impl io::Write for Heard {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event).into_owned();
        self.0.lock().expect("no test has panicked with it").push(text);
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
