//! Fits the columns of a table into a width: which ones stay, where they stand, how wide they are.
//!
//! Pure arithmetic for the tables of all views. A column that must go goes whole; what is left over widens the
//! columns that can use it.

/// Which side of the column a text keeps to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Align {
    /// Left.
    Left,
    /// Right: numbers.
    Right,
}

/// What a table wants of a column.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column<K> {
    /// What it shows.
    pub(crate) key: K,
    /// Its title.
    pub(crate) title: &'static str,
    /// Cells it needs.
    pub(crate) width: u16,
    /// Cells it can use when there is room.
    pub(crate) most: u16,
    /// Which side its texts keep to.
    pub(crate) align: Align,
    /// The higher, the earlier it goes; 0 never goes.
    pub(crate) rank: u8,
}

/// A column that stays.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Placed<K> {
    /// What was wanted.
    pub(crate) column: Column<K>,
    /// First cell, from the table's left side.
    pub(crate) x: u16,
    /// Cells it has.
    pub(crate) width: u16,
}

/// Places `columns` into `room` cells, one cell apart.
pub(crate) fn place<K: Copy>(columns: &[Column<K>], room: u16) -> Vec<Placed<K>> {
    let mut kept: Vec<Column<K>> = columns.to_vec();
    let need = |kept: &[Column<K>]| {
        kept.iter()
            .map(|c| u32::from(c.width) + 1)
            .sum::<u32>()
            .saturating_sub(1)
    };
    while need(&kept) > u32::from(room) {
        let Some(worst) = kept
            .iter()
            .enumerate()
            .filter(|(_, c)| c.rank > 0)
            .max_by_key(|(_, c)| c.rank)
            .map(|(i, _)| i)
        else {
            break;
        };
        kept.remove(worst);
    }
    let mut widths: Vec<u16> = kept.iter().map(|c| c.width).collect();
    let mut spare = u32::from(room).saturating_sub(need(&kept));
    while spare > 0 {
        // One cell each in turn keeps the proportions; a table has few columns and fewer spare cells.
        let mut grew = false;
        for (width, column) in widths.iter_mut().zip(&kept) {
            if spare > 0 && *width < column.most {
                *width += 1;
                spare -= 1;
                grew = true;
            }
        }
        if !grew {
            break;
        }
    }
    let mut x = 0;
    kept.into_iter()
        .zip(widths)
        .map(|(column, width)| {
            let placed = Placed { column, x, width };
            x += width + 1;
            placed
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(key: char, width: u16, most: u16, rank: u8) -> Column<char> {
        Column {
            key,
            title: "",
            width,
            most,
            align: Align::Left,
            rank,
        }
    }

    #[test]
    fn columns_go_in_the_order_of_their_rank_and_never_overlap() {
        let all = [
            column('a', 4, 4, 0),
            column('b', 6, 6, 2),
            column('c', 3, 9, 3),
            column('d', 5, 5, 1),
        ];
        let names = |room| {
            place(&all, room)
                .iter()
                .map(|p| p.column.key)
                .collect::<String>()
        };
        assert_eq!(names(21), "abcd");
        assert_eq!(names(20), "abd");
        assert_eq!(names(16), "ad");
        assert_eq!(names(9), "a");
        assert_eq!(names(1), "a", "what never goes is clipped by the pen");
        for room in 0..60 {
            let placed = place(&all, room);
            for pair in placed.windows(2) {
                assert!(pair[0].x + pair[0].width < pair[1].x);
            }
        }
        let wide = place(&all, 40);
        assert_eq!(wide[2].width, 9);
    }
}
