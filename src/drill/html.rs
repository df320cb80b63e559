//! A report as one page that needs nothing else: a line over time for every user, coloured by the pod that answered. Pure.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::account::{Class, Role, State};
use super::report::{Person, Report};

/// Width of the chart in its own units.
const WIDTH: f64 = 1000.0;

/// Space above the lines, for the names of marks.
const HEAD: f64 = 34.0;

/// Space below, for the axis.
const FOOT: f64 = 26.0;

/// Seconds between two ticks of the axis at least, in their order of preference.
const TICKS: [f64; 9] = [1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0];

/// The page. `verdict` is the line with promise and measurement.
pub fn page(report: &Report, verdict: &str) -> String {
    let people = in_order(report);
    let mut text = String::with_capacity(64 << 10);
    text.push_str("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    text.push_str("<meta name=\"viewport\" content=\"width=device-width\">\n");
    line(
        &mut text,
        &format!(
            "<title>{}: {}</title>",
            escape(&report.application),
            escape(&report.event.name)
        ),
    );
    line(
        &mut text,
        &format!(
            "<style>\n{}{}</style>\n</head>\n<body>",
            STYLE,
            pod_styles(report)
        ),
    );
    heading(&mut text, report, verdict);
    legend(&mut text, report);
    chart(&mut text, report, &people);
    pods(&mut text, report);
    text.push_str("</body>\n</html>\n");
    text
}

