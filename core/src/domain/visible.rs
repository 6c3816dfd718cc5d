//! Which characters a person can see, and the form that names have.

use unicode_properties::{GeneralCategoryGroup, UnicodeGeneralCategory};

use super::shown;
use crate::error::{Error, Result};

/// Whether a character shows as itself: letters, marks, numbers, punctuation, symbols and the blank
/// U+0020. Not controls, format characters (zero width, direction of writing), other white space,
/// unassigned and private characters, nor letters and marks that leave no trace.
///
/// ```
/// use ghostwire_store::domain::is_visible;
///
/// assert!("Zoë 王 🦀".chars().all(is_visible));
/// assert!(!is_visible('\u{200b}') && !is_visible('\u{202e}') && !is_visible('\u{3164}'));
/// ```
#[must_use]
pub fn is_visible(character: char) -> bool {
    use GeneralCategoryGroup::{Letter, Mark, Number, Punctuation, Symbol};
    if character.is_ascii() {
        return matches!(character, ' '..='~');
    }
    matches!(character.general_category_group(), Letter | Mark | Number | Punctuation | Symbol)
        && !leaves_no_trace(character)
}

/// The letters, marks and symbols that are default-ignorable in Unicode, or drawn as nothing.
fn leaves_no_trace(character: char) -> bool {
    matches!(character,
        '\u{34f}' // Combining grapheme joiner.
        | '\u{115f}' | '\u{1160}' | '\u{3164}' | '\u{ffa0}' // Fillers of Hangul.
        | '\u{17b4}' | '\u{17b5}' // Inherent vowels of Khmer.
        | '\u{180b}'..='\u{180f}' | '\u{fe00}'..='\u{fe0f}' | '\u{e0100}'..='\u{e01ef}' // Variations.
        | '\u{2800}' // Braille without a dot.
        | '\u{fffc}' // In place of an object.
        | '\u{1d159}' // A note without a head.
    )
}

fn is_mark(character: char) -> bool {
    !character.is_ascii() && character.general_category_group() == GeneralCategoryGroup::Mark
}

/// Refuses a name that is not in the form in which [`canonical`] leaves it.
pub(super) fn check_canonical(what: &'static str, text: &str) -> Result<()> {
    let refused =
        |message: &str| Error::invalid(format!("{what} {message}")).with("name", shown(text));
    if let Some(hidden) = text.chars().find(|character| !is_visible(*character)) {
        return Err(refused("must consist of characters that show, and of single blanks")
            .with("character", format_args!("U+{:04X}", u32::from(hidden))));
    }
    if text.starts_with(' ') || text.ends_with(' ') || text.contains("  ") {
        return Err(refused(
            "must not have white space at either end, nor several blanks in a row",
        ));
    }
    if text.starts_with(is_mark) {
        return Err(refused("must not begin with a mark, which belongs to a letter before it"));
    }
    Ok(())
}

/// What shows of a text, with one blank for each run of white space, none at either end; cut to
/// `max` bytes. May be empty.
pub(super) fn canonical(text: &str, max: usize) -> String {
    let mut kept = String::with_capacity(text.len().min(max));
    for character in text.chars() {
        let character = if character.is_whitespace() { ' ' } else { character };
        let follows_nothing = kept.is_empty() && (character == ' ' || is_mark(character));
        let repeats_a_blank = character == ' ' && kept.ends_with(' ');
        if follows_nothing || repeats_a_blank || !is_visible(character) {
            continue;
        }
        if kept.len() + character.len_utf8() > max {
            break;
        }
        kept.push(character);
    }
    kept.truncate(kept.trim_end().len());
    kept
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_shows_and_what_does_not() {
        for shows in "aZ09~ !é\u{301}ÅжЖ日本ノ한글ไ٣½€→🦀\u{fffd}«»\u{430}".chars()
        {
            assert!(is_visible(shows), "{shows:?}");
        }
        for hidden in [
            '\0',
            '\n',
            '\u{1b}',
            '\u{7f}',
            '\u{85}',
            '\u{9b}',
            '\u{a0}',
            '\u{ad}',
            '\u{34f}',
            '\u{61c}',
            '\u{115f}',
            '\u{17b4}',
            '\u{180e}',
            '\u{200b}',
            '\u{200d}',
            '\u{2028}',
            '\u{2029}',
            '\u{202e}',
            '\u{2062}',
            '\u{2066}',
            '\u{206a}',
            '\u{2800}',
            '\u{3000}',
            '\u{3164}',
            '\u{e000}',
            '\u{fe0f}',
            '\u{feff}',
            '\u{ffa0}',
            '\u{fff9}',
            '\u{ffff}',
            '\u{378}',
            '\u{e0001}',
            '\u{e0100}',
            '\u{10ffff}',
        ] {
            assert!(!is_visible(hidden), "{hidden:?}");
        }
    }

    #[test]
    fn what_is_left_of_a_text() {
        for (text, left) in [
            ("admin\u{200b}", "admin"),
            ("ad\u{ad}min", "admin"),
            (" \u{feff}Ann\u{3000}\t B\u{a0}", "Ann B"),
            ("\u{301}e\u{301}", "e\u{301}"),
            ("a\nb", "a b"),
            ("\u{3164}\u{2800}\u{200d}", ""),
            ("éé é", "éé"),
        ] {
            assert_eq!(canonical(text, 5), left, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_left_is_a_name_and_stays_as_it_is(
            text in prop::collection::vec(prop_oneof![any::<char>(), Just(' '), Just('\u{301}')], 0..40)
        ) {
            let text: String = text.into_iter().collect();
            let left = canonical(&text, 60);
            prop_assert!(left.len() <= 60);
            prop_assert!(check_canonical("a name", &left).is_ok(), "{:?}", left);
            prop_assert_eq!(canonical(&left, 60), left);
        }
    }
}
