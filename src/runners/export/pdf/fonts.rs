//! Fonts: which one has a character, how wide it is, and the glyphs of a text.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use harfrust::{Direction, ShapeOptions, ShaperData, UnicodeBuffer};
use krilla::Data;
use krilla::text::{Font, GlyphId, KrillaGlyph};
use skrifa::instance::{LocationRef, Size};
use skrifa::{FontRef, MetadataProvider};
use unicode_bidi::{BidiInfo, Level};

/// Latin, Greek, Cyrillic, Arabic, and many signs. Its licence is beside it.
static BUILT_IN: &[u8] = include_bytes!("../fonts/DejaVuSansCondensed.ttf");

/// A character that no font has is shown by this one, if a font has it.
const REPLACEMENT: char = '\u{FFFD}';

/// The built-in font and those of the operator, which show what the earlier ones do not have.
#[derive(Clone, Default)]
pub struct Fonts {
    added: Arc<[Arc<Vec<u8>>]>,
}

#[derive(Debug, thiserror::Error)]
pub enum FontError {
    #[error("failed to read `{path}` (export.fonts): {source}", path = path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("`{path}` is not an OpenType or TrueType font", path = path.display())]
    Invalid { path: PathBuf },
}

impl Fonts {
    /// Reads fonts. Blocks.
    pub fn read(paths: &[PathBuf]) -> Result<Self, FontError> {
        Ok(Self { added: paths.iter().map(|path| read(path)).collect::<Result<_, _>>()? })
    }

    pub fn faces(&self) -> Faces<'_> {
        let built_in = Face::new(BUILT_IN, BUILT_IN.into());
        let added = self.added.iter().map(|file| Face::new(file, Arc::clone(file).into()));
        Faces { faces: std::iter::once(built_in).chain(added).flatten().collect(), known: HashMap::new() }
    }
}

fn read(path: &Path) -> Result<Arc<Vec<u8>>, FontError> {
    let path = || path.to_owned();
    let file = std::fs::read(path()).map_err(|source| FontError::Unreadable { path: path(), source })?;
    let file = Arc::new(file);
    match Face::new(&file, Arc::clone(&file).into()) {
        Some(_) => Ok(file),
        None => Err(FontError::Invalid { path: path() }),
    }
}

/// Fonts that are ready for use.
pub struct Faces<'a> {
    faces: Vec<Face<'a>>,
    known: HashMap<char, Known>,
}

struct Face<'a> {
    font: FontRef<'a>,
    shaping: ShaperData,
    pdf: Font,
    units_per_em: f32,
}

#[derive(Clone, Copy)]
struct Known {
    face: usize,
    /// In ems.
    width: f32,
}

/// Glyphs of one font.
pub struct Run<'a> {
    pub text: &'a str,
    pub font: Font,
    pub glyphs: Vec<KrillaGlyph>,
    /// In ems.
    pub width: f32,
}

impl<'a> Face<'a> {
    /// The data are the file.
    fn new(file: &'a [u8], data: Data) -> Option<Self> {
        let font = FontRef::from_index(file, 0).ok()?;
        let pdf = Font::new(data, 0)?;
        let units_per_em = pdf.units_per_em();
        Some(Self { shaping: ShaperData::new(&font), font, pdf, units_per_em })
    }

    /// In ems; `None` if the font does not have the character.
    fn width(&self, char: char) -> Option<f32> {
        let glyph = self.font.charmap().map(char)?;
        let metrics = self.font.glyph_metrics(Size::unscaled(), LocationRef::default());
        Some(metrics.advance_width(glyph)? / self.units_per_em)
    }

