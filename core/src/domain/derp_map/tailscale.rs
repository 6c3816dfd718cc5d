//! DERP maps as Tailscale and Headscale write them: the document that an operator has.

use std::collections::BTreeSet;
use std::str::FromStr;

use serde_json::{Map, Value};

use super::{DerpMap, DerpRegion, DerpServer};
use crate::domain::{DerpRegionCode, DerpRegionId, DnsName, Location, OtherFields, Text, shown};
use crate::error::{Error, Result};

type Notes = Vec<String>;

fn is_any(name: &str, names: &[&str]) -> bool {
    names.iter().any(|it| name.eq_ignore_ascii_case(it))
}

impl DerpMap {
    /// Whether a document has the form that [`from_tailscale`](Self::from_tailscale) reads, rather than
    /// that of the store: a region in it has `Nodes` or a `RegionID` and no `servers`, or is null.
    #[must_use]
    pub fn is_tailscale(document: &Value) -> bool {
        let Value::Object(fields) = document else { return false };
        // A map that was read from that form has its other fields beside its own regions.
        let Some(Value::Object(regions)) = fields.get("regions") else {
            let names = ["regions", "omitdefaultregions"];
            return fields.keys().any(|name| is_any(name, &names));
        };
        regions.values().any(|region| match region {
            Value::Object(fields) => {
                fields.keys().any(|name| is_any(name, &["nodes", "regionid"]))
                    && !fields.contains_key("servers")
            }
            other => other.is_null(),
        })
    }

    /// Reads a DERP map in Tailscale's form: `Regions` by number, with `RegionCode`, `RegionName` and `Nodes`,
    /// and of each node `HostName`, `DERPPort`, `STUNPort` and so on. Names of fields count in whatever case,
    /// as for Tailscale itself; Headscale's files have them in lower case.
    ///
    /// Gives the map, and a sentence for whatever is not as the document says. What the store has no field
    /// for stays beside the rest (`other`) under its name, the names of nodes and `OmitDefaultRegions` among
    /// them; so do values that it cannot take as they are. Regions that are null, which take one of
    /// Tailscale's away, stay in `Regions` among the other fields of the map.
    ///
    /// ```
    /// use ghostwire_store::domain::DerpMap;
    ///
    /// let document = serde_json::json!({ "OmitDefaultRegions": true, "Regions": { "900": {
    ///     "RegionID": 900, "RegionCode": "fra", "RegionName": "Frankfurt",
    ///     "Nodes": [{ "Name": "900a", "RegionID": 900, "HostName": "derp.example.com", "STUNPort": -1 }],
    /// } } });
    /// assert!(DerpMap::is_tailscale(&document));
    /// let (map, notes) = DerpMap::from_tailscale(document)?;
    /// assert!(notes.is_empty());
    /// let server = map.regions.values().flat_map(|region| &region.servers).next();
    /// assert!(server.is_some_and(|server| server.no_stun));
    /// # Ok::<(), ghostwire_store_core::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// `InvalidArgument`, naming region and field, for what is no such document, for a server without a
    /// name and an address, for ports out of range, and for what no DERP map of the store may have: too
    /// much of anything, or `InsecureForTests`.
    pub fn from_tailscale(document: Value) -> Result<(Self, Vec<String>)> {
        let mut fields = Fields::of(document, "a DERP map")?;
        let Some(Value::Object(regions)) = fields.take("Regions") else {
            return Err(Error::invalid("a DERP map in Tailscale's form has an object `Regions`"));
        };
        let (mut map, mut notes, mut codes) = (Self::default(), Notes::new(), BTreeSet::new());
        let mut removed = Map::new();
        for (number, region) in regions {
            let id: DerpRegionId = number.parse()?;
            if region.is_null() {
                notes.push(format!("region {id} is null; it stays so among the other fields"));
                removed.insert(number, region);
                continue;
            }
            let read = DerpRegion::from_tailscale(id, region, &mut codes, &mut notes);
            map.regions.insert(id, read.map_err(|error| error.with("region", id))?);
        }
        if !removed.is_empty() {
            fields.keep("Regions", removed.into());
        }
        map.other = fields.rest()?;
        map.check()?;
        Ok((map, notes))
    }
}

