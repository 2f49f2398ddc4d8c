//! Plain pages, which need no script. Every text in them is escaped.

use std::fmt;

const STYLE: &str = include_str!("pages.css");
/// What a page may load: nothing.
pub(crate) const POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'";

/// A page with a heading, which is escaped, and a body of HTML.
pub(crate) fn document(heading: &str, body: &str) -> String {
    let heading = Escaped(heading);
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><title>{heading}</title>\
         <style>{STYLE}</style></head><body><main><h1>{heading}</h1>{body}</main></body></html>"
    )
}

/// A text with a capital letter at its start.
pub(crate) fn sentence(text: &str) -> String {
    let mut characters = text.chars();
    let first = characters.next().map(|first| first.to_ascii_uppercase());
    first.into_iter().chain(characters).collect()
}

/// Text that is escaped for HTML, in elements and quoted attributes.
pub(crate) struct Escaped<'a>(pub(crate) &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                _ => write!(f, "{character}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_become_markup() {
        assert_eq!(Escaped("<a href='x\"'>&").to_string(), "&lt;a href=&#39;x&quot;&#39;&gt;&amp;");
    }
}
