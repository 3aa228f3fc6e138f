//! A client that stands still: its state comes before what it did while it moved.

use shmtop::ui::State;

use super::{fixture, opened, screen};

const STOPPED: u32 = 7;

#[test]
fn opened_it_is_named_by_its_state_at_any_width_and_the_sentence_is_whole() {
    let model = fixture::exchange();
    for width in [200, 120, 80, 60, 40] {
        let drawn = screen(&model, &opened(&model, STOPPED), width, 24);
        let words = drawn.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(
            words.contains(" stopped, bound by consumer since "),
            "{width}: {drawn}"
        );
        let sentence = "the peer has not read for 4.2 s; ring 41 % full and growing 0 B/s";
        assert!(words.contains(sentence), "{width}: {drawn}");
    }
}

#[test]
fn it_has_no_latency_in_the_table() {
    let mut model = fixture::exchange();
    let rtt = model.endpoints[0].clients[0].rtt.clone();
    let stopped = |m: &shmtop::model::Model| {
        let drawn = screen(m, &State::default(), 120, 40);
        let line = drawn.lines().find(|l| l.contains("■ 7")).unwrap();
        line.to_owned()
    };
    let without = stopped(&model);
    let clients = &mut model.endpoints[0].clients;
    let row = clients.iter_mut().find(|c| c.number == STOPPED).unwrap();
    row.rtt = rtt;
    assert_eq!(stopped(&model), without);
}
