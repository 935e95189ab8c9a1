//! What came back of a request, as far as it is tallygate's or the handler's.

/// Headers that belong to a framework or to HTTP/1.1, and why they may differ. Everything else must
/// be the same, byte for byte.
pub const FRAMEWORKS_OWN: [(&str, &str); 4] = [
    ("date", "the server's clock, which is not the gate's"),
    ("connection", "whether a connection stays open is between server and client"),
    ("content-length", "framing: a service that is called without a server has none"),
    ("transfer-encoding", "framing, as well"),
];

/// An answer, to its end or to where the client stopped reading.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The request that it answers.
    pub asked: String,
    /// The status; 0 if the connection was closed without an answer.
    pub status: u16,
    /// Names in lower case and values, sorted, without [`FRAMEWORKS_OWN`].
    pub headers: Vec<(String, String)>,
    /// The body, as far as it was read.
    pub body: String,
    /// Whether it came to its end.
    pub is_whole: bool,
}

impl Answer {
    /// The head of an answer, of whose body nothing has been read.
    pub fn head(status: u16, headers: impl IntoIterator<Item = (String, String)>) -> Self {
        let is_own = |name: &str| FRAMEWORKS_OWN.iter().any(|(own, _)| *own == name);
        let mut headers: Vec<_> = headers.into_iter().filter(|(name, _)| !is_own(name)).collect();
        headers.sort();
        Self { status, headers, ..Self::default() }
    }

    /// A header's value, or nothing.
    pub fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map_or("", |(_, value)| value)
    }

    /// What kind of refusal it is, if it is one: its status and problem type.
    pub fn refusal(&self) -> Option<String> {
        let is_problem = self.header("content-type") == "application/problem+json";
        let (_, rest) = self.body.split_once("\"type\":\"").filter(|_| is_problem)?;
        Some(format!("{} {}", self.status, rest.split('"').next()?))
    }
}
