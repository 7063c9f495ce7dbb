//! The recovery sheet as one page of PDF: the text in a font that every reader has, and below it the square code, drawn as rectangles. There
//! is no picture in it to lose, and nothing is compressed: what is printed can be looked up in the bytes.

use holdfast_store::seal::sheet::RecoverySheet;
use pdf_writer::{Content, Finish, Name, Pdf, Rect, Ref, Str};
use qrcode::{Color, EcLevel, QrCode};
use zeroize::Zeroizing;

use crate::outcome::Failure;

/// A4, in points of 1/72 inch.
const WIDTH: f32 = 595.0;
const HEIGHT: f32 = 842.0;
const MARGIN: f32 = 57.0;
/// The font's size and the distance of lines: 78 columns of Courier, which are 0.6 of its size wide, and 46 lines leave room for the code.
const FONT: f32 = 9.5;
const LINE: f32 = 11.0;
/// Columns that fit between the margins; a longer line goes on in the next one.
const COLUMNS: usize = 84;
/// Edge of the code with its white border.
const CODE: f32 = 210.0;
/// White around a code, in its modules: four, as the standard wants it.
const QUIET: usize = 4;
/// Smallest edge of a module in points: 0.35 mm, which cameras of telephones read from paper.
const MODULE_MIN: f32 = 1.0;
/// What stands above the code.
const CAPTION: &str = "THE SAME FOR A CAMERA: paste what it reads where holdfast asks for the recovery key";

/// The page.
///
/// # Errors
/// When the addresses are too long for a code.
pub fn pdf(sheet: &RecoverySheet) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let code = QrCode::with_error_correction_level(sheet.code().as_bytes(), EcLevel::M)
        .or_else(|_| QrCode::with_error_correction_level(sheet.code().as_bytes(), EcLevel::L));
    let code = code.map_err(|error| {
        Failure::failed(format!("the addresses of the vaults are too long for a square code: {error}"))
            .hint("a sheet as text has room for them: give it a name that does not end with .pdf")
    })?;
    let mut content = Content::new();
    let bottom = draw_text(&mut content, &sheet.render());
    if module(&code, bottom) < MODULE_MIN {
        return Err(Failure::failed("the addresses of the vaults leave no room for a code that can be read")
            .hint("a sheet as text has room for them: give it a name that does not end with .pdf"));
    }
    draw_code(&mut content, &code, bottom);
    let drawn = Zeroizing::new(content.finish().into_vec());
    Ok(assemble(&drawn))
}

/// The text from the top; where it ends.
fn draw_text(content: &mut Content, page: &str) -> f32 {
    let lines = page.lines().chain(["", CAPTION]).flat_map(broken);
    content.begin_text().set_font(Name(b"F"), FONT).set_leading(LINE);
    content.next_line(MARGIN, HEIGHT - MARGIN);
    let mut bottom = HEIGHT - MARGIN;
    for line in lines {
        content.show(Str(&line)).next_line_using_leading();
        bottom -= LINE;
    }
    content.end_text();
    bottom
}

/// A line in pieces that fit. What the font has no letter for is a question mark: the code has it as it is.
fn broken(line: &str) -> Vec<Zeroizing<Vec<u8>>> {
    let letter = |c: char| if matches!(c, ' '..='~') { c as u8 } else { b'?' };
    let letters: Zeroizing<Vec<u8>> = Zeroizing::new(line.chars().map(letter).collect());
    if letters.is_empty() {
        return vec![letters];
    }
    letters.chunks(COLUMNS).map(|piece| Zeroizing::new(piece.to_vec())).collect()
}

/// Edge of a module of a code below `top`, in points.
fn module(code: &QrCode, top: f32) -> f32 {
    CODE.min(top - MARGIN / 2.0) / (code.width() + 2 * QUIET) as f32
}

/// The code below `top`, smaller where long addresses left less room.
fn draw_code(content: &mut Content, code: &QrCode, top: f32) {
    let module = module(code, top);
    let left = (WIDTH - module * (code.width() + 2 * QUIET) as f32) / 2.0;
    content.set_fill_gray(0.0);
    for (at, _) in code.to_colors().iter().enumerate().filter(|(_, color)| **color == Color::Dark) {
        let (column, row) = (at % code.width() + QUIET, at / code.width() + QUIET);
        content.rect(left + column as f32 * module, top - (row + 1) as f32 * module, module, module);
    }
    content.fill_nonzero();
}

fn assemble(content: &[u8]) -> Zeroizing<Vec<u8>> {
    let (catalog, pages, page_id, font, stream) =
        (Ref::new(1), Ref::new(2), Ref::new(3), Ref::new(4), Ref::new(5));
    let mut pdf = Pdf::with_capacity(content.len() + 4096);
    pdf.catalog(catalog).pages(pages);
    pdf.pages(pages).kids([page_id]).count(1);
    let mut page = pdf.page(page_id);
    page.media_box(Rect::new(0.0, 0.0, WIDTH, HEIGHT)).parent(pages).contents(stream);
    page.resources().fonts().pair(Name(b"F"), font);
    page.finish();
    pdf.type1_font(font).base_font(Name(b"Courier"));
    pdf.stream(stream, content);
    Zeroizing::new(pdf.finish())
}
