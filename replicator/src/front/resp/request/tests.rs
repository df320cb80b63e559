use proptest::prelude::*;

use super::*;

fn parser() -> Parser {
    Parser::new(Limits {
        argument: 16,
        request: 200,
        arguments: 4,
    })
}

/// All requests of `input`, fed in pieces of `step` bytes as a connection would.
fn requests(input: &[u8], step: usize) -> Result<Vec<Option<Vec<Vec<u8>>>>, ProtocolError> {
    let mut parser = parser();
    let mut buffer = Vec::new();
    let mut found = Vec::new();
    for piece in input.chunks(step.max(1)) {
        buffer.extend_from_slice(piece);
        loop {
            let consumed = match parser.parse(&buffer, true)? {
                Parsed::Incomplete { total } => {
                    assert!(total > buffer.len(), "asks for no more than there is");
                    break;
                }
                Parsed::Request { consumed } => {
                    found.push(Some(
                        parser.arguments(&buffer).from(0).map(<[u8]>::to_vec).collect(),
                    ));
                    consumed
                }
                Parsed::Skip { consumed } => consumed,
                Parsed::TooLarge { consumed } => {
                    found.push(None);
                    consumed
                }
            };
            assert!(consumed > 0 && consumed <= buffer.len());
            buffer.drain(..consumed);
        }
        assert!(buffer.len() <= 200 + step || buffer.len() <= MAX_LINE + step);
    }
    Ok(found)
}

fn text(requests: Vec<Option<Vec<Vec<u8>>>>) -> Vec<String> {
    requests
        .into_iter()
        .map(|request| match request {
            None => "too large".to_owned(),
            Some(arguments) => arguments
                .iter()
                .map(|a| a.escape_ascii().to_string())
                .collect::<Vec<_>>()
                .join("|"),
        })
        .collect()
}

#[test]
fn requests_are_found_however_they_are_cut() {
    let input = b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n\r\nPING\r\n*0\r\n*-1\r\n*1\r\n$0\r\n\r\n  SET  k 'a b'  \n";
    for step in 1..=input.len() {
        assert_eq!(
            text(requests(input, step).unwrap()),
            ["GET|a", "PING", "", "SET|k|a b"]
        );
    }
}

#[test]
fn what_is_above_a_limit_is_swallowed_and_the_next_request_is_read() {
    let long = "x".repeat(17);
    let many = "*5\r\n".to_owned() + &"$1\r\na\r\n".repeat(5);
    let sum = "*4\r\n".to_owned() + &format!("${}\r\n{}\r\n", 15, "y".repeat(15)).repeat(4);
    let input = format!("*3\r\n$3\r\nSET\r\n$17\r\n{long}\r\n$1\r\nb\r\n{many}{sum}*1\r\n$4\r\nPING\r\n");
    for step in [1, 2, 3, 7, 50, input.len()] {
        let found = text(requests(input.as_bytes(), step).unwrap());
        assert_eq!(
            found.first().map(String::as_str),
            Some("too large"),
            "step {step}"
        );
        assert_eq!(found.get(1).map(String::as_str), Some("too large"), "step {step}");
        assert_eq!(found.last().map(String::as_str), Some("PING"), "step {step}");
        assert_eq!(found.len(), 4);
    }
}

#[test]
fn malformed_input_is_named_as_redis_names_it() {
    for (input, expected) in [
        ("*a\r\n", "Protocol error: invalid multibulk length"),
        ("*3000000000\r\n", "Protocol error: invalid multibulk length"),
        ("*1\r\n:1\r\n", "Protocol error: expected '$', got ':'"),
        ("*1\r\n\u{1}", "Protocol error: expected '$', got '?'"),
        ("*1\r\n$-1\r\n", "Protocol error: invalid bulk length"),
        ("*1\r\n$536870913\r\n", "Protocol error: invalid bulk length"),
        ("*1\r\n$1\r\nabc\r\n", "Protocol error: expected CR LF"),
        ("*1\rx", "Protocol error: expected CR LF"),
        ("a \"b\r\n", "Protocol error: unbalanced quotes in request"),
        ("a \"b\"c\r\n", "Protocol error: unbalanced quotes in request"),
        ("a 'b\r\n", "Protocol error: unbalanced quotes in request"),
    ] {
        for step in [1, input.len()] {
            let error = requests(input.as_bytes(), step).unwrap_err();
            assert_eq!(error.to_string(), expected, "{input:?}");
        }
    }
}

#[test]
fn lines_that_do_not_end_are_refused() {
    let long = "9".repeat(MAX_LINE);
    let cases = [
        ("*", ProtocolError::MultibulkLine),
        ("*1\r\n$", ProtocolError::BulkLine),
        ("", ProtocolError::InlineLength),
    ];
    for (start, expected) in cases {
        let input = format!("{start}{long}");
        assert_eq!(requests(input.as_bytes(), 1_000).unwrap_err(), expected);
    }
}

#[test]
fn before_auth_little_is_taken() {
    let mut parser = Parser::new(Limits::default());
    assert_eq!(
        parser.parse(b"*11\r\n", false),
        Err(ProtocolError::UnauthenticatedMultibulkLength)
    );
    let mut parser = Parser::new(Limits::default());
    assert_eq!(
        parser.parse(b"*1\r\n$16385\r\n", false),
        Err(ProtocolError::UnauthenticatedBulkLength)
    );
}

#[test]
fn inline_escapes_are_read() {
    let input = br#"SET "a\x41\n\"" 'it\'s' plain"x y" "#;
    let mut line = input.to_vec();
    line.extend_from_slice(b"\r\n");
    assert_eq!(
        text(requests(&line, 5).unwrap()),
        [r#"SET|aA\n\"|it\'s|plainx y"#]
    );
}

proptest! {
    #[test]
    fn any_request_is_read_back(
        arguments in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..16), 1..4),
        step in 1_usize..40,
    ) {
        let mut input = Vec::new();
        input.extend_from_slice(format!("*{}\r\n", arguments.len()).as_bytes());
        for argument in &arguments {
            input.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
            input.extend_from_slice(argument);
            input.extend_from_slice(b"\r\n");
        }
        let twice = [input.as_slice(), input.as_slice()].concat();
        prop_assert_eq!(requests(&twice, step), Ok(vec![Some(arguments.clone()), Some(arguments)]));
    }

    #[test]
    fn how_input_is_cut_makes_no_difference(
        input in "[*$0-9\r\n a-c\"'\\\\-]{0,60}",
        step in 1_usize..20,
    ) {
        let input = input.as_bytes();
        prop_assert_eq!(requests(input, step), requests(input, input.len().max(1)));
    }
}
