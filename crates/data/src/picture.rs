//! Pictures (PNG, JPEG) as samples: decoded under limits, brought to the wanted size and number of channels.

use std::io::{self, BufRead, Seek};

use image::imageops::{self, FilterType};
use image::{DynamicImage, ImageBuffer, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits, Rgba};
use thiserror::Error;

/// The longest side decoded.
const MAX_SIDE: u32 = 16_384;
/// The most pixels decoded.
const MAX_PIXELS: u64 = 1 << 25;
/// The most memory a decoder may take.
const MAX_DECODER_BYTES: u64 = 512 << 20;
/// One step of an 8-bit channel in a 16-bit one.
const STEP: f32 = 257.0;

/// What to do with a picture of another size than the model's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Resize {
    /// Refuse it.
    #[default]
    Exact,
    /// Scale it to the size, whatever becomes of its proportions.
    Stretch,
    /// Scale it to fit into the size and pad with black around it.
    Fit,
}

/// What can be wrong with a picture.
#[derive(Debug, Error)]
pub enum PictureError {
    /// Reading failed.
    #[error("cannot read picture: {0}")]
    Io(#[from] io::Error),
    /// Not a picture, or one over the limits.
    #[error("cannot decode picture: {0}")]
    Decode(#[from] ImageError),
    /// More pixels than are decoded.
    #[error("picture of {width}x{height} pixels: at most {MAX_PIXELS} pixels are decoded")]
    TooLarge {
        /// Its width.
        width: u32,
        /// Its height.
        height: u32,
    },
    /// Neither PNG nor JPEG.
    #[error("neither PNG nor JPEG")]
    Format,
    /// A size other than the model's.
    #[error("picture of {got_width}x{got_height} pixels where {width}x{height} are wanted: ask for it to be resized")]
    Dimensions {
        /// Its width.
        got_width: u32,
        /// Its height.
        got_height: u32,
        /// The width wanted.
        width: u32,
        /// The height wanted.
        height: u32,
    },
    /// Transparency where the model has no channel for it.
    #[error("picture with transparent pixels: flatten it onto a background first")]
    Transparent,
    /// The model's input is no picture.
    #[error("a picture has no shape {0:?}: [height, width, channels] with 1, 3 or 4 channels is wanted")]
    Wanted(Vec<usize>),
}

/// Height, width and channels.
type Form = (u32, u32, usize);

/// Reads a picture as one sample of the `wanted` shape, `[h, w, 1 | 3 | 4]` or `[h, w]`, values 0 to 255.
/// A flat shape `[n]` stands for a grey square.
pub fn read(reader: impl BufRead + Seek, wanted: &[usize], resize: Resize) -> Result<Vec<f32>, PictureError> {
    let (h, w, channels) = form(wanted)?;
    let picture = decode(reader)?.into_rgba16();
    let (width, height) = picture.dimensions();
    let scaled = |w, h| imageops::resize(&picture, w, h, FilterType::Triangle);
    let picture = match resize {
        _ if (width, height) == (w, h) => picture,
        Resize::Exact => {
            return Err(PictureError::Dimensions { got_width: width, got_height: height, width: w, height: h });
        }
        Resize::Stretch => scaled(w, h),
        Resize::Fit => {
            let (fw, fh) = fitted((width, height), (w, h));
            let mut padded = ImageBuffer::from_pixel(w, h, Rgba([0, 0, 0, u16::MAX]));
            imageops::replace(&mut padded, &scaled(fw, fh), ((w - fw) / 2).into(), ((h - fh) / 2).into());
            padded
        }
    };
    values(&picture, channels)
}

/// Reads a picture as it is: its shape (one channel if it is grey, else three) and its values.
pub fn read_as_is(reader: impl BufRead + Seek) -> Result<([usize; 3], Vec<f32>), PictureError> {
    let picture = decode(reader)?;
    let channels = if picture.color().has_color() { 3 } else { 1 };
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    Ok(([height, width, channels], values(&picture.into_rgba16(), channels)?))
}

fn form(wanted: &[usize]) -> Result<Form, PictureError> {
    let (h, w, channels) = match *wanted {
        [h, w] => (h, w, 1),
        [h, w, c @ (1 | 3 | 4)] => (h, w, c),
        [n] if n.isqrt().pow(2) == n => (n.isqrt(), n.isqrt(), 1),
        _ => return Err(PictureError::Wanted(wanted.to_vec())),
    };
    let side = |n| u32::try_from(n).ok().filter(|n| (1..=MAX_SIDE).contains(n));
    match (side(h), side(w)) {
        (Some(h), Some(w)) if u64::from(h) * u64::from(w) <= MAX_PIXELS => Ok((h, w, channels)),
        _ => Err(PictureError::Wanted(wanted.to_vec())),
    }
}

fn decode(reader: impl BufRead + Seek) -> Result<DynamicImage, PictureError> {
    let mut reader = ImageReader::new(reader).with_guessed_format()?;
    if !matches!(reader.format(), Some(ImageFormat::Png | ImageFormat::Jpeg)) {
        return Err(PictureError::Format);
    }
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_DECODER_BYTES);
    reader.limits(limits);
    let decoder = reader.into_decoder()?;
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(PictureError::TooLarge { width, height });
    }
    Ok(DynamicImage::from_decoder(decoder)?)
}

