//! Lists as FerrisKey asks for them and answers them: pages by number, filters that combine, one column to
//! sort by. What it does not know it refuses, and so does this.

use gatepost_core::Timestamp;
use http::Uri;
use serde_json::{Value, json};

use crate::problem::{ErrorCode, Problem};

/// Rows of a page when nothing is said, and at most.
const LIMIT: usize = 20;
const LIMIT_MAX: usize = 100;

/// What every list asks for.
pub(super) struct Paging {
    pub(super) page: usize,
    pub(super) limit: usize,
    /// The column to sort by, if one is named.
    pub(super) order_by: Option<String>,
    pub(super) ascending: bool,
}

/// Reads a query: paging, and the filters, each at most once. An empty filter is none.
pub(super) fn read(uri: &Uri) -> Result<(Paging, Vec<(String, String)>), Problem> {
    let mut paging = Paging { page: 1, limit: LIMIT, order_by: None, ascending: false };
    let mut filters: Vec<(String, String)> = Vec::new();
    for (name, value) in form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
        let number = |most: usize| {
            let number = value.parse().ok().filter(|number| (1..=most).contains(number));
            number.ok_or_else(|| match most {
                LIMIT_MAX => bad(&name, &format!("must be 1 to {LIMIT_MAX}")),
                _ => bad(&name, "must be a whole number from 1"),
            })
        };
        match &*name {
            "page" => paging.page = number(usize::try_from(u32::MAX).unwrap_or(usize::MAX))?,
            // `per_page` is what it was called before FerrisKey had a word for it.
            "limit" | "per_page" => paging.limit = number(LIMIT_MAX)?,
            "order_by" => paging.order_by = Some(value.into_owned()),
            "order" => match &*value {
                "asc" => paging.ascending = true,
                "desc" => paging.ascending = false,
                _ => return Err(bad("order", "must be asc or desc")),
            },
            _ if value.is_empty() => {}
            _ if filters.iter().any(|(known, _)| *known == name) => return Err(bad(&name, "is given twice")),
            _ => filters.push((name.into_owned(), value.into_owned())),
        }
    }
    Ok((paging, filters))
}

/// A parameter that cannot be taken.
pub(super) fn bad(name: &str, why: &str) -> Problem {
    let shown: String = name.chars().take(64).collect();
    Problem::new(ErrorCode::MalformedJson, format!("{BAD_QUERY} `{shown}`: {why}"))
}

/// How the text of a query that is refused begins.
pub(super) const BAD_QUERY: &str = "Invalid query parameter";

/// A moment with a time and an offset.
pub(super) fn moment(name: &str, value: &str) -> Result<Timestamp, Problem> {
    value.parse().map_err(|_| bad(name, "must be an RFC 3339 time with an offset"))
}

/// `true` or `false`.
pub(super) fn flag(name: &str, value: &str) -> Result<bool, Problem> {
    value.parse().map_err(|_| bad(name, "must be true or false"))
}

/// Whether a text contains another, in any case.
pub(super) fn contains(text: &str, part: &str) -> bool {
    text.to_lowercase().contains(&part.to_lowercase())
}

impl Paging {
    /// The rows of the page asked for, and what is said of all of them.
    pub(super) fn page_of<T>(&self, rows: Vec<T>) -> (impl Iterator<Item = T> + use<T>, Value) {
        let (page, limit, total) = (self.page, self.limit, rows.len());
        let pages = total.div_ceil(limit);
        let last = pages.max(1);
        let metadata = json!({
            "page": page,
            "limit": limit,
            "total": total,
            "total_pages": pages,
            "first_page": 1,
            "last_page": last,
            "next_page": (page < last).then_some(page + 1),
            "prev_page": (page > 1).then(|| page - 1),
        });
        let from = (page - 1).saturating_mul(limit);
        (rows.into_iter().skip(from).take(limit), metadata)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paging(query: &str) -> Option<(Paging, Vec<(String, String)>)> {
        read(&format!("/x?{query}").parse().unwrap()).ok()
    }

    #[test]
    fn queries_are_read_strictly() {
        for bad in ["limit=101", "limit=0", "limit=-1", "limit=x", "page=0", "page=x", "order=up", "a=1&a=2"] {
            assert!(paging(bad).is_none(), "{bad}");
        }
        let (asked, filters) = paging("page=3&limit=100&order=asc&order_by=name&name=a%25b%20c&empty=").unwrap();
        assert_eq!((asked.page, asked.limit, asked.ascending, asked.order_by.as_deref()), (3, 100, true, Some("name")));
        assert_eq!(filters, [("name".to_owned(), "a%b c".to_owned())]);
    }

    #[test]
    fn pages_say_where_they_are() {
        let of = |query: &str, rows: usize| {
            let (page, metadata) = paging(query).unwrap().0.page_of((0..rows).collect());
            (page.collect::<Vec<_>>(), metadata)
        };
        let (rows, metadata) = of("page=2&limit=20", 134);
        assert_eq!((rows.first(), rows.len()), (Some(&20), 20));
        let expected = json!({"page": 2, "limit": 20, "total": 134, "total_pages": 7, "first_page": 1, "last_page": 7,
            "next_page": 3, "prev_page": 1});
        assert_eq!(metadata, expected);
        let (rows, metadata) = of("", 0);
        assert!(rows.is_empty());
        let expected = json!({"page": 1, "limit": 20, "total": 0, "total_pages": 0, "first_page": 1, "last_page": 1,
            "next_page": null, "prev_page": null});
        assert_eq!(metadata, expected);
        let (rows, metadata) = of("page=3", 5);
        assert!(rows.is_empty());
        assert_eq!((&metadata["next_page"], &metadata["prev_page"]), (&Value::Null, &json!(2)));
    }
}
