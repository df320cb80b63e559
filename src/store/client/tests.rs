//! Against Debian's redis-server, on loopback: what a wrong setting looks like to a client.

use std::time::{Duration, Instant};

use crate::store::testing::{Certificates, Server};

use super::*;
use crate::api::session_store::Engine;

fn credentials(username: Option<&str>, password: Option<&str>) -> Credentials {
    Credentials {
        username: username.map(str::to_owned),
        password: password.map(Password::new),
    }
}

/// The failure of a check, which has to fail.
async fn failure(endpoint: &Endpoint, credentials: &Credentials) -> Failure {
    check(endpoint, credentials, "shop").await.unwrap_err()
}

#[tokio::test]
async fn a_store_that_does_is_named_and_nothing_is_left_in_it() {
    let server = Server::plain(&["--requirepass", "secret"]);
    let reached = check(&server.endpoint(), &credentials(None, Some("secret")), "shop")
        .await
        .unwrap();
    assert_eq!(
        (reached.engine, reached.cluster),
        (Engine::Redis, false),
        "{reached:?}"
    );
    assert!(reached.version.contains('.'), "{reached:?}");
    let mut connection = connect(&server.endpoint(), &credentials(None, Some("secret")))
        .await
        .unwrap();
    assert_eq!(connection.command::<i64>(&["DBSIZE"]).await, Ok(0));
}

#[tokio::test]
async fn whether_a_user_may_list_keys_is_seen() {
    let server = Server::plain(&["--user", "blind", "on", ">secret", "~*", "&*", "+@all", "-scan"]);
    for (user, lists) in [(None, true), (Some("blind"), false)] {
        let credentials = credentials(user, user.map(|_| "secret"));
        let reached = check(&server.endpoint(), &credentials, "shop").await.unwrap();
        assert_eq!(reached.lists, lists, "{user:?}");
    }
}

#[tokio::test]
async fn tls_is_checked_against_the_authority_and_the_name() {
    let ours = Certificates::new("localhost");
    let server = Server::tls(&ours, &[]);
    let endpoint = server.tls_endpoint(&ours.authority);
    let nobody = Credentials::default();
    check(&endpoint, &nobody, "shop").await.unwrap();
    assert_eq!(
        connect(&endpoint, &nobody).await.unwrap().certificate,
        Some(ours.der.clone())
    );

    let theirs = Certificates::new("localhost");
    let other_authority = server.tls_endpoint(&theirs.authority);
    let other_name = Endpoint {
        host: "sessions.web.svc".to_owned(),
        address: Some("127.0.0.1".to_owned()),
        ..endpoint.clone()
    };
    let public = Endpoint {
        tls: Some(Authority::Public),
        ..endpoint.clone()
    };
    let no_pem = server.tls_endpoint("no PEM");
    for endpoint in [other_authority, other_name, public, no_pem] {
        let failure = failure(&endpoint, &nobody).await;
        assert!(matches!(failure, Failure::Tls { .. }), "{failure:?}");
    }
}

#[tokio::test]
async fn tls_on_one_side_only_is_told_from_an_unreachable_server() {
    let certificates = Certificates::new("localhost");
    let nobody = Credentials::default();
    let server = Server::tls(&certificates, &[]);
    let without = failure(&server.endpoint(), &nobody).await;
    assert!(matches!(without, Failure::Tls { .. }), "{without:?}");
    let password = credentials(None, Some("secret"));
    let with_password = failure(&server.endpoint(), &password).await;
    assert!(matches!(with_password, Failure::Tls { .. }), "{with_password:?}");

    let server = Server::plain(&[]);
    let with = failure(&server.tls_endpoint(&certificates.authority), &nobody).await;
    assert!(matches!(with, Failure::Tls { .. }), "{with:?}");
}

#[tokio::test]
async fn nobody_behind_the_port_is_unreachable() {
    let server = Server::plain(&[]);
    let endpoint = server.endpoint();
    drop(server);
    let refused = failure(&endpoint, &Credentials::default()).await;
    assert!(matches!(refused, Failure::Unreachable { .. }), "{refused:?}");
    let unknown = Endpoint {
        host: "no-such-host.invalid".to_owned(),
        ..endpoint
    };
    let unknown = failure(&unknown, &Credentials::default()).await;
    assert!(matches!(unknown, Failure::Unreachable { .. }), "{unknown:?}");
}

