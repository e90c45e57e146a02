//! What a camera would send: the pictures of a folder, or the frames of a video or a camera as `ffmpeg` reads them.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use bytes::Bytes;

/// Bytes of all pictures of a run, at most.
pub const PICTURES_BYTES_MAX: u64 = 1 << 30;
/// Frames of a video, at most.
pub const FRAMES_MAX: u32 = 10_000;
const ENDINGS: [&str; 3] = ["jpg", "jpeg", "png"];
/// Where a JPEG begins and ends. Neither can stand within its picture.
const JPEG_BEGINS: [u8; 3] = [0xff, 0xd8, 0xff];
const JPEG_ENDS: [u8; 2] = [0xff, 0xd9];

/// Why there are no pictures.
#[derive(Debug, thiserror::Error)]
pub enum PicturesError {
    /// A file or folder cannot be read.
    #[error("cannot read {}: {error}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// There is none.
    #[error("no picture in {}; expected files that end in .jpg, .jpeg or .png", .0.display())]
    None(PathBuf),
    /// There are too many.
    #[error("the pictures of {} have over {PICTURES_BYTES_MAX} bytes; take fewer of them, or smaller ones", .0.display())]
    TooLarge(PathBuf),
    /// There is no ffmpeg.
    #[error("cannot run ffmpeg, which reads videos ({0}); install it (on Debian: apt-get install ffmpeg)")]
    NoFfmpeg(io::Error),
    /// ffmpeg failed.
    #[error("ffmpeg reads no frame from {}: {said}", path.display())]
    Ffmpeg {
        /// From what.
        path: PathBuf,
        /// The last that it said.
        said: String,
    },
}

/// The pictures of a folder, by name.
///
/// # Errors
/// [`PicturesError`].
pub fn folder(path: &Path) -> Result<Vec<Bytes>, PicturesError> {
    let reading = |error| PicturesError::Read { path: path.to_owned(), error };
    let mut files = Vec::new();
    for entry in fs::read_dir(path).map_err(reading)? {
        let file = entry.map_err(reading)?.path();
        let ending = file.extension().map(|ending| ending.to_string_lossy().to_ascii_lowercase());
        if ending.is_some_and(|ending| ENDINGS.contains(&ending.as_str())) {
            files.push(file);
        }
    }
    files.sort();
    let pictures = read(&files)?;
    if pictures.is_empty() { Err(PicturesError::None(path.to_owned())) } else { Ok(pictures) }
}

/// These files, as they are.
///
/// # Errors
/// [`PicturesError`].
pub fn read(files: &[PathBuf]) -> Result<Vec<Bytes>, PicturesError> {
    let mut left = PICTURES_BYTES_MAX;
    let one = |path: &PathBuf| {
        let reading = |error| PicturesError::Read { path: path.clone(), error };
        let mut bytes = Vec::new();
        fs::File::open(path).map_err(reading)?.take(left + 1).read_to_end(&mut bytes).map_err(reading)?;
        left = left.checked_sub(bytes.len() as u64).ok_or_else(|| PicturesError::TooLarge(path.clone()))?;
        Ok(bytes.into())
    };
    files.iter().map(one).collect()
}

/// The first frames of a video, or of a camera such as `/dev/video0`, as JPEG pictures.
///
/// # Errors
/// [`PicturesError`].
pub fn video(path: &Path, frames: u32) -> Result<Vec<Bytes>, PicturesError> {
    // A file whose name begins with a dash must not be taken for an option.
    let input = if path.is_absolute() { path.to_owned() } else { Path::new(".").join(path) };
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-loglevel", "error", "-i"]).arg(input);
    command.args([
        "-frames:v",
        &frames.min(FRAMES_MAX).to_string(),
        "-f",
        "image2pipe",
        "-c:v",
        "mjpeg",
        "-q:v",
        "2",
        "-",
    ]);
    let mut ffmpeg = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(PicturesError::NoFfmpeg)?;
    let mut bytes = Vec::new();
    if let Some(output) = ffmpeg.stdout.take() {
        let reading = |error| PicturesError::Read { path: path.to_owned(), error };
        output.take(PICTURES_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(reading)?;
    }
    let ended = ffmpeg.wait_with_output().map_err(PicturesError::NoFfmpeg)?;
    if bytes.len() as u64 > PICTURES_BYTES_MAX {
        return Err(PicturesError::TooLarge(path.to_owned()));
    }
    let pictures = split(&bytes.into());
    if pictures.is_empty() {
        let said = String::from_utf8_lossy(&ended.stderr);
        let said = said.lines().last().unwrap_or("it says nothing").to_owned();
        return Err(PicturesError::Ffmpeg { path: path.to_owned(), said });
    }
    Ok(pictures)
}

/// The pictures of a stream of JPEGs one after another.
fn split(stream: &Bytes) -> Vec<Bytes> {
    let find = |from: usize, what: &[u8]| {
        let rest = stream.get(from..)?;
        rest.windows(what.len()).position(|window| window == what).map(|at| from + at)
    };
    let mut pictures = Vec::new();
    let mut at = 0;
    while let Some(begins) = find(at, &JPEG_BEGINS)
        && let Some(ends) = find(begins + JPEG_BEGINS.len(), &JPEG_ENDS)
    {
        at = ends + JPEG_ENDS.len();
        pictures.push(stream.slice(begins..at));
    }
    pictures
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_of_pictures_is_split_where_they_end() {
        let stream = Bytes::from_static(b"\xff\xd8\xff one \xff\xd9\xff\xd8\xff two \xff\xd9\xff\xd8\xff cut off");
        let pictures = split(&stream);
        assert_eq!(pictures, [&stream[..10], &stream[10..20]]);
        assert!(split(&Bytes::from_static(b"no picture")).is_empty());
    }

    #[test]
    fn a_folder_gives_its_pictures_by_name_and_nothing_else() {
        let at = tempfile::tempdir().unwrap();
        assert!(matches!(folder(at.path()), Err(PicturesError::None(_))));
        for (name, text) in [("b.JPG", "second"), ("a.png", "first"), ("notes.txt", "no picture")] {
            fs::write(at.path().join(name), text).unwrap();
        }
        assert_eq!(folder(at.path()).unwrap(), ["first", "second"]);
        assert!(matches!(folder(&at.path().join("missing")), Err(PicturesError::Read { .. })));
    }

    #[test]
    fn a_video_that_cannot_be_read_is_told_of() {
        let error = video(Path::new("-no-such-video"), 1).unwrap_err().to_string();
        assert!(error.contains("ffmpeg"), "{error}");
    }

    #[test]
    fn the_first_frames_of_a_video_are_pictures() {
        let at = tempfile::tempdir().unwrap();
        let path = at.path().join("colours.mkv");
        let mut ffmpeg = Command::new("ffmpeg");
        ffmpeg.args([
            "-loglevel",
            "error",
            "-f",
            "lavfi",
            "-i",
            "testsrc=size=64x48:rate=10:duration=1",
            "-c:v",
            "mjpeg",
        ]);
        let Ok(made) = ffmpeg.arg(&path).status() else {
            eprintln!("left out: no ffmpeg here; scripts/setup installs it");
            return;
        };
        assert!(made.success());
        let pictures = video(&path, 4).unwrap();
        assert_eq!(pictures.len(), 4);
        assert!(pictures.iter().all(|picture| picture.starts_with(&JPEG_BEGINS) && picture.ends_with(&JPEG_ENDS)));
        assert_ne!(pictures[0], pictures[3], "time goes on in it");
        assert_eq!(video(&path, 1000).unwrap().len(), 10, "all that there are");
    }
}
