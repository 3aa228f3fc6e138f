//! What is in force: flags over environment (clap does those two) over the configuration file over defaults.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::Failure;
#[cfg(test)]
use crate::cli::Cli;
use crate::cli::{Flags, Format, Typed, duration};
use crate::judge::Judge;
use crate::model::listing::SortKey;
use crate::model::{Choice, LONGEST_NS, Model};
use crate::source::PerfScope;
use crate::text;
use crate::ui::{State, ThemeName};

/// The configuration file. Every key is optional; an unknown one is a mistake and said so.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    delay: Option<String>,
    theme: Option<String>,
    ascii: Option<bool>,
    color: Option<bool>,
    sort: Option<String>,
    filter: Option<String>,
    perf: Option<bool>,
}

/// Everything in force.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) choice: Choice,
    pub(crate) delay: Option<Duration>,
    pub(crate) count: Option<u64>,
    pub(crate) format: Option<Format>,
    pub(crate) typed: Typed,
    /// Filter, order, theme, symbols.
    pub(crate) state: State,
    perf: bool,
    file: Option<PathBuf>,
}

fn config_path() -> Option<PathBuf> {
    let dir = std::env::var_os("XDG_CONFIG_HOME")
        .filter(|d| !d.is_empty())
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".config")))?;
    Some(dir.join("shmtop/config.toml"))
}

/// Whether there is something at the path, as far as we may see: a HOME that we may not search is somebody else's.
fn is_there(path: &Path) -> bool {
    use std::io::ErrorKind::{NotADirectory, NotFound, PermissionDenied};
    match std::fs::symlink_metadata(path) {
        Ok(_) => true,
        Err(e) => !matches!(e.kind(), NotFound | NotADirectory | PermissionDenied),
    }
}

/// Whether a locale (the first that is set counts) names a character set that is not UTF-8. One that names none says nothing of the
/// terminal: containers have no locale, and `C` is set for the sake of sorting.
fn other_charset(locales: [Option<OsString>; 3]) -> bool {
    let set = locales.into_iter().flatten().find(|l| !l.is_empty());
    let set = set.unwrap_or_default();
    let set = set.to_string_lossy();
    set.split_once('.').is_some_and(|(_, charset)| {
        let charset = charset.split('@').next().unwrap_or_default();
        !["utf-8", "utf8"].contains(&charset.to_lowercase().as_str())
    })
}

impl Settings {
    pub(crate) fn new(flags: Flags) -> Result<Self, Failure> {
        let path = config_path();
        let text = match path.as_deref().map(std::fs::read_to_string) {
            Some(Ok(text)) => Some(text),
            Some(Err(e)) if path.as_deref().is_some_and(is_there) => {
                return Err(Failure::Usage(format!(
                    "{}: {e}",
                    path.unwrap_or_default().display()
                )));
            }
            _ => None,
        };
        let here = path.as_ref().filter(|_| text.is_some()).cloned();
        Self::merge(flags, text.as_deref().unwrap_or(""), here)
    }

    fn merge(flags: Flags, text: &str, file: Option<PathBuf>) -> Result<Self, Failure> {
        let at = || {
            file.as_ref()
                .map_or_else(String::new, |f| f.display().to_string())
        };
        let wrong = |what: String| Failure::Usage(format!("{}: {what}", at()));
        let read: File = toml::from_str(text).map_err(|e| wrong(e.message().to_owned()))?;
        let delay = match (flags.delay, read.delay) {
            (Some(d), _) => Some(d),
            (None, Some(text)) => Some(duration(&text).map_err(|e| wrong(format!("delay: {e}")))?),
            (None, None) => None,
        };
        let sort = match (flags.sort, read.sort) {
            (Some(s), _) => s,
            (None, Some(name)) => SortKey::from_name(&name)
                .ok_or_else(|| wrong(format!("sort: there is no column {name:?}")))?,
            (None, None) => SortKey::default(),
        };
        let theme = match (flags.theme, read.theme) {
            (Some(t), _) => t,
            (None, Some(name)) => ThemeName::from_name(&name)
                .ok_or_else(|| wrong(format!("theme: there is no theme {name:?}")))?,
            (None, None) => ThemeName::default(),
        };
        let plain = flags.no_color
            || read.color == Some(false)
            || std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
        Ok(Self {
            choice: Choice {
                pids: flags.pids,
                name: flags.name,
            },
            delay,
            count: flags.count,
            format: flags.format,
            typed: flags.typed,
            state: State {
                filter: flags.filter.or(read.filter).unwrap_or_default(),
                sort,
                theme: if plain { ThemeName::Mono } else { theme },
                ascii: flags.ascii
                    || read.ascii.unwrap_or_else(|| {
                        other_charset(["LC_ALL", "LC_CTYPE", "LANG"].map(std::env::var_os))
                    }),
                ..State::default()
            },
            perf: read.perf.unwrap_or(true),
            file,
        })
    }

