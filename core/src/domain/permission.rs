//! What an API key may be used for.

use super::{BoundedSet, Element, shown, text_newtype};
use crate::error::{Error, Result};

fn permission(text: &str) -> Result<Box<str>> {
    let allowed = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
    if (1..=64).contains(&text.len()) && text.bytes().all(allowed) {
        return Ok(text.into());
    }
    Err(Error::invalid(
        "a permission must be 1 to 64 visible ASCII characters other than `\"` and `\\`, such as \
         nodes:read",
    )
    .with("permission", shown(text)))
}

text_newtype! {
    /// Something that an API key may be used for, in the control plane's words: 1 to 64 visible ASCII
    /// characters other than `"` and `\`, as in a scope of OAuth 2.0 (RFC 6749, section 3.3). Byte-exact.
    ///
    /// ```
    /// use ghostwire_store::domain::Permission;
    ///
    /// assert_eq!(Permission::new("nodes:read")?.as_str(), "nodes:read");
    /// assert!(Permission::new("nodes read").is_err());
    /// # Ok::<(), ghostwire_store_core::error::Error>(())
    /// ```
    Permission, permission
}

impl Element for Permission {
    const PLURAL: &'static str = "permissions";
}

/// At most 64 permissions.
pub type PermissionSet = BoundedSet<Permission, 64>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions() {
        for good in ["a", "nodes:read", "*", "https://example.com/scope", &"x".repeat(64)] {
            assert!(Permission::new(good).is_ok(), "{good}");
        }
        for bad in ["", "a b", "a\n", "\"", "\\", "é", &"x".repeat(65)] {
            assert!(Permission::new(bad).is_err(), "{bad:?}");
        }
    }
}