    fn shape(&self, text: &str, level: Level) -> Vec<KrillaGlyph> {
        let shaper = self.shaping.shaper(&self.font).build();
        let mut buffer = UnicodeBuffer::new();
        buffer.push_str(text);
        buffer.guess_segment_properties();
        buffer.set_direction(if level.is_rtl() { Direction::RightToLeft } else { Direction::LeftToRight });
        let line = shaper.shape(buffer, ShapeOptions::default());
        let (infos, positions) = (line.glyph_infos(), line.glyph_positions());
        // Where the text of a glyph ends is where that of another cluster begins, in either direction.
        let mut starts: Vec<usize> = infos.iter().map(|info| info.cluster as usize).collect();
        starts.push(text.len());
        starts.sort_unstable();
        let end_of = |start: usize| {
            let next = starts.partition_point(|other| *other <= start);
            starts.get(next).copied().unwrap_or(text.len())
        };
        #[expect(clippy::cast_precision_loss, reason = "font units are small")]
        let ems = |units: i32| units as f32 / self.units_per_em;
        let glyph = |(info, position): (&harfrust::GlyphInfo, &harfrust::GlyphPosition)| {
            let start = info.cluster as usize;
            KrillaGlyph::new(
                GlyphId::new(info.glyph_id),
                ems(position.x_advance),
                ems(position.x_offset),
                ems(position.y_offset),
                ems(position.y_advance),
                start..end_of(start),
                None,
            )
        };
        infos.iter().zip(positions).map(glyph).collect()
    }
}

impl Faces<'_> {
    /// In ems, without kerning and ligatures.
    pub fn width(&mut self, char: char) -> f32 {
        self.find(char).width
    }

    fn find(&mut self, char: char) -> Known {
        if let Some(known) = self.known.get(&char) {
            return *known;
        }
        let mut faces = self.faces.iter().enumerate();
        let found = faces.find_map(|(face, font)| Some(Known { face, width: font.width(char)? }));
        let known = found.unwrap_or_else(|| self.missing());
        self.known.insert(char, known);
        known
    }

    fn missing(&self) -> Known {
        Known { face: 0, width: self.faces[0].width(REPLACEMENT).unwrap_or(1.0) }
    }

    /// Shapes a line: its runs from left to right, one for each change of the direction or the font.
    pub fn shape<'t>(&mut self, text: &'t str) -> Vec<Run<'t>> {
        // No script before Hebrew is written from right to left.
        if text.chars().all(|char| char < '\u{590}') {
            return self.runs(text, Level::ltr());
        }
        let bidi = BidiInfo::new(text, None);
        let mut runs = Vec::new();
        for paragraph in &bidi.paragraphs {
            let (levels, parts) = bidi.visual_runs(paragraph, paragraph.range.clone());
            for part in parts {
                let level = levels[part.start];
                let mut of_part = self.runs(&text[part], level);
                if level.is_rtl() {
                    of_part.reverse();
                }
                runs.append(&mut of_part);
            }
        }
        runs
    }

    /// Runs of one direction, in the order of the text.
    fn runs<'t>(&mut self, text: &'t str, level: Level) -> Vec<Run<'t>> {
        let mut runs = Vec::new();
        let mut start = 0;
        let mut current = None;
        for (index, char) in text.char_indices() {
            let face = self.find(char).face;
            // White space, marks and joiners stay with the text before them if its font has them.
            let stays =
                current.is_some_and(|current: usize| current == face || self.faces[current].width(char).is_some());
            if !stays {
                if let Some(current) = current {
                    runs.push(self.run(current, &text[start..index], level));
                }
                start = index;
                current = Some(face);
            }
        }
        if let Some(current) = current {
            runs.push(self.run(current, &text[start..], level));
        }
        runs
    }

    fn run<'t>(&self, face: usize, text: &'t str, level: Level) -> Run<'t> {
        let face = &self.faces[face];
        let glyphs = face.shape(text, level);
        let width = glyphs.iter().map(|glyph| glyph.x_advance).sum();
        Run { text, font: face.pdf.clone(), glyphs, width }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_a_text_from_right_to_left_keep_the_order_of_their_digits() {
        let fonts = Fonts::default();
        let texts = |text| fonts.faces().shape(text).iter().map(|run| run.text.to_owned()).collect::<Vec<_>>();
        assert_eq!(texts("Hall 10"), ["Hall 10"]);
        // The number is shown first, on the left.
        assert_eq!(texts("شركة 10"), ["10", "شركة "]);
    }

    #[test]
    fn a_character_that_no_font_has_is_a_run_of_the_built_in_one() {
        let fonts = Fonts::default();
        let runs = fonts.faces().shape("東京 1").iter().map(|run| run.glyphs.len()).collect::<Vec<_>>();
        assert_eq!(runs, [4]);
    }
}
