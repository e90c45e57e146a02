//! Makes the compact form of a cascade from OpenCV's XML. Only the tool `pack-cascades` and a test use it.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use roxmltree::{Document, Node};
use sha2::{Digest, Sha256};

use crate::cascade::{self, Cascade, MAGIC, Name};

/// Why a cascade could not be packed. The fault of the file or of where it was looked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read or written.
    #[error("{path}: {why}")]
    File {
        /// Which one.
        path: String,
        /// What the system says.
        why: std::io::Error,
    },
    /// Not XML.
    #[error("not well-formed XML: {0}")]
    Xml(#[from] roxmltree::Error),
    /// An element is missing, or its text is not what it should be.
    #[error("<{0}> is missing or holds something unexpected")]
    Element(&'static str),
    /// A cascade of a kind that the compact form cannot express.
    #[error("{0}: the compact form cannot express that")]
    Unsupported(&'static str),
    /// What came out is no cascade that the detector could run.
    #[error("the packed cascade is refused: {0}")]
    Refused(#[from] cascade::Error),
}

/// One packed cascade.
#[derive(Debug)]
pub struct Packed {
    /// Its compact form.
    pub bytes: Vec<u8>,
    /// The comment at the head of the XML: author and licence.
    pub notice: String,
}

/// Packs the cascade in an XML text.
///
/// # Errors
/// Where the text is not a cascade of Haar-like features in the layout that OpenCV 2.4 and later write.
pub fn pack(xml: &str) -> Result<Packed, Error> {
    let document = Document::parse(xml)?;
    let notice = document.root().children().find(Node::is_comment).and_then(|comment| comment.text());
    let notice = notice.ok_or(Error::Unsupported("a file without a comment that holds its licence"))?.to_owned();
    let cascade = child(document.root_element(), "cascade")?;
    if text(cascade, "stageType")? != "BOOST" || text(cascade, "featureType")? != "HAAR" {
        return Err(Error::Unsupported("a cascade other than boosted Haar-like features"));
    }
    let features = items(cascade, "features")?.map(pack_feature).collect::<Result<Vec<_>, _>>()?;
    let stages = items(cascade, "stages")?.collect::<Vec<_>>();
    let first = stages.first().and_then(|stage| items(*stage, "weakClassifiers").ok()?.next());
    let nodes_per_tree = numbers::<f64>(first.ok_or(Error::Element("stages"))?, "internalNodes")?.len() / 4;

    let mut bytes = MAGIC.to_vec();
    bytes.push(number(cascade, "width")?);
    bytes.push(number(cascade, "height")?);
    bytes.push(small(nodes_per_tree, "a tree of that many nodes")?);
    bytes.push(small(stages.len(), "that many stages")?);
    for stage in stages {
        bytes.extend(narrow(number(stage, "stageThreshold")?).to_le_bytes());
        let trees = items(stage, "weakClassifiers")?.collect::<Vec<_>>();
        bytes.extend(small::<u16>(trees.len(), "a stage of that many trees")?.to_le_bytes());
        for tree in trees {
            pack_tree(tree, nodes_per_tree, &features, &mut bytes)?;
        }
    }
    Cascade::parse(&bytes)?;
    Ok(Packed { bytes, notice })
}

fn pack_tree(tree: Node<'_, '_>, nodes: usize, features: &[Vec<u8>], bytes: &mut Vec<u8>) -> Result<(), Error> {
    let decisions = numbers::<f64>(tree, "internalNodes")?;
    let leaves = numbers::<f64>(tree, "leafValues")?;
    if decisions.len() != 4 * nodes || leaves.len() != nodes + 1 {
        return Err(Error::Unsupported("trees of several sizes"));
    }
    let words = child(tree, "internalNodes")?.text().unwrap_or("").split_whitespace().collect::<Vec<_>>();
    for node in words.chunks_exact(4) {
        let whole = |word: &str| word.parse::<i32>().map_err(|_| Error::Element("internalNodes"));
        bytes.push(pack_child(whole(node[0])?)? << 4 | pack_child(whole(node[1])?)?);
        let feature = usize::try_from(whole(node[2])?).ok().and_then(|feature| features.get(feature));
        bytes.extend(feature.ok_or(Error::Element("internalNodes"))?);
        bytes.extend(narrow(node[3].parse().map_err(|_| Error::Element("internalNodes"))?).to_le_bytes());
    }
    bytes.extend(leaves.into_iter().flat_map(|leaf| narrow(leaf).to_le_bytes()));
    Ok(())
}

/// A positive number is a node, the others are leaves.
fn pack_child(child: i32) -> Result<u8, Error> {
    let number = u8::try_from(child.unsigned_abs()).ok().filter(|number| *number < 8);
    let number = number.ok_or(Error::Unsupported("a tree with more than eight leaves"))?;
    Ok(if child > 0 { number } else { 0b1000 | number })
}

fn pack_feature(feature: Node<'_, '_>) -> Result<Vec<u8>, Error> {
    let tilted = u8::from(child(feature, "tilted").is_ok() && number::<i32>(feature, "tilted")? != 0);
    let rectangles = items(feature, "rects")?.map(words_of::<f64>).collect::<Result<Vec<_>, _>>()?;
    let weights = rectangles.iter().map(|rectangle| rectangle.last().copied()).collect::<Vec<_>>();
    let (third, weight) = match weights[..] {
        [Some(-1.0), Some(weight)] => (0, weight),
        [Some(-1.0), Some(weight), Some(same)] if weight == same => (0b10, weight),
        _ => return Err(Error::Unsupported("a feature other than -1, w or -1, w, w")),
    };
    let weight = (1..64).find(|whole| f64::from(*whole) == weight);
    let weight = weight.ok_or(Error::Unsupported("a weight other than 1 to 63"))?;
    let mut bytes = vec![tilted | third | weight << 2];
    for rectangle in rectangles {
        let [x, y, w, h, _] = rectangle[..] else { return Err(Error::Element("rects")) };
        for side in [x, y, w, h] {
            let whole = (0..=u8::MAX).find(|whole| f64::from(*whole) == side);
            bytes.push(whole.ok_or(Error::Unsupported("a rectangle that is not in whole pixels"))?);
        }
    }
    Ok(bytes)
}

fn child<'a, 'i>(of: Node<'a, 'i>, name: &'static str) -> Result<Node<'a, 'i>, Error> {
    of.children().find(|child| child.has_tag_name(name)).ok_or(Error::Element(name))
}

fn text<'a>(of: Node<'a, '_>, name: &'static str) -> Result<&'a str, Error> {
    Ok(child(of, name)?.text().ok_or(Error::Element(name))?.trim())
}

fn items<'a, 'i>(of: Node<'a, 'i>, name: &'static str) -> Result<impl Iterator<Item = Node<'a, 'i>>, Error> {
    Ok(child(of, name)?.children().filter(|item| item.has_tag_name("_")))
}

fn number<T: std::str::FromStr>(of: Node<'_, '_>, name: &'static str) -> Result<T, Error> {
    text(of, name)?.parse().map_err(|_| Error::Element(name))
}

fn numbers<T: std::str::FromStr>(of: Node<'_, '_>, name: &'static str) -> Result<Vec<T>, Error> {
    words_of(child(of, name)?)
}

fn words_of<T: std::str::FromStr>(of: Node<'_, '_>) -> Result<Vec<T>, Error> {
    let words = of.text().unwrap_or("").split_whitespace();
    words.map(|word| word.parse().map_err(|_| Error::Element("numbers"))).collect()
}

fn small<T: TryFrom<usize>>(count: usize, what: &'static str) -> Result<T, Error> {
    T::try_from(count).map_err(|_| Error::Unsupported(what))
}

/// As OpenCV reads numbers: decimal to `f64`, then to `f32`.
#[expect(clippy::cast_possible_truncation, reason = "rounding to the nearest f32 is what is wanted")]
fn narrow(number: f64) -> f32 {
    number as f32
}

/// Packs every cascade from a folder of OpenCV's originals into another, with `NOTICE` and `SOURCES.md` beside them.
///
/// # Errors
/// Where a file cannot be read, packed or written.
pub fn pack_all(originals: &Path, into: &Path, origin: &str) -> Result<(), Error> {
    let mut notices = String::from(NOTICE_HEAD);
    let mut sources = format!("{SOURCES_HEAD}Origin: {origin}.\n\n{SOURCES_TABLE}");
    for name in Name::ALL {
        let xml = read(&originals.join(name.original()))?;
        let packed = pack(&xml)?;
        let file = format!("{}.cascade", name.as_str());
        write(&into.join(&file), &packed.bytes)?;
        let _ =
            write!(notices, "\n== {file}, made from {} ==\n\n{}\n", name.original(), packed.notice.trim_matches('\n'));
        let (from, to) = (sha256(xml.as_bytes()), sha256(&packed.bytes));
        let _ = writeln!(sources, "| {file} | {} | {to} | {} | {from} |", packed.bytes.len(), name.original());
    }
    write(&into.join("NOTICE"), notices.as_bytes())?;
    write(&into.join("SOURCES.md"), sources.as_bytes())
}

const NOTICE_HEAD: &str = "The files *.cascade in this folder were made from cascades of OpenCV. The notices of the originals, which also \
hold\nfor these files and for every program that contains them, follow.\n";

const SOURCES_HEAD: &str = "# Where the cascades come from\n\nMade by `cargo run -p face-detect --features pack --bin pack-cascades` from \
the XML files of OpenCV; `src/cascade/format.rs`\ndescribes the form. Licence: the Intel License Agreement For Open Source Computer Vision \
Library (a 3-clause BSD licence);\nits text and the authors are in `NOTICE`, which must go wherever these files or a program with them go.\n\n";

const SOURCES_TABLE: &str =
    "| file | bytes | sha256 | original | sha256 of the original |\n| --- | --- | --- | --- | --- |\n";

fn read(path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map_err(|why| Error::File { path: path.display().to_string(), why })
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    fs::write(path, bytes).map_err(|why| Error::File { path: path.display().to_string(), why })
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where Debian's package `opencv-data` keeps the originals.
    const ORIGINALS: &str = "/usr/share/opencv4/haarcascades";

    #[test]
    fn packing_the_originals_again_gives_the_same_bytes() {
        if !Path::new(ORIGINALS).exists() {
            eprintln!("skipped: no originals in {ORIGINALS}; Debian's package opencv-data has them");
            return;
        }
        let listed = include_str!("../cascades/SOURCES.md");
        let notices = include_str!("../cascades/NOTICE");
        for name in Name::ALL {
            let xml = fs::read_to_string(Path::new(ORIGINALS).join(name.original())).unwrap();
            let packed = pack(&xml).unwrap();
            assert!(packed.bytes == name.bytes(), "{} differs", name.as_str());
            assert!(listed.contains(&sha256(xml.as_bytes())) && listed.contains(&sha256(&packed.bytes)));
            assert!(notices.contains(packed.notice.trim_matches('\n')));
        }
    }

    #[test]
    fn other_files_are_refused() {
        assert!(matches!(pack("no XML"), Err(Error::Xml(_))));
        assert!(matches!(pack("<a/>"), Err(Error::Unsupported(_))));
        assert!(matches!(pack("<!-- notice --><a/>"), Err(Error::Element("cascade"))));
        let other =
            "<!-- notice --><a><cascade><stageType>BOOST</stageType><featureType>LBP</featureType></cascade></a>";
        assert!(matches!(pack(other), Err(Error::Unsupported(_))));
    }
}
