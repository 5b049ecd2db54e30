//! Clearing the unused parts of pages.
//!
//! What is deleted is overwritten at once (`secure_delete`). But when SQLite moves rows from one page to
//! another, it leaves the old bytes in the gap between a page's list of cells and its cells, until the
//! gap is needed. After an erasure all gaps are overwritten with zeros, a few pages in a transaction:
//! readers find those that need it, the writer looks again and clears them.

use rusqlite::{Connection, OptionalExtension};

use super::error::DbResult;
use super::writer::Tx;

/// Pages looked at in one step: 2 MiB of the usual size.
pub(super) const PAGES: u32 = 512;

/// From so many pages on (137 GB of the usual size), the first byte of a page does not tell any more
/// whether it is a page of a tree: overflow pages begin with a page's number.
const TELLING: u32 = 0x0200_0000;

/// Whether this SQLite can show its pages. It is built so by this repository's own build settings.
pub(super) fn possible(conn: &Connection) -> DbResult<bool> {
    let there = conn.prepare_cached("SELECT 1 FROM pragma_module_list WHERE name = 'sqlite_dbpage'")?.exists([])?;
    Ok(there && count(conn)? < TELLING)
}

fn count(conn: &Connection) -> DbResult<u32> {
    Ok(conn.prepare_cached("PRAGMA page_count")?.query_row([], |row| row.get(0))?)
}

fn read(conn: &Connection, number: u32) -> DbResult<Option<Vec<u8>>> {
    Ok(conn
        .prepare_cached("SELECT data FROM sqlite_dbpage WHERE pgno = ?1")?
        .query_row([number], |row| row.get(0))
        .optional()?)
}

/// The next stretch of pages.
pub(super) struct Stretch {
    /// Those with something in their gaps.
    pub(super) dirty: Vec<u32>,
    /// Where the next stretch begins, unless this is the last.
    pub(super) next: Option<u32>,
}

/// Looks at pages from `from` on.
pub(super) fn look(conn: &Connection, from: u32) -> DbResult<Stretch> {
    let last = count(conn)?;
    let end = from.saturating_add(PAGES).min(last.saturating_add(1));
    let mut dirty = Vec::new();
    for number in from..end {
        if read(conn, number)?.is_some_and(|page| cleared(&page, number).is_some()) {
            dirty.push(number);
        }
    }
    Ok(Stretch { dirty, next: (end <= last).then_some(end) })
}

/// Clears the gaps of these pages, as they are now.
pub(super) fn clear(tx: &Tx<'_>, pages: &[u32]) -> DbResult<()> {
    if count(tx.conn)? >= TELLING {
        return Ok(());
    }
    let mut write = tx.conn.prepare_cached("UPDATE sqlite_dbpage SET data = ?2 WHERE pgno = ?1")?;
    for number in pages {
        let Some(page) = read(tx.conn, *number)? else { continue };
        if let Some(page) = cleared(&page, *number) {
            write.execute((number, page))?;
        }
    }
    Ok(())
}

/// The page with zeros in its gap and its free blocks, if that changes anything. `None` for a page that
/// is not one of a tree, or does not look quite like one: nothing that is used is ever touched.
fn cleared(page: &[u8], number: u32) -> Option<Vec<u8>> {
    // The first page begins with the file's header.
    let head = if number == 1 { 100 } else { 0 };
    let short = |at: usize| page.get(at..at + 2).map(|two| usize::from(u16::from_be_bytes([two[0], two[1]])));
    let head_len = match page.get(head)? {
        0x02 | 0x05 => 12,
        0x0a | 0x0d => 8,
        _ => return None,
    };
    let cells = short(head + 3)?;
    let content = match short(head + 5)? {
        0 => 65_536,
        start => start,
    };
    let list = head + head_len;
    let gap = list + 2 * cells;
    if gap > content || content > page.len() {
        return None;
    }
    for cell in 0..cells {
        let at = short(list + 2 * cell)?;
        if at < content || at >= page.len() {
            return None;
        }
    }
    let mut unused: Vec<_> = std::iter::once(gap..content).collect();
    let mut block = short(head + 1)?;
    let mut after = content;
    while block != 0 {
        let (next, len) = (short(block)?, short(block + 2)?);
        if block < after || len < 4 || block + len > page.len() {
            return None;
        }
        // Its first four bytes say where the next one is, and how long it is.
        unused.push(block + 4..block + len);
        after = block + len;
        block = next;
    }
    let dirty = unused.iter().any(|range| page[range.clone()].iter().any(|byte| *byte != 0));
    dirty.then(|| {
        let mut page = page.to_vec();
        for range in unused {
            page[range].fill(0);
        }
        page
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(cells: &[(u16, &[u8])], block: Option<(u16, u16)>, content: u16) -> Vec<u8> {
        let mut page = vec![0xee; 512];
        page[0] = 0x0d;
        let first = block.map_or(0, |(at, _)| at);
        page[1..3].copy_from_slice(&first.to_be_bytes());
        page[3..5].copy_from_slice(&(cells.len() as u16).to_be_bytes());
        page[5..7].copy_from_slice(&content.to_be_bytes());
        page[7] = 0;
        for (index, (at, bytes)) in cells.iter().enumerate() {
            page[8 + 2 * index..10 + 2 * index].copy_from_slice(&at.to_be_bytes());
            page[usize::from(*at)..usize::from(*at) + bytes.len()].copy_from_slice(bytes);
        }
        if let Some((at, len)) = block {
            let at = usize::from(at);
            page[at..at + 2].fill(0);
            page[at + 2..at + 4].copy_from_slice(&len.to_be_bytes());
        }
        page
    }

    #[test]
    fn gaps_and_free_blocks_are_cleared_and_nothing_else() {
        let page = leaf(&[(500, &[1; 12]), (400, &[2; 20])], Some((430, 40)), 400);
        let cleared_page = cleared(&page, 2).unwrap();
        assert!(cleared_page[12..400].iter().all(|byte| *byte == 0));
        assert!(cleared_page[434..470].iter().all(|byte| *byte == 0));
        for used in [0..12, 400..434, 470..512] {
            assert_eq!(cleared_page[used.clone()], page[used]);
        }
        assert_eq!(cleared(&cleared_page, 2), None, "there is nothing left to do");
    }

    #[test]
    fn what_is_no_page_of_a_tree_is_left_alone() {
        let mut overflow = vec![0xee; 512];
        overflow[..4].copy_from_slice(&77_u32.to_be_bytes());
        assert_eq!(cleared(&overflow, 5), None);
        assert_eq!(cleared(&[0xee; 512], 5), None);
        assert_eq!(cleared(&[], 5), None);
        // A cell in the gap, a free block that is none: not quite what it seems.
        assert_eq!(cleared(&leaf(&[(100, &[1; 4])], None, 400), 5), None);
        assert_eq!(cleared(&leaf(&[(500, &[1; 4])], Some((430, 400)), 400), 5), None);
        assert_eq!(cleared(&leaf(&[], None, 4), 5), None);
    }
}
