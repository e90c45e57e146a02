//! The terminal: drawn over, asked for keys, and given back as it was.

use std::io::{self, IsTerminal as _};
use std::os::fd::AsFd as _;

use console::Term;
use rustix::termios::{self, LocalModes, OptionalActions, Termios};
use tokio::io::AsyncReadExt as _;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::figures::Order;

/// Switches to a screen of its own, and back to what was there before.
const OTHER_SCREEN: &str = "\u{1b}[?1049h";
const FORMER_SCREEN: &str = "\u{1b}[?1049l";

/// A terminal that is drawn over.
pub(super) struct Screen(Term);

impl Screen {
    pub(super) fn open(terminal: Term) -> io::Result<Self> {
        terminal.write_str(OTHER_SCREEN)?;
        let screen = Self(terminal);
        screen.0.hide_cursor()?;
        screen.clear()?;
        Ok(screen)
    }

    /// Rows and columns, as they are now.
    pub(super) fn size(&self) -> (usize, usize) {
        let (rows, columns) = self.0.size();
        (rows.into(), columns.into())
    }

    pub(super) fn clear(&self) -> io::Result<()> {
        self.0.clear_screen()
    }

    /// Draws what fits; lines are overwritten in place, so that nothing flickers.
    pub(super) fn draw(&self, text: &str) -> io::Result<()> {
        let (rows, columns) = self.size();
        let lines = text.lines().take(rows).map(|line| console::truncate_str(line, columns, "…"));
        // To the end of the line with the old colours and text gone, and no line feed after the last: that would scroll.
        let drawn: Vec<String> = lines.map(|line| format!("{line}\u{1b}[K")).collect();
        self.0.move_cursor_to(0, 0)?;
        // What is below goes too; `clear_to_end_of_screen` would begin at the start of the last line.
        self.0.write_str(&(drawn.join("\r\n") + "\u{1b}[J"))?;
        self.0.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Best effort: the terminal may be gone.
        let _ = self.0.show_cursor();
        let _ = self.0.write_str(FORMER_SCREEN);
    }
}

/// What a user wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Quit,
    Sort(Order),
    /// The terminal has another size.
    Resize,
}

impl Key {
    fn of(byte: u8) -> Option<Self> {
        match byte {
            b'q' | b'Q' => Some(Self::Quit),
            b'c' => Some(Self::Sort(Order::Calls)),
            b'e' => Some(Self::Sort(Order::Errors)),
            b'p' => Some(Self::Sort(Order::P99)),
            b'n' => Some(Self::Sort(Order::Name)),
            _ => None,
        }
    }
}

/// Keys as they are pressed, without waiting for the end of a line. Ctrl-C stays a signal.
pub(super) struct Keys {
    input: Option<tokio::io::Stdin>,
    resized: Signal,
    /// How the terminal was before.
    former: Option<Termios>,
}

impl Keys {
    pub(super) fn listen() -> anyhow::Result<Self> {
        let input = io::stdin();
        let mut former = None;
        if input.is_terminal() {
            let modes = termios::tcgetattr(input.as_fd())?;
            let mut single_keys = modes.clone();
            single_keys.local_modes -= LocalModes::ICANON | LocalModes::ECHO;
            termios::tcsetattr(input.as_fd(), OptionalActions::Now, &single_keys)?;
            former = Some(modes);
        }
        let resized = signal(SignalKind::window_change())?;
        Ok(Self { input: former.is_some().then(tokio::io::stdin), resized, former })
    }

    /// The next one that means something.
    pub(super) async fn next(&mut self) -> Key {
        loop {
            let Some(input) = &mut self.input else {
                self.resized.recv().await;
                return Key::Resize;
            };
            tokio::select! {
                byte = input.read_u8() => match byte {
                    Ok(byte) => if let Some(key) = Key::of(byte) { return key },
                    // Nothing more comes from there.
                    Err(_) => self.input = None,
                },
                _ = self.resized.recv() => return Key::Resize,
            }
        }
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        if let Some(former) = &self.former {
            // Best effort: the terminal may be gone.
            let _ = termios::tcsetattr(io::stdin().as_fd(), OptionalActions::Now, former);
        }
    }
}
