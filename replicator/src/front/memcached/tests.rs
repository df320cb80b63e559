use crate::front::testing::Harness;

fn talk(input: &str) -> String {
    let mut harness = Harness::default();
    harness.memcached(input.as_bytes()).escape_ascii().to_string()
}

#[test]
fn items_are_stored_and_fetched() {
    assert_eq!(
        talk("set k 5 100 3\r\nabc\r\nget k\r\nget k missing k\r\ngat 10 k\r\n"),
        r"STORED\r\nVALUE k 5 3\r\nabc\r\nEND\r\nVALUE k 5 3\r\nabc\r\nVALUE k 5 3\r\nabc\r\nEND\r\nVALUE k 5 3\r\nabc\r\nEND\r\n"
    );
}

#[test]
fn conditions_are_kept() {
    assert_eq!(
        talk(
            "add k 0 0 1\r\na\r\nadd k 0 0 1\r\nb\r\nreplace x 0 0 1\r\na\r\nappend k 0 0 1\r\nb\r\nprepend k 0 0 \
             1\r\nc\r\nget k\r\ncas k 0 0 1 12345\r\na\r\ncas x 0 0 1 1\r\na\r\n"
        ),
        r"STORED\r\nNOT_STORED\r\nNOT_STORED\r\nSTORED\r\nSTORED\r\nVALUE k 0 3\r\ncab\r\nEND\r\nEXISTS\r\nNOT_FOUND\r\n"
    );
}

#[test]
fn counting_touching_and_deleting() {
    assert_eq!(
        talk(
            "set n 0 0 1\r\n9\r\nincr n 2\r\ndecr n 20\r\nincr x 1\r\ntouch n 5\r\ntouch x 5\r\ndelete n\r\ndelete \
             n\r\nset s 0 0 1\r\nx\r\nincr s 1\r\n"
        ),
        r"STORED\r\n11\r\n0\r\nNOT_FOUND\r\nTOUCHED\r\nNOT_FOUND\r\nDELETED\r\nNOT_FOUND\r\nSTORED\r\nCLIENT_ERROR cannot increment or decrement non-numeric value\r\n"
    );
}

#[test]
fn noreply_is_silent() {
    assert_eq!(
        talk("set k 0 0 1 noreply\r\na\r\ndelete k noreply\r\nmn\r\n"),
        r"MN\r\n"
    );
}

#[test]
fn malformed_lines_do_not_end_the_connection() {
    let long = "k".repeat(251);
    assert_eq!(
        talk(&format!(
            "foo\r\nset k\r\nset {long} 0 0 2\r\nab\r\nget {long}\r\n\r\nset k 0 0 2\r\nabc\r\nmn\r\n"
        )),
        r"ERROR\r\nERROR\r\nCLIENT_ERROR bad command line format\r\nCLIENT_ERROR bad command line format\r\nERROR\r\nCLIENT_ERROR bad data chunk\r\nERROR\r\nMN\r\n"
    );
}

#[test]
fn a_value_above_the_limit_is_swallowed() {
    let long = "x".repeat((1 << 20) + 1);
    assert_eq!(
        talk(&format!("set k 0 0 {}\r\n{long}\r\nmn\r\n", long.len())),
        r"SERVER_ERROR object too large for cache\r\nMN\r\n"
    );
}

#[test]
fn meta_commands() {
    assert_eq!(
        talk(
            "ms k 3 F7 T100\r\nabc\r\nmg k v f k Oxyz s t\r\nmg k\r\nmg x\r\nmg x q\r\nmd k q\r\nmd k\r\nmn\r\n"
        ),
        r"HD\r\nVA 3 f7 kk Oxyz s3 t100\r\nabc\r\nHD\r\nEN\r\nNF\r\nMN\r\n"
    );
    assert_eq!(
        talk(
            "ms k 1 ME\r\na\r\nms k 1 ME\r\nb\r\nma n N0 J5\r\nma n v D3\r\nms Zm9v 1 b\r\nz\r\nget foo\r\nms k 1 Y\r\na\r\nmn\r\n"
        ),
        r"HD\r\nNS\r\nHD\r\nVA 1\r\n8\r\nHD b\r\nVALUE foo 0 1\r\nz\r\nEND\r\nCLIENT_ERROR invalid flag\r\nMN\r\n"
    );
}

#[test]
fn input_may_be_cut_anywhere() {
    let input = b"set k 5 100 3\r\nabc\r\nms m 2 T10\r\nxy\r\nget k m\r\n";
    let whole = Harness::default().memcached(input);
    for step in 1..input.len() {
        let mut harness = Harness::default();
        assert_eq!(harness.memcached_in_pieces(input, step), whole, "step {step}");
    }
}
