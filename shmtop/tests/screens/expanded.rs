//! The table with two lines for each client.

use shmtop::ui::{ClientId, State};

use super::{fixture, screen};

#[test]
fn what_is_above_and_below_is_counted_in_clients_and_begins_with_one() {
    let model = fixture::exchange();
    let endpoint = &model.endpoints[0];
    let all = endpoint.clients.len();
    for client in &endpoint.clients {
        let state = State {
            expanded: true,
            selected: Some(ClientId::of(endpoint, client)),
            ..State::default()
        };
        let drawn = screen(&model, &state, 80, 15);
        let numbers = |prefix: &str| {
            let word = drawn.split(prefix).nth(1)?.split_whitespace().next()?;
            word.parse::<usize>().ok()
        };
        let (above, below) = (numbers("↑ ").unwrap_or(0), numbers("↓ ").unwrap_or(0));
        let table = drawn.lines().skip_while(|l| !l.contains("CLIENT")).skip(1);
        let is_client = |l: &&str| {
            l.trim_start_matches(['›', ' '])
                .starts_with(['●', '○', '■', '▲', '✖'])
        };
        let (first, rest) = {
            let mut table = table;
            (table.next().unwrap(), table)
        };
        assert!(is_client(&first), "{drawn}");
        assert_eq!(
            above + 1 + rest.filter(is_client).count() + below,
            all,
            "{drawn}"
        );
    }
}
