//! Drawing of pages.

use std::io;

use krilla::Document;
use krilla::color::rgb;
use krilla::geom::{PathBuilder, Point, Rect};
use krilla::metadata::Metadata;
use krilla::page::PageSettings;
use krilla::paint::Fill;
use krilla::surface::Surface;

use super::fonts::Faces;
use super::layout::{FONT_SIZE, FOOTER_HEIGHT, LINE_HEIGHT, Layout, MARGIN, PADDING, Row, TITLE_HEIGHT};

const TITLE_SIZE: f32 = 13.0;
const BLACK: (u8, u8, u8) = (25, 25, 25);
const GREY: (u8, u8, u8) = (100, 100, 100);
const RULE: (u8, u8, u8) = (210, 210, 210);
const HEADER: (u8, u8, u8) = (228, 233, 240);

/// Where a text begins or ends.
enum Anchor {
    Left(f32),
    Right(f32),
}

pub fn draw(layout: &Layout, title: &str, note: &str, faces: &mut Faces<'_>) -> io::Result<Vec<u8>> {
    let mut document = Document::new();
    document.set_metadata(Metadata::new().title(title.to_owned()).creator("Lineshaft".to_owned()));
    for (index, rows) in layout.pages.iter().enumerate() {
        let size = PageSettings::from_wh(layout.width, layout.height);
        let mut page = document.start_page_with(size.expect("the size is positive"));
        let mut surface = page.surface();
        let mut canvas = Canvas { surface: &mut surface, faces };
        let mut y = MARGIN;
        if index == 0 {
            canvas.text(Anchor::Left(MARGIN), y + TITLE_SIZE, TITLE_SIZE, BLACK, title);
            canvas.text(Anchor::Left(MARGIN), y + TITLE_SIZE + LINE_HEIGHT, FONT_SIZE, GREY, note);
            y += TITLE_HEIGHT;
        }
        canvas.fill(HEADER, MARGIN, y, layout.width - 2.0 * MARGIN, layout.header.height);
        canvas.row(&layout.header, layout, y, Some(&layout.is_number));
        y += layout.header.height;
        for row in rows {
            canvas.row(row, layout, y, None);
            y += row.height;
            canvas.fill(RULE, MARGIN, y, layout.width - 2.0 * MARGIN, 0.4);
        }
        let footer = layout.height - MARGIN - FOOTER_HEIGHT + LINE_HEIGHT + PADDING;
        canvas.text(Anchor::Left(MARGIN), footer, FONT_SIZE, GREY, note);
        let number = format!("Page {} of {}", index + 1, layout.pages.len());
        canvas.text(Anchor::Right(layout.width - MARGIN), footer, FONT_SIZE, GREY, &number);
        surface.finish();
        page.finish();
    }
    document.finish().map_err(|error| io::Error::other(error.to_string()))
}

struct Canvas<'c, 's, 'f> {
    surface: &'c mut Surface<'s>,
    faces: &'c mut Faces<'f>,
}

impl Canvas<'_, '_, '_> {
    /// The alignment is that of the cells, or the given one of the columns.
    fn row(&mut self, row: &Row, layout: &Layout, top: f32, is_number: Option<&[bool]>) {
        let mut left = MARGIN;
        for (column, (cell, width)) in row.cells.iter().zip(&layout.columns).enumerate() {
            let is_number = is_number.map_or(cell.is_number, |columns| columns[column]);
            let mut baseline = top + PADDING + FONT_SIZE;
            for line in &cell.lines {
                let place =
                    if is_number { Anchor::Right(left + width - PADDING) } else { Anchor::Left(left + PADDING) };
                self.text(place, baseline, FONT_SIZE, BLACK, line);
                baseline += LINE_HEIGHT;
            }
            left += width;
        }
    }

    fn text(&mut self, place: Anchor, baseline: f32, size: f32, color: (u8, u8, u8), text: &str) {
        self.surface.set_fill(Some(fill(color)));
        let runs = self.faces.shape(text);
        let width: f32 = runs.iter().map(|run| run.width).sum();
        let mut x = match place {
            Anchor::Left(x) => x,
            Anchor::Right(x) => x - width * size,
        };
        for run in runs {
            let width = run.width;
            self.surface.draw_glyphs(Point::from_xy(x, baseline), &run.glyphs, run.font, run.text, size, false);
            x += width * size;
        }
    }

    fn fill(&mut self, color: (u8, u8, u8), left: f32, top: f32, width: f32, height: f32) {
        let mut path = PathBuilder::new();
        if let Some(rectangle) = Rect::from_xywh(left, top, width, height) {
            path.push_rect(rectangle);
        }
        if let Some(path) = path.finish() {
            self.surface.set_fill(Some(fill(color)));
            self.surface.draw_path(&path);
        }
    }
}

fn fill((red, green, blue): (u8, u8, u8)) -> Fill {
    Fill { paint: rgb::Color::new(red, green, blue).into(), ..Fill::default() }
}
