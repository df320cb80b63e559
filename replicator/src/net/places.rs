//! The operator's file of places: which pod is in which zone and on which machine. One pod per line: name, zone and
//! machine between blanks, `-` for what is not known; `#` begins a comment.

/// A pod's place: name, zone, machine.
pub type Place = (String, String, String);

/// A line that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the places file needs three words (pod, zone, machine) and has {words}")]
pub struct PlacesError {
    /// Its number, from 1.
    pub line: usize,
    /// How many words it has.
    pub words: usize,
}

/// Reads the file's text.
///
/// # Errors
/// A line does not have three words.
pub fn parse(text: &str) -> Result<Vec<Place>, PlacesError> {
    let mut places = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.split_once('#').map_or(line, |(before, _)| before);
        let words: Vec<&str> = line.split_whitespace().collect();
        let word = |text: &str| {
            if text == "-" {
                String::new()
            } else {
                text.to_owned()
            }
        };
        match words.as_slice() {
            [] => {}
            [name, zone, machine] => places.push(((*name).to_owned(), word(zone), word(machine))),
            other => {
                return Err(PlacesError {
                    line: number + 1,
                    words: other.len(),
                });
            }
        }
    }
    Ok(places)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read() {
        let places = parse("# pods\nshop-1 eu-1a node1\n\nshop-2 - node2 # new\n").unwrap();
        assert_eq!(
            places,
            [
                ("shop-1".into(), "eu-1a".into(), "node1".into()),
                ("shop-2".into(), String::new(), "node2".into())
            ]
        );
    }

    #[test]
    fn a_bad_line_is_named() {
        assert_eq!(parse("a b c\nd e\n"), Err(PlacesError { line: 2, words: 2 }));
    }
}
