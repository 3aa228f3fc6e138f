//! Tests of the world: on trees of /proc and /sys files that stand for machines this test does not run on, and on
//! real processes ([`live`]).

mod cgroup;
mod host;
mod live;
mod pages;
mod process;
mod threads;
mod world;

use super::Options;
use super::cgroup::CgroupReader;
use std::path::PathBuf;

/// A fixture tree with `proc` and `sys` in it.
pub(super) struct Tree(pub(super) tempfile::TempDir);

impl Tree {
    pub(super) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(super) fn with(files: &[(&str, &str)]) -> Self {
        let tree = Self::new();
        for (path, text) in files {
            tree.write(path, text);
        }
        tree
    }

    pub(super) fn write(&self, path: &str, text: &str) {
        let path = self.0.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    pub(super) fn proc(&self) -> PathBuf {
        self.0.path().join("proc")
    }

    pub(super) fn sys(&self) -> PathBuf {
        self.0.path().join("sys")
    }

    pub(super) fn cgroups(&self) -> CgroupReader {
        CgroupReader::new(&self.proc(), &self.sys())
    }

    pub(super) fn options(&self) -> Options {
        Options {
            proc_root: self.proc(),
            sys_root: self.sys(),
            runtime_dir: self.0.path().join("run"),
            ..Options::default()
        }
    }
}