    /// Without flags and without a file.
    #[cfg(test)]
    pub(super) fn bare() -> Self {
        Self::merge(Cli::typed(&[]), "", None).expect("nothing is wrong with nothing")
    }

    /// The delay, or so many seconds.
    pub(crate) fn delay_or(&self, seconds: f64) -> Duration {
        self.delay.unwrap_or(Duration::from_secs_f64(seconds))
    }

    /// The same, unless one look comes so long after another that no hint could ever be given. A delay that was not typed is meant for
    /// commands that can have it.
    pub(crate) fn for_hints(mut self) -> Result<Self, Failure> {
        let longest = Duration::from_nanos(LONGEST_NS);
        match self.delay {
            Some(delay) if delay > longest && !self.typed.delay => {
                self.delay = None;
                Ok(self)
            }
            Some(delay) if delay > longest => Err(Failure::Usage(format!(
                "a delay of {} is too long for hints: they compare looks that are at most {} apart",
                text::ns(delay.as_nanos() as u64),
                text::ns(LONGEST_NS)
            ))),
            _ => Ok(self),
        }
    }

    /// How to look at the world.
    pub(crate) fn world(&self) -> crate::source::Options {
        crate::source::Options {
            perf: if self.perf {
                PerfScope::default()
            } else {
                PerfScope::Off
            },
            ..crate::source::Options::default()
        }
    }

    /// What makes models of samples, and lets a finding about many speak of who was asked for.
    pub(crate) fn judge(&self) -> Judge {
        Judge::new().asked_for(&self.choice.pids)
    }

    /// Whether only some endpoints are wanted.
    pub(crate) fn selects(&self) -> bool {
        !self.choice.is_everything()
    }

    /// Leaves the endpoints (and findings about them) that are wanted.
    pub(crate) fn select(&self, model: &mut Model) {
        self.choice.select(model);
    }

