//! Requests allocate nothing: a promise of the pre-allocated buffers on both sides, counted by the allocator itself.

mod counting;

use transport::{Config, Membrane, Synapse, TransportChoice};

/// Alone in this file, so that no other test's allocations are counted. Server and client are in this process: both are counted.
#[test]
fn a_request_allocates_nothing_on_either_side_and_either_transport() {
    for transport in [TransportChoice::Shm, TransportChoice::Socket] {
        let dir = tempfile::tempdir().expect("a directory");
        let config = Config {
            transport,
            stats_dir: Some(dir.path().join("stats")),
            ..Config::default()
        };
        let server_config = Config {
            transport: TransportChoice::Auto,
            ..config.clone()
        };
        let server = Membrane::bind(dir.path().join("s"), &server_config, |request, reply| {
            reply
                .extend_from_slice(request)
                .expect("as large as the request");
        })
        .expect("a server");
        let mut client = Synapse::connect(server.path(), &config).expect("a client");
        let request = vec![7u8; 1 << 20];
        let fire = |client: &mut Synapse, size: usize| {
            let reply = client.fire_bytes(&request[..size]).expect("a reply");
            assert_eq!(reply.len(), size);
        };
        let runs = |client: &mut Synapse| {
            for size in [0, 64, 20_000, 1 << 20] {
                (0..20).for_each(|_| fire(client, size));
            }
        };
        runs(&mut client);
        counting::begin();
        runs(&mut client);
        assert_eq!(counting::end(), 0, "{transport:?}");
        // Every second reply outgrows what is expected of it, at each place of a lap.
        let mut client = Synapse::connect(server.path(), &config).expect("a client");
        let mut alternate = |times| {
            for n in 0..times {
                fire(&mut client, [64, 200_000][n % 2]);
            }
        };
        alternate(20);
        counting::begin();
        alternate(2_000);
        assert_eq!(counting::end(), 0, "{transport:?}, sizes that alternate");
    }
}
