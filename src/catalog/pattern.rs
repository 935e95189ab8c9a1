//! Path patterns, from the plan file or as reported by a host's router.
//!
//! A pattern is identified by its shape: `/v1/accounts/{account}/exports` is the same as
//! `/v1/accounts/{id}/exports`.

use std::cmp::{Ordering, Reverse};

/// Most segments of a pattern: the search recurses once per segment.
const MOST_SEGMENTS: usize = 64;

/// The segments of a pattern, from the first slash on. A [`Segment::Rest`] can only be the last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pattern(pub(super) Vec<Segment>);

/// The text between two slashes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Segment {
    /// These characters.
    Literal(Box<str>),
    /// Any text with this affix: `v{version}`, `{name}.json`.
    Param(Affix),
    /// Everything that follows, including slashes, after this affix: `{*rest}`.
    Rest(Affix),
}

/// Text before and after a parameter within its segment; mostly empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Affix {
    before: Box<str>,
    after: Box<str>,
}

impl Affix {
    /// Whether a segment matches; `or_empty` allows an empty value.
    pub(super) fn takes(&self, segment: &str, or_empty: bool) -> bool {
        let least = self.before.len() + self.after.len() + usize::from(!or_empty);
        segment.len() >= least
            && segment.starts_with(&*self.before)
            && segment.ends_with(&*self.after)
    }
}

impl Segment {
    /// Whether some text between two slashes fits both.
    fn meets(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Literal(one), Self::Literal(other)) => one == other,
            (Self::Literal(text), Self::Param(affix) | Self::Rest(affix))
            | (Self::Param(affix) | Self::Rest(affix), Self::Literal(text)) => {
                affix.takes(text, true)
            }
            (Self::Param(one) | Self::Rest(one), Self::Param(other) | Self::Rest(other)) => {
                let is_end =
                    one.after.ends_with(&*other.after) || other.after.ends_with(&*one.after);
                is_end && begin_alike(&one.before, &other.before)
            }
        }
    }

    /// Whether some text of it begins as a rest with this affix does.
    fn may_begin(&self, rest: &Affix) -> bool {
        match self {
            Self::Literal(text) => text.starts_with(&*rest.before),
            Self::Param(affix) | Self::Rest(affix) => begin_alike(&affix.before, &rest.before),
        }
    }
}

/// Whether some text begins with both.
fn begin_alike(one: &str, other: &str) -> bool {
    one.starts_with(other) || other.starts_with(one)
}

/// An error in a pattern, and what to write instead.
pub(super) type Wrong = (String, String);

impl Pattern {
    /// A path of the plan file.
    pub(super) fn of_plan(path: &str) -> Result<Self, Wrong> {
        let mut segments = Vec::new();
        let mut parts = path.strip_prefix('/').unwrap_or(path).split('/').peekable();
        while let Some(part) = parts.next() {
            segments.push(plan_segment(path, part, parts.peek().is_none())?);
        }
        if segments.len() > MOST_SEGMENTS {
            let message = format!("a pattern has at most {MOST_SEGMENTS} segments");
            return Err((message, "end it with `{*rest}`".to_owned()));
        }
        Ok(Self(segments))
    }

    /// A pattern in the syntax of axum (`/{id}`, `/{*rest}`) or actix-web (`/{id:\d+}`,
    /// `/{tail:.*}`, `/{tail}*`). `None`: no plan-file pattern has its shape, for instance if a
    /// parameter spans a slash and is not at the end.
    pub(super) fn of_host(text: &str) -> Option<Self> {
        let mut segments = Vec::new();
        let mut rest = Some(text.strip_prefix('/')?);
        while let Some(from) = rest {
            let (segment, after) = host_segment(from)?;
            rest = after;
            if matches!(segment, Segment::Rest(_)) && rest.is_some() {
                return None;
            }
            segments.push(segment);
        }
        (segments.len() <= MOST_SEGMENTS).then_some(Self(segments))
    }

    /// The same, and never `None` for a path: where no plan-file pattern has its shape, everything
    /// from that segment on fits.
    pub(super) fn of_host_or_wider(text: &str) -> Option<Self> {
        let mut segments = Vec::new();
        let mut rest = Some(text.strip_prefix('/')?);
        while let Some(from) = rest {
            let segment = host_segment(from).filter(|_| segments.len() < MOST_SEGMENTS);
            let (segment, after) = segment.unwrap_or((Segment::Rest(Affix::default()), None));
            rest = after.filter(|_| !matches!(segment, Segment::Rest(_)));
            segments.push(segment);
        }
        Some(Self(segments))
    }

