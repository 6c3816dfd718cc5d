//! The status as a page: what the JSON has, in tables. No scripts, nothing from elsewhere.

use std::fmt::Write;

use serde_json::Value;

const REFRESH_SECONDS: u32 = 5;
const STYLE: &str = "body{font:14px system-ui,sans-serif;margin:2em;color:#222;background:#fff}\
table{border-collapse:collapse;margin:0 0 1em}\
th,td{text-align:left;vertical-align:top;padding:.2em .8em;border-bottom:1px solid #ddd}\
th{font-weight:600}td table{margin:0}\
@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}th,td{border-color:#444}}";

/// Renders an object. `title` is what is seen first.
pub(super) fn render(title: &str, status: &Value) -> String {
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">\
         <meta http-equiv=\"refresh\" content=\"{REFRESH_SECONDS}\">\
         <meta name=\"viewport\" content=\"width=device-width\">\
         <title>{title}</title><style>{STYLE}</style><h1>{title}</h1>",
        title = Escaped(title)
    );
    write_value(&mut page, status);
    page.push_str("</html>\n");
    page
}

fn write_value(page: &mut String, value: &Value) {
    // Writing to a string does not fail.
    let _ = match value {
        Value::Object(fields) => {
            page.push_str("<table>");
            for (name, value) in fields {
                let _ = write!(page, "<tr><th>{}</th><td>", Escaped(&name.replace('_', " ")));
                write_value(page, value);
                page.push_str("</td></tr>");
            }
            write!(page, "</table>")
        }
        Value::Array(items) if items.iter().all(Value::is_object) && !items.is_empty() => {
            write_rows(page, items);
            Ok(())
        }
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(plain).collect();
            write!(page, "{}", Escaped(&items.join(", ")))
        }
        value => write!(page, "{}", Escaped(&plain(value))),
    };
}

/// A table with a column for each field of the first object.
fn write_rows(page: &mut String, items: &[Value]) {
    let mut columns: Vec<&String> = Vec::new();
    for name in items.iter().filter_map(Value::as_object).flat_map(|fields| fields.keys()) {
        if !columns.contains(&name) {
            columns.push(name);
        }
    }
    page.push_str("<table><tr>");
    for column in &columns {
        let _ = write!(page, "<th>{}</th>", Escaped(&column.replace('_', " ")));
    }
    page.push_str("</tr>");
    for item in items {
        page.push_str("<tr>");
        for column in &columns {
            page.push_str("<td>");
            if let Some(value) = item.get(column.as_str()) {
                write_value(page, value);
            }
            page.push_str("</td>");
        }
        page.push_str("</tr>");
    }
    page.push_str("</table>");
}

fn plain(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::Bool(value) => if *value { "yes" } else { "no" }.to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

struct Escaped<'t>(&'t str);

impl std::fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.chars().try_for_each(|char| match char {
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            '&' => f.write_str("&amp;"),
            '"' => f.write_str("&quot;"),
            '\'' => f.write_str("&#39;"),
            char => f.write_char(char),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_stored_cannot_make_elements() {
        let page = render("<b>", &json!({"path": "<script>alert(1)</script>", "a": ["\"&'"]}));
        assert!(!page.contains("<script") && !page.contains("<b>"), "{page}");
        assert!(page.contains("&lt;script&gt;"), "{page}");
        assert!(page.contains("&quot;&amp;&#39;"), "{page}");
    }

    #[test]
    fn objects_are_tables_and_lists_of_objects_have_columns() {
        let status = json!({"jobs": [{"job": "reap", "runs": 1}, {"job": "sweep", "error": "x"}]});
        let page = render("status", &status);
        assert!(
            page.contains(
                "<tr><th>jobs</th><td><table><tr><th>job</th><th>runs</th><th>error</th></tr>\
                 <tr><td>reap</td><td>1</td><td></td></tr><tr><td>sweep</td><td></td><td>x</td></tr>\
                 </table></td></tr>"
            ),
            "{page}"
        );
    }
}
