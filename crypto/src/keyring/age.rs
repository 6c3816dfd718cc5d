//! The file format age v1 (C2SP age): a text header that wraps one file key for each recipient,
//! then the payload under that key. Only what a keyring needs of it: no armour, nothing larger than
//! a keyring.

use data_encoding::BASE64_NOPAD;
use zeroize::Zeroizing;

use crate::aead::{Key, TAG};
use crate::error::{Error, Result};
use crate::hash::{MacKey, derive};
use crate::keyring::recipient::{
    ENCAPSULATED, FILE_KEY, Identity, Recipient, WRAPPED, contributes,
};
use crate::random::{Random, draw};
use crate::secret::equal;

const VERSION: &[u8] = b"age-encryption.org/v1\n";
const COLUMNS: usize = 64;
const CHUNK: usize = 64 * 1024;
const NONCE: usize = 16;
const MOST_ARGUMENTS: usize = 16;
/// Stanzas of a recipient begin with this word.
pub(crate) const HYBRID: &str = "mlkem768x25519";

/// One section of the header.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Stanza {
    pub(crate) arguments: Vec<String>,
    pub(crate) body: Vec<u8>,
}

impl Stanza {
    pub(crate) fn new(arguments: &[&str], body: &[u8]) -> Self {
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        Self { arguments, body: body.to_vec() }
    }

    pub(crate) fn name(&self) -> &str {
        self.arguments.first().map_or("", String::as_str)
    }

    fn write(&self, into: &mut Vec<u8>) {
        into.extend_from_slice(b"->");
        for argument in &self.arguments {
            into.push(b' ');
            into.extend_from_slice(argument.as_bytes());
        }
        into.push(b'\n');
        let body = BASE64_NOPAD.encode(&self.body);
        let mut lines = body.as_bytes().chunks_exact(COLUMNS);
        for line in &mut lines {
            into.extend_from_slice(line);
            into.push(b'\n');
        }
        into.extend_from_slice(lines.remainder());
        into.push(b'\n');
    }
}

/// A header without the code at its end, as it is written and signed.
pub(crate) struct Draft(Vec<u8>);

impl Draft {
    pub(crate) fn new() -> Self {
        Self(VERSION.to_vec())
    }

    pub(crate) fn push(&mut self, stanza: &Stanza) {
        stanza.write(&mut self.0);
    }

    /// The stanza that wraps the file key for `recipient`.
    pub(crate) fn push_recipient(
        &mut self,
        recipient: &Recipient,
        file_key: &[u8; FILE_KEY],
        random: &dyn Random,
    ) -> Result<()> {
        let (encapsulated, wrapped) = recipient.wrap(file_key, random)?;
        self.push(&Stanza::new(&[HYBRID, &BASE64_NOPAD.encode(&encapsulated)], &wrapped));
        Ok(())
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The whole file.
    pub(crate) fn finish(mut self, file_key: &[u8; FILE_KEY], payload: &[u8]) -> Result<Vec<u8>> {
        self.0.extend_from_slice(b"---");
        let code = header_code(file_key, &self.0)?;
        self.0.push(b' ');
        self.0.extend_from_slice(BASE64_NOPAD.encode(&code).as_bytes());
        self.0.push(b'\n');
        self.0.extend_from_slice(payload);
        Ok(self.0)
    }
}

/// A file, read but not yet opened.
#[derive(Debug)]
pub(crate) struct File<'a> {
    /// With the place where each begins.
    pub(crate) stanzas: Vec<(usize, Stanza)>,
    /// Everything before the code.
    header: &'a [u8],
    code: [u8; 32],
    /// The sealed payload.
    pub(crate) payload: &'a [u8],
}

