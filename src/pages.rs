//! placeholder
pub struct Page {
    pub media_type: &'static str,
    pub body: &'static [u8],
    pub content_security_policy: &'static str,
}
pub const VIEWER: Page = Page {
    media_type: "text/html; charset=utf-8",
    body: b"<!doctype html><title>Tidings</title>",
    content_security_policy: "default-src 'none'",
};
