//! What `ps` prints, as a table and as JSON.

use serde_json::Value;
use shmtop::model::{Choice, Model, Unreadable};
use shmtop::reading::Why;
use shmtop::report;
use shmtop::sample::PageContent;
use transport::stats::Role;

use crate::base::{BASES, Base};
use crate::{model, schema, valid};

#[test]
fn ps_json_is_what_its_schema_says() {
    let schema = schema("ps");
    for base in BASES {
        let (model, _) = model(&base, 1, |s| {
            let mut unreadable = s.pages[0].clone();
            unreadable.content = PageContent::Permission("EACCES".into());
            s.pages.push(unreadable);
        });
        let document = report::ps_json(&model);
        valid(&schema, &document, base.name);
        let listed = |name: &str| document[name].as_array().map_or(0, Vec::len);
        assert_eq!(
            (listed("endpoints") > 0, listed("unreadable")),
            (true, 1),
            "{}",
            base.name
        );
    }
    valid(&schema, &report::ps_json(&Model::empty()), "nothing");
}

#[test]
fn of_a_client_process_whose_page_is_full_ps_tells_how_many_connections_it_has_as_far_as_its_servers_say()
 {
    let (mut model, _) = model(&Base::named("busy"), 0, |_| {});
    let pid = model
        .endpoints
        .iter()
        .find(|e| e.role == Role::Client)
        .unwrap()
        .pid;
    let clients = |model: &Model| {
        let document = report::ps_json(model);
        let endpoints = document["endpoints"].as_array().unwrap();
        let endpoint = endpoints.iter().find(|e| e["pid"] == pid).unwrap();
        let text = report::ps(model);
        let pid = pid.to_string();
        let line = text
            .lines()
            .find(|l| l.split_whitespace().nth(2) == Some(&pid));
        let words: Vec<String> = line
            .unwrap()
            .split_whitespace()
            .skip(4)
            .map(str::to_owned)
            .collect();
        let end = words.iter().position(|w| w == "–").unwrap();
        valid(&schema("ps"), &document, "full");
        assert_eq!(endpoint["unlisted"].is_null(), endpoint["why"].is_string());
        (words[..end].join(" "), endpoint["unlisted"].clone())
    };
    assert_eq!(clients(&model), ("1".to_owned(), 0.into()));
    let own = model.endpoints.iter().position(|e| e.pid == pid).unwrap();
    model.endpoints[own].totals.clients = 128;
    assert_eq!(
        clients(&model),
        ("128+".to_owned(), Value::Null),
        "its servers show one"
    );
    let server = model
        .endpoints
        .iter()
        .position(|e| e.role == Role::Server)
        .unwrap();
    let row = model.endpoints[server]
        .clients
        .iter()
        .find(|c| c.peer_pid == pid)
        .unwrap()
        .clone();
    for _ in 1..1_000 {
        model.endpoints[server].clients.push(row.clone());
    }
    assert_eq!(clients(&model), ("128 of 1000".to_owned(), 872.into()));
    // One that nobody asked for shows them as well.
    let choice = Choice {
        pids: vec![pid],
        name: None,
    };
    let mut alone = model.clone();
    choice.select(&mut alone);
    assert_eq!(clients(&alone), ("128 of 1000".to_owned(), 872.into()));
    // It may have more at a server whose page can't be seen, asked for or not.
    let at_least = ("1000+".to_owned(), Value::Null);
    let mut unsearched = model.clone();
    unsearched.unsearched = 1;
    assert_eq!(clients(&unsearched), at_least, "unsearched");
    model.unreadable.push(Unreadable {
        pid: Some(pid + 1_000),
        name: "theirs".into(),
        why: Why::no_permission("EACCES"),
        version: None,
    });
    assert_eq!(clients(&model), at_least, "unreadable");
    choice.select(&mut model);
    assert!(model.unreadable.is_empty());
    assert_eq!(clients(&model), at_least, "unreadable, and not asked for");
}