    /// Its text without the names of parameters: `/v1/{}/{*}`.
    pub(super) fn shape(&self) -> String {
        self.0.iter().fold(String::new(), |text, segment| match segment {
            Segment::Literal(literal) => format!("{text}/{literal}"),
            Segment::Param(Affix { before, after }) => format!("{text}/{before}{{}}{after}"),
            Segment::Rest(affix) => format!("{text}/{}{{*}}", affix.before),
        })
    }

    /// Whether it takes everything that follows.
    pub(super) fn ends_with_rest(&self) -> bool {
        matches!(self.0.last(), Some(Segment::Rest(_)))
    }

    /// Whether its last segment is text alone.
    pub(super) fn ends_with_text(&self) -> bool {
        matches!(self.0.last(), Some(Segment::Literal(_)))
    }

    /// Whether some path fits both; where that depends on empty values, it does.
    pub(super) fn meets(&self, other: &Self) -> bool {
        let (mut ours, mut theirs) = (self.0.iter(), other.0.iter());
        loop {
            match (ours.next(), theirs.next()) {
                (None, None) => return true,
                (None, Some(_)) | (Some(_), None) => return false,
                (Some(Segment::Rest(affix)), Some(other))
                | (Some(other), Some(Segment::Rest(affix))) => return other.may_begin(affix),
                (Some(our), Some(their)) if !our.meets(their) => return false,
                _ => {}
            }
        }
    }

    /// Whether a decoded path fits, even with empty values that axum would not accept.
    pub(super) fn covers(&self, path: &str) -> bool {
        let mut rest = path.strip_prefix('/');
        for segment in &self.0 {
            let Some(from) = rest else { return false };
            let (part, after) = cut(from);
            let fits = match segment {
                Segment::Rest(affix) => return affix.takes(from, true),
                Segment::Literal(text) => **text == *part,
                Segment::Param(affix) => affix.takes(part, true),
            };
            if !fits {
                return false;
            }
            rest = after;
        }
        rest.is_none()
    }

    /// Order in which two patterns matching a path are found; the finer one is less.
    pub(super) fn finer(&self, other: &Self) -> Ordering {
        self.0.iter().map(order).cmp(other.0.iter().map(order))
    }
}

/// The order in which alternatives at one position are tried.
pub(super) fn order(segment: &Segment) -> (bool, Reverse<usize>, Reverse<usize>, bool) {
    let of = |affix: &Affix, is_rest| {
        (true, Reverse(affix.before.len()), Reverse(affix.after.len()), is_rest)
    };
    match segment {
        Segment::Literal(_) => (false, Reverse(0), Reverse(0), false),
        Segment::Param(affix) => of(affix, false),
        Segment::Rest(affix) => of(affix, true),
    }
}

/// The first segment after a slash, and the text after the next slash.
pub(super) fn cut(rest: &str) -> (&str, Option<&str>) {
    // By bytes: a search for a character costs more than all of a segment's.
    match rest.bytes().position(|byte| byte == b'/') {
        Some(at) => (&rest[..at], Some(&rest[at + 1..])),
        None => (rest, None),
    }
}

