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

/// The longest piece of a file that a message about it quotes, in characters: a name, never a key.
const QUOTED: usize = 32;

/// The message of a TOML error in `text` with its place, on one line and without the text itself: that may be a file given
/// by mistake, which holds secrets. Of a key that does not exist it names the nearest that does.
pub fn one_line(text: &str, e: &toml::de::Error) -> String {
    let said = match e.span() {
        Some(span) => format!("{}: {}", place(text, span.start), e.message()),
        // The keys in the place of a line.
        None => e.to_string(),
    };
    let line = said.lines().map(str::trim).filter(|l| !l.is_empty()).collect::<Vec<_>>().join(": ");
    with_nearest(&line).unwrap_or_else(|| unquoted(&line))
}

/// Where byte `at` of a text is, counted in lines and characters from 1.
fn place(text: &str, at: usize) -> String {
    let before = text.get(..at).unwrap_or(text);
    let (line, column) =
        (before.matches('\n').count() + 1, before.chars().rev().take_while(|c| *c != '\n').count() + 1);
    format!("TOML parse error at line {line}, column {column}")
}

/// A message without the long pieces that it quotes, and without long words.
fn unquoted(line: &str) -> String {
    let (mut kept, mut piece) = (String::new(), String::new());
    let (mut mark, mut escaped) = (None, false);
    let keep = |kept: &mut String, piece: &mut String| {
        let long = piece.chars().count() > QUOTED;
        kept.push_str(if long { ".." } else { piece });
        piece.clear();
    };
    for c in line.chars() {
        let ends = if let Some(m) = mark { c == m && !escaped } else { c == ' ' || c == '"' || c == '`' };
        escaped = c == '\\' && !escaped;
        if !ends {
            piece.push(c);
            continue;
        }
        keep(&mut kept, &mut piece);
        kept.push(c);
        mark = if mark.is_none() && c != ' ' { Some(c) } else { None };
    }
    keep(&mut kept, &mut piece);
    kept
}

/// A line that tells an unknown key and lists those expected, with the nearest in their place.
fn with_nearest(line: &str) -> Option<String> {
    let (place, rest) = line.split_once("unknown field `")?;
    let (key, expected) = rest.split_once("`, expected ")?;
    // Every second piece stands between two ticks.
    let near = nearest(key, expected.split('`').skip(1).step_by(2))?;
    Some(format!("{place}{key}: no such key; {near:?} is the nearest"))
}

/// The name that differs least from `text`, if by half of its letters at most, or by two.
pub fn nearest<'a>(text: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let distance = |k: &'a str| (edits(text, k), k);
    let (d, name) = known.map(distance).min()?;
    (d <= (text.chars().count().max(name.len()) / 2).max(2)).then_some(name)
}

/// Insertions, deletions, replacements and exchanges of neighbours between two texts (Damerau 1964).
fn edits(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    // Rows i - 1 and i of the table, and the one before them.
    let (mut before, mut row): (Vec<usize>, Vec<usize>) = (Vec::new(), (0..=b.len()).collect());
    for (i, x) in a.iter().enumerate() {
        let mut next = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let mut least = (row[j] + usize::from(x != y)).min(row[j + 1] + 1).min(next[j] + 1);
            if i > 0 && j > 0 && a[i - 1] == *y && b[j - 1] == *x {
                least = least.min(before[j - 1] + 1);
            }
            next.push(least);
        }
        before = std::mem::replace(&mut row, next);
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name() {
        let names = ["epochs", "batch", "validation"];
        assert_eq!(nearest("epoch", names.into_iter()), Some("epochs"));
        assert_eq!(nearest("validaton", names.into_iter()), Some("validation"));
        assert_eq!(nearest("momentum", names.into_iter()), None);
        assert_eq!((edits("kitten", "sitting"), edits("", "abc"), edits("a", "a")), (3, 3, 0));
        assert_eq!(
            (edits("btach", "batch"), edits("ba", "ab"), nearest("rleu", ["elu", "relu"].into_iter())),
            (1, 1, Some("relu"))
        );
    }

    #[test]
    fn keys_that_do_not_exist() {
        #[derive(Debug, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        #[allow(dead_code, reason = "what is read is not looked at")]
        struct File {
            rows: u32,
            name: Option<String>,
        }
        let said = |text: &str| one_line(text, &toml::from_str::<File>(text).unwrap_err());
        assert_eq!(
            said("name = \"a\"\nrow = 5"),
            "TOML parse error at line 2, column 1: row: no such key; \"rows\" is the nearest"
        );
        let far = said("rows = 5\nmomentum = 1");
        assert!(far.ends_with("unknown field `momentum`, expected `rows` or `name`"), "{far}");
        assert!(said("rows = \"x\"").contains("invalid type"));
    }

    #[test]
    fn no_text_of_the_file_is_quoted() {
        #[derive(Debug, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        #[allow(dead_code, reason = "what is read is not looked at")]
        struct File {
            rows: u32,
        }
        let key = "0123456789abcdef".repeat(4);
        for (text, place) in [
            (key.clone(), "line 1, column 65"),
            (format!("# a key\n{key}\n"), "line 2, column 65"),
            (format!("{key} = 1"), "line 1, column 1"),
            (format!("rows = \"{key}\""), "line 1, column 8"),
            (format!("rows = \"a \\\" b {key}\""), "line 1, column 8"),
            (format!("rows = {key}"), "line 1, column 8"),
            (format!("rows = \"é\" {key}"), "line 1, column 12"),
            (format!("rows = '''\n{}'''", "a secret phrase of several words, ".repeat(3)), "line 1, column 8"),
        ] {
            let said = one_line(&text, &toml::from_str::<File>(&text).unwrap_err());
            assert!(said.starts_with(&format!("TOML parse error at {place}: ")), "{said}");
            assert!(!said.contains("89abcdef") && !said.contains("phrase") && !said.contains('\n'), "{said}");
        }
    }

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
