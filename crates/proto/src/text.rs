//! Text of other people that is shown before somebody decides: what is seen must be all that is there.

/// Characters that show nothing, or change how others are shown, beside the control characters: soft hyphens, fillers,
/// joiners, marks and overrides of direction, line separators, variation selectors, tags.
const UNSEEN: [(char, char); 20] = [
    ('\u{ad}', '\u{ad}'),
    ('\u{34f}', '\u{34f}'),
    ('\u{600}', '\u{605}'),
    ('\u{61c}', '\u{61c}'),
    ('\u{6dd}', '\u{6dd}'),
    ('\u{70f}', '\u{70f}'),
    ('\u{115f}', '\u{1160}'),
    ('\u{17b4}', '\u{17b5}'),
    ('\u{180b}', '\u{180f}'),
    ('\u{200b}', '\u{200f}'),
    ('\u{2028}', '\u{202e}'),
    ('\u{2060}', '\u{206f}'),
    ('\u{2800}', '\u{2800}'),
    ('\u{3164}', '\u{3164}'),
    ('\u{fe00}', '\u{fe0f}'),
    ('\u{feff}', '\u{feff}'),
    ('\u{ffa0}', '\u{ffa0}'),
    ('\u{fff0}', '\u{fffb}'),
    ('\u{1d173}', '\u{1d17a}'),
    ('\u{e0000}', '\u{e0fff}'),
];

/// Whether all of `text` is seen as it stands: no control characters, none that are invisible or reorder what is shown.
pub fn is_plain(text: &str) -> bool {
    text.chars().all(|c| !c.is_control() && UNSEEN.iter().all(|(first, last)| !(*first..=*last).contains(&c)))
}

/// The message of a TOML error with its place, on one line.
pub fn one_line(e: &toml::de::Error) -> String {
    let text = e.to_string();
    let words: Vec<&str> = text.lines().filter(|l| !l.contains(" | ") && !l.trim().ends_with('|')).collect();
    words.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_seen_is_not_plain() {
        for plain in ["", "trained weights dense/kernel (30 numbers), to use the model", "Größe 5 µm, 体温, ärztlich"]
        {
            assert!(is_plain(plain), "{plain:?}");
        }
        for c in ['\n', '\u{1b}', '\u{85}', '\u{200b}', '\u{202e}', '\u{2066}', '\u{feff}', '\u{ad}', '\u{e0041}'] {
            assert!(!is_plain(&format!("the loss{c} of the epoch")), "{c:?}");
        }
    }
}
