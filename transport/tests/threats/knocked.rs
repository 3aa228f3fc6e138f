//! A server at whose door rogues knock, beside a client that it serves all the time.

use transport::stats::ProcessCounters;

use crate::rogue::{REFUSED, Raw};
use crate::role::{Process, WATCHDOG};
use crate::watch::{Held, held, within};
use crate::world::{Ended, World, mix, ready};

pub(crate) struct Knocked {
    pub(crate) world: World,
    pub(crate) server: Process,
    pub(crate) bystander: transport::Synapse,
    before: Held,
    /// As of the last time that all was well.
    pub(crate) counted: ProcessCounters,
}

impl Knocked {
    pub(crate) fn new() -> Self {
        Self::with("300")
    }

    /// With this handshake timeout, in milliseconds.
    pub(crate) fn with(timeout_ms: &str) -> Self {
        let world = World::new();
        let server = ready(world.server().with("HANDSHAKE_MS", timeout_ms));
        let mut bystander = world.connect();
        assert!(matches!(mix(&mut bystander, 1, 0), Ended::Done));
        let before = held(server.pid());
        let counted = world.page(&server).process;
        Self {
            world,
            server,
            bystander,
            before,
            counted,
        }
    }

    pub(crate) fn knock(&self) -> Raw {
        Raw::connect(&self.world.path())
    }

    /// Others are served, nothing is held, nothing pends, and `counter` went up by `times`.
    pub(crate) fn all_is_well(
        &mut self,
        counter: fn(&ProcessCounters) -> u64,
        times: u64,
        what: &str,
    ) {
        assert!(
            matches!(mix(&mut self.bystander, 1, 0), Ended::Done),
            "{what}"
        );
        let mut now = self.counted;
        within(WATCHDOG, what, || {
            let holds = held(self.server.pid());
            now = self.world.page(&self.server).process;
            let same = (holds.fds, holds.rings) == (self.before.fds, self.before.rings);
            let counted = counter(&now) - counter(&self.counted);
            (same && counted == times && now.pending_handshakes == 0)
                .then_some(())
                .ok_or((holds, counted, now.pending_handshakes))
        });
        self.counted = now;
        assert!(
            matches!(mix(&mut self.world.connect(), 1, 0), Ended::Done),
            "{what}: the next one"
        );
    }

    pub(crate) fn refused(&mut self, mut raw: Raw, reason: u32, what: &str) {
        let heard = raw
            .hear()
            .unwrap_or_else(|| panic!("{what}: closed without a word"));
        assert_eq!(
            (heard.kind(), heard.u32(24)),
            (REFUSED, reason),
            "{what}: {heard:?}"
        );
        raw.is_closed();
    }
}
