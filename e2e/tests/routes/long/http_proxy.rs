//! Contour's `HTTPProxy`, and Envoy behind it: the setting is part of an atomic list, so it is patched, or advised.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use e2e::app::SHOP;
use e2e::policy::{Policies, condition_of, promise, route};
use e2e::wait::eventually;
use e2e::{contour, snapshot, with_temp_namespace};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use session_operator::api::conditions::{reasons, types};
use session_operator::api::{Binds, Event as Promise, Outcome};
use session_operator::drill::client::Client;
use session_operator::drill::event::Event;

use crate::support::{all_kept, merge, nobody_moves, short};

const COOKIE: &str = "X-Contour-Session-Affinity";

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_made_by_hand_is_patched_and_undone_exactly() -> Result<()> {
    with_temp_namespace("proxy", async |cluster, namespace| {
        let (shop, entry) = contour::behind(cluster, namespace, contour::http_proxy(namespace)).await?;
        let before = snapshot::of(&cluster.client, namespace).await?;
        let policies = Policies::new(&cluster.client, namespace);
        policies
            .create("shop", "shop", json!({"drainSeconds": 20}))
            .await?;
        let policy = policies.ready("shop").await?;
        let found = route(&policy, "HTTPProxy", "shop")?;
        ensure!(
            found.binds == Binds::Hash && !found.keeps_terminating_pods,
            "{policy:#?}"
        );
        ensure!(
            found
                .unsupported
                .iter()
                .any(|sentence| sentence.contains("drainSeconds")),
            "{policy:#?}"
        );
        ensure!(
            promise(&policy, Promise::ScaleUp)?.outcome == Outcome::Partly,
            "{policy:#?}"
        );
        nobody_moves(&shop, entry).await?;
        policies.remove("shop").await?;
        let after = snapshot::of(&cluster.client, namespace).await?;
        ensure!(after == before, "not undone: {before:#?} became {after:#?}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn client_ip_sends_one_address_to_one_pod_and_says_what_that_is_worth() -> Result<()> {
    with_temp_namespace("proxy-address", async |cluster, namespace| {
        let (shop, entry) = contour::behind(cluster, namespace, contour::http_proxy(namespace)).await?;
        let policies = Policies::new(&cluster.client, namespace);
        policies
            .create("shop", "shop", json!({"mode": "ClientIP"}))
            .await?;
        let policy = policies.ready("shop").await?;
        let message = condition_of(&policy, types::AFFINITY_CONFIGURED).map(|found| found.message.as_str());
        ensure!(
            message.is_some_and(|message| message.contains("NAT")),
            "{message:?}"
        );
        shop.sticky(entry).await?;
        let report = shop
            .drill(entry, short(), &Event::Nothing(Duration::from_secs(3)))
            .await?;
        all_kept(&report)?;
        let used = report.pods.iter().filter(|pod| pod.users_before > 0).count();
        ensure!(
            used == 1,
            "one client address, and {used} pods: {}",
            report.table()
        );
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_somebody_applies_is_left_alone_and_the_yaml_to_add_works() -> Result<()> {
    with_temp_namespace("proxy-applied", async |cluster, namespace| {
        let shop = contour::shop(cluster, namespace).await?;
        let api = contour::http_proxies(cluster, namespace);
        let applied = PatchParams::apply("helm");
        let mut object = contour::http_proxy(namespace);
        api.patch("shop", &applied, &Patch::Apply(&object)).await?;
        let entry = contour::entry(cluster, &shop).await?;
        let policies = Policies::new(&cluster.client, namespace);
        policies.create("shop", "shop", Value::Null).await?;
        let reason = Some(reasons::MANUAL_CHANGE_NEEDED);
        let policy = policies
            .condition("shop", types::AFFINITY_CONFIGURED, "False", reason)
            .await?;
        let message = condition_of(&policy, types::AFFINITY_CONFIGURED)
            .map(|found| found.message.clone())
            .unwrap_or_default();

        // What a person does: take the YAML from the message and apply it as the owner.
        let (_, yaml) = message.split_once("add:\n").unwrap_or_default();
        let advice: Value = serde_saphyr::from_str(yaml)?;
        let setting = advice.get("loadBalancerPolicy");
        object["spec"]["routes"][0]["loadBalancerPolicy"] = setting
            .cloned()
            .ok_or_else(|| anyhow!("no loadBalancerPolicy in the advice: {message}"))?;
        api.patch("shop", &applied, &Patch::Apply(&object)).await?;
        policies.ready("shop").await?;
        nobody_moves(&shop, entry).await?;
        policies.remove("shop").await?;
        let left = api.get("shop").await?;
        ensure!(
            left.data.pointer("/spec/routes/0/loadBalancerPolicy").is_some(),
            "theirs was removed"
        );
        Ok(())
    })
    .await
}

/// What the operator cannot write for the owner, and the owner can.
#[tokio::test(flavor = "multi_thread")]
async fn the_rule_to_add_gives_contours_cookie_the_attributes_that_were_wished_for() -> Result<()> {
    with_temp_namespace("proxy-cookie", async |cluster, namespace| {
        let (shop, entry) = contour::behind(cluster, namespace, contour::http_proxy(namespace)).await?;
        let policies = Policies::new(&cluster.client, namespace);
        let wish = json!({"cookie": {"secure": true, "sameSite": "Strict"}});
        policies.create("shop", "shop", wish).await?;
        let policy = policies.ready("shop").await?;
        let lacking = &route(&policy, "HTTPProxy", "shop")?.unsupported;
        let yaml = lacking
            .first()
            .and_then(|sentence| Some(sentence.split_once(":\n")?.1))
            .ok_or_else(|| anyhow!("nothing to add: {policy:#?}"))?;
        let rule: Value = serde_saphyr::from_str(yaml)?;

        let api = contour::http_proxies(cluster, namespace);
        let mut spec = api.get("shop").await?.data["spec"].clone();
        spec["routes"][0]["cookieRewritePolicies"] = rule["cookieRewritePolicies"].clone();
        merge(&api, "shop", json!({"spec": spec})).await?;
        eventually("nothing unsupported", Duration::from_secs(30), || async {
            let policy = policies.ready("shop").await?;
            let lacking = route(&policy, "HTTPProxy", "shop")?.unsupported.clone();
            Ok(if lacking.is_empty() {
                Ok(())
            } else {
                Err(lacking.join("; "))
            })
        })
        .await?;

        let (target, whoami) = (shop.target(entry)?, SHOP.check()?);
        let attributes = BTreeSet::from(["Path=/", "HttpOnly", "Secure", "SameSite=Strict"]);
        eventually("the cookie as wished", Duration::from_secs(30), || async {
            let mut visitor = Client::new(target.clone(), false, Duration::from_secs(3));
            let answer = match visitor.send(&whoami).await {
                Ok(answer) => answer,
                Err(failure) => return Ok(Err(failure.to_string())),
            };
            let cookies = answer.headers.get_all("set-cookie").iter();
            let cookies: Vec<&str> = cookies.filter_map(|cookie| cookie.to_str().ok()).collect();
            let is_as_wished = cookies.iter().any(|cookie| {
                let found: BTreeSet<&str> = cookie.split("; ").skip(1).map(str::trim).collect();
                cookie.starts_with(COOKIE) && found == attributes
            });
            Ok(if is_as_wished {
                Ok(())
            } else {
                Err(cookies.join("\n"))
            })
        })
        .await?;
        Ok(())
    })
    .await
}
