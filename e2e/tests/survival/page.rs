//! The page: what all of it is about, and a section for every place.

use crate::{LEAVERS, MEMBERS, PLACES, Place};

/// What a section begins with.
const HEADING: &str = "\n## ";

fn heading(place: Place) -> &'static str {
    match place {
        Place::OwnPod => "Sticky: every user stays at a pod",
        Place::Memory => "Shared: a store with sessions in memory",
        Place::Volume => "Shared: a store with sessions on a volume (what differs)",
        Place::Servers => "Shared: a store of three servers with sessions in memory (what differs)",
        Place::ServersOnVolumes => "Shared: a store of three servers, each with a volume (what differs)",
        Place::Shards => {
            "Shared: a cluster of three shards, a primary and a replica each, with sessions in memory (what differs)"
        }
        Place::ShardsOnVolumes => {
            "Shared: a cluster of three shards, each server with a volume (what differs)"
        }
        Place::AllPods => "Replicated, mode All: every pod has every session",
        Place::TwoPods => "Replicated, mode Backup(1): a pod and another one",
    }
}

fn introduction() -> String {
    format!(
        "# What sessions survive: promised and measured\n\n\
         Written by `make test-long` (`e2e/tests/survival`), each section as it was measured, at the commit that it names.\n\n\
         Stores have topology Standalone (Redis, TLS), those of three servers and of three shards Replicated and Cluster, \
         applications 3 pods each, and no affinity unless the heading says so. Before every event \
         {MEMBERS} users of each application log in and fill their sessions, and {LEAVERS} more log out again; they go on \
         while it happens. *Promised* is `status.survives` of the policies before the event; where its sentence tells several \
         ways apart, also what it says of this one. *Measured* is how many users were logged in with everything they had at \
         every answer that they got, and how many of their requests got none of the application's answers (the store \
         or the pod was away); – where the application's stock handler cannot keep sessions there. Nobody who had logged out \
         came back. The run fails where a measurement is worse than its promise.\n"
    )
}

/// A page with another section for a place.
pub fn with(page: &str, place: Place, section: &str) -> String {
    let written = |of: Place| {
        let mut sections = page.split(HEADING).skip(1);
        sections.find_map(|section| section.strip_prefix(heading(of)))
    };
    let mut new = introduction();
    for each in PLACES {
        let text = if each == place {
            Some(section)
        } else {
            written(each)
        };
        if let Some(text) = text {
            for part in [HEADING, heading(each), "\n\n", text.trim(), "\n"] {
                new.push_str(part);
            }
        }
    }
    new
}

#[test]
fn a_section_replaces_the_one_of_its_place_and_no_other() {
    let first = with("", Place::TwoPods, "two\n");
    let both = with(
        &first,
        Place::Memory,
        "memory\n\nWorse than promised:\n\n* shop\n",
    );
    let memory = "\n## Shared: a store with sessions in memory\n\nmemory\n\nWorse than promised:\n\n* shop\n";
    let two = "\n## Replicated, mode Backup(1): a pod and another one\n\ntwo\n";
    assert_eq!(both, format!("{}{memory}{two}", introduction()));
    let again = with(&both, Place::TwoPods, "two again");
    assert_eq!(again, both.replace("\ntwo\n", "\ntwo again\n"));
}
