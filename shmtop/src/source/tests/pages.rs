//! Promises about pages: one user's do not fill the viewer's memory, nor keep the others' out.

use std::collections::HashMap;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use transport::stats::page::{PageDescription, PageWriter};
use transport::stats::registry::Found;
use transport::stats::slot::{SlotFacts, SlotWriter};
use transport::stats::{Role, SlotKind, registry};

use crate::sample::{Page, PageContent};
use crate::source::Options;
use crate::source::budget::{Budget, Counted, distinct};
use crate::source::pages::PageStore;

/// A page with so many connections, announced while it lives.
struct Announced {
    page: Arc<PageWriter>,
    _slots: Vec<SlotWriter>,
    _link: registry::Announcement,
}

fn announced(dir: &Path, name: &str, connections: u32) -> Announced {
    let page = PageWriter::create(&PageDescription {
        name,
        role: Role::Server,
        socket_path: Path::new("/nowhere"),
        slots: 64,
    });
    let open = |_| {
        let slot = page.slot(SlotKind::Connection).unwrap();
        slot.publish_info(&SlotFacts {
            open: true,
            ..SlotFacts::default()
        });
        slot
    };
    let slots = (0..connections).map(open).collect();
    let fd: BorrowedFd<'_> = page.fd().unwrap();
    let link = registry::announce(dir, name, std::process::id(), fd).unwrap();
    Announced {
        page: Arc::clone(&page),
        _slots: slots,
        _link: link,
    }
}

fn read(dir: &Path, budget: Budget) -> (PageStore, Vec<Page>) {
    let mut store = PageStore::new(&Options {
        runtime_dir: dir.to_owned(),
        scan: false,
        ..Options::default()
    });
    store = store.with_budget(budget);
    let pages = looked(&mut store, 1);
    (store, pages)
}

fn looked(store: &mut PageStore, now_ns: u64) -> Vec<Page> {
    store.look_for(now_ns);
    store.read(now_ns)
}

fn said(pages: &[Page]) -> Vec<String> {
    let mut said: Vec<String> = pages
        .iter()
        .map(|p| match &p.content {
            PageContent::Read(s) => s.name.clone(),
            PageContent::Unreadable(why) => why.clone(),
            other => format!("{other:?}"),
        })
        .collect();
    said.sort();
    said
}

/// A second later `check` may be over, and could not say what the client gave up.
#[test]
fn the_page_of_a_client_that_connects_is_found_with_the_connection() {
    let dir = tempfile::tempdir().unwrap();
    let server = announced(dir.path(), "server", 1);
    let (mut store, pages) = read(dir.path(), Budget::default());
    assert_eq!(said(&pages), ["server"]);
    let _client = announced(dir.path(), "client", 1);
    let half_second = 500_000_000;
    assert_eq!(
        said(&looked(&mut store, half_second)),
        ["server"],
        "nobody has connected: it can wait"
    );
    server.page.process().accepted.fetch_add(1, Relaxed);
    assert_eq!(
        said(&looked(&mut store, half_second + 1)),
        ["client", "server"]
    );
}

#[test]
fn a_page_that_says_more_than_one_users_may_is_not_copied_and_the_others_are() {
    let dir = tempfile::tempdir().unwrap();
    let uid = nix::unistd::geteuid();
    let _large = announced(dir.path(), "a-large", 60);
    let _small = announced(dir.path(), "b-small", 1);
    let budget = Budget {
        user_bytes: 16 << 10,
        ..Budget::default()
    };
    let (mut store, pages) = read(dir.path(), budget);
    let wanted = [
        "b-small".to_owned(),
        format!("the pages of user {uid} say more than one user's may: this one is not read"),
    ];
    assert_eq!(said(&pages), wanted);
    assert_eq!(
        said(&looked(&mut store, 2)),
        wanted,
        "and so it stays for a while"
    );
    let (_, pages) = read(dir.path(), Budget::default());
    assert_eq!(said(&pages), ["a-large", "b-small"]);
}

#[test]
fn a_small_page_that_a_large_one_left_no_room_for_is_read_when_its_size_is_known() {
    let dir = tempfile::tempdir().unwrap();
    let large = announced(dir.path(), "a-large", 60);
    let _small = announced(dir.path(), "b-small", 20);
    let snapshot = |name: &str| {
        let (_, pages) = read(dir.path(), Budget::default());
        let mut read = pages.iter().filter_map(Page::snapshot);
        let found = read.find(|s| s.name == name).unwrap();
        crate::source::budget::bytes(found)
    };
    let budget = Budget {
        user_bytes: snapshot("a-large") + 1,
        ..Budget::default()
    };
    let (mut store, pages) = read(dir.path(), budget);
    assert!(said(&pages).contains(&"a-large".to_owned()));
    let later = said(&looked(&mut store, 10_000_000_001));
    assert!(later.contains(&"b-small".to_owned()), "{later:?}");
    assert!(!later.contains(&"a-large".to_owned()), "{later:?}");
    drop(large);
    assert_eq!(said(&looked(&mut store, 20_000_000_002)), ["b-small"]);
}

