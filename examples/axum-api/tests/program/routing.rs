//! Where axum leads a path that is spelled otherwise: nowhere, for everybody.

use crate::support::Home;

#[test]
fn literal_parts_are_taken_to_the_letter() {
    let home = Home::new();
    let api = home.start();
    let nowhere = [
        "/v1/%73earch",
        "/v1/accounts/7/%65xports",
        "/healthz/../v1/search",
        "/v1//search",
        "/v1/search/",
        "/HEALTHZ",
    ];
    for path in nowhere {
        assert_eq!(api.raw("GET", path, &[], "").status, 401, "{path}");
        assert_eq!(api.send("GET", path, "tg_demo_solo").status, 404, "{path}");
    }
}
