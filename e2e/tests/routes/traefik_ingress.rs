//! Ingress behind Traefik: the setting belongs on the Service.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::app::{Running, SHOP, host};
use e2e::policy::{Policies, promise, route};
use e2e::{snapshot, with_temp_namespace};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::Ingress;
use kube::ResourceExt;
use kube::api::{Api, PostParams};
use serde_json::{Value, json};
use session_operator::api::{Binds, Event as Promise, Outcome};
use session_operator::drill::event::Event;
use session_operator::drill::{Class, Options};

use super::support::{all_kept, nobody_moves, short, traefik};

#[tokio::test(flavor = "multi_thread")]
async fn a_cookie_keeps_users_through_scale_up_and_a_lost_pod_loses_exactly_its_own() -> Result<()> {
    with_temp_namespace("cookie", async |cluster, namespace| {
        let shop = SHOP
            .manifests(namespace)?
            .create(&cluster.client, namespace)
            .await?;
        let entry = traefik(cluster, &shop).await?;
        let before = snapshot::of(&cluster.client, namespace).await?;
        let policies = Policies::new(&cluster.client, namespace);
        policies.create("shop", "shop", Value::Null).await?;
        let policy = policies.ready("shop").await?;
        let affinity = route(&policy, "Ingress", "shop")?;
        ensure!(
            affinity.binds == Binds::Pod && affinity.keeps_terminating_pods,
            "{affinity:#?}"
        );
        ensure!(
            affinity.written_to.as_deref() == Some("Service/shop"),
            "{affinity:#?}"
        );

        nobody_moves(&shop, entry).await?;

        ensure!(promise(&policy, Promise::ScaleUp)?.outcome == Outcome::Kept);
        all_kept(&shop.drill(entry, short(), &Event::Scale(5)).await?)?;

        let row = promise(&policy, Promise::PodLoss)?;
        ensure!(row.outcome == Outcome::Lost, "{row:#?}");
        let pod = shop.workload.pods().await?.into_keys().next().unwrap_or_default();
        let report = shop
            .drill(entry, short(), &Event::DeletePod(Some(pod.clone())))
            .await?;
        ensure!(
            !report.users_before(&pod).is_empty(),
            "nobody was on {pod}: {}",
            report.table()
        );
        ensure!(
            report.names(Class::Lost) == report.users_before(&pod),
            "{}",
            report.table()
        );
        let kept = report.count(Class::Kept) + report.count(Class::Lost);
        ensure!(kept == report.users, "{}", report.table());

        shop.workload
            .cause(&Event::Scale(3), &session_operator::drill::Marks::begin())
            .await?;
        policies.remove("shop").await?;
        let after = snapshot::of(&cluster.client, namespace).await?;
        ensure!(after == before, "not undone: {before:#?} became {after:#?}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_policy_most_users_are_logged_out() -> Result<()> {
    with_temp_namespace("control", async |cluster, namespace| {
        let shop = SHOP
            .manifests(namespace)?
            .create(&cluster.client, namespace)
            .await?;
        let entry = traefik(cluster, &shop).await?;
        let report = shop
            .drill(entry, short(), &Event::Nothing(Duration::from_secs(3)))
            .await?;
        ensure!(report.count(Class::Lost) * 2 > report.users, "{}", report.table());
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminating_pod_keeps_its_users_while_new_users_avoid_it() -> Result<()> {
    const DRAIN_SECONDS: u64 = 20;
    with_temp_namespace("drain", async |cluster, namespace| {
        let mut manifests = SHOP.manifests(namespace)?;
        let template = &mut manifests.deployment.spec.get_or_insert_default().template;
        let pod = template.spec.get_or_insert_default();
        pod.termination_grace_period_seconds = Some(60);
        for container in &mut pod.containers {
            container.lifecycle =
                serde_json::from_value(json!({"preStop": {"sleep": {"seconds": DRAIN_SECONDS}}}))?;
        }
        let shop = manifests.create(&cluster.client, namespace).await?;
        let entry = traefik(cluster, &shop).await?;
        let policies = Policies::new(&cluster.client, namespace);
        policies
            .create("shop", "shop", json!({"drainSeconds": DRAIN_SECONDS}))
            .await?;
        policies.ready("shop").await?;
        shop.sticky(entry).await?;

        let pod = shop.workload.pods().await?.into_keys().next().unwrap_or_default();
        let options = Options {
            newcomer_period: Some(Duration::from_millis(100)),
            ..short()
        };
        let report = shop
            .drill(entry, options, &Event::DeletePod(Some(pod.clone())))
            .await?;
        let deleted = report
            .marks
            .iter()
            .find(|mark| mark.what == "deleting")
            .map_or(0, |mark| mark.at_ms);

        // Traefik takes changes over every 2 s; on an idle machine the last newcomer comes 0.4 s after the deletion, on a
        // busy one seconds later.
        let late: Vec<_> = report.newcomers_on(&pod, deleted + 8_000).collect();
        ensure!(late.is_empty(), "newcomers on {pod}: {late:?} {}", report.table());
        let (lost, former) = (report.names(Class::Lost), report.users_before(&pod));
        ensure!(
            !former.is_empty() && lost.is_subset(&former),
            "{}",
            report.table()
        );
        let early = report.people.iter().filter_map(|person| person.loss.as_ref());
        let early: Vec<_> = early
            .filter(|loss| loss.at_ms < deleted + (DRAIN_SECONDS - 1) * 1000)
            .collect();
        ensure!(
            early.is_empty(),
            "lost while the pod drained: {early:?} {}",
            report.table()
        );
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn two_ingresses_to_one_service_get_one_cookie_by_named_and_numbered_port() -> Result<()> {
    with_temp_namespace("two-routes", async |cluster, namespace| {
        let manifests = SHOP.manifests(namespace)?;
        let shop = manifests.create(&cluster.client, namespace).await?;
        let mut second = manifests.ingress.clone();
        second.metadata.name = Some("by-number".into());
        for rule in second
            .spec
            .iter_mut()
            .flat_map(|spec| spec.rules.iter_mut().flatten())
        {
            rule.host = Some(format!("second.{namespace}.test"));
            for path in rule.http.iter_mut().flat_map(|http| &mut http.paths) {
                path.backend =
                    serde_json::from_value(json!({"service": {"name": "shop", "port": {"number": 80}}}))?;
            }
        }
        let ingresses: Api<Ingress> = Api::namespaced(cluster.client.clone(), namespace);
        ingresses.create(&PostParams::default(), &second).await?;
        let entry = traefik(cluster, &shop).await?;
        let other = Running::new(
            &cluster.client,
            SHOP,
            namespace,
            &format!("second.{namespace}.test"),
        );
        other.routed(entry).await?;

        let policies = Policies::new(&cluster.client, namespace);
        policies.create("shop", "shop", Value::Null).await?;
        let policy = policies.ready("shop").await?;
        for name in ["shop", "by-number"] {
            ensure!(
                route(&policy, "Ingress", name)?.binds == Binds::Pod,
                "{name}: {policy:#?}"
            );
        }
        nobody_moves(&shop, entry).await?;
        nobody_moves(&other, entry).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn one_ingress_to_two_targets_is_written_since_the_setting_is_on_the_service() -> Result<()> {
    with_temp_namespace("two-targets", async |cluster, namespace| {
        let manifests = SHOP.manifests(namespace)?;
        let shop = manifests.create(&cluster.client, namespace).await?;
        let other = json!({"metadata": {"name": "other"}, "spec": {"selector": {"app": "other"}, "ports": [{"port": 80}]}});
        let services: Api<Service> = Api::namespaced(cluster.client.clone(), namespace);
        services.create(&PostParams::default(), &serde_json::from_value(other)?).await?;
        let ingresses: Api<Ingress> = Api::namespaced(cluster.client.clone(), namespace);
        let mut ingress = ingresses.get("shop").await?;
        let path = json!({"path": "/other", "pathType": "Prefix", "backend": {"service": {"name": "other", "port": {"number": 80}}}});
        for rule in ingress.spec.iter_mut().flat_map(|spec| spec.rules.iter_mut().flatten()) {
            if let Some(http) = &mut rule.http {
                http.paths.push(serde_json::from_value(path.clone())?);
            }
        }
        ingresses.replace("shop", &PostParams::default(), &ingress).await?;
        let entry = traefik(cluster, &shop).await?;

        let policies = Policies::new(&cluster.client, namespace);
        policies.create("shop", "shop", Value::Null).await?;
        let policy = policies.ready("shop").await?;
        ensure!(route(&policy, "Ingress", "shop")?.written_to.as_deref() == Some("Service/shop"));
        let untouched = services.get("other").await?;
        ensure!(untouched.annotations().is_empty(), "{untouched:#?}");
        nobody_moves(&shop, entry).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cookie_is_as_the_policy_says() -> Result<()> {
    with_temp_namespace("attributes", async |cluster, namespace| {
        let shop = SHOP.manifests(namespace)?.create(&cluster.client, namespace).await?;
        let entry = traefik(cluster, &shop).await?;
        let policies = Policies::new(&cluster.client, namespace);
        let cookie = json!({"name": "route", "path": "/", "maxAgeSeconds": 3600, "secure": true, "httpOnly": true, "sameSite": "Strict"});
        policies.create("shop", "shop", json!({"cookie": cookie})).await?;
        let policy = policies.ready("shop").await?;
        let notes = route(&policy, "Ingress", "shop")?.notes.join(" ");
        ensure!(notes.contains("TLS"), "a Secure cookie without TLS is not warned of: {notes}");

        let host = format!("Host: {}", host(SHOP, namespace));
        let url = format!("http://{entry}/whoami");
        let answer = e2e::wait::eventually("the cookie", Duration::from_secs(10), || async {
            let output = tokio::process::Command::new("curl")
                .args(["--silent", "--include", "--noproxy", "*", "--max-time", "3", "--header", &host, &url])
                .output()
                .await?;
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let cookie = text.lines().find_map(|line| line.strip_prefix("Set-Cookie: route=")).map(str::to_owned);
            Ok(cookie.ok_or(text))
        })
        .await?;
        let attributes: BTreeSet<&str> = answer.split("; ").skip(1).map(str::trim).collect();
        let expected = BTreeSet::from(["Path=/", "Max-Age=3600", "HttpOnly", "Secure", "SameSite=Strict"]);
        ensure!(attributes == expected, "{answer}");
        Ok(())
    })
    .await
}
