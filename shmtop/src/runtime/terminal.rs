//! The terminal while the dashboard has it, and its way back: raw mode, alternate screen, mouse.
//!
//! The runtime makes one [`Screen`]. Whatever ends it (a return, `?`, a panic in any thread, a signal, see
//! `signals`) ends in [`restore`] or `restore_in_time`, which may be called any number of times from any thread.

use std::io::{self, BufWriter, Write};
use std::mem::ManuallyDrop;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use crossterm::event::{DisableMouseCapture, EnableMouseCapture};
use crossterm::terminal::{
    BeginSynchronizedUpdate, Clear, ClearType, EndSynchronizedUpdate, EnterAlternateScreen,
    LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use crossterm::{cursor, execute, queue};
use ratatui::backend::CrosstermBackend;
use ratatui::{Frame, Terminal};

use super::output::{Output, last_words};

/// Whether the terminal is ours at the moment. Relaxed is enough: what it guards is idempotent, and threads that race
/// for it at the end of the process at worst both write the same restoring sequence.
static ACTIVE: AtomicBool = AtomicBool::new(false);

/// The terminal in our hands. Dropping it gives it back.
#[derive(Debug)]
pub struct Screen {
    /// Not dropped: its own way of showing the cursor again prints to stderr when it fails, and that panics when the
    /// terminal is gone. [`restore`] shows the cursor.
    terminal: ManuallyDrop<Terminal<CrosstermBackend<BufWriter<Output>>>>,
}

impl Screen {
    /// Takes the terminal. From here on a panic in any thread gives it back before it prints.
    ///
    /// # Errors
    /// When stdin is no terminal or stdout can't be written.
    pub fn enter() -> io::Result<Self> {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let before = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |info| {
                // In any thread, and the one that draws may be stuck.
                restore_in_time();
                before(info);
            }));
        });
        take()?;
        match blank() {
            Ok(terminal) => Ok(Self {
                terminal: ManuallyDrop::new(terminal),
            }),
            Err(error) => {
                restore();
                Err(error)
            }
        }
    }

    /// Draws a frame; only what differs from the last one is written.
    ///
    /// # Errors
    /// When the terminal can't be written any more.
    pub fn draw(&mut self, render: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        queue!(self.terminal.backend_mut(), BeginSynchronizedUpdate)?;
        self.terminal.draw(render)?;
        queue!(self.terminal.backend_mut(), EndSynchronizedUpdate)?;
        self.terminal.backend_mut().flush()
    }

    /// Takes the terminal again after somebody else had it (a shell, while we were stopped); the next frame is
    /// written whole.
    ///
    /// # Errors
    /// When the terminal can't be written any more.
    pub fn retake(&mut self) -> io::Result<()> {
        // crossterm takes a second enable for a no-op, so what it remembers is undone first.
        disable_raw_mode()?;
        take()?;
        // Not `Terminal::clear`: it asks the terminal for the cursor, and waits for the answer.
        let before = std::mem::replace(&mut self.terminal, ManuallyDrop::new(blank()?));
        drop(ManuallyDrop::into_inner(before));
        Ok(())
    }
}

/// A terminal whose first frame is written whole.
fn blank() -> io::Result<Terminal<CrosstermBackend<BufWriter<Output>>>> {
    execute!(Output, Clear(ClearType::All))?;
    // A frame is one write: a terminal never shows half of it, and a slow one costs one system call.
    let writer = BufWriter::with_capacity(64 * 1024, Output);
    Terminal::new(CrosstermBackend::new(writer))
}

impl Drop for Screen {
    fn drop(&mut self) {
        restore();
    }
}

fn take() -> io::Result<()> {
    ACTIVE.store(true, Ordering::Relaxed);
    let taken = enable_raw_mode().and_then(|()| {
        let mut sequence = Vec::new();
        queue!(
            sequence,
            EnterAlternateScreen,
            EnableMouseCapture,
            cursor::Hide
        )?;
        Output.write_all(&sequence)
    });
    if taken.is_err() {
        restore();
    }
    taken
}

/// Gives the terminal back as it was, if it is ours. The modes first: they can't block on a stuck terminal. The rest waits
/// until the terminal takes it; a signal ends that, too (see `signals`).
pub fn restore() {
    give_back(|sequence| Output.write_all(sequence));
}

/// [`restore`] for those who must not wait long: see [`last_words`].
pub(super) fn restore_in_time() {
    give_back(last_words);
}

/// Errors are of no use to anybody here: it is called on the way out, and if the terminal is gone so is what it would
/// restore.
fn give_back(write: impl FnOnce(&[u8]) -> io::Result<()>) {
    if !ACTIVE.load(Ordering::Relaxed) {
        return;
    }
    let modes = disable_raw_mode();
    let mut sequence = Vec::new();
    let screen = queue!(
        sequence,
        EndSynchronizedUpdate,
        DisableMouseCapture,
        LeaveAlternateScreen,
        cursor::Show
    )
    .and_then(|()| write(&sequence));
    if screen.is_ok() {
        // Not before: whoever comes next tries what failed, or waits for who is at it.
        ACTIVE.store(false, Ordering::Relaxed);
    }
    drop(modes);
}
