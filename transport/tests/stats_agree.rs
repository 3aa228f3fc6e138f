//! The stats pages of the two sides tell one story.

use transport::stats::{PageReader, Role, Slot, SlotKind, SlotState, Snapshot, Via, registry};
use transport::{Config, Membrane, Synapse, TransportChoice};

fn pages(dir: &std::path::Path) -> Vec<Snapshot> {
    let found = registry::discover(dir).expect("a directory");
    found
        .iter()
        .map(|f| {
            PageReader::open(&f.link)
                .and_then(|r| r.snapshot())
                .expect("a page")
        })
        .collect()
}

fn side(pages: &[Snapshot], role: Role, id: u64) -> Slot {
    let page = pages
        .iter()
        .find(|p| p.role == role)
        .expect("a page of this role");
    let slot = page
        .slots
        .iter()
        .find(|s| s.info.kind == SlotKind::Connection && s.info.connection_id == id);
    slot.expect("the connection's slot").clone()
}

#[test]
fn client_and_server_agree_on_every_message_and_byte() {
    let dir = tempfile::tempdir().expect("a directory");
    let stats = dir.path().join("stats");
    let config = Config {
        name: "agree".into(),
        ring_bytes: 64 << 10,
        max_message_bytes: 20_000,
        stats_dir: Some(stats.clone()),
        ..Config::default()
    };
    let server = Membrane::bind(dir.path().join("s"), &config, |request, reply| {
        reply
            .extend_from_slice(&request[..request.len() / 2])
            .expect("smaller than the request");
    })
    .expect("a server");
    for transport in [TransportChoice::Shm, TransportChoice::Socket] {
        let mut client = Synapse::connect(
            server.path(),
            &Config {
                transport,
                ..config.clone()
            },
        )
        .expect("a client");
        let mut bytes = 0u64;
        for n in 0..3000usize {
            let size = n * 37 % 20_001;
            bytes += size as u64;
            client.fire_bytes(&vec![1; size]).expect("a reply");
        }
        let id = client.connection_id();
        // The server books a reply after sending it, so the client may look before that.
        let watchdog = std::time::Instant::now();
        let (ours, theirs) = loop {
            let all = pages(&stats);
            let theirs = side(&all, Role::Server, id);
            if theirs.req.replies == 3000 || watchdog.elapsed().as_secs() > 20 {
                break (side(&all, Role::Client, id), theirs);
            }
            std::thread::yield_now();
        };
        for slot in [&ours, &theirs] {
            assert_eq!(slot.info.state, SlotState::Open);
            assert_eq!(slot.info.peer_pid, std::process::id());
            assert_eq!(slot.req.requests, 3000);
            assert_eq!(slot.req.replies, 3000);
        }
        assert_eq!(
            ours.info.transport,
            if transport == TransportChoice::Shm {
                Via::Shm
            } else {
                Via::Socket
            }
        );
        assert_eq!((ours.tx.tx_messages, ours.tx.tx_bytes), (3000, bytes));
        assert_eq!((theirs.rx.rx_messages, theirs.rx.rx_bytes), (3000, bytes));
        assert_eq!(
            (theirs.tx.tx_messages, theirs.tx.tx_bytes),
            (ours.rx.rx_messages, ours.rx.rx_bytes)
        );
        if transport == TransportChoice::Shm {
            assert_eq!(ours.tx.tx_record_bytes, theirs.rx.rx_record_bytes);
            assert_eq!(ours.tx.tx_padding_bytes, theirs.rx.rx_padding_bytes);
            assert_eq!(
                ours.tx.tx_index, theirs.rx.rx_index,
                "everything was consumed"
            );
            assert_eq!(ours.tx.tx_index_hits + ours.tx.tx_index_loads, 3000);
            assert!(ours.tx.tx_wraps > 0, "a 64 KiB ring wraps under 30 MB");
        }
        // Sampled and weighted, so near but not exact.
        let (timed, handled) = (ours.rtt.count(), theirs.handler.count());
        assert!(
            (1500..=6000).contains(&timed) && (1500..=6000).contains(&handled),
            "{timed} {handled}"
        );
    }
}