/// A page that is not announced, and so many more descriptors of it.
fn hidden(copies: usize) -> (Arc<PageWriter>, Vec<OwnedFd>) {
    let page = PageWriter::create(&PageDescription {
        name: "hidden",
        role: Role::Server,
        socket_path: Path::new("/nowhere"),
        slots: 1,
    });
    let fd = page.fd().unwrap();
    let copies = (0..copies).map(|_| fd.try_clone_to_owned().unwrap());
    let copies = copies.collect();
    (page, copies)
}

fn as_found(fd: &OwnedFd) -> Found {
    let pid = std::process::id();
    Found {
        link: format!("/proc/{pid}/fd/{}", fd.as_raw_fd()).into(),
        pid,
        name: "hidden".to_owned(),
    }
}

#[test]
fn a_thousand_descriptors_of_one_file_are_one_to_look_at_and_those_of_too_many_files_are_counted() {
    let (_first, copies) = hidden(100);
    let found: Vec<Found> = copies.iter().map(as_found).collect();
    let (kept, beyond) = distinct(found.clone(), Budget::default(), 8);
    assert_eq!(kept, found[..1]);
    assert!(beyond.is_empty(), "{beyond:?}");

    let others: Vec<_> = (0..4).map(|_| hidden(2)).collect();
    let all = others.iter().flat_map(|(_, copies)| copies);
    let budget = Budget {
        user_pages: 3,
        ..Budget::default()
    };
    let (kept, beyond) = distinct(all.map(as_found).collect(), budget, 8);
    assert_eq!(kept.len(), 3);
    let uid = nix::unistd::geteuid().as_raw();
    assert_eq!(beyond, HashMap::from([(uid, 4)]), "all that there are");
}

#[test]
fn pages_beyond_what_is_looked_at_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let _pages = ["a", "b", "c"].map(|name| announced(dir.path(), name, 1));
    let budget = Budget {
        user_pages: 1,
        ..Budget::default()
    };
    let (_, pages) = read(dir.path(), budget);
    let said = said(&pages);
    assert_eq!(said[0], "2 more pages of this user are not looked at");
    assert_eq!(said.len(), 2, "{said:?}");
}

#[test]
fn pages_that_say_too_much_are_read_in_vain_twice_a_look_until_their_sizes_are_known() {
    const S: u64 = 1_000_000_000;
    let dir = tempfile::tempdir().unwrap();
    let mut large: Vec<_> = (0..6)
        .map(|n| announced(dir.path(), &format!("large-{n}"), 60))
        .collect();
    let budget = Budget {
        user_bytes: 16 << 10,
        ..Budget::default()
    };
    let (mut store, _) = read(dir.path(), budget);
    let mut sized = vec![store.sized()];
    for look in 1..4 {
        looked(&mut store, look * S);
        sized.push(store.sized());
    }
    assert_eq!(sized, [2, 4, 6, 6]);
    // The crowd has passed: what is known to fit is read at once.
    large.truncate(2);
    let mut store = store.with_budget(Budget::default());
    assert_eq!(said(&looked(&mut store, 5 * S)), ["large-0", "large-1"]);
}

#[test]
fn a_user_who_is_known_to_have_a_crowd_has_what_was_not_admitted_of_it_left_out_once() {
    let budget = Budget::default();
    let mut counted = Counted::default();
    for _ in 0..4 {
        counted.admit(7);
    }
    assert!(counted.has_room(7, budget));
    for _ in 0..5 {
        counted.refuse(7);
    }
    // The scan saw those, or two more.
    for (all, more) in [(9, 5), (11, 7), (3, 7)] {
        counted.of_a_crowd(7, all);
        assert_eq!(counted.left_out[&7], more);
    }
}

/// Children that kept a page's descriptor are no more pages.
#[test]
fn one_page_with_many_finders_is_one() {
    let (_page, copies) = hidden(20);
    let found = copies.iter().zip(1..).map(|(fd, pid)| Found {
        pid,
        ..as_found(fd)
    });
    let budget = Budget {
        user_pages: 1,
        ..Budget::default()
    };
    let (kept, crowds) = distinct(found.collect(), budget, 8);
    assert_eq!((kept.len(), crowds.len()), (8, 0));
}