#[tokio::test]
async fn wrong_credentials_are_named_without_the_password() {
    let server = Server::plain(&["--requirepass", "secret"]);
    for wrong in [
        credentials(None, None),
        credentials(None, Some("wr0ng")),
        credentials(Some("shop"), Some("wr0ng")),
    ] {
        let failure = failure(&server.endpoint(), &wrong).await;
        assert!(matches!(failure, Failure::Authentication { .. }), "{failure:?}");
        assert!(!failure.explain().contains("wr0ng"), "{}", failure.explain());
        assert!(!format!("{wrong:?}").contains("wr0ng"));
    }
}

#[tokio::test]
async fn a_store_that_takes_no_writes_says_why() {
    let nobody = Credentials::default();
    let full = Server::plain(&["--maxmemory", "1", "--maxmemory-policy", "noeviction"]);
    let primary = Server::plain(&[]);
    let replica = Server::plain(&["--replicaof", "127.0.0.1", &primary.port.to_string()]);
    let lonely = Server::plain(&["--min-replicas-to-write", "1"]);
    let cluster = Server::plain(&["--cluster-enabled", "yes"]);
    for (server, cause) in [
        (full, "its memory is full"),
        (replica, "it is a read-only replica"),
        (lonely, "too few replicas"),
        (cluster, "the cluster is down"),
    ] {
        let failure = failure(&server.endpoint(), &nobody).await;
        assert!(
            matches!(&failure, Failure::RefusesWrites { cause: said, .. } if said.contains(cause)),
            "expected {cause}: {failure:?}"
        );
    }
}

#[tokio::test]
async fn a_user_of_another_prefix_may_not_write() {
    let server = Server::plain(&["--user", "shop", "on", ">secret", "~other:*", "+@all"]);
    let failure = failure(&server.endpoint(), &credentials(Some("shop"), Some("secret"))).await;
    assert!(matches!(failure, Failure::RefusesWrites { .. }), "{failure:?}");
}

#[tokio::test]
async fn the_member_of_a_cluster_that_has_the_key_is_asked() {
    let members = [(); 2].map(|()| Server::plain(&["--cluster-enabled", "yes"]));
    let nobody = Credentials::default();
    for (member, range) in members.iter().zip([("0", "8191"), ("8192", "16383")]) {
        let mut connection = connect(&member.endpoint(), &nobody).await.unwrap();
        let words = ["CLUSTER", "ADDSLOTSRANGE", range.0, range.1];
        connection.command::<()>(&words).await.unwrap();
    }
    let mut first = connect(&members[0].endpoint(), &nobody).await.unwrap();
    let other = members[1].port.to_string();
    let bus = (members[1].port + 10_000).to_string();
    first
        .command::<()>(&["CLUSTER", "MEET", "127.0.0.1", &other, &bus])
        .await
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    for member in &members {
        let mut connection = connect(&member.endpoint(), &nobody).await.unwrap();
        loop {
            let info: String = connection.command(&["CLUSTER", "INFO"]).await.unwrap();
            if info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:2") {
                break;
            }
            assert!(Instant::now() < deadline, "{info}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    // Keys are random: several of them fall on both members.
    for _ in 0..8 {
        let reached = check(&members[0].endpoint(), &nobody, "shop").await.unwrap();
        assert!(reached.cluster, "{reached:?}");
    }
}

/// A listener whose queue is full drops packets, as a network does that is cut.
#[tokio::test]
async fn a_server_whose_packets_were_lost_is_reached_before_they_are_sent_again() {
    let mut shortest = Duration::MAX;
    for _ in 0..3 {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        let mut waiting = Vec::new();
        while let Ok(Ok(one)) = tokio::time::timeout(
            Duration::from_millis(100),
            tokio::net::TcpStream::connect(address),
        )
        .await
        {
            waiting.push(one);
        }
        let endpoint = Endpoint {
            host: "store.example".to_owned(),
            port: address.port(),
            address: Some(address.ip().to_string()),
            tls: None,
        };
        let begun = Instant::now();
        let reached = tokio::spawn(async move { connect::tcp(&endpoint).await.map(|_| begun.elapsed()) });
        tokio::time::sleep(Duration::from_millis(300)).await;
        let accepting = tokio::spawn(async move {
            while let Ok(one) = listener.accept().await {
                waiting.push(one.0);
            }
        });
        shortest = shortest.min(reached.await.unwrap().unwrap());
        accepting.abort();
    }
    assert!(
        shortest > Duration::from_millis(300),
        "nothing was lost: {shortest:?}"
    );
    assert!(shortest < Duration::from_millis(900), "{shortest:?}");
}
