//! Suggestions for unknown names: the known name that was probably meant, or all known names.

/// "did you mean `x`?" for the known name closest to `word`, if one is close.
pub(crate) fn did_you_mean<'a>(
    word: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    /// Longer words are not compared, in bytes: the work grows with the square.
    const LONGEST: usize = 128;
    let lower = word.to_lowercase();
    known
        .into_iter()
        .filter(|name| name.len().max(word.len()) <= LONGEST)
        .map(|name| (strsim::osa_distance(&lower, &name.to_lowercase()), name))
        .filter(|(far, name)| *far <= 1 + name.chars().count() / 4)
        .min_by_key(|(far, _)| *far)
        .map(|(_, name)| name)
}

/// "write `a`", "write `a` or `b`", or a note that nothing of this kind is defined.
pub(crate) fn known_names<'a>(known: impl IntoIterator<Item = &'a str>) -> String {
    /// More names than this are no help.
    const SHOWN: usize = 12;
    let known: Vec<&str> = known.into_iter().collect();
    let mut text = known.iter().take(SHOWN).map(|k| format!("`{k}`")).collect::<Vec<_>>();
    if known.len() > SHOWN {
        text.push("...".to_owned());
    }
    text.join(", ")
}

/// Help for an unknown name: the closest one, or all of them.
pub(crate) fn unknown_help<'a>(
    word: &str,
    known: impl IntoIterator<Item = &'a str> + Clone,
) -> String {
    match did_you_mean(word, known.clone()) {
        Some(name) => format!("did you mean `{name}`?"),
        None => match known_names(known) {
            names if names.is_empty() => "there is none yet: define it first".to_owned(),
            names => format!("write one of {names}"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_close_word_and_not_a_far_one() {
        let known = ["requests", "egress", "credits"];
        assert_eq!(did_you_mean("reqeusts", known), Some("requests"));
        assert_eq!(did_you_mean("request", known), Some("requests"));
        assert_eq!(did_you_mean("Egress", known), Some("egress"));
        assert_eq!(did_you_mean("bananas", known), None);
    }

    #[test]
    fn a_swap_of_neighbours_is_one_edit() {
        assert_eq!(did_you_mean("ba", ["ab"]), Some("ab"));
        assert_eq!(did_you_mean("ca", ["ab"]), None);
    }
}