/// The largest size with the proportions of `from` that fits into `into`.
fn fitted((w, h): (u32, u32), into: (u32, u32)) -> (u32, u32) {
    let (w, h, into_w, into_h) = (u64::from(w), u64::from(h), u64::from(into.0), u64::from(into.1));
    let scaled = |side: u64, by: u64, of: u64| u32::try_from((side * by + of / 2) / of).unwrap_or(u32::MAX).max(1);
    if w * into_h >= h * into_w {
        (into.0, scaled(h, into_w, w).min(into.1))
    } else {
        (scaled(w, into_h, h).min(into.0), into.1)
    }
}

fn values(picture: &ImageBuffer<Rgba<u16>, Vec<u16>>, channels: usize) -> Result<Vec<f32>, PictureError> {
    if channels < 4 && picture.pixels().any(|p| p.0[3] < u16::MAX) {
        return Err(PictureError::Transparent);
    }
    Ok(match channels {
        1 => picture.pixels().map(|p| grey(p.0)).collect(),
        n => picture.pixels().flat_map(|p| p.0.into_iter().take(n)).map(|v| f32::from(v) / STEP).collect(),
    })
}

/// Brightness by ITU-R BT.601, as the libraries weigh it that most models were trained with.
fn grey([r, g, b, _]: [u16; 4]) -> f32 {
    let sum = 299 * u32::from(r) + 587 * u32::from(g) + 114 * u32::from(b);
    ((sum + 500) / 1000) as f32 / STEP
}