impl DerpRegion {
    fn from_tailscale(
        id: DerpRegionId,
        region: Value,
        codes: &mut BTreeSet<DerpRegionCode>,
        notes: &mut Notes,
    ) -> Result<Self> {
        let mut fields = Fields::of(region, "a DERP region")?;
        fields.check_number(id, format_args!("region {id}"), notes)?;
        let code = code(id, &mut fields, codes, notes)?;
        let name = fields.text("RegionName")?.unwrap_or_else(|| code.to_string());
        let mut read = Self::new(code, Text::new(name)?, Vec::new());
        read.avoid = fields.flag("Avoid")?;
        read.location = location(id, &mut fields, notes)?;
        let nodes = match fields.take("Nodes") {
            None => Vec::new(),
            Some(Value::Array(nodes)) => nodes,
            Some(_) => return Err(Error::invalid("`Nodes` of a DERP region is a list")),
        };
        for node in nodes {
            read.servers.push(DerpServer::from_tailscale(id, node, notes)?);
        }
        read.other = fields.rest()?;
        Ok(read)
    }
}

/// The code, or else one that is made of it, or of the region's number.
fn code(
    id: DerpRegionId,
    fields: &mut Fields,
    codes: &mut BTreeSet<DerpRegionCode>,
    notes: &mut Notes,
) -> Result<DerpRegionCode> {
    let given = fields.text("RegionCode")?.unwrap_or_default();
    let mut made: String = given.to_ascii_lowercase();
    made.retain(|it| it.is_ascii_lowercase() || it.is_ascii_digit() || it == '-');
    made.truncate(16);
    let made = DerpRegionCode::new(made).ok().filter(|code| !codes.contains(code));
    let code = made.map_or_else(|| DerpRegionCode::new(id.to_string()), Ok)?;
    if code.as_str() != given {
        notes.push(format!("region {id}: the code {:?} became {code}", shown(&given)));
        if !given.is_empty() {
            fields.keep("RegionCode", given.into());
        }
    }
    codes.insert(code.clone());
    Ok(code)
}

/// Tailscale leaves out what is 0, so one of the two may be missing.
fn location(id: DerpRegionId, fields: &mut Fields, notes: &mut Notes) -> Result<Option<Location>> {
    let (latitude, longitude) = (fields.degrees("Latitude")?, fields.degrees("Longitude")?);
    if latitude.is_none() && longitude.is_none() {
        return Ok(None);
    }
    match Location::new(latitude.unwrap_or_default(), longitude.unwrap_or_default()) {
        Ok(location) => Ok(Some(location)),
        Err(_) => {
            notes.push(format!("region {id}: its place is none on Earth; it has none now"));
            Ok(None)
        }
    }
}

impl DerpServer {
    fn from_tailscale(id: DerpRegionId, node: Value, notes: &mut Notes) -> Result<Self> {
        let mut fields = Fields::of(node, "a node of a DERP region")?;
        let name = fields.text("HostName")?.filter(|name| !name.is_empty());
        let ipv4 = fields.text("IPv4")?;
        let host = name.as_ref().or(ipv4.as_ref());
        let host =
            host.ok_or_else(|| Error::invalid("a node of a DERP region has a `HostName`"))?;
        if name.is_none() {
            notes.push(format!(
                "region {id}: a node without a name is called by its address {host}"
            ));
        }
        let mut read = Self::new(DnsName::new(host)?);
        let host = read.host.clone();
        read.fill(id, ipv4, &mut fields, notes).map_err(|error| error.with("host", host))?;
        read.other = fields.rest()?;
        Ok(read)
    }

    fn fill(
        &mut self,
        id: DerpRegionId,
        ipv4: Option<String>,
        fields: &mut Fields,
        notes: &mut Notes,
    ) -> Result<()> {
        fields.check_number(id, format_args!("node {} of region {id}", self.host), notes)?;
        self.ipv4 = fields.address("IPv4", ipv4, &self.host, notes);
        let ipv6 = fields.text("IPv6")?;
        self.ipv6 = fields.address("IPv6", ipv6, &self.host, notes);
        self.derp_port = port("DERPPort", fields.number("DERPPort")?)?;
        match fields.number("STUNPort")? {
            Some(-1) => self.no_stun = true,
            other => self.stun_port = port("STUNPort", other)?,
        }
        self.stun_only = fields.flag("STUNOnly")?;
        self.can_port_80 = fields.flag("CanPort80")?;
        if fields.flag("InsecureForTests")? {
            // `check` says what is wrong with it.
            fields.keep("InsecureForTests", true.into());
        }
        Ok(())
    }
}

/// 0 is the usual one.
fn port(field: &'static str, number: Option<i64>) -> Result<Option<u16>> {
    let number = number.filter(|number| *number != 0);
    let out_of_range = |_| {
        Error::invalid("a port of a DERP server is 0 to 65535, and a STUN port may be -1")
            .with("field", field)
            .with("port", number.unwrap_or_default())
    };
    number.map(u16::try_from).transpose().map_err(out_of_range)
}

