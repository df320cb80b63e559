//! The page of a drill in a browser: Chromium lays it out, light and dark, and a script says what is to be seen.
#![cfg(test)]

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use session_operator::drill::account::State;
use session_operator::drill::{Report, html};

/// A report of the shop at three pods, one of which was deleted; as `kubectl session drill -o json` printed it.
const REPORT: &str = include_str!("report.json");

/// Asks the laid-out page, and leaves the answer in its title, which `--dump-dom` prints.
const QUESTIONS: &str = r#"<script>
addEventListener("load", () => {
  const all = (what) => [...document.querySelectorAll(what)];
  const lines = all("svg.chart > g").filter((g) => g.getBBox().width > 0);
  const colour = (e) => getComputedStyle(e).stroke;
  document.title = JSON.stringify({
    users: lines.length,
    heights: new Set(lines.map((g) => Math.round(g.getBBox().y))).size,
    colours: new Set(all("svg.chart path[class^=p]").map(colour)).size,
    marks: all(".mark").length,
    failures: all("svg.chart .failed").filter((e) => e.getBBox().width > 0).length,
    overflow: document.documentElement.scrollWidth - innerWidth,
    cut: all("h1, p, li, td, th").filter((e) => e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).display !== "inline").length,
    outside: all("svg.chart text").filter((e) => e.getBoundingClientRect().right > innerWidth).length,
    fetched: performance.getEntriesByType("resource").length,
    ink: getComputedStyle(document.body).color,
    paper: getComputedStyle(document.body).backgroundColor,
  });
});
</script>"#;

/// What the page says of itself, at a width and in a colour scheme. A picture of it goes where `PAGE_PICTURES` says, for people.
fn look(page: &str, width: u32, dark: bool) -> Value {
    let folder = std::env::temp_dir().join(format!("page-{}-{width}-{dark}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("page.html");
    std::fs::write(&file, page.replace("</body>", &format!("{QUESTIONS}</body>"))).unwrap();
    let run = |more: &[String]| {
        let output = Command::new("chromium-headless-shell")
            .args(["--no-sandbox", "--disable-gpu", "--hide-scrollbars"])
            // Whatever it would fetch from elsewhere it does not get.
            .arg("--host-resolver-rules=MAP * ~NOTFOUND")
            .arg(format!("--user-data-dir={}", folder.join("profile").display()))
            .arg(format!("--window-size={width},1400"))
            .arg(format!(
                "--blink-settings=preferredColorScheme={}",
                u8::from(!dark)
            ))
            .args(more)
            .arg(format!("file://{}", file.display()))
            .output()
            .unwrap_or_else(|error| {
                panic!("chromium-headless-shell: {error}; Debian's package of that name has it")
            });
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    };
    if let Some(pictures) = std::env::var_os("PAGE_PICTURES") {
        let scheme = if dark { "dark" } else { "light" };
        let picture = Path::new(&pictures).join(format!("drill-{width}-{scheme}.png"));
        run(&[format!("--screenshot={}", picture.display())]);
    }
    let dom = run(&["--virtual-time-budget=5000".to_owned(), "--dump-dom".to_owned()]);
    std::fs::remove_dir_all(&folder).unwrap();
    let title = dom
        .split("<title>")
        .nth(1)
        .and_then(|rest| rest.split("</title>").next());
    let title = title.unwrap_or_else(|| panic!("no title in {dom:.400}"));
    serde_json::from_str(&title.replace("&amp;", "&")).unwrap_or_else(|error| panic!("{error}: {title}"))
}

#[test]
fn every_user_is_a_line_coloured_by_pod() {
    let report: Report = serde_json::from_str(REPORT).unwrap();
    let users = report.people.len();
    let used = report
        .people
        .iter()
        .flat_map(|person| &person.timeline)
        .filter(|stretch| matches!(stretch.3, State::In | State::Wrong))
        .filter_map(|stretch| stretch.2)
        .collect::<std::collections::BTreeSet<_>>();
    let failures: usize = report.people.iter().map(|person| person.failures.len()).sum();
    let page = html::page(&report, "promised Kept, measured Kept");
    for (width, dark) in [(1280, false), (1280, true), (420, false)] {
        let seen = look(&page, width, dark);
        assert_eq!(seen["users"], users, "{seen}");
        assert_eq!(seen["heights"], users, "each has a row of its own: {seen}");
        assert_eq!(seen["colours"], used.len(), "{seen}");
        assert_eq!(seen["failures"], failures, "{seen}");
        assert!(
            seen["marks"].as_u64().unwrap() >= 2,
            "the event has a beginning and an end: {seen}"
        );
        assert_eq!(seen["fetched"], 0, "{seen}");
        assert_eq!(seen["outside"], 0, "{seen}");
        assert!(
            seen["overflow"].as_i64().unwrap() <= 0,
            "nobody scrolls sideways: {seen}"
        );
        assert_eq!(seen["cut"], 0, "{seen}");
        let paper = if dark {
            "rgb(20, 24, 30)"
        } else {
            "rgb(255, 255, 255)"
        };
        assert_eq!(seen["paper"], paper, "{seen}");
        assert_ne!(seen["ink"], seen["paper"]);
    }
}
