//! The page of a report.

use super::outcomes::{LEAVERS, MEMBERS, drill, options, sticky};
use super::server::Server;
use crate::drill::{Class, html};

#[tokio::test]
async fn every_user_has_a_line_and_what_went_wrong_is_marked() {
    let server = Server::start(sticky()).await;
    let report = drill(&server, options(), |world| {
        world.remove_pod("a");
    })
    .await;
    let page = html::page(&report, "promised: everything; measured: less");
    let users = (MEMBERS + LEAVERS) as usize;
    assert_eq!(page.matches("<g>").count(), users);
    assert_eq!(page.matches("</g>").count(), users);
    let lost = report.count(Class::Lost) as usize;
    assert!(lost > 0);
    // One is the sample in the legend.
    assert_eq!(page.matches("class=\"lost\"").count(), lost + 1);
    assert_eq!(
        page.matches("class=\"failed\"").count(),
        usize::try_from(report.failed()).unwrap() + 1
    );
    assert!(page.contains("promised: everything; measured: less"));
    assert!(page.contains(&format!("<b>{lost}</b>lost")));
    for pod in ["a", "b", "c"] {
        assert!(page.contains(&format!("</svg>{pod}</li>")), "{pod}");
    }
}

#[tokio::test]
async fn it_needs_nothing_from_elsewhere_and_shows_names_as_text() {
    let mut world = sticky();
    world.pods = vec!["<script>alert(1)</script>".to_owned(), "b&c".to_owned()];
    let server = Server::start(world).await;
    let report = drill(&server, options(), |_| {}).await;
    let page = html::page(&report, "a \"verdict\" <b>");
    assert!(!page.contains("<script"), "{page}");
    assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;"), "{page}");
    assert!(page.contains("a &quot;verdict&quot; &lt;b&gt;"));
    for reference in ["src=", "href=", "url(", "@import"] {
        assert!(!page.contains(reference), "{reference}");
    }
}