/// What a document has and was not read yet.
struct Fields(Map<String, Value>);

impl Fields {
    fn of(document: Value, what: &'static str) -> Result<Self> {
        match document {
            Value::Object(fields) => Ok(Self(fields)),
            _ => Err(Error::invalid(format!("{what} is a JSON object"))),
        }
    }

    /// A field in whatever case; null is none.
    fn take(&mut self, name: &str) -> Option<Value> {
        let found = self.0.keys().find(|field| field.eq_ignore_ascii_case(name))?.clone();
        self.0.remove(&found).filter(|value| !value.is_null())
    }

    fn keep(&mut self, name: &str, value: Value) {
        self.0.insert(name.to_owned(), value);
    }

    fn rest(self) -> Result<OtherFields> {
        OtherFields::new(self.0)
    }

    fn text(&mut self, name: &'static str) -> Result<Option<String>> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(unlike(name, "a text")),
        }
    }

    fn flag(&mut self, name: &'static str) -> Result<bool> {
        match self.take(name) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(flag),
            Some(_) => Err(unlike(name, "true or false")),
        }
    }

    fn number(&mut self, name: &'static str) -> Result<Option<i64>> {
        let read = |value: Value| value.as_i64().ok_or_else(|| unlike(name, "a whole number"));
        self.take(name).map(read).transpose()
    }

    fn degrees(&mut self, name: &'static str) -> Result<Option<f64>> {
        let read = |value: Value| value.as_f64().ok_or_else(|| unlike(name, "a number"));
        self.take(name).map(read).transpose()
    }

    /// An address that is to be used in place of DNS. Any other text, by custom `none`, says that there is
    /// none, and stays.
    fn address<A: FromStr>(
        &mut self,
        name: &'static str,
        text: Option<String>,
        host: &DnsName,
        notes: &mut Notes,
    ) -> Option<A> {
        let text = text.filter(|text| !text.is_empty())?;
        let address = text.parse().ok();
        if address.is_none() {
            let given = shown(&text);
            notes.push(format!("{host}: {name} {given:?} is no address; it stays as it is"));
            self.keep(name, text.into());
        }
        address
    }

    /// The number of the region is said again in it and in each of its nodes.
    fn check_number(
        &mut self,
        id: DerpRegionId,
        what: impl std::fmt::Display,
        notes: &mut Notes,
    ) -> Result<()> {
        let said = self.number("RegionID")?.filter(|said| *said != i64::from(id.get()));
        if let Some(said) = said {
            notes.push(format!("{what} says that it is of region {said}; its place counts"));
            self.keep("RegionID", said.into());
        }
        Ok(())
    }
}