const STYLE: &str = "\
:root { color-scheme: light dark; --ink: light-dark(#1c2430, #e6e9ee); --dim: light-dark(#687385, #929dac);
  --paper: light-dark(#ffffff, #14181e); --rule: light-dark(#d9dee6, #313944); --bad: light-dark(#d00023, #ff4d5e);
  --event: light-dark(#00000010, #ffffff14); }
body { margin: 2rem auto; max-width: 70rem; padding: 0 1rem; color: var(--ink); background: var(--paper);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.4rem; margin: 0; } p { margin: .3rem 0 1rem; color: var(--dim); }
.verdict { color: var(--ink); font-weight: 600; } .verdict.bad { color: var(--bad); }
.tiles { display: flex; flex-wrap: wrap; gap: .6rem; margin: 1rem 0; padding: 0; list-style: none; }
.tiles li { border: 1px solid var(--rule); border-radius: .5rem; padding: .4rem .8rem; min-width: 5.5rem; }
.tiles b { display: block; font-size: 1.5rem; font-variant-numeric: tabular-nums; }
.tiles .bad b { color: var(--bad); }
.legend { display: flex; flex-wrap: wrap; gap: .3rem 1.2rem; margin: 0 0 .6rem; padding: 0; list-style: none; font-size: .85rem; }
.legend svg { vertical-align: -1px; margin-right: .35rem; }
svg.chart { width: 100%; height: auto; display: block; }
svg text { fill: var(--dim); font-size: 10px; } .axis { stroke: var(--rule); } .during { fill: var(--event); }
.mark { stroke: var(--dim); stroke-dasharray: 2 3; } .none { stroke: var(--dim); }
.out { stroke: var(--bad); stroke-opacity: .3; } .left { stroke: var(--rule); }
.failed { fill: var(--bad); } .lost { fill: none; stroke: var(--bad); stroke-width: 1.6; }
.back { fill: var(--bad); stroke: var(--paper); }
table { display: block; overflow-x: auto; border-collapse: collapse; margin-top: 1.2rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .9rem .25rem 0; text-align: right; border-bottom: 1px solid var(--rule); }
th:first-child, td:first-child { text-align: left; } th { color: var(--dim); font-weight: 500; }
";

/// A colour for each pod, as far apart on the circle as so many can be; red is left to what went wrong.
fn pod_styles(report: &Report) -> String {
    let mut text = String::new();
    for index in 0..report.pods.len() {
        let hue = 40 + index * 280 / report.pods.len();
        line(
            &mut text,
            &format!(".p{index} {{ stroke: light-dark(hsl({hue} 62% 45%), hsl({hue} 58% 62%)); }}"),
        );
    }
    text
}

/// By the pod that had them when the event began, then by name; those who left last.
fn in_order(report: &Report) -> Vec<&Person> {
    let mut people: Vec<&Person> = report.people.iter().collect();
    people.sort_by_key(|person| {
        (
            person.role == Role::Leaver,
            &person.pod_before,
            number(&person.name),
        )
    });
    people
}

/// The number at the end of a name, so that user10 comes after user9.
fn number(name: &str) -> u64 {
    let digits: String = name.chars().rev().take_while(char::is_ascii_digit).collect();
    digits.chars().rev().collect::<String>().parse().unwrap_or(0)
}

fn heading(text: &mut String, report: &Report, verdict: &str) {
    let bad = [
        Class::Lost,
        Class::Corrupted,
        Class::BackAfterLogout,
        Class::LoginFailed,
        Class::Unknown,
    ];
    line(
        text,
        &format!(
            "<h1>{}: {}</h1>",
            escape(&report.application),
            escape(&report.event.name)
        ),
    );
    line(
        text,
        &format!(
            "<p>{} &middot; {} &middot; {} users &middot; {:.0} s</p>",
            escape(&report.url),
            escape(&report.started),
            report.users,
            seconds(report.duration_ms)
        ),
    );
    let tone = if bad.iter().any(|class| report.count(*class) > 0) {
        " bad"
    } else {
        ""
    };
    line(
        text,
        &format!("<p class=\"verdict{tone}\">{}</p>", escape(verdict)),
    );
    text.push_str("<ul class=\"tiles\">\n");
    for class in Class::ALL {
        let count = report.count(class);
        let always = matches!(class, Class::Kept | Class::Moved | Class::Lost);
        if count > 0 || always {
            let tone = if bad.contains(&class) && count > 0 {
                " class=\"bad\""
            } else {
                ""
            };
            line(text, &format!("<li{tone}><b>{count}</b>{}</li>", class.label()));
        }
    }
    let tone = if report.failed() > 0 { " class=\"bad\"" } else { "" };
    line(
        text,
        &format!(
            "<li{tone}><b>{}</b>failed of {} requests</li>",
            report.failed(),
            report.requests
        ),
    );
    line(
        text,
        &format!(
            "<li><b>{:.1}</b>ms p50, {:.1} p99</li>",
            ms(report.latency.p50_us),
            ms(report.latency.p99_us)
        ),
    );
    text.push_str("</ul>\n");
}

fn legend(text: &mut String, report: &Report) {
    text.push_str("<ul class=\"legend\">\n");
    for (index, pod) in report.pods.iter().enumerate() {
        line(
            text,
            &format!(
                "<li><svg width=\"22\" height=\"10\"><path class=\"p{index}\" stroke-width=\"6\" d=\"M0 5h22\"/></svg>{}</li>",
                escape(&pod.name)
            ),
        );
    }
    for (shape, what) in [
        (
            "<circle class=\"failed\" cx=\"11\" cy=\"5\" r=\"3\"/>",
            "a request failed",
        ),
        (
            "<path class=\"lost\" d=\"M7 1l8 8m0-8l-8 8\"/>",
            "the session was lost",
        ),
        (
            "<path class=\"back\" d=\"M11 0l5 9h-10z\"/>",
            "back after a logout",
        ),
        (
            "<path class=\"left\" stroke-width=\"6\" d=\"M0 5h22\"/>",
            "logged out by the user",
        ),
    ] {
        line(
            text,
            &format!("<li><svg width=\"22\" height=\"10\">{shape}</svg>{what}</li>"),
        );
    }
    text.push_str("</ul>\n");
}

fn chart(text: &mut String, report: &Report, people: &[&Person]) {
    let row = if people.len() > 120 { 4.0 } else { 7.0 };
    let bottom = HEAD + row * to_f64(people.len());
    let end = seconds(report.duration_ms).max(0.001);
    let x = |ms: u64| seconds(ms) / end * WIDTH;
    line(
        text,
        &format!(
            "<svg class=\"chart\" viewBox=\"0 0 {WIDTH} {:.0}\" role=\"img\">",
            bottom + FOOT
        ),
    );
    let (from, to) = (x(report.event.from_ms), x(report.event.to_ms));
    line(
        text,
        &format!(
            "<rect class=\"during\" x=\"{from:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\"><title>{}</title></rect>",
            HEAD - 8.0,
            (to - from).max(1.0),
            bottom - HEAD + 8.0,
            escape(&report.event.name)
        ),
    );
    axis(text, end, bottom);
    marks(text, report, &x, bottom);
    for (index, person) in people.iter().enumerate() {
        user(text, report, person, &x, HEAD + row * (to_f64(index) + 0.5), row);
    }
    text.push_str("</svg>\n");
}

fn axis(text: &mut String, end: f64, bottom: f64) {
    let step = TICKS.into_iter().find(|step| end / step <= 16.0).unwrap_or(600.0);
    line(
        text,
        &format!("<path class=\"axis\" d=\"M0 {bottom:.1}H{WIDTH}\"/>"),
    );
    let mut at = 0.0;
    while at <= end {
        let x = at / end * WIDTH;
        line(
            text,
            &format!(
                "<path class=\"axis\" d=\"M{x:.1} {bottom:.1}v4\"/><text x=\"{x:.1}\" y=\"{:.1}\">{at:.0} s</text>",
                bottom + 16.0
            ),
        );
        at += step;
    }
}

/// What the event noted. Names that would lie on each other are left to the tooltip.
fn marks(text: &mut String, report: &Report, x: &impl Fn(u64) -> f64, bottom: f64) {
    let mut free = [f64::MIN; 2];
    for mark in &report.marks {
        let at = x(mark.at_ms);
        let what = format!("{} {}", mark.what, mark.pod.as_deref().unwrap_or_default());
        let what = escape(what.trim());
        line(
            text,
            &format!(
                "<path class=\"mark\" d=\"M{at:.1} {:.1}V{bottom:.1}\"><title>{what}</title></path>",
                HEAD - 8.0
            ),
        );
        let place = free.iter().position(|free| *free <= at);
        if let Some((place, free)) = place.and_then(|place| Some((place, free.get_mut(place)?))) {
            *free = at + 6.0 * to_f64(what.chars().count());
            line(
                text,
                &format!(
                    "<text x=\"{at:.1}\" y=\"{:.1}\">{what}</text>",
                    10.0 + 12.0 * to_f64(place)
                ),
            );
        }
    }
}

fn user(text: &mut String, report: &Report, person: &Person, x: &impl Fn(u64) -> f64, y: f64, row: f64) {
    let on = |pod: Option<u32>| {
        pod.and_then(|pod| report.pods.get(pod as usize))
            .map_or("?", |pod| pod.name.as_str())
    };
    text.push_str("<g>");
    // One path per look, however many stretches it has.
    let mut paths: BTreeMap<String, String> = BTreeMap::new();
    for (index, (from, to, pod, state, _)) in person.timeline.iter().enumerate() {
        // Up to the next stretch: between two requests the session was where it was.
        let until = person.timeline.get(index + 1).map_or(*to, |next| next.0);
        let look = match (state, pod) {
            (State::In | State::Wrong, Some(pod)) => format!("p{pod}"),
            (State::In | State::Wrong, None) => "none".to_owned(),
            (State::Out, _) if person.role == Role::Leaver => "left".to_owned(),
            (State::Out, _) => "out".to_owned(),
            (State::Failing, _) => continue,
        };
        let width = (x(until) - x(*from)).max(1.5);
        let _infallible = write!(
            paths.entry(look).or_default(),
            "M{:.1} {y:.1}h{width:.1}",
            x(*from)
        );
    }
    for (look, path) in paths {
        let _infallible = write!(
            text,
            "<path class=\"{look}\" stroke-width=\"{:.1}\" d=\"{path}\"/>",
            row * 0.7
        );
    }
    for failure in &person.failures {
        let _infallible = write!(
            text,
            "<circle class=\"failed\" cx=\"{:.1}\" cy=\"{y:.1}\" r=\"{:.1}\"><title>{}: {} at {:.1} s</title></circle>",
            x(failure.at_ms),
            row * 0.38,
            escape(&person.name),
            failure.failure,
            seconds(failure.at_ms)
        );
    }
    if let Some(loss) = &person.loss {
        let (at, arm) = (x(loss.at_ms), row * 0.5);
        let (kind, shape) = if person.class == Class::BackAfterLogout {
            (
                "back",
                format!(
                    "M{at:.1} {:.1}l{arm:.1} {:.1}h-{:.1}z",
                    y - arm,
                    2.0 * arm,
                    2.0 * arm
                ),
            )
        } else {
            let double = 2.0 * arm;
            (
                "lost",
                format!(
                    "M{:.1} {:.1}l{double:.1} {double:.1}m0-{double:.1}l-{double:.1} {double:.1}",
                    at - arm,
                    y - arm
                ),
            )
        };
        let _infallible = write!(text, "<path class=\"{kind}\" d=\"{shape}\"/>");
    } else if person.class == Class::BackAfterLogout {
        let at = person.timeline.last().map_or(0.0, |last| x(last.0));
        let arm = row * 0.5;
        let _infallible = write!(
            text,
            "<path class=\"back\" d=\"M{at:.1} {:.1}l{arm:.1} {:.1}h-{:.1}z\"/>",
            y - arm,
            2.0 * arm,
            2.0 * arm
        );
    }
    let last = person.timeline.iter().rev().find_map(|stretch| stretch.2);
    line(
        text,
        &format!(
            "<title>{}: {}, {} requests, {} moves, last on {}{}</title></g>",
            escape(&person.name),
            person.class.label(),
            person.requests,
            person.moves,
            escape(on(last)),
            person
                .trouble
                .as_ref()
                .map(|trouble| format!("; {}", escape(trouble)))
                .unwrap_or_default()
        ),
    );
}

fn pods(text: &mut String, report: &Report) {
    text.push_str(
        "<table>\n<tr><th>pod<th>users before<th>users after<th>lost<th>requests<th>newcomers</tr>\n",
    );
    for pod in &report.pods {
        line(
            text,
            &format!(
                "<tr><td>{}<td>{}<td>{}<td>{}<td>{}<td>{}</tr>",
                escape(&pod.name),
                pod.users_before,
                pod.users_after,
                pod.lost,
                pod.requests,
                pod.newcomers
            ),
        );
    }
    text.push_str("</table>\n");
}

fn line(text: &mut String, content: &str) {
    text.push_str(content);
    text.push('\n');
}

/// Text as HTML shows it: names come from the cluster and from the application's answers.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[allow(clippy::cast_precision_loss, reason = "for a drawing")]
fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}

#[allow(clippy::cast_precision_loss, reason = "for a drawing")]
fn to_f64(count: usize) -> f64 {
    count as f64
}

fn ms(us: u32) -> f64 {
    f64::from(us) / 1000.0
}