    /// The configuration in force as a file with comments.
    pub(crate) fn to_file(&self) -> String {
        let source = match &self.file {
            Some(f) => format!("# Read from {}.\n", f.display()),
            None => "# No file was read.\n".into(),
        };
        let path = config_path().map_or_else(
            || "~/.config/shmtop/config.toml".into(),
            |p| p.display().to_string(),
        );
        let delay = self.delay.map_or("#delay = \"100ms\"".into(), |d| {
            format!("delay = \"{}ms\"", d.as_millis())
        });
        let color = self.state.theme != ThemeName::Mono;
        format!(
            "# shmtop's configuration; goes to {path}\n{source}# Flags and SHMTOP_… in the environment come first.\n\n\
             # Time between two looks, with a unit. Default: 100ms for the dashboard, 1s for snapshot.\n{delay}\n\n\
             # dark, light, contrast or mono\ntheme = \"{}\"\n\n\
             # false: no colours, as NO_COLOR does\ncolor = {color}\n\n\
             # true: plain ASCII instead of bars and symbols\nascii = {}\n\n\
             # client, peer, via, requests, bytes, ring, reply-ring, hits, wait, p50, p99, p99.9 or bound\nsort = \"{}\"\n\n\
             # words that a client must match; empty for all\nfilter = {}\n\n\
             # perf counters; each watched thread pays for them at its context switches\nperf = {}\n",
            self.state.theme.name(),
            self.state.ascii,
            self.state.sort.name(),
            toml::Value::String(self.state.filter.clone()),
            self.perf,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(args: &[&str], file: &str) -> Result<Settings, Failure> {
        Settings::merge(Cli::typed(args), file, Some("config.toml".into()))
    }

    #[test]
    fn what_is_said_of_others_on_the_host_is_not_said_of_the_process_that_was_asked_for() {
        use crate::model::{Finding, Severity, Subject};
        use crate::sample::{Page, Sample};
        let page = |pid| Page::read(pid, transport::stats::Snapshot::default());
        let mut model = Judge::new().push(Sample {
            pages: vec![page(1), page(2)],
            ..Sample::default()
        });
        let about = |id, pids: Option<Vec<u32>>| Finding {
            about: pids,
            ..Finding::bare(id, Severity::Crit, Subject::default())
        };
        model.findings = vec![
            about("theirs", Some(vec![2, 3])),
            about("mine", Some(vec![3, 1])),
            about("everybody's", None),
        ]
        .into();
        settings(&["-p", "1"], "").unwrap().select(&mut model);
        let left: Vec<_> = model.findings.iter().map(|f| f.id).collect();
        assert_eq!(left, ["mine", "everybody's"]);
    }

    #[test]
    fn a_client_whose_server_was_not_asked_for_is_shown_by_itself() {
        use crate::sample::{Page, Sample};
        use transport::stats::{Role, Slot, SlotInfo, SlotKind, SlotState, Snapshot};
        let page = |pid, name: &str, role, peer_pid| {
            let mut slot = Slot::default();
            slot.info = SlotInfo {
                kind: SlotKind::Connection,
                state: SlotState::Open,
                connection_id: 9,
                peer_pid,
                ..slot.info
            };
            let snapshot = Snapshot {
                name: name.into(),
                role,
                slots: vec![slot],
                ..Snapshot::default()
            };
            Page::read(pid, snapshot)
        };
        let pages = vec![
            page(1, "exchange", Role::Server, 2),
            page(2, "trader", Role::Client, 1),
        ];
        let rows = |args: &[&str]| {
            let mut model = Judge::new().push(Sample {
                pages: pages.clone(),
                ..Sample::default()
            });
            settings(args, "").unwrap().select(&mut model);
            let rows = model.rows().map(|(e, _)| e.name.clone());
            rows.collect::<Vec<_>>()
        };
        assert_eq!(rows(&[]), ["exchange"]);
        assert_eq!(rows(&["-p", "1", "-p", "2"]), ["exchange"]);
        for only_the_client in [
            &["--name", "trader"][..],
            &["-p", "2"],
            &["-p", "1", "-p", "2", "--name", "trader"],
        ] {
            assert_eq!(rows(only_the_client), ["trader"], "{only_the_client:?}");
        }
    }

    #[test]
    fn a_flag_beats_the_file() {
        let s = settings(&["--sort", "p99"], "sort = \"bytes\"\ndelay = \"2s\"").unwrap();
        assert_eq!(s.state.sort, SortKey::P99);
        assert_eq!(s.delay, Some(Duration::from_secs(2)));
    }

    #[test]
    fn a_mistake_in_the_file_is_one_sentence_with_its_name() {
        for bad in [
            "delya = \"1s\"",
            "delay = \"1\"",
            "sort = \"speed\"",
            "ascii = 3",
            "=",
            "theme = \"pink\"",
        ] {
            match settings(&[], bad) {
                Err(Failure::Usage(text)) => assert!(text.starts_with("config.toml: "), "{text}"),
                other => panic!("{bad}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_locale_of_another_character_set_means_ascii() {
        let other = |all: &str, ctype: &str, lang: &str| {
            other_charset([all, ctype, lang].map(|l| Some(OsString::from(l))))
        };
        assert!(other("", "", "de_DE.ISO-8859-1"));
        assert!(other("", "ru_RU.KOI8-R", "ru_RU.UTF-8"));
        assert!(other("de_DE.ISO-8859-15@euro", "", ""));
        assert!(!other("C.UTF-8", "", "de_DE.ISO-8859-1"));
        assert!(!other("", "", "ca_ES.utf8@valencia"));
        assert!(!other("", "", "C") && !other("", "", "") && !other_charset([None, None, None]));
    }

    #[test]
    fn the_printed_file_can_be_read_back() {
        let s = settings(&["--filter", "a \"b\"", "-d", "250ms", "--ascii"], "").unwrap();
        let again = settings(&[], &s.to_file()).unwrap();
        assert_eq!(again.state.filter, "a \"b\"");
        assert_eq!(again.delay, Some(Duration::from_millis(250)));
        assert!(again.state.ascii);
    }
}
