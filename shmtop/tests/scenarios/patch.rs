//! Overrides on a healthy sample, by paths into its JSON.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use shmtop::sample::Sample;
use transport::stats::Histogram;

use super::base::pages::histogram;
use super::base::{Base, POLLER, SERVER};

/// Overrides for a range of seconds.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Patch {
    #[serde(default)]
    pub(crate) from: u64,
    #[serde(default = "forever")]
    pub(crate) to: u64,
    pub(crate) set: BTreeMap<String, toml::Value>,
}

fn forever() -> u64 {
    u64::MAX
}

/// The sample of second `t` with the patches that hold then.
pub(crate) fn sample(base: &Base, patches: &[Patch], t: u64) -> Sample {
    let mut world = serde_json::to_value(base.sample(t)).unwrap();
    for patch in patches.iter().filter(|p| (p.from..=p.to).contains(&t)) {
        // Only some values mean "as it was then", and the base is not cheap to make.
        let needs_start = patch
            .set
            .values()
            .filter_map(|v| v.as_str())
            .any(|v| v == "stop" || v.starts_with('+'));
        let mut start = if needs_start {
            serde_json::to_value(base.sample(patch.from)).unwrap()
        } else {
            world.clone()
        };
        for (path, value) in &patch.set {
            let now = world["time"]["monotonic_ns"].as_u64().unwrap();
            let old = at(&mut start, path).clone();
            let place = at(&mut world, path);
            let new = value_of(value, &old, place, t - patch.from, now);
            *place = new;
        }
    }
    serde_json::from_value(world).unwrap_or_else(|e| panic!("the patched sample: {e}"))
}

/// What a value of the file means after `seconds` of its patch; `old` is the base's value when it began, `base` the one now.
fn value_of(value: &toml::Value, old: &Value, base: &Value, seconds: u64, now_ns: u64) -> Value {
    let Some(text) = value.as_str() else {
        return serde_json::to_value(value).unwrap();
    };
    if text == "stop" {
        return old.clone();
    }
    if text == "null" {
        return Value::Null;
    }
    if let Some(per_second) = text.strip_prefix('+') {
        let n: u64 = per_second.replace('_', "").parse().unwrap();
        return (old.as_u64().unwrap_or(0) + n * seconds).into();
    }
    if let Some(ago) = text.strip_prefix("now-").and_then(|a| a.strip_suffix('s')) {
        return (now_ns - (ago.parse::<f64>().unwrap() * 1e9) as u64).into();
    }
    if let Some(later) = text.strip_prefix("now+").and_then(|a| a.strip_suffix('s')) {
        return (now_ns + (later.parse::<f64>().unwrap() * 1e9) as u64).into();
    }
    if let Some((n, per_second)) = text.split_once('+') {
        let [n, per_second]: [u64; 2] = [n, per_second].map(|n| n.parse().unwrap());
        return (n + per_second * seconds).into();
    }
    if let Some(values) = text.strip_prefix("also ") {
        let mut sum: Histogram = serde_json::from_value(base.clone()).unwrap();
        let more = value_of(&values.into(), old, base, seconds, now_ns);
        sum.merge(&serde_json::from_value(more).unwrap());
        return serde_json::to_value(sum).unwrap();
    }
    if let Some(values) = text.strip_prefix("hist ") {
        let pairs: Vec<(u64, u64)> = values
            .split_whitespace()
            .map(|p| {
                let (n, ns) = p.split_once('@').unwrap();
                (ns.parse().unwrap(), n.parse::<u64>().unwrap() * seconds)
            })
            .collect();
        return serde_json::to_value(histogram(&pairs)).unwrap();
    }
    text.into()
}

/// The place a path leads to; it must exist, so that a misspelt one fails.
fn at<'a>(world: &'a mut Value, path: &str) -> &'a mut Value {
    let mut parts = path.split('.');
    let mut take = || parts.next().unwrap_or("");
    let first = take();
    let mut here = match first {
        "process" => process(world, pid(take())),
        "thread" => &mut process(world, pid(take()))["threads"][0],
        "page" => &mut content(world, pid(take()))["read"],
        "content" => content(world, pid(take())),
        "slot" => &mut content(world, pid(take()))["read"]["slots"][0],
        "at-server" => {
            let n: usize = take().parse().unwrap();
            &mut content(world, SERVER)["read"]["slots"][n]
        }
        "poller" => &mut content(world, SERVER)["read"]["slots"][0],
        "perf" => {
            let who = take();
            let tid = if who == "server" { POLLER } else { pid(who) };
            find(&mut world["perf"], "tid", tid)
        }
        "cpu" => {
            let n: usize = take().parse().unwrap();
            &mut world["host"]["cpus"][n]
        }
        "listener" => &mut world["listeners"][0],
        other => &mut world[other],
    };
    for part in parts {
        here = match (part.parse::<usize>(), here.is_array()) {
            (Ok(i), true) => &mut here[i],
            _ => here
                .get_mut(part)
                .unwrap_or_else(|| panic!("no {part:?} in path {path:?}")),
        };
    }
    here
}

fn pid(who: &str) -> u32 {
    match who {
        "server" => SERVER,
        n => Base::client_pid(n.parse().unwrap_or_else(|_| panic!("who is {n:?}?"))),
    }
}

fn find<'a>(list: &'a mut Value, key: &str, value: u32) -> &'a mut Value {
    list.as_array_mut()
        .unwrap()
        .iter_mut()
        .find(|x| x[key] == value)
        .unwrap_or_else(|| panic!("no {key} {value}"))
}

fn process(world: &mut Value, pid: u32) -> &mut Value {
    find(&mut world["processes"], "pid", pid)
}

fn content(world: &mut Value, pid: u32) -> &mut Value {
    &mut find(&mut world["pages"], "pid", pid)["content"]
}