fn plan_segment(path: &str, part: &str, is_last: bool) -> Result<Segment, Wrong> {
    let wrong = |message: String, help: String| Err((message, help));
    let foreign = || match part.as_bytes() {
        [b':', name @ ..] => Some(name),
        [b'<', name @ .., b'>'] => Some(name),
        _ => None,
    };
    if let Some(name) = foreign() {
        let name = String::from_utf8_lossy(name);
        return wrong(
            format!("`{part}` would match these characters alone"),
            format!("write `{{{name}}}` for a segment"),
        );
    }
    if part.starts_with('*') || part.ends_with("}*") {
        let name = part.trim_matches(['*', '{', '}', ':', '.']);
        let name = if name.is_empty() { "rest" } else { name };
        return wrong(
            format!("`{part}` would match these characters alone"),
            match is_last {
                true => {
                    format!("write `{{*{name}}}` for all that follows, `{{name}}` for one segment")
                }
                false => "write `{name}` for one segment".to_owned(),
            },
        );
    }
    let mut affix = [String::new(), String::new()];
    let mut found: Option<bool> = None;
    let mut rest = part;
    while let Some(first) = rest.chars().next() {
        let literal = if rest.starts_with("{{") || rest.starts_with("}}") {
            rest = &rest[2..];
            first
        } else if first == '}' {
            return wrong(
                format!("`{path}` has a `}}` too many"),
                "write `}}` for a brace".to_owned(),
            );
        } else if first != '{' {
            rest = &rest[first.len_utf8()..];
            first
        } else {
            let Some((name, after)) = rest[1..].split_once('}') else {
                let help = "write parameters as `{name}`, `{{` for a brace";
                return wrong(format!("a parameter of `{path}` does not end"), help.to_owned());
            };
            let (is_rest, name) = match name.strip_prefix('*') {
                Some(name) => (true, name),
                None => (false, name),
            };
            if let Some((name, regex)) = name.split_once(':') {
                let meant = if regex.starts_with('.') { "{*" } else { "{" };
                let message = "a parameter of a plan file has no regular expression".to_owned();
                return wrong(message, format!("write `{meant}{name}}}`"));
            }
            if name.is_empty() || name.contains(['{', '*']) {
                let help = "write parameters as `{name}`, and `{*rest}` at the end";
                return wrong(format!("a parameter of `{path}` has no name"), help.to_owned());
            }
            if found.is_some() {
                let help = "write one to a segment".to_owned();
                return wrong(format!("`{part}` has two parameters in a segment"), help);
            }
            if is_rest && !(is_last && after.is_empty()) {
                let help = "write `{name}` for one segment, or end the pattern there";
                return wrong(format!("`{{*{name}}}` is not at the end"), help.to_owned());
            }
            found = Some(is_rest);
            rest = after;
            continue;
        };
        affix[usize::from(found.is_some())].push(literal);
    }
    let [before, after] = affix.map(String::into_boxed_str);
    Ok(match found {
        None => Segment::Literal(before),
        Some(false) => Segment::Param(Affix { before, after }),
        Some(true) => Segment::Rest(Affix { before, after }),
    })
}

/// The first segment of a host's pattern after a slash, and the text after the next slash.
fn host_segment(text: &str) -> Option<(Segment, Option<&str>)> {
    let mut affix = [String::new(), String::new()];
    let mut found: Option<bool> = None;
    let mut rest = text;
    let after = loop {
        let Some(first) = rest.chars().next() else { break None };
        if first == '/' {
            break Some(&rest[1..]);
        }
        if rest.starts_with("{{") || rest.starts_with("}}") {
            affix[usize::from(found.is_some())].push(first);
            rest = &rest[2..];
            continue;
        }
        if first != '{' {
            affix[usize::from(found.is_some())].push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        }
        if found.is_some() {
            return None;
        }
        let end = closing(rest)?;
        let name = &rest[1..end];
        rest = &rest[end + 1..];
        let is_rest = match (name.starts_with('*'), name.split_once(':')) {
            (true, _) => true,
            (false, Some((_, ".*" | ".+"))) => true,
            (false, Some((_, regex))) if goes_over_slashes(regex) => return None,
            (false, _) if rest == "*" => {
                rest = "";
                true
            }
            _ => false,
        };
        found = Some(is_rest);
    };
    let [before, behind] = affix.map(String::into_boxed_str);
    let affix = Affix { before, after: behind };
    let segment = match found {
        None => Segment::Literal(super::escapes::decode(&affix.before).into()),
        Some(false) => Segment::Param(affix),
        Some(true) if affix.after.is_empty() => Segment::Rest(affix),
        Some(true) => return None,
    };
    Some((segment, after))
}

/// The position of the brace closing the one at the start of `text`; regular expressions have
/// braces too.
fn closing(text: &str) -> Option<usize> {
    let mut open = 0_u32;
    for (at, c) in text.char_indices() {
        match c {
            '{' => open += 1,
            '}' if open == 1 => return Some(at),
            '}' => open -= 1,
            _ => {}
        }
    }
    None
}

