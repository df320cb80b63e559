//! Redis' glob patterns, for KEYS and SCAN. Works in bounded memory and without recursion.

/// Whether `text` matches `pattern`: `*`, `?`, `[a-z]`, `[^…]`, and `\` before a character taken as it is.
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (pattern, text);
    // Where to go on when the characters after the last star do not fit: the star takes one character more.
    let mut retry: Option<(&[u8], &[u8])> = None;
    loop {
        let advanced = match p.split_first() {
            Some((b'*', rest)) => {
                if rest.is_empty() {
                    return true;
                }
                retry = Some((rest, t));
                p = rest;
                continue;
            }
            Some(_) => t
                .split_first()
                .and_then(|(&c, after)| match_one(p, c).map(|rest| (rest, after))),
            None if t.is_empty() => return true,
            None => None,
        };
        if let Some((rest, after)) = advanced {
            (p, t) = (rest, after);
            continue;
        }
        match retry {
            Some((rest, from)) => {
                let Some((_, after)) = from.split_first() else {
                    return false;
                };
                retry = Some((rest, after));
                (p, t) = (rest, after);
            }
            None => return false,
        }
    }
}

/// Matches one character against the pattern's first element; the rest of the pattern when it fits.
fn match_one(pattern: &[u8], c: u8) -> Option<&[u8]> {
    let (&first, rest) = pattern.split_first()?;
    match first {
        b'?' => Some(rest),
        b'\\' => match rest.split_first() {
            Some((&literal, rest)) => (literal == c).then_some(rest),
            None => (c == b'\\').then_some(rest),
        },
        b'[' => match_class(rest, c),
        literal => (literal == c).then_some(rest),
    }
}

fn match_class(mut class: &[u8], c: u8) -> Option<&[u8]> {
    let negated = class.first() == Some(&b'^');
    if negated {
        class = class.get(1..)?;
    }
    let mut found = false;
    loop {
        match class {
            // An unclosed class ends with the pattern, as in Redis.
            [] => return (found != negated).then_some(class),
            [b']', rest @ ..] => return (found != negated).then_some(rest),
            [b'\\', literal, rest @ ..] => {
                found |= *literal == c;
                class = rest;
            }
            [from, b'-', to, rest @ ..] => {
                found |= (*from.min(to)..=*from.max(to)).contains(&c);
                class = rest;
            }
            [literal, rest @ ..] => {
                found |= *literal == c;
                class = rest;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns_match_as_in_redis() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("sess:*", "sess:abc", true),
            ("sess:*", "ses:abc", false),
            ("*:abc", "x:y:abc", true),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("h?llo", "hello", true),
            ("h?llo", "hllo", false),
            ("h[ae]llo", "hallo", true),
            ("h[ae]llo", "hillo", false),
            ("h[^e]llo", "hallo", true),
            ("h[^e]llo", "hello", false),
            ("h[a-c]llo", "hbllo", true),
            ("h[c-a]llo", "hbllo", true),
            ("h\\*llo", "h*llo", true),
            ("h\\*llo", "hxllo", false),
            ("", "", true),
            ("", "a", false),
            ("[", "a", false),
            (
                "*a*a*a*a*a*a*a*a*b",
                "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
                false,
            ),
        ] {
            assert_eq!(
                matches(pattern.as_bytes(), text.as_bytes()),
                expected,
                "{pattern} against {text}"
            );
        }
    }
}