fn unlike(field: &'static str, wanted: &'static str) -> Error {
    Error::invalid("a field of a DERP map has a value of another kind")
        .with("field", field)
        .with("wanted", wanted)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What an operator has: as `tailcfg.DERPMap` is written, every field of it in use.
    fn document() -> Value {
        json!({
            "HomeParams": { "RegionScore": { "900": 0.5 } },
            "Regions": {
                "1": null,
                "900": {
                    "RegionID": 900, "RegionCode": "fra", "RegionName": "Frankfurt",
                    "Latitude": 50.11, "Longitude": 8.68, "Avoid": true, "NoMeasureNoHome": true,
                    "Nodes": [
                        { "Name": "900a", "RegionID": 900, "HostName": "derp.example.com",
                          "IPv4": "203.0.113.5", "IPv6": "2001:db8::5", "DERPPort": 8443,
                          "STUNPort": 3479, "CanPort80": true, "CertName": "cert.example.com" },
                        { "Name": "900b", "RegionID": 900, "HostName": "quiet.example.com",
                          "IPv6": "none", "STUNPort": -1, "InsecureForTests": false },
                        { "Name": "900c", "RegionID": 900, "HostName": "stun.example.com",
                          "STUNOnly": true, "STUNPort": 0, "DERPPort": 0 },
                    ],
                },
            },
            "omitDefaultRegions": true,
        })
    }

    #[test]
    fn the_document_of_an_operator_goes_in() {
        assert!(DerpMap::is_tailscale(&document()));
        let (map, notes) = DerpMap::from_tailscale(document()).unwrap();
        let own = serde_json::to_value(&map).unwrap();
        assert!(!DerpMap::is_tailscale(&own));
        assert_eq!(
            own,
            json!({
                "HomeParams": { "RegionScore": { "900": 0.5 } },
                "Regions": { "1": null },
                "omitDefaultRegions": true,
                "regions": { "900": {
                    "code": "fra", "name": "Frankfurt", "avoid": true, "NoMeasureNoHome": true,
                    "location": { "latitude": 50.11, "longitude": 8.68 },
                    "servers": [
                        { "host": "derp.example.com", "ipv4": "203.0.113.5", "ipv6": "2001:db8::5",
                          "derp_port": 8443, "stun_port": 3479, "can_port_80": true,
                          "Name": "900a", "CertName": "cert.example.com" },
                        { "host": "quiet.example.com", "no_stun": true, "IPv6": "none", "Name": "900b" },
                        { "host": "stun.example.com", "stun_only": true, "Name": "900c" },
                    ],
                } },
            })
        );
        assert_eq!(notes.len(), 2, "{notes:?}");
        assert!(notes[0].contains("region 1 is null") && notes[1].contains("IPv6"), "{notes:?}");
    }

    #[test]
    fn fields_in_lower_case_are_the_same_fields() {
        let (map, notes) = DerpMap::from_tailscale(json!({ "regions": { "900": {
            "regionid": 900, "regioncode": "fra", "regionname": "Frankfurt",
            "nodes": [{ "hostname": "derp.example.com", "stunport": -1, "stunonly": false }],
        } } }))
        .unwrap();
        let region = map.regions.values().next().unwrap();
        assert!(notes.is_empty() && region.other.is_empty(), "{notes:?}");
        assert!(region.servers[0].no_stun && region.servers[0].other.is_empty());
    }

    #[test]
    fn what_cannot_be_taken_as_it_is_stays_and_is_named() {
        let region = |id: u16, code: &str| json!({ "RegionID": id, "RegionCode": code, "Nodes": [{ "IPv4": "203.0.113.5" }] });
        let document = json!({ "Regions": {
            "901": region(901, "Myself"), "902": region(902, "myself"), "903": region(7, "東京"),
        } });
        let (map, notes) = DerpMap::from_tailscale(document).unwrap();
        let codes: Vec<_> = map.regions.values().map(|region| region.code.as_str()).collect();
        assert_eq!(codes, ["myself", "902", "903"]);
        let kept: Vec<_> =
            map.regions.values().map(|region| region.other.get("RegionCode").cloned()).collect();
        assert_eq!(kept, [Some("Myself".into()), Some("myself".into()), Some("東京".into())]);
        let last = map.regions.values().next_back().unwrap();
        assert_eq!(last.other.get("RegionID"), Some(&7.into()));
        assert_eq!(last.servers[0].host.as_str(), "203.0.113.5");
        assert_eq!(notes.len(), 7, "{notes:?}");
    }

    #[test]
    fn what_is_no_such_document_is_refused_with_its_place() {
        let node = |node: Value| json!({ "Regions": { "900": { "Nodes": [node] } } });
        for (document, said) in [
            (json!([]), "JSON object"),
            (json!({ "Regions": [] }), "Regions"),
            (json!({ "Regions": { "0": {} } }), "number=0"),
            (json!({ "Regions": { "900": [] } }), "region=900"),
            (json!({ "Regions": { "900": { "Nodes": {} } } }), "region=900"),
            (node(json!({ "Name": "900a" })), "HostName"),
            (node(json!({ "HostName": "a.example", "STUNPort": -2 })), "host=a.example"),
            (node(json!({ "HostName": "a.example", "DERPPort": -1 })), "field=DERPPort"),
            (node(json!({ "HostName": "a.example", "DERPPort": 65_536 })), "port=65536"),
            (node(json!({ "HostName": "a.example", "STUNOnly": 1 })), "field=STUNOnly"),
            (
                node(json!({ "HostName": "a.example", "InsecureForTests": true })),
                "InsecureForTests",
            ),
        ] {
            let error = DerpMap::from_tailscale(document).unwrap_err().to_string();
            assert!(error.contains(said), "{said}: {error}");
        }
    }

    #[test]
    fn the_two_forms_are_told_apart() {
        for (document, is_tailscale) in [
            (json!({ "regions": {} }), false),
            (json!({ "regions": { "900": { "code": "fra", "name": "x", "servers": [] } } }), false),
            (json!({ "regions": { "900": { "nodes": [] } } }), true),
            (json!({ "regions": { "1": null } }), true),
            (json!({ "Regions": {} }), true),
            (json!({ "Regions": { "1": null }, "regions": {}, "OmitDefaultRegions": true }), false),
            (json!({ "OmitDefaultRegions": true }), true),
            (json!([]), false),
        ] {
            assert_eq!(DerpMap::is_tailscale(&document), is_tailscale, "{document}");
        }
    }
}