/// A PNG file of these pixels.
#[cfg(test)]
pub(crate) fn png(width: u32, height: u32, rgba: impl Fn(u32, u32) -> [u8; 4]) -> Vec<u8> {
    let mut bytes = io::Cursor::new(Vec::new());
    let picture = image::RgbaImage::from_fn(width, height, |x, y| Rgba(rgba(x, y)));
    picture.write_to(&mut bytes, ImageFormat::Png).unwrap();
    bytes.into_inner()
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn gradient(w: u32, h: u32) -> Vec<u8> {
        png(w, h, |x, y| [(10 * x) as u8, (20 * y) as u8, 200, 255])
    }

    fn load(bytes: &[u8], wanted: &[usize], resize: Resize) -> Result<Vec<f32>, PictureError> {
        read(Cursor::new(bytes), wanted, resize)
    }

    #[test]
    fn eight_bit_values_are_kept_exactly() {
        let rgb = load(&gradient(4, 3), &[3, 4, 3], Resize::Exact).unwrap();
        let at = |x: usize, y: usize| &rgb[(y * 4 + x) * 3..][..3];
        assert_eq!((at(0, 0), at(3, 2)), (&[0., 0., 200.][..], &[30., 40., 200.][..]));
        for v in 0..=255 {
            let f = png(1, 1, |_, _| [v, v, v, 255]);
            assert_eq!(load(&f, &[1, 1], Resize::Exact).unwrap(), [f32::from(v)]);
        }
        assert_eq!(load(&png(1, 1, |_, _| [1, 2, 3, 4]), &[1, 1, 4], Resize::Exact).unwrap(), [1., 2., 3., 4.]);
    }

    #[test]
    fn colours_are_weighed_to_grey() {
        let red = load(&png(1, 1, |_, _| [255, 0, 0, 255]), &[1], Resize::Exact).unwrap();
        assert!((red[0] - 76.245).abs() < 0.01, "{red:?}");
        let mut grey = Cursor::new(Vec::new());
        image::GrayImage::from_pixel(2, 1, image::Luma([9])).write_to(&mut grey, ImageFormat::Png).unwrap();
        assert_eq!(read_as_is(Cursor::new(grey.get_ref())).unwrap(), ([1, 2, 1], vec![9., 9.]));
        assert_eq!(load(grey.get_ref(), &[1, 2, 3], Resize::Exact).unwrap(), [9.; 6]);
        assert_eq!(read_as_is(Cursor::new(gradient(4, 3))).unwrap().0, [3, 4, 3]);
    }

    #[test]
    fn sixteen_bit_depth_is_kept() {
        let mut bytes = Cursor::new(Vec::new());
        let deep = ImageBuffer::<image::Luma<u16>, _>::from_pixel(1, 1, image::Luma([0x1234u16]));
        DynamicImage::ImageLuma16(deep).write_to(&mut bytes, ImageFormat::Png).unwrap();
        assert_eq!(load(bytes.get_ref(), &[1, 1], Resize::Exact).unwrap(), [f32::from(0x1234u16) / 257.0]);
    }

    #[test]
    fn jpeg_is_read() {
        let mut bytes = Cursor::new(Vec::new());
        image::RgbImage::from_pixel(16, 8, image::Rgb([200, 200, 200]))
            .write_to(&mut bytes, ImageFormat::Jpeg)
            .unwrap();
        let v = load(bytes.get_ref(), &[8, 16, 1], Resize::Exact).unwrap();
        assert!(v.len() == 128 && v.iter().all(|x| (x - 200.0).abs() < 2.0), "{v:?}");
    }

    #[test]
    fn sizes_are_refused_stretched_or_fitted() {
        let white = png(8, 4, |_, _| [255; 4]);
        let e = load(&white, &[4, 4], Resize::Exact).unwrap_err().to_string();
        assert!(e.contains("8x4") && e.contains("4x4"), "{e}");
        assert_eq!(load(&white, &[4, 4], Resize::Stretch).unwrap(), [255.0; 16]);
        let fit = load(&white, &[4, 4, 1], Resize::Fit).unwrap();
        assert_eq!(fit.chunks(4).map(|r| r[0]).collect::<Vec<_>>(), [0., 255., 255., 0.]);
        let tall = load(&png(1, 3, |_, _| [255; 4]), &[9, 9], Resize::Fit).unwrap();
        assert_eq!(tall[..9], [0., 0., 0., 255., 255., 255., 0., 0., 0.]);
        assert_eq!(fitted((1000, 1), (10, 10)), (10, 1));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let clear = png(2, 2, |_, _| [255, 255, 255, 0]);
        assert!(matches!(load(&clear, &[2, 2], Resize::Exact), Err(PictureError::Transparent)));
        for wanted in [&[2, 2, 2][..], &[5], &[], &[0, 2], &[1, 2, 2, 1], &[1 << 40, 1], &[16_000, 16_000]] {
            assert!(matches!(load(&clear, wanted, Resize::Stretch), Err(PictureError::Wanted(_))), "{wanted:?}");
        }
        assert!(matches!(load(b"GIF89a", &[2, 2], Resize::Exact), Err(PictureError::Format)));
        let cut = &gradient(40, 30)[..80];
        assert!(matches!(load(cut, &[30, 40, 3], Resize::Exact), Err(PictureError::Decode(_))));
    }

    #[test]
    fn huge_pictures_are_refused_by_their_header() {
        let mut bytes = gradient(2, 2);
        for (width, height) in [(16_384u32, 16_384u32), (1 << 30, 1)] {
            bytes[16..20].copy_from_slice(&width.to_be_bytes());
            bytes[20..24].copy_from_slice(&height.to_be_bytes());
            let crc = crc32(&bytes[12..29]);
            bytes[29..33].copy_from_slice(&crc.to_be_bytes());
            let e = load(&bytes, &[2, 2], Resize::Stretch).unwrap_err();
            match e {
                PictureError::TooLarge { width: 16_384, .. } => {}
                PictureError::Decode(ImageError::Limits(_)) => {}
                other => panic!("{other}"),
            }
        }
    }

    fn crc32(bytes: &[u8]) -> u32 {
        let mut crc = flate2::Crc::new();
        crc.update(bytes);
        crc.sum()
    }
}
