//! The jar obeys RFC 6265: what a browser would not send is not sent.

use std::time::Duration;

use hyper::Method;

use super::server::{Server, World};
use crate::drill::client::{Answer, Call, Client};
use crate::drill::{Class, Drill, Failure, Options, Target};

const LIMIT: Duration = Duration::from_secs(2);

fn world(cookie: &'static str) -> World {
    World {
        pods: vec!["a".to_owned()],
        cookie,
        ..World::default()
    }
}

async fn log_in(client: &mut Client) -> Answer {
    let form = [(
        hyper::header::CONTENT_TYPE,
        "application/x-www-form-urlencoded".parse().unwrap(),
    )];
    let call = Call::new(Method::POST, "/login", form.to_vec(), "user=ada".into()).unwrap();
    let answer = client.send(&call).await.unwrap();
    assert_eq!(answer.status, 303);
    answer
}

async fn is_logged_in(client: &mut Client) -> bool {
    let call = Call::new(Method::GET, "/whoami", Vec::new(), bytes::Bytes::new()).unwrap();
    let answer = client.send(&call).await.unwrap();
    let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    body["user"] == "ada"
}

#[tokio::test]
async fn attributes_of_cookies_are_honoured() {
    for (attributes, sent) in [
        ("", true),
        ("; HttpOnly; SameSite=Strict", true),
        ("; Max-Age=60", true),
        ("; Max-Age=0", false),
        ("; Expires=Thu, 01 Jan 1970 00:00:01 GMT", false),
        ("; Domain=shop.app.test", true),
        ("; Domain=app.test", true),
        ("; Domain=other.test", false),
        ("; Path=/", true),
        ("; Path=/whoami", true),
        ("; Path=/who", false),
        ("; Path=/admin", false),
        ("; Secure", false),
    ] {
        let server = Server::start(world(attributes)).await;
        let target = Target::http(server.address, "shop.app.test").unwrap();
        let mut client = Client::new(target, true, LIMIT);
        log_in(&mut client).await;
        assert_eq!(is_logged_in(&mut client).await, sent, "{attributes:?}");
    }
}

#[tokio::test]
async fn a_secure_cookie_without_tls_loses_everybody_and_with_tls_nobody() {
    let options = Options {
        members: 4,
        period: Duration::from_millis(20),
        before: Duration::from_millis(50),
        settle: Duration::from_millis(50),
        timeout: LIMIT,
        ..Options::default()
    };
    let (server, authority) = Server::start_tls(world("; Secure"), "app.test").await;
    let target = Target::https(server.address, "app.test", authority.as_bytes()).unwrap();
    let drill = Drill::new(Server::application(), target, options.clone()).unwrap();
    let report = drill
        .run("nothing", async |_| Ok::<_, std::io::Error>(()))
        .await
        .unwrap();
    assert_eq!(report.count(Class::Kept), 4);

    let server = Server::start(world("; Secure")).await;
    let drill = Drill::new(Server::application(), server.target(), options).unwrap();
    let report = drill
        .run("nothing", async |_| Ok::<_, std::io::Error>(()))
        .await
        .unwrap();
    assert_eq!(report.count(Class::Lost), 4);
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused() {
    let (server, _) = Server::start_tls(world(""), "app.test").await;
    let (_, other) = Server::start_tls(world(""), "app.test").await;
    let target = Target::https(server.address, "app.test", other.as_bytes()).unwrap();
    let call = Call::new(Method::GET, "/whoami", Vec::new(), bytes::Bytes::new()).unwrap();
    assert_eq!(
        Client::new(target, true, LIMIT).send(&call).await.unwrap_err(),
        Failure::Tls
    );
}

#[tokio::test]
async fn old_cookies_can_be_put_back() {
    let server = Server::start(world("")).await;
    let mut client = Client::new(server.target(), true, LIMIT);
    log_in(&mut client).await;
    let old = client.cookies();
    let session = server.world().sessions.clone();
    client
        .send(&Call::new(Method::POST, "/logout", Vec::new(), bytes::Bytes::new()).unwrap())
        .await
        .unwrap();
    server.world().sessions = session;
    assert!(!is_logged_in(&mut client).await, "the logout removed the cookie");
    client.set_cookies(old);
    assert!(is_logged_in(&mut client).await);
}

#[tokio::test]
async fn a_kept_connection_that_the_server_closed_is_no_failure() {
    let server = Server::start(world("")).await;
    let mut client = Client::new(server.target(), true, LIMIT);
    log_in(&mut client).await;
    for _ in 0..3 {
        // The server closes after its answer without saying so.
        assert!(is_logged_in(&mut client).await);
        server.world().close_idle();
    }
    assert_eq!(server.world().connections, 3);
}

#[test]
fn bad_targets_say_what_is_wrong() {
    let address = "127.0.0.1:80".parse().unwrap();
    for host in ["", "a b", "shop.test/path", "user@shop.test"] {
        let error = Target::http(address, host).unwrap_err().to_string();
        assert_eq!(
            error,
            format!("host {host:?} is no host name, with or without a port")
        );
    }
    assert!(Target::https(address, "shop.test", b"-----BEGIN CERTIFICATE-----\nx").is_err());
}
