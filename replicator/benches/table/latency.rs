//! One blocking client, one request at a time, 1 KB.

use std::time::Instant;

use crate::report::{Bar, Report, Row};
use crate::servers::{self, Server, Stream};
use crate::support::Folder;
use crate::support::resp::encode;

const ROUNDS: usize = 25;
const REQUESTS: usize = 2_000;
const VALUE: usize = 1_024;

/// What counts of all rounds.
type Figure = fn(&Subject) -> f64;

struct Subject {
    name: &'static str,
    stream: Stream,
    request: Vec<u8>,
    reply: Vec<u8>,
    medians: Vec<f64>,
    tails: Vec<f64>,
}

pub fn measure(report: &mut Report) {
    let folder = Folder::new();
    let all = servers::all(&folder);
    let bare = servers::bare(&folder);
    for unix in [false, true] {
        for command in ["GET", "SET"] {
            let mut subjects: Vec<Subject> = all
                .iter()
                .chain([&bare])
                .map(|server| Subject::new(server, unix, command))
                .collect();
            for _ in 0..ROUNDS {
                subjects.iter_mut().for_each(Subject::round);
            }
            add(report, &subjects, unix, command);
        }
    }
}

impl Subject {
    fn new(server: &Server, unix: bool, command: &str) -> Self {
        let mut stream = Stream::connect(server, unix);
        let (key, value) = (
            "PHPREDIS_SESSION:0123456789abcdef0123456789abcdef",
            "x".repeat(VALUE),
        );
        let request = match command {
            "GET" => encode(&["GET", key]),
            _ => encode(&["SET", key, &value, "EX", "1440"]),
        };
        let value = format!("${VALUE}\r\n{value}\r\n").into_bytes();
        let reply = if command == "GET" {
            value
        } else {
            b"+OK\r\n".to_vec()
        };
        if server.name == "bare socket" {
            let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap().to_be_bytes();
            stream.write(&[length(&request), length(&reply)].concat());
        } else {
            stream.write(&encode(&["SET", key, &"x".repeat(VALUE), "EX", "1440"]));
            stream.read_exact(&mut [0; 5]);
        }
        Self {
            name: server.name,
            stream,
            request,
            reply: vec![0; reply.len()],
            medians: Vec::new(),
            tails: Vec::new(),
        }
    }

    fn round(&mut self) {
        let mut times: Vec<f64> = (0..REQUESTS)
            .map(|_| {
                let start = Instant::now();
                self.stream.write(&self.request);
                self.stream.read_exact(&mut self.reply);
                start.elapsed().as_secs_f64() * 1e6
            })
            .collect();
        times.sort_by(f64::total_cmp);
        self.medians.push(times[REQUESTS / 2]);
        self.tails.push(times[REQUESTS * 99 / 100]);
    }

    fn best_median(&self) -> f64 {
        self.medians.iter().copied().reduce(f64::min).unwrap()
    }

    fn better_tail(&self) -> f64 {
        let mut tails = self.tails.clone();
        tails.sort_by(f64::total_cmp);
        tails[tails.len() / 4]
    }
}

fn add(report: &mut Report, subjects: &[Subject], unix: bool, command: &str) {
    let kind = if unix { "UNIX socket" } else { "TCP" };
    let figures: [(&str, Figure); 2] = [("p50", Subject::best_median), ("p99", Subject::better_tail)];
    for (figure, of) in figures {
        report.add(Row {
            measure: format!("one client, {command} 1 KB, {kind}, {figure}, µs"),
            ours: of(&subjects[0]),
            others: subjects[1..]
                .iter()
                .map(|subject| (subject.name.to_owned(), of(subject)))
                .collect(),
            bar: Bar::AtMostOthers,
        });
    }
}
