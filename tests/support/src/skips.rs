//! Tests that need a server which a machine may lack.

/// What the test needs, unless this machine lacks it: then that is printed, and fails in CI.
#[track_caller]
pub fn needed<T>(test: &str, needs: Result<T, String>) -> Option<T> {
    match needs {
        Ok(needs) => Some(needs),
        Err(why) => {
            println!("skipped: {test} ({why})");
            assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "CI runs every test");
            None
        }
    }
}
