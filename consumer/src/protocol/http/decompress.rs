//! Decodes a content coding that was not requested (RFC 9110 section 8.4).
//!
//! Requests have no `Accept-Encoding`, but some gateways compress responses anyway, and label the coding wrongly or not at
//! all. So the bytes decide, and the label only determines what is tried first. The decoded size has a limit too.

use std::io::Read;

use bytes::Bytes;
use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use http::{HeaderMap, header};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

/// A gateway may compress a response that the server behind it has already compressed.
const MAX_LAYERS: usize = 3;
const BROTLI_BUFFER: usize = 4096;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Coding {
    Gzip,
    Zlib,
    Zstd,
    Brotli,
    Deflate,
}

/// The body without its content codings, or unchanged if it has no known one. It is truncated to `limit` bytes.
pub(crate) fn decompressed(headers: &HeaderMap, body: Bytes, limit: usize) -> Bytes {
    let mut body = body;
    for _ in 0..MAX_LAYERS {
        if body.is_empty() || is_text(&body) {
            break;
        }
        let Some(inside) = candidates(headers, &body).into_iter().find_map(|coding| coding.decode(&body, limit)) else {
            break;
        };
        body = inside.into();
    }
    body
}

/// Whether the body begins like a document, which compressed data does not.
fn is_text(body: &[u8]) -> bool {
    let start = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body).trim_ascii_start();
    let is_document = matches!(start.first(), Some(b'{' | b'[' | b'"' | b'<'));
    let is_utf16 = body.starts_with(b"\xff\xfe") || body.starts_with(b"\xfe\xff") || body.starts_with(b"\0{");
    let is_printable = |text: &str| !text.chars().any(|c| c.is_control() && !c.is_ascii_whitespace());
    is_document || is_utf16 || std::str::from_utf8(body).is_ok_and(is_printable)
}

/// The codings that it may have: by its first bytes, by its label, and those without a signature.
fn candidates(headers: &HeaderMap, body: &[u8]) -> Vec<Coding> {
    let marked = match body {
        [0x1f, 0x8b, ..] => Some(Coding::Gzip),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Coding::Zstd),
        [method, flags, ..] if method & 0x0f == 8 && u16::from_be_bytes([*method, *flags]) % 31 == 0 => {
            Some(Coding::Zlib)
        }
        _ => None,
    };
    let labels = headers.get_all(header::CONTENT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    let label = labels.flat_map(|labels| labels.split(',')).last().map(|label| label.trim().to_ascii_lowercase());
    let unmarked = match label.as_deref() {
        Some("deflate") => [Coding::Deflate, Coding::Brotli],
        _ => [Coding::Brotli, Coding::Deflate],
    };
    marked.into_iter().chain(unmarked).collect()
}

impl Coding {
    /// The decoded content, as far as it can be read: a wrong or missing checksum is ignored. A coding without a signature
    /// must decode to text, because almost any data can be decoded with it.
    fn decode(self, body: &[u8], limit: usize) -> Option<Vec<u8>> {
        let inside = match self {
            Self::Gzip => read(MultiGzDecoder::new(body), limit),
            Self::Zlib => read(ZlibDecoder::new(body), limit),
            Self::Deflate => read(DeflateDecoder::new(body), limit),
            Self::Brotli => read(brotli_decompressor::Decompressor::new(body, BROTLI_BUFFER), limit),
            Self::Zstd => zstd(body, limit)?,
        };
        let is_marked = !matches!(self, Self::Brotli | Self::Deflate);
        (!inside.is_empty() && (is_marked || is_text(&inside))).then_some(inside)
    }
}

fn read(decoder: impl Read, limit: usize) -> Vec<u8> {
    let mut inside = Vec::new();
    // What was read before an error is used.
    let _ = decoder.take(limit as u64).read_to_end(&mut inside);
    inside
}

/// This does not use the streaming decoder, which reads a whole window, whose size the sender chooses, before it returns a
/// byte.
fn zstd(mut body: &[u8], limit: usize) -> Option<Vec<u8>> {
    let mut decoder = FrameDecoder::new();
    decoder.init(&mut body).ok()?;
    let is_whole = decoder.decode_blocks(&mut body, BlockDecodingStrategy::UptoBytes(limit)).ok()?;
    let inside = decoder.collect()?;
    (is_whole && inside.len() <= limit).then_some(inside)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    const TOKEN: &[u8] = br#"{"access_token":"2YotnFZFEjr1zCsicMWpAA","token_type":"bearer","expires_in":3600}"#;
    const LIMIT: usize = 1 << 20;

    fn gzip(body: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(body).unwrap();
        encoder.finish().unwrap()
    }

    fn zlib(body: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(body).unwrap();
        encoder.finish().unwrap()
    }

    fn deflate(body: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(body).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(body: &[u8]) -> Vec<u8> {
        ruzstd::encoding::compress_to_vec(body, ruzstd::encoding::CompressionLevel::Fastest)
    }

    /// `TOKEN` by the reference implementation of brotli.
    fn brotli() -> Vec<u8> {
        base64::Engine::decode(
            &base64::engine::general_purpose::STANDARD,
            include_str!("test_data/token.br.base64").trim(),
        )
        .unwrap()
    }

    fn labelled(label: Option<&str>) -> HeaderMap {
        label.into_iter().map(|label| (header::CONTENT_ENCODING, label.parse().unwrap())).collect()
    }

    #[test]
    fn every_coding_is_decoded_whatever_its_label() {
        for coded in [gzip(TOKEN), zlib(TOKEN), deflate(TOKEN), zstd(TOKEN), brotli(), gzip(&gzip(TOKEN))] {
            for label in
                [None, Some("gzip"), Some("x-gzip"), Some("deflate"), Some("br"), Some("zstd"), Some("identity")]
            {
                let plain = decompressed(&labelled(label), coded.clone().into(), LIMIT);
                assert_eq!(plain, TOKEN, "{label:?}: {coded:x?}");
            }
        }
    }

    #[test]
    fn a_plain_body_is_unchanged() {
        for plain in
            [TOKEN, b"", b"access_token=a&scope=b", b"\xef\xbb\xbf{}", b"{\"a\":\"\xff\"}", b"x^y", b"\xff\xfe{\0}\0"]
        {
            for label in [None, Some("gzip"), Some("br"), Some("deflate"), Some("zstd")] {
                assert_eq!(decompressed(&labelled(label), plain.into(), LIMIT), plain);
            }
        }
    }

    #[test]
    fn a_wrong_checksum_is_ignored() {
        let mut broken = gzip(TOKEN);
        let length = broken.len();
        broken[length - 8] ^= 1;
        assert_eq!(decompressed(&HeaderMap::new(), broken.clone().into(), LIMIT), TOKEN);
        broken.truncate(length - 8);
        assert_eq!(decompressed(&HeaderMap::new(), broken.into(), LIMIT), TOKEN);
    }

    #[test]
    fn a_decompression_bomb_is_truncated_at_the_limit() {
        let zeros = vec![b' '; 2 << 20];
        for bomb in [gzip(&zeros), zlib(&zeros), deflate(&zeros), zstd(&zeros), gzip(&gzip(&zeros))] {
            assert!(bomb.len() < 1 << 20);
            assert!(decompressed(&HeaderMap::new(), bomb.into(), LIMIT).len() <= LIMIT);
        }
    }
}