impl<'a> File<'a> {
    /// Reads the header.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, &'static str> {
        let mut rest =
            bytes.strip_prefix(VERSION).ok_or("it does not begin like a file of age v1")?;
        let mut stanzas = Vec::new();
        loop {
            let at = bytes.len() - rest.len();
            let line = next_line(&mut rest)?;
            if let Some(code) = line.strip_prefix(b"--- ") {
                let code = decode(code).and_then(|code| code.try_into().ok());
                let header = bytes.get(..at + 3).unwrap_or_default();
                let code = code.ok_or("the code of its header is misshapen")?;
                if stanzas.is_empty() {
                    return Err("it has no recipients");
                }
                if rest.len() < NONCE {
                    return Err("it ends with its header");
                }
                return Ok(Self { stanzas, header, code, payload: rest });
            }
            let arguments = line.strip_prefix(b"-> ").ok_or("a line of its header is misshapen")?;
            let arguments =
                arguments_of(arguments).ok_or("an argument in its header is misshapen")?;
            stanzas.push((at, Stanza { arguments, body: body_of(&mut rest)? }));
        }
    }

    /// What stands before byte `at` of the file.
    pub(crate) fn before(&self, at: usize) -> &'a [u8] {
        self.header.get(..at).unwrap_or_default()
    }

    /// The file key, if one of the stanzas is for `identity`.
    ///
    /// # Errors
    /// A stanza of this kind is misshapen, whomever it is for.
    pub(crate) fn file_key(
        &self,
        identity: &Identity,
    ) -> Result<Option<Zeroizing<[u8; FILE_KEY]>>> {
        const MISSHAPEN: Error = Error::corrupt("age file", "a recipient's stanza is misshapen");
        let hybrid = self.stanzas.iter().filter(|(_, stanza)| stanza.name() == HYBRID);
        let mut shares = Vec::new();
        for (_, stanza) in hybrid {
            let [_, encapsulated] = stanza.arguments.as_slice() else { return Err(MISSHAPEN) };
            let encapsulated = decode(encapsulated.as_bytes()).ok_or(MISSHAPEN)?;
            let encapsulated: [u8; ENCAPSULATED] =
                encapsulated.try_into().map_err(|_| MISSHAPEN)?;
            let wrapped: [u8; WRAPPED] =
                stanza.body.as_slice().try_into().map_err(|_| MISSHAPEN)?;
            if !contributes(&encapsulated) {
                return Err(MISSHAPEN);
            }
            shares.push((encapsulated, wrapped));
        }
        for (encapsulated, wrapped) in &shares {
            if let Some(key) = identity.unwrap(encapsulated, wrapped)? {
                return Ok(Some(key));
            }
        }
        Ok(None)
    }

    /// Checks the header under the file key.
    pub(crate) fn is_header_of(&self, file_key: &[u8; FILE_KEY]) -> Result<bool> {
        Ok(equal(&header_code(file_key, self.header)?, &self.code))
    }

    /// The payload; `None` if it is not what was sealed.
    pub(crate) fn open(&self, file_key: &[u8; FILE_KEY]) -> Result<Option<Zeroizing<Vec<u8>>>> {
        let Some((nonce, mut sealed)) = self.payload.split_first_chunk::<NONCE>() else {
            return Ok(None);
        };
        let key = payload_key(file_key, nonce)?;
        let mut plain = Zeroizing::new(vec![0; sealed.len()]);
        let (mut written, mut number) = (0, 0_u64);
        loop {
            let (chunk, rest) = sealed.split_at(sealed.len().min(CHUNK + TAG));
            let last = rest.is_empty();
            let Some((chunk, tag)) = chunk.split_last_chunk::<TAG>() else { return Ok(None) };
            // Only a payload without content has a chunk without.
            if chunk.is_empty() && number > 0 {
                return Ok(None);
            }
            let Some(into) = plain.get_mut(written..written + chunk.len()) else { return Ok(None) };
            if !key.open(chunk_nonce(number, last), &[], chunk, tag, into) {
                return Ok(None);
            }
            written += chunk.len();
            if last {
                plain.truncate(written);
                return Ok(Some(plain));
            }
            (sealed, number) = (rest, number + 1);
        }
    }
}

/// Seals a payload.
pub(crate) fn seal(
    file_key: &[u8; FILE_KEY],
    plain: &[u8],
    random: &dyn Random,
) -> Result<Vec<u8>> {
    let nonce: [u8; NONCE] = draw(random)?;
    let key = payload_key(file_key, &nonce)?;
    let mut sealed = nonce.to_vec();
    sealed.reserve_exact(plain.len() + (plain.len() / CHUNK + 1) * TAG);
    let (mut rest, mut number) = (plain, 0_u64);
    loop {
        let (chunk, after) = rest.split_at(rest.len().min(CHUNK));
        let at = sealed.len();
        sealed.extend_from_slice(chunk);
        let in_place = sealed.get_mut(at..).unwrap_or_default();
        let tag = key.seal(chunk_nonce(number, after.is_empty()), &[], in_place)?;
        sealed.extend_from_slice(&tag);
        if after.is_empty() {
            return Ok(sealed);
        }
        (rest, number) = (after, number + 1);
    }
}

fn header_code(file_key: &[u8; FILE_KEY], header: &[u8]) -> Result<[u8; 32]> {
    Ok(MacKey::new(derive(file_key, &[], &[b"header"])?.expose()).code(&[header]))
}

fn payload_key(file_key: &[u8; FILE_KEY], nonce: &[u8; NONCE]) -> Result<Key> {
    Key::new(derive(file_key, nonce, &[b"payload"])?.expose())
}

/// 11 bytes of number, then whether it is the last.
fn chunk_nonce(number: u64, last: bool) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce.iter_mut().skip(3).zip(number.to_be_bytes()).for_each(|(to, from)| *to = from);
    if let Some(end) = nonce.last_mut() {
        *end = u8::from(last);
    }
    nonce
}

fn next_line<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], &'static str> {
    let end = rest.iter().position(|&byte| byte == b'\n').ok_or("its header does not end")?;
    let (line, after) = rest.split_at(end);
    *rest = after.get(1..).unwrap_or_default();
    Ok(line)
}

fn arguments_of(line: &[u8]) -> Option<Vec<String>> {
    let arguments = line.split(|&byte| byte == b' ').map(|argument| {
        let visible = !argument.is_empty() && argument.iter().all(u8::is_ascii_graphic);
        visible.then(|| String::from_utf8_lossy(argument).into_owned())
    });
    arguments.collect::<Option<Vec<_>>>().filter(|arguments| arguments.len() <= MOST_ARGUMENTS)
}

fn body_of(rest: &mut &[u8]) -> Result<Vec<u8>, &'static str> {
    let mut text = Vec::new();
    loop {
        let line = next_line(rest)?;
        if line.len() > COLUMNS {
            return Err("a line of its header is too long");
        }
        text.extend_from_slice(line);
        if line.len() < COLUMNS {
            return decode(&text).ok_or("a stanza in its header is no base64");
        }
    }
}

/// From base64 in its one form: without padding, and with nothing in the bits that are left over.
fn decode(text: &[u8]) -> Option<Vec<u8>> {
    BASE64_NOPAD.decode(text).ok()
}

#[cfg(test)]
#[path = "age_tests.rs"]
mod tests;