/// Whether a regular expression might match a slash; if in doubt, true.
fn goes_over_slashes(regex: &str) -> bool {
    let plain = regex.replace("[^/]", "").replace(r"\.", "");
    let over =
        ["/", ".", "[^", r"\D", r"\W", r"\S", r"\p", r"\P", r"\x", r"\u", r"\U", "[!-", "[ -"];
    over.iter().any(|part| plain.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(path: &str) -> Pattern {
        Pattern::of_plan(path).unwrap()
    }

    #[test]
    fn names_of_parameters_play_no_part() {
        for (host, ours) in [
            ("/v1/accounts/{id}/exports", "/v1/accounts/{account}/exports"),
            ("/files/{*path}", "/files/{*rest}"),
            ("/files/{tail:.*}", "/files/{*rest}"),
            ("/files/{tail}*", "/files/{*rest}"),
            (r"/users/{id:\d+}", "/users/{id}"),
            ("/users/{id:[[:digit:]]{6}}", "/users/{id}"),
            ("/users/{id:[^/]+}/keys", "/users/{id}/keys"),
            ("/v{version}/x.json", "/v{n}/x.json"),
            ("/{name}.json", "/{file}.json"),
            ("/f%C3%BCr", "/für"),
            ("/{{x}}", "/{{x}}"),
            ("/", "/"),
            ("/a/", "/a/"),
        ] {
            assert_eq!(Pattern::of_host(host), Some(plan(ours)), "{host}");
        }
        assert_ne!(Pattern::of_host("/a/{b}"), Some(plan("/a/b")));
        assert_ne!(Pattern::of_host("/a/{b}"), Some(plan("/a/{*b}")));
    }

    #[test]
    fn a_hosts_pattern_that_no_plan_file_can_have_is_none() {
        for host in ["", "a", "/{a}-{b}", "/{url:.+}/raw", "/{x:a/b}", "/{x", r"/{x:\D+}"] {
            assert_eq!(Pattern::of_host(host), None, "{host}");
        }
    }

    #[test]
    fn patterns_meet_where_some_path_fits_both() {
        for (one, other, meets) in [
            ("/v1/chat", "/v1/chat", true),
            ("/v1/chat", "/v1/chats", false),
            ("/v1/chat", "/v1/chat/", false),
            ("/v1/{a}", "/v1/chat", true),
            ("/v1/{a}", "/v1/{b}", true),
            ("/v1/{a}/x", "/v1/{b}/y", false),
            ("/v1/{*rest}", "/v1/a/b", true),
            ("/v1/{*rest}", "/v1/{a}/b", true),
            ("/v1/{*rest}", "/v1", false),
            ("/v1/{*rest}", "/v2/{*rest}", false),
            ("/{*rest}", "/", true),
            ("/v{n}/x", "/v1/x", true),
            ("/v{n}/x", "/w{n}/x", false),
            ("/{f}.json", "/{f}.xml", false),
            ("/{f}.json", "/a{f}", true),
            ("/img-{*rest}", "/img-1/2", true),
            ("/img-{*rest}", "/i{n}/2", true),
            ("/img-{*rest}", "/pic-1/2", false),
        ] {
            assert_eq!(plan(one).meets(&plan(other)), meets, "{one} {other}");
            assert_eq!(plan(other).meets(&plan(one)), meets, "{other} {one}");
        }
    }

    #[test]
    fn what_no_plan_file_can_have_is_widened() {
        for (host, ours) in [
            ("/v1/{id}", "/v1/{id}"),
            ("/v1/{url:.+}/raw", "/v1/{*rest}"),
            ("/v1/{a}-{b}/x", "/v1/{*rest}"),
            (r"/v1/{x:\D+}", "/v1/{*rest}"),
        ] {
            assert_eq!(Pattern::of_host_or_wider(host), Some(plan(ours)), "{host}");
        }
        assert_eq!(Pattern::of_host_or_wider("v1"), None);
    }

    #[test]
    fn the_finer_of_two_patterns_is_the_one_with_more_said_first() {
        let order = ["/a/b", "/a/x{b}", "/a/{b}.json", "/a/{b}", "/a/{*r}", "/{a}/b", "/{*r}"];
        for pair in order.windows(2) {
            assert_eq!(plan(pair[0]).finer(&plan(pair[1])), Ordering::Less, "{pair:?}");
        }
    }
}
