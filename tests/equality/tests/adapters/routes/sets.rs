//! Random sets of routes, and random paths to walk around them.

use std::fmt::Write as _;

/// Literals, as they read when decoded; the empty one is a double slash, or one at the end.
const LITERALS: [&str; 10] = ["a", "b", "ab", "v1", "search", "für", "@me", "a+b", "x.json", ""];

/// What stands in a path beside these, as it is sent.
const VALUES: [&str; 12] =
    ["x", "a%2Fb", "%2f", "%", "%zz", "%2B", "%25", "%2573earch", ".", "..", "%00", "%ff"];

/// A set of routes of one host.
#[derive(Debug)]
pub(crate) struct Set {
    /// The most specific first.
    pub(crate) routes: Vec<Route>,
    /// They cost what they happen to.
    pub(crate) priced: bool,
    /// The plan file with the same routes, `r0` and so on.
    pub(crate) plans: String,
}

/// One of them.
#[derive(Debug)]
pub(crate) struct Route {
    segments: Vec<Segment>,
    pub(crate) methods: Vec<&'static str>,
    /// What a request costs on it.
    pub(crate) cost: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Segment {
    Literal(&'static str),
    Prefixed(&'static str),
    Any,
    Rest,
}

impl Segment {
    fn order(self) -> (u8, usize) {
        match self {
            Self::Literal(_) => (0, 0),
            Self::Prefixed(prefix) => (1, usize::MAX - prefix.len()),
            Self::Any => (2, 0),
            Self::Rest => (3, 0),
        }
    }

    /// Whether two hold the same places to a router that knows no difference of rank between them.
    fn clashes(self, other: Self) -> bool {
        matches!((self, other), (Self::Any, Self::Rest) | (Self::Rest, Self::Any))
    }
}

impl Set {
    /// A set; routes cost the same, or what they happen to.
    pub(crate) fn new(dice: &mut Dice, priced: bool) -> Self {
        let mut routes: Vec<Route> = Vec::new();
        for _ in 0..2 + dice.below(9) {
            let depth = 1 + dice.below(3);
            let mut segments: Vec<_> = (0..depth)
                .map(|_| match dice.below(8) {
                    0..4 => Segment::Literal(LITERALS[dice.below(LITERALS.len())]),
                    4 => Segment::Prefixed(["v", "a"][dice.below(2)]),
                    _ => Segment::Any,
                })
                .collect();
            if dice.below(4) == 0 {
                segments.push(Segment::Rest);
            }
            let clash = |known: &Route| {
                known.segments == segments || {
                    let pairs = known.segments.iter().zip(&segments);
                    let first = pairs.into_iter().find(|(a, b)| a != b);
                    first.is_some_and(|(a, b)| a.clashes(*b))
                }
            };
            if routes.iter().any(clash) {
                continue;
            }
            let methods: &[&str] = [&["GET"][..], &["POST"], &["GET", "POST"]][dice.below(3)];
            let cost = if priced { dice.below(4) as u64 } else { 1 };
            routes.push(Route { segments, methods: methods.to_vec(), cost });
        }
        let order = |route: &Route| route.segments.iter().map(|s| s.order()).collect::<Vec<_>>();
        routes.sort_by_key(order);
        let mut plans = "default-plan = \"free\"\n[plan.free]\n".to_owned();
        for (nth, route) in routes.iter().enumerate() {
            let path = route.text(|text| text.to_owned(), |nth| format!("{{q{nth}}}"), "{*all}");
            let patterns: Vec<_> =
                route.methods.iter().map(|m| format!("\"{m} {path}\"")).collect();
            let patterns = patterns.join(", ");
            write!(plans, "[route.r{nth}]\nmatch = [{patterns}]\n").unwrap();
            if priced {
                writeln!(plans, "cost = {{ requests = {} }}", route.cost).unwrap();
            }
        }
        Self { routes, priced, plans }
    }

    /// A method and a path that is on one of the routes, or nearly.
    pub(crate) fn request(&self, dice: &mut Dice) -> (&'static str, String) {
        let route = &self.routes[dice.below(self.routes.len())];
        let mut path = String::new();
        for segment in &route.segments {
            path.push('/');
            match segment {
                Segment::Literal(text) => path.push_str(&encoded(text)),
                Segment::Prefixed(prefix) => path.push_str(&format!("{prefix}{}", value(dice))),
                Segment::Any => path.push_str(&value(dice)),
                Segment::Rest => {
                    let parts: Vec<_> = (0..dice.below(4)).map(|_| value(dice)).collect();
                    path.push_str(&parts.join("/"));
                }
            }
        }
        for _ in 0..dice.below(3) {
            let slashes: Vec<_> = path.match_indices('/').map(|(at, _)| at).collect();
            match dice.below(5) {
                0 => path.push('/'),
                1 => path.insert(slashes[dice.below(slashes.len())], '/'),
                2 if slashes.len() > 1 => path.truncate(slashes[slashes.len() - 1]),
                _ => {
                    let at = dice.below(path.len());
                    let byte = path.as_bytes()[at];
                    if byte.is_ascii_alphanumeric() || b"@+.".contains(&byte) {
                        path.replace_range(at..=at, &format!("%{byte:02x}"));
                    }
                }
            }
        }
        (["GET", "POST"][dice.below(2)], path)
    }
}

impl Route {
    /// As axum has it.
    pub(crate) fn axum(&self) -> String {
        self.text(encoded, |nth| format!("{{p{nth}}}"), "{*rest}")
    }

    /// As actix-web has it, in one of its ways.
    pub(crate) fn actix(&self, nth: usize, priced: bool) -> String {
        // That a rest may not be empty is not always seen from outside: of two routes that cost the
        // same it may then be the other.
        let rest = ["{tail:.*}", "{tail}*", "{tail:.+}"][nth % if priced { 3 } else { 2 }];
        let any = |at| match nth % 2 {
            0 => format!("{{p{at}}}"),
            _ => format!("{{p{at}:[^/]+}}"),
        };
        self.text(|text| text.to_owned(), any, rest)
    }

    fn text(
        &self,
        literal: impl Fn(&str) -> String,
        any: impl Fn(usize) -> String,
        rest: &str,
    ) -> String {
        let segments = self.segments.iter().enumerate().map(|(nth, segment)| match segment {
            Segment::Literal(text) => format!("/{}", literal(text)),
            Segment::Prefixed(prefix) => format!("/{prefix}{}", any(nth)),
            Segment::Any => format!("/{}", any(nth)),
            Segment::Rest => format!("/{rest}"),
        });
        segments.collect()
    }
}

fn value(dice: &mut Dice) -> String {
    match dice.below(2) {
        0 => encoded(LITERALS[dice.below(LITERALS.len())]),
        _ => VALUES[dice.below(VALUES.len())].to_owned(),
    }
}

/// As clients write it.
fn encoded(text: &str) -> String {
    text.replace('ü', "%C3%BC")
}

/// splitmix64: numbers that look random and are the same for the same seed.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, most: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % most as u64) as usize
    }
}
